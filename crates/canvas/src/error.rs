//! Why something cannot be done.

use std::io;
use std::path::PathBuf;

use crate::patch::{Misfit, ParseError};
use crate::path::PathError;

/// Why something cannot be done. Whatever it is, the canvas is as it was before.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The repository cannot be opened.
    #[error("cannot open the repository {path}: {why}")]
    Repository {
        /// Which one.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A revision that the repository does not know, or that is no commit.
    #[error("`{revision}` is no commit of the repository: {why}")]
    Revision {
        /// What was asked for.
        revision: String,
        /// Why.
        why: String,
    },
    /// A path that cannot be one of a repository.
    #[error(transparent)]
    Path(#[from] PathError),
    /// There is nothing at the path.
    #[error("there is no `{0}`")]
    NotFound(String),
    /// There is something at the path already.
    #[error("there is a `{0}` already")]
    Exists(String),
    /// A path leads through a file, or to a directory where a file is meant.
    #[error("`{path}` cannot be a file: `{other}` is {what}")]
    InTheWay {
        /// What was to be a file.
        path: String,
        /// What stands in its way.
        other: String,
        /// What that is.
        what: &'static str,
    },
    /// A text that is no patch.
    #[error("this is no patch: {0}")]
    Patch(#[from] ParseError),
    /// A patch that does not fit. Nothing of it was applied.
    #[error("the patch does not fit `{path}`: {source}; nothing of it was applied")]
    Misfit {
        /// Which file.
        path: String,
        /// Which hunk, and why.
        source: Misfit,
    },
    /// More than the limit.
    #[error("{what} has {found} bytes, more than the limit of {limit}")]
    TooLarge {
        /// What.
        what: String,
        /// How large it is.
        found: u64,
        /// How large it may be.
        limit: u64,
    },
    /// A branch is not where it was expected to be: somebody else has moved it.
    #[error("the branch `{branch}` is not where it was: {why}")]
    Moved {
        /// Which branch.
        branch: String,
        /// What was expected, and what is there.
        why: String,
    },
    /// Git's objects or references cannot be read or written.
    #[error("cannot {action}: {why}")]
    Git {
        /// What was being done, as a verb.
        action: &'static str,
        /// Why.
        why: String,
    },
    /// A file or a directory cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err` on what git does.
    pub(crate) fn git<E: std::error::Error>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Git {
            action,
            why: chain(&error),
        }
    }

    /// For `map_err` on system calls.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |error| Self::Io {
            action,
            path,
            source: error.into(),
        }
    }
}

/// An error with all that led to it.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

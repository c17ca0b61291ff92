//! What can go wrong while an effect is carried out, as opposed to what a command reports of itself.

use std::io;
use std::path::PathBuf;

use runtime::EffectError;

/// Why an effect could not be carried out.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The effect's input is not what its handler takes.
    #[error("{0}")]
    InvalidInput(String),
    /// The process that supervises a command could not be started or given its order.
    #[error("cannot start supervisor {path}: {source}")]
    StartSupervisor {
        /// The binary that was to be the supervisor.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The supervisor died, or stopped answering, before it told how the command ended. Its processes were ended.
    #[error("supervisor of the command was lost before it told how the command ended")]
    SupervisorLost,
    /// The workspace or something in it could not be made or opened.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was being done, as a verb.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A tree or a file is larger than its limit.
    #[error("{what} {path} holds {found}, more than the limit of {limit}")]
    TooLarge {
        /// What kind of thing it is.
        what: &'static str,
        /// Which one.
        path: PathBuf,
        /// How much was found, with its unit, when counting stopped.
        found: String,
        /// How much is allowed, with its unit.
        limit: String,
    },
    /// A tree holds something that a snapshot cannot restore.
    #[error("workspace holds {path}, which is {what}: no snapshot can restore it")]
    Unsupported {
        /// Where it is, within the workspace.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A snapshot does not hold what was written.
    #[error("snapshot {path} is damaged: {what}")]
    DamagedSnapshot {
        /// The snapshot's file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
}

impl Error {
    /// For `map_err` on system calls: what was being done, to which path.
    pub(crate) fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }

    /// The stable word that programs see, and whether another try might help.
    fn code(&self) -> (&'static str, bool) {
        match self {
            Self::InvalidInput(_) => ("invalid_input", false),
            Self::StartSupervisor { .. } => ("spawn_failed", true),
            Self::SupervisorLost => ("supervisor_lost", true),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => ("not_found", false),
                io::ErrorKind::PermissionDenied => ("permission_denied", false),
                _ => ("io", true),
            },
            Self::TooLarge { .. } => ("too_large", false),
            Self::Unsupported { .. } => ("unsupported", false),
            Self::DamagedSnapshot { .. } => ("damaged_snapshot", false),
        }
    }
}

impl From<Error> for EffectError {
    fn from(error: Error) -> Self {
        let (code, retryable) = error.code();
        if retryable {
            Self::transient(code, error.to_string())
        } else {
            Self::permanent(code, error.to_string())
        }
    }
}

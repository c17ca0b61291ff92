//! Paths within a repository.
//!
//! What may be one is what git would check out anywhere: no empty, `.` or `..` component, none that a file system takes for
//! `.git` (HFS+ passes over some characters, NTFS over case, trailing dots and short names), no NUL. The rules are those of
//! `verify_path` in git's `read-cache.c`, as `gix-validate` has them.

use std::fmt;

use gix::bstr::{BStr, ByteSlice};
use gix::validate::path::component;

/// A path within a repository: components with `/` between them. Bytes, as git has them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoPath(Vec<u8>);

/// A path that cannot be one of a repository.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{path}` is no path within the repository: {why}")]
pub struct PathError {
    path: String,
    why: String,
}

/// How long a path may be, in bytes: that of Linux.
const LEN_MAX: usize = 4096;

impl RepoPath {
    /// Reads one. A `./` at its beginning, which people write, is taken off.
    ///
    /// # Errors
    ///
    /// Why it cannot be one.
    pub fn new(path: impl AsRef<[u8]>) -> Result<Self, PathError> {
        let given = path.as_ref();
        let wrong = |why: &str| PathError {
            path: String::from_utf8_lossy(given).into_owned(),
            why: why.to_owned(),
        };
        let path = given.strip_prefix(b"./").unwrap_or(given);
        if path.is_empty() {
            return Err(wrong("it is empty"));
        }
        if path.len() > LEN_MAX {
            return Err(wrong("it is too long"));
        }
        if path.starts_with(b"/") {
            return Err(wrong("it begins at the root of the file system"));
        }
        if path.contains(&0) {
            return Err(wrong("it holds a NUL byte"));
        }
        let options = component::Options {
            protect_windows: false,
            protect_hfs: true,
            protect_ntfs: true,
        };
        for part in path.split(|byte| *byte == b'/') {
            match part {
                b"" => return Err(wrong("it has an empty component")),
                b".." => return Err(wrong("it leads out of where it is")),
                b"." => return Err(wrong("it has a component `.`")),
                _ => {}
            }
            // A backslash is a letter like any other here; on NTFS it is not, but no file comes to lie there.
            let part = part.replace(b"\\", b"_");
            if let Err(error) = gix::validate::path::component(part.as_bstr(), None, options) {
                return Err(wrong(&error.to_string()));
            }
        }
        Ok(Self(path.to_vec()))
    }

    /// The path.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn as_bstr(&self) -> &BStr {
        self.0.as_bstr()
    }

    pub(crate) fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/')
    }

    /// All directories that it lies in, the outermost first.
    pub(crate) fn ancestors(&self) -> impl Iterator<Item = &[u8]> {
        let slashes = self.0.iter().enumerate();
        slashes
            .filter(|(_, byte)| **byte == b'/')
            .map(|(at, _)| &self.0[..at])
    }

    /// Whether it lies below a directory.
    pub(crate) fn is_below(&self, directory: &[u8]) -> bool {
        self.0.len() > directory.len()
            && self.0.starts_with(directory)
            && self.0[directory.len()] == b'/'
    }
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.as_bstr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write_is_taken() {
        for path in [
            "a",
            "src/lib.rs",
            "./a/b",
            "with space/ä",
            "a\\b",
            ".gitignore",
            "a..b",
            "x.git",
        ] {
            RepoPath::new(path).unwrap_or_else(|error| panic!("{error}"));
        }
        assert_eq!(RepoPath::new("./a").unwrap(), RepoPath::new("a").unwrap());
    }

    #[test]
    fn nothing_leads_out_of_the_repository_or_into_gits_own() {
        for path in [
            "",
            "/etc/passwd",
            "..",
            "../a",
            "a/../../b",
            "a//b",
            "a/",
            ".",
            "a/./b",
            "a\0b",
            ".git",
            ".git/config",
            "a/.git/hooks/x",
            ".GIT/config",
            "git~1/config",
            ".git./config",
            ".g\u{200c}it/config",
        ] {
            assert!(RepoPath::new(path).is_err(), "{path:?}");
        }
        assert!(RepoPath::new("x".repeat(LEN_MAX + 1)).is_err());
    }

    #[test]
    fn what_lies_below_a_directory() {
        let path = RepoPath::new("a/b/c").unwrap();
        assert!(path.is_below(b"a") && path.is_below(b"a/b"));
        assert!(!path.is_below(b"a/b/c") && !path.is_below(b"a/bc"));
        assert_eq!(path.ancestors().collect::<Vec<_>>(), [&b"a"[..], b"a/b"]);
    }
}

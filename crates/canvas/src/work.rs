//! Trees in a directory where commands run, and back.
//!
//! Commands are strangers: they may leave symlinks, sockets and files without end. So every path is opened beneath the directory
//! by the kernel, through no symlink (openat2(2), `RESOLVE_BENEATH` and `RESOLVE_NO_SYMLINKS`), what is neither file nor symlink
//! is passed over, and so is a file that is too large and was none of the tree's. What is passed over is said.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use gix::ObjectId;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::canvas::{Canvas, Content, Kind};
use crate::error::Error;
use crate::path::RepoPath;

/// What was found in a directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Paths that are new or different.
    pub changed: Vec<RepoPath>,
    /// Paths that are gone.
    pub removed: Vec<RepoPath>,
    /// What was passed over.
    pub skipped: Vec<Skipped>,
}

/// Something in a directory that was passed over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Where, as the directory has it.
    pub path: String,
    /// Why.
    pub why: String,
}

/// A directory whose entries are opened beneath it.
struct Root<'a> {
    path: &'a Path,
    fd: OwnedFd,
}

impl<'a> Root<'a> {
    fn open(path: &'a Path) -> Result<Self, Error> {
        let directory = File::open(path).map_err(Error::io("open", path))?;
        Ok(Self {
            path,
            fd: directory.into(),
        })
    }

    fn beneath(&self, path: &[u8], flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        rustix::fs::openat2(
            self.fd.as_fd(),
            path,
            flags | OFlags::CLOEXEC,
            mode,
            resolve,
        )
    }

    /// The directory that a path lies in, and its own name.
    fn parent<'p>(&self, path: &'p RepoPath) -> rustix::io::Result<(OwnedFd, &'p [u8])> {
        let bytes = path.as_bytes();
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match bytes.iter().rposition(|byte| *byte == b'/') {
            None => Ok((self.fd.try_clone().map_err(|_| Errno::MFILE)?, bytes)),
            Some(at) => Ok((
                self.beneath(&bytes[..at], flags, Mode::empty())?,
                &bytes[at + 1..],
            )),
        }
    }

    fn failed(&self, action: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> Error {
        Error::io(action, self.path.join(OsStr::from_bytes(path)))
    }

    /// What is at a path, if it is a file or a symlink.
    fn read(&self, path: &RepoPath, limit: u64) -> Result<Option<Content>, Error> {
        let bytes = path.as_bytes();
        let (parent, name) = match self.parent(path) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(None),
            Err(errno) => return Err(self.failed("open", bytes)(errno)),
        };
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        match rustix::fs::openat(&parent, name, flags, Mode::empty()) {
            Ok(fd) => {
                let file = File::from(fd);
                let io = |error| Error::io("read", self.path.join(OsStr::from_bytes(bytes)))(error);
                let metadata = file.metadata().map_err(io)?;
                if !metadata.is_file() {
                    return Ok(None);
                }
                let mut content = Vec::new();
                let io = |error: io::Error| {
                    Error::io("read", self.path.join(OsStr::from_bytes(bytes)))(error)
                };
                (&file)
                    .take(limit + 1)
                    .read_to_end(&mut content)
                    .map_err(io)?;
                if content.len() as u64 > limit {
                    return Err(Error::TooLarge {
                        what: format!("`{path}`"),
                        found: metadata.len().max(limit + 1),
                        limit,
                    });
                }
                let is_executable = metadata.permissions().mode() & 0o100 != 0;
                let kind = if is_executable {
                    Kind::Executable
                } else {
                    Kind::File
                };
                Ok(Some(Content {
                    kind,
                    bytes: content,
                }))
            }
            Err(Errno::LOOP) => {
                let target = rustix::fs::readlinkat(&parent, name, Vec::new());
                let target = target.map_err(self.failed("read the symlink", bytes))?;
                Ok(Some(Content {
                    kind: Kind::Symlink,
                    bytes: target.into_bytes(),
                }))
            }
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NXIO) => Ok(None),
            Err(errno) => Err(self.failed("open", bytes)(errno)),
        }
    }

    /// Puts something at a path, with all the directories that it lies in. What stands in the way goes.
    fn write(&self, path: &RepoPath, content: &Content) -> Result<(), Error> {
        let bytes = path.as_bytes();
        for above in path.ancestors() {
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            if self.beneath(above, flags, Mode::empty()).is_ok() {
                continue;
            }
            let directory = RepoPath::new(above)?;
            self.remove(&directory)?;
            let (parent, name) = self
                .parent(&directory)
                .map_err(self.failed("open", above))?;
            rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o777))
                .map_err(self.failed("make the directory", above))?;
        }
        self.remove(path)?;
        let (parent, name) = self.parent(path).map_err(self.failed("open", bytes))?;
        if content.kind == Kind::Symlink {
            return rustix::fs::symlinkat(content.bytes.as_slice(), &parent, name)
                .map_err(self.failed("make the symlink", bytes));
        }
        let mode = match content.kind {
            Kind::Executable => 0o777,
            _ => 0o666,
        };
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(mode))
            .map_err(self.failed("make", bytes))?;
        let io = Error::io("write", self.path.join(OsStr::from_bytes(bytes)));
        File::from(fd).write_all(&content.bytes).map_err(io)
    }

    /// Takes away what is at a path, whatever it is, and directories above it that are empty then.
    fn remove(&self, path: &RepoPath) -> Result<(), Error> {
        let bytes = path.as_bytes();
        let (parent, name) = match self.parent(path) {
            Ok(found) => found,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(()),
            Err(errno) => return Err(self.failed("open", bytes)(errno)),
        };
        match rustix::fs::unlinkat(&parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {
                // Nothing in it is followed: this is the directory itself, opened beneath the root.
                let full = self.path.join(OsStr::from_bytes(bytes));
                fs::remove_dir_all(&full).map_err(Error::io("remove", full))
            }
            Err(errno) => Err(self.failed("remove", bytes)(errno)),
        }
    }

    fn remove_empty(&self, path: &RepoPath) {
        let mut above: Vec<&[u8]> = path.ancestors().collect();
        while let Some(directory) = above.pop() {
            let Ok(directory) = RepoPath::new(directory) else {
                return;
            };
            let Ok((parent, name)) = self.parent(&directory) else {
                return;
            };
            if rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).is_err() {
                return;
            }
        }
    }
}

impl Canvas {
    /// Makes a directory hold the tree of the last step. What it holds beside that stays, unless it stands in the way or was
    /// in the tree `from`, which it held before.
    ///
    /// # Errors
    ///
    /// If something cannot be written. The directory may hold some of both trees then.
    pub fn check_out(&self, directory: &Path, from: Option<crate::TreeId>) -> Result<(), Error> {
        let root = Root::open(directory)?;
        let wanted = self.all_of(self.tree)?;
        let before = match from {
            Some(from) => self.all_of(from.0)?,
            None => BTreeMap::new(),
        };
        for path in before.keys().filter(|path| !wanted.contains_key(*path)) {
            root.remove(path)?;
            root.remove_empty(path);
        }
        for (path, (kind, id)) in wanted {
            if kind == Kind::Submodule {
                continue;
            }
            let content = Content {
                kind,
                bytes: self.read_blob(id, &path.to_string())?,
            };
            let is_there = root.read(&path, self.limits.file_bytes);
            if !matches!(is_there, Ok(Some(there)) if there == content) {
                root.write(&path, &content)?;
            }
        }
        Ok(())
    }

    /// Stages what a directory holds: what commands changed, made and removed there since it was [checked out](Self::check_out).
    /// A file that is too large is passed over if the tree has none of that name, and an error otherwise.
    ///
    /// # Errors
    ///
    /// If something cannot be read. Nothing is staged then.
    pub fn capture(&mut self, directory: &Path) -> Result<Captured, Error> {
        let root = Root::open(directory)?;
        let mut captured = Captured::default();
        let tree = self.all_of(self.tree)?;
        let mut found = BTreeMap::new();
        self.walk(&root, &tree, &mut found, &mut captured.skipped)?;
        let is_skipped = |path: &RepoPath| {
            let path = path.to_string();
            captured.skipped.iter().any(|skipped| skipped.path == path)
        };
        captured.removed = self
            .list(None)?
            .into_iter()
            .filter(|entry| {
                entry.kind != Kind::Submodule
                    && !found.contains_key(&entry.path)
                    && !is_skipped(&entry.path)
            })
            .map(|entry| entry.path)
            .collect();
        self.all_or_nothing(|canvas| {
            for path in &captured.removed {
                canvas.stage_removal(path)?;
            }
            for (path, content) in found {
                if let Some(content) = content {
                    canvas.stage_content(&path, content)?;
                    captured.changed.push(path);
                }
            }
            Ok(())
        })?;
        Ok(captured)
    }

    fn all_of(&self, tree: ObjectId) -> Result<BTreeMap<RepoPath, (Kind, ObjectId)>, Error> {
        let mut all = BTreeMap::new();
        self.entries_of(tree, &mut |path, kind, id| {
            all.insert(path, (kind, id));
        })?;
        Ok(all)
    }

    /// Finds all that a directory holds: where it is, and what it holds if that is not what the canvas has there.
    fn walk(
        &self,
        root: &Root<'_>,
        tree: &BTreeMap<RepoPath, (Kind, ObjectId)>,
        found: &mut BTreeMap<RepoPath, Option<Content>>,
        skipped: &mut Vec<Skipped>,
    ) -> Result<(), Error> {
        let mut directories = vec![Vec::new()];
        while let Some(directory) = directories.pop() {
            let shown = if directory.is_empty() {
                &b"."[..]
            } else {
                &directory
            };
            let opened = root.beneath(shown, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty());
            let opened = opened.map_err(root.failed("open", shown))?;
            let entries =
                rustix::fs::Dir::read_from(&opened).map_err(root.failed("list", shown))?;
            for entry in entries {
                let entry = entry.map_err(root.failed("list", shown))?;
                let name = entry.file_name().to_bytes();
                if matches!(name, b"." | b"..") || (directory.is_empty() && name == b".git") {
                    continue;
                }
                let mut path = directory.clone();
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
                let path = match RepoPath::new(&path) {
                    Ok(path) => path,
                    Err(error) => {
                        skipped.push(Skipped {
                            path: String::from_utf8_lossy(&path).into_owned(),
                            why: error.to_string(),
                        });
                        continue;
                    }
                };
                if tree
                    .get(&path)
                    .is_some_and(|(kind, _)| *kind == Kind::Submodule)
                {
                    continue;
                }
                let is_directory = root
                    .beneath(
                        path.as_bytes(),
                        OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW,
                        Mode::empty(),
                    )
                    .is_ok();
                if is_directory {
                    directories.push(path.as_bytes().to_vec());
                    continue;
                }
                match root.read(&path, self.limits.file_bytes) {
                    Ok(Some(content)) => {
                        // What has not changed is not kept, however much it is.
                        let is_same = self.read(&path)?.as_ref() == Some(&content);
                        found.insert(path, (!is_same).then_some(content));
                    }
                    Ok(None) => skipped.push(Skipped {
                        path: path.to_string(),
                        why: "it is neither a file nor a symlink".to_owned(),
                    }),
                    Err(error @ Error::TooLarge { .. }) if !tree.contains_key(&path) => {
                        skipped.push(Skipped {
                            path: path.to_string(),
                            why: error.to_string(),
                        });
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

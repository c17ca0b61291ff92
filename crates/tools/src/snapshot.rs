//! Snapshots of a workspace: the tree as it was before a command of class `workspace`, in one file.
//!
//! An interrupted command may have changed anything below its workspace. Restoring the snapshot gives the tree of
//! before, exactly: contents, modes, modification times, symlinks, empty directories, and nothing that was not there.
//! So running the command again is running it for the first time.
//!
//! Invariants:
//! - A snapshot under its final name is whole: it is written to another name, synced, renamed, and the directory
//!   synced. One that is damaged all the same (a CRC-32C over everything) is refused before the tree is touched.
//! - No symlink is ever followed, neither when reading nor when restoring: every access is by name, relative to an
//!   open directory, with `O_NOFOLLOW`. What a workspace points to outside is not read, written or removed.
//! - A file is restored as a new file in place of the old one, so that nothing is written through a hard link that
//!   leads out of the workspace. Hard links within it come back as separate files.
//! - Owners, access lists and extended attributes are left to the process's defaults; devices are refused.

mod archive;
mod restore;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, readlinkat, statat};

use self::archive::{Kind, Node, Writer};
use crate::error::Error;

/// The deepest nesting of directories that is taken up: each level holds a descriptor open.
const DEPTH_MAX: usize = 128;

/// How large a tree may be to have a snapshot taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotLimits {
    /// Bytes of all files together.
    pub bytes: u64,
    /// Files, directories and links together.
    pub entries: u64,
}

impl Default for SnapshotLimits {
    /// 256 MiB, 100,000 entries.
    fn default() -> Self {
        Self {
            bytes: 256 * 1024 * 1024,
            entries: 100_000,
        }
    }
}

/// A whole snapshot on disk.
#[derive(Debug)]
pub struct Snapshot {
    path: PathBuf,
}

impl Snapshot {
    /// The snapshot at `path`, if there is one.
    #[must_use]
    pub fn find(path: &Path) -> Option<Self> {
        path.is_file().then(|| Self {
            path: path.to_owned(),
        })
    }

    /// Takes a snapshot of the tree at `root` and puts it at `path`, in place of an older one.
    ///
    /// # Errors
    ///
    /// If the tree is larger than `limits`, holds a device, is nested too deep or cannot be read, or if the snapshot
    /// cannot be written. Then there is nothing new at `path`.
    pub fn take(root: &Path, path: &Path, limits: SnapshotLimits) -> Result<Self, Error> {
        let parent = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
        let partial = path.with_extension("partial");
        let taken = write_tree(root, &partial, limits)
            .and_then(|()| fs::rename(&partial, path).map_err(Error::io("rename", &partial)))
            .and_then(|()| sync_directory(parent));
        if let Err(error) = taken {
            // What is left of it is overwritten next time, if it cannot be removed now.
            let _ = fs::remove_file(&partial);
            return Err(error);
        }
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Makes the tree at `root` what it was. Interrupted in the middle, it is simply done again.
    ///
    /// # Errors
    ///
    /// If the snapshot is damaged (the tree is as it was, then), or if something in the tree cannot be changed.
    pub fn restore(&self, root: &Path) -> Result<(), Error> {
        archive::verify(&self.path)?;
        restore::restore(&self.path, root)
    }

    /// Removes the snapshot, once nobody will want it.
    ///
    /// # Errors
    ///
    /// What the system says; a snapshot that is gone already is no error.
    pub fn remove(self) -> Result<(), Error> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", self.path)(error))
            }
            _ => Ok(()),
        }
    }
}

fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|directory| directory.sync_all())
        .map_err(Error::io("sync", path))
}

fn write_tree(root: &Path, partial: &Path, limits: SnapshotLimits) -> Result<(), Error> {
    let directory = open_directory(CWD, root).map_err(Error::io("open workspace", root))?;
    let mut walk = Walk {
        root,
        partial,
        writer: Writer::create(partial)?,
        limits,
        bytes: 0,
        entries: 0,
    };
    walk.directory(&directory, &mut PathBuf::new(), 0)?;
    walk.writer.finish()
}

/// Opens a directory itself, never what a link in its place points to.
fn open_directory(parent: impl AsFd, name: impl rustix::path::Arg) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

/// The names in a directory, without `.` and `..`.
fn names(directory: impl AsFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
    }
    Ok(names)
}

/// The permission bits of a mode, set-id and sticky bits included.
fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

/// One walk over a tree.
struct Walk<'a> {
    root: &'a Path,
    partial: &'a Path,
    writer: Writer,
    limits: SnapshotLimits,
    bytes: u64,
    entries: u64,
}

impl Walk<'_> {
    /// Writes a directory: its entries in the order of their names, then what it is itself. That comes last because
    /// it is restored last: a directory that may not be written to must be filled first, and filling it changes its time.
    fn directory(
        &mut self,
        directory: &OwnedFd,
        at: &mut PathBuf,
        depth: usize,
    ) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(self.too_large(
                format!("directories nested {depth} deep"),
                format!("{DEPTH_MAX}"),
            ));
        }
        let mut entries = names(directory).map_err(Error::io("list", self.root.join(&*at)))?;
        // What an interrupted removal left is no part of the tree.
        entries.retain(|name| name != restore::ATTIC.as_bytes());
        entries.sort_unstable();
        for name in entries {
            at.push(archive::as_path(&name));
            self.entry(directory, &name, at, depth)?;
            at.pop();
        }
        let stat = rustix::fs::fstat(directory)
            .map_err(|errno| Error::io("read", self.root.join(&*at))(errno.into()))?;
        self.node(&[], &stat, Kind::DirectoryEnd, 0)
    }

    fn entry(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        at: &mut PathBuf,
        depth: usize,
    ) -> Result<(), Error> {
        let path = self.root.join(&*at);
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| Error::io("read", &path)(errno.into()))?;
        self.count(1, 0)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let directory = open_directory(parent, name).map_err(Error::io("open", &path))?;
                self.node(name, &stat, Kind::Directory, 0)?;
                self.directory(&directory, at, depth + 1)
            }
            FileType::RegularFile => self.file(parent, name, &path),
            FileType::Symlink => {
                let target = readlinkat(parent, name, Vec::new())
                    .map_err(|errno| Error::io("read link", &path)(errno.into()))?;
                let target = target.as_bytes();
                self.node(name, &stat, Kind::Symlink, target.len() as u64)?;
                self.writer
                    .bytes(target)
                    .map_err(Error::io("write", self.partial))
            }
            FileType::Fifo => self.node(name, &stat, Kind::Fifo, 0),
            FileType::Socket => self.node(name, &stat, Kind::Socket, 0),
            _ => Err(Error::Unsupported {
                path: at.clone(),
                what: "a device",
            }),
        }
    }

    fn file(&mut self, parent: &OwnedFd, name: &[u8], path: &Path) -> Result<(), Error> {
        // NONBLOCK: should a FIFO have taken the file's place, opening it must not wait for a writer.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, Mode::empty())
            .map_err(|errno| Error::io("open", path)(errno.into()))?;
        let file = File::from(file);
        let stat =
            rustix::fs::fstat(&file).map_err(|errno| Error::io("read", path)(errno.into()))?;
        let len = u64::try_from(stat.st_size).unwrap_or(0);
        self.count(0, len)?;
        self.node(name, &stat, Kind::File, len)?;
        self.writer
            .copy(file, len)
            .map_err(Error::io("copy into the snapshot", path))
    }

    fn node(&mut self, name: &[u8], stat: &Stat, kind: Kind, len: u64) -> Result<(), Error> {
        let node = Node {
            kind,
            permissions: permissions(stat),
            modified_s: stat.st_mtime,
            modified_ns: u32::try_from(stat.st_mtime_nsec).unwrap_or(0),
            name: name.to_vec(),
            len,
        };
        self.writer
            .node(&node)
            .map_err(Error::io("write", self.partial))
    }

    fn count(&mut self, entries: u64, bytes: u64) -> Result<(), Error> {
        self.entries += entries;
        self.bytes += bytes;
        if self.entries > self.limits.entries {
            let found = format!("at least {} entries", self.entries);
            return Err(self.too_large(found, format!("{} entries", self.limits.entries)));
        }
        if self.bytes > self.limits.bytes {
            let found = format!("at least {} bytes", self.bytes);
            return Err(self.too_large(found, format!("{} bytes", self.limits.bytes)));
        }
        Ok(())
    }

    fn too_large(&self, found: String, limit: String) -> Error {
        Error::TooLarge {
            what: "workspace",
            path: self.root.to_owned(),
            found,
            limit,
        }
    }
}

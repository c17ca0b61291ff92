//! Making a tree what its snapshot says.
//!
//! One pass over the snapshot, beside the tree: what is in both is replaced, what is only in the snapshot is made, and
//! what is only in the tree is removed when its directory closes.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, chmodat, fchmod, futimens, mkdirat,
    mknodat, openat, renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::archive::{self, Kind, Node, Reader};
use super::{names, open_directory, permissions};
use crate::error::Error;

/// Where nested directories are brought to be emptied, within the one they are removed from. A snapshot never holds
/// an entry of this name.
pub(super) const ATTIC: &str = ".tinkerbell-removing";

pub(super) fn restore(snapshot: &Path, root: &Path) -> Result<(), Error> {
    let directory = open_root(root)?;
    let mut restoring = Restoring {
        reader: Reader::open(snapshot)?,
        root,
    };
    restoring.directory(&directory, &mut PathBuf::new())
}

/// The workspace's own directory, whatever a command put in its place.
fn open_root(root: &Path) -> Result<OwnedFd, Error> {
    match fs::symlink_metadata(root) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(_) => {
            fs::remove_file(root).map_err(Error::io("remove", root))?;
            fs::create_dir(root).map_err(Error::io("create", root))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(root).map_err(Error::io("create", root))?;
        }
        Err(error) => return Err(Error::io("read", root)(error)),
    }
    make_accessible(CWD, root).map_err(Error::io("open workspace", root))?;
    open_directory(CWD, root).map_err(Error::io("open workspace", root))
}

struct Restoring<'a> {
    reader: Reader,
    root: &'a Path,
}

impl Restoring<'_> {
    /// Restores what is in a directory, and then the directory itself.
    fn directory(&mut self, directory: &OwnedFd, at: &mut PathBuf) -> Result<(), Error> {
        let here = self.root.join(&*at);
        let listed = names(directory).map_err(Error::io("list", &here))?;
        let mut too_many: HashSet<Vec<u8>> = listed.into_iter().collect();
        let end = loop {
            let node = self.reader.node()?;
            if node.kind == Kind::DirectoryEnd {
                break node;
            }
            let exists = too_many.remove(&node.name);
            at.push(archive::as_path(&node.name));
            self.entry(directory, &node, exists, at)?;
            at.pop();
        };
        for name in too_many {
            let path = here.join(archive::as_path(&name));
            remove(directory.as_fd(), &name).map_err(Error::io("remove", path))?;
        }
        fchmod(directory, mode(&end))
            .and_then(|()| futimens(directory, &times(&end)))
            .map_err(|errno| Error::io("restore", here)(errno.into()))
    }

    fn entry(
        &mut self,
        parent: &OwnedFd,
        node: &Node,
        exists: bool,
        at: &mut PathBuf,
    ) -> Result<(), Error> {
        let path = self.root.join(&*at);
        if node.kind == Kind::Directory {
            let directory =
                enter(parent, &node.name, exists).map_err(Error::io("restore", &path))?;
            return self.directory(&directory, at);
        }
        if exists {
            remove(parent.as_fd(), &node.name).map_err(Error::io("remove", &path))?;
        }
        match node.kind {
            Kind::File => self.file(parent, node).map_err(Error::io("restore", &path)),
            Kind::Symlink => {
                let target = self.reader.target(node.len)?;
                symlinkat(target.as_slice(), parent, node.name.as_slice())
                    .and_then(|()| set_times(parent, node))
                    .map_err(|errno| Error::io("restore", &path)(errno.into()))
            }
            Kind::Fifo => {
                make_node(parent, node, FileType::Fifo).map_err(Error::io("restore", &path))
            }
            Kind::Socket => {
                make_node(parent, node, FileType::Socket).map_err(Error::io("restore", &path))
            }
            Kind::Directory | Kind::DirectoryEnd => unreachable!("because both are handled above"),
        }
    }

    fn file(&mut self, parent: &OwnedFd, node: &Node) -> io::Result<()> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(
            parent,
            node.name.as_slice(),
            flags,
            Mode::RUSR | Mode::WUSR,
        )?);
        self.reader.copy_to(&mut file, node.len)?;
        fchmod(&file, mode(node))?;
        futimens(&file, &times(node))?;
        Ok(())
    }
}

/// Opens the directory of a name, made anew if something else, or nothing, is there.
fn enter(parent: &OwnedFd, name: &[u8], exists: bool) -> io::Result<OwnedFd> {
    if exists {
        let stat = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            make_accessible(parent, name)?;
            return open_directory(parent, name);
        }
        remove(parent.as_fd(), name)?;
    }
    mkdirat(parent, name, Mode::RWXU)?;
    open_directory(parent, name)
}

fn make_node(parent: &OwnedFd, node: &Node, kind: FileType) -> io::Result<()> {
    mknodat(parent, node.name.as_slice(), kind, mode(node), 0)?;
    // Not a link, since it was just made; so the mode goes where it is meant to, past the umask.
    chmodat(parent, node.name.as_slice(), mode(node), AtFlags::empty())?;
    set_times(parent, node)?;
    Ok(())
}

fn set_times(parent: &OwnedFd, node: &Node) -> rustix::io::Result<()> {
    utimensat(
        parent,
        node.name.as_slice(),
        &times(node),
        AtFlags::SYMLINK_NOFOLLOW,
    )
}

fn mode(node: &Node) -> Mode {
    Mode::from_raw_mode(node.permissions)
}

fn times(node: &Node) -> Timestamps {
    let modified = Timespec {
        tv_sec: node.modified_s,
        tv_nsec: node.modified_ns.into(),
    };
    Timestamps {
        last_access: modified,
        last_modification: modified,
    }
}

/// Gives a directory the permissions that listing and emptying it need. It is one: nobody else is at work here.
fn make_accessible<P: rustix::path::Arg + Copy>(parent: impl AsFd, name: P) -> io::Result<()> {
    let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if is_directory && permissions(&stat) & 0o700 != 0o700 {
        let mode = Mode::from_raw_mode(permissions(&stat) | 0o700);
        chmodat(&parent, name, mode, AtFlags::empty())?;
    }
    Ok(())
}

/// Removes whatever has this name, with all that is below it.
///
/// However deep that is, one descriptor at a time is open, and no path grows: a directory found within another is
/// first moved up beside it. (A command can nest directories deeper than there are descriptors or stack.)
fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        // EISDIR on Linux, EPERM by POSIX.
        Err(Errno::ISDIR | Errno::PERM) => {}
        // An attic that was listed, and went with the removal of something else.
        Err(Errno::NOENT) => return Ok(()),
        done => return Ok(done?),
    }
    match mkdirat(parent, ATTIC, Mode::RWXU) {
        Ok(()) => {}
        // Of an earlier removal that was interrupted, unless a command made it: then it is not in the snapshot either.
        Err(Errno::EXIST) => {
            let stat = statat(parent, ATTIC, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                unlinkat(parent, ATTIC, AtFlags::empty())?;
                mkdirat(parent, ATTIC, Mode::RWXU)?;
            }
        }
        Err(error) => return Err(error.into()),
    }
    make_accessible(parent, ATTIC)?;
    let attic = open_directory(parent, ATTIC)?;
    let mut moved = 0u64;
    if name != ATTIC.as_bytes() {
        make_accessible(parent, name)?;
        move_up(parent, name, &attic, &mut moved)?;
    }
    loop {
        let doomed = names(&attic)?;
        if doomed.is_empty() {
            break;
        }
        for name in doomed {
            empty(&attic, &name, &mut moved)?;
        }
    }
    Ok(unlinkat(parent, ATTIC, AtFlags::REMOVEDIR)?)
}

/// Removes an entry of the attic; directories in it become entries of the attic themselves.
fn empty(attic: &OwnedFd, name: &[u8], moved: &mut u64) -> io::Result<()> {
    match unlinkat(attic, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        done => return Ok(done?),
    }
    make_accessible(attic, name)?;
    let directory = open_directory(attic, name)?;
    for inner in names(&directory)? {
        match unlinkat(&directory, inner.as_slice(), AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => {
                make_accessible(&directory, inner.as_slice())?;
                move_up(directory.as_fd(), &inner, attic, moved)?;
            }
            done => done?,
        }
    }
    Ok(unlinkat(attic, name, AtFlags::REMOVEDIR)?)
}

/// Moves a directory into the attic, under the next number that is free there.
fn move_up(from: BorrowedFd<'_>, name: &[u8], attic: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let number = moved.to_string();
        // Never onto another entry: a rename would replace an empty directory.
        match statat(attic, number.as_str(), AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(renameat(from, name, attic, number.as_str())?),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

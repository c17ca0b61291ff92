//! [`OsStorage`]: the machine's own files, by plain `pread`, `pwrite` and `fdatasync`.
//!
//! The one idea: nothing clever. No memory maps (an I/O error would be a signal instead of a value),
//! no `O_DIRECT` (a log is read once, at boot, and then from the page cache), no asynchronous
//! submission (one thread writes, and it waits for the disk anyway).
//!
//! Invariants: files are made 0600 and directories 0700, since a log holds whatever its jobs saw; a
//! new directory is made durable in its parent.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::{Access, Lock, LockGuard, Storage, StorageFile};

/// How much is written at once where the file system cannot reserve space by itself.
const ZERO_CHUNK_BYTES: usize = 1 << 20;

/// The real file system, clock and source of randomness.
#[derive(Debug)]
pub struct OsStorage {
    started: Instant,
}

impl OsStorage {
    /// The machine this runs on.
    #[must_use]
    pub fn new() -> Self {
        OsStorage {
            started: Instant::now(),
        }
    }
}

impl Default for OsStorage {
    fn default() -> Self {
        OsStorage::new()
    }
}

impl Storage for OsStorage {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        let parent = match dir.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        self.create_dir_all(parent)?;
        match DirBuilder::new().mode(0o700).create(dir) {
            Ok(()) => self.sync_dir(parent),
            // Another thread may have made it since we looked; a file of that name is an error.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir)? {
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn StorageFile>> {
        let mut options = OpenOptions::new();
        options.read(true);
        match access {
            Access::Read => {}
            Access::Write => {
                options.write(true);
            }
            Access::Create => {
                options.write(true).create(true).truncate(true).mode(0o600);
            }
        }
        Ok(Box::new(OsFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        File::open(dir)?.sync_all()
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        let mut options = OpenOptions::new();
        // Not emptied on opening: it is not ours yet, and its holder's id is in it.
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let mut file = options.open(path)?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0)?;
                Ok(Lock::Held(Box::new(OsLock { _file: file })))
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Who holds it is a courtesy: a file that cannot be read as a number names nobody.
                let pid = file
                    .read_to_string(&mut text)
                    .ok()
                    .and_then(|_| text.trim().parse().ok());
                Ok(Lock::Taken { pid })
            }
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }

    fn unix_ms(&self) -> u64 {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }

    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        File::open("/dev/urandom")?.read_exact(bytes)
    }
}

/// The kernel releases the lock with the last descriptor.
#[derive(Debug)]
struct OsLock {
    _file: File,
}

impl LockGuard for OsLock {}

#[derive(Debug)]
struct OsFile(File);

impl StorageFile for OsFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.0.read_at(&mut buf[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, bytes) {
                Ok(()) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return self.allocate_by_writing(bytes),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        match rustix::fs::seek(&self.0, SeekFrom::Data(offset)) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::NXIO) => Ok(None),
            // A file system that does not know its holes: every byte may be data.
            Err(_) => Ok((offset < self.length()?).then_some(offset)),
        }
    }

    fn expect_random_reads(&self) {
        // That the hint is not taken costs time only.
        let _ = rustix::fs::fadvise(&self.0, 0, None, rustix::fs::Advice::Random);
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        match rustix::fs::seek(&self.0, SeekFrom::Hole(offset)) {
            Ok(found) => Ok(found),
            Err(_) => self.length(),
        }
    }
}

impl OsFile {
    /// Reserves space the old way, where `fallocate` is not to be had: by filling the file up.
    fn allocate_by_writing(&self, bytes: u64) -> io::Result<()> {
        let zeros = vec![0; ZERO_CHUNK_BYTES];
        let mut offset = self.length()?;
        while offset < bytes {
            let count = (bytes - offset).min(ZERO_CHUNK_BYTES as u64);
            self.0.write_all_at(&zeros[..count as usize], offset)?;
            offset += count;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a file system without `fallocate` gets is the same: room up to there, nothing of what was written lost.
    #[test]
    fn room_is_reserved_the_old_way_as_well() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = |name| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true);
            OsFile(options.open(dir.path().join(name)).expect("a new file"))
        };
        let chunk = ZERO_CHUNK_BYTES as u64;
        for (n, bytes) in [1, chunk - 1, chunk, 2 * chunk + 4096]
            .into_iter()
            .enumerate()
        {
            let (old, new) = (file(format!("old-{n}")), file(format!("new-{n}")));
            for file in [&old, &new] {
                file.write_all_at(b"begun", 0).expect("a write");
            }
            old.allocate_by_writing(bytes).expect("room");
            new.allocate(bytes).expect("room");
            let bytes = bytes.max(5);
            assert_eq!(old.length().expect("a length"), bytes);
            assert_eq!(new.length().expect("a length"), bytes);
            let mut content = vec![0xff; bytes as usize + 1];
            let count = old.read_at(&mut content, 0).expect("a read");
            assert_eq!(count as u64, bytes);
            assert_eq!(content[..5], *b"begun");
            assert!(
                content[5..count].iter().all(|&byte| byte == 0),
                "{bytes} bytes"
            );
        }
    }

    /// Only an interruption is tried again.
    #[test]
    fn what_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let opened = OsStorage::new().open(dir.path(), Access::Read);
        let read = opened.expect("a directory").read_at(&mut [0; 8], 0);
        assert_eq!(
            read.map_err(|error| error.kind()),
            Err(io::ErrorKind::IsADirectory)
        );
    }
}

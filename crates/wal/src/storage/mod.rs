//! The layer between the log and the machine: files, directory entries, the clock, randomness.
//!
//! The one idea: the log's promises are about what survives, so everything it asks of the world goes
//! through two small traits whose contract is about durability and nothing else. [`OsStorage`] is
//! the real one. [`crate::sim::MemStorage`] is a disk in memory that forgets what was not synced,
//! runs full and fails on demand, on a clock that only moves when told to.
//!
//! Invariants an implementation keeps:
//! - written bytes may reach the disk at any time, but are sure to be there only after a sync of the
//!   file; created, renamed and removed names only after a sync of their directory;
//! - a sector of 512 bytes is written as a whole or not at all;
//! - bytes that were allocated and never written read as zeros;
//! - after a failed sync nothing is known about the bytes it was to make durable.

mod os;

pub use os::OsStorage;

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::time::Duration;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A new, empty file, for reading and writing; an existing one is emptied.
    Create,
}

/// What came of trying to take a lock.
#[derive(Debug)]
pub enum Lock {
    /// It is ours until the guard is dropped or the process ends.
    Held(Box<dyn LockGuard>),
    /// Somebody else has it: the process id written in the file, if there is one.
    Taken {
        /// The holder.
        pid: Option<u32>,
    },
}

/// Keeps a lock for as long as it lives.
pub trait LockGuard: Any + Debug + Send + Sync {}

/// A place where a log can live.
pub trait Storage: Debug + Send + Sync {
    /// Makes a directory and its missing parents, durably.
    ///
    /// # Errors
    /// What the system said; that the directory exists is not an error.
    fn create_dir_all(&self, dir: &Path) -> io::Result<()>;

    /// The names in a directory that are valid UTF-8, in byte order.
    ///
    /// # Errors
    /// What the system said.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Opens a file.
    ///
    /// # Errors
    /// What the system said.
    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn StorageFile>>;

    /// Renames a file, replacing what has the new name, in one step.
    ///
    /// # Errors
    /// What the system said.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// What the system said.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// What the system said; nothing is known about those names then.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the lock file `path`, making it if need be, and writes our process id into it.
    ///
    /// # Errors
    /// What the system said; that somebody holds it is not an error.
    fn lock(&self, path: &Path) -> io::Result<Lock>;

    /// Time since some fixed moment, never going back.
    fn monotonic(&self) -> Duration;

    /// Wall-clock time in milliseconds since 1970.
    fn unix_ms(&self) -> u64;

    /// Fills `bytes` at random.
    ///
    /// # Errors
    /// What the system said.
    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()>;
}

/// An open file. Positions are given with each call: the handle has none.
pub trait StorageFile: Debug + Send + Sync {
    /// Reads from `offset` on until `buf` is full or the file ends; returns how many bytes.
    ///
    /// # Errors
    /// What the system said.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    /// What the system said; any part may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes written bytes, and the length needed to read them, durable.
    ///
    /// # Errors
    /// What the system said; nothing is known about those bytes then, and asking again is no help:
    /// Linux reports a failed write-back once and then takes the pages for clean.
    fn sync_data(&self) -> io::Result<()>;

    /// Reserves room for `bytes` bytes and makes the file at least that long. What was there stays,
    /// the rest reads as zeros, and writing within needs no more space.
    ///
    /// # Errors
    /// What the system said, [`io::ErrorKind::StorageFull`] when there is no room.
    fn allocate(&self, bytes: u64) -> io::Result<()>;

    /// The length in bytes.
    ///
    /// # Errors
    /// What the system said.
    fn length(&self) -> io::Result<u64>;

    /// The first place at or after `offset` where the file may hold something other than zeros, or
    /// `None` when there is none. It spares recovery the reading of a preallocated tail.
    ///
    /// # Errors
    /// What the system said.
    fn next_data(&self, offset: u64) -> io::Result<Option<u64>>;

    /// Says that what is read next says nothing of what will be read then: nothing is to be read ahead. A hint.
    fn expect_random_reads(&self) {}

    /// The first place at or after `offset`, where there is data, from which on the file is known to hold zeros up to
    /// the next data; the file's length if there is none.
    ///
    /// # Errors
    /// What the system said.
    fn next_hole(&self, offset: u64) -> io::Result<u64>;
}

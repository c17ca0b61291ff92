//! [`BlobStore`]: payloads too large for a record, kept as files that are named by their content.
//!
//! The one idea: a name that is the SHA-256 of the content needs no index, is shared by equal
//! contents, and is its own check: `sha256sum` on the file prints its name.
//!
//! Invariants:
//! - once [`BlobStore::put`] has returned, the blob survives a crash, so that a log entry naming it
//!   may be written;
//! - a file under a blob's name was complete and synced before it got that name;
//! - no content is handed out that does not match its name.
//!
//! Files lie in 256 directories by the first byte of the name, which keeps listings short.

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest as _, Sha256};
use thiserror::Error;

use crate::error::{Failure, is_no_space};
use crate::storage::{Access, Storage, StorageFile};

const UNFINISHED_SUFFIX: &str = ".tmp";

/// The name of a blob: the SHA-256 of its content. Written and parsed as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobId(pub [u8; 32]);

impl BlobId {
    /// The name of the blob with this content.
    #[must_use]
    pub fn of(content: &[u8]) -> Self {
        BlobId(Sha256::digest(content).into())
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobId({self})")
    }
}

impl FromStr for BlobId {
    type Err = ParseBlobIdError;

    fn from_str(text: &str) -> Result<Self, ParseBlobIdError> {
        let digit = |byte: u8| match byte {
            b'0'..=b'9' => Ok(byte - b'0'),
            b'a'..=b'f' => Ok(byte - b'a' + 10),
            _ => Err(ParseBlobIdError),
        };
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let mut id = [0; 32];
        if pairs.len() != id.len() || !rest.is_empty() {
            return Err(ParseBlobIdError);
        }
        for (byte, &[high, low]) in id.iter_mut().zip(pairs) {
            *byte = digit(high)? << 4 | digit(low)?;
        }
        Ok(BlobId(id))
    }
}

/// A text is not the name of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a blob id is 64 lower-case hex digits")]
pub struct ParseBlobIdError;

/// Why a blob could not be kept or had.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum BlobError {
    /// There is no such blob.
    #[error("there is no blob {id}")]
    Missing {
        /// Its name.
        id: BlobId,
    },
    /// The file is there, but holds something else.
    #[error("blob {} is damaged: its content has hash {found}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The name it was asked for by.
        expected: BlobId,
        /// What the content would be called.
        found: BlobId,
    },
    /// There is no room. The blob may be put again once there is space.
    #[error("no space for a blob: {0}")]
    NoSpace(Failure),
    /// The file system refused.
    #[error(transparent)]
    Io(Failure),
}

impl BlobError {
    fn io(action: &'static str, path: &Path, error: io::Error) -> Self {
        let no_space = is_no_space(&error);
        let failure = Failure::new(action, path, error);
        if no_space {
            BlobError::NoSpace(failure)
        } else {
            BlobError::Io(failure)
        }
    }
}

/// A directory of blobs. It may be used from many threads at once.
///
/// ```
/// # use std::sync::Arc;
/// use wal::{BlobStore, sim::MemStorage};
///
/// let blobs = BlobStore::open("/blobs", Arc::new(MemStorage::new(1)))?;
/// let id = blobs.put(b"abc")?;
/// assert!(id.to_string().starts_with("ba7816bf8f01cfea"));
/// assert_eq!(blobs.get(id)?, b"abc");
/// # Ok::<(), wal::BlobError>(())
/// ```
#[derive(Debug)]
pub struct BlobStore {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    /// Tells this opening's unfinished files from those that a crash left behind.
    opening: String,
    unfinished_count: AtomicU64,
}

impl BlobStore {
    /// Opens the blobs in `dir`, which is made if need be.
    ///
    /// # Errors
    /// [`BlobError::Io`] and [`BlobError::NoSpace`].
    pub fn open(dir: impl Into<PathBuf>, storage: Arc<dyn Storage>) -> Result<Self, BlobError> {
        let dir = dir.into();
        storage
            .create_dir_all(&dir)
            .map_err(|error| BlobError::io("create", &dir, error))?;
        let mut opening = [0; 8];
        storage
            .fill_random(&mut opening)
            .map_err(|error| BlobError::io("choose random names in", &dir, error))?;
        let opening = format!("{:016x}", u64::from_le_bytes(opening));
        Ok(BlobStore {
            storage,
            dir,
            opening,
            unfinished_count: AtomicU64::new(0),
        })
    }

    /// Keeps a blob, durably, and returns its name. A blob that is there already is shared.
    ///
    /// # Errors
    /// [`BlobError::Io`] and [`BlobError::NoSpace`].
    pub fn put(&self, content: &[u8]) -> Result<BlobId, BlobError> {
        let id = BlobId::of(content);
        self.put_all([(id, content)])?;
        Ok(id)
    }

    /// Keeps several blobs whose names are known; durable on return. Directories are synced once each.
    ///
    /// # Errors
    /// [`BlobError::Io`] and [`BlobError::NoSpace`]; some of the blobs may be there then.
    pub fn put_all<'a>(
        &self,
        blobs: impl IntoIterator<Item = (BlobId, &'a [u8])>,
    ) -> Result<(), BlobError> {
        let mut dirs = BTreeSet::new();
        for (id, content) in blobs {
            debug_assert_eq!(id, BlobId::of(content), "a blob is named by its content");
            let dir = self.dir_of(id);
            if !self.holds(id, content)? {
                self.write(&dir, id, content)?;
            }
            // A shared blob's name may have been given just before a crash of the process, and
            // not be durable yet.
            dirs.insert(dir);
        }
        #[cfg(planted)]
        dirs.retain(|_| !crate::planted::is("blob-directory-sync-dropped"));
        for dir in dirs {
            self.storage
                .sync_dir(&dir)
                .map_err(|error| BlobError::io("sync", &dir, error))?;
        }
        Ok(())
    }

    /// The content of a blob, checked against its name.
    ///
    /// # Errors
    /// [`BlobError::Missing`], [`BlobError::Damaged`], [`BlobError::Io`].
    pub fn get(&self, id: BlobId) -> Result<Vec<u8>, BlobError> {
        let content = self.read(id)?.ok_or(BlobError::Missing { id })?;
        let found = BlobId::of(&content);
        if found != id {
            return Err(BlobError::Damaged {
                path: self.path_of(id),
                expected: id,
                found,
            });
        }
        Ok(content)
    }

    /// Removes a blob that no entry names any more; says whether it was there. Not durable: after a
    /// crash the blob may be back, and whoever collects blobs will find it again.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn remove(&self, id: BlobId) -> Result<bool, BlobError> {
        let path = self.path_of(id);
        match self.storage.remove(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(BlobError::io("remove", &path, error)),
        }
    }

    /// The names of all blobs, in order.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn list(&self) -> Result<Vec<BlobId>, BlobError> {
        let mut ids = Vec::new();
        self.for_each_file(|_, name| {
            ids.extend(name.parse::<BlobId>());
            Ok(())
        })?;
        Ok(ids)
    }

    /// Removes the unfinished files of earlier openings; returns how many there were. It looks into
    /// every directory, so it is for a quiet moment and not for the way to readiness.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn remove_unfinished(&self) -> Result<u64, BlobError> {
        let mut removed = 0;
        self.for_each_file(|dir, name| {
            if name.ends_with(UNFINISHED_SUFFIX) && !name.starts_with(&self.opening) {
                let path = dir.join(name);
                self.storage
                    .remove(&path)
                    .map_err(|error| BlobError::io("remove", &path, error))?;
                removed += 1;
            }
            Ok(())
        })?;
        Ok(removed)
    }

    /// The file of a blob, for tools that want to read it themselves.
    #[must_use]
    pub fn path_of(&self, id: BlobId) -> PathBuf {
        self.dir_of(id).join(id.to_string())
    }

    fn dir_of(&self, id: BlobId) -> PathBuf {
        self.dir.join(format!("{:02x}", id.0[0]))
    }

    /// Whether the blob is there and sound. One that is damaged is written again.
    fn holds(&self, id: BlobId, content: &[u8]) -> Result<bool, BlobError> {
        Ok(self.read(id)?.is_some_and(|found| found == content))
    }

    fn read(&self, id: BlobId) -> Result<Option<Vec<u8>>, BlobError> {
        let path = self.path_of(id);
        let fail = |error| BlobError::io("read", &path, error);
        let file = match self.storage.open(&path, Access::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(fail(error)),
        };
        let mut content = vec![0; file.length().map_err(fail)? as usize];
        let count = file.read_at(&mut content, 0).map_err(fail)?;
        content.truncate(count);
        Ok(Some(content))
    }

    /// Writes a blob under a name of its own and gives it its right name once it is durable.
    fn write(&self, dir: &Path, id: BlobId, content: &[u8]) -> Result<(), BlobError> {
        self.storage
            .create_dir_all(dir)
            .map_err(|error| BlobError::io("create", dir, error))?;
        let number = self.unfinished_count.fetch_add(1, Ordering::Relaxed);
        let unfinished = dir.join(format!("{}-{number}{UNFINISHED_SUFFIX}", self.opening));
        let written = self
            .storage
            .open(&unfinished, Access::Create)
            .and_then(|file| fill(&*file, content))
            .and_then(|()| self.storage.rename(&unfinished, &self.path_of(id)));
        written.map_err(|error| {
            // On a full disk every byte counts; that this fails too would be no news.
            let _ = self.storage.remove(&unfinished);
            BlobError::io("write", &unfinished, error)
        })
    }

    fn for_each_file(
        &self,
        mut visit: impl FnMut(&Path, &str) -> Result<(), BlobError>,
    ) -> Result<(), BlobError> {
        let list = |dir: &Path| {
            self.storage
                .list(dir)
                .map_err(|error| BlobError::io("list", dir, error))
        };
        for name in list(&self.dir)? {
            if name.len() != 2 || u8::from_str_radix(&name, 16).is_err() {
                continue;
            }
            let dir = self.dir.join(name);
            for name in list(&dir)? {
                visit(&dir, &name)?;
            }
        }
        Ok(())
    }
}

fn fill(file: &dyn StorageFile, content: &[u8]) -> io::Result<()> {
    file.write_all_at(content, 0)?;
    #[cfg(planted)]
    if crate::planted::is("blob-sync-dropped") {
        return Ok(());
    }
    file.sync_data()
}

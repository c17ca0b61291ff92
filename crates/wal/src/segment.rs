//! Segment files: their names, how they come into being and how they are found again.
//!
//! The one idea: a segment is made under the name `spare`, well before it is needed, and gets its
//! own name only when its room is reserved, its header is on the disk and everything in the segment
//! before it is durable. So a file with a segment's name always has a good header (a bad one is
//! damage, never a crash), a full disk is noticed one whole segment early, and the last segment is
//! the only one that a crash can leave unfinished.
//!
//! Invariant: names sort like the LSNs in them.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Failure, ReadError, is_no_space};
use crate::format::{FORMAT_VERSION, HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::storage::{Access, Storage, StorageFile};
use crate::{Damage, DamageKind, Lsn};

/// The next segment while it has no name of its own.
pub(crate) const SPARE_FILE_NAME: &str = "spare";
/// The file whose lock says that the log is open for writing.
pub(crate) const LOCK_FILE_NAME: &str = "LOCK";

const SUFFIX: &str = ".wal";

/// `Lsn(42)` begins `000000000000002a.wal`.
pub(crate) fn file_name(first_lsn: Lsn) -> String {
    format!("{:016x}{SUFFIX}", first_lsn.0)
}

/// The first LSN in a segment's name; `None` for every other file.
fn parse_file_name(name: &str) -> Option<Lsn> {
    let digits = name.strip_suffix(SUFFIX)?;
    let lsn = u64::from_str_radix(digits, 16).ok().map(Lsn)?;
    // Exactly the names we write: no signs, no capitals, no missing zeros.
    (file_name(lsn) == name && lsn >= Lsn::FIRST).then_some(lsn)
}

/// The segments in a directory by their first LSN, oldest first.
pub(crate) fn list(storage: &dyn Storage, dir: &Path) -> Result<Vec<Lsn>, ReadError> {
    let names = storage
        .list(dir)
        .map_err(|error| ReadError::io("list", dir, error))?;
    Ok(names
        .iter()
        .filter_map(|name| parse_file_name(name))
        .collect())
}

/// An open segment whose header has been checked.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) file: Box<dyn StorageFile>,
    pub(crate) path: PathBuf,
    pub(crate) header: SegmentHeader,
}

impl Segment {
    pub(crate) fn open(
        storage: &dyn Storage,
        dir: &Path,
        first_lsn: Lsn,
        access: Access,
    ) -> Result<Self, ReadError> {
        let path = dir.join(file_name(first_lsn));
        let file = storage
            .open(&path, access)
            .map_err(|error| ReadError::io("open", &path, error))?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        // A file that is too short leaves zeros here, which are no header.
        file.read_at(&mut bytes, 0)
            .map_err(|error| ReadError::io("read", &path, error))?;
        let damaged = |what| Damage {
            file: path.clone(),
            offset: 0,
            lsn: first_lsn,
            what,
        };
        let header = match SegmentHeader::decode(&bytes) {
            Ok(header) => header,
            Err(HeaderError::Damaged) => return Err(damaged(DamageKind::SegmentHeader).into()),
            Err(HeaderError::Newer(found)) => {
                let supported = FORMAT_VERSION;
                return Err(ReadError::NewerFormat {
                    file: path,
                    found,
                    supported,
                });
            }
        };
        if header.first_lsn != first_lsn {
            let found = header.first_lsn;
            return Err(damaged(DamageKind::MisnamedSegment { found }).into());
        }
        Ok(Segment { file, path, header })
    }

    /// Whether the file has bytes up to `end`. Looked at before memory is made for a frame: its length is only a number in
    /// the file, and the last byte of a frame is not zero, so one that reaches further is not all there.
    pub(crate) fn reaches(&self, end: u64) -> Result<bool, ReadError> {
        let length = self.file.length();
        Ok(end <= length.map_err(|error| self.io("measure", error))?)
    }

    /// Damage in this segment.
    pub(crate) fn damage(&self, offset: u64, lsn: Lsn, what: DamageKind) -> Damage {
        Damage {
            file: self.path.clone(),
            offset,
            lsn,
            what,
        }
    }

    pub(crate) fn io(&self, action: &'static str, error: io::Error) -> ReadError {
        ReadError::io(action, &self.path, error)
    }
}

/// Why the next segment could not be made.
#[derive(Debug)]
pub(crate) enum MakeError {
    /// There is no room. Nothing that matters has changed.
    NoSpace(Failure),
    /// Anything else.
    Failed(Failure),
}

impl MakeError {
    fn new(action: &'static str, path: &Path, error: io::Error) -> Self {
        let no_space = is_no_space(&error);
        let failure = Failure::new(action, path, error);
        if no_space {
            MakeError::NoSpace(failure)
        } else {
            MakeError::Failed(failure)
        }
    }
}

/// A segment that is ready but for its header and its name: all its room is reserved, all zeros.
#[derive(Debug)]
pub(crate) struct Spare {
    file: Box<dyn StorageFile>,
    capacity: u64,
}

impl Spare {
    /// Makes a spare segment, or takes one that an earlier life left behind.
    pub(crate) fn prepare(
        storage: &dyn Storage,
        dir: &Path,
        capacity: u64,
    ) -> Result<Self, MakeError> {
        let path = dir.join(SPARE_FILE_NAME);
        let fail = |action| {
            let path = &path;
            move |error| MakeError::new(action, path, error)
        };
        let left_behind = match storage.open(&path, Access::Write) {
            Ok(file) => {
                let length = file.length().map_err(fail("measure"))?;
                // Nothing but a header was ever written into it, and that is written again.
                (length == capacity).then_some(file)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(MakeError::new("open", &path, error)),
        };
        let (file, is_new) = match left_behind {
            Some(file) => (file, false),
            None => {
                let created = storage.open(&path, Access::Create);
                (created.map_err(fail("create"))?, true)
            }
        };
        if let Err(error) = file.allocate(capacity) {
            // Half a spare is no use to us and its room may be to others. That it cannot be removed
            // changes nothing: the next attempt begins by emptying it.
            let _ = storage.remove(&path);
            return Err(MakeError::new("reserve space for", &path, error));
        }
        // Nothing is lost without these: what must last of a spare is made to last when it is activated. They take the
        // file system's work for the reserved space from then to now. Of a spare that is left behind it has been done, and
        // a start need not wait for it.
        if is_new {
            file.sync_data().map_err(fail("sync"))?;
            storage
                .sync_dir(dir)
                .map_err(|error| MakeError::new("sync", dir, error))?;
        }
        Ok(Spare { file, capacity })
    }

    /// The size of the segment it will be, in bytes.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// Makes it the next segment. Everything before `header.first_lsn` must be durable by now.
    pub(crate) fn activate(
        self,
        storage: &dyn Storage,
        dir: &Path,
        header: SegmentHeader,
    ) -> Result<Segment, MakeError> {
        debug_assert_eq!(header.capacity, self.capacity);
        let spare = dir.join(SPARE_FILE_NAME);
        let path = dir.join(file_name(header.first_lsn));
        let write = self.file.write_all_at(&header.encode(), 0);
        write.map_err(|error| MakeError::new("write to", &spare, error))?;
        self.file
            .sync_data()
            .map_err(|error| MakeError::new("sync", &spare, error))?;
        storage
            .rename(&spare, &path)
            .map_err(|error| MakeError::new("rename the spare segment to", &path, error))?;
        #[cfg(planted)]
        if crate::planted::is("directory-sync-dropped") {
            let file = self.file;
            return Ok(Segment { file, path, header });
        }
        // From here on it is the next segment, and whether its name lasts is for this sync to say:
        // even a full disk leaves no way back.
        storage
            .sync_dir(dir)
            .map_err(|error| MakeError::Failed(Failure::new("sync", dir, error)))?;
        Ok(Segment {
            file: self.file,
            path,
            header,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_we_write_are_segments() {
        assert_eq!(parse_file_name("000000000000002a.wal"), Some(Lsn(42)));
        for other in [
            "000000000000002A.wal",
            "2a.wal",
            "+00000000000002a.wal",
            "LOCK",
            "spare",
            ".wal",
            "0000000000000000.wal",
            "000000000000002a.wal~",
        ] {
            assert_eq!(parse_file_name(other), None, "{other}");
        }
    }
}

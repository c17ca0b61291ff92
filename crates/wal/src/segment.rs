//! Segment files: their names, how they come into being and how they are found again.
//!
//! The one idea: a segment is made under the name of a spare, well before it is needed, and gets its
//! own name only when its room is reserved, its header is on the disk and everything in the segment
//! before it is durable. So a file with a segment's name always has a good header (a bad one is
//! damage, never a crash), a full disk is noticed one whole segment early, and the last segment is
//! the only one that a crash can leave unfinished.
//!
//! A segment that is released becomes a spare again, since writing over blocks that were written before needs no change of
//! the file system's own records at a sync, and writing to reserved ones does. What a renaming is good for is settled
//! before anything is written: a spare is not touched before the loss of its name as a segment is durable, and not a
//! segment before its new header is. So whatever a crash undoes, a file with a segment's name holds that segment.
//!
//! Invariants: names sort like the LSNs in them; a file's life, in its header, is higher than any it had before.

use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Failure, ReadError, is_no_space};
use crate::format::{
    FIRST_FORMAT, FORMAT_VERSION, HeaderError, Life, SECTOR_BYTES, SEGMENT_HEADER_BYTES,
    SegmentHeader, TAG_BYTES,
};
use crate::storage::{Access, Storage, StorageFile};
use crate::{Damage, DamageKind, Lsn};

/// Segments that have no names of their own: the next one, and one that was released since.
pub(crate) const SPARE_FILE_NAMES: [&str; 2] = ["spare", "spare-2"];
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

/// A segment that is ready but for its header and its name: all its room is reserved, and what is in it, zeros or frames, is
/// of earlier lives.
#[derive(Debug)]
pub(crate) struct Spare {
    file: Box<dyn StorageFile>,
    name: &'static str,
    capacity: u64,
    /// The highest life that the file has had.
    life: u32,
}

impl Spare {
    /// Takes a spare segment that is there, or makes one. The names in the directory must be durable.
    pub(crate) fn prepare(
        storage: &dyn Storage,
        dir: &Path,
        capacity: u64,
    ) -> Result<Self, MakeError> {
        for name in SPARE_FILE_NAMES {
            if let Some(spare) = Spare::take(storage, dir, name, capacity)? {
                return Ok(spare);
            }
        }
        let [name, _] = SPARE_FILE_NAMES;
        let path = dir.join(name);
        let fail = |action| {
            let path = &path;
            move |error| MakeError::new(action, path, error)
        };
        let file = storage
            .open(&path, Access::Create)
            .map_err(fail("create"))?;
        reserve(storage, &*file, &path, capacity)?;
        // Nothing is lost without these: what must last of a spare is made to last when it is activated. They take the
        // file system's work for the reserved space from then to now.
        file.sync_data().map_err(fail("sync"))?;
        storage
            .sync_dir(dir)
            .map_err(|error| MakeError::new("sync", dir, error))?;
        Ok(Spare {
            file,
            name,
            capacity,
            life: 0,
        })
    }

    /// Takes the spare segment of this name, if there is one and it is of use. If it is not, it is removed.
    fn take(
        storage: &dyn Storage,
        dir: &Path,
        name: &'static str,
        capacity: u64,
    ) -> Result<Option<Self>, MakeError> {
        let path = dir.join(name);
        let fail = |action| {
            let path = &path;
            move |error| MakeError::new(action, path, error)
        };
        let file = match storage.open(&path, Access::Write) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(MakeError::new("open", &path, error)),
        };
        let length = file.length().map_err(fail("measure"))?;
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        file.read_at(&mut bytes, 0).map_err(fail("read"))?;
        let Some(life) = last_life(&bytes).filter(|_| length == capacity) else {
            storage.remove(&path).map_err(fail("remove"))?;
            return Ok(None);
        };
        // It is there to its full length, but a copy of it may have holes.
        reserve(storage, &*file, &path, capacity)?;
        Ok(Some(Spare {
            file,
            name,
            capacity,
            life,
        }))
    }

    /// The size of the segment it will be, in bytes.
    pub(crate) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The name it has.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it was a segment before.
    pub(crate) fn is_used(&self) -> bool {
        self.life > 0
    }

    /// The life it will have after a segment of this one.
    pub(crate) fn next_life(&self, last: u32) -> u32 {
        #[cfg(planted)]
        if crate::planted::is("life-repeated") {
            return self.life.max(1);
        }
        // A file that has been used for 2^32 lives has forgotten the first of them.
        self.life.max(last).wrapping_add(1).max(1)
    }

    /// Makes it the next segment. Everything before `header.first_lsn` must be durable by now.
    pub(crate) fn activate(
        self,
        storage: &dyn Storage,
        dir: &Path,
        header: SegmentHeader,
    ) -> Result<Segment, MakeError> {
        debug_assert_eq!(header.capacity, self.capacity);
        let spare = dir.join(self.name);
        let path = dir.join(file_name(header.first_lsn));
        let write = self.file.write_all_at(&first_sector(&header), 0);
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

/// A segment's first sector while there are no frames. It is written as a whole: what an earlier life has left behind the
/// header would be taken for ours.
fn first_sector(header: &SegmentHeader) -> [u8; SECTOR_BYTES as usize] {
    let mut sector = [0; SECTOR_BYTES as usize];
    sector[..SEGMENT_HEADER_BYTES].copy_from_slice(&header.encode());
    let life = Life::new(header.log_id, header.life);
    sector[SECTOR_BYTES as usize - TAG_BYTES..].copy_from_slice(&life.tag.to_le_bytes());
    sector
}

/// Reserves all the room of a spare.
fn reserve(
    storage: &dyn Storage,
    file: &dyn StorageFile,
    path: &Path,
    capacity: u64,
) -> Result<(), MakeError> {
    file.allocate(capacity).map_err(|error| {
        // Half a spare is no use to us and its room may be to others. That it cannot be removed
        // changes nothing: the next attempt begins by emptying it.
        let _ = storage.remove(path);
        MakeError::new("reserve space for", path, error)
    })
}

/// The highest life of a file that begins with these bytes; `None` if there is no telling. Of the first format none may be
/// used: its sectors end with whatever was in its records.
fn last_life(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Option<u32> {
    if bytes.iter().all(|&byte| byte == 0) {
        // Never a segment: the header of one is durable before it gets its name.
        return Some(0);
    }
    let header = SegmentHeader::decode(bytes).ok()?;
    (header.version != FIRST_FORMAT && header.life < u32::MAX).then_some(header.life)
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
            "spare-2",
            ".wal",
            "0000000000000000.wal",
            "000000000000002a.wal~",
        ] {
            assert_eq!(parse_file_name(other), None, "{other}");
        }
    }
}

//! From the files of an earlier life to a log that can be appended to.
//!
//! The one idea: what recovery hands out will be acted upon, so it must be durable before recovery is
//! over, and that it can be *read* does not say so. The last process may have been killed between
//! write and sync; worse, its last sync may have failed, after which Linux counts the pages as clean
//! although they never reached the disk, so that a further sync does nothing and succeeds. So the
//! frames that no later frame calls durable (with `sync = always`: the last one) are written again, byte
//! for byte, and then synced. (Rebello et al., *Can Applications Recover from fsync Failures?*,
//! USENIX ATC 2020, show what becomes of databases that trust the page cache here.)
//!
//! Invariants: one pass over the log, in order; nothing on the disk is changed before the whole log
//! was found sound; afterwards nothing of the segment's life follows the last record.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cursor::Cursor;
use crate::error::OpenError;
use crate::format::{FIRST_FORMAT, FORMAT_VERSION, LogId, SegmentHeader, take_record};
use crate::frame::FRAME_HEADER_BYTES;
use crate::segment::{MakeError, SPARE_FILE_NAMES, Segment, Spare};
use crate::storage::{Access, Storage, StorageFile};
use crate::tail::{self, Tail};
use crate::{Damage, DamageKind, Lsn, Options, ReadError};

/// How much is written at once when a torn tail is set to zero or a sound one written again, in bytes.
const REWRITE_BYTES: usize = 256 << 10;

/// The remains of a frame that was being written when the machine or process died. It was never
/// acknowledged, and it is gone now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    /// The segment file.
    pub file: PathBuf,
    /// Where the frame began, in bytes.
    pub offset: u64,
    /// The first record it would have held; the next appended record gets this number.
    pub lsn: Lsn,
    /// From its beginning to its last byte that reached the disk.
    pub bytes: u64,
}

/// What was found when a log was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The oldest record kept; past `last_lsn` if there is none.
    pub first_lsn: Lsn,
    /// The newest record.
    pub last_lsn: Lsn,
    /// How many records there are.
    pub records: u64,
    /// Their size, as encoded, in bytes.
    pub bytes: u64,
    /// What a crash had left unfinished.
    pub torn: Option<Torn>,
    /// Whether the log is new.
    pub created: bool,
}

/// A segment that is full.
#[derive(Clone, Debug)]
pub(crate) struct Sealed {
    pub(crate) path: PathBuf,
    pub(crate) first_lsn: Lsn,
    pub(crate) begun_unix_ms: u64,
    pub(crate) capacity: u64,
    /// Whether it may be a spare one day: those of the first format may not.
    pub(crate) is_reusable: bool,
}

impl Sealed {
    pub(crate) fn of(segment: &Segment) -> Self {
        Sealed {
            path: segment.path.clone(),
            first_lsn: segment.header.first_lsn,
            begun_unix_ms: segment.header.begun_unix_ms,
            capacity: segment.header.capacity,
            is_reusable: segment.header.version != FIRST_FORMAT,
        }
    }
}

/// Where the log goes on.
#[derive(Debug)]
pub(crate) struct Position {
    pub(crate) active: Segment,
    pub(crate) sealed: VecDeque<Sealed>,
    pub(crate) offset: u64,
    pub(crate) next_lsn: Lsn,
    pub(crate) chain: u32,
    pub(crate) is_relaxed: bool,
}

/// Makes the first segment of a new log.
pub(crate) fn create<E>(
    storage: &dyn Storage,
    options: &Options,
) -> Result<(Position, Recovered), OpenError<E>> {
    let log_id = match options.log_id {
        Some(log_id) => log_id,
        None => {
            let mut bytes = [0; 16];
            storage.fill_random(&mut bytes).map_err(|error| {
                OpenError::io("choose a random id for the log in", &options.dir, error)
            })?;
            LogId(bytes)
        }
    };
    // Of a log that somebody has removed, spares may be left: see `Spare::prepare`.
    let dir = &options.dir;
    let names = storage
        .list(dir)
        .map_err(|error| OpenError::io("list", dir, error))?;
    if names
        .iter()
        .any(|name| SPARE_FILE_NAMES.contains(&name.as_str()))
    {
        storage
            .sync_dir(dir)
            .map_err(|error| OpenError::io("sync", dir, error))?;
    }
    let active = Spare::prepare(storage, dir, options.segment_bytes)
        .and_then(|spare| {
            let header = SegmentHeader {
                version: FORMAT_VERSION,
                life: spare.next_life(0),
                log_id,
                first_lsn: Lsn::FIRST,
                capacity: options.segment_bytes,
                begun_unix_ms: storage.unix_ms(),
                chain: log_id.seed(),
            };
            spare.activate(storage, dir, header)
        })
        .map_err(|error| match error {
            MakeError::NoSpace(failure) => OpenError::NoSpace(failure),
            MakeError::Failed(failure) => OpenError::Io(failure),
        })?;
    let cursor = Cursor::new(active);
    let recovered = Recovered {
        first_lsn: Lsn::FIRST,
        last_lsn: Lsn::ZERO,
        records: 0,
        bytes: 0,
        torn: None,
        created: true,
    };
    Ok((position(cursor, VecDeque::new()), recovered))
}

/// Reads a log that is there, hands every record to `visitor` and makes the end of it ready.
///
/// `segments` are the first LSNs of its segments, oldest first, at least one.
pub(crate) fn recover<E>(
    storage: &Arc<dyn Storage>,
    dir: &Path,
    segments: &[Lsn],
    mut visitor: impl FnMut(Lsn, &[u8]) -> Result<(), E>,
) -> Result<(Position, Recovered), OpenError<E>> {
    let (&oldest, later) = segments
        .split_first()
        .expect("a log that is there has a segment");
    let open = |first_lsn, is_last| {
        let segment = Segment::open(&**storage, dir, first_lsn, Access::Write)?;
        if is_last {
            // What follows its end is a hole, or of earlier lives: the survey of the tail is spared it, unless it is read ahead.
            segment.file.expect_random_reads();
        }
        Ok::<_, ReadError>(segment)
    };
    let mut cursor = Cursor::new(open(oldest, later.is_empty())?);
    let mut sealed = VecDeque::with_capacity(later.len());
    let mut unsynced = Unsynced::default();
    let mut recovered = Recovered {
        first_lsn: oldest,
        last_lsn: Lsn::ZERO,
        records: 0,
        bytes: 0,
        torn: None,
        created: false,
    };
    let mut later = later.iter();
    loop {
        while let Some(frame) = cursor.step()? {
            unsynced.add(
                frame.header.first_lsn,
                frame.offset,
                frame.header.synced_lsn(),
            );
            let mut payload = cursor.payload(&frame);
            let mut lsn = frame.header.first_lsn;
            while let Some(record) = take_record(&mut payload) {
                visitor(lsn, record).map_err(|source| OpenError::Visitor { lsn, source })?;
                lsn = lsn.next();
            }
            recovered.records += u64::from(frame.header.count);
            recovered.bytes += u64::from(frame.header.payload_bytes);
        }
        let Some(&next) = later.next() else { break };
        tail::judge_sealed(&cursor)?;
        let segment = open(next, later.as_slice().is_empty())?;
        check_succession(&cursor, &segment)?;
        sealed.push_back(Sealed::of(&cursor.segment));
        cursor.enter(segment);
        unsynced = Unsynced::default();
    }
    let tail = tail::judge_last(&cursor)?;
    recovered.last_lsn = cursor.next_lsn.prev();
    if let Tail::Torn { end, .. } = tail {
        recovered.torn = Some(torn(&cursor, end));
    }
    make_ready(&**storage, dir, &cursor, tail, unsynced.start())
        .map_err(|(action, path, error)| OpenError::io(action, &path, error))?;
    Ok((position(cursor, sealed), recovered))
}

/// Whether a segment goes on where a cursor has stopped in the one before.
pub(crate) fn check_succession(cursor: &Cursor, next: &Segment) -> Result<(), Damage> {
    let end = |what| cursor.segment.damage(cursor.offset, cursor.next_lsn, what);
    if next.header.log_id != cursor.segment.header.log_id {
        return Err(next.damage(0, next.header.first_lsn, DamageKind::ForeignSegment));
    }
    if next.header.first_lsn != cursor.next_lsn {
        return Err(end(DamageKind::Gap {
            next: next.header.first_lsn,
        }));
    }
    if next.header.chain != cursor.chain {
        return Err(end(DamageKind::BrokenChain));
    }
    Ok(())
}

/// Describes the torn frame where a cursor has stopped.
pub(crate) fn torn(cursor: &Cursor, end: u64) -> Torn {
    Torn {
        file: cursor.segment.path.clone(),
        offset: cursor.offset,
        lsn: cursor.next_lsn,
        bytes: end - cursor.offset,
    }
}

fn position(cursor: Cursor, sealed: VecDeque<Sealed>) -> Position {
    Position {
        offset: cursor.offset,
        next_lsn: cursor.next_lsn,
        chain: cursor.chain,
        is_relaxed: cursor.is_relaxed,
        active: cursor.segment,
        sealed,
    }
}

/// The frames of the last segment that no later frame calls durable.
#[derive(Debug, Default)]
struct Unsynced(VecDeque<(Lsn, u64)>);

impl Unsynced {
    fn add(&mut self, first_lsn: Lsn, offset: u64, synced: Lsn) {
        while self.0.front().is_some_and(|&(lsn, _)| lsn <= synced) {
            self.0.pop_front();
        }
        self.0.push_back((first_lsn, offset));
    }

    /// Where the first of them begins.
    fn start(&self) -> Option<u64> {
        self.0.front().map(|&(_, offset)| offset)
    }
}

/// Makes what was found durable and what follows it zeros.
fn make_ready(
    storage: &dyn Storage,
    dir: &Path,
    cursor: &Cursor,
    tail: Tail,
    unsynced: Option<u64>,
) -> Result<(), (&'static str, PathBuf, std::io::Error)> {
    let Segment { file, path, header } = &cursor.segment;
    let fail = |action| move |error| (action, path.clone(), error);
    if file.length().map_err(fail("measure"))? < header.capacity {
        // Cut short: by a copy, or by an earlier scrub that was itself interrupted.
        file.allocate(header.capacity)
            .map_err(fail("reserve space for"))?;
    }
    #[cfg(planted)]
    let unsynced = unsynced.filter(|_| !crate::planted::is("page-cache-trusted"));
    if let Some(start) = unsynced {
        let mut bytes = vec![0; REWRITE_BYTES];
        let mut offset = start;
        while offset < cursor.offset {
            let count = (cursor.offset - offset).min(REWRITE_BYTES as u64) as usize;
            file.read_at(&mut bytes[..count], offset)
                .map_err(fail("read"))?;
            file.write_all_at(&bytes[..count], offset)
                .map_err(fail("write to"))?;
            offset += count as u64;
        }
    }
    #[cfg(planted)]
    let tail = if crate::planted::is("torn-tail-left") {
        Tail::Clean
    } else {
        tail
    };
    if let Tail::Torn { extent, .. } = tail {
        // A write that fails may have written any part, and what is left must still read as cut off. Behind its header a
        // torn frame may lose whatever it likes; a header may only once nothing is left behind it, durably.
        let header_end = cursor.offset + FRAME_HEADER_BYTES as u64;
        for range in cursor.layout.own_ranges(cursor.offset, extent) {
            write_zeros(&**file, range.start.max(header_end), range.end)
                .map_err(fail("write to"))?;
        }
        file.sync_data().map_err(fail("sync"))?;
        write_zeros(&**file, cursor.offset, header_end.min(header.capacity))
            .map_err(fail("write to"))?;
    }
    // A write that failed may have brought the last frame and not what is behind it.
    let rest = cursor.layout.end_of_sector(cursor.offset);
    #[cfg(planted)]
    let rest = if crate::planted::is("torn-tail-left") {
        Vec::new()
    } else {
        rest
    };
    if !rest.is_empty() {
        file.write_all_at(&rest, cursor.offset)
            .map_err(fail("write to"))?;
    }
    file.sync_data().map_err(fail("sync"))?;
    // The segment may have got its name just before the process was killed.
    storage
        .sync_dir(dir)
        .map_err(|error| ("sync", dir.to_owned(), error))
}

/// Sets a part of a file to zeros.
fn write_zeros(file: &dyn StorageFile, mut offset: u64, end: u64) -> std::io::Result<()> {
    let zeros = vec![0; REWRITE_BYTES.min(end.saturating_sub(offset) as usize)];
    while offset < end {
        let count = (end - offset).min(REWRITE_BYTES as u64) as usize;
        file.write_all_at(&zeros[..count], offset)?;
        offset += count as u64;
    }
    Ok(())
}

//! What is at the end of a log: nothing, a frame cut off by a crash, or damage.
//!
//! The walk has stopped at a place where the frame with LSN `n` should be and no sound one is. In
//! every segment but the last this is damage, or plainly the end if only zeros are there: a segment
//! gets a successor only after all of it was durable. In the last segment three facts decide.
//!
//! **1. A sector is written as a whole or not at all, and what was not written in this life of the segment reads as
//! zeros.** (`format` and `frame` explain the tags that see to it, and `first_format` how the older segments did
//! without: they had held nothing but zeros before.) A frame that was never fully written thus has a share of a sector that
//! is all zeros, or reaches beyond the end of a file that was cut short. A frame none of whose shares is blank was
//! fully written once; if it is not sound now, its bytes have changed since: *damage*. For this the header tells how
//! far the frame reaches. If the header itself is not sound, and all sectors it lies in hold something,
//! then it was written and has changed: *damage*, too. Files may also be cut at any byte, by a
//! copy that was interrupted or a file system that keeps its own idea of length: then everything
//! from some byte on is zero, the last byte of the frame (never zero when written) among it.
//!
//! **2. Only what was not synced can be missing.** With `sync = always` a frame is written only after
//! the one before it is durable, so at most one frame, the last, can be torn, and nothing follows
//! it. With the other policies many frames may be unsynced at a crash, and any subset of their sectors may
//! have reached the disk: a torn frame can be followed by sound ones. So every frame says how much
//! of the log was durable when it was written. A later frame that says "`n` was durable" makes a
//! missing `n` *damage*; without one, `n` was never promised to anyone.
//!
//! **3. The rest is torn**: it is dropped, and all of this life that is behind the cut is set to zero before anything is
//! appended, so that the first fact holds for the next crash.
//!
//! **How far is looked?** The room behind the end may be full of other lives, and to read all of it would take a start
//! some ten milliseconds, and far longer from a cold disk. But what is not durable reaches no further than `REACH_BYTES`
//! behind what is, or to the end of a frame whose header is durable, unless a durable frame has said otherwise (`is_relaxed`;
//! with `sync = always` none does): the writer sees to it. So the remains of a crash lie within, and are found. A sector of
//! this life further on says by being there that all before it was durable; for these one sector in `REACH_BYTES` is looked
//! at. What is missed is this: more than a reach of frames has vanished without a trace, in one piece, and what is left
//! behind them is less than a reach and in the wrong place.
//!
//! What no log can tell is the loss of its very last frames without a trace (a disk that
//! acknowledged a sync and forgot whole sectors): that looks like the crash before them.
//!
//! Invariant: judging changes nothing.

use crate::cursor::Cursor;
use crate::format::{SECTOR_BYTES, TAG_BYTES};
use crate::frame::{FRAME_ALIGN, FRAME_HEADER_BYTES, FrameHeader, Layout, REACH_BYTES};
use crate::segment::Segment;
use crate::{DamageKind, ReadError};

/// How much of a tail is looked at at once, in bytes. A multiple of the sector size.
const SURVEY_BYTES: u64 = 256 << 10;

/// How a sound log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// With its last frame: nothing of this life follows.
    Clean,
    /// With the remains of frames that were being written.
    Torn {
        /// Up to where they reach, as far as can be read.
        end: u64,
        /// Up to where they may reach on the disk: what reads as zeros there may have been set to zero by an earlier life and
        /// never become durable.
        extent: u64,
    },
}

/// Judges the place where a cursor has stopped in a segment that has a successor.
pub(crate) fn judge_sealed(cursor: &Cursor) -> Result<(), ReadError> {
    let segment = &cursor.segment;
    let head = read_own(cursor, cursor.offset, FRAME_HEADER_BYTES)?;
    if head.iter().all(|&byte| byte == 0) {
        return Ok(());
    }
    let what = kind_of(cursor, cursor.layout.decode(&head, cursor.offset));
    Err(segment.damage(cursor.offset, cursor.next_lsn, what).into())
}

/// Judges the place where a cursor has stopped in the last segment.
pub(crate) fn judge_last(cursor: &Cursor) -> Result<Tail, ReadError> {
    let segment = &cursor.segment;
    let damage = |what| segment.damage(cursor.offset, cursor.next_lsn, what);
    let head = read_own(cursor, cursor.offset, FRAME_HEADER_BYTES)?;
    let header = cursor.layout.decode(&head, cursor.offset);

    let Survey { end, evidence } = survey(cursor, reach(cursor, header))?;
    let Some(end) = end else {
        return match evidence {
            Some(evidence) => Err(damage(DamageKind::Vanished { evidence }).into()),
            None => Ok(Tail::Clean),
        };
    };
    let torn = match header {
        Some(header) if is_expected(cursor, &header) => is_torn(cursor, &header)?,
        // Sound, and not ours: no crash writes another frame's header.
        Some(_) => false,
        None => is_header_torn(cursor, end)?,
    };
    if !torn {
        return Err(damage(kind_of(cursor, header)).into());
    }
    match evidence {
        Some(evidence) => Err(damage(DamageKind::Vanished { evidence }).into()),
        None => {
            let frame_bytes = header.map_or(0, |header| header.frame_bytes as u64);
            let extent = end.max(cursor.offset + frame_bytes);
            Ok(Tail::Torn { end, extent })
        }
    }
}

/// How far the remains of a crash may lie, as an offset.
fn reach(cursor: &Cursor, header: Option<FrameHeader>) -> u64 {
    let capacity = cursor.segment.header.capacity;
    if cursor.is_relaxed {
        return capacity;
    }
    let frame = header.filter(|header| is_expected(cursor, header));
    let frame_bytes = frame.map_or(0, |header| header.frame_bytes as u64);
    // Up to the end of a sector, which is looked at as a whole.
    let reach = cursor.offset + frame_bytes.max(REACH_BYTES);
    reach.next_multiple_of(SECTOR_BYTES).min(capacity)
}

/// What to call a place that should hold a frame.
fn kind_of(cursor: &Cursor, header: Option<FrameHeader>) -> DamageKind {
    match header {
        None => DamageKind::FrameHeader,
        Some(header) if is_expected(cursor, &header) => DamageKind::FramePayload,
        Some(header) => DamageKind::Misplaced {
            found: header.first_lsn,
        },
    }
}

fn is_expected(cursor: &Cursor, header: &FrameHeader) -> bool {
    let room = cursor.segment.header.capacity.saturating_sub(cursor.offset);
    header.first_lsn == cursor.next_lsn
        && header.chain == cursor.chain
        && header.frame_bytes as u64 <= room
}

/// Whether a frame with a sound header was cut off, rather than written and damaged since.
fn is_torn(cursor: &Cursor, header: &FrameHeader) -> Result<bool, ReadError> {
    if !cursor
        .segment
        .reaches(cursor.offset + header.frame_bytes as u64)?
    {
        return Ok(true);
    }
    let frame = read_own(cursor, cursor.offset, header.frame_bytes)?;
    Ok(cursor.layout.is_cut_off(&frame, cursor.offset))
}

/// Whether a header that is not sound was cut off, rather than written and damaged since: one of
/// its sectors is missing, or the segment holds nothing beyond it.
fn is_header_torn(cursor: &Cursor, end: u64) -> Result<bool, ReadError> {
    let header_end = cursor.offset + FRAME_HEADER_BYTES as u64;
    // A frame is longer than its header, and its last byte is never zero.
    if end <= header_end {
        return Ok(true);
    }
    // Up to the ends of its sectors, not only of the header: its second part may well be zeros.
    // Whatever else is in the sector was written together with the header or after it.
    let sectors_end = header_end.next_multiple_of(SECTOR_BYTES);
    let count = (sectors_end - cursor.offset) as usize;
    let sectors = read_own(cursor, cursor.offset, count)?;
    Ok(cursor.layout.has_blank_share(&sectors, cursor.offset))
}

/// What lies between the place where a cursor has stopped and the end of the segment.
struct Survey {
    /// Just past the last byte within reach that is of this life and not zero; `None` if there is none.
    end: Option<u64>,
    /// Where a later frame begins that says the missing one was durable, or a sector beyond reach.
    evidence: Option<u64>,
}

fn survey(cursor: &Cursor, reach: u64) -> Result<Survey, ReadError> {
    let mut survey = Survey {
        end: None,
        evidence: None,
    };
    let mut offset = cursor.offset;
    while let Some((data, hole)) = next_extent(&cursor.segment, offset, reach)? {
        // Holes begin and end anywhere, and what is ours is told by whole sectors.
        offset = offset.max(data - data % SECTOR_BYTES);
        while offset < hole {
            // Ends where a sector does, but for the last.
            let next = (offset + SURVEY_BYTES).next_multiple_of(SECTOR_BYTES);
            let count = (next.min(hole) - offset) as usize;
            // So much more that a header that begins in this part can be seen whole.
            let wanted = count + FRAME_HEADER_BYTES;
            let within = (wanted as u64).min(hole - offset) as usize;
            let mut bytes = read_own(cursor, offset, within)?;
            cursor.layout.blank_foreign_tag(&mut bytes, offset);
            bytes.resize(wanted, 0);
            if let Some(last) = bytes[..count].iter().rposition(|&byte| byte != 0) {
                survey.end = Some(offset + last as u64 + 1);
                if survey.evidence.is_none() {
                    survey.evidence = find_evidence(cursor, &bytes, offset, last + 1);
                }
            }
            offset += count as u64;
        }
        // A hole may end within a frame's alignment; the next look begins at its own data.
        offset = hole;
    }
    if survey.evidence.is_none() {
        survey.evidence = find_beyond(cursor, reach)?;
    }
    Ok(survey)
}

/// The next part of a segment from `offset` on and before `limit` that may hold something: where it begins and ends.
///
/// Asked for before anything is read, and never read past: the kernel takes for data what it has in memory, also of a hole,
/// so that a look at the first bytes of a hole would make data of it, and of all of it, step by step.
fn next_extent(
    segment: &Segment,
    offset: u64,
    limit: u64,
) -> Result<Option<(u64, u64)>, ReadError> {
    let failed = |error| segment.io("seek in", error);
    if offset >= limit {
        return Ok(None);
    }
    let data = segment.file.next_data(offset).map_err(failed)?;
    let Some(data) = data.filter(|&data| data < limit) else {
        return Ok(None);
    };
    let hole = segment.file.next_hole(data).map_err(failed)?;
    // Data has a length, whatever a file system says: the survey comes to its end.
    Ok(Some((data, hole.max(data + 1).min(limit))))
}

/// Looks for the header of a frame that was written when the missing one was durable already.
///
/// The header alone will do: whatever became of its payload, it was written. That payload bytes pass
/// for one takes a chance of 2^-32 on top of a plausible LSN. A copy of an old frame inside of a
/// record (a job that printed its own log) knows only of records before the missing one.
fn find_evidence(cursor: &Cursor, bytes: &[u8], offset: u64, count: usize) -> Option<u64> {
    let first = offset.next_multiple_of(FRAME_ALIGN as u64);
    let starts = (first..offset + count as u64).step_by(FRAME_ALIGN);
    starts.into_iter().find(|&at| {
        let candidate = &bytes[(at - offset) as usize..];
        // A header does not begin with eight zeros: its payload is not empty.
        candidate[..FRAME_ALIGN] != [0; FRAME_ALIGN]
            && cursor
                .layout
                .decode(candidate, at)
                .is_some_and(|header| header.synced_lsn() >= cursor.next_lsn)
    })
}

/// Looks for a sector of this life where nothing can be that is not durable: at some of them.
fn find_beyond(cursor: &Cursor, reach: u64) -> Result<Option<u64>, ReadError> {
    let Layout::Second(life) = cursor.layout else {
        return Ok(None);
    };
    let capacity = cursor.segment.header.capacity;
    let mut at = reach.next_multiple_of(REACH_BYTES);
    while let Some((data, _)) = next_extent(&cursor.segment, at, capacity)? {
        // In steps, and not at the edges of what the file system takes for data.
        at = data.next_multiple_of(REACH_BYTES);
        if at >= capacity {
            break;
        }
        let mut tag = [0; TAG_BYTES];
        let tag_at = at + SECTOR_BYTES - TAG_BYTES as u64;
        let read = cursor.segment.file.read_at(&mut tag, tag_at);
        read.map_err(|error| cursor.segment.io("read", error))?;
        if life.has_written(u32::from_le_bytes(tag)) {
            return Ok(Some(at));
        }
        at += REACH_BYTES;
    }
    Ok(None)
}

/// Reads `count` bytes; those beyond the segment's end or the file's, and those of other lives, are zeros.
fn read_own(cursor: &Cursor, offset: u64, count: usize) -> Result<Vec<u8>, ReadError> {
    let Segment { file, header, .. } = &cursor.segment;
    // Whose a sector is shows at its end.
    let sectors_end = (offset + count as u64).next_multiple_of(SECTOR_BYTES);
    let mut bytes = vec![0; (sectors_end - offset) as usize];
    let room = header
        .capacity
        .saturating_sub(offset)
        .min(bytes.len() as u64) as usize;
    file.read_at(&mut bytes[..room], offset)
        .map_err(|error| cursor.segment.io("read", error))?;
    cursor.layout.blank_others(&mut bytes, offset);
    bytes.truncate(count);
    Ok(bytes)
}

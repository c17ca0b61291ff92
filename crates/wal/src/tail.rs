//! What is at the end of a log: nothing, a frame cut off by a crash, or damage.
//!
//! The walk has stopped at a place where the frame with LSN `n` should be and no sound one is. In
//! every segment but the last this is damage, or plainly the end if only zeros are there: a segment
//! gets a successor only after all of it was durable. In the last segment three facts decide.
//!
//! **1. A sector is written as a whole or not at all, and a frame leaves none of its sectors blank.**
//! (`format` explains how the writer sees to that, and that the room held zeros before.) A frame
//! that was never fully written thus has a share of a sector that is all zeros, or reaches beyond the
//! end of a file that was cut short. A frame none of whose shares is blank was fully written once;
//! if it is not sound now, its bytes have changed since: *damage*. For this the header tells how
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
//! **3. The rest is torn**: it is dropped, and everything from there to the end of the segment is set to
//! zero again before anything is appended, so that the first fact holds for the next crash.
//!
//! What no log can tell is the loss of its very last frames without a trace (a disk that
//! acknowledged a sync and forgot whole sectors): that looks like the crash before them.
//!
//! Invariant: judging changes nothing.

use crate::cursor::Cursor;
use crate::format::{FRAME_ALIGN, FRAME_HEADER_BYTES, FrameHeader, SECTOR_BYTES, has_blank_share};
use crate::segment::Segment;
use crate::{DamageKind, Lsn, ReadError};

/// How much of a tail is looked at at once, in bytes. A multiple of the sector size.
const SURVEY_BYTES: usize = 256 << 10;

/// How a sound log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// With its last frame: only zeros follow.
    Clean,
    /// With the remains of frames that were being written, reaching up to this offset.
    Torn { end: u64 },
}

/// Judges the place where a cursor has stopped in a segment that has a successor.
pub(crate) fn judge_sealed(cursor: &Cursor) -> Result<(), ReadError> {
    let segment = &cursor.segment;
    let head = read_zero_filled(segment, cursor.offset, FRAME_HEADER_BYTES)?;
    if head.iter().all(|&byte| byte == 0) {
        return Ok(());
    }
    let what = kind_of(cursor, FrameHeader::decode(cursor.seed, &head));
    Err(segment.damage(cursor.offset, cursor.next_lsn, what).into())
}

/// Judges the place where a cursor has stopped in the last segment.
pub(crate) fn judge_last(cursor: &Cursor) -> Result<Tail, ReadError> {
    let Survey { end, evidence } = survey(cursor)?;
    let Some(end) = end else {
        return Ok(Tail::Clean);
    };
    let segment = &cursor.segment;
    let damage = |what| segment.damage(cursor.offset, cursor.next_lsn, what);

    let head = read_zero_filled(segment, cursor.offset, FRAME_HEADER_BYTES)?;
    let header = FrameHeader::decode(cursor.seed, &head);
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
        None => Ok(Tail::Torn { end }),
    }
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
        && header.frame_bytes() as u64 <= room
}

/// Whether a frame with a sound header was cut off, rather than written and damaged since.
fn is_torn(cursor: &Cursor, header: &FrameHeader) -> Result<bool, ReadError> {
    if !cursor
        .segment
        .reaches(cursor.offset + header.frame_bytes() as u64)?
    {
        return Ok(true);
    }
    let frame = read_zero_filled(&cursor.segment, cursor.offset, header.frame_bytes())?;
    Ok(frame.last() == Some(&0) || has_blank_share(&frame, cursor.offset))
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
    let sectors = read_zero_filled(
        &cursor.segment,
        cursor.offset,
        (sectors_end - cursor.offset) as usize,
    )?;
    Ok(has_blank_share(&sectors, cursor.offset))
}

/// What lies between the place where a cursor has stopped and the end of the segment.
struct Survey {
    /// Just past the last byte that is not zero; `None` if all are.
    end: Option<u64>,
    /// Where a later frame begins that says the missing one was durable.
    evidence: Option<u64>,
}

fn survey(cursor: &Cursor) -> Result<Survey, ReadError> {
    let segment = &cursor.segment;
    let capacity = segment.header.capacity;
    let mut survey = Survey {
        end: None,
        evidence: None,
    };
    let failed = |error| segment.io("seek in", error);
    let mut offset = cursor.offset;
    while offset < capacity {
        let data = segment.file.next_data(offset).map_err(failed)?;
        let Some(data) = data.filter(|&data| data < capacity) else {
            break;
        };
        // Asked for before anything is read, and never read past: the kernel takes for data what it has in memory, also
        // of a hole, so that a look at the first bytes of a hole would make data of it, and of all of it, step by step.
        let hole = segment.file.next_hole(data).map_err(failed)?;
        // Data has a length, whatever a file system says: the survey comes to its end.
        let hole = hole.max(data + 1).min(capacity);
        // Holes begin and end anywhere; frames at multiples of 8.
        offset = offset.max(data - data % FRAME_ALIGN as u64);
        while offset < hole {
            let count = (SURVEY_BYTES as u64).min(hole - offset) as usize;
            // So much more that a header that begins in this part can be seen whole.
            let wanted = count + FRAME_HEADER_BYTES;
            let within = (wanted as u64).min(hole - offset) as usize;
            let mut bytes = read_zero_filled(segment, offset, within)?;
            bytes.resize(wanted, 0);
            if let Some(last) = bytes[..count].iter().rposition(|&byte| byte != 0) {
                survey.end = Some(offset + last as u64 + 1);
                if survey.evidence.is_none() {
                    survey.evidence = find_evidence(cursor.seed, &bytes, last + 1, cursor.next_lsn)
                        .map(|at| offset + at as u64);
                }
            }
            offset += count as u64;
        }
        // A hole may end within a frame's alignment; the next look begins at its own data.
        offset = hole;
    }
    Ok(survey)
}

/// Looks for the header of a frame that was written when `missing` was durable already.
///
/// The header alone will do: whatever became of its payload, it was written. That payload bytes pass
/// for one takes a chance of 2^-32 on top of a plausible LSN. A copy of an old frame inside of a
/// record (a job that printed its own log) knows only of records before the missing one.
fn find_evidence(seed: u32, bytes: &[u8], count: usize, missing: Lsn) -> Option<usize> {
    let starts = (0..count).step_by(FRAME_ALIGN);
    starts.into_iter().find(|&at| {
        let candidate = &bytes[at..];
        // A header does not begin with eight zeros: its payload is not empty.
        candidate[..FRAME_ALIGN] != [0; FRAME_ALIGN]
            && FrameHeader::decode(seed, candidate)
                .is_some_and(|header| header.synced_lsn() >= missing)
    })
}

/// Reads `count` bytes; those beyond the segment's end or the file's are zeros.
fn read_zero_filled(segment: &Segment, offset: u64, count: usize) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![0; count];
    let room = segment
        .header
        .capacity
        .saturating_sub(offset)
        .min(count as u64) as usize;
    segment
        .file
        .read_at(&mut bytes[..room], offset)
        .map_err(|error| segment.io("read", error))?;
    Ok(bytes)
}

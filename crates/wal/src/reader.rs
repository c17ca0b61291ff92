//! [`Reader`] and [`verify`]: the log as others see it.
//!
//! The one idea: reading needs no lock and no writer, only a second look. A frame may be read while it
//! is being written, and such bytes can look like damage; but what is being written changes, and
//! what is damaged does not. So damage at the end of the log is reported only once two looks at it,
//! one after the other and each at fresh bytes, have found the very same.
//!
//! A segment that was released may be overwritten while it is being read: its file becomes another segment. Frames are
//! told by the life of theirs, so that nothing of the other is ever handed out; and since a file is overwritten only after it
//! has lost its name, the second look finds the name gone, and says [`ReadError::Released`] instead of damage.
//!
//! Invariants: nothing is written, nothing locked; records come in order and without gaps; a reader that
//! has come to the end can be asked again later.
//!
//! A reader sees what is written, which may be a moment ahead of what is durable.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cursor::{Cursor, Frame};
use crate::format::take_record;
use crate::recovery::{Torn, check_succession, torn};
use crate::segment::{self, Segment};
use crate::storage::{Access, Storage};
use crate::tail::{self, Tail};
use crate::{Lsn, ReadError};

/// Reads records from a log, oldest first. As an iterator it gives copies; [`Reader::next_record`]
/// lends them.
#[derive(Debug)]
pub struct Reader {
    storage: Arc<dyn Storage>,
    dir: PathBuf,
    /// `None` until a first segment has been found.
    cursor: Option<Cursor>,
    /// Records below this are passed over.
    from: Lsn,
    current: Option<Current>,
    torn: Option<Torn>,
    /// How many segments were entered.
    segments: u64,
    /// How many frames were taken.
    frames: u64,
}

/// The frame whose records are being handed out.
#[derive(Clone, Copy, Debug)]
struct Current {
    frame: Frame,
    /// How much of the payload was handed out, in bytes.
    consumed: usize,
    next_lsn: Lsn,
}

impl Reader {
    /// Begins at the record `from`, or at the oldest that is kept if that is a later one. An empty
    /// or missing directory is an empty log.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub fn open(
        dir: impl Into<PathBuf>,
        storage: Arc<dyn Storage>,
        from: Lsn,
    ) -> Result<Self, ReadError> {
        let dir = dir.into();
        let mut reader = Reader {
            storage,
            dir,
            cursor: None,
            from,
            current: None,
            torn: None,
            segments: 0,
            frames: 0,
        };
        reader.find_start()?;
        Ok(reader)
    }

    /// The next record, or `None` at the end of the log as it is now. Later there may be more.
    ///
    /// # Errors
    /// See [`ReadError`]; the next call looks at the same place again.
    pub fn next_record(&mut self) -> Result<Option<(Lsn, &[u8])>, ReadError> {
        loop {
            let Some(mut current) = self.current else {
                if self.next_frame()? {
                    continue;
                }
                return Ok(None);
            };
            let Some(cursor) = &self.cursor else {
                return Ok(None);
            };
            let payload = cursor.payload(&current.frame);
            let mut rest = &payload[current.consumed..];
            // The cursor has checked that the payload consists of records.
            let Some(record) = take_record(&mut rest) else {
                self.current = None;
                continue;
            };
            let lsn = current.next_lsn;
            current.consumed = payload.len() - rest.len();
            current.next_lsn = lsn.next();
            self.current = Some(current);
            if lsn >= self.from {
                let range = current.consumed - record.len()..current.consumed;
                // Borrowed anew: the borrow above would have to last over the other branches too.
                let Some(cursor) = &self.cursor else {
                    return Ok(None);
                };
                return Ok(Some((lsn, &cursor.payload(&current.frame)[range])));
            }
        }
    }

    /// The torn frame that the reader found at the end of the log, if it is still there.
    #[must_use]
    pub fn torn(&self) -> Option<&Torn> {
        self.torn.as_ref()
    }

    /// Opens the segment that holds the record `from`.
    fn find_start(&mut self) -> Result<(), ReadError> {
        loop {
            let segments = match segment::list(&*self.storage, &self.dir) {
                Err(error) if is_not_found(&error) => return Ok(()),
                other => other?,
            };
            let at = segments
                .partition_point(|&first| first <= self.from)
                .saturating_sub(1);
            let Some(&first) = segments.get(at) else {
                return Ok(());
            };
            // If it was released between the listing and the opening, there is another listing to be had.
            if let Some(segment) = open_listed(&*self.storage, &self.dir, first)? {
                self.cursor = Some(Cursor::new(segment));
                self.segments += 1;
                return Ok(());
            }
        }
    }

    /// Takes the next frame; `false` at the end of the log.
    fn next_frame(&mut self) -> Result<bool, ReadError> {
        if self.cursor.is_none() {
            self.find_start()?;
        }
        let Some(cursor) = &mut self.cursor else {
            return Ok(false);
        };
        let mut suspected = None;
        loop {
            if let Some(frame) = cursor.step()? {
                self.frames += 1;
                self.torn = None;
                let next_lsn = frame.header.first_lsn;
                self.current = Some(Current {
                    frame,
                    consumed: 0,
                    next_lsn,
                });
                return Ok(true);
            }
            // What was read ahead may be older than what is there now. And the listing comes before
            // the next look at the end of this segment: where there is a later segment, this one is
            // complete.
            cursor.refresh();
            let segments = segment::list(&*self.storage, &self.dir)?;
            if cursor.check_frame()?.is_some() {
                continue;
            }
            let outcome = end_of_segment(&*self.storage, &self.dir, cursor, &segments);
            match outcome {
                Ok(End::Next(next)) => {
                    self.segments += 1;
                    cursor.enter(next);
                }
                Ok(End::Gone) => {}
                Ok(End::Log(torn)) => {
                    self.torn = torn;
                    return Ok(false);
                }
                Err(ReadError::Damaged(damage)) if suspected.as_ref() != Some(&damage) => {
                    suspected = Some(damage);
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl Iterator for Reader {
    type Item = Result<(Lsn, Vec<u8>), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_record()
            .map(|found| found.map(|(lsn, record)| (lsn, record.to_vec())))
            .transpose()
    }
}

/// What comes where the frames of a segment end.
enum End {
    /// The next segment.
    Next(Segment),
    /// A segment that was released just now: look again.
    Gone,
    /// Nothing, or a torn frame.
    Log(Option<Torn>),
}

/// Looks at what comes where a cursor has stopped, when the log consists of `segments`.
fn end_of_segment(
    storage: &dyn Storage,
    dir: &Path,
    cursor: &Cursor,
    segments: &[Lsn],
) -> Result<End, ReadError> {
    let here = cursor.segment.header.first_lsn;
    if here == cursor.next_lsn && segments.contains(&here) {
        // Nothing of it was read yet, and a newer version may have begun it anew, in its own format.
        let Some(now) = open_listed(storage, dir, here)? else {
            return Ok(End::Gone);
        };
        if now.header != cursor.segment.header {
            check_succession(cursor, &now)?;
            return Ok(End::Next(now));
        }
    }
    let Some(&first) = segments.iter().find(|&&first| first > here) else {
        return Ok(End::Log(match tail::judge_last(cursor)? {
            Tail::Clean => None,
            Tail::Torn { end, .. } => Some(torn(cursor, end)),
        }));
    };
    if first > cursor.next_lsn && !segments.contains(&here) {
        return Err(ReadError::Released {
            next: cursor.next_lsn,
            oldest: first,
        });
    }
    tail::judge_sealed(cursor)?;
    let Some(next) = open_listed(storage, dir, first)? else {
        return Ok(End::Gone);
    };
    check_succession(cursor, &next)?;
    Ok(End::Next(next))
}

/// Opens a segment that was just listed; `None` if it was released since.
fn open_listed(
    storage: &dyn Storage,
    dir: &Path,
    first: Lsn,
) -> Result<Option<Segment>, ReadError> {
    match Segment::open(storage, dir, first, Access::Read) {
        Err(error) if is_not_found(&error) => Ok(None),
        // Another segment's header, or half of one, if it was overwritten while it was being opened.
        Err(ReadError::Damaged(damage)) => {
            let is_there = segment::list(storage, dir)?.contains(&first);
            if is_there {
                Err(damage.into())
            } else {
                Ok(None)
            }
        }
        other => other.map(Some),
    }
}

fn is_not_found(error: &ReadError) -> bool {
    matches!(error, ReadError::Io(failure) if failure.source.kind() == ErrorKind::NotFound)
}

/// What a sound log holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// How many segments.
    pub segments: u64,
    /// How many frames.
    pub frames: u64,
    /// How many records.
    pub records: u64,
    /// The oldest record; `None` if there is none.
    pub first_lsn: Option<Lsn>,
    /// The newest record; `None` if there is none.
    pub last_lsn: Option<Lsn>,
    /// The size of the records, without their lengths, in bytes.
    pub bytes: u64,
    /// A torn frame at the end: the next opening will drop it, or a writer is at work just now.
    pub torn: Option<Torn>,
}

/// Reads a whole log and checks all of it; works while a writer is appending.
///
/// # Errors
/// See [`ReadError`].
pub fn verify(dir: impl Into<PathBuf>, storage: Arc<dyn Storage>) -> Result<Verified, ReadError> {
    let mut reader = Reader::open(dir, storage, Lsn::ZERO)?;
    let (mut records, mut bytes, mut first_lsn, mut last_lsn) = (0, 0, None, None);
    while let Some((lsn, record)) = reader.next_record()? {
        records += 1;
        bytes += record.len() as u64;
        first_lsn = first_lsn.or(Some(lsn));
        last_lsn = Some(lsn);
    }
    let Reader {
        segments,
        frames,
        torn,
        ..
    } = reader;
    Ok(Verified {
        segments,
        frames,
        records,
        first_lsn,
        last_lsn,
        bytes,
        torn,
    })
}

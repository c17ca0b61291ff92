//! What can go wrong with a log, sorted by what the caller can do about it.
//!
//! The one idea: three outcomes must never be mixed up. *No space* is clean: nothing was written,
//! the same call may be made again later. A *failure* is final: after it the log accepts nothing,
//! because what is on the disk is no longer known. *Damage* is for a person: acknowledged bytes are
//! not what they were, and the log says where.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use thiserror::Error;

use crate::Lsn;

/// Bytes of the log are not what was written there.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{} is damaged at byte {offset} (lsn {lsn}): {what}", file.display())]
pub struct Damage {
    /// The segment file.
    pub file: PathBuf,
    /// Where in the file the damaged structure begins, in bytes.
    pub offset: u64,
    /// The first record that cannot be read because of it.
    pub lsn: Lsn,
    /// What was found.
    pub what: DamageKind,
}

/// What a piece of damage looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DamageKind {
    /// The segment's header fails its checksum or its magic number.
    #[error("the segment header does not match its checksum")]
    SegmentHeader,
    /// The segment's header is sound, but carries another log's id.
    #[error("the segment belongs to another log")]
    ForeignSegment,
    /// The segment's header is sound, but names another first record than the file's name.
    #[error("the segment's header says lsn {found}, its file name something else")]
    MisnamedSegment {
        /// The first record according to the header.
        found: Lsn,
    },
    /// The records end here, yet a later segment begins further on.
    #[error("the records end here, but the next segment begins with lsn {next}")]
    Gap {
        /// The first record of the next segment.
        next: Lsn,
    },
    /// The next segment does not continue the chain of checksums that ends here.
    #[error("the next segment does not follow the last frame of this one")]
    BrokenChain,
    /// A frame's header was written as a whole and no longer matches its checksum.
    #[error("the frame header does not match its checksum")]
    FrameHeader,
    /// A frame's header is sound, but its records are not the ones expected here.
    #[error("the frame holds records from lsn {found} on or follows another frame")]
    Misplaced {
        /// The frame's first record.
        found: Lsn,
    },
    /// A frame's payload was written as a whole and no longer matches its checksum.
    #[error("the frame payload does not match its checksum")]
    FramePayload,
    /// A frame's checksums hold, but its records do not fill it.
    #[error("the frame's records do not fit its length")]
    Records,
    /// The frame cannot be read, and a later one says that it was durable.
    #[error(
        "the frame is unreadable, and the one at byte {evidence} was written after it was durable"
    )]
    Vanished {
        /// Where the later frame begins.
        evidence: u64,
    },
}

/// An operation on a file that failed and made the log stop.
#[derive(Clone, Debug, Error)]
#[error("could not {action} {}: {source}", path.display())]
pub struct Failure {
    /// What was being done, as a verb phrase: "sync", "write to".
    pub action: &'static str,
    /// The file or directory.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: Arc<io::Error>,
}

impl Failure {
    pub(crate) fn new(action: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Failure {
            action,
            path: path.into(),
            source: Arc::new(source),
        }
    }
}

/// Why a log could not be opened. `E` is the error of the visitor.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpenError<E = Infallible> {
    /// Another process has the log open for writing.
    #[error("the log in {} is in use by {}", dir.display(), Holder(*pid))]
    Locked {
        /// The log's directory.
        dir: PathBuf,
        /// Who holds it, if it said so.
        pid: Option<u32>,
    },
    /// Acknowledged records are damaged. Nothing was changed.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The log was written by a later version. Nothing was changed.
    #[error("{} has log format {found}, this version reads up to {supported}", file.display())]
    NewerFormat {
        /// The segment file.
        file: PathBuf,
        /// The format it is in.
        found: u32,
        /// The newest format known here.
        supported: u32,
    },
    /// The options contradict each other or are out of range.
    #[error("the log options are wrong: {what}")]
    Invalid {
        /// Which, and what would be right.
        what: String,
    },
    /// There is no room for the first segment, or to make good a segment that was cut short.
    #[error("no space for the log: {0}")]
    NoSpace(Failure),
    /// The file system refused.
    #[error(transparent)]
    Io(Failure),
    /// The visitor refused a record.
    #[error("record {lsn} was refused: {source}")]
    Visitor {
        /// The record.
        lsn: Lsn,
        /// Why.
        source: E,
    },
}

/// Prints the holder of a lock.
struct Holder(Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("another process"),
        }
    }
}

impl<E> OpenError<E> {
    /// An I/O error on the way to an open log, told apart by whether more space would help.
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let no_space = is_no_space(&source);
        let failure = Failure::new(action, path, source);
        if no_space {
            OpenError::NoSpace(failure)
        } else {
            OpenError::Io(failure)
        }
    }
}

impl<E> From<ReadError> for OpenError<E> {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Damaged(damage) => OpenError::Damaged(damage),
            ReadError::NewerFormat {
                file,
                found,
                supported,
            } => OpenError::NewerFormat {
                file,
                found,
                supported,
            },
            ReadError::Io(failure) => OpenError::Io(failure),
            ReadError::Released { .. } => {
                unreachable!("nothing is released while recovery holds the lock")
            }
        }
    }
}

/// Why a batch was not appended, or a log not synced or trimmed.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The batch is larger than a frame may be. Nothing was written; a smaller batch will do.
    #[error("a batch of {bytes} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The size of the batch as encoded, in bytes.
        bytes: usize,
        /// The largest size that is accepted, in bytes.
        limit: usize,
    },
    /// There is no room for the next segment. Nothing was written; the same batch may be appended
    /// once there is space.
    #[error("no space for the next log segment: {0}")]
    NoSpace(Failure),
    /// A write or sync failed, now or earlier. The log accepts nothing any more: what is on the
    /// disk is unknown until it is opened again.
    #[error("the log has failed: {0}")]
    Failed(Failure),
}

/// Why a log could not be read.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum ReadError {
    /// Acknowledged records are damaged.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// The log was written by a later version.
    #[error("{} has log format {found}, this version reads up to {supported}", file.display())]
    NewerFormat {
        /// The segment file.
        file: PathBuf,
        /// The format it is in.
        found: u32,
        /// The newest format known here.
        supported: u32,
    },
    /// The records to be read next were released while others were being read.
    #[error("records {next} to {} have been released", oldest.prev())]
    Released {
        /// The record that was to be read next.
        next: Lsn,
        /// The oldest that is still there.
        oldest: Lsn,
    },
    /// The file system refused.
    #[error(transparent)]
    Io(Failure),
}

impl ReadError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        ReadError::Io(Failure::new(action, path, source))
    }
}

/// Whether an error means that more space would help: a full disk or an exhausted quota.
pub(crate) fn is_no_space(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

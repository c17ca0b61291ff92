//! [`Options`]: how a log is to be opened.
//!
//! The one idea: limits are checked once, here, so that nothing inside has to ask again whether a
//! frame fits into a segment or a length into 32 bits.

use std::path::PathBuf;
use std::time::Duration;

use crate::format::{LogId, SEGMENT_HEADER_BYTES};
use crate::frame::{FRAME_ALIGN, FRAME_HEADER_BYTES, payload_max, payload_max_anywhere};

/// The smallest segment: one page. Only tests want it.
const SEGMENT_BYTES_MIN: u64 = 4 << 10;
/// The largest segment. It keeps counts of records within a segment in 32 bits.
pub(crate) const SEGMENT_BYTES_MAX: u64 = 4 << 30;
/// The largest frame. Recovery holds one frame in memory.
pub(crate) const FRAME_BYTES_MAX: usize = 1 << 30;
/// What a disk and a page cache deal in.
const PAGE_BYTES: u64 = 4 << 10;

/// When appended records are made durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// Before an append returns.
    #[default]
    Always,
    /// At most so long after an append has returned. A crash of the machine can lose what was
    /// appended since the last sync; a crash of the process alone loses nothing.
    Interval(Duration),
    /// When the operating system likes, and when a segment is full. For tests.
    Never,
}

/// How a log is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The directory of the log, made if it is not there. Nothing else should be kept in it, except
    /// directories.
    pub dir: PathBuf,
    /// The size of new segments in bytes: a multiple of 4096, from 4 KiB to 4 GiB.
    pub segment_bytes: u64,
    /// The largest frame, that is the largest batch, in bytes. Where a segment has less room, that
    /// is the limit.
    pub max_frame_bytes: usize,
    /// When appended records are made durable.
    pub sync: SyncPolicy,
    /// The id of a log that is made new; `None` chooses one at random. A log that is there keeps its own.
    pub log_id: Option<LogId>,
}

impl Options {
    /// A log in `dir` with segments of 64 MiB, frames of up to 8 MiB, and a sync for every append.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Options {
            dir: dir.into(),
            segment_bytes: 64 << 20,
            max_frame_bytes: 8 << 20,
            sync: SyncPolicy::Always,
            log_id: None,
        }
    }

    /// Says what is wrong with the options, if anything is.
    pub(crate) fn check(&self) -> Result<(), String> {
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&self.segment_bytes)
            || !self.segment_bytes.is_multiple_of(PAGE_BYTES)
        {
            return Err(format!(
                "a segment size of {} bytes is not a multiple of {PAGE_BYTES} between \
                 {SEGMENT_BYTES_MIN} and {SEGMENT_BYTES_MAX}",
                self.segment_bytes
            ));
        }
        let smallest = FRAME_HEADER_BYTES + FRAME_ALIGN;
        if !(smallest..=FRAME_BYTES_MAX).contains(&self.max_frame_bytes) {
            return Err(format!(
                "a frame limit of {} bytes is not between {smallest} and {FRAME_BYTES_MAX}",
                self.max_frame_bytes
            ));
        }
        if self.sync == SyncPolicy::Interval(Duration::ZERO) {
            return Err("a sync interval of zero is the policy that always syncs".to_owned());
        }
        Ok(())
    }

    /// The largest payload whose frame keeps to the limit and fits into an empty segment, in bytes.
    pub(crate) fn payload_limit(&self) -> usize {
        let in_segment = payload_max(SEGMENT_HEADER_BYTES as u64, self.segment_bytes);
        payload_max_anywhere(self.max_frame_bytes).min(in_segment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::frame_end;

    #[test]
    fn the_payload_limit_fits_wherever_a_frame_begins() {
        for max_frame_bytes in [48, 49, 55, 56, 60, 1000, 7000, 1 << 20] {
            let options = Options {
                max_frame_bytes,
                segment_bytes: 8192,
                ..Options::new("x")
            };
            let limit = options.payload_limit();
            assert!(frame_end(SEGMENT_HEADER_BYTES as u64, limit) <= 8192);
            // Padding to the end of a sector is not counted; it is less than another frame and a tag.
            let most = max_frame_bytes + FRAME_HEADER_BYTES + 12;
            let largest = |payload| {
                let ends = (512..=968).step_by(8).map(|at| frame_end(at, payload) - at);
                ends.max().unwrap_or_default() as usize
            };
            assert!(largest(limit) <= most, "{max_frame_bytes}");
            let tight = limit < 7000 && largest(limit + 3 * FRAME_ALIGN) > max_frame_bytes;
            assert!(
                tight || limit > 7000,
                "{max_frame_bytes}: {limit} is too small"
            );
        }
    }
}

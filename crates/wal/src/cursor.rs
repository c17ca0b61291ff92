//! [`Cursor`]: walks the frames of one segment.
//!
//! The one idea: walking is cheap and knows nothing of disasters. It takes frames for as long as they
//! are beyond doubt, and stops at the first place that is not the expected frame; what that place
//! *is* (the end, a torn frame, damage) is judged by `tail`, once, after the walk.
//!
//! Invariants: a frame is handed out only if its header and payload checksums hold, its first LSN is
//! the next one and its chain names the frame before. Bytes that a file lacks count as zeros, so a
//! file cut short reads like one whose tail was never written.

use crate::format::{FIRST_FORMAT, SEGMENT_HEADER_BYTES, take_record};
use crate::frame::{FRAME_HEADER_BYTES, FrameHeader, Layout};
use crate::segment::Segment;
use crate::{DamageKind, Lsn, ReadError};

/// How much is read from a segment at once, in bytes: large enough to make the system call cheap,
/// small enough to stay in the second-level cache between its two uses, checksum and visitor.
const CHUNK_BYTES: usize = 256 << 10;

/// A frame that was found sound.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) offset: u64,
}

/// A place in the log: a segment, an offset in it and what must come there.
#[derive(Debug)]
pub(crate) struct Cursor {
    pub(crate) segment: Segment,
    pub(crate) layout: Layout,
    pub(crate) offset: u64,
    pub(crate) next_lsn: Lsn,
    pub(crate) chain: u32,
    /// Whether a frame so far says that those behind it may be far from what is durable.
    pub(crate) is_relaxed: bool,
    window: Window,
}

impl Cursor {
    /// Begins at the first frame of a segment.
    pub(crate) fn new(segment: Segment) -> Self {
        let header = segment.header;
        Cursor {
            segment,
            layout: Layout::of(&header),
            offset: SEGMENT_HEADER_BYTES as u64,
            next_lsn: header.first_lsn,
            chain: header.chain,
            is_relaxed: header.version == FIRST_FORMAT,
            window: Window::default(),
        }
    }

    /// Goes on at the first frame of the next segment.
    pub(crate) fn enter(&mut self, segment: Segment) {
        let window = std::mem::take(&mut self.window);
        *self = Cursor::new(segment);
        self.window = window;
        self.window.forget();
    }

    /// Takes the next frame; `None` where there is no sound frame with the expected records.
    ///
    /// # Errors
    /// Also when a frame's checksums hold and its records do not fill it: we never wrote that.
    pub(crate) fn step(&mut self) -> Result<Option<Frame>, ReadError> {
        let offset = self.offset;
        let Some(header) = self.check_frame()? else {
            return Ok(None);
        };
        let frame = self
            .window
            .load(&self.segment, offset, header.frame_bytes)?;
        self.layout.unpack(&header, frame, offset);
        let payload = &frame[FRAME_HEADER_BYTES..][..header.payload_bytes as usize];
        if !is_filled_by(payload, header.count) {
            let damage = self
                .segment
                .damage(offset, header.first_lsn, DamageKind::Records);
            return Err(damage.into());
        }
        self.offset += header.frame_bytes as u64;
        self.next_lsn = header.next_lsn();
        self.chain = header.payload_crc;
        self.is_relaxed |= header.is_relaxed;
        Ok(Some(Frame { header, offset }))
    }

    /// The header of the next frame, if that frame is sound and holds the expected records.
    pub(crate) fn check_frame(&mut self) -> Result<Option<FrameHeader>, ReadError> {
        let room = self.segment.header.capacity.saturating_sub(self.offset);
        if room < FRAME_HEADER_BYTES as u64 {
            return Ok(None);
        }
        let bytes = self
            .window
            .load(&self.segment, self.offset, FRAME_HEADER_BYTES)?;
        let Some(header) = self.layout.decode(bytes, self.offset) else {
            return Ok(None);
        };
        let expected = header.first_lsn == self.next_lsn && header.chain == self.chain;
        if !expected || header.frame_bytes as u64 > room {
            return Ok(None);
        }
        #[cfg(planted)]
        if crate::planted::is("checksum-skipped") {
            return Ok(Some(header));
        }
        if header.frame_bytes > CHUNK_BYTES
            && !self
                .segment
                .reaches(self.offset + header.frame_bytes as u64)?
        {
            return Ok(None);
        }
        let frame = self
            .window
            .load(&self.segment, self.offset, header.frame_bytes)?;
        let crc = crc32c::crc32c_append(header.chain, &frame[FRAME_HEADER_BYTES..]);
        Ok((crc == header.payload_crc).then_some(header))
    }

    /// The records of the frame that the last step took.
    pub(crate) fn payload(&self, frame: &Frame) -> &[u8] {
        let start = frame.offset + FRAME_HEADER_BYTES as u64;
        self.window
            .loaded(start, frame.header.payload_bytes as usize)
    }

    /// Drops what was read ahead, so that the next step sees the file as it is then.
    pub(crate) fn refresh(&mut self) {
        self.window.forget();
    }
}

/// Whether a payload is exactly `count` records.
fn is_filled_by(mut payload: &[u8], count: u32) -> bool {
    (0..count).all(|_| take_record(&mut payload).is_some()) && payload.is_empty()
}

/// The part of a segment that is in memory.
#[derive(Debug, Default)]
struct Window {
    bytes: Vec<u8>,
    /// Where in the segment `bytes` begins.
    start: u64,
    /// How much of `bytes` is filled.
    filled: usize,
}

impl Window {
    fn forget(&mut self) {
        self.filled = 0;
    }

    /// The `count` bytes at `offset`, read if they are not here yet; zeros past the file's end.
    fn load(
        &mut self,
        segment: &Segment,
        offset: u64,
        count: usize,
    ) -> Result<&mut [u8], ReadError> {
        if !self.holds(offset, count) {
            self.read(segment, offset, count)?;
        }
        let at = (offset - self.start) as usize;
        Ok(&mut self.bytes[at..at + count])
    }

    /// The `count` bytes at `offset`, which were loaded before.
    fn loaded(&self, offset: u64, count: usize) -> &[u8] {
        let at = (offset - self.start) as usize;
        &self.bytes[at..at + count]
    }

    fn holds(&self, offset: u64, count: usize) -> bool {
        offset >= self.start && offset + count as u64 <= self.start + self.filled as u64
    }

    fn read(&mut self, segment: &Segment, offset: u64, count: usize) -> Result<(), ReadError> {
        let kept = if self.holds(offset, 0) {
            let from = (offset - self.start) as usize;
            self.bytes.copy_within(from..self.filled, 0);
            self.filled - from
        } else {
            0
        };
        let rest_of_segment = segment.header.capacity.saturating_sub(offset);
        let target = count.max(CHUNK_BYTES.min(rest_of_segment as usize));
        if self.bytes.len() < target {
            self.bytes.resize(target, 0);
        }
        self.start = offset;
        self.filled = kept;
        let unread = &mut self.bytes[kept..target];
        let found = segment
            .file
            .read_at(unread, offset + kept as u64)
            .map_err(|error| segment.io("read", error))?;
        unread[found..].fill(0);
        self.filled = target;
        Ok(())
    }
}

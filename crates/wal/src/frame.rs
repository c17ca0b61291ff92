//! Frames: one batch each, between the marks that say to which life of the segment a sector belongs.
//!
//! The one idea: **every sector that a frame reaches into ends with the tag of the segment's life**: the payload flows
//! around the tags, and what is left of its last sector is zeros and the tag. So whether a sector was written in this life is
//! there to be seen, wherever the frame lies and whatever is in it (`format` says how), and a frame that begins within a
//! sector begins over zeros. The tag is at the end, so that also a write that got only so far has not brought it. The header
//! lies in one sector, so that it is there as a whole or not at all.
//!
//! | bytes | frame header |
//! |---|---|
//! | 0..4 | CRC-32C of the log id, the life and bytes 4..40 |
//! | 4..8 | payload length in bytes, tags and padding not counted |
//! | 8..16 | LSN of the first record |
//! | 16..20 | count of records |
//! | 20..24 | how many records before this frame were not known to be durable when it was written |
//! | 24..28 | chain: payload checksum of the frame before |
//! | 28..32 | payload checksum: CRC-32C of all that follows the header, as on disk, begun with the chain |
//! | 32..40 | 1 if the frames after this one may be many when they are made durable (see [`REACH_BYTES`]), else 0 |
//!
//! The payload follows, cut by the tags at the ends of sectors. Zeros pad it to a multiple of 8, or to the tag at the end of
//! the sector where that would leave no room for another header, which is then the end of the frame. The last byte of the
//! padding, which is never empty, is `0xA5`, and so is that of a tag: where one of them reads as zero, the frame was cut off.
//!
//! Invariants: the payload checksum of a frame depends on every frame before it; header and payload can each be checked
//! without any other frame; each sector's share of a frame has at least two bits set (of the header, the tag or the last
//! byte), so that none is taken for zeros, nor by a single flip.

use crc32c::crc32c_append;

use crate::Lsn;
use crate::first_format;
use crate::format::{
    FIRST_FORMAT, Life, SECTOR_BYTES, SegmentHeader, TAG_BYTES, TRAILER, u32_at, u64_at,
};
use crate::options::FRAME_BYTES_MAX;

/// The size of a frame header.
pub(crate) const FRAME_HEADER_BYTES: usize = 40;
/// Frames begin at multiples of this.
pub(crate) const FRAME_ALIGN: usize = 8;
/// How far what is not durable reaches behind what is, in bytes, unless a durable frame says otherwise: so far a tail has to
/// be looked at for the remains of a crash. A frame that is longer is written in two steps, its beginning made durable first.
/// (A mebibyte is read in 0.1 ms, and takes longer to write than the second sync does.)
pub(crate) const REACH_BYTES: u64 = 1 << 20;
/// The least that a frame has in the sector it begins in.
const ROOM_MIN: usize = FRAME_HEADER_BYTES + FRAME_ALIGN;
/// What a sector has before its tag.
const SHARE_BYTES: usize = SECTOR_BYTES as usize - TAG_BYTES;

/// The first bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) payload_bytes: u32,
    pub(crate) first_lsn: Lsn,
    pub(crate) count: u32,
    pub(crate) unsynced: u32,
    pub(crate) chain: u32,
    pub(crate) payload_crc: u32,
    /// Of the first format only.
    pub(crate) mask: u64,
    /// Whether frames behind this one may be further than [`REACH_BYTES`] from what is durable.
    pub(crate) is_relaxed: bool,
    /// The size of the whole frame: header, payload, tags and padding.
    pub(crate) frame_bytes: usize,
}

impl FrameHeader {
    fn encode(&self, life: Life, out: &mut [u8]) {
        out[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[8..16].copy_from_slice(&self.first_lsn.0.to_le_bytes());
        out[16..20].copy_from_slice(&self.count.to_le_bytes());
        out[20..24].copy_from_slice(&self.unsynced.to_le_bytes());
        out[24..28].copy_from_slice(&self.chain.to_le_bytes());
        out[28..32].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[32..40].copy_from_slice(&u64::from(self.is_relaxed).to_le_bytes());
        let crc = crc32c_append(life.seed, &out[4..FRAME_HEADER_BYTES]);
        out[0..4].copy_from_slice(&crc.to_le_bytes());
    }

    fn decode(life: Life, bytes: &[u8], offset: u64) -> Option<Self> {
        let bytes = bytes.get(..FRAME_HEADER_BYTES)?;
        if room_in_sector(offset) < ROOM_MIN {
            return None;
        }
        let common = FrameHeader::read(bytes);
        let header = FrameHeader {
            is_relaxed: u64_at(bytes, 32) != 0,
            frame_bytes: (frame_end(offset, common.payload_bytes as usize) - offset) as usize,
            ..common
        };
        header.is_sound(life.seed, bytes).then_some(header)
    }

    /// Reads the fields that both formats have alike. Whose frame it is says what of the others holds.
    pub(crate) fn read(bytes: &[u8]) -> Self {
        FrameHeader {
            payload_bytes: u32_at(bytes, 4),
            first_lsn: Lsn(u64_at(bytes, 8)),
            count: u32_at(bytes, 16),
            unsynced: u32_at(bytes, 20),
            chain: u32_at(bytes, 24),
            payload_crc: u32_at(bytes, 28),
            mask: 0,
            is_relaxed: false,
            frame_bytes: 0,
        }
    }

    /// Whether the fields make sense together, and are those that were written, with a checksum begun with `seed`.
    pub(crate) fn is_sound(&self, seed: u32, bytes: &[u8]) -> bool {
        // Cheap tests first: recovery tries this at every eighth byte of a torn tail.
        self.is_plausible() && crc32c_append(seed, &bytes[4..]) == u32_at(bytes, 0)
    }

    fn is_plausible(&self) -> bool {
        self.count >= 1
            && self.count <= self.payload_bytes
            && self.frame_bytes <= FRAME_BYTES_MAX + SECTOR_BYTES as usize
            && self.first_lsn.0.checked_add(self.count.into()).is_some()
            && self.first_lsn.0 > u64::from(self.unsynced)
    }

    /// The highest LSN known to be durable when the frame was written.
    pub(crate) fn synced_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 - 1 - u64::from(self.unsynced))
    }

    /// The LSN of the first record after the frame.
    pub(crate) fn next_lsn(&self) -> Lsn {
        Lsn(self.first_lsn.0 + u64::from(self.count))
    }
}

/// How the frames of a segment are laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Layout {
    /// As in `first_format`, with this seed.
    First { seed: u32 },
    /// As above, in this life.
    Second(Life),
}

impl Layout {
    pub(crate) fn of(header: &SegmentHeader) -> Self {
        match header.version {
            FIRST_FORMAT => Layout::First {
                seed: header.log_id.seed(),
            },
            _ => Layout::Second(Life::new(header.log_id, header.life)),
        }
    }

    /// Reads the header of a frame at `offset`, or nothing if the bytes are not one: its checksum must hold and its
    /// fields must make sense together.
    pub(crate) fn decode(&self, bytes: &[u8], offset: u64) -> Option<FrameHeader> {
        match *self {
            Layout::First { seed } => first_format::decode(seed, bytes),
            Layout::Second(life) => FrameHeader::decode(life, bytes, offset),
        }
    }

    /// Whether a frame at `offset`, with zeros in place of all that is not ours, was cut off: it has no last byte, or one of its
    /// sectors was not written.
    pub(crate) fn is_cut_off(&self, frame: &[u8], offset: u64) -> bool {
        let ends = match self {
            Layout::First { .. } => [frame.len() - 1; 2],
            Layout::Second(_) => [trailer_at(offset, frame.len()), frame.len() - 1],
        };
        ends.iter().any(|&end| frame[end] == 0) || self.has_blank_share(frame, offset)
    }

    /// Whether some sector's share of what begins at `offset` is all zeros, in place of what is not ours: it was not written.
    pub(crate) fn has_blank_share(&self, bytes: &[u8], offset: u64) -> bool {
        let is_blank = |share: &[u8]| share.iter().all(|&byte| byte == 0);
        let first_share = (sector_end(offset) - offset) as usize;
        let (first, rest) = bytes.split_at(first_share.min(bytes.len()));
        let first = &first[..first.len() - self.foreign_tag(first.len(), offset)];
        is_blank(first) || rest.chunks(SECTOR_BYTES as usize).any(is_blank)
    }

    /// Sets the tag of a sector to zero that others have written as well, and says nothing of what begins at `offset` in it.
    pub(crate) fn blank_foreign_tag(&self, bytes: &mut [u8], offset: u64) {
        let first_share = ((sector_end(offset) - offset) as usize).min(bytes.len());
        let tag_bytes = self.foreign_tag(first_share, offset);
        bytes[first_share - tag_bytes..first_share].fill(0);
    }

    /// How much of the first `count` bytes from `offset` on, which are of one sector, is such a tag.
    fn foreign_tag(&self, count: usize, offset: u64) -> usize {
        match self {
            Layout::Second(_) if !offset.is_multiple_of(SECTOR_BYTES) => {
                count.saturating_sub(room_in_sector(offset))
            }
            _ => 0,
        }
    }

    /// Makes the payload of a sound frame at `offset` one piece, right behind its header.
    pub(crate) fn unpack(&self, header: &FrameHeader, frame: &mut [u8], offset: u64) {
        let payload_bytes = header.payload_bytes as usize;
        if let Layout::First { .. } = self {
            first_format::unmask(
                header.mask,
                &mut frame[FRAME_HEADER_BYTES..][..payload_bytes],
            );
            return;
        }
        let end = FRAME_HEADER_BYTES + payload_bytes;
        let mut to = room_in_sector(offset);
        let mut from = to + TAG_BYTES;
        while to < end {
            let count = SHARE_BYTES.min(end - to);
            frame.copy_within(from..from + count, to);
            from += SECTOR_BYTES as usize;
            to += count;
        }
    }

    /// Sets what was not written in this life of the segment to zeros: see [`Life::blank_others`].
    pub(crate) fn blank_others(&self, bytes: &mut [u8], offset: u64) {
        if let Layout::Second(life) = self {
            life.blank_others(bytes, offset);
        }
    }

    /// What is to be there between the end of the last frame, at `offset`, and the end of its sector.
    pub(crate) fn end_of_sector(&self, offset: u64) -> Vec<u8> {
        match self {
            Layout::Second(life) if !offset.is_multiple_of(SECTOR_BYTES) => {
                let mut bytes = vec![0; room_in_sector(offset)];
                bytes.extend_from_slice(&life.tag.to_le_bytes());
                bytes
            }
            _ => Vec::new(),
        }
    }

    /// The offsets between a frame's beginning and `end` that are a frame's to write: not the tag of a sector that other
    /// frames are in.
    pub(crate) fn own_ranges(&self, offset: u64, end: u64) -> [std::ops::Range<u64>; 2] {
        let sector_end = offset.next_multiple_of(SECTOR_BYTES);
        match self {
            Layout::Second(_) if offset < sector_end => {
                let tag = sector_end - TAG_BYTES as u64;
                [offset..end.min(tag), sector_end..end.max(sector_end)]
            }
            _ => [offset..end, end..end],
        }
    }
}

/// How much of its sector lies at or behind an offset and before the tag.
fn room_in_sector(offset: u64) -> usize {
    SHARE_BYTES.saturating_sub((offset % SECTOR_BYTES) as usize)
}

/// Where a sector ends.
fn sector_end(offset: u64) -> u64 {
    (offset / SECTOR_BYTES + 1) * SECTOR_BYTES
}

/// Where a frame at `offset` around a payload of `payload_bytes` bytes ends, and the next one begins.
pub(crate) fn frame_end(offset: u64, payload_bytes: usize) -> u64 {
    // At least one byte of padding.
    let bytes = payload_bytes + 1;
    let first_share = room_in_sector(offset) - FRAME_HEADER_BYTES;
    let end = if bytes <= first_share {
        offset + (FRAME_HEADER_BYTES + bytes) as u64
    } else {
        let tags = (bytes - first_share).div_ceil(SHARE_BYTES) * TAG_BYTES;
        offset + (FRAME_HEADER_BYTES + bytes + tags) as u64
    };
    let end = end.next_multiple_of(FRAME_ALIGN as u64);
    if room_in_sector(end) < ROOM_MIN {
        sector_end(end)
    } else {
        end
    }
}

/// The largest payload whose frame, begun at `offset`, ends no further than `end`, which is the end of a sector.
pub(crate) fn payload_max(offset: u64, end: u64) -> usize {
    let sectors = (end - offset).div_ceil(SECTOR_BYTES) as usize;
    room_in_sector(offset) - FRAME_HEADER_BYTES + (sectors - 1) * SHARE_BYTES - 1
}

/// The largest payload whose frame has no more than `frame_bytes` bytes, wherever it begins, but for padding up to the end
/// of a sector.
pub(crate) fn payload_max_anywhere(frame_bytes: usize) -> usize {
    let frame_bytes = frame_bytes / FRAME_ALIGN * FRAME_ALIGN;
    let tags = (frame_bytes - ROOM_MIN).div_ceil(SECTOR_BYTES as usize) * TAG_BYTES;
    (frame_bytes - FRAME_HEADER_BYTES - tags) / FRAME_ALIGN * FRAME_ALIGN - 1
}

/// What the writer knows about a frame before its bytes are laid out.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FrameSpec {
    /// Where in the segment the frame goes, in bytes.
    pub(crate) offset: u64,
    pub(crate) first_lsn: Lsn,
    pub(crate) synced_lsn: Lsn,
    pub(crate) count: u32,
    /// The payload checksum of the frame before.
    pub(crate) chain: u32,
    pub(crate) is_relaxed: bool,
}

/// Lays out a frame around the encoded records in `parts`, and what is to be written behind it up to the end of its sector;
/// returns its header.
///
/// # Panics
/// If the payload is 4 GiB or larger: the log's frame limit is far below.
pub(crate) fn encode_frame<'a>(
    spec: &FrameSpec,
    life: Life,
    parts: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) -> FrameHeader {
    let tag = life.tag.to_le_bytes();
    let mut room = room_in_sector(spec.offset) - FRAME_HEADER_BYTES;
    let mut payload_bytes = 0;
    out.clear();
    out.resize(FRAME_HEADER_BYTES, 0);
    for mut part in parts {
        payload_bytes += part.len();
        while part.len() >= room {
            let (share, rest) = part.split_at(room);
            out.extend_from_slice(share);
            out.extend_from_slice(&tag);
            part = rest;
            room = SHARE_BYTES;
        }
        out.extend_from_slice(part);
        room -= part.len();
    }
    let end = frame_end(spec.offset, payload_bytes);
    let written_end = end.next_multiple_of(SECTOR_BYTES);
    out.resize((written_end - spec.offset) as usize - TAG_BYTES, 0);
    out.extend_from_slice(&tag);
    let frame_bytes = (end - spec.offset) as usize;
    out[trailer_at(spec.offset, frame_bytes)] = TRAILER;
    let unsynced = spec.first_lsn.0 - 1 - spec.synced_lsn.0;
    let header = FrameHeader {
        payload_bytes: u32::try_from(payload_bytes)
            .expect("a payload is below 4 GiB because the frame limit is"),
        first_lsn: spec.first_lsn,
        count: spec.count,
        unsynced: u32::try_from(unsynced)
            .expect("a segment holds fewer than 2^32 records and the one before it was synced"),
        chain: spec.chain,
        payload_crc: crc32c_append(spec.chain, &out[FRAME_HEADER_BYTES..frame_bytes]),
        mask: 0,
        is_relaxed: spec.is_relaxed,
        frame_bytes,
    };
    header.encode(life, out);
    header
}

/// Where in a frame at `offset` the last byte of its padding is: before the tag, if it ends with the sector.
fn trailer_at(offset: u64, frame_bytes: usize) -> usize {
    let end = offset + frame_bytes as u64;
    let tag = usize::from(end.is_multiple_of(SECTOR_BYTES)) * TAG_BYTES;
    frame_bytes - tag - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::LogId;

    const LIFE: u32 = 7;

    fn life() -> Life {
        Life::new(LogId([3; 16]), LIFE)
    }

    fn spec(offset: u64) -> FrameSpec {
        FrameSpec {
            offset,
            first_lsn: Lsn(7),
            synced_lsn: Lsn(4),
            count: 1,
            chain: 99,
            is_relaxed: false,
        }
    }

    fn encode(offset: u64, payload: &[u8]) -> (FrameHeader, Vec<u8>) {
        let mut frame = Vec::new();
        let parts = payload.chunks(100).chain(std::iter::once(&[][..]));
        let header = encode_frame(&spec(offset), life(), parts, &mut frame);
        (header, frame)
    }

    /// Every place a frame may begin at, and payloads that end at and around every edge.
    #[test]
    fn a_frame_comes_back_wherever_it_lies() {
        let layout = Layout::Second(life());
        let another = Life::new(LogId([3; 16]), LIFE + 1);
        for offset in (512..=1020 - ROOM_MIN as u64).step_by(8) {
            for payload_bytes in (1..60).chain(400..480).chain(900..1100) {
                let payload: Vec<u8> = (0..payload_bytes).map(|n| (n * 7) as u8).collect();
                let (header, mut frame) = encode(offset, &payload);
                let case = format!("{payload_bytes} bytes at {offset}");
                let written_end = offset + frame.len() as u64;
                assert!(written_end.is_multiple_of(SECTOR_BYTES), "{case}");
                let end = offset + header.frame_bytes as u64;
                assert!(
                    end == written_end || room_in_sector(end) >= ROOM_MIN,
                    "{case}"
                );
                let behind = &frame
                    [header.frame_bytes..frame.len() - TAG_BYTES.min((written_end - end) as usize)];
                assert!(behind.iter().all(|&byte| byte == 0), "{case}");
                assert_eq!(layout.decode(&frame, offset), Some(header), "{case}");
                assert_eq!(header.synced_lsn(), Lsn(4));
                // All its sectors are of this life, of no later one, and one flipped bit changes nothing of that.
                let whole = frame.clone();
                for sector_end in (1024..=written_end).step_by(512) {
                    let bit = 1 << (sector_end / 512 % 8);
                    frame[(sector_end - offset) as usize - 2] ^= bit;
                }
                let flipped = frame.clone();
                life().blank_others(&mut frame, offset);
                let first = (1024 - offset) as usize;
                assert_eq!(frame, flipped, "{case}");
                assert!(
                    !layout.is_cut_off(&frame[..header.frame_bytes], offset),
                    "{case}"
                );
                another.blank_others(&mut frame, offset);
                assert!(frame[first..].iter().all(|&byte| byte == 0), "{case}");
                frame = whole;
                layout.unpack(&header, &mut frame, offset);
                assert_eq!(
                    frame[FRAME_HEADER_BYTES..][..payload.len()],
                    payload,
                    "{case}"
                );
            }
        }
    }

    /// Byte by byte, from the description above: whatever else is written some day, what is there must be found again.
    #[test]
    fn frames_end_where_the_format_says() {
        for offset in (512..=1020 - 48u64).step_by(8) {
            // Where the next byte goes: not on a tag.
            let mut at = offset + 40;
            for payload_bytes in 0..1200 {
                at += if at % 512 == 508 { 5 } else { 1 };
                let aligned = at.next_multiple_of(8);
                let left = 508u64.saturating_sub(aligned % 512);
                let end = if left < 48 {
                    aligned.next_multiple_of(512)
                } else {
                    aligned
                };
                assert_eq!(
                    frame_end(offset, payload_bytes),
                    end,
                    "{payload_bytes} bytes at {offset}"
                );
            }
        }
    }

    #[test]
    fn the_largest_payload_is_the_largest() {
        for offset in (64..=508 - ROOM_MIN as u64).step_by(8) {
            for end in [512, 1024, 8192] {
                let largest = payload_max(offset, end);
                assert_eq!(frame_end(offset, largest), end, "from {offset}");
                assert!(frame_end(offset, largest + 1) > end, "from {offset}");
            }
        }
    }

    /// A sector's tag is the only difference that a payload of zeros makes.
    #[test]
    fn a_sector_of_zeros_is_there_and_one_of_another_life_is_not() {
        let zeros = encode(512, &[0; 2000]).1;
        let layout = Layout::Second(life());
        assert!(!layout.has_blank_share(&zeros, 512));
        let before = Life::new(LogId([3; 16]), LIFE - 1);
        let mut theirs = Vec::new();
        let payload = std::iter::once(&[0; 2000][..]);
        encode_frame(&spec(512), before, payload, &mut theirs);
        for missing in 0..4 {
            let mut mixed = zeros.clone();
            let sector = missing * 512..(missing + 1) * 512;
            mixed[sector.clone()].copy_from_slice(&theirs[sector.clone()]);
            life().blank_others(&mut mixed, 512);
            assert!(
                layout.has_blank_share(&mixed, 512),
                "without sector {missing}"
            );
            mixed[sector.clone()].copy_from_slice(&zeros[sector]);
            assert_eq!(mixed, zeros);
        }
    }

    /// Numbers that no writer writes, under a checksum that holds: memory is made for a frame by what its header says.
    #[test]
    fn no_header_is_larger_than_life() {
        let header = FrameHeader {
            payload_bytes: FRAME_BYTES_MAX as u32 / 512 * 500,
            first_lsn: Lsn(u64::MAX - 7),
            count: 7,
            unsynced: 0,
            chain: 0,
            payload_crc: 0,
            mask: 0,
            is_relaxed: true,
            frame_bytes: 0,
        };
        let decoded = |header: FrameHeader| {
            let mut bytes = [0; FRAME_HEADER_BYTES];
            header.encode(life(), &mut bytes);
            Layout::Second(life()).decode(&bytes, 512)
        };
        assert!(decoded(header).is_some());
        for (payload_bytes, count) in [(u32::MAX, 7), (FRAME_BYTES_MAX as u32, 7), (6, 7)] {
            let header = FrameHeader {
                payload_bytes,
                count,
                ..header
            };
            assert_eq!(decoded(header), None, "{header:?}");
        }
    }
}

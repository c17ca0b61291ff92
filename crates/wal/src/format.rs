//! The bytes of a log: segment headers, frames, records.
//!
//! The one idea: **every sector's share of a written frame has at least two bits set.** The room a
//! frame is written into was all zeros before, and a disk writes a sector of 512 bytes as a whole or
//! not at all. So a share that reads as zeros was never written, and one that does not, was; and no
//! single flipped bit can make the one look like the other. That is what lets recovery tell a frame
//! cut off by a crash from a damaged one (see `tail`), exactly and without guessing.
//! It holds because the writer looks: a frame in which a share would be (nearly) blank, such as a
//! record of a thousand zeros, has its payload combined with a mask, and the mask is in its header.
//!
//! A **segment** is a file of fixed size, filled with zeros beforehand:
//!
//! | bytes | segment header |
//! |---|---|
//! | 0..8 | magic `TINKRWAL` |
//! | 8..12 | format version |
//! | 12..16 | zero |
//! | 16..32 | log id |
//! | 32..40 | LSN of the first record |
//! | 40..48 | size of the segment in bytes |
//! | 48..56 | when it was begun, in ms since 1970 |
//! | 56..60 | chain: payload checksum of the frame before, in the segment before |
//! | 60..64 | CRC-32C of bytes 0..60 |
//!
//! The header keeps this form in all versions, so that an older program can say what it has found.
//! Then come frames, each at a multiple of 8, until a frame does not fit any more. A **frame** is
//! one batch: the unit of write, of checksum, of atomicity and of sync.
//!
//! | bytes | frame header |
//! |---|---|
//! | 0..4 | CRC-32C of the log id and bytes 4..40 |
//! | 4..8 | payload length in bytes, padding not counted |
//! | 8..16 | LSN of the first record |
//! | 16..20 | count of records |
//! | 20..24 | how many records before this frame were not known to be durable when it was written |
//! | 24..28 | chain: payload checksum of the frame before |
//! | 28..32 | payload checksum: CRC-32C of payload and padding as on disk, begun with the chain |
//! | 32..40 | mask, combined by exclusive or with the payload, 8 bytes at a time |
//!
//! The payload is the records, each a LEB128 length and its bytes. Zeros pad it to a multiple of 8,
//! and the last byte of the padding, which is never empty, is `0xA5`: where the last byte of a frame
//! reads as zero, the file was cut off. All numbers are little endian.
//!
//! Invariants: the payload checksum of a frame depends on every frame before it; header and payload
//! can each be checked without any other frame.

use crc32c::{crc32c, crc32c_append};

use crate::Lsn;
use crate::options::{FRAME_BYTES_MAX, SEGMENT_BYTES_MAX};

/// The newest format this version writes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// What a disk writes as a whole or not at all. Larger sectors are multiples of it.
pub(crate) const SECTOR_BYTES: u64 = 512;
/// The size of a segment header.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;
/// The size of a frame header.
pub(crate) const FRAME_HEADER_BYTES: usize = 40;
/// Frames begin at multiples of this.
pub(crate) const FRAME_ALIGN: usize = 8;
/// The last byte of every frame. Four bits are set, so that one flip cannot make it zero.
pub(crate) const TRAILER: u8 = 0xA5;

const MAGIC: [u8; 8] = *b"TINKRWAL";

/// Tells one log from every other: chosen at random when the log is made.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct LogId(pub [u8; 16]);

impl LogId {
    /// What frame checksums begin with, so that another log's frames are never taken for ours.
    pub(crate) fn seed(self) -> u32 {
        crc32c(&self.0)
    }
}

impl std::fmt::Display for LogId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for LogId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogId({self})")
    }
}

/// The first bytes of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log_id: LogId,
    pub(crate) first_lsn: Lsn,
    pub(crate) capacity: u64,
    pub(crate) begun_unix_ms: u64,
    pub(crate) chain: u32,
}

/// Why bytes are not a segment header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderError {
    Damaged,
    Newer(u32),
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES];
        bytes[0..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes[16..32].copy_from_slice(&self.log_id.0);
        bytes[32..40].copy_from_slice(&self.first_lsn.0.to_le_bytes());
        bytes[40..48].copy_from_slice(&self.capacity.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.begun_unix_ms.to_le_bytes());
        bytes[56..60].copy_from_slice(&self.chain.to_le_bytes());
        let crc = crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The checksum is checked before the version, so that a flipped bit in the version is damage
    /// and not a log from the future.
    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER_BYTES]) -> Result<Self, HeaderError> {
        if bytes[0..8] != MAGIC || crc32c(&bytes[..60]) != u32_at(bytes, 60) {
            return Err(HeaderError::Damaged);
        }
        let version = u32_at(bytes, 8);
        if version > FORMAT_VERSION {
            return Err(HeaderError::Newer(version));
        }
        let mut log_id = [0; 16];
        log_id.copy_from_slice(&bytes[16..32]);
        let header = SegmentHeader {
            log_id: LogId(log_id),
            first_lsn: Lsn(u64_at(bytes, 32)),
            capacity: u64_at(bytes, 40),
            begun_unix_ms: u64_at(bytes, 48),
            chain: u32_at(bytes, 56),
        };
        // The checksum holds, so this can only be another program's idea of a segment.
        let sound = header.first_lsn >= Lsn::FIRST
            && (SEGMENT_HEADER_BYTES as u64..=SEGMENT_BYTES_MAX).contains(&header.capacity)
            && header.capacity.is_multiple_of(FRAME_ALIGN as u64);
        if sound {
            Ok(header)
        } else {
            Err(HeaderError::Damaged)
        }
    }
}

/// The first bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) payload_bytes: u32,
    pub(crate) first_lsn: Lsn,
    pub(crate) count: u32,
    pub(crate) unsynced: u32,
    pub(crate) chain: u32,
    pub(crate) payload_crc: u32,
    pub(crate) mask: u64,
}

impl FrameHeader {
    fn encode(&self, seed: u32, out: &mut [u8]) {
        out[4..8].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[8..16].copy_from_slice(&self.first_lsn.0.to_le_bytes());
        out[16..20].copy_from_slice(&self.count.to_le_bytes());
        out[20..24].copy_from_slice(&self.unsynced.to_le_bytes());
        out[24..28].copy_from_slice(&self.chain.to_le_bytes());
        out[28..32].copy_from_slice(&self.payload_crc.to_le_bytes());
        out[32..40].copy_from_slice(&self.mask.to_le_bytes());
        let crc = crc32c_append(seed, &out[4..FRAME_HEADER_BYTES]);
        out[0..4].copy_from_slice(&crc.to_le_bytes());
    }

    /// Reads a header, or nothing if the bytes are not one: its checksum must hold and its fields
    /// must make sense together.
    pub(crate) fn decode(seed: u32, bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..FRAME_HEADER_BYTES)?;
        let header = FrameHeader {
            payload_bytes: u32_at(bytes, 4),
            first_lsn: Lsn(u64_at(bytes, 8)),
            count: u32_at(bytes, 16),
            unsynced: u32_at(bytes, 20),
            chain: u32_at(bytes, 24),
            payload_crc: u32_at(bytes, 28),
            mask: u64_at(bytes, 32),
        };
        // Cheap tests first: recovery tries this at every eighth byte of a torn tail.
        let plausible = header.count >= 1
            && header.count <= header.payload_bytes
            && header.frame_bytes() <= FRAME_BYTES_MAX
            && header
                .first_lsn
                .0
                .checked_add(header.count.into())
                .is_some()
            && header.first_lsn.0 > u64::from(header.unsynced);
        let sound = plausible && crc32c_append(seed, &bytes[4..]) == u32_at(bytes, 0);
        sound.then_some(header)
    }

    /// The size of the whole frame: header, payload and padding.
    pub(crate) fn frame_bytes(&self) -> usize {
        frame_bytes(self.payload_bytes as usize)
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

/// The size of a frame around a payload of `payload_bytes` bytes: at least one byte of padding.
pub(crate) const fn frame_bytes(payload_bytes: usize) -> usize {
    FRAME_HEADER_BYTES + (payload_bytes / FRAME_ALIGN + 1) * FRAME_ALIGN
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
}

/// Lays out a frame around the encoded records in `parts`; returns its payload checksum.
///
/// # Panics
/// If the payload is 4 GiB or larger: the log's frame limit is far below.
pub(crate) fn encode_frame<'a>(
    spec: &FrameSpec,
    seed: u32,
    parts: impl Iterator<Item = &'a [u8]>,
    out: &mut Vec<u8>,
) -> u32 {
    out.clear();
    out.resize(FRAME_HEADER_BYTES, 0);
    for part in parts {
        out.extend_from_slice(part);
    }
    let payload_bytes = out.len() - FRAME_HEADER_BYTES;
    out.resize(frame_bytes(payload_bytes), 0);
    if let Some(last) = out.last_mut() {
        *last = TRAILER;
    }
    let unsynced = spec.first_lsn.0 - 1 - spec.synced_lsn.0;
    let mut header = FrameHeader {
        payload_bytes: u32::try_from(payload_bytes)
            .expect("a payload is below 4 GiB because the frame limit is"),
        first_lsn: spec.first_lsn,
        count: spec.count,
        unsynced: u32::try_from(unsynced)
            .expect("a segment holds fewer than 2^32 records and the one before it was synced"),
        chain: spec.chain,
        payload_crc: 0,
        mask: 0,
    };
    let payload = FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + payload_bytes;
    // Nearly always the first round is the last. Each further mask is a fresh 64-bit number, which
    // the payload would have had to repeat over a whole sector to need yet another.
    for attempt in 1.. {
        header.payload_crc = crc32c_append(spec.chain, &out[FRAME_HEADER_BYTES..]);
        header.encode(seed, out);
        if every_share_is_marked(out, spec.offset) {
            break;
        }
        let mask = split_mix_64(spec.first_lsn.0 ^ (attempt << 48));
        apply_mask(header.mask ^ mask, &mut out[payload.clone()]);
        header.mask = mask;
    }
    header.payload_crc
}

/// Combines a payload with a mask; doing it twice gives the payload back.
pub(crate) fn apply_mask(mask: u64, payload: &mut [u8]) {
    if mask == 0 {
        return;
    }
    let mask = mask.to_le_bytes();
    for chunk in payload.chunks_mut(mask.len()) {
        for (byte, mask) in chunk.iter_mut().zip(mask) {
            *byte ^= mask;
        }
    }
}

/// Whether each sector's share of a frame at `offset` has at least two bits set.
fn every_share_is_marked(frame: &[u8], offset: u64) -> bool {
    shares(frame, offset).all(|share| {
        let mut bits = 0;
        share.iter().any(|byte| {
            bits += byte.count_ones();
            bits >= 2
        })
    })
}

/// Whether some sector's share of a frame at `offset` is all zeros: it was never written.
pub(crate) fn has_blank_share(frame: &[u8], offset: u64) -> bool {
    shares(frame, offset).any(|share| share.iter().all(|&byte| byte == 0))
}

/// The parts into which sector boundaries cut a frame at `offset`.
fn shares(frame: &[u8], offset: u64) -> impl Iterator<Item = &[u8]> {
    let to_boundary = (SECTOR_BYTES - offset % SECTOR_BYTES) as usize;
    let (first, rest) = frame.split_at(to_boundary.min(frame.len()));
    std::iter::once(first).chain(rest.chunks(SECTOR_BYTES as usize))
}

/// The finalizer of SplitMix64 (Steele, Lea, Flood: *Fast Splittable Pseudorandom Number
/// Generators*, 2014): well spread bits from a counter.
fn split_mix_64(counter: u64) -> u64 {
    let mut z = counter.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Takes the first record off a payload: `None` if what is there is not one.
pub(crate) fn take_record<'a>(payload: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (&first, rest) = payload.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        long(first, rest)?
    };
    let (record, rest) = rest.split_at_checked(length)?;
    *payload = rest;
    Some(record)
}

/// The lengths that take more than one byte: at most 5, for 32 bits.
fn long(first: u8, mut rest: &[u8]) -> Option<(usize, &[u8])> {
    let mut length = u64::from(first & 0x7f);
    for shift in [7, 14, 21, 28] {
        let (&byte, tail) = rest.split_first()?;
        rest = tail;
        length |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return usize::try_from(length).ok().map(|length| (length, rest));
        }
    }
    None
}

/// Writes a record's length; returns how many of the 5 bytes are used.
pub(crate) fn encode_length(mut length: u32, out: &mut [u8; 5]) -> usize {
    let mut used = 0;
    while length >= 0x80 {
        out[used] = length as u8 | 0x80;
        length >>= 7;
        used += 1;
    }
    out[used] = length as u8;
    used + 1
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(offset: u64) -> FrameSpec {
        FrameSpec {
            offset,
            first_lsn: Lsn(7),
            synced_lsn: Lsn(4),
            count: 1,
            chain: 99,
        }
    }

    #[test]
    fn a_blank_payload_is_masked_and_comes_back() {
        let mut payload = vec![0; 4000];
        let mut length = [0; 5];
        let used = encode_length(4000, &mut length);
        payload.splice(0..0, length[..used].iter().copied());
        let mut frame = Vec::new();
        encode_frame(&spec(64), 5, std::iter::once(&payload[..]), &mut frame);

        let header = FrameHeader::decode(5, &frame).expect("a frame that was just encoded is one");
        assert_ne!(header.mask, 0, "zeros over whole sectors need a mask");
        assert!(!has_blank_share(&frame, 64));
        assert_eq!(header.synced_lsn(), Lsn(4));
        let end = FRAME_HEADER_BYTES + header.payload_bytes as usize;
        apply_mask(header.mask, &mut frame[FRAME_HEADER_BYTES..end]);
        assert_eq!(frame[FRAME_HEADER_BYTES..end], payload);
    }

    #[test]
    fn ordinary_payloads_are_stored_as_they_are() {
        let text = b"\x0bhello world";
        let mut frame = Vec::new();
        encode_frame(&spec(500), 5, std::iter::once(&text[..]), &mut frame);
        assert_eq!(
            FrameHeader::decode(5, &frame).map(|header| header.mask),
            Some(0)
        );
        assert_eq!(&frame[FRAME_HEADER_BYTES..][..text.len()], text);
    }

    /// One bit in an otherwise blank sector must not be left alone either: flipped, it would make
    /// a written sector look like one that never was.
    #[test]
    fn no_single_flip_blanks_a_share() {
        for lone_bit in [900, 901, 1300] {
            // Only the sector from 1024 on, 856 bytes into the payload, is nearly blank.
            let mut payload = vec![0x11; 4 * 512];
            payload[856..1368].fill(0);
            payload[lone_bit] = 1;
            let mut frame = Vec::new();
            encode_frame(&spec(128), 5, std::iter::once(&payload[..]), &mut frame);
            for bit in 0..frame.len() * 8 {
                frame[bit / 8] ^= 1 << (bit % 8);
                assert!(!has_blank_share(&frame, 128), "after flipping bit {bit}");
                frame[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }

    #[test]
    fn lengths_of_every_size_come_back() {
        for length in [
            0u32,
            1,
            127,
            128,
            16_383,
            16_384,
            2_097_151,
            2_097_152,
            300_000_000,
        ] {
            let mut out = [0; 5];
            let used = encode_length(length, &mut out);
            let (first, rest) = out[..used]
                .split_first()
                .expect("a length has at least one byte");
            if used > 1 {
                assert_eq!(long(*first, rest), Some((length as usize, &[][..])));
            } else {
                assert_eq!(u32::from(*first), length);
            }
        }
    }

    /// Numbers that no writer writes, under a checksum that holds: memory is made for a frame by what its header says.
    #[test]
    fn no_header_is_larger_than_life() {
        let header = FrameHeader {
            payload_bytes: FRAME_BYTES_MAX as u32 - 48,
            first_lsn: Lsn(u64::MAX - 7),
            count: 7,
            unsynced: 0,
            chain: 0,
            payload_crc: 0,
            mask: 0,
        };
        let decoded = |header: FrameHeader| {
            let mut bytes = [0; FRAME_HEADER_BYTES];
            header.encode(5, &mut bytes);
            FrameHeader::decode(5, &bytes)
        };
        assert_eq!(decoded(header), Some(header));
        for (payload_bytes, count) in [(u32::MAX, 7), (FRAME_BYTES_MAX as u32 - 40, 7), (9, 8)] {
            let header = FrameHeader {
                payload_bytes,
                count,
                ..header
            };
            assert_eq!(decoded(header), None, "{header:?}");
        }
        let segment = SegmentHeader {
            log_id: LogId([1; 16]),
            first_lsn: Lsn(1),
            capacity: SEGMENT_BYTES_MAX + 8,
            begun_unix_ms: 0,
            chain: 0,
        };
        assert_eq!(
            SegmentHeader::decode(&segment.encode()),
            Err(HeaderError::Damaged)
        );
    }

    #[test]
    fn a_flipped_version_is_damage_and_a_newer_one_is_newer() {
        let header = SegmentHeader {
            log_id: LogId([1; 16]),
            first_lsn: Lsn(1),
            capacity: 4096,
            begun_unix_ms: 0,
            chain: 0,
        };
        let mut bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        bytes[8] ^= 2;
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Damaged));
        let crc = crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Newer(3)));
    }
}

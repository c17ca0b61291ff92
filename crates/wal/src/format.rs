//! The bytes of a log: segments and records. Frames are in `frame`, those of the first format in `first_format`.
//!
//! The one idea: **what was not written in this life of a segment reads as nothing.** Segments are used again, and
//! in their room lie the frames of earlier lives. So each life has a number, in its segment's header; from the number
//! follows a tag, and each sector that is written ends with it. A disk writes a sector of 512 bytes as a whole or
//! not at all. So a sector with the tag of an earlier life was not written in this one, and counts as zeros
//! ([`Life::blank_others`]), as one that was never written does by itself; and any two tags, and a tag and zeros, differ in at
//! least four bits, so that no single flipped bit makes the one look like the other. That is what lets recovery tell a
//! frame cut off by a crash from a damaged one (see `tail`), exactly and without guessing, whatever lay there before.
//!
//! A **segment** is a file of fixed size:
//!
//! | bytes | segment header |
//! |---|---|
//! | 0..8 | magic `TINKRWAL` |
//! | 8..12 | format version |
//! | 12..16 | life: the highest that this file ever had (zero in format 1) |
//! | 16..32 | log id |
//! | 32..40 | LSN of the first record |
//! | 40..48 | size of the segment in bytes |
//! | 48..56 | when it was begun, in ms since 1970 |
//! | 56..60 | chain: payload checksum of the frame before, in the segment before |
//! | 60..64 | CRC-32C of bytes 0..60 |
//!
//! The header keeps this form in all versions, so that an older program can say what it has found. It is written with zeros
//! and the tag behind it, up to the end of its sector. Then come frames, until one does not fit any more. A **frame** is one batch:
//! the unit of write, of checksum, of atomicity and of sync. Its payload is the records, each a LEB128 length and its
//! bytes. All numbers are little endian.
//!
//! Invariants: the lives of one file have growing numbers, whatever log it serves; each of its sectors is all zeros, or ends
//! with the tag of one of its lives; the room behind the last frame is zeros up to the tag of its sector.

use crc32c::{crc32c, crc32c_append};

use crate::Lsn;
use crate::options::SEGMENT_BYTES_MAX;

/// The newest format this version writes and reads.
pub const FORMAT_VERSION: u32 = 2;
/// The first format: read, and not written any more.
pub(crate) const FIRST_FORMAT: u32 = 1;

/// What a disk writes as a whole or not at all. Larger sectors are multiples of it.
pub(crate) const SECTOR_BYTES: u64 = 512;
/// The size of a segment header.
pub(crate) const SEGMENT_HEADER_BYTES: usize = 64;

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
    pub(crate) version: u32,
    pub(crate) life: u32,
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
        bytes[8..12].copy_from_slice(&self.version.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.life.to_le_bytes());
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
            version,
            life: u32_at(bytes, 12),
            log_id: LogId(log_id),
            first_lsn: Lsn(u64_at(bytes, 32)),
            capacity: u64_at(bytes, 40),
            begun_unix_ms: u64_at(bytes, 48),
            chain: u32_at(bytes, 56),
        };
        // The checksum holds, so this can only be another program's idea of a segment.
        let sound = header.first_lsn >= Lsn::FIRST
            && (SEGMENT_HEADER_BYTES as u64..=SEGMENT_BYTES_MAX).contains(&header.capacity)
            && match version {
                FIRST_FORMAT => header.life == 0 && header.capacity.is_multiple_of(8),
                _ => header.life > 0 && header.capacity.is_multiple_of(SECTOR_BYTES),
            };
        if sound {
            Ok(header)
        } else {
            Err(HeaderError::Damaged)
        }
    }
}

/// One life of a segment: what tells its bytes from all others that were ever in the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Life {
    /// What the checksums of its frame headers begin with.
    pub(crate) seed: u32,
    /// What its sectors end with.
    pub(crate) tag: u32,
    /// Whether there have been so many lives that tags have begun to come again.
    is_old: bool,
}

/// The size of a tag.
pub(crate) const TAG_BYTES: usize = 4;
/// The last byte of every tag and of every frame's padding. Four bits are set, so that one flip cannot make it zero.
pub(crate) const TRAILER: u8 = 0xA5;
/// How many bits of a tag are a code word, below the trailer.
const WORD_BITS: u32 = 24;
/// How many code words there are besides zero. It takes so many lives of one file until a tag comes again, and only what has
/// outlasted all of them in its place could then be mistaken: with segments of 64 MiB, 16 TiB written to this file.
const TAGS: u32 = (1 << (WORD_BITS - GENERATOR.ilog2())) - 1;
/// `(x + 1)(x^5 + x^2 + 1)`: its multiples of up to 31 bits are a cyclic code of distance 4, as the extended Hamming codes are
/// (Peterson and Brown, *Cyclic Codes for Error Detection*, Proc. IRE 49, 1961, theorems 4 and 6).
const GENERATOR: u32 = 0b110_1111;

impl Life {
    pub(crate) fn new(log_id: LogId, number: u32) -> Self {
        Life {
            seed: crc32c_append(log_id.seed(), &number.to_le_bytes()),
            tag: tag(number),
            is_old: number >= TAGS,
        }
    }

    /// Whether a sector with this tag was written in this life: one of its bits may have flipped since.
    pub(crate) fn has_written(&self, tag: u32) -> bool {
        (tag ^ self.tag).count_ones() <= 1
    }

    /// Whether a sector with this tag was written in an earlier life: one of its bits may have flipped since. What is neither
    /// of this life nor of an earlier one, nor zero, has been damaged, and for all that is known was ours.
    fn has_found(&self, tag: u32) -> bool {
        let is_earlier = |tag: u32| {
            let is_tag = tag >> WORD_BITS == u32::from(TRAILER) && remainder(tag) == 0;
            is_tag && (tag < self.tag || self.is_old && tag != self.tag)
        };
        // Without a flip in nearly all cases, which are then the first to be found.
        is_earlier(tag) || !self.has_written(tag) && (0..32).any(|bit| is_earlier(tag ^ 1 << bit))
    }

    /// Sets what was written in earlier lives to zeros, in `bytes` that were read from `offset` on up to the end of a sector.
    pub(crate) fn blank_others(&self, bytes: &mut [u8], offset: u64) {
        #[cfg(planted)]
        if crate::planted::is("life-not-checked") {
            return;
        }
        let sector_bytes = SECTOR_BYTES as usize;
        let begun = (offset.next_multiple_of(SECTOR_BYTES) - offset) as usize;
        let (first, rest) = bytes.split_at_mut(begun.min(bytes.len()));
        for sector in std::iter::once(first).chain(rest.chunks_mut(sector_bytes)) {
            let tag_at = sector.len().checked_sub(TAG_BYTES);
            if tag_at.is_some_and(|at| self.has_found(u32_at(sector, at))) {
                sector.fill(0);
            }
        }
    }
}

/// The tag of a life: a code word that is not zero, four bits or more from zero and from every other, below the trailer.
/// Larger for later lives, up to [`TAGS`] of them.
fn tag(life: u32) -> u32 {
    let word = (life % TAGS + 1) << GENERATOR.ilog2();
    u32::from(TRAILER) << WORD_BITS | word | remainder(word)
}

/// What is left of a tag's word when it is divided by [`GENERATOR`]: nothing if it is a code word.
fn remainder(tag: u32) -> u32 {
    let degree = GENERATOR.ilog2();
    let word = tag & ((1 << WORD_BITS) - 1);
    (degree..WORD_BITS).rev().fold(word, |rest, bit| {
        rest ^ ((rest >> bit & 1) * (GENERATOR << (bit - degree)))
    })
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

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linear, so that it is enough to look at what one, two and three flipped bits look like, and not at all pairs of tags.
    #[test]
    fn tags_differ_from_zero_and_from_each_other_in_four_bits() {
        for life in [1, 2, 3, 1000, TAGS - 1, TAGS, TAGS + 1, u32::MAX] {
            assert_eq!(remainder(tag(life)), 0);
            assert_eq!(tag(life) >> WORD_BITS, TRAILER.into());
            assert_ne!(tag(life), tag(life.wrapping_add(1)));
        }
        let bits = 0..WORD_BITS;
        for a in bits.clone() {
            assert_ne!(remainder(1 << a), 0);
            for b in bits.clone().filter(|&b| b != a) {
                assert_ne!(remainder(1 << a | 1 << b), 0);
                for c in bits.clone().filter(|&c| c != a && c != b) {
                    assert_ne!(remainder(1 << a | 1 << b | 1 << c), 0);
                }
            }
        }
    }

    /// Ours, theirs, or nobody's: and no flip makes one of the others.
    #[test]
    fn whose_a_sector_is_survives_a_flipped_bit() {
        let whose = |life: u32, tag: u32| {
            let life = Life::new(LogId([1; 16]), life);
            (life.has_written(tag), life.has_found(tag))
        };
        for (ours, theirs) in [
            (2, 1),
            (900, 1),
            (900, 899),
            (TAGS + 5, 7),
            (TAGS + 5, TAGS + 4),
        ] {
            for (of, expected) in [
                (tag(ours), (true, false)),
                (tag(theirs), (false, true)),
                (0, (false, false)),
            ] {
                assert_eq!(whose(ours, of), expected, "life {ours}, tag {of:x}");
                for bit in 0..32 {
                    assert_eq!(
                        whose(ours, of ^ 1 << bit),
                        expected,
                        "life {ours}, tag {of:x}, bit {bit}"
                    );
                }
            }
        }
        // No later life can have been there before.
        assert_eq!(whose(5, tag(6)), (false, false));
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

    #[test]
    fn no_segment_is_larger_than_life() {
        let sound = SegmentHeader {
            version: FORMAT_VERSION,
            life: 1,
            log_id: LogId([1; 16]),
            first_lsn: Lsn(1),
            capacity: 4096,
            begun_unix_ms: 0,
            chain: 0,
        };
        assert_eq!(SegmentHeader::decode(&sound.encode()), Ok(sound));
        let too_large = SEGMENT_BYTES_MAX + 512;
        for (life, capacity) in [(1, too_large), (1, 4096 + 8), (0, 4096)] {
            let header = SegmentHeader {
                life,
                capacity,
                ..sound
            };
            let decoded = SegmentHeader::decode(&header.encode());
            assert_eq!(decoded, Err(HeaderError::Damaged), "{header:?}");
        }
    }

    #[test]
    fn a_flipped_version_is_damage_and_a_newer_one_is_newer() {
        let header = SegmentHeader {
            version: FORMAT_VERSION,
            life: 1,
            log_id: LogId([1; 16]),
            first_lsn: Lsn(1),
            capacity: 4096,
            begun_unix_ms: 0,
            chain: 0,
        };
        let mut bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        bytes[8] ^= 1;
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Damaged));
        let crc = crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&bytes), Err(HeaderError::Newer(3)));
    }
}

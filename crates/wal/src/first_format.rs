//! Frames of the first format, which is read and not written any more.
//!
//! The one idea then was: **every sector's share of a written frame has at least two bits set.** Segments were all zeros
//! before, and never used again. So a share that reads as zeros was never written, and one that does not, was. The writer saw
//! to it: a frame in which a share would have been (nearly) blank, such as a record of a thousand zeros, had its payload
//! combined with a mask, and the mask is in its header.
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
//! The payload follows, padded to a multiple of 8 with zeros, of which there is at least one byte, and the last is `0xA5`.
//! The next frame begins where this one ends.

use crate::format::u64_at;
use crate::frame::{FRAME_ALIGN, FRAME_HEADER_BYTES, FrameHeader};

/// Reads a header: see [`crate::frame::Layout::decode`].
pub(crate) fn decode(seed: u32, bytes: &[u8]) -> Option<FrameHeader> {
    let bytes = bytes.get(..FRAME_HEADER_BYTES)?;
    let common = FrameHeader::read(bytes);
    let padded_bytes = (common.payload_bytes as usize / FRAME_ALIGN + 1) * FRAME_ALIGN;
    let header = FrameHeader {
        mask: u64_at(bytes, 32),
        is_relaxed: true,
        frame_bytes: FRAME_HEADER_BYTES + padded_bytes,
        ..common
    };
    header.is_sound(seed, bytes).then_some(header)
}

/// Takes the mask off a payload.
pub(crate) fn unmask(mask: u64, payload: &mut [u8]) {
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

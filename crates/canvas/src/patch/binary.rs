//! Binary patches of git: base 85, deflate, and deltas.
//!
//! The alphabet and the length that begins each line are those of git's `base85.c` and `apply.c`; the delta is that of pack
//! files (gitformat-pack(5), "Deltified representation").

use flate2::bufread::ZlibDecoder;
use std::io::Read;

use super::ParseError;

/// The most that a patch may make of one file, in bytes.
const SIZE_MAX: u64 = 256 << 20;

const ALPHABET: &[u8; 85] =
    b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";

/// One line: a letter for how many bytes it holds (`A` for 1, `z` for 52), then five letters for every four of them.
pub(super) fn decode_line(line: &[u8]) -> Option<Vec<u8>> {
    let (first, digits) = line.split_first()?;
    let length = usize::from(match first {
        b'A'..=b'Z' => first - b'A' + 1,
        b'a'..=b'z' => first - b'a' + 27,
        _ => return None,
    });
    if digits.len() != length.div_ceil(4) * 5 {
        return None;
    }
    let mut bytes = Vec::with_capacity(length.next_multiple_of(4));
    for group in digits.chunks(5) {
        let value = group.iter().try_fold(0_u32, |value, digit| {
            let digit = ALPHABET.iter().position(|letter| letter == digit)?;
            value
                .checked_mul(85)?
                .checked_add(u32::try_from(digit).ok()?)
        })?;
        bytes.extend(value.to_be_bytes());
    }
    bytes.truncate(length);
    Some(bytes)
}

/// What was deflated, which must be of the size that was said.
pub(super) fn inflate(deflated: &[u8], size: u64) -> Result<Vec<u8>, String> {
    if size > SIZE_MAX {
        return Err(format!(
            "{size} bytes are more than the limit of {SIZE_MAX}"
        ));
    }
    let mut bytes = Vec::new();
    let mut decoder = ZlibDecoder::new(deflated).take(size + 1);
    let read = decoder.read_to_end(&mut bytes);
    read.map_err(|error| format!("the binary patch is damaged: {error}"))?;
    match bytes.len() as u64 == size {
        true => Ok(bytes),
        false => Err(format!(
            "the binary patch is damaged: it holds {} bytes, and {size} were said",
            bytes.len()
        )),
    }
}

pub(super) fn apply_delta(old: &[u8], delta: &[u8]) -> Result<Vec<u8>, ParseError> {
    let damaged = |why: &str| ParseError {
        line: 0,
        why: format!("the delta is damaged: {why}"),
    };
    let mut rest = delta;
    let old_size = size(&mut rest).ok_or_else(|| damaged("it has no size"))?;
    if old_size != old.len() as u64 {
        return Err(ParseError {
            line: 0,
            why: format!(
                "the delta is made from a file of {old_size} bytes, and this one has {}",
                old.len()
            ),
        });
    }
    let new_size = size(&mut rest).ok_or_else(|| damaged("it has no size"))?;
    if new_size > SIZE_MAX {
        return Err(damaged("it makes more than the limit"));
    }
    let mut new = Vec::new();
    while let Some((&order, after)) = rest.split_first() {
        rest = after;
        if order & 0x80 != 0 {
            let mut number = |bits: std::ops::Range<u8>| -> Option<usize> {
                let first = bits.start;
                bits.filter(|bit| order & (1 << bit) != 0)
                    .try_fold(0, |value, bit| {
                        let (&byte, after) = rest.split_first()?;
                        rest = after;
                        Some(value | usize::from(byte) << (8 * (bit - first)))
                    })
            };
            let from = number(0..4).ok_or_else(|| damaged("it ends within an order"))?;
            let length = number(4..7).ok_or_else(|| damaged("it ends within an order"))?;
            let length = if length == 0 { 0x10000 } else { length };
            let copied = old.get(from..from.saturating_add(length));
            new.extend_from_slice(copied.ok_or_else(|| damaged("it copies what is not there"))?);
        } else if order > 0 {
            let (added, after) = rest
                .split_at_checked(usize::from(order))
                .ok_or_else(|| damaged("it ends within an order"))?;
            new.extend_from_slice(added);
            rest = after;
        } else {
            return Err(damaged("it has an order that there is none of"));
        }
        if new.len() as u64 > new_size {
            return Err(damaged("it makes more than it says"));
        }
    }
    match new.len() as u64 == new_size {
        true => Ok(new),
        false => Err(damaged("it makes less than it says")),
    }
}

/// A number in groups of seven bits, the lowest first.
fn size(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let (&byte, after) = rest.split_first()?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

//! [`Batch`]: records on their way into the log.
//!
//! The one idea: a batch is the payload of a frame already, so appending it copies bytes and computes
//! a checksum, and nothing is allocated once the buffer has grown to its working size.
//!
//! Invariant: the buffer holds exactly `len` well-formed records.

use crate::format::{encode_length, take_record};

/// A reusable buffer of records that are appended together: all of them or, after a crash, none.
///
/// ```
/// let mut batch = wal::Batch::new();
/// batch.push(b"one");
/// batch.push_with(|out| out.extend_from_slice(b"two"));
/// assert_eq!(batch.iter().collect::<Vec<_>>(), [b"one", b"two"]);
/// batch.clear();
/// assert!(batch.is_empty());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    bytes: Vec<u8>,
    count: u32,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Batch::default()
    }

    /// Adds a record.
    ///
    /// # Panics
    /// If the record is 4 GiB or larger; the log refuses far smaller ones.
    pub fn push(&mut self, record: &[u8]) {
        let mut length = [0; 5];
        let used = encode_length(record_length(record.len()), &mut length);
        self.bytes.extend_from_slice(&length[..used]);
        self.bytes.extend_from_slice(record);
        self.count += 1;
    }

    /// Adds the record that `write` appends to the buffer it is given. What is in the buffer
    /// already belongs to other records and must be left alone.
    ///
    /// # Panics
    /// If `write` makes the buffer shorter, or the record is 4 GiB or larger.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        // Most records are shorter than 128 bytes: their length fits where it is kept free.
        self.bytes.push(0);
        write(&mut self.bytes);
        let size = self
            .bytes
            .len()
            .checked_sub(start + 1)
            .expect("the buffer is no shorter than before because a record is only appended");
        let mut length = [0; 5];
        let used = encode_length(record_length(size), &mut length);
        self.bytes[start] = length[0];
        if used > 1 {
            self.bytes
                .splice(start + 1..start + 1, length[1..used].iter().copied());
        }
        self.count += 1;
    }

    /// The number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none. Appending such a batch writes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The size of the records as they will be in the log, in bytes.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Takes all records out; the buffer keeps its room.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
    }

    /// The records, in order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &self.bytes[..];
        std::iter::from_fn(move || take_record(&mut rest))
    }

    pub(crate) fn encoded(&self) -> &[u8] {
        &self.bytes
    }
}

fn record_length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a record is below 4 GiB because the caller keeps to the limit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_pushing_give_the_same_bytes() {
        for size in [0, 1, 127, 128, 16_383, 16_384, 100_000] {
            let record: Vec<u8> = (0..size).map(|i| i as u8).collect();
            let (mut whole, mut written) = (Batch::new(), Batch::new());
            whole.push(b"before");
            written.push(b"before");
            whole.push(&record);
            written.push_with(|out| out.extend_from_slice(&record));
            assert_eq!(whole, written);
            assert_eq!(written.iter().nth(1), Some(&record[..]));
            assert_eq!(written.len(), 2);
        }
    }
}

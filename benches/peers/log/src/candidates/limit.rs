//! The physical limit, as a candidate: all that is handed over together is one write and one sync.

use std::path::Path;

use super::{Appender, Candidate, Durability};
use crate::bare::{Bare, Layout};

/// More than a row of the tables fills unless the device takes more than 700 MB/s; then it begins again.
const RESERVED_BYTES: u64 = 1 << 30;
/// Written again and again: that is its point.
const WRITTEN_BYTES: u64 = 64 << 20;

/// The loop on a new file.
pub const RESERVED: Limit = Limit {
    name: "bare",
    capacity: RESERVED_BYTES,
    layout: Layout::Reserved,
};
/// The loop on a file that was filled with zeros beforehand.
pub const WRITTEN: Limit = Limit {
    name: "bare, overwriting",
    capacity: WRITTEN_BYTES,
    layout: Layout::Written,
};

#[derive(Debug)]
pub struct Limit {
    name: &'static str,
    capacity: u64,
    layout: Layout,
}

impl Candidate for Limit {
    fn name(&self) -> &'static str {
        self.name
    }

    fn open(
        &self,
        dir: &Path,
        durability: Durability,
        appenders: usize,
    ) -> Option<Vec<Box<dyn Appender>>> {
        if appenders > 1 {
            return None;
        }
        Some(vec![Box::new(LimitAppender {
            bare: Bare::create(&dir.join("bare"), self.capacity, self.layout),
            sync: durability != Durability::Unsynced,
            bytes: Vec::new(),
        })])
    }

    /// Reading of plain bytes is measured by itself: there are no records in them.
    fn scan(&self, _: &Path) -> Option<u64> {
        None
    }
}

struct LimitAppender {
    bare: Bare,
    sync: bool,
    /// What is written each time, laid out once.
    bytes: Vec<u8>,
}

impl Appender for LimitAppender {
    fn append(&mut self, record: &[u8], count: usize) {
        if self.bytes.len() != record.len() * count {
            self.bytes = record.repeat(count);
        }
        self.bare.write(&self.bytes);
        if self.sync {
            self.bare.sync();
        }
    }
}

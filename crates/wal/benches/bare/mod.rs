//! The physical limit: nothing but `pwrite` and `fdatasync` on a file that was laid out beforehand.
//!
//! Shared by `append.rs` and by the comparison with other logs in `benches/peers/log`.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::FallocateFlags;

/// How the file was laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Layout {
    /// Reserved and never written to, as a new segment is. File systems with unwritten extents (ext4,
    /// XFS) have to note at a sync which blocks hold data from now on, which is a write more.
    Reserved,
    /// Filled with zeros before: a write changes nothing but data.
    #[allow(dead_code, reason = "one of the two that share this does without")]
    Written,
}

/// A file written from its beginning on, a sync after each write.
#[derive(Debug)]
pub(crate) struct Bare {
    file: File,
    offset: u64,
    capacity: u64,
}

impl Bare {
    /// Makes the file anew.
    pub(crate) fn create(path: &Path, capacity: u64, layout: Layout) -> Self {
        let _ = std::fs::remove_file(path);
        let mut options = OpenOptions::new();
        let file = options
            .write(true)
            .create_new(true)
            .open(path)
            .expect("a new file");
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, capacity)
            .expect("room for the file");
        if layout == Layout::Written {
            let zeros = vec![0; 1 << 20];
            for offset in (0..capacity).step_by(zeros.len()) {
                file.write_all_at(&zeros, offset)
                    .expect("the file is laid out");
            }
        }
        file.sync_all().expect("a sync");
        Bare {
            file,
            offset: 0,
            capacity,
        }
    }

    /// Writes the bytes behind the last ones; from the beginning again where the file ends.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if self.offset + bytes.len() as u64 > self.capacity {
            self.offset = 0;
        }
        self.file.write_all_at(bytes, self.offset).expect("a write");
        self.offset += bytes.len() as u64;
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) {
        self.file.sync_data().expect("a sync");
    }
}

//! The disk by itself: bare syncs to compare with, and what a directory really holds.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};

const RECORD_BYTES: usize = 256;
const FILE_BYTES: usize = 1 << 20;

/// A file to write to and sync, over and over.
pub(crate) struct Bare {
    file: File,
    written: usize,
    /// The microseconds of each write with its sync.
    pub(crate) micros: Vec<f64>,
}

impl Bare {
    /// In a directory of the disk that all others use. Its room is written beforehand: a sync does not also have to
    /// say where the data is.
    pub(crate) fn new(dir: &Path) -> Result<Self> {
        let file = File::create(dir.join("bare")).context("making a file for bare syncs")?;
        file.write_all_at(&vec![0; FILE_BYTES], 0)?;
        file.sync_all()?;
        Ok(Self {
            file,
            written: 0,
            micros: Vec::new(),
        })
    }

    /// So many more.
    pub(crate) fn measure(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let begun = Instant::now();
            self.file
                .write_all_at(&[7; RECORD_BYTES], (self.written % FILE_BYTES) as u64)?;
            self.file.sync_data()?;
            self.micros.push(begun.elapsed().as_secs_f64() * 1e6);
            self.written += RECORD_BYTES;
        }
        Ok(())
    }
}

/// What the files under a directory hold, without the room at their ends that nothing was written to yet.
pub(crate) fn used_bytes(dir: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            sum += used_bytes(&entry.path())?;
        } else if kind.is_file() {
            // A file may be gone by now: logs are cut while we look.
            sum += File::open(entry.path()).map_or(Ok(0), |file| length_without_zeros(&file))?;
        }
    }
    Ok(sum)
}

fn length_without_zeros(file: &File) -> Result<u64> {
    const BLOCK: u64 = 64 << 10;
    let mut end = file.metadata()?.len();
    let mut block = vec![0; BLOCK as usize];
    while end > 0 {
        let begin = end.saturating_sub(BLOCK);
        let part = &mut block[..(end - begin) as usize];
        file.read_exact_at(part, begin)?;
        if let Some(last) = part.iter().rposition(|byte| *byte != 0) {
            return Ok(begin + last as u64 + 1);
        }
        end = begin;
    }
    Ok(0)
}

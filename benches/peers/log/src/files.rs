//! Bytes on the disk, as the files have them.
//!
//! What is only set aside does not count: neither blocks that were reserved and never written (holes to
//! `SEEK_DATA`, since they are unwritten extents) nor the zeros that some stores fill a file up with.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::candidates::Durability;
use crate::candidates::{self, BARE, BARE_WRITTEN, LOG};
use crate::plan::{self, Plan, RECORD_BYTES};
use crate::table::{self, NONE};

/// How many records are handed over at a time.
const BATCH: usize = 64;
const BLOCK_BYTES: u64 = 4096;

/// Measures and prints it.
pub fn measure(plan: &Plan) {
    let shown: Vec<_> = candidates::all()
        .filter(|candidate| {
            ![BARE.name(), BARE_WRITTEN.name(), LOG.name()].contains(&candidate.name())
        })
        .collect();
    let mut head = vec!["bytes".to_owned()];
    head.extend(shown.iter().map(|candidate| candidate.name().to_owned()));
    let mut lines = Vec::new();
    for record_bytes in RECORD_BYTES {
        let record = plan::record(record_bytes);
        let mut line = vec![record_bytes.to_string()];
        for candidate in &shown {
            let dir = plan.dir();
            let opened = candidate.open(dir.path(), Durability::SyncedAndKept, 1);
            let Some(mut appenders) = opened else {
                line.push(NONE.to_owned());
                continue;
            };
            for _ in 0..plan.kept_records / BATCH {
                appenders[0].append(&record, BATCH);
            }
            drop(appenders);
            let each = written_bytes(dir.path()) as f64 / plan.kept_records as f64;
            line.push(format!("{each:.0} ({:.2})", each / record_bytes as f64));
        }
        lines.push(line);
    }
    let title = format!(
        "Bytes in files per record, {} records in batches of {BATCH}, closed (multiple of the payload)",
        table::whole(plan.kept_records as f64)
    );
    table::print(&title, &head, &lines);
}

/// The bytes in all files below a directory that were written and not only set aside.
fn written_bytes(dir: &Path) -> u64 {
    let mut sum = 0;
    for_each_file(dir, &mut |file| {
        let ranges = data_ranges(&file);
        let Some(last) = ranges.last() else {
            return;
        };
        let whole: u64 = ranges.iter().map(|range| range.end - range.start).sum();
        let mut end = last.end;
        let mut block = [0; BLOCK_BYTES as usize];
        while end > last.start {
            let start = ((end - 1) / BLOCK_BYTES * BLOCK_BYTES).max(last.start);
            let block = &mut block[..(end - start) as usize];
            file.read_exact_at(block, start).expect("a read");
            if block.iter().any(|&byte| byte != 0) {
                break;
            }
            end = start;
        }
        sum += whole - (last.end - end);
    });
    sum
}

/// Opens every file below a directory.
pub fn for_each_file(dir: &Path, visit: &mut dyn FnMut(File)) {
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            for_each_file(&path, visit);
        } else {
            visit(File::open(path).expect("a file"));
        }
    }
}

/// Where the file has data.
pub fn data_ranges(file: &File) -> Vec<Range<u64>> {
    // Blocks on their way to the disk are neither here nor there.
    file.sync_all().expect("a sync");
    let mut ranges = Vec::new();
    let mut at = 0;
    loop {
        let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return ranges,
            Err(error) => panic!("seeking data: {error}"),
        };
        at = rustix::fs::seek(file, SeekFrom::Hole(start)).expect("a hole ends every file");
        ranges.push(start..at);
    }
}

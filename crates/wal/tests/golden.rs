//! A log written by the first version stays readable, and stays what is written.
//!
//! The segment in `golden/` was written by this test with `WAL_GOLDEN_WRITE=1` set. It is written
//! anew only if the format gets a new version, and then under another name, beside the old one.

mod common;

use std::path::PathBuf;

use common::{Records, append, open, options, segment, try_open};
use wal::sim::MemStorage;
use wal::{LogId, Lsn, Options};

fn golden_path() -> PathBuf {
    [
        env!("CARGO_MANIFEST_DIR"),
        "tests",
        "golden",
        "format-1.wal",
    ]
    .iter()
    .collect()
}

/// One of everything: several frames, several records in one, an empty one, lengths of one byte and
/// of two, a payload that needs a mask.
fn frames() -> Vec<Records> {
    vec![
        vec![b"the first record".to_vec()],
        vec![b"one of three".to_vec(), Vec::new(), vec![0xa5; 300]],
        vec![vec![0; 1100]],
        vec![b"the last record".to_vec()],
    ]
}

fn write() -> Vec<u8> {
    let disk = MemStorage::new(1);
    let id = LogId(*b"a golden segment");
    let options = Options {
        segment_bytes: 4096,
        log_id: Some(id),
        ..options()
    };
    let mut log = try_open(&disk, options).expect("a new log").log;
    for frame in frames() {
        append(&mut log, &frame);
    }
    drop(log);
    disk.read_file(segment(1)).expect("the segment")
}

#[test]
fn the_golden_segment_is_read_and_still_written() {
    if std::env::var_os("WAL_GOLDEN_WRITE").is_some() {
        std::fs::write(golden_path(), write()).expect("the golden segment is written");
    }
    let golden = std::fs::read(golden_path()).expect("the golden segment");
    assert_eq!(
        write(),
        golden,
        "the format has changed: it needs a new version"
    );

    let disk = MemStorage::new(2);
    disk.write_file(segment(1), &golden);
    let storage: &dyn wal::Storage = &disk;
    storage
        .create_dir_all(common::DIR.as_ref())
        .expect("the directory");
    let mut opened = open(&disk);
    assert_eq!(opened.records, frames().concat());
    assert_eq!(append(&mut opened.log, &["and on"]), Lsn(7));
}

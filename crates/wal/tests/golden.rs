//! A log written by any version stays readable, and one written by this version stays what is written.
//!
//! The segments in `golden/` were written by this test with `WAL_GOLDEN_WRITE=1` set. One is written
//! anew only if the format gets a new version, and then under another name, beside the old ones.

mod common;

use std::path::PathBuf;

use common::{Records, append, damage, open, options, segment, segments, try_open};
use wal::sim::MemStorage;
use wal::{FORMAT_VERSION, LogId, Lsn, Options};

fn golden_path(format: u32) -> PathBuf {
    let name = format!("format-{format}.wal");
    let parts = [env!("CARGO_MANIFEST_DIR"), "tests", "golden", &name];
    parts.iter().collect()
}

/// A disk with the golden segment of a format on it.
fn disk_with(format: u32) -> MemStorage {
    let golden = std::fs::read(golden_path(format)).expect("the golden segment");
    let disk = MemStorage::new(2);
    disk.write_file(segment(1), &golden);
    let storage: &dyn wal::Storage = &disk;
    storage
        .create_dir_all(common::DIR.as_ref())
        .expect("the directory");
    disk
}

/// One of everything: several frames, several records in one, an empty one, lengths of one byte and
/// of two, a payload that needed a mask in format 1.
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
fn the_golden_segment_is_still_written() {
    let path = golden_path(FORMAT_VERSION);
    if std::env::var_os("WAL_GOLDEN_WRITE").is_some() {
        std::fs::write(&path, write()).expect("the golden segment is written");
    }
    let golden = std::fs::read(path).expect("the golden segment");
    assert!(
        write() == golden,
        "the format has changed: it needs a new version"
    );
}

#[test]
fn golden_segments_of_all_formats_are_read() {
    for format in 1..=FORMAT_VERSION {
        let disk = disk_with(format);
        let mut opened = open(&disk);
        assert_eq!(opened.records, frames().concat(), "format {format}");
        assert_eq!(append(&mut opened.log, &["and on"]), Lsn(7));
        drop(opened.log);
        disk.crash_with(|_| 0);
        // A segment of an older format is left as it is.
        let expected = if format == FORMAT_VERSION { 1 } else { 2 };
        assert_eq!(segments(&disk).len(), expected, "format {format}");
        assert_eq!(open(&disk).records.len(), 7, "format {format}");
    }
}

/// The first format had other proofs of what is torn: they hold still.
#[test]
fn a_segment_of_the_first_format_is_judged_by_its_own_rules() {
    let disk = disk_with(1);
    let bytes = disk.read_file(segment(1)).expect("the segment");
    let used = bytes.iter().rposition(|&byte| byte != 0).expect("frames") as u64 + 1;
    for bit in 0..used * 8 {
        let disk = disk.fork();
        disk.flip_bit(segment(1), bit);
        let (damage, seen) = damage(&disk, options());
        assert!(damage.offset <= bit / 8, "bit {bit}: {damage}");
        assert_eq!(damage.lsn, Lsn(seen.len() as u64 + 1), "bit {bit}");
    }
    let mut counts = Vec::new();
    for offset in 64..=used {
        for zeroed in [false, true] {
            let disk = disk.fork();
            if zeroed {
                disk.zero_from(segment(1), offset);
            } else {
                disk.truncate(segment(1), offset);
            }
            let mut opened = open(&disk);
            counts.push(opened.records.len());
            let next = opened.log.next_lsn();
            assert_eq!(append(&mut opened.log, &["and on"]), next);
            drop(opened.log);
            disk.crash_with(|_| 0);
            let again = open(&disk);
            assert_eq!(again.recovered.torn, None, "cut at {offset}");
            assert_eq!(
                again.records.last().map(Vec::as_slice),
                Some(&b"and on"[..])
            );
        }
    }
    assert!(counts.is_sorted());
    counts.dedup();
    assert_eq!(counts, [0, 1, 4, 5, 6], "whole frames or none of them");
}

/// Its sectors have no tags, so that its room is not used again.
#[test]
fn a_segment_of_the_first_format_is_deleted_and_not_kept() {
    let disk = disk_with(1);
    let small = Options {
        segment_bytes: 4096,
        ..options()
    };
    let mut log = try_open(&disk, small).expect("a sound log").log;
    append(&mut log, &["and on"]);
    let released = log
        .release(Lsn(7), std::time::Duration::ZERO)
        .expect("a release");
    assert_eq!(released.len(), 1);
    assert_eq!(segments(&disk), [segment(7)]);
    assert!(log.wants_reserve(), "its successor took the only spare");
    assert_eq!(log.stats().spare_bytes, 0);
}

/// What cannot be told from this life's, whoever has put it there: sectors without tags, and those of a file that has had all
/// lives there are.
#[test]
fn a_spare_that_would_be_taken_for_ours_is_not_used() {
    let mut worn = std::fs::read(golden_path(2)).expect("the golden segment");
    worn[12..16].fill(0xff);
    let crc = crc32c::crc32c(&worn[..60]);
    worn[60..64].copy_from_slice(&crc.to_le_bytes());
    let first_format = std::fs::read(golden_path(1)).expect("the golden segment");
    for unusable in [first_format, worn] {
        let disk = disk_with(2);
        let spare = PathBuf::from(format!("{}/spare", common::DIR));
        disk.write_file(&spare, &unusable);
        let small = Options {
            segment_bytes: 4096,
            ..options()
        };
        assert_eq!(unusable.len(), 4096, "only its size would be right");
        let log = try_open(&disk, small).expect("a sound log").log;
        assert!(!log.wants_reserve());
        assert_eq!(disk.read_file(&spare), Some(vec![0; 4096]), "a new one");
    }
}

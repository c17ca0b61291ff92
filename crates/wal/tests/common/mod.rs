//! What the tests of the log share: a small log on a simulated disk, and a way to look at it.
#![allow(dead_code, reason = "every test file uses its own part of this")]
#![allow(
    unreachable_pub,
    reason = "test files include this as a private module"
)]

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use wal::sim::MemStorage;
use wal::{Batch, Damage, Log, Lsn, OpenError, Options, Recovered, SyncPolicy};

pub const DIR: &str = "/log";

pub type Records = Vec<Vec<u8>>;

/// Small segments, so that a few records fill one.
pub fn options() -> Options {
    Options {
        segment_bytes: 8192,
        max_frame_bytes: 4096,
        ..Options::new(DIR)
    }
}

pub fn with_sync(sync: SyncPolicy) -> Options {
    Options { sync, ..options() }
}

pub struct Opened {
    pub log: Log,
    pub recovered: Recovered,
    pub records: Records,
}

/// Opens the log and checks that the numbers of its records are dense.
pub fn try_open(disk: &MemStorage, options: Options) -> Result<Opened, OpenError> {
    let mut records: Records = Vec::new();
    let mut next = None;
    let (log, recovered) = Log::open(options, Arc::new(disk.clone()), |lsn, record: &[u8]| {
        assert_eq!(lsn, next.unwrap_or(lsn), "the numbers of records are dense");
        next = Some(lsn.next());
        records.push(record.to_vec());
        Ok::<(), Infallible>(())
    })?;
    assert_eq!(recovered.records, records.len() as u64);
    assert_eq!(recovered.last_lsn.next(), log.next_lsn());
    assert_eq!(
        log.synced_lsn(),
        recovered.last_lsn,
        "what was recovered is durable"
    );
    assert!(log.space_low() || !log.wants_reserve());
    Ok(Opened {
        log,
        recovered,
        records,
    })
}

pub fn open(disk: &MemStorage) -> Opened {
    try_open(disk, options()).expect("a sound log")
}

/// The damage that opening the log reports, and the records seen before it.
pub fn damage(disk: &MemStorage, options: Options) -> (Damage, Records) {
    let mut records = Vec::new();
    let opened = Log::open(options, Arc::new(disk.clone()), |_, record: &[u8]| {
        records.push(record.to_vec());
        Ok::<(), Infallible>(())
    });
    match opened {
        Err(OpenError::Damaged(damage)) => (damage, records),
        Err(other) => panic!("another error than damage: {other}"),
        Ok((_, recovered)) => panic!("the damage was not noticed: {recovered:?}"),
    }
}

pub fn batch<R: AsRef<[u8]>>(records: &[R]) -> Batch {
    let mut batch = Batch::new();
    for record in records {
        batch.push(record.as_ref());
    }
    batch
}

/// Appends records as one frame.
pub fn append<R: AsRef<[u8]>>(log: &mut Log, records: &[R]) -> Lsn {
    log.append(&[&batch(records)])
        .expect("an append that succeeds")
        .start
}

pub fn segment(first_lsn: u64) -> PathBuf {
    PathBuf::from(format!("{DIR}/{first_lsn:016x}.wal"))
}

/// The segments on the disk, oldest first.
pub fn segments(disk: &MemStorage) -> Vec<PathBuf> {
    let is_segment = |path: &PathBuf| path.extension().is_some_and(|suffix| suffix == "wal");
    disk.files().into_iter().filter(is_segment).collect()
}

/// Just past the last byte of a file that is not zero.
pub fn used_bytes(disk: &MemStorage, path: &PathBuf) -> u64 {
    let bytes = disk.read_file(path).expect("the file is there");
    bytes
        .iter()
        .rposition(|&byte| byte != 0)
        .map_or(0, |last| last as u64 + 1)
}

/// A number from the environment, so that the same tests can run longer.
pub fn count_from_env(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

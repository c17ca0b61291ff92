//! What the tests of the log share: a small log on a simulated disk, and a way to look at it.
#![allow(dead_code, reason = "every test file uses its own part of this")]
#![allow(
    unreachable_pub,
    reason = "test files include this as a private module"
)]

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

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

/// Where the last frame of a segment ends, as the headers say whose checksums hold.
pub fn used_bytes(disk: &MemStorage, path: &PathBuf) -> u64 {
    let bytes = disk.read_file(path).expect("the file is there");
    let u32_at = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().expect("4 bytes"));
    let seed = crc32c::crc32c_append(crc32c::crc32c(&bytes[16..32]), &bytes[12..16]);
    let mut at = 64;
    while at + 48 <= bytes.len()
        && crc32c::crc32c_append(seed, &bytes[at + 4..at + 40]) == u32_at(at)
    {
        at = frame_end(at, u32_at(at + 4) as usize);
    }
    at as u64
}

/// Where a frame ends: a tag of 4 bytes at the end of each sector, at least one byte of padding, ends at multiples of 8, and at
/// the end of a sector if less than 48 bytes would be left before the tag.
fn frame_end(at: usize, payload_bytes: usize) -> usize {
    let mut end = at + 40;
    for _ in 0..=payload_bytes {
        if end % 512 == 508 {
            end += 4;
        }
        end += 1;
    }
    end = end.next_multiple_of(8);
    if end % 512 > 508 - 48 {
        end.next_multiple_of(512)
    } else {
        end
    }
}

/// A log whose only segment lies in the room of released ones, which was full of what is hardest to tell from frames: noise,
/// `0xa5`, and copies of the segments before, frames and tags and all. It has one record, which is returned.
pub fn reused(disk: &MemStorage, options: Options) -> (Log, Vec<u8>) {
    let part = options.segment_bytes as usize / 10;
    let mut log = try_open(disk, options).expect("a new log").log;
    let limit = log.payload_limit().min(part);
    for turn in 0..1000usize {
        let before = log.stats().reused_segments;
        let active = segments(disk).pop().expect("a segment");
        let copy = disk.read_file(&active).expect("the segment");
        let size = limit - 3 - turn * 37 % (limit / 2);
        let filler: Vec<u8> = match turn % 3 {
            0 => copy.into_iter().skip(turn * 8 % 2048).take(size).collect(),
            1 => (0..size)
                .map(|n| ((n * n) >> 3) as u8 ^ turn as u8)
                .collect(),
            _ => vec![0xa5; size],
        };
        append(&mut log, &[&filler]);
        log.release(log.next_lsn(), Duration::ZERO)
            .expect("a release");
        log.reserve().expect("a spare");
        if before >= 3 && log.stats().reused_segments > before {
            assert_eq!(segments(disk).len(), 1, "only the last is left");
            return (log, filler);
        }
    }
    panic!("released segments are not used again")
}

/// A new log, or one in the room of released segments, with the only record it has.
pub fn fresh_or_reused(disk: &MemStorage, options: Options, is_reused: bool) -> (Log, Records) {
    if is_reused {
        let (log, record) = reused(disk, options);
        return (log, vec![record]);
    }
    (try_open(disk, options).expect("a new log").log, Vec::new())
}

/// A number from the environment, so that the same tests can run longer.
pub fn count_from_env(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}

//! Reading beside a writer, and verifying.

mod common;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{DIR, append, open, options, segment, segments, try_open, used_bytes};
use wal::sim::MemStorage;
use wal::storage::{Access, Lock, StorageFile};
use wal::{Log, Lsn, Options, OsStorage, ReadError, Reader, Storage, SyncPolicy, verify};

fn reader(disk: &MemStorage, from: u64) -> Reader {
    Reader::open(DIR, Arc::new(disk.clone()), Lsn(from)).expect("a log that can be read")
}

fn numbers(reader: &mut Reader) -> Vec<u64> {
    reader
        .by_ref()
        .map(|found| found.expect("a sound log").0.0)
        .collect()
}

/// Twelve records of 1500 bytes, five to a segment.
fn twelve() -> (MemStorage, Log) {
    let disk = MemStorage::new(1);
    let mut log = open(&disk).log;
    for n in 1..=12u8 {
        append(&mut log, &[vec![n; 1500]]);
    }
    (disk, log)
}

#[test]
fn reading_begins_anywhere_and_needs_no_lock() {
    let (disk, _log) = twelve();
    assert_eq!(segments(&disk), [segment(1), segment(6), segment(11)]);
    for from in 0..=14 {
        let expected: Vec<u64> = (from.max(1)..=12).collect();
        assert_eq!(numbers(&mut reader(&disk, from)), expected, "from {from}");
    }
    let (lsn, record) = reader(&disk, 7)
        .next()
        .expect("a record")
        .expect("a sound log");
    assert_eq!((lsn, record), (Lsn(7), vec![7; 1500]));
}

#[test]
fn a_reader_at_the_end_goes_on_when_there_is_more() {
    let disk = MemStorage::new(1);
    let mut reader = reader(&disk, 1);
    assert_eq!(numbers(&mut reader), [], "there is no log yet");
    let mut log = open(&disk).log;
    let mut expected = 1;
    for round in 0..40 {
        append(&mut log, &vec![vec![1; 300]; round % 5]);
        for found in reader.by_ref() {
            assert_eq!(found.expect("a sound log").0, Lsn(expected));
            expected += 1;
        }
        assert_eq!(Lsn(expected), log.next_lsn());
    }
    assert!(segments(&disk).len() > 2);
}

#[test]
fn a_torn_tail_is_the_end_and_damage_is_not() {
    let (disk, log) = twelve();
    drop(log);
    let path = segment(11);
    let end = used_bytes(&disk, &path);
    let torn = disk.fork();
    torn.zero_from(&path, end - 700);
    let mut reading = reader(&torn, 1);
    assert_eq!(numbers(&mut reading).last(), Some(&11));
    assert_eq!(reading.torn().map(|torn| torn.lsn), Some(Lsn(12)));

    let damaged = disk.fork();
    damaged.flip_bit(&path, (end - 700) * 8);
    let mut reading = reader(&damaged, 10);
    assert_eq!(
        reading.next().expect("a record").expect("sound so far").0,
        Lsn(10)
    );
    assert_eq!(
        reading.next().expect("a record").expect("sound so far").0,
        Lsn(11)
    );
    let error = reading.next().expect("an error").expect_err("damage");
    assert!(matches!(error, ReadError::Damaged(damage) if damage.lsn == Lsn(12)));
}

#[test]
fn a_reader_that_is_overtaken_by_retention_says_so() {
    let (disk, mut log) = twelve();
    let mut slow = reader(&disk, 1);
    assert!(slow.next().is_some());
    log.release(Lsn(11), Duration::ZERO).expect("a release");
    // The segment it has open can be read to its end.
    for expected in 2..=5 {
        assert_eq!(
            slow.next().expect("a record").expect("sound").0,
            Lsn(expected)
        );
    }
    let error = slow
        .next()
        .expect("an error")
        .expect_err("the next segment is gone");
    assert!(matches!(
        error,
        ReadError::Released {
            next: Lsn(6),
            oldest: Lsn(11)
        }
    ));
    assert_eq!(error.to_string(), "records 6 to 10 have been released");
    assert_eq!(numbers(&mut reader(&disk, 1)), [11, 12]);
}

#[test]
fn verify_counts_everything() {
    let (disk, log) = twelve();
    let verified = verify(DIR, Arc::new(disk.clone())).expect("a sound log");
    assert_eq!(
        (verified.segments, verified.frames, verified.records),
        (3, 12, 12)
    );
    assert_eq!(
        (verified.first_lsn, verified.last_lsn),
        (Some(Lsn(1)), Some(Lsn(12)))
    );
    assert_eq!(verified.bytes, 12 * 1500);
    assert_eq!(verified.torn, None);
    drop(log);
    let nothing = verify("/elsewhere", Arc::new(disk)).expect("nothing is sound");
    assert_eq!(
        (nothing.segments, nothing.records, nothing.first_lsn),
        (0, 0, None)
    );
}

/// A storage on which something happens whenever somebody is about to list a directory.
struct Busy {
    disk: MemStorage,
    before_listing: Mutex<Box<dyn FnMut() + Send>>,
    after_listing: Mutex<Box<dyn FnMut() + Send>>,
}

impl fmt::Debug for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.disk.fmt(f)
    }
}

impl Storage for Busy {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk.create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        (self.before_listing.lock().expect("no panic"))();
        let names = self.disk.list(dir);
        (self.after_listing.lock().expect("no panic"))();
        names
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn StorageFile>> {
        self.disk.open(path, access)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk.sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        self.disk.lock(path)
    }

    fn monotonic(&self) -> Duration {
        self.disk.monotonic()
    }

    fn unix_ms(&self) -> u64 {
        self.disk.unix_ms()
    }

    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.disk.fill_random(bytes)
    }
}

/// The writer fills the segment and goes on in the next one between the reader's look at the end of
/// the segment and its look for the next one.
#[test]
fn a_writer_that_is_faster_than_the_reader_is_not_damage() {
    for releasing in [false, true] {
        let disk = MemStorage::new(1);
        let mut log = open(&disk).log;
        let mut left = 60;
        let append_some = move || {
            for _ in 0..left.min(3) {
                append(&mut log, &[vec![1; 900]]);
                left -= 1;
            }
            if releasing {
                // The reader has the file open and can read it to its end all the same.
                let active = Lsn(log.next_lsn().0 - 1);
                log.release(active, Duration::ZERO).expect("a release");
            }
        };
        let before_listing = Mutex::new(Box::new(append_some) as Box<dyn FnMut() + Send>);
        let storage = Arc::new(Busy {
            disk: disk.clone(),
            before_listing,
            after_listing: Mutex::new(Box::new(|| {})),
        });
        let mut reader = Reader::open(DIR, storage, Lsn::FIRST).expect("a log that can be read");
        assert_eq!(numbers(&mut reader), (1..=60).collect::<Vec<_>>());
    }
}

/// Large enough that a reader does not have all of a segment in memory.
fn large() -> Options {
    Options {
        segment_bytes: 1 << 20,
        max_frame_bytes: 200 << 10,
        ..options()
    }
}

/// Appends records of 100 KB and releases what is full until a segment has been used again that was begun since.
fn go_round(log: &mut Log) {
    let reused = log.stats().reused_segments;
    while log.stats().reused_segments < reused + 3 {
        append(log, &[vec![log.next_lsn().0 as u8; 100_000]]);
        log.release(log.next_lsn(), Duration::ZERO)
            .expect("a release");
        log.reserve().expect("a spare");
    }
}

/// The file that a reader has open becomes another segment: what it gets is right, and then it is told.
#[test]
fn a_reader_whose_segment_is_overwritten_is_told_that_it_is_gone() {
    for read_before in [0, 1, 4, 9] {
        let disk = MemStorage::new(1);
        let mut log = try_open(&disk, large()).expect("a new log").log;
        for n in 1..=10u8 {
            append(&mut log, &[vec![n; 100_000]]);
        }
        let mut slow = reader(&disk, 1);
        for n in 1..=read_before {
            let (lsn, record) = slow.next().expect("a record").expect("a sound log");
            assert_eq!((lsn, record), (Lsn(n), vec![n as u8; 100_000]));
        }
        go_round(&mut log);
        let mut next = read_before + 1;
        let error = loop {
            match slow.next().expect("records, or that they are gone") {
                // What it had read ahead.
                Ok((lsn, record)) => {
                    assert_eq!((lsn, record), (Lsn(next), vec![next as u8; 100_000]));
                    next += 1;
                }
                Err(error) => break error,
            }
        };
        let oldest = log.first_lsn();
        assert!(
            matches!(error, ReadError::Released { next: at, oldest: to } if at == Lsn(next) && to == oldest),
            "{error}"
        );
        assert!(next < 10 || read_before > 1, "it was overtaken");
    }
}

/// The same between the look at the directory and the opening of what was seen there.
#[test]
fn a_segment_that_is_overwritten_while_it_is_opened_is_not_damage() {
    let disk = MemStorage::new(1);
    let log = Mutex::new(try_open(&disk, large()).expect("a new log").log);
    append(&mut log.lock().expect("no panic"), &["the first"]);
    let log = Arc::new(log);
    let writes = Arc::clone(&log);
    let mut times = 0;
    let storage = Arc::new(Busy {
        disk: disk.clone(),
        before_listing: Mutex::new(Box::new(|| {})),
        after_listing: Mutex::new(Box::new(move || {
            times += 1;
            if times < 4 {
                go_round(&mut writes.lock().expect("no panic"));
            }
        })),
    });
    let mut reader = Reader::open(DIR, storage, Lsn::FIRST).expect("a log that can be read");
    let (lsn, _) = reader.next().expect("a record").expect("no damage");
    assert_eq!(lsn, log.lock().expect("no panic").first_lsn());
}

/// On real files, with a writer that is never waited for: every record once, in order, never damage.
#[test]
fn reading_beside_a_busy_writer() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let options = Options {
        dir: dir.path().to_owned(),
        sync: SyncPolicy::Never,
        segment_bytes: 256 << 10,
        max_frame_bytes: 64 << 10,
        ..options()
    };
    let storage: Arc<dyn Storage> = Arc::new(OsStorage::new());
    let (mut log, _) = Log::open(options, storage.clone(), wal::ignore).expect("a new log");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            for n in 0..2_000u64 {
                let records = vec![n.to_le_bytes().repeat(n as usize % 700); 1 + n as usize % 3];
                append(&mut log, &records);
            }
            done.store(true, Ordering::Release);
            log.next_lsn()
        });
        let mut reader = Reader::open(dir.path(), storage, Lsn::FIRST).expect("a readable log");
        let mut next = Lsn::FIRST;
        loop {
            let finished = done.load(Ordering::Acquire);
            while let Some((lsn, _)) = reader.next_record().expect("a sound log") {
                assert_eq!(lsn, next);
                next = lsn.next();
            }
            if finished {
                break;
            }
            std::thread::yield_now();
        }
        assert_eq!(writing.join().expect("the writer"), next);
    });
}

//! Reading beside a writer, and verifying.

mod common;

use std::fmt;
use std::io;
use std::ops::Range;
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

/// What was to be read of files.
#[derive(Debug, Default)]
struct Reads(Mutex<Vec<Range<u64>>>);

impl Reads {
    fn all(&self) -> Vec<Range<u64>> {
        self.0.lock().expect("no panic").clone()
    }
}

/// A storage on which something happens whenever somebody is about to list a directory.
struct Busy {
    disk: MemStorage,
    before_listing: Mutex<Box<dyn FnMut() + Send>>,
    after_listing: Mutex<Box<dyn FnMut() + Send>>,
    reads: Arc<Reads>,
}

impl Busy {
    fn new(
        disk: &MemStorage,
        before_listing: impl FnMut() + Send + 'static,
        after_listing: impl FnMut() + Send + 'static,
    ) -> Self {
        Busy {
            disk: disk.clone(),
            before_listing: Mutex::new(Box::new(before_listing)),
            after_listing: Mutex::new(Box::new(after_listing)),
            reads: Arc::default(),
        }
    }
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
        Ok(Box::new(BusyFile {
            file: self.disk.open(path, access)?,
            reads: Arc::clone(&self.reads),
        }))
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

#[derive(Debug)]
struct BusyFile {
    file: Box<dyn StorageFile>,
    reads: Arc<Reads>,
}

impl StorageFile for BusyFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let range = offset..offset + buf.len() as u64;
        self.reads.0.lock().expect("no panic").push(range);
        self.file.read_at(buf, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        self.file.allocate(bytes)
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        self.file.next_data(offset)
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        self.file.next_hole(offset)
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
        let storage = Arc::new(Busy::new(&disk, append_some, || {}));
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
    let go_round_thrice = move || {
        times += 1;
        if times < 4 {
            go_round(&mut writes.lock().expect("no panic"));
        }
    };
    let storage = Arc::new(Busy::new(&disk, || {}, go_round_thrice));
    let mut reader = Reader::open(DIR, storage, Lsn::FIRST).expect("a log that can be read");
    let (lsn, _) = reader.next().expect("a record").expect("no damage");
    assert_eq!(lsn, log.lock().expect("no panic").first_lsn());
}

/// The length of a frame is only a number in a file. No memory is made for what is not there.
#[test]
fn a_frame_that_is_longer_than_its_file_is_not_made_room_for() {
    let disk = MemStorage::new(1);
    let huge = Options {
        segment_bytes: 64 << 20,
        ..options()
    };
    let mut log = try_open(&disk, huge.clone()).expect("a new log").log;
    append(&mut log, &["kept"]);
    let start = 64 + log.stats().frame_bytes as usize;
    drop(log);
    let storage: &dyn Storage = &disk;
    let file = storage.open(&segment(1), Access::Read).expect("a file");
    let mut bytes = vec![0; 64 << 10];
    file.read_at(&mut bytes, 0).expect("a read");
    // A header of a frame of 32 MiB behind the first frame, with sums that hold.
    let first_sum = bytes[64 + 28..64 + 32].to_vec();
    bytes[start + 4..start + 8].copy_from_slice(&(32u32 << 20).to_le_bytes());
    bytes[start + 8] = 2;
    bytes[start + 16] = 1;
    bytes[start + 24..start + 28].copy_from_slice(&first_sum);
    let seed = crc32c::crc32c_append(crc32c::crc32c(&bytes[16..32]), &bytes[12..16]);
    let sum = crc32c::crc32c_append(seed, &bytes[start + 4..start + 40]);
    bytes[start..start + 4].copy_from_slice(&sum.to_le_bytes());
    disk.write_file(segment(1), &bytes);

    let storage = Arc::new(Busy::new(&disk, || {}, || {}));
    let reads = Arc::clone(&storage.reads);
    let verified = verify(DIR, storage.clone()).expect("a torn log is a sound log");
    let torn = verified.torn.expect("the frame is cut off");
    assert_eq!((torn.offset, torn.lsn), (start as u64, Lsn(2)));
    let (_, recovered) = Log::open(huge, storage, wal::ignore).expect("a torn log is a sound log");
    assert_eq!((recovered.records, recovered.torn), (1, Some(torn)));
    let largest = reads.all().into_iter().map(|read| read.end - read.start);
    assert!(largest.max() <= Some(1 << 20), "{reads:?}");
}

/// A start takes as long as reading the log once.
#[test]
fn a_log_of_small_frames_is_read_once() {
    let disk = MemStorage::new(1);
    let mut log = try_open(&disk, large()).expect("a new log").log;
    while segments(&disk).len() < 4 {
        append(&mut log, &[vec![1; 600]]);
    }
    drop(log);
    let storage = Arc::new(Busy::new(&disk, || {}, || {}));
    let reads = Arc::clone(&storage.reads);
    assert_eq!(verify(DIR, storage).expect("a sound log").segments, 4);
    let total: u64 = reads.all().iter().map(|read| read.end - read.start).sum();
    // And once more the end of each segment, as far as is read at once.
    assert!(total < 3 * (1 << 20) + 8 * (256 << 10), "{total} bytes");
}

/// Where what is torn may be anywhere, it is looked for where there is data, and not in the holes between: a start waits
/// for it.
#[test]
fn holes_are_not_read() {
    let disk = MemStorage::new(1);
    let never = Options {
        segment_bytes: 64 << 20,
        sync: SyncPolicy::Never,
        ..options()
    };
    let mut log = try_open(&disk, never).expect("a new log").log;
    append(&mut log, &["kept"]);
    let start = 64 + log.stats().frame_bytes;
    drop(log);
    // The last sector of a long frame, of which nothing else has reached the disk.
    let storage: &dyn Storage = &disk;
    let file = storage.open(&segment(1), Access::Write).expect("a file");
    let mut sector = [0; 512];
    file.read_at(&mut sector, 0).expect("a read");
    sector[..508].fill(b'x');
    let far = 60 << 20;
    file.write_all_at(&sector, far).expect("a write");

    let storage = Arc::new(Busy::new(&disk, || {}, || {}));
    let reads = Arc::clone(&storage.reads);
    let verified = verify(DIR, storage).expect("a torn log is a sound log");
    let torn = verified.torn.expect("a torn frame");
    assert_eq!((torn.offset, torn.bytes), (start, far + 512 - start));
    // As much as is always read at the start is not counted.
    for read in reads.all().into_iter().filter(|read| read.end > 1 << 20) {
        assert!(read.start >= far && read.end <= far + 512, "{read:?}");
    }
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

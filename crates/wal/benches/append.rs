//! How close the log comes to the disk: durable appends through the [`Writer`] against a bare loop of
//! `pwrite` and `fdatasync` on a preallocated file, and how fast recovery reads.
//!
//! Run with `cargo bench -p wal`. Both sides take turns, round by round, on the same file system, so
//! that the machine's moods hit both; what counts is the ratio of the medians, not the figures.
//! `WAL_BENCH_DIR` chooses the file system, `WAL_BENCH_ROUNDS` how many rounds (default 25).
//!
//! The same against other logs and stores: `benches/peers/log`.
//!
//! "Reused" is `Log` in the steady state, when old segments are released as new ones are begun, and are their room: it
//! overwrites, and the bare loop beside it, as the rest of the table, writes into reserved blocks that were never written.
//!
//! "In flight" is the scheduler's way of using the log: all that became durable together is answered
//! together, by one submission.

mod bare;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bare::{Bare, Layout};
use wal::{
    Batch, BlobStore, Log, Options, OsStorage, Storage, Submission, SyncPolicy, Writer, WriterEvent,
};

const RECORD_BYTES: usize = 256;
const ROUND: Duration = Duration::from_millis(150);
/// More than a round can fill.
const BARE_BYTES: u64 = 64 << 20;
const SCAN_RECORDS: usize = 2_000_000;

fn main() {
    let base = std::env::var_os("WAL_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let rounds = std::env::var("WAL_BENCH_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(25);
    let dir = tempfile::tempdir_in(base).expect("a directory for the benchmark");

    println!("durable appends of {RECORD_BYTES} bytes, medians of {rounds} rounds of {ROUND:?}");
    println!(
        "{:>10} {:>12} {:>12} {:>8} {:>12} {:>8} {:>12} {:>8}",
        "in flight", "bare/s", "Log/s", "ratio", "Writer/s", "ratio", "reused/s", "ratio"
    );
    for in_flight in [1, 8, 64] {
        let bare = BareRounds::new(dir.path(), in_flight);
        let mut direct = Direct::new(&dir.path().join(format!("direct-{in_flight}")), in_flight);
        let mut reused = Direct::reused(&dir.path().join(format!("reused-{in_flight}")), in_flight);
        let log = Piped::new(dir.path(), in_flight);
        let (mut bares, mut directs, mut logs) = (Vec::new(), Vec::new(), Vec::new());
        let mut reuseds = Vec::new();
        for _ in 0..rounds {
            bares.push(bare.round());
            directs.push(direct.round());
            logs.push(log.round());
            reuseds.push(reused.round());
        }
        let (bare, direct) = (median(&mut bares), median(&mut directs));
        let (log, reused) = (median(&mut logs), median(&mut reuseds));
        println!(
            "{in_flight:>10} {bare:>12.0} {direct:>12.0} {:>8.3} {log:>12.0} {:>8.3} {reused:>12.0} {:>8.3}",
            direct / bare,
            log / bare,
            reused / bare
        );
    }

    println!(
        "opening a reused segment of 64 MiB with two records: {:?}",
        open_reused(&dir.path().join("reused-1"))
    );
    for (name, records_per_frame) in [("frames of 64 records", 64), ("frames of 1 record", 1)] {
        let rate = scan(
            &dir.path().join(format!("scan-{records_per_frame}")),
            records_per_frame,
        );
        println!("recovery, {name}: {:.2} million records/s", rate / 1e6);
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The limit, in rounds.
struct BareRounds {
    path: PathBuf,
    bytes: Vec<u8>,
    in_flight: usize,
}

impl BareRounds {
    fn new(dir: &Path, in_flight: usize) -> Self {
        BareRounds {
            path: dir.join(format!("bare-{in_flight}")),
            bytes: vec![0x5a; RECORD_BYTES * in_flight],
            in_flight,
        }
    }

    /// Each round has a new file, which like a new segment was never written to.
    fn round(&self) -> f64 {
        let mut bare = Bare::create(&self.path, BARE_BYTES, Layout::Reserved);
        let started = Instant::now();
        let mut count = 0;
        while started.elapsed() < ROUND {
            bare.write(&self.bytes);
            bare.sync();
            count += self.in_flight;
        }
        count as f64 / started.elapsed().as_secs_f64()
    }
}

/// The log without a thread of its own.
struct Direct {
    log: Log,
    batch: Batch,
    /// Whether segments are released as soon as they are full.
    releases: bool,
}

impl Direct {
    fn new(dir: &Path, in_flight: usize) -> Self {
        let (log, _) =
            Log::open(Options::new(dir), Arc::new(OsStorage::new()), wal::ignore).expect("a log");
        let mut batch = Batch::new();
        for _ in 0..in_flight {
            batch.push(&[0x5a; RECORD_BYTES]);
        }
        Direct {
            log,
            batch,
            releases: false,
        }
    }

    /// One that has come round: its segments and its spare were segments before.
    fn reused(dir: &Path, in_flight: usize) -> Self {
        let options = Options {
            sync: SyncPolicy::Never,
            ..Options::new(dir)
        };
        let (mut log, _) =
            Log::open(options, Arc::new(OsStorage::new()), wal::ignore).expect("a new log");
        let mut filler = Batch::new();
        filler.push(&vec![0x5a; 1 << 20]);
        while log.stats().reused_segments < 3 {
            log.append(&[&filler]).expect("an append");
            release(&mut log);
        }
        log.close().expect("a close");
        Direct {
            releases: true,
            ..Direct::new(dir, in_flight)
        }
    }

    fn round(&mut self) -> f64 {
        let started = Instant::now();
        let mut count = 0;
        while started.elapsed() < ROUND {
            self.log.append(&[&self.batch]).expect("an append");
            if self.releases && self.log.stats().segments > 1 {
                release(&mut self.log);
            }
            count += self.batch.len();
        }
        count as f64 / started.elapsed().as_secs_f64()
    }
}

/// Lets go of all that is full, and prepares the next segment.
fn release(log: &mut Log) {
    log.release(log.next_lsn(), Duration::ZERO)
        .expect("a release");
    log.reserve().expect("no failure");
}

/// The log behind its writer thread, one submission for all that came back together.
struct Piped {
    writer: Writer,
    events: Receiver<(u64, Batch)>,
    in_flight: usize,
}

impl Piped {
    fn new(dir: &Path, in_flight: usize) -> Self {
        let storage: Arc<dyn Storage> = Arc::new(OsStorage::new());
        let dir = dir.join(format!("log-{in_flight}"));
        let blobs = BlobStore::open(dir.join("blobs"), storage.clone()).expect("a blob store");
        let (log, _) = Log::open(Options::new(dir), storage, wal::ignore).expect("a new log");
        let (sender, events) = channel();
        let writer = Writer::start(log, Arc::new(blobs), 1024, move |event| match event {
            WriterEvent::Durable {
                first, last, batch, ..
            } => {
                // The receiver is gone only when the round is over.
                let _ = sender.send((last.get() + 1 - first.get(), batch));
            }
            other => panic!("{other:?}"),
        });
        Piped {
            writer,
            events,
            in_flight,
        }
    }

    fn round(&self) -> f64 {
        let record = [0x5a; RECORD_BYTES];
        let started = Instant::now();
        let mut count = 0;
        let mut turn = self.in_flight;
        let mut batch = Batch::new();
        while started.elapsed() < ROUND {
            for _ in 0..turn {
                batch.push(&record);
            }
            let submission = Submission {
                token: 0,
                batch,
                blobs: Vec::new(),
            };
            self.writer
                .write(submission)
                .expect("the writer is at work");
            let (durable, returned) = self.events.recv().expect("the writer is at work");
            count += durable;
            turn = durable as usize;
            batch = returned;
        }
        count as f64 / started.elapsed().as_secs_f64()
    }
}

/// How long it takes to open a log whose segment is full of what earlier lives have left, from the page cache.
fn open_reused(dir: &Path) -> Duration {
    let storage: Arc<dyn Storage> = Arc::new(OsStorage::new());
    let options = Options::new(dir);
    let (mut log, _) = Log::open(options.clone(), storage.clone(), wal::ignore).expect("a log");
    let (mut filler, mut last) = (Batch::new(), Batch::new());
    filler.push(&vec![0x5a; 1 << 20]);
    last.push(b"a small one");
    let reused = log.stats().reused_segments;
    while log.stats().reused_segments == reused {
        log.append(&[&filler]).expect("an append");
        release(&mut log);
    }
    log.append(&[&last]).expect("an append");
    log.close().expect("a close");
    let mut times: Vec<f64> = (0..15)
        .map(|_| {
            let started = Instant::now();
            let (log, _) = Log::open(options.clone(), storage.clone(), wal::ignore).expect("a log");
            let took = started.elapsed().as_secs_f64();
            drop(log);
            took
        })
        .collect();
    Duration::from_secs_f64(median(&mut times))
}

/// Records per second that opening a log hands out, from the page cache.
fn scan(dir: &Path, records_per_frame: usize) -> f64 {
    let storage: Arc<dyn Storage> = Arc::new(OsStorage::new());
    let options = Options {
        sync: SyncPolicy::Never,
        ..Options::new(dir)
    };
    let (mut log, _) = Log::open(options.clone(), storage.clone(), wal::ignore).expect("a new log");
    let mut batch = Batch::new();
    for _ in 0..records_per_frame {
        batch.push(&[0x5a; RECORD_BYTES]);
    }
    for _ in 0..SCAN_RECORDS / records_per_frame {
        log.append(&[&batch]).expect("an append");
    }
    log.close().expect("a close");
    let mut rates = Vec::new();
    for _ in 0..5 {
        let started = Instant::now();
        let mut sum = 0u64;
        let (log, recovered) = Log::open(options.clone(), storage.clone(), |lsn, record| {
            sum += lsn.get() ^ u64::from(black_box(record)[0]);
            Ok::<(), std::convert::Infallible>(())
        })
        .expect("a sound log");
        rates.push(recovered.records as f64 / started.elapsed().as_secs_f64());
        black_box(sum);
        drop(log);
    }
    median(&mut rates)
}

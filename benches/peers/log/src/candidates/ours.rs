//! Our own: [`wal::Log`] alone and [`wal::Writer`].

use std::convert::Infallible;
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use wal::{
    Batch, BlobStore, Log, Lsn, Options, OsStorage, Storage, Submission, SyncPolicy, Writer, WriterEvent,
};

use super::{Appender, Candidate, Durability};

/// Without syncs one segment takes all: the log would make each full one durable before the next.
const UNSYNCED_SEGMENT_BYTES: u64 = 2 << 30;
/// How many appends there are between two requests to a [`Writer`] to release what is full.
const RELEASE_EVERY: u64 = 1024;
/// At most so many submissions wait. No more than there are appenders ever do.
const QUEUE_FRAMES: usize = 1024;

/// [`wal::Log`] on the thread that appends.
#[derive(Debug)]
pub struct DirectLog;

impl Candidate for DirectLog {
    fn name(&self) -> &'static str {
        "`wal::Log` alone"
    }

    fn open(
        &self,
        dir: &Path,
        durability: Durability,
        appenders: usize,
    ) -> Option<Vec<Box<dyn Appender>>> {
        if appenders > 1 {
            return None;
        }
        Some(vec![Box::new(DirectAppender {
            log: open_log(dir, durability),
            batch: Batch::new(),
            releases: durability == Durability::Synced,
        })])
    }

    /// As if every frame had been synced: recovery writes again what no later frame calls durable, which of
    /// a log that syncs is the last frame only.
    fn load(&self, dir: &Path, record: &[u8], total: usize, batch: usize) {
        let options = Options {
            sync: SyncPolicy::Never,
            ..Options::new(dir)
        };
        let (mut log, _) =
            Log::open(options, Arc::new(OsStorage::new()), wal::ignore).expect("a new log");
        let mut records = Batch::new();
        let mut left = total;
        while left > 0 {
            let count = left.min(batch);
            records.clear();
            for _ in 0..count {
                records.push(record);
            }
            left -= count;
            if left == 0 {
                log.sync().expect("a sync");
            }
            log.append(&[&records]).expect("an append");
        }
        log.close().expect("a close");
    }

    /// Recovery: it looks at every byte, checks it, and hands every record out.
    fn scan(&self, dir: &Path) -> Option<u64> {
        let mut sum = 0;
        let storage = Arc::new(OsStorage::new());
        let (_, recovered) = Log::open(Options::new(dir), storage, |lsn, record| {
            sum += lsn.get() ^ u64::from(black_box(record)[0]);
            Ok::<(), Infallible>(())
        })
        .expect("a sound log");
        black_box(sum);
        Some(recovered.records)
    }
}

struct DirectAppender {
    log: Log,
    batch: Batch,
    /// Whether segments are released as soon as they are full, to be used again.
    releases: bool,
}

impl Appender for DirectAppender {
    fn append(&mut self, record: &[u8], count: usize) {
        self.batch.clear();
        for _ in 0..count {
            self.batch.push(record);
        }
        self.log.append(&[&self.batch]).expect("an append");
        if self.releases && self.log.stats().segments > 1 {
            release(&mut self.log);
        }
    }
}

/// Appenders that submit to a [`wal::Writer`], each waiting for its own event.
#[derive(Debug)]
pub struct ThroughWriter;

impl Candidate for ThroughWriter {
    fn name(&self) -> &'static str {
        "`wal::Writer`"
    }

    fn open(
        &self,
        dir: &Path,
        durability: Durability,
        appenders: usize,
    ) -> Option<Vec<Box<dyn Appender>>> {
        let log = open_log(dir, durability);
        let storage: Arc<dyn Storage> = Arc::new(OsStorage::new());
        let blobs = BlobStore::open(dir.join("blobs"), storage).expect("a blob store");
        let (senders, receivers): (Vec<SyncSender<Batch>>, Vec<_>) =
            (0..appenders).map(|_| sync_channel(1)).unzip();
        let on_event = move |event| match event {
            WriterEvent::Durable { token, batch, .. } => {
                // The appender is gone only when the measurement is over.
                let _ = senders[token as usize].send(batch);
            }
            WriterEvent::Released(_) => {}
            other => panic!("{other:?}"),
        };
        let writer = Arc::new(Writer::start(log, Arc::new(blobs), QUEUE_FRAMES, on_event));
        let appenders = receivers.into_iter().enumerate().map(|(token, durable)| {
            Box::new(WriterAppender {
                writer: writer.clone(),
                token: token as u64,
                durable,
                batch: Batch::new(),
                appends: 0,
                releases: durability == Durability::Synced && token == 0,
            }) as Box<dyn Appender>
        });
        Some(appenders.collect())
    }

    /// What a writer has written is a log.
    fn scan(&self, _: &Path) -> Option<u64> {
        None
    }
}

struct WriterAppender {
    writer: Arc<Writer>,
    token: u64,
    /// The batch comes back, empty, when it is durable.
    durable: Receiver<Batch>,
    batch: Batch,
    appends: u64,
    /// Whether this is the one that has segments released when they are full.
    releases: bool,
}

impl Appender for WriterAppender {
    fn append(&mut self, record: &[u8], count: usize) {
        let mut batch = std::mem::take(&mut self.batch);
        for _ in 0..count {
            batch.push(record);
        }
        let submission = Submission {
            token: self.token,
            batch,
            blobs: Vec::new(),
        };
        self.writer
            .write(submission)
            .expect("the writer is at work");
        self.batch = self.durable.recv().expect("the writer is at work");
        self.appends += 1;
        if self.releases && self.appends.is_multiple_of(RELEASE_EVERY) {
            self.writer.release(Lsn(u64::MAX), Duration::ZERO);
        }
    }
}

fn open_log(dir: &Path, durability: Durability) -> Log {
    if durability == Durability::Synced {
        come_round(dir);
    }
    let storage = Arc::new(OsStorage::new());
    let default = Options::new(dir);
    let options = match durability {
        Durability::Synced | Durability::SyncedAndKept => default,
        Durability::Unsynced => Options {
            sync: SyncPolicy::Never,
            segment_bytes: UNSYNCED_SEGMENT_BYTES,
            ..default
        },
    };
    let (log, _) = Log::open(options, storage, wal::ignore).expect("a new log");
    log
}

/// Leaves a log in the steady state: old segments were released as new ones were begun, and are their room.
fn come_round(dir: &Path) {
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
}

/// Lets go of all that is full, and prepares the next segment.
fn release(log: &mut Log) {
    log.release(log.next_lsn(), Duration::ZERO)
        .expect("a release");
    log.reserve().expect("no failure");
}

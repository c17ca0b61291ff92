//! The writing thread: group commit, order, and what becomes of submissions when the disk is full
//! or fails.

mod common;

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use common::{append, batch, open, options, segments, try_open, with_sync};
use wal::sim::{MemStorage, Op};
use wal::{
    Batch, BlobId, BlobStore, Log, Lsn, Options, StopError, Submission, SubmitError, SyncPolicy,
    Writer, WriterEvent,
};

/// How submissions are brought to the writer.
type Way = fn(&Writer, Submission) -> Result<(), SubmitError>;

/// Whichever is taken, the outcome is to be the same.
const WAYS: [Way; 2] = [Writer::submit, Writer::write];

struct Started {
    writer: Writer,
    events: Receiver<WriterEvent>,
    way: Way,
}

fn blobs(disk: &MemStorage) -> Arc<BlobStore> {
    Arc::new(BlobStore::open("/log/blobs", Arc::new(disk.clone())).expect("a blob store"))
}

fn start(disk: &MemStorage, log: Log) -> Started {
    start_with(Writer::submit, disk, log)
}

fn start_with(way: Way, disk: &MemStorage, log: Log) -> Started {
    let (sender, events) = channel();
    let writer = Writer::start(log, blobs(disk), 100, move |event| {
        // A test that has seen enough no longer listens.
        let _ = sender.send(event);
    });
    Started {
        writer,
        events,
        way,
    }
}

/// Starts a writer that waits, after each event, until it is let go on.
fn start_stepwise(disk: &MemStorage, queue: usize) -> (Started, Sender<()>) {
    let (sender, events) = channel();
    let (go_on, gate) = channel::<()>();
    let writer = Writer::start(open(disk).log, blobs(disk), queue, move |event| {
        let _ = sender.send(event);
        // Once the test has dropped its end nothing is held up any more.
        let _ = gate.recv();
    });
    let started = Started {
        writer,
        events,
        way: Writer::submit,
    };
    (started, go_on)
}

fn submission(token: u64, records: &[&[u8]]) -> Submission {
    Submission {
        token,
        batch: batch(records),
        blobs: Vec::new(),
    }
}

impl Started {
    fn submit(&self, token: u64, records: &[&[u8]]) {
        self.bring(submission(token, records));
    }

    fn bring(&self, submission: Submission) {
        (self.way)(&self.writer, submission).expect("the writer is at work");
    }

    fn event(&self) -> WriterEvent {
        self.events.recv().expect("the writer is at work")
    }

    fn durable(&self) -> (u64, Lsn, Lsn) {
        match self.event() {
            WriterEvent::Durable {
                token,
                first,
                last,
                batch,
            } => {
                assert!(batch.is_empty());
                (token, first, last)
            }
            other => panic!("{other:?}"),
        }
    }

    fn stop(self) -> (Result<Log, StopError>, Vec<WriterEvent>) {
        let stopped = self.writer.stop();
        (stopped, self.events.iter().collect())
    }
}

#[test]
fn submissions_are_reported_in_order_with_their_numbers() {
    for way in WAYS {
        let disk = MemStorage::new(1);
        let writer = start_with(way, &disk, open(&disk).log);
        writer.submit(7, &[b"a", b"b"]);
        writer.submit(8, &[]);
        writer.submit(9, &[b"c"]);
        assert_eq!(writer.durable(), (7, Lsn(1), Lsn(2)));
        assert_eq!(
            writer.durable(),
            (8, Lsn(3), Lsn(2)),
            "no records: a barrier"
        );
        assert_eq!(writer.durable(), (9, Lsn(3), Lsn(3)));
        disk.crash_with(|_| 0);
        assert_eq!(open(&disk).records, [b"a", b"b", b"c"]);
    }
}

/// Nobody is woken: what is written when nothing else waits is durable, and reported, before the call returns.
#[test]
fn a_lone_submitter_writes_on_its_own_thread() {
    let disk = MemStorage::new(1);
    let (sender, events) = channel();
    let writer = Writer::start(open(&disk).log, blobs(&disk), 1, move |event| {
        let _ = sender.send((std::thread::current().id(), event));
    });
    let this = std::thread::current().id();
    for token in 0..10 {
        writer
            .write(submission(token, &[b"x"]))
            .expect("the writer is at work");
        let (thread, event) = events.try_recv().expect("it is reported already");
        assert_eq!(thread, this);
        assert!(matches!(event, WriterEvent::Durable { token: t, .. } if t == token));
        assert_eq!(writer.stats().syncs, token + 1);
    }
    // What needs more than one sync, or none, is the writing thread's.
    let content = vec![1; 5000];
    let with_blob = Submission {
        blobs: vec![(BlobId::of(&content), content)],
        ..submission(10, &[b"x"])
    };
    writer.write(with_blob).expect("the writer is at work");
    let (thread, _) = events.recv().expect("it is reported");
    assert_ne!(thread, this);
}

/// While the writing thread is at work, whatever comes has to wait its turn.
#[test]
fn what_waits_goes_before_what_could_be_written_at_once() {
    let disk = MemStorage::new(1);
    let (mut started, go_on) = start_stepwise(&disk, 100);
    started.submit(0, &[b"being written"]);
    started.durable();
    started.way = Writer::write;
    started.submit(1, &[b"waits"]);
    started.submit(2, &[b"waits"]);
    assert_eq!(started.writer.queued(), 2);
    drop(go_on);
    assert_eq!([1, 2].map(|_| started.durable().0), [1, 2]);
}

#[test]
fn what_gathers_during_a_frame_becomes_the_next_one() {
    let disk = MemStorage::new(1);
    let (started, go_on) = start_stepwise(&disk, 100);
    started.submit(0, &[b"alone"]);
    assert_eq!(started.durable().0, 0);
    // The thread is held up by the event: these wait together.
    for token in 1..=20 {
        started.submit(token, &[b"together"]);
    }
    drop(go_on);
    for token in 1..=20 {
        assert_eq!(started.durable(), (token, Lsn(token + 1), Lsn(token + 1)));
    }
    let (log, _) = started.stop();
    let stats = log.expect("the log").stats();
    assert_eq!((stats.frames, stats.syncs, stats.records), (2, 2, 21));
}

#[test]
fn a_group_is_no_larger_than_a_frame() {
    let disk = MemStorage::new(1);
    let (started, go_on) = start_stepwise(&disk, 100);
    started.submit(0, &[b"alone"]);
    started.durable();
    for token in 1..=5 {
        started.submit(token, &[&[1; 1500]]);
    }
    drop(go_on);
    for token in 1..=5 {
        assert_eq!(started.durable().0, token);
    }
    let (log, _) = started.stop();
    assert_eq!(
        log.expect("the log").stats().frames,
        1 + 3,
        "two fit into 4096 bytes"
    );
}

#[test]
fn the_queue_is_bounded() {
    let disk = MemStorage::new(1);
    let (started, go_on) = start_stepwise(&disk, 2);
    started.submit(0, &[b"being written"]);
    started.durable();
    started.submit(1, &[b"waiting"]);
    started.submit(2, &[b"waiting"]);
    assert_eq!(started.writer.queued(), 2);
    let refused = started.writer.try_submit(submission(3, &[b"one too many"]));
    assert!(matches!(refused, Err(SubmitError::Full(submission)) if submission.token == 3));
    std::thread::scope(|scope| {
        let writer = &started.writer;
        let waiting = scope.spawn(|| writer.submit(submission(4, &[b"patient"])));
        drop(go_on);
        waiting
            .join()
            .expect("no panic")
            .expect("there was room at last");
    });
    assert_eq!([1, 2, 4].map(|_| started.durable().0), [1, 2, 4]);
}

#[test]
fn a_batch_that_will_never_fit_comes_back() {
    let disk = MemStorage::new(1);
    let writer = start(&disk, open(&disk).log);
    let refused = writer.writer.submit(submission(1, &[&[0; 5000]]));
    assert!(
        matches!(refused, Err(SubmitError::TooLarge { submission, .. }) if submission.token == 1)
    );
    writer.submit(2, &[b"fits"]);
    assert_eq!(writer.durable().0, 2);
}

/// With the power failing after every change: no record that names a blob without the blob.
#[test]
fn blobs_are_durable_before_the_records_that_name_them() {
    let mut outcomes = [0, 0];
    for (changes, way) in (0..20).flat_map(|changes| WAYS.map(|way| (changes, way))) {
        let disk = MemStorage::new(changes);
        let writer = start_with(way, &disk, open(&disk).log);
        let content = vec![1; 5000];
        let id = BlobId::of(&content);
        disk.power_off_after(changes);
        let submission = Submission {
            token: 1,
            batch: batch(&[id.0]),
            blobs: vec![(id, content.clone())],
        };
        writer.bring(submission);
        let reported = matches!(writer.event(), WriterEvent::Durable { .. });
        let _ = writer.stop();
        disk.crash();
        let recorded = open(&disk).records.len() == 1;
        assert!(recorded || !reported);
        if recorded {
            assert_eq!(blobs(&disk).get(id).expect("the blob"), content);
        }
        outcomes[usize::from(reported)] += 1;
    }
    assert!(outcomes.iter().all(|&count| count > 3), "{outcomes:?}");
}

/// Fail-stop: one `Failed`, and nothing durable after it.
#[test]
fn after_a_failed_sync_nothing_is_reported_durable() {
    for (way, op) in WAYS
        .into_iter()
        .flat_map(|way| [Op::Sync, Op::Write].map(|op| (way, op)))
    {
        let disk = MemStorage::new(1);
        let writer = start_with(way, &disk, open(&disk).log);
        writer.submit(1, &[b"fine"]);
        assert_eq!(writer.durable().0, 1);
        // Only this one fails: tried again, it would be called durable.
        disk.fail(op, 1, ErrorKind::Other);
        writer.submit(2, &[b"lost"]);
        assert!(matches!(writer.event(), WriterEvent::Failed(_)));
        // Whoever still submits, or waits to, is told.
        for token in 3..10 {
            let refused = way(&writer.writer, submission(token, &[b"too late"]));
            assert!(matches!(refused, Err(SubmitError::Closed(_))));
        }
        let (stopped, later) = writer.stop();
        assert!(matches!(stopped, Err(StopError::Failed(_))));
        assert!(later.is_empty(), "{later:?}");
    }
}

#[test]
fn nobody_waits_for_a_writer_that_has_failed() {
    let disk = MemStorage::new(1);
    let (started, go_on) = start_stepwise(&disk, 1);
    started.submit(0, &[b"being written"]);
    started.durable();
    disk.fail(Op::Write, 1, ErrorKind::Other);
    started.submit(1, &[b"will fail"]);
    std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..3)
            .map(|token| {
                scope.spawn({
                    let writer = &started.writer;
                    move || writer.submit(submission(token, &[b"waiting"]))
                })
            })
            .collect();
        drop(go_on);
        for waiting in waiting {
            // One may have got the place in the queue; it is told nothing more.
            let outcome = waiting.join().expect("no panic");
            assert!(matches!(outcome, Ok(()) | Err(SubmitError::Closed(_))));
        }
    });
    assert!(matches!(started.event(), WriterEvent::Failed(_)));
    let (stopped, events) = started.stop();
    assert!(matches!(stopped, Err(StopError::Failed(_))));
    assert!(events.is_empty());
}

#[test]
fn what_waits_for_a_writer_that_fails_is_dropped() {
    let disk = MemStorage::new(1);
    let (started, go_on) = start_stepwise(&disk, 10);
    started.submit(0, &[b"being written"]);
    started.durable();
    disk.fail(Op::Write, 1, ErrorKind::Other);
    // Each of these is a frame of its own.
    started.submit(1, &[&[1; 3000]]);
    started.submit(2, &[&[2; 3000]]);
    drop(go_on);
    assert!(matches!(started.event(), WriterEvent::Failed(_)));
    assert_eq!(started.writer.queued(), 0);
}

/// Fills the log up to the last byte of its last segment, on a disk that is full.
fn full(disk: &MemStorage) -> Log {
    let mut log = open(disk).log;
    while segments(disk).len() < 2 {
        append(&mut log, &[vec![1; 1500]]);
    }
    disk.set_capacity(disk.used_bytes());
    while log.append(&[&batch(&[vec![1; 1500]])]).is_ok() {}
    log
}

#[test]
fn a_full_disk_holds_submissions_up_until_there_is_space() {
    for way in WAYS {
        let disk = MemStorage::new(1);
        let log = full(&disk);
        let next = log.next_lsn();
        let writer = start_with(way, &disk, log);
        assert!(matches!(writer.event(), WriterEvent::SpaceLow(true)));
        writer.submit(1, &[&[2; 1500]]);
        writer.submit(2, &[]);
        assert!(matches!(writer.event(), WriterEvent::Stalled { .. }));
        disk.set_capacity(u64::MAX);
        assert!(matches!(writer.event(), WriterEvent::SpaceLow(false)));
        assert!(matches!(writer.event(), WriterEvent::Resumed));
        assert_eq!(writer.durable(), (1, next, next));
        assert_eq!(writer.durable().0, 2);
        let (log, _) = writer.stop();
        assert_eq!(log.expect("the log").next_lsn(), next.next());
    }
}

/// A log that was opened on a full disk. Whoever uses it may refuse work for as long as space is low, so that the writer is
/// asked for nothing: it finds out by itself, however often it has to look.
#[test]
fn an_idle_writer_notices_that_there_is_space_again() {
    let disk = MemStorage::new(1);
    let writer = start(&disk, full(&disk));
    assert!(matches!(writer.event(), WriterEvent::SpaceLow(true)));
    let changes = disk.changes();
    // A file is made, finds no room and is removed.
    while disk.changes() < changes + 2 {
        std::thread::yield_now();
    }
    disk.set_capacity(u64::MAX);
    assert!(matches!(writer.event(), WriterEvent::SpaceLow(false)));
    let (log, events) = writer.stop();
    assert!(events.is_empty());
    assert!(!log.expect("the log").wants_reserve());
}

/// What makes room must get through when everything else is held up.
#[test]
fn releasing_segments_lets_a_stalled_log_go_on() {
    let disk = MemStorage::new(1);
    let log = full(&disk);
    let next = log.next_lsn();
    let writer = start(&disk, log);
    assert!(matches!(writer.event(), WriterEvent::SpaceLow(true)));
    writer.submit(1, &[&[2; 1500]]);
    assert!(matches!(writer.event(), WriterEvent::Stalled { .. }));
    writer.writer.release(next, Duration::ZERO);
    let WriterEvent::Released(released) = writer.event() else {
        panic!("nothing was released")
    };
    assert_eq!(released.len(), 1);
    assert!(matches!(writer.event(), WriterEvent::SpaceLow(false)));
    assert!(matches!(writer.event(), WriterEvent::Resumed));
    assert_eq!(writer.durable(), (1, next, next));
}

#[test]
fn a_stalled_writer_can_be_stopped() {
    let disk = MemStorage::new(1);
    let log = full(&disk);
    let next = log.next_lsn();
    let writer = start(&disk, log);
    writer.submit(1, &[&[2; 1500]]);
    let (stopped, events) = writer.stop();
    assert!(matches!(stopped, Err(StopError::NoSpace(_))));
    assert!(
        !events
            .iter()
            .any(|event| matches!(event, WriterEvent::Durable { .. }))
    );
    assert_eq!(
        open(&disk).log.next_lsn(),
        next,
        "and what was there is there"
    );
}

/// A blob that finds no room holds things up in the same way.
#[test]
fn a_blob_without_space_stalls_too() {
    let disk = MemStorage::new(1);
    let log = open(&disk).log;
    disk.set_capacity(disk.used_bytes() + 100);
    let writer = start(&disk, log);
    let content = vec![1; 5000];
    let id = BlobId::of(&content);
    let submission = Submission {
        token: 1,
        batch: batch(&["x"]),
        blobs: vec![(id, content)],
    };
    writer
        .writer
        .submit(submission)
        .expect("the writer is at work");
    assert!(matches!(writer.event(), WriterEvent::Stalled { .. }));
    disk.set_capacity(u64::MAX);
    assert!(matches!(writer.event(), WriterEvent::Resumed));
    assert_eq!(writer.durable().0, 1);
}

/// But not while a released segment is kept for later: its room is a blob's first.
#[test]
fn a_blob_takes_the_room_of_what_is_only_kept() {
    let disk = MemStorage::new(1);
    let mut log = open(&disk).log;
    while segments(&disk).len() < 3 {
        append(&mut log, &[vec![1; 1500]]);
    }
    log.reserve().expect("a spare");
    log.release(log.next_lsn(), Duration::ZERO)
        .expect("a release");
    let files = disk.files().len();
    let writer = start(&disk, log);
    disk.set_capacity(disk.used_bytes());
    let content = vec![1; 5000];
    let id = BlobId::of(&content);
    writer.bring(Submission {
        token: 1,
        batch: batch(&["x"]),
        blobs: vec![(id, content)],
    });
    assert_eq!(writer.durable().0, 1);
    assert_eq!(disk.files().len(), files, "the blob for the spare");
    let (log, events) = writer.stop();
    assert!(events.is_empty(), "nothing was held up: {events:?}");
    assert!(!log.expect("the log").wants_reserve());
}

#[test]
fn the_space_of_the_next_segment_is_reserved_beforehand() {
    let disk = MemStorage::new(1);
    let writer = start(&disk, open(&disk).log);
    let mut token = 0;
    while segments(&disk).len() < 2 {
        token += 1;
        writer.submit(token, &[&[1; 1500]]);
        assert_eq!(writer.durable().0, token);
    }
    let (log, events) = writer.stop();
    assert!(events.is_empty());
    assert!(!log.expect("the log").wants_reserve());
}

/// Also when nobody wakes the writing thread for anything else.
#[test]
fn it_is_reserved_beforehand_for_those_who_write_themselves() {
    let disk = MemStorage::new(1);
    let writer = start_with(Writer::write, &disk, open(&disk).log);
    let files = disk.files().len();
    let mut token = 0;
    while segments(&disk).len() < 2 {
        token += 1;
        writer.submit(token, &[&[1; 1500]]);
        assert_eq!(writer.durable().0, token);
    }
    // The spare segment became the second one, and there is to be another.
    while disk.files().len() == files {
        std::thread::yield_now();
    }
    let (log, events) = writer.stop();
    assert!(events.is_empty());
    assert!(!log.expect("the log").wants_reserve());
}

/// The interval is over while nothing is submitted: what was written becomes durable all the same.
#[test]
fn an_idle_writer_keeps_the_interval() {
    let disk = MemStorage::new(1);
    let interval = with_sync(SyncPolicy::Interval(Duration::from_millis(2)));
    let log = try_open(&disk, interval).expect("a new log").log;
    let writer = start(&disk, log);
    writer.submit(1, &[b"soon durable"]);
    assert_eq!(writer.durable().0, 1);
    assert_eq!(writer.writer.stats().syncs, 0);
    disk.advance(Duration::from_millis(2));
    while writer.writer.stats().syncs == 0 {
        std::thread::yield_now();
    }
    disk.crash_with(|_| 0);
    assert_eq!(open(&disk).records.len(), 1);
}

#[test]
fn stopping_and_dropping_write_what_was_submitted() {
    for dropping in [false, true] {
        let disk = MemStorage::new(1);
        let never = Options {
            sync: SyncPolicy::Never,
            ..options()
        };
        let writer = start(&disk, try_open(&disk, never).expect("a new log").log);
        for token in 0..50 {
            writer.submit(token, &[&[token as u8; 100]]);
        }
        if dropping {
            drop(writer);
        } else {
            let log = writer.writer.stop().expect("the log");
            assert_eq!(log.synced_lsn(), Lsn(50));
        }
        disk.crash_with(|_| 0);
        assert_eq!(open(&disk).records.len(), 50);
    }
}

#[test]
fn a_panicking_handler_is_reported_and_hangs_nobody() {
    let disk = MemStorage::new(1);
    let writer = Writer::start(open(&disk).log, blobs(&disk), 1, |_| panic!("by the test"));
    writer
        .submit(submission(1, &[b"x"]))
        .expect("the writer is at work");
    // The queue has one place: these either wait for the end or come after it.
    let refused = [2, 3, 4].map(|token| writer.submit(submission(token, &[b"x"])));
    assert!(matches!(refused[2], Err(SubmitError::Closed(_))));
    assert!(matches!(
        writer.stop().map(|_| ()),
        Err(StopError::Panicked)
    ));
}

/// A panic within `write` is the caller's, and the end of the writer.
#[test]
fn a_handler_that_panics_within_a_write_ends_the_writer() {
    let disk = MemStorage::new(1);
    let writer = Writer::start(open(&disk).log, blobs(&disk), 1, |_| panic!("by the test"));
    let written = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        writer.write(submission(1, &[b"x"]))
    }));
    assert!(written.is_err());
    // The queue has one place: these either wait for the end or come after it.
    let refused = [2, 3, 4].map(|token| writer.write(submission(token, &[b"x"])));
    assert!(matches!(refused[2], Err(SubmitError::Closed(_))));
    assert!(matches!(
        writer.stop().map(|_| ()),
        Err(StopError::Panicked)
    ));
}

#[test]
fn many_threads_may_submit() {
    let disk = MemStorage::new(1);
    let writer = start(&disk, open(&disk).log);
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let writer = &writer.writer;
            scope.spawn(move || {
                for n in 0..50 {
                    let mut batch = Batch::new();
                    batch.push(&[thread as u8, n]);
                    let token = thread << 8 | u64::from(n);
                    let submission = Submission {
                        token,
                        batch,
                        blobs: Vec::new(),
                    };
                    WAYS[usize::from(n % 2)](writer, submission).expect("room");
                }
            });
        }
    });
    let reported: Vec<u64> = (0..200).map(|_| writer.durable().0).collect();
    let (log, _) = writer.stop();
    drop(log.expect("the log"));
    let found = open(&disk).records;
    let found: Vec<u64> = found
        .iter()
        .map(|r| u64::from(r[0]) << 8 | u64::from(r[1]))
        .collect();
    assert_eq!(found, reported, "in the order of the log");
    for thread in 0..4 {
        assert!(
            found
                .iter()
                .filter(|token| *token >> 8 == thread)
                .is_sorted()
        );
    }
}

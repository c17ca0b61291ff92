//! The queue and the writer under many orders of their threads: `cargo xtask shuttle`.
//!
//! [shuttle](https://github.com/awslabs/shuttle) runs each case again and again, and chooses which thread goes on at
//! every lock, wait and wake-up: at random, and by priorities that change a few times ("A Randomized Scheduler with
//! Probabilistic Guarantees of Finding Bugs", Burckhardt et al., ASPLOS 2010). Waits never time out, so that a wake-up
//! that is missing shows as a deadlock. A failing order is printed, to be replayed. `TINKERBELL_CASES` sets the number of
//! orders of each kind.
#![cfg(shuttle)]

mod common;

use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{batch, open};
use shuttle::thread;
use wal::sim::{MemStorage, Op};
use wal::{BlobId, BlobStore, Lsn, StopError, Submission, SubmitError, Writer, WriterEvent};

fn under_many_orders(case: impl Fn() + Copy + Send + Sync + 'static) {
    let orders = std::env::var("TINKERBELL_CASES").map_or(300, |text| text.parse().unwrap());
    shuttle::check_random(case, orders);
    shuttle::check_pct(case, orders, 3);
}

/// What the writer has said, in order. Looked at only when it has ended.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<WriterEvent>>>);

impl Said {
    fn take(&self) -> Vec<WriterEvent> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// The tokens that were reported durable; their numbers must be dense.
    fn durable(&self) -> Vec<u64> {
        let mut next = Lsn::FIRST;
        let events = self.take();
        let durable = events.iter().filter_map(|event| match event {
            WriterEvent::Durable {
                token, first, last, ..
            } => {
                assert_eq!(*first, next, "submissions are reported in the log's order");
                next = last.next();
                Some(*token)
            }
            _ => None,
        });
        durable.collect()
    }
}

fn start(disk: &MemStorage, queue: usize) -> (Arc<Writer>, Said) {
    let said = Said::default();
    let hear = said.clone();
    let blobs = BlobStore::open("/log/blobs", Arc::new(disk.clone())).unwrap();
    let log = open(disk).log;
    let writer = Writer::start(log, Arc::new(blobs), queue, move |event| {
        hear.0.lock().unwrap().push(event);
    });
    (Arc::new(writer), said)
}

/// Large enough that a few of them fill a segment.
fn submission(token: u64) -> Submission {
    let mut record = vec![0; 1500];
    record[..8].copy_from_slice(&token.to_le_bytes());
    Submission {
        token,
        batch: batch(&[record]),
        blobs: Vec::new(),
    }
}

/// Three submissions of one thread, by the different ways.
fn submit_three(writer: &Writer, thread: u64) -> Vec<Result<u64, SubmitError>> {
    (0..3)
        .map(|number| {
            let token = thread * 10 + number;
            let mut submission = submission(token);
            if number == 2 {
                let content = vec![thread as u8; 100];
                submission.blobs.push((BlobId::of(&content), content));
            }
            match (thread + number) % 2 {
                0 => writer.submit(submission),
                _ => writer.write(submission),
            }
            .map(|()| token)
        })
        .collect()
}

fn stop(writer: Arc<Writer>) -> Result<(), StopError> {
    let writer = Arc::into_inner(writer).expect("the threads have ended");
    writer.stop().map(drop)
}

#[test]
fn everything_becomes_durable_once_and_in_order() {
    under_many_orders(|| {
        let disk = MemStorage::new(1);
        let (writer, said) = start(&disk, 1);
        let threads: Vec<_> = (0..3)
            .map(|number| {
                let writer = Arc::clone(&writer);
                thread::spawn(move || submit_three(&writer, number))
            })
            .collect();
        writer.release(Lsn::FIRST, Duration::ZERO);
        for thread in threads {
            for submitted in thread.join().unwrap() {
                submitted.unwrap();
            }
        }
        stop(writer).unwrap();
        let durable = said.durable();
        let recorded: Vec<u64> = open(&disk)
            .records
            .iter()
            .map(|record| u64::from_le_bytes(record[..8].try_into().unwrap()))
            .collect();
        assert_eq!(durable, recorded);
        assert_eq!(durable.len(), 9);
        for thread in 0..3 {
            assert!(
                durable
                    .iter()
                    .filter(|token| *token / 10 == thread)
                    .is_sorted()
            );
        }
    });
}

#[test]
fn nobody_hangs_when_the_log_fails_and_nothing_is_durable_after_it() {
    for (op, nth) in [(Op::Sync, 1), (Op::Sync, 2), (Op::Write, 2), (Op::Sync, 4)] {
        let case = move || {
            let disk = MemStorage::new(1);
            let (writer, said) = start(&disk, 1);
            disk.fail(op, nth, ErrorKind::Other);
            let threads: Vec<_> = (0..2)
                .map(|number| {
                    let writer = Arc::clone(&writer);
                    thread::spawn(move || submit_three(&writer, number))
                })
                .collect();
            for thread in threads {
                for submitted in thread.join().unwrap() {
                    assert!(matches!(submitted, Ok(_) | Err(SubmitError::Closed(_))));
                }
            }
            let stopped = stop(writer);
            let events = said.take();
            let failed = events
                .iter()
                .position(|event| matches!(event, WriterEvent::Failed(_)));
            match stopped {
                Err(StopError::Failed(_)) => assert_eq!(failed, Some(events.len() - 1)),
                // The fault may lie beyond the last operation.
                Ok(()) => assert_eq!(failed, None),
                Err(other) => panic!("{other}"),
            }
        };
        under_many_orders(case);
    }
}

#[test]
fn a_writer_can_be_dropped_while_others_have_just_submitted() {
    under_many_orders(|| {
        let disk = MemStorage::new(1);
        let (writer, said) = start(&disk, 1);
        let other = thread::spawn({
            let writer = Arc::clone(&writer);
            move || submit_three(&writer, 0)
        });
        // The last owner, whichever thread that is, waits for the end.
        drop(writer);
        let submitted = other.join().unwrap();
        assert!(submitted.iter().all(Result::is_ok));
        assert_eq!(said.durable(), [0, 1, 2]);
    });
}

//! The log against a model that a person can check: a list of records, how many of them are durable, and where it begins.
//!
//! Any sequence of what can be done with a log, and of what can happen to it: appends of every size, syncs, time, releases,
//! reserves, a full disk, a failed write or sync, a kill, a loss of power. After each the log says what the model says; after
//! each opening it has what was durable, nothing that was never appended, and that in its order and without a gap.

mod common;

use std::io::ErrorKind;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use common::{DIR, Records, batch, count_from_env, options, try_open};
use proptest::prelude::*;
use wal::sim::{MemStorage, Op};
use wal::{AppendError, Log, Lsn, Options, Reader, SyncPolicy, verify};

/// Something that is done with the log, or happens to it.
#[derive(Clone, Debug)]
enum Step {
    /// Batches of records of these sizes, appended together.
    Append(Vec<Vec<usize>>),
    Sync,
    /// Milliseconds go by.
    Wait(u64),
    /// All below a record is let go of, this far along the log, in percent, if it is so old, in milliseconds.
    Release(u64, u64),
    Reserve,
    DiscardKept,
    /// Read by somebody else, from this far along, in percent.
    Read(u64),
    /// Closed, and opened again.
    Reopen,
    /// The process ends without a word.
    Kill,
    /// The power fails.
    Crash,
    /// The next append meets a disk that fails, in writing or in syncing; then the process gives up, with the machine or alone.
    Fail(Op, Vec<usize>, bool),
    /// The disk has room for so many bytes more, for one append.
    Full(u64, Vec<usize>),
}

fn sizes() -> impl Strategy<Value = Vec<usize>> {
    let size = prop_oneof![4 => 0..60usize, 2 => 300..700usize, 1 => 1500..3900usize];
    proptest::collection::vec(size, 1..4)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => proptest::collection::vec(sizes(), 1..4).prop_map(Step::Append),
        2 => Just(Step::Sync),
        2 => (0..400u64).prop_map(Step::Wait),
        3 => (0..=100u64, prop_oneof![Just(0), 0..400u64]).prop_map(|(at, age)| Step::Release(at, age)),
        1 => Just(Step::Reserve),
        1 => Just(Step::DiscardKept),
        1 => (0..=110u64).prop_map(Step::Read),
        1 => Just(Step::Reopen),
        1 => Just(Step::Kill),
        2 => Just(Step::Crash),
        2 => (prop_oneof![Just(Op::Write), Just(Op::Sync)], sizes(), any::<bool>())
            .prop_map(|(op, sizes, is_kill)| Step::Fail(op, sizes, is_kill)),
        1 => (0..20_000u64, sizes()).prop_map(|(room, sizes)| Step::Full(room, sizes)),
    ]
}

fn policy() -> impl Strategy<Value = SyncPolicy> {
    prop_oneof![
        3 => Just(SyncPolicy::Always),
        1 => Just(SyncPolicy::Interval(Duration::from_millis(100))),
        1 => Just(SyncPolicy::Never),
    ]
}

/// What the log should be.
#[derive(Debug)]
struct Model {
    /// The first record that there still is.
    first: u64,
    /// All from there on.
    records: Records,
    /// How many of them no crash may take.
    durable: usize,
    /// The next record's content.
    next_content: u64,
}

impl Model {
    fn next(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    /// Records of these sizes, each unlike any other.
    fn make(&mut self, sizes: &[usize]) -> Records {
        let make = |size: &usize| {
            self.next_content += 1;
            let seed = self.next_content.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let bytes = (0..).flat_map(|n: u64| (seed ^ n.wrapping_mul(seed >> 7)).to_le_bytes());
            bytes.take(*size).collect()
        };
        sizes.iter().map(make).collect()
    }

    fn begin_at(&mut self, first: u64) {
        let gone = usize::try_from(first - self.first).expect("a short log");
        assert!(gone <= self.records.len(), "the log begins behind its end");
        self.records.drain(..gone);
        self.durable = self.durable.saturating_sub(gone);
        self.first = first;
    }

    /// Takes over what an opening found, which may lack what was not durable, and have what no append acknowledged.
    fn recovered(&mut self, found: Records, first: u64, maybe: &Records) {
        self.begin_at(first);
        assert!(found.len() >= self.durable, "what was durable is lost");
        let all: Records = [&self.records[..], &maybe[..]].concat();
        assert!(
            found.len() <= all.len(),
            "there is more than was ever appended"
        );
        assert!(found == all[..found.len()], "a record is another");
        self.durable = found.len();
        self.records = found;
    }
}

struct World {
    disk: MemStorage,
    options: Options,
    log: Option<Log>,
    model: Model,
}

impl World {
    fn new(seed: u64, sync: SyncPolicy) -> Self {
        let disk = MemStorage::new(seed);
        let options = Options { sync, ..options() };
        let log = try_open(&disk, options.clone()).expect("a new log").log;
        let model = Model {
            first: log.next_lsn().0,
            records: Vec::new(),
            durable: 0,
            next_content: 0,
        };
        Self {
            disk,
            options,
            log: Some(log),
            model,
        }
    }

    fn log(&mut self) -> &mut Log {
        self.log.as_mut().expect("it is open between steps")
    }

    /// Opens what is left. `maybe` is what was being appended when it ended.
    fn reopen(&mut self, maybe: &Records) {
        self.log = None;
        let verified = verify(DIR, Arc::new(self.disk.fork())).expect("a sound log");
        let opened = try_open(&self.disk, self.options.clone()).expect("a sound log");
        assert_eq!(verified.records, opened.recovered.records);
        let first = match opened.records.len() as u64 {
            0 => opened.log.next_lsn().0,
            count => opened.log.next_lsn().0 - count,
        };
        // An empty log goes on where the last one ended, or before what was lost.
        let first = first.max(self.model.first);
        self.model.recovered(opened.records, first, maybe);
        self.log = Some(opened.log);
    }

    fn append(&mut self, batches: &[Records]) -> Result<Range<Lsn>, AppendError> {
        let batches: Vec<_> = batches.iter().map(|records| batch(records)).collect();
        let batches: Vec<_> = batches.iter().collect();
        self.log().append(&batches)
    }

    fn appended(&mut self, batches: Vec<Records>, range: &Range<Lsn>) {
        assert_eq!(range.start.0, self.model.next());
        self.model.records.extend(batches.into_iter().flatten());
        assert_eq!(range.end.0, self.model.next());
        self.look();
    }

    /// What the log says of itself is what the model says.
    fn look(&mut self) {
        let log = self.log.as_mut().expect("it is open between steps");
        assert_eq!(log.next_lsn().0, self.model.next());
        assert!(log.first_lsn().0 >= self.model.first || self.model.records.is_empty());
        let synced = log.synced_lsn().0 + 1;
        let durable = synced.saturating_sub(self.model.first) as usize;
        assert!(durable >= self.model.durable, "what was durable is no more");
        assert!(durable <= self.model.records.len());
        self.model.durable = durable;
        match log.sync_policy() {
            SyncPolicy::Always => assert_eq!(durable, self.model.records.len()),
            SyncPolicy::Interval(every) => {
                if let Some(due) = log.sync_due_in() {
                    assert!(due <= every);
                } else {
                    assert_eq!(durable, self.model.records.len());
                }
            }
            SyncPolicy::Never => assert_eq!(log.sync_due_in(), None),
        }
    }

    /// The record that lies so far along the log, in percent.
    fn along(&self, percent: u64) -> Lsn {
        let count = self.model.records.len() as u64;
        Lsn(self.model.first + count * percent / 100)
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Append(sizes) => {
                let batches: Vec<Records> =
                    sizes.iter().map(|sizes| self.model.make(sizes)).collect();
                match self.append(&batches) {
                    Ok(range) => self.appended(batches, &range),
                    // Nothing of it was written.
                    Err(AppendError::TooLarge { bytes, limit }) => assert!(bytes > limit),
                    Err(error) => panic!("an append on a sound disk: {error}"),
                }
            }
            Step::Sync => {
                self.log().sync().expect("a sync on a sound disk");
                assert_eq!(self.log().synced_lsn().next(), self.log().next_lsn());
            }
            Step::Wait(ms) => {
                self.disk.advance(Duration::from_millis(ms));
            }
            Step::Release(percent, age_ms) => {
                let below = self.along(percent);
                let released = self.log().release(below, Duration::from_millis(age_ms));
                let released = released.expect("a sound disk");
                let mut first = self.model.first;
                for gone in &released {
                    assert!(gone.first_lsn.0 <= first, "a gap before {gone:?}");
                    assert!(gone.last_lsn < below);
                    first = gone.last_lsn.0 + 1;
                }
                self.model.begin_at(first);
                if !released.is_empty() {
                    assert_eq!(self.log().first_lsn().0, first);
                }
            }
            Step::Reserve => {
                assert!(self.log().reserve().expect("a sound disk"));
                assert!(!self.log().wants_reserve());
            }
            Step::DiscardKept => {
                self.log().discard_kept().expect("a sound disk");
                assert!(!self.log().discard_kept().expect("a sound disk"));
            }
            Step::Read(percent) => self.read(self.along(percent)),
            Step::Reopen => {
                self.log
                    .take()
                    .expect("it is open")
                    .close()
                    .expect("a sound disk");
                self.model.durable = self.model.records.len();
                self.reopen(&Vec::new());
            }
            Step::Kill => {
                // What was written is in the page cache, and a kill takes none of that.
                self.model.durable = self.model.records.len();
                self.disk.kill();
                self.reopen(&Vec::new());
            }
            Step::Crash => {
                self.disk.crash();
                self.reopen(&Vec::new());
            }
            Step::Fail(op, sizes, is_kill) => {
                let records = self.model.make(&sizes);
                self.disk.fail(op, 1, ErrorKind::Other);
                match self.append(std::slice::from_ref(&records)) {
                    Ok(range) => {
                        // The policy asked for no sync, or there was no write to fail.
                        self.disk.heal();
                        self.appended(vec![records], &range);
                    }
                    Err(AppendError::TooLarge { .. }) => self.disk.heal(),
                    Err(AppendError::Failed(_)) => {
                        // Fail-stop: it takes nothing any more, whatever the disk does now.
                        self.disk.heal();
                        self.append(&[vec![b"more".to_vec()]])
                            .expect_err("the log has failed");
                        self.log().sync().expect_err("the log has failed");
                        assert!(self.log().failure().is_some());
                        // A failed sync leaves pages that look clean, and a process that is started again reads them.
                        match is_kill {
                            true => self.disk.kill(),
                            false => self.disk.crash(),
                        }
                        self.reopen(&records);
                    }
                    Err(error) => panic!("a failed disk: {error}"),
                }
            }
            Step::Full(room, sizes) => {
                self.disk.set_capacity(self.disk.used_bytes() + room);
                let records = self.model.make(&sizes);
                let appended = self.append(std::slice::from_ref(&records));
                self.disk.heal();
                match appended {
                    Ok(range) => self.appended(vec![records], &range),
                    Err(AppendError::TooLarge { .. }) => {}
                    Err(AppendError::NoSpace(_)) => {
                        assert!(self.log().space_low());
                        self.look();
                        // The same will do, once there is room.
                        let range = self
                            .append(std::slice::from_ref(&records))
                            .expect("there is room");
                        self.appended(vec![records], &range);
                    }
                    Err(error) => panic!("a full disk is no failure: {error}"),
                }
            }
        }
        self.look();
    }

    /// Somebody else sees what was written, from a record on.
    fn read(&mut self, from: Lsn) {
        let mut reader = Reader::open(DIR, Arc::new(self.disk.clone()), from).expect("a sound log");
        let skipped =
            usize::try_from(from.0.saturating_sub(self.model.first)).expect("a short log");
        let mut expected = self.model.records.iter().skip(skipped);
        let mut lsn = from.0.max(self.model.first);
        while let Some((found, record)) = reader.next_record().expect("a sound log") {
            // The oldest segment may hold records from before what was asked for.
            if found.0 < lsn {
                continue;
            }
            assert_eq!(found.0, lsn);
            assert_eq!(Some(record), expected.next().map(Vec::as_slice));
            lsn += 1;
        }
        assert_eq!(expected.next(), None, "a record was not read");
        assert_eq!(reader.torn(), None);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: count_from_env("WAL_PROPTEST_CASES", 12) as u32 * 40,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_log_is_what_the_model_is(
        seed in any::<u64>(),
        sync in policy(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(seed, sync);
        for step in steps {
            world.take(step);
        }
        let first = world.model.first;
        world.read(Lsn(first));
        world.take(Step::Crash);
    }
}

/// Whether the model bites: with each fault that is planted in the log itself, some sequence tells it from the model.
#[cfg(planted)]
#[test]
fn every_planted_fault_is_told_from_the_model() {
    use proptest::test_runner::{TestError, TestRunner};

    const FAULTS: [&str; 10] = [
        "checksum-skipped",
        "directory-sync-dropped",
        "failed-sync-retried",
        "life-not-checked",
        "life-repeated",
        "page-cache-trusted",
        "released-name-unsynced",
        "released-one-too-many",
        "segment-sync-dropped",
        "torn-tail-left",
    ];
    for fault in FAULTS {
        let mut runner = TestRunner::new(ProptestConfig {
            cases: 5_000,
            failure_persistence: None,
            max_shrink_iters: 0,
            ..ProptestConfig::default()
        });
        let input = (
            any::<u64>(),
            policy(),
            proptest::collection::vec(step(), 1..60),
        );
        let found = runner.run(&input, |(seed, sync, steps)| {
            wal::planted::plant(fault);
            let mut world = World::new(seed, sync);
            for step in steps {
                world.take(step);
            }
            world.take(Step::Crash);
            Ok(())
        });
        wal::planted::plant("");
        assert!(
            matches!(found, Err(TestError::Fail(..))),
            "`{fault}` is not found"
        );
        println!("{fault}: found");
    }
}

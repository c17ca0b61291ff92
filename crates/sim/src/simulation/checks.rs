//! What must hold in a run, at every step and at its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use runtime::entry::{Entry, Record};
use runtime::{Dump, JobId, JobState, Payloads, Recorded};
use scheduler::{TaskId, TaskState};
use wal::sim::MemStorage;
use wal::{BlobId, BlobStore, Log, Lsn, OpenError, Options, Storage};

use super::Run;
use crate::ledger::JobFacts;
use crate::node::{BLOB_DIR, LOG_DIR, now_or_never};

/// Tasks that wait for their turn: how often each had been polled, and how many polls of others it has waited.
#[derive(Default)]
pub(super) struct Watched(BTreeMap<TaskId, (u64, u64)>);

impl Run {
    /// Takes a turn; in some runs with a look at whether every task gets its share.
    pub(super) fn turn(&mut self) {
        if !self.swarm.is_watched {
            self.node.turn();
            return;
        }
        // It is answered at the beginning of the turn, so it tells how the turn before has ended.
        let was_busy = self.node.is_busy();
        let dump = self
            .node
            .ask(|reply| runtime::engine::Input::Dump { reply });
        self.node.turn();
        let dump = now_or_never(dump).expect("an answer, because the node has taken its turn");
        self.watch(&dump, was_busy);
    }

    /// A turn that has not come to its end has spent all its polls. A task that is ready all the while must be polled
    /// within the number that the scheduler promises.
    fn watch(&mut self, dump: &Dump, was_busy: bool) {
        let tasks = dump.scheduler.tasks();
        let ready: Vec<_> = tasks
            .iter()
            .filter(|task| task.state == TaskState::Ready)
            .collect();
        let before = std::mem::take(&mut self.watched.0);
        if !was_busy {
            return;
        }
        for task in &ready {
            let waited = match before.get(&task.id) {
                Some((polls, waited)) if *polls == task.polls => {
                    waited + self.swarm.setup.limits.turn_polls
                }
                _ => 0,
            };
            let bound = task.priority.polls_within(ready.len() as u64);
            assert!(
                waited <= bound,
                "`{}` of priority {} has waited for {waited} polls, and {bound} is the most",
                task.name,
                task.priority
            );
            self.watched.0.insert(task.id, (task.polls, waited));
        }
    }

    pub(super) fn check_start(&mut self) {
        self.check_blobs();
        let stuck = self.node.list(Default::default()).jobs;
        let stuck = stuck.iter().find(|view| view.state == JobState::Stuck);
        if let Some(view) = stuck {
            panic!("{} is stuck: {:?}", view.id, view.error);
        }
    }

    /// The disk as it is, for somebody to look at to whom nothing happens.
    pub(super) fn sound_copy(&self) -> MemStorage {
        let copy = self.node.disk.fork();
        copy.heal();
        copy
    }

    /// Every blob must be there and sound that an entry names which the log still has.
    pub(super) fn check_blobs(&self) {
        let storage: Arc<dyn Storage> = Arc::new(self.sound_copy());
        let blobs = BlobStore::open(BLOB_DIR, Arc::clone(&storage)).unwrap();
        let records = wal::Reader::open(LOG_DIR, storage, Lsn::FIRST).unwrap();
        for record in records {
            let (lsn, bytes) = record.unwrap();
            if let Ok(Record::Job(_, entry)) = Record::decode(&bytes) {
                entry.visit_blobs(|id| {
                    if let Err(error) = blobs.get(BlobId(id)) {
                        panic!("LSN {lsn} names a blob, and {error}");
                    }
                });
            }
        }
    }

    pub(super) fn look(&mut self) {
        self.latest_ms = self.latest_ms.max(self.node.unix_ms());
        self.hear();
        let last = self.node.history.last();
        while let Some(pal::Delivery::Event(event)) = self.node.events.try_recv() {
            assert!(
                event.lsn.is_none_or(|lsn| lsn <= last.0),
                "an event was shown before it was durable: {:?}",
                event.kind
            );
        }
        if self.node.is_alive() {
            assert!(
                self.node.unwritten() + self.node.unreported() <= 8,
                "the queue of the log grows"
            );
        }
        self.replay_new_ends();
    }

    /// Every job that has ended is replayed, once.
    pub(super) fn replay_new_ends(&mut self) {
        let ledger = self.node.world.ledger();
        let ended: Vec<JobId> = ledger
            .jobs()
            .filter(|(job, facts)| facts.finished_ms.is_some() && !self.replayed.contains(job))
            .map(|(job, _)| job)
            .collect();
        drop(ledger);
        for job in ended {
            self.replayed.insert(job);
            let ledger = self.node.world.ledger();
            let facts = ledger.job(job).expect("a job, because it has ended");
            self.replay(job, facts);
        }
    }

    pub(super) fn replay(&self, job: JobId, facts: &JobFacts) {
        let records = facts.records.iter();
        let journal: Vec<Recorded> = records
            .map(|(lsn, bytes)| Recorded {
                lsn: *lsn,
                bytes: bytes.as_slice().into(),
            })
            .collect();
        let last = journal.last().map(|recorded| recorded.entry().unwrap());
        let storage: Arc<dyn Storage> = Arc::new(self.sound_copy());
        let blobs = Arc::new(BlobStore::open(BLOB_DIR, storage).unwrap());
        let payloads = Arc::new(Payloads::new(blobs, self.swarm.setup.threshold_bytes));
        let replayed = runtime::replay(&self.node.programs, &payloads, job, journal)
            .unwrap_or_else(|error| panic!("{job} cannot be replayed: {error}"));
        let Some(Entry::Finished {
            ending,
            journal: hash,
            ..
        }) = last
        else {
            panic!("{job} is over, and its journal does not say so");
        };
        assert_eq!(
            replayed.hash, hash,
            "the replay of {job} gives another hash"
        );
        assert_eq!(
            replayed.ending.as_ref(),
            Some(&ending),
            "the replay of {job} ends otherwise"
        );
    }

    /// Every job is known that must be: what is over may be forgotten after the retention, and no sooner.
    pub(super) fn check_list(&mut self) {
        let known = self.node.list(runtime::JobFilter {
            limit: usize::MAX,
            ..Default::default()
        });
        let retention_ms = self.swarm.setup.retention.as_millis() as u64;
        let latest_ms = self.latest_ms.max(self.node.unix_ms());
        let ledger = self.node.world.ledger();
        for (job, facts) in ledger.jobs() {
            let is_kept = facts
                .finished_ms
                .is_none_or(|end| end + retention_ms > latest_ms);
            let view = known.jobs.iter().find(|view| view.id == job);
            assert!(
                view.is_some() || !is_kept,
                "{job} is forgotten, and should be known"
            );
            if let Some(view) = view {
                assert_eq!(view.state.is_final(), facts.finished_ms.is_some());
            }
        }
    }

    /// A flipped bit anywhere in what the log has acknowledged must be found, and no other.
    pub(super) fn flip_bits(&mut self) {
        let open = |disk: &MemStorage| {
            let options = Options {
                segment_bytes: self.swarm.setup.segment_bytes,
                ..Options::new(LOG_DIR)
            };
            Log::open(options, Arc::new(disk.clone()), wal::ignore).map(drop)
        };
        let sound = self.node.disk.fork();
        open(&sound).unwrap_or_else(|error| panic!("a sound log is taken for damaged: {error}"));
        let files = sound.files();
        let segments: Vec<_> = files
            .iter()
            .filter(|path| path.starts_with(LOG_DIR) && path.extension().is_some())
            .collect();
        for _ in 0..4 {
            let path = *self.random.pick(&segments);
            let bytes = sound.read_file(path).unwrap();
            let length = wal::sim::used_bytes(&bytes);
            let bit = self.random.below(8 * length);
            let disk = sound.fork();
            disk.flip_bit(path, bit);
            match open(&disk) {
                Err(OpenError::Damaged(_)) => {}
                Err(error) => panic!("bit {bit} of {} is flipped: {error}", path.display()),
                Ok(()) => panic!(
                    "bit {bit} of {} is flipped in what was acknowledged, and nobody notices",
                    path.display()
                ),
            }
        }
    }
}

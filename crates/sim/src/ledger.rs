//! What is on disk, read as a contract: the rules that hold between the entries of a log.
//!
//! The one idea: the checks know the promises and nothing of how the engine keeps them. Every record that becomes durable
//! is entered here, in order, and must be allowed by those before it; what clients are told and what effects are started
//! is held against what was entered by then.

use std::collections::{BTreeMap, BTreeSet};

use runtime::entry::{Ending, Entry, NodeEntry, Outcome, Record};
use runtime::{Attempt, EffectClass, EffectId, JobId, StepIndex, Stored};
use wal::{BlobId, Lsn, Released};

/// How a program fails that panics on purpose.
pub const PANIC_ON_PURPOSE: &str = "on purpose";

/// What the log says of one job.
#[derive(Debug, Default)]
pub struct JobFacts {
    /// Where its first entry stands.
    pub first_lsn: Lsn,
    /// The name it was submitted with.
    pub name: Option<String>,
    /// All its records.
    pub records: Vec<(Lsn, Vec<u8>)>,
    /// How many signals it was sent, by name.
    pub signals: BTreeMap<String, u64>,
    /// Whether somebody asked for its end.
    pub is_cancelled: bool,
    /// When it ended, in Unix milliseconds.
    pub finished_ms: Option<u64>,
    /// Its time, in Unix milliseconds, which never goes back.
    now_ms: u64,
}

/// What is on disk.
#[derive(Debug, Default)]
pub struct Ledger {
    intents: BTreeSet<EffectId>,
    failed: BTreeSet<EffectId>,
    over: BTreeSet<(JobId, StepIndex)>,
    given_up: BTreeSet<(JobId, StepIndex)>,
    classes: BTreeMap<(JobId, StepIndex), EffectClass>,
    jobs: BTreeMap<JobId, JobFacts>,
    payloads: BTreeSet<(JobId, String)>,
    given: BTreeMap<EffectId, Vec<String>>,
    epoch: u64,
    /// The last entry says that the process has stopped.
    has_stopped: bool,
    live: usize,
    /// The most jobs there may be that are not over.
    pub live_jobs_max: Option<usize>,
    /// All jobs are tales, which fail in one way only: see [`PANIC_ON_PURPOSE`].
    pub only_tales: bool,
    /// How many segments were deleted.
    pub released: u64,
    /// How many effects were found interrupted and given up.
    pub interrupted: u64,
    /// How many checkpoints were written.
    pub checkpoints: u64,
}

impl Ledger {
    /// Takes a durable record in.
    pub fn enter(&mut self, lsn: Lsn, record: &[u8]) {
        match Record::decode(record) {
            Ok(Record::Job(job, entry)) => {
                assert!(
                    !self.has_stopped,
                    "an entry of {job} follows the marker of a clean end"
                );
                self.enter_job(lsn, record, job, entry);
            }
            Ok(Record::Node(NodeEntry::Started { epoch, .. })) => {
                assert!(epoch > self.epoch, "epoch {epoch} follows {}", self.epoch);
                self.epoch = epoch;
                self.has_stopped = false;
            }
            Ok(Record::Node(NodeEntry::Stopped { .. })) => self.has_stopped = true,
            Ok(Record::Node(NodeEntry::Continued { epoch })) => {
                assert!(!self.has_stopped && epoch == self.epoch);
            }
            // Some tests write what is no record.
            Err(_) => {}
        }
    }

    fn enter_job(&mut self, lsn: Lsn, record: &[u8], job: JobId, entry: Entry) {
        if let Entry::Submitted { spec, at_ms } = entry {
            let facts = JobFacts {
                first_lsn: lsn,
                name: spec.name,
                records: vec![(lsn, record.to_vec())],
                now_ms: at_ms,
                ..JobFacts::default()
            };
            assert!(
                self.jobs.insert(job, facts).is_none(),
                "{job} was submitted twice"
            );
            self.live += 1;
            if let Some(limit) = self.live_jobs_max {
                assert!(
                    self.live <= limit,
                    "{} jobs are live, and {limit} may be",
                    self.live
                );
            }
            return;
        }
        self.enter_effect(job, &entry);
        let Some(facts) = self.jobs.get_mut(&job) else {
            // Its beginning went with a released segment before this ledger was begun.
            return;
        };
        facts.records.push((lsn, record.to_vec()));
        assert!(
            facts.finished_ms.is_none(),
            "{job} has ended, and then: {}",
            entry.describe()
        );
        let mut pass = |at_ms: u64| {
            assert!(
                at_ms >= facts.now_ms,
                "the time of {job} goes back by {} ms: {}",
                facts.now_ms - at_ms,
                entry.describe()
            );
            facts.now_ms = at_ms;
        };
        match &entry {
            Entry::Completed { at_ms, .. } | Entry::TimerFired { at_ms, .. } => pass(*at_ms),
            Entry::Signalled {
                name,
                at_ms,
                payload,
            } => {
                pass(*at_ms);
                *facts.signals.entry(name.clone()).or_default() += 1;
                if let Stored::Inline(text) = payload {
                    self.payloads.insert((job, text.clone()));
                }
            }
            Entry::CancelRequested { at_ms, .. } => {
                pass(*at_ms);
                facts.is_cancelled = true;
            }
            Entry::Checkpoint(_) => self.checkpoints += 1,
            Entry::Finished { at_ms, ending, .. } => {
                pass(*at_ms);
                facts.finished_ms = Some(*at_ms);
                self.live -= 1;
                if self.only_tales
                    && let Ending::Failed { code, message, .. } = ending
                {
                    assert!(
                        code == "panic" && message.ends_with(PANIC_ON_PURPOSE),
                        "{job} failed as no tale does: {code}, {message}"
                    );
                }
            }
            _ => {}
        }
    }

    fn enter_effect(&mut self, job: JobId, entry: &Entry) {
        let id = |step, attempt| EffectId { job, step, attempt };
        match entry {
            Entry::Requested { step, policy, .. } => {
                self.intents.insert(id(*step, Attempt::FIRST));
                self.classes.insert((job, *step), policy.class);
            }
            Entry::Starting { step, attempt } => {
                self.intents.insert(id(*step, *attempt));
            }
            Entry::AttemptFailed { step, attempt, .. } => {
                self.failed.insert(id(*step, *attempt));
            }
            Entry::Completed {
                step,
                attempt,
                outcome,
                ..
            } => {
                assert!(
                    self.over.insert((job, *step)),
                    "{job}/{step} was over twice"
                );
                match outcome {
                    Outcome::Interrupted => {
                        self.interrupted += 1;
                        assert_eq!(
                            self.classes.get(&(job, *step)),
                            Some(&EffectClass::External),
                            "only an external effect is given up as interrupted"
                        );
                    }
                    Outcome::Ok { output, .. } => self.check_result(id(*step, *attempt), output),
                    Outcome::Failed { .. } => {}
                }
            }
            Entry::Abandoned { step } => {
                self.given_up.insert((job, *step));
            }
            _ => {}
        }
    }

    /// The world has answered a try with this result.
    pub(crate) fn give(&mut self, id: EffectId, result: &str) {
        self.given.entry(id).or_default().push(result.to_owned());
    }

    /// A program may be told only what the world has said, about this very try.
    fn check_result(&self, id: EffectId, output: &Stored) {
        let Some(given) = self.given.get(&id) else {
            // A test has completed it by its own hand.
            return;
        };
        let is_given = given.iter().any(|text| match output {
            Stored::Inline(inline) => inline == text,
            Stored::Blob { id, .. } => BlobId::of(text.as_bytes()).0 == *id,
        });
        assert!(
            is_given,
            "the journal has a result of {id} that the world never gave"
        );
    }

    /// Asserts that a try may start now.
    pub(crate) fn check_start(&self, id: EffectId, class: EffectClass) {
        if class != EffectClass::Read {
            assert!(
                self.intents.contains(&id),
                "{id} starts before its intent is durable"
            );
        }
        assert!(
            !self.over.contains(&(id.job, id.step)),
            "{id} starts although its result is in the journal"
        );
        assert!(
            !self.given_up.contains(&(id.job, id.step)),
            "{id} starts although its program has given it up"
        );
        assert!(
            !self.failed.contains(&id),
            "{id} starts although this try is known to have failed"
        );
    }

    /// Asserts that the log may lose these records: no job of theirs lives, and none was over for less than `retention`.
    pub(crate) fn check_release(&mut self, released: &Released, retention_ms: u64, now_ms: u64) {
        self.released += 1;
        let begins_there =
            |facts: &&JobFacts| (released.first_lsn..=released.last_lsn).contains(&facts.first_lsn);
        for facts in self.jobs.values().filter(begins_there) {
            let name = &facts.name;
            let Some(finished_ms) = facts.finished_ms else {
                panic!("the log lost the beginning of a job that lives: {name:?}");
            };
            assert!(
                finished_ms.saturating_add(retention_ms) <= now_ms,
                "the log lost a job {} ms after its end, and keeps it for {retention_ms}: {name:?}",
                now_ms.saturating_sub(finished_ms)
            );
        }
    }

    /// What is known of a job.
    #[must_use]
    pub fn job(&self, job: JobId) -> Option<&JobFacts> {
        self.jobs.get(&job)
    }

    /// All jobs there ever were.
    pub fn jobs(&self) -> impl Iterator<Item = (JobId, &JobFacts)> {
        self.jobs.iter().map(|(job, facts)| (*job, facts))
    }

    /// Whether a job is on disk.
    #[must_use]
    pub fn has(&self, job: JobId) -> bool {
        self.jobs.contains_key(&job)
    }

    /// Whether a job is over.
    #[must_use]
    pub fn is_over(&self, job: JobId) -> bool {
        self.job(job)
            .is_some_and(|facts| facts.finished_ms.is_some())
    }

    /// Whether a job was sent this, as JSON text.
    #[must_use]
    pub fn has_signal(&self, job: JobId, payload: &str) -> bool {
        self.payloads.contains(&(job, payload.to_owned()))
    }

    /// Whether the last entry is the marker of a clean end.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.has_stopped
    }
}

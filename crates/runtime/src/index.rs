//! The jobs that are over, and the idempotency keys of all.
//!
//! A projection of the log: rebuilt from it at every start, and forgotten with the segments that hold it.

use std::collections::{BTreeMap, HashMap};

use wal::Lsn;

use crate::entry::{Ending, StoredSpec};
use crate::ids::JobId;
use crate::job::JobView;
use crate::jobs::JobFilter;
use crate::spec::{Fingerprint, JobState};

/// A job that is over.
#[derive(Clone, Debug)]
pub(crate) struct FinishedJob {
    pub(crate) id: JobId,
    pub(crate) spec: FinishedSpec,
    pub(crate) state: JobState,
    pub(crate) error: Option<Box<str>>,
    pub(crate) submitted_ms: u64,
    pub(crate) finished_ms: u64,
    pub(crate) first_lsn: Lsn,
    pub(crate) last_lsn: Lsn,
}

/// What is kept of a specification once its job is over: not the input, which may be large.
#[derive(Clone, Debug)]
pub(crate) struct FinishedSpec {
    program: Box<str>,
    name: Option<Box<str>>,
    key: Option<Box<str>>,
    labels: Box<[(String, String)]>,
    priority: crate::spec::JobPriority,
}

impl From<StoredSpec> for FinishedSpec {
    fn from(spec: StoredSpec) -> Self {
        Self {
            program: spec.program.into(),
            name: spec.name.map(Into::into),
            key: spec.key.map(Into::into),
            labels: spec.labels.into(),
            priority: spec.priority,
        }
    }
}

impl FinishedJob {
    pub(crate) fn new(
        id: JobId,
        spec: StoredSpec,
        submitted_ms: u64,
        finished_ms: u64,
        ending: &Ending,
        (first_lsn, last_lsn): (Lsn, Lsn),
    ) -> Self {
        let (state, error) = ending.shown();
        Self {
            id,
            spec: spec.into(),
            state: state.into(),
            error: error.map(Into::into),
            submitted_ms,
            finished_ms,
            first_lsn,
            last_lsn,
        }
    }

    /// Whether a filter is meant for it. Looked at before a view is made: there may be a hundred thousand of them.
    pub(crate) fn matches(&self, filter: &JobFilter) -> bool {
        let labels = &self.spec.labels;
        let label = |wanted: &str| {
            let found = labels.iter().find(|(label, _)| label == wanted);
            found.map(|(_, value)| value.as_str())
        };
        filter.fits(self.id, self.state, self.spec.name.as_deref(), label)
    }

    pub(crate) fn view(&self) -> JobView {
        JobView {
            id: self.id,
            name: self.spec.name.as_deref().map(str::to_owned),
            program: self.spec.program.clone().into(),
            state: self.state,
            waits_for: None,
            priority: self.spec.priority,
            labels: self.spec.labels.iter().cloned().collect(),
            submitted_ms: self.submitted_ms,
            finished_ms: Some(self.finished_ms),
            steps: Vec::new(),
            error: self.error.as_deref().map(str::to_owned),
            first_lsn: Some(self.first_lsn),
            last_lsn: Some(self.last_lsn),
        }
    }
}

/// Finished jobs by id, which is by time of submission, and all jobs by key.
#[derive(Debug, Default)]
pub(crate) struct JobIndex {
    /// Boxed, since the map moves what it holds whenever one comes between others.
    finished: BTreeMap<JobId, Box<FinishedJob>>,
    by_end: BTreeMap<Lsn, JobId>,
    by_key: HashMap<Box<str>, (JobId, Fingerprint)>,
}

impl JobIndex {
    pub(crate) fn key(&self, key: &str) -> Option<(JobId, Fingerprint)> {
        self.by_key.get(key).copied()
    }

    pub(crate) fn insert_key(&mut self, key: &str, job: JobId, fingerprint: Fingerprint) {
        self.by_key.insert(key.into(), (job, fingerprint));
    }

    pub(crate) fn insert(&mut self, job: FinishedJob) {
        self.by_end.insert(job.last_lsn, job.id);
        self.finished.insert(job.id, Box::new(job));
    }

    pub(crate) fn get(&self, id: JobId) -> Option<&FinishedJob> {
        self.finished.get(&id).map(Box::as_ref)
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &FinishedJob> {
        self.finished.values().map(Box::as_ref)
    }

    pub(crate) fn len(&self) -> usize {
        self.finished.len()
    }

    /// Where the oldest of the jobs begins that were over only after this time.
    pub(crate) fn first_of_those_over_after(&self, unix_ms: u64) -> Option<Lsn> {
        self.finished
            .values()
            .filter(|job| job.finished_ms > unix_ms)
            .map(|job| job.first_lsn)
            .min()
    }

    /// Forgets the jobs that begin below `first`: the log no longer has them whole, and a restart would not find them.
    pub(crate) fn forget_below(&mut self, first: Lsn) {
        let gone: Vec<_> = self
            .finished
            .values()
            .filter(|job| job.first_lsn < first)
            .map(|job| (job.id, job.last_lsn))
            .collect();
        for (id, last_lsn) in gone {
            self.by_end.remove(&last_lsn);
            self.forget(id);
        }
    }

    /// Forgets the jobs that ended first until at most `kept` are left.
    pub(crate) fn forget_beyond(&mut self, kept: usize) {
        while self.finished.len() > kept {
            let Some((_, id)) = self.by_end.pop_first() else {
                break;
            };
            self.forget(id);
        }
    }

    fn forget(&mut self, id: JobId) {
        if let Some(job) = self.finished.remove(&id)
            && let Some(key) = job.spec.key
            && self.by_key.get(&key).is_some_and(|(owner, _)| *owner == id)
        {
            self.by_key.remove(&key);
        }
    }
}

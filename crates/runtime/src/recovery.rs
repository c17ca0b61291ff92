//! What the log says, gathered at the start: the journals of live jobs, and an index of those that are over.

use std::collections::{BTreeMap, HashMap, VecDeque};

use wal::Lsn;

use crate::cell::Recorded;
use crate::entry::{Checkpoint, Entry, JournalHash, NodeEntry, Record, StoredSpec};
use crate::error::RecoverError;
use crate::ids::JobId;
use crate::index::{FinishedJob, JobIndex};

/// Gathers what the log says, record by record, in the log's order.
#[derive(Debug, Default)]
pub struct Recovery {
    /// Looked up once a record. The order of jobs comes in when they are taken up.
    pub(crate) journals: HashMap<JobId, Journal>,
    pub(crate) index: JobIndex,
    pub(crate) blob_names: HashMap<[u8; 32], Lsn>,
    pub(crate) epoch: u64,
    first: Option<Lsn>,
    stopped_cleanly: bool,
    /// Jobs whose beginning went with a released segment. They must turn out to be over.
    beheaded: BTreeMap<JobId, (Lsn, String)>,
}

/// The journal of a live job, as far as recovery needs it.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) spec: StoredSpec,
    pub(crate) submitted_ms: u64,
    pub(crate) first_lsn: Lsn,
    pub(crate) first: Box<[u8]>,
    pub(crate) checkpoint: Option<(Checkpoint, JournalHash)>,
    /// All that follows the submission or the last checkpoint.
    pub(crate) rest: VecDeque<Recorded>,
}

impl Journal {
    /// How many entries there are to follow, the first included.
    pub(crate) fn entries(&self) -> u64 {
        self.rest.len() as u64 + 1
    }

    fn hash(&self) -> JournalHash {
        let begun = match &self.checkpoint {
            Some((_, hash)) => *hash,
            None => JournalHash::default().then(&self.first),
        };
        self.rest
            .iter()
            .fold(begun, |hash, recorded| hash.then(&recorded.bytes))
    }
}

impl Recovery {
    /// Nothing read yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            stopped_cleanly: true,
            ..Self::default()
        }
    }

    /// Takes in the next record.
    ///
    /// # Errors
    ///
    /// If it cannot be read, or cannot follow those before it.
    pub fn take_in(&mut self, lsn: Lsn, bytes: &[u8]) -> Result<(), RecoverError> {
        let record =
            Record::decode(bytes).map_err(|source| RecoverError::Decode { lsn, source })?;
        self.first.get_or_insert(lsn);
        match record {
            Record::Node(NodeEntry::Started { epoch, .. }) => {
                self.epoch = self.epoch.max(epoch);
                self.stopped_cleanly = false;
            }
            Record::Node(NodeEntry::Continued { epoch }) => self.epoch = self.epoch.max(epoch),
            Record::Node(NodeEntry::Stopped { .. }) => self.stopped_cleanly = true,
            Record::Job(job, entry) => {
                entry.visit_blobs(|blob| {
                    self.blob_names.insert(blob, lsn);
                });
                self.take_in_entry(lsn, job, entry, bytes)?;
            }
        }
        Ok(())
    }

    fn take_in_entry(
        &mut self,
        lsn: Lsn,
        job: JobId,
        entry: Entry,
        bytes: &[u8],
    ) -> Result<(), RecoverError> {
        if let Entry::Submitted { at_ms, spec } = entry {
            #[cfg(planted)]
            let spec = StoredSpec {
                key: spec.key.filter(|_| !wal::planted::is("key-forgotten")),
                ..spec
            };
            if let Some(key) = &spec.key {
                self.index.insert_key(key, job, spec.fingerprint);
            }
            let journal = Journal {
                spec,
                submitted_ms: at_ms,
                first_lsn: lsn,
                first: bytes.into(),
                checkpoint: None,
                rest: VecDeque::new(),
            };
            self.journals.insert(job, journal);
            return Ok(());
        }
        let Some(journal) = self.journals.get_mut(&job) else {
            return self.take_in_beheaded(lsn, job, &entry);
        };
        match entry {
            Entry::Finished { at_ms, ending, .. } => {
                let Some(journal) = self.journals.remove(&job) else {
                    return Ok(());
                };
                self.index.insert(FinishedJob::new(
                    job,
                    journal.spec,
                    journal.submitted_ms,
                    at_ms,
                    &ending,
                    (journal.first_lsn, lsn),
                ));
            }
            Entry::Checkpoint(checkpoint) => {
                let hash = journal.hash().then(bytes);
                journal.checkpoint = Some((*checkpoint, hash));
                journal.rest.clear();
            }
            _ => journal.rest.push_back(Recorded {
                lsn,
                bytes: bytes.into(),
            }),
        }
        Ok(())
    }

    fn take_in_beheaded(
        &mut self,
        lsn: Lsn,
        job: JobId,
        entry: &Entry,
    ) -> Result<(), RecoverError> {
        if self.first == Some(Lsn::FIRST) {
            return Err(RecoverError::Orphan {
                lsn,
                job,
                what: entry.describe(),
            });
        }
        if let Entry::Finished { .. } = entry {
            self.beheaded.remove(&job);
        } else {
            self.beheaded
                .entry(job)
                .or_insert_with(|| (lsn, entry.describe()));
        }
        Ok(())
    }

    /// Ends the gathering.
    ///
    /// # Errors
    ///
    /// If the log lacks the beginning of a job that is not over.
    pub fn finish(self) -> Result<Self, RecoverError> {
        if let Some((job, (lsn, what))) = self.beheaded.first_key_value() {
            return Err(RecoverError::Orphan {
                lsn: *lsn,
                job: *job,
                what: what.clone(),
            });
        }
        Ok(self)
    }

    /// How many jobs are not over.
    #[must_use]
    pub fn live_jobs(&self) -> usize {
        self.journals.len()
    }

    /// Whether a job is there and not over.
    #[must_use]
    pub fn is_live(&self, job: JobId) -> bool {
        self.journals.contains_key(&job)
    }

    /// How many jobs are over and still known.
    #[must_use]
    pub fn finished_jobs(&self) -> usize {
        self.index.len()
    }

    /// Whether a live job may have left an effect running: the last life of the process did not end as it should.
    #[must_use]
    pub fn may_have_leftovers(&self) -> bool {
        !self.stopped_cleanly
    }
}

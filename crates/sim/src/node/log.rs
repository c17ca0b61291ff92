//! What a node's log holds, for whoever looks.

use std::sync::Arc;

use runtime::entry::{Entry, Record};
use runtime::{JobId, Payloads, Recorded, ReplayError, Replayed};
use wal::{BlobStore, Lsn, Storage};

use super::{BLOB_DIR, LOG_DIR, Node};

impl Node {
    /// Everything in the log.
    pub fn records(&self) -> Vec<(Lsn, Vec<u8>)> {
        wal::Reader::open(LOG_DIR, Arc::new(self.disk.clone()), Lsn::FIRST)
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }

    /// Makes sure that every blob is there that an entry names.
    pub fn assert_blobs_are_there(&self) {
        let blobs = BlobStore::open(BLOB_DIR, Arc::new(self.disk.clone())).unwrap();
        for (lsn, bytes) in self.records() {
            if let Ok(Record::Job(_, entry)) = Record::decode(&bytes) {
                entry.visit_blobs(|id| {
                    let path = blobs.path_of(wal::BlobId(id));
                    assert!(
                        self.disk.read_file(&path).is_some(),
                        "LSN {lsn} names a blob that is not there"
                    );
                });
            }
        }
    }

    /// The journal of a job.
    pub fn recorded(&self, job: JobId) -> Vec<Recorded> {
        let storage = Arc::new(self.disk.clone());
        runtime::read_journal(LOG_DIR.as_ref(), storage, job).unwrap()
    }

    /// The journal of a job, read.
    pub fn journal(&self, job: JobId) -> Vec<Entry> {
        let recorded = self.recorded(job);
        recorded.iter().map(|r| r.entry().unwrap()).collect()
    }

    /// The journal of a job in words, without its first entry and without hashes.
    pub fn story(&self, job: JobId) -> Vec<String> {
        let journal = self.journal(job);
        let words = journal.iter().skip(1).map(Entry::describe);
        words
            .map(|words| match words.split_once(" (sha256") {
                Some((before, _)) => before.to_owned(),
                None => words,
            })
            .collect()
    }

    /// The entries of the node itself, in words.
    pub fn node_story(&self) -> Vec<String> {
        self.records()
            .iter()
            .filter_map(|(_, bytes)| match Record::decode(bytes).unwrap() {
                Record::Node(entry) => Some(format!("{entry:?}")),
                Record::Job(..) => None,
            })
            .collect()
    }

    /// Replays a job with this node's programs.
    pub fn replay(&self, job: JobId) -> Result<Replayed, ReplayError> {
        let storage: Arc<dyn Storage> = Arc::new(self.disk.clone());
        let blobs = Arc::new(BlobStore::open(BLOB_DIR, storage).unwrap());
        let payloads = Arc::new(Payloads::new(blobs, self.setup.threshold_bytes));
        runtime::replay(&self.programs, &payloads, job, self.recorded(job))
    }

    /// Replays a job that is over, and makes sure of its hash.
    pub fn assert_replays(&self, job: JobId) {
        let replayed = self.replay(job).unwrap_or_else(|e| panic!("{job}: {e}"));
        match self.journal(job).last() {
            Some(Entry::Finished {
                ending, journal, ..
            }) => {
                assert_eq!(replayed.hash, *journal);
                assert_eq!(replayed.ending.as_ref(), Some(ending));
            }
            other => panic!("{job} is not over: {other:?}"),
        }
    }
}

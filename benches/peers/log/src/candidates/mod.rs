//! What is compared. Each candidate is set up as its own documents say for a log of records, and with
//! [`Durability::Synced`] waits for `fdatasync` before it answers; each module says how that was
//! checked.
//!
//! The one idea: a store is the list of its appenders. They share what they must, each can go to a
//! thread of its own, and the store is closed when all are dropped.

mod fjall;
mod limit;
mod okaywal;
mod ours;
mod raft_engine;
mod redb;
mod sqlite;

use std::path::Path;

/// How many records are loaded at once where each batch is synced.
const LOAD_BATCH_SYNCED: usize = 1_000;

/// Puts records into a store.
pub trait Appender: Send {
    /// Appends `count` copies of `record` as one unit (a batch, a transaction) and returns when they
    /// are as durable as was asked for.
    fn append(&mut self, record: &[u8], count: usize);
}

/// What is asked of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// An append returns after the sync of its records.
    Synced,
    /// The same, and everything that was ever appended can be read again.
    SyncedAndKept,
    /// An append returns when its records are with the operating system or, where the store has such a
    /// mode, in its own memory. They can be read again.
    Unsynced,
}

/// A store to be measured.
pub trait Candidate: Sync {
    /// What the tables call it.
    fn name(&self) -> &'static str;

    /// Makes a store in the empty directory `dir` with so many appenders; `None` if it cannot be had
    /// with this durability or this number.
    fn open(
        &self,
        dir: &Path,
        durability: Durability,
        appenders: usize,
    ) -> Option<Vec<Box<dyn Appender>>>;

    /// Fills a new store in the empty directory `dir` with `total` copies of `record`, `batch` at a time,
    /// and closes it: with no more syncs than the store insists on.
    fn load(&self, dir: &Path, record: &[u8], total: usize, batch: usize) {
        let unsynced = self.open(dir, Durability::Unsynced, 1);
        // How large its batches are is the smaller sin than to sync each.
        let batch = if unsynced.is_some() {
            batch
        } else {
            LOAD_BATCH_SYNCED
        };
        let mut appenders = unsynced
            .or_else(|| self.open(dir, Durability::SyncedAndKept, 1))
            .expect("every store can be written to");
        let mut left = total;
        while left > 0 {
            let count = left.min(batch);
            appenders[0].append(record, count);
            left -= count;
        }
    }

    /// Opens the closed store in `dir` and looks at every record; returns how many there were. `None`
    /// if there is no such thing.
    fn scan(&self, dir: &Path) -> Option<u64>;
}

/// The limit, on a file that was never written to.
pub const BARE: &dyn Candidate = &limit::RESERVED;
/// The limit, on a file that was filled with zeros.
pub const BARE_WRITTEN: &dyn Candidate = &limit::WRITTEN;
/// Our log without a thread of its own.
pub const LOG: &dyn Candidate = &ours::DirectLog;
/// Our log behind its writer.
pub const WRITER: &dyn Candidate = &ours::ThroughWriter;
/// The others.
pub const PEERS: [&dyn Candidate; 5] = [
    &raft_engine::RaftEngine,
    &okaywal::OkayWal,
    &sqlite::Sqlite,
    &fjall::Fjall,
    &redb::Redb,
];

/// All of them, in the order of the tables.
pub fn all() -> impl Iterator<Item = &'static dyn Candidate> {
    [BARE, BARE_WRITTEN, LOG, WRITER].into_iter().chain(PEERS)
}

//! [fjall](https://github.com/fjall-rs/fjall) 3.1.13, an LSM tree with a journal.
//!
//! A batch with `PersistMode::SyncData` is committed by an `fdatasync` of the journal, under the journal's
//! lock (`batch/mod.rs`, `journal/writer.rs`). `strace -c -f` counts one for each batch.
//!
//! Compression is off: the records are random bytes.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use fjall::config::CompressionPolicy;
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{Appender, Candidate, Durability};

#[derive(Debug)]
pub struct Fjall;

fn open(dir: &Path) -> (Database, Keyspace) {
    let db = Database::builder(dir)
        .journal_compression(CompressionType::None)
        .open()
        .expect("a database");
    let options = || {
        KeyspaceCreateOptions::default()
            .data_block_compression_policy(CompressionPolicy::disabled())
    };
    let records = db.keyspace("records", options).expect("a keyspace");
    (db, records)
}

impl Candidate for Fjall {
    fn name(&self) -> &'static str {
        "fjall"
    }

    fn open(
        &self,
        dir: &Path,
        durability: Durability,
        appenders: usize,
    ) -> Option<Vec<Box<dyn Appender>>> {
        let (db, records) = open(dir);
        let mode = match durability {
            Durability::Synced | Durability::SyncedAndKept => PersistMode::SyncData,
            Durability::Unsynced => PersistMode::Buffer,
        };
        let next_key = Arc::new(AtomicU64::new(0));
        let appenders = (0..appenders).map(|_| {
            Box::new(BatchAppender {
                db: db.clone(),
                records: records.clone(),
                mode,
                next_key: next_key.clone(),
            }) as Box<dyn Appender>
        });
        Some(appenders.collect())
    }

    fn scan(&self, dir: &Path) -> Option<u64> {
        let (_db, records) = open(dir);
        let mut count = 0;
        for record in records.iter() {
            black_box(record.into_inner().expect("a record"));
            count += 1;
        }
        Some(count)
    }
}

struct BatchAppender {
    db: Database,
    records: Keyspace,
    mode: PersistMode,
    next_key: Arc<AtomicU64>,
}

impl Appender for BatchAppender {
    fn append(&mut self, record: &[u8], count: usize) {
        let first = self.next_key.fetch_add(count as u64, Ordering::Relaxed);
        let mut batch = self.db.batch().durability(Some(self.mode));
        for key in first..first + count as u64 {
            batch.insert(&self.records, key.to_be_bytes(), record);
        }
        batch.commit().expect("a commit");
    }
}

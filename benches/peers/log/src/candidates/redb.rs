//! [redb](https://github.com/cberner/redb) 4.6.0, a B-tree with copy on write.
//!
//! A commit with `Durability::Immediate`, the default, returns after an `fdatasync` of the file
//! (`tree_store/page_store/cached_file.rs`). `strace -c -f` counts one for each transaction.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Appender, Candidate, Durability};

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
const FILE_NAME: &str = "records.redb";

#[derive(Debug)]
pub struct Redb;

impl Candidate for Redb {
    fn name(&self) -> &'static str {
        "redb"
    }

    fn open(
        &self,
        dir: &Path,
        durability: Durability,
        appenders: usize,
    ) -> Option<Vec<Box<dyn Appender>>> {
        let db = Arc::new(Database::create(dir.join(FILE_NAME)).expect("a database"));
        let durability = match durability {
            Durability::Synced | Durability::SyncedAndKept => redb::Durability::Immediate,
            Durability::Unsynced => redb::Durability::None,
        };
        let next_key = Arc::new(AtomicU64::new(0));
        let appenders = (0..appenders).map(|_| {
            Box::new(TableAppender {
                db: db.clone(),
                durability,
                next_key: next_key.clone(),
            }) as Box<dyn Appender>
        });
        Some(appenders.collect())
    }

    fn scan(&self, dir: &Path) -> Option<u64> {
        let db = Database::open(dir.join(FILE_NAME)).expect("a database");
        let read = db.begin_read().expect("a transaction");
        let table = read.open_table(RECORDS).expect("the table");
        let mut count = 0;
        for record in table.iter().expect("the records") {
            let (_, body) = record.expect("a record");
            black_box(body.value());
            count += 1;
        }
        Some(count)
    }
}

struct TableAppender {
    db: Arc<Database>,
    durability: redb::Durability,
    next_key: Arc<AtomicU64>,
}

impl Appender for TableAppender {
    fn append(&mut self, record: &[u8], count: usize) {
        let first = self.next_key.fetch_add(count as u64, Ordering::Relaxed);
        let mut write = self.db.begin_write().expect("a transaction");
        write
            .set_durability(self.durability)
            .expect("no savepoint is in the way");
        {
            let mut table = write.open_table(RECORDS).expect("the table");
            for key in first..first + count as u64 {
                table.insert(key, record).expect("an insert");
            }
        }
        write.commit().expect("a commit");
    }
}

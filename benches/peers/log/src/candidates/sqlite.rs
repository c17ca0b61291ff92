//! [SQLite](https://sqlite.org) as bundled with [rusqlite](https://github.com/rusqlite/rusqlite) 0.43.0.
//!
//! `journal_mode=WAL` and `synchronous=FULL`: a commit returns after a sync of the WAL file
//! (<https://sqlite.org/pragma.html#pragma_synchronous>). `strace -c -f` counts one for each
//! transaction of a lone appender, and those of the checkpoints.
//!
//! All appenders share one connection behind a lock: a connection each would meet at SQLite's own lock,
//! where the losers sleep and try again, which is far slower.

use std::hint::black_box;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rusqlite::Connection;

use super::{Appender, Candidate, Durability};

#[derive(Debug)]
pub struct Sqlite;

fn open(dir: &Path, durability: Durability) -> Connection {
    let db = Connection::open(dir.join("records.sqlite")).expect("a database");
    let synchronous = match durability {
        Durability::Synced | Durability::SyncedAndKept => "FULL",
        Durability::Unsynced => "OFF",
    };
    db.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map(|mode: String| assert_eq!(mode, "wal"))
        .expect("the mode");
    db.pragma_update(None, "synchronous", synchronous)
        .expect("the mode");
    db.execute_batch("CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY, body BLOB)")
        .expect("a table");
    db
}

impl Candidate for Sqlite {
    fn name(&self) -> &'static str {
        "SQLite"
    }

    fn open(
        &self,
        dir: &Path,
        durability: Durability,
        appenders: usize,
    ) -> Option<Vec<Box<dyn Appender>>> {
        let db = Arc::new(Mutex::new(open(dir, durability)));
        let appenders = (0..appenders).map(|_| {
            let db = db.clone();
            Box::new(RowAppender { db }) as Box<dyn Appender>
        });
        Some(appenders.collect())
    }

    fn scan(&self, dir: &Path) -> Option<u64> {
        let db = open(dir, Durability::Unsynced);
        let mut select = db
            .prepare("SELECT id, body FROM records ORDER BY id")
            .expect("a query");
        let mut rows = select.query(()).expect("rows");
        let mut count = 0;
        while let Some(row) = rows.next().expect("a row") {
            let body = row.get_ref(1).expect("a body");
            black_box(body.as_blob().expect("a blob"));
            count += 1;
        }
        Some(count)
    }
}

struct RowAppender {
    db: Arc<Mutex<Connection>>,
}

impl Appender for RowAppender {
    fn append(&mut self, record: &[u8], count: usize) {
        let mut db = self.db.lock().expect("nobody panics with the lock");
        let transaction = db.transaction().expect("a transaction");
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO records (body) VALUES (?1)")
                .expect("a statement");
            for _ in 0..count {
                insert.execute([record]).expect("an insert");
            }
        }
        transaction.commit().expect("a commit");
    }
}

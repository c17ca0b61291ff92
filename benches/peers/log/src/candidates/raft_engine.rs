//! [raft-engine](https://github.com/tikv/raft-engine) 0.4.2, TiKV's log of Raft entries.
//!
//! A write with `sync` returns after an `fdatasync` of the log file: the leader of a group of writers does
//! it for all (`engine.rs`, `Engine::write`; `env/log_fd/unix.rs`). `strace -c -f` counts one for each
//! write of a lone appender.
//!
//! Each appender has a Raft group of its own, as in TiKV. Compression is off: the records are random
//! bytes. Files are recycled only after a purge, which nobody asks for here.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;

use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};

use super::{Appender, Candidate, Durability};

/// How many entries are fetched at once when all are read.
const FETCH: u64 = 4096;

#[derive(Debug)]
pub struct RaftEngine;

/// Entries that are plain bytes, the index in the first eight of them: the engine asks for a protobuf
/// message that knows its index.
struct Entries;

impl MessageExt for Entries {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        let index = entry.value[..8].try_into().expect("eight bytes");
        u64::from_le_bytes(index)
    }
}

fn open(dir: &Path) -> Engine {
    Engine::open(Config {
        dir: dir.to_str().expect("a path in UTF-8").to_owned(),
        batch_compression_threshold: ReadableSize(0),
        ..Config::default()
    })
    .expect("an engine")
}

impl Candidate for RaftEngine {
    fn name(&self) -> &'static str {
        "raft-engine"
    }

    fn open(
        &self,
        dir: &Path,
        durability: Durability,
        appenders: usize,
    ) -> Option<Vec<Box<dyn Appender>>> {
        let engine = Arc::new(open(dir));
        let appenders = (1..=appenders as u64).map(|group| {
            Box::new(GroupAppender {
                engine: engine.clone(),
                sync: durability != Durability::Unsynced,
                group,
                next_index: 1,
                entries: Vec::new(),
                batch: LogBatch::default(),
            }) as Box<dyn Appender>
        });
        Some(appenders.collect())
    }

    fn scan(&self, dir: &Path) -> Option<u64> {
        let engine = open(dir);
        let mut count = 0;
        let mut entries = Vec::new();
        for group in engine.raft_groups() {
            let first = engine.first_index(group).expect("a group with entries");
            let end = engine.last_index(group).expect("a group with entries") + 1;
            for begin in (first..end).step_by(FETCH as usize) {
                entries.clear();
                let end = end.min(begin + FETCH);
                engine
                    .fetch_entries_to::<Entries>(group, begin, end, None, &mut entries)
                    .expect("entries");
                count += black_box(&entries).len() as u64;
            }
        }
        Some(count)
    }
}

struct GroupAppender {
    engine: Arc<Engine>,
    sync: bool,
    group: u64,
    next_index: u64,
    entries: Vec<BytesValue>,
    batch: LogBatch,
}

impl Appender for GroupAppender {
    fn append(&mut self, record: &[u8], count: usize) {
        self.entries.resize_with(count, BytesValue::new);
        for entry in &mut self.entries {
            entry.value.clear();
            entry.value.extend_from_slice(record);
            entry.value[..8].copy_from_slice(&self.next_index.to_le_bytes());
            self.next_index += 1;
        }
        self.batch
            .add_entries::<Entries>(self.group, &self.entries)
            .expect("room in the batch");
        self.engine
            .write(&mut self.batch, self.sync)
            .expect("a write");
    }
}

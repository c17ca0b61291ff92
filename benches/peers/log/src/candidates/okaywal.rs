//! [okaywal](https://github.com/khonsulabs/okaywal) 0.3.1.
//!
//! `commit` returns after a `fdatasync` that covers the entry, done by one committer for all that wait
//! (`log_file.rs`, `synchronize_locked`); there is no other mode. `strace -c -f` counts one for each
//! entry of a lone appender.
//!
//! Its segments are filled with zeros when they are made and used again after a checkpoint, so most
//! of its writes overwrite blocks: what the limit calls "overwriting". Segments are of 16 MiB instead
//! of 1 MiB, which spares it checkpoints.

use std::hint::black_box;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use okaywal::{
    Configuration, Entry, EntryId, LogManager, LogVoid, ReadChunkResult, SegmentReader,
    WriteAheadLog,
};

use super::{Appender, Candidate, Durability};

const SEGMENT_BYTES: u32 = 16 << 20;
const CHECKPOINT_BYTES: u64 = 15 << 20;

#[derive(Debug)]
pub struct OkayWal;

fn configuration(dir: &Path, kept: bool) -> Configuration {
    let checkpoint = if kept { u64::MAX } else { CHECKPOINT_BYTES };
    Configuration::default_for(dir)
        .preallocate_bytes(SEGMENT_BYTES)
        .checkpoint_after_bytes(checkpoint)
}

impl Candidate for OkayWal {
    fn name(&self) -> &'static str {
        "okaywal"
    }

    fn open(
        &self,
        dir: &Path,
        durability: Durability,
        appenders: usize,
    ) -> Option<Vec<Box<dyn Appender>>> {
        if durability == Durability::Unsynced {
            return None;
        }
        let kept = durability == Durability::SyncedAndKept;
        let log = configuration(dir, kept).open(LogVoid).expect("a log");
        let appenders = (0..appenders).map(|_| {
            let log = log.clone();
            Box::new(EntryAppender { log }) as Box<dyn Appender>
        });
        Some(appenders.collect())
    }

    fn scan(&self, dir: &Path) -> Option<u64> {
        let count = Arc::new(AtomicU64::new(0));
        let log = configuration(dir, true)
            .open(Counting(count.clone()))
            .expect("a sound log");
        log.shutdown().expect("a clean end");
        Some(count.load(Ordering::Relaxed))
    }
}

struct EntryAppender {
    log: WriteAheadLog,
}

impl Appender for EntryAppender {
    fn append(&mut self, record: &[u8], count: usize) {
        let mut entry = self.log.begin_entry().expect("an entry");
        for _ in 0..count {
            entry.write_chunk(record).expect("a chunk");
        }
        entry.commit().expect("a commit");
    }
}

/// Looks at every record that recovery finds, checksum included, as our own recovery does.
#[derive(Debug)]
struct Counting(Arc<AtomicU64>);

impl LogManager for Counting {
    fn recover(&mut self, entry: &mut Entry<'_>) -> io::Result<()> {
        while let ReadChunkResult::Chunk(mut chunk) = entry.read_chunk()? {
            black_box(chunk.read_all()?);
            assert!(chunk.check_crc()?, "the chunk is sound");
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn checkpoint_to(
        &mut self,
        _: EntryId,
        _: &mut SegmentReader,
        _: &WriteAheadLog,
    ) -> io::Result<()> {
        Ok(())
    }
}

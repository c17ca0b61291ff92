//! [`Log`]: the open log, and the only thing that writes to it.
//!
//! The one idea: a batch becomes one frame, one `pwrite` and, with [`SyncPolicy::Always`], one
//! `fdatasync`; everything else (segments, space, retention) happens around that and never on the way.
//!
//! Invariants:
//! - what `append` has returned is durable, or will be as soon as the policy says;
//! - a failed write or sync is the last thing the log does: nothing is tried again, nothing
//!   appended, until it has been opened anew and has looked at what is really there;
//! - running out of space is not a failure: it shows only where the next segment is made, before
//!   anything was written;
//! - what is not durable reaches no further than `REACH_BYTES` behind what is, unless a durable frame of the segment says
//!   that it may: recovery need not look further.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::Lsn;
use crate::batch::Batch;
use crate::error::{AppendError, Failure, OpenError};
use crate::format::{
    FIRST_FORMAT, FORMAT_VERSION, Life, LogId, SECTOR_BYTES, SEGMENT_HEADER_BYTES, SegmentHeader,
};
use crate::frame::{FrameSpec, REACH_BYTES, encode_frame, frame_end};
use crate::options::{Options, SyncPolicy};
use crate::recovery::{self, Recovered, Sealed};
use crate::segment::{self, LOCK_FILE_NAME, MakeError, SPARE_FILE_NAMES, Segment, Spare};
use crate::stats::Stats;
use crate::storage::{Access, Lock, LockGuard, Storage};

/// A log that is open for appending.
///
/// ```
/// use std::sync::Arc;
/// use wal::{Batch, Log, Lsn, Options, sim::MemStorage};
///
/// let disk = Arc::new(MemStorage::new(1));
/// let (mut log, _) = Log::open(Options::new("/log"), disk.clone(), wal::ignore)?;
/// let mut batch = Batch::new();
/// batch.push(b"hello");
/// assert_eq!(log.append(&[&batch])?, Lsn(1)..Lsn(2));
/// drop(log);
/// disk.crash();
///
/// let mut found = Vec::new();
/// Log::open(Options::new("/log"), disk, |lsn, record| {
///     found.push((lsn, record.to_vec()));
///     Ok::<(), std::convert::Infallible>(())
/// })?;
/// assert_eq!(found, [(Lsn(1), b"hello".to_vec())]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Log {
    storage: Arc<dyn Storage>,
    options: Options,
    log_id: LogId,
    payload_limit: usize,
    active: Segment,
    /// The active segment's.
    life: Life,
    /// Where the next frame goes in the active segment.
    offset: u64,
    /// Up to where all of the active segment is durable.
    synced_offset: u64,
    /// Whether a frame of the active segment says that what is not durable may reach far.
    relaxed: Relaxed,
    sealed: VecDeque<Sealed>,
    spare: Option<Spare>,
    /// A released segment that will be a spare, by the name it has.
    kept: Option<&'static str>,
    space_low: bool,
    next_lsn: Lsn,
    synced_lsn: Lsn,
    /// When the last sync was, on the storage's clock.
    synced_at: Duration,
    /// The payload checksum of the last frame.
    chain: u32,
    /// The frame being written; kept for its room.
    frame: Vec<u8>,
    failure: Option<Failure>,
    stats: Stats,
    _lock: Box<dyn LockGuard>,
}

/// Whether the active segment has a frame that is `is_relaxed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Relaxed {
    No,
    Written,
    Durable,
}

/// A segment that is no part of the log any more because nobody needed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// The file it was.
    pub path: PathBuf,
    /// Its first record.
    pub first_lsn: Lsn,
    /// Its last record.
    pub last_lsn: Lsn,
    /// Its size in bytes.
    pub bytes: u64,
}

/// A visitor for [`Log::open`] that takes no notice of the records.
///
/// # Errors
/// None.
pub fn ignore(_: Lsn, _: &[u8]) -> Result<(), std::convert::Infallible> {
    Ok(())
}

impl Log {
    /// Opens the log in `options.dir`, making a new one if there is none, and hands every record
    /// that is kept to `visitor`, in order. What the visitor was given is durable once this
    /// returns.
    ///
    /// # Errors
    /// See [`OpenError`]. Damage and a newer format leave the log as it was.
    pub fn open<E>(
        options: Options,
        storage: Arc<dyn Storage>,
        visitor: impl FnMut(Lsn, &[u8]) -> Result<(), E>,
    ) -> Result<(Log, Recovered), OpenError<E>> {
        options
            .check()
            .map_err(|what| OpenError::Invalid { what })?;
        let dir = &options.dir;
        storage
            .create_dir_all(dir)
            .map_err(|error| OpenError::io("create", dir, error))?;
        let lock_path = dir.join(LOCK_FILE_NAME);
        let lock = match storage.lock(&lock_path) {
            Ok(Lock::Held(guard)) => guard,
            Ok(Lock::Taken { pid }) => {
                return Err(OpenError::Locked {
                    dir: dir.clone(),
                    pid,
                });
            }
            Err(error) => return Err(OpenError::io("lock", &lock_path, error)),
        };
        let segments = segment::list(&*storage, dir)?;
        let (position, recovered) = if segments.is_empty() {
            recovery::create(&*storage, &options)?
        } else {
            recovery::recover(&storage, dir, &segments, visitor)?
        };
        let header = position.active.header;
        let mut log = Log {
            log_id: header.log_id,
            payload_limit: options.payload_limit(),
            active: position.active,
            life: Life::new(header.log_id, header.life),
            offset: position.offset,
            synced_offset: position.offset,
            relaxed: if position.is_relaxed {
                Relaxed::Durable
            } else {
                Relaxed::No
            },
            sealed: position.sealed,
            spare: None,
            kept: None,
            space_low: false,
            next_lsn: position.next_lsn,
            synced_lsn: position.next_lsn.prev(),
            synced_at: storage.monotonic(),
            chain: position.chain,
            frame: Vec::new(),
            failure: None,
            stats: Stats::default(),
            storage,
            options,
            _lock: lock,
        };
        match log.reserve() {
            Ok(_) => {
                log.find_kept();
                Ok((log, recovered))
            }
            Err(AppendError::Failed(failure)) => Err(OpenError::Io(failure)),
            Err(AppendError::NoSpace(failure)) => Err(OpenError::NoSpace(failure)),
            Err(AppendError::TooLarge { .. }) => {
                unreachable!("reserving space has nothing to do with the size of a batch")
            }
        }
    }

    /// Appends the records of all `batches`, in order, as one frame: after a crash either all of
    /// them are there or none. Returns their numbers. No records is no frame and no sync.
    ///
    /// With [`SyncPolicy::Always`] they are durable when this returns.
    ///
    /// # Errors
    /// See [`AppendError`]. After `TooLarge` and `NoSpace` nothing was written, and the log can be
    /// used further; after `Failed` it cannot, and it is unknown whether the records are in it.
    pub fn append(&mut self, batches: &[&Batch]) -> Result<Range<Lsn>, AppendError> {
        self.check()?;
        let first_lsn = self.next_lsn;
        let count: usize = batches.iter().map(|batch| batch.len()).sum();
        if count == 0 {
            return Ok(first_lsn..first_lsn);
        }
        let bytes = batches.iter().map(|batch| batch.encoded_bytes()).sum();
        if bytes > self.payload_limit {
            return Err(AppendError::TooLarge {
                bytes,
                limit: self.payload_limit,
            });
        }
        if self.is_of_first_format() || frame_end(self.offset, bytes) > self.active.header.capacity
        {
            self.rotate()?;
        }
        let end = frame_end(self.offset, bytes);
        let reaches_far =
            |log: &Log| log.relaxed != Relaxed::Durable && end - log.synced_offset > REACH_BYTES;
        if reaches_far(self) {
            self.sync()?;
        }
        let spec = FrameSpec {
            offset: self.offset,
            first_lsn,
            synced_lsn: self.synced_lsn,
            count: count as u32,
            chain: self.chain,
            is_relaxed: self.options.sync != SyncPolicy::Always,
        };
        let parts = batches.iter().map(|batch| batch.encoded());
        let header = encode_frame(&spec, self.life, parts, &mut self.frame);
        let in_two_steps = reaches_far(self);
        self.write_frame(in_two_steps)?;
        self.offset = end;
        self.chain = header.payload_crc;
        self.next_lsn = Lsn(first_lsn.0 + count as u64);
        if spec.is_relaxed && self.relaxed == Relaxed::No {
            self.relaxed = Relaxed::Written;
        }
        self.stats.frames += 1;
        self.stats.records += count as u64;
        self.stats.payload_bytes += bytes as u64;
        self.stats.frame_bytes += header.frame_bytes as u64;
        if self.sync_due_in() == Some(Duration::ZERO) {
            self.sync()?;
        }
        Ok(first_lsn..self.next_lsn)
    }

    /// Makes everything appended durable, whatever the policy.
    ///
    /// # Errors
    /// [`AppendError::Failed`].
    pub fn sync(&mut self) -> Result<(), AppendError> {
        self.check()?;
        if self.synced_lsn.next() == self.next_lsn {
            return Ok(());
        }
        let started = self.storage.monotonic();
        #[cfg(planted)]
        if crate::planted::is("segment-sync-dropped") {
            self.synced_lsn = self.next_lsn.prev();
            return Ok(());
        }
        #[cfg(planted)]
        if crate::planted::is("failed-sync-retried") {
            let _ = self.active.file.sync_data();
        }
        if let Err(error) = self.active.file.sync_data() {
            return Err(self.fail(Failure::new("sync", &self.active.path, error)));
        }
        self.synced_at = self.storage.monotonic();
        self.stats
            .count_sync(self.synced_at.saturating_sub(started));
        self.synced_lsn = self.next_lsn.prev();
        self.synced_offset = self.offset;
        if self.relaxed == Relaxed::Written {
            self.relaxed = Relaxed::Durable;
        }
        Ok(())
    }

    /// Writes the frame that was laid out; if need be so that its header is durable before the rest is written.
    fn write_frame(&mut self, in_two_steps: bool) -> Result<(), AppendError> {
        let Segment { file, path, .. } = &self.active;
        let mut written = 0;
        if in_two_steps {
            let end = (self.offset + REACH_BYTES) / SECTOR_BYTES * SECTOR_BYTES;
            written = (end - self.offset) as usize;
            if let Err(error) = file.write_all_at(&self.frame[..written], self.offset) {
                let failure = Failure::new("write to", path, error);
                return Err(self.fail(failure));
            }
            if let Err(error) = file.sync_data() {
                let failure = Failure::new("sync", path, error);
                return Err(self.fail(failure));
            }
        }
        let rest_at = self.offset + written as u64;
        if let Err(error) = file.write_all_at(&self.frame[written..], rest_at) {
            let failure = Failure::new("write to", path, error);
            return Err(self.fail(failure));
        }
        Ok(())
    }

    /// How long until the policy wants [`Log::sync`] to be called; `None` while there is nothing to
    /// sync. Appending does it by itself when it is due: this is for when nothing is appended.
    #[must_use]
    pub fn sync_due_in(&self) -> Option<Duration> {
        if self.synced_lsn.next() == self.next_lsn {
            return None;
        }
        match self.options.sync {
            SyncPolicy::Always => Some(Duration::ZERO),
            SyncPolicy::Interval(interval) => {
                Some((self.synced_at + interval).saturating_sub(self.storage.monotonic()))
            }
            SyncPolicy::Never => None,
        }
    }

    /// Reserves the space of the next segment ahead of time; returns whether it is reserved now.
    /// Better called after an append than before one: `append` does it only when it must.
    ///
    /// # Errors
    /// [`AppendError::Failed`]; that there is no space is an answer, and shows in
    /// [`Log::space_low`].
    pub fn reserve(&mut self) -> Result<bool, AppendError> {
        self.check()?;
        match self.prepare_spare() {
            Ok(()) => Ok(true),
            Err(AppendError::NoSpace(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether the next segment is not reserved yet.
    #[must_use]
    pub fn wants_reserve(&self) -> bool {
        self.spare.is_none()
    }

    /// Whether the last attempt to reserve the next segment met a full disk. What is left of the
    /// active segment can still be appended to.
    #[must_use]
    pub fn space_low(&self) -> bool {
        self.space_low
    }

    /// Lets go of the segments all of whose records are below `below` and that were full for at least
    /// `min_age`; returns them. The segment being appended to always stays. One of them at most is kept, to be the room of a
    /// later segment; the others are deleted.
    ///
    /// # Errors
    /// [`AppendError::Failed`] if a file cannot be removed for good.
    pub fn release(&mut self, below: Lsn, min_age: Duration) -> Result<Vec<Released>, AppendError> {
        self.check()?;
        let now = self.storage.unix_ms();
        let mut released = Vec::new();
        #[cfg(planted)]
        let below = Lsn(below.0 + u64::from(crate::planted::is("released-one-too-many")));
        while let Some(oldest) = self.sealed.front() {
            let next = self.sealed.get(1).map_or(
                (
                    self.active.header.first_lsn,
                    self.active.header.begun_unix_ms,
                ),
                |next| (next.first_lsn, next.begun_unix_ms),
            );
            let (next_lsn, full_since) = next;
            let age = Duration::from_millis(now.saturating_sub(full_since));
            if next_lsn > below || age < min_age {
                break;
            }
            let gone = Released {
                path: oldest.path.clone(),
                first_lsn: oldest.first_lsn,
                last_lsn: next_lsn.prev(),
                bytes: oldest.capacity,
            };
            let kept = self
                .free_spare_name()
                .filter(|_| oldest.is_reusable && gone.bytes == self.options.segment_bytes);
            if let Some(name) = kept {
                let spare = self.options.dir.join(name);
                if let Err(error) = self.storage.rename(&gone.path, &spare) {
                    return Err(self.fail(Failure::new("rename to a spare", gone.path, error)));
                }
                self.kept = kept;
            } else if let Err(error) = self.storage.remove(&gone.path) {
                return Err(self.fail(Failure::new("remove", gone.path, error)));
            }
            #[cfg(planted)]
            if crate::planted::is("released-name-unsynced") {
                self.sealed.pop_front();
                released.push(gone);
                continue;
            }
            // One by one: were a later one gone from the disk and this one not, there would be a
            // gap in the log after a crash. And before it is used again: were it not gone, another segment would have its name.
            if let Err(error) = self.storage.sync_dir(&self.options.dir) {
                return Err(self.fail(Failure::new("sync", &self.options.dir, error)));
            }
            self.sealed.pop_front();
            released.push(gone);
        }
        Ok(released)
    }

    /// Gives back the room of the released segment that is kept for later, if there is one; returns whether there was. For when
    /// something else needs the room: the next segment keeps its own.
    ///
    /// # Errors
    /// [`AppendError::Failed`].
    pub fn discard_kept(&mut self) -> Result<bool, AppendError> {
        self.check()?;
        let Some(name) = self.kept.take() else {
            return Ok(false);
        };
        let path = self.options.dir.join(name);
        if let Err(error) = self.storage.remove(&path) {
            return Err(self.fail(Failure::new("remove", path, error)));
        }
        Ok(true)
    }

    /// A name for another spare, if there may be one.
    fn free_spare_name(&self) -> Option<&'static str> {
        if self.kept.is_some() {
            return None;
        }
        let taken = self.spare.as_ref().map(Spare::name);
        SPARE_FILE_NAMES
            .into_iter()
            .find(|&name| Some(name) != taken)
    }

    /// Looks for a spare beside the next segment, left behind by an earlier life.
    fn find_kept(&mut self) {
        if let Some(name) = self.free_spare_name() {
            let path = self.options.dir.join(name);
            // One that cannot be opened is no use: it would be replaced by the next.
            let found = self.storage.open(&path, Access::Read);
            self.kept = found.is_ok().then_some(name);
        }
    }

    /// Makes everything durable and gives up the lock.
    ///
    /// # Errors
    /// [`AppendError::Failed`], also when the log had failed before. The lock is given up all the same.
    pub fn close(mut self) -> Result<(), AppendError> {
        self.sync()
    }

    /// The number the next record will get.
    #[must_use]
    pub fn next_lsn(&self) -> Lsn {
        self.next_lsn
    }

    /// The newest record known to be durable.
    #[must_use]
    pub fn synced_lsn(&self) -> Lsn {
        self.synced_lsn
    }

    /// The oldest record kept; that of the next record if there is none.
    #[must_use]
    pub fn first_lsn(&self) -> Lsn {
        self.sealed
            .front()
            .map_or(self.active.header.first_lsn, |oldest| oldest.first_lsn)
    }

    /// The largest batch, or sum of batches, that is accepted, in encoded bytes.
    #[must_use]
    pub fn payload_limit(&self) -> usize {
        self.payload_limit
    }

    /// What the log was opened with.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The log's id.
    #[must_use]
    pub fn log_id(&self) -> LogId {
        self.log_id
    }

    /// When appended records become durable.
    #[must_use]
    pub fn sync_policy(&self) -> SyncPolicy {
        self.options.sync
    }

    /// Why the log accepts nothing any more, if that is so.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }

    /// Counters and sizes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let sealed: u64 = self.sealed.iter().map(|segment| segment.capacity).sum();
        Stats {
            segments: self.sealed.len() as u64 + 1,
            segment_bytes: sealed + self.active.header.capacity,
            spare_bytes: self.spare.as_ref().map_or(0, Spare::capacity)
                + self.kept.map_or(0, |_| self.options.segment_bytes),
            ..self.stats
        }
    }

    fn check(&self) -> Result<(), AppendError> {
        match &self.failure {
            Some(failure) => Err(AppendError::Failed(failure.clone())),
            None => Ok(()),
        }
    }

    /// Stops the log for good.
    fn fail(&mut self, failure: Failure) -> AppendError {
        self.failure = Some(failure.clone());
        AppendError::Failed(failure)
    }

    fn prepare_spare(&mut self) -> Result<(), AppendError> {
        if self.spare.is_some() {
            return Ok(());
        }
        let made = Spare::prepare(
            &*self.storage,
            &self.options.dir,
            self.options.segment_bytes,
        );
        match made {
            Ok(spare) => {
                self.kept = self.kept.filter(|&name| name != spare.name());
                self.spare = Some(spare);
                self.space_low = false;
                Ok(())
            }
            Err(error) => Err(self.could_not_make(error)),
        }
    }

    fn could_not_make(&mut self, error: MakeError) -> AppendError {
        match error {
            MakeError::NoSpace(failure) => {
                self.space_low = true;
                AppendError::NoSpace(failure)
            }
            MakeError::Failed(failure) => self.fail(failure),
        }
    }

    /// Whether the active segment is of the first format: it is left as it is, and the log goes on in the next.
    fn is_of_first_format(&self) -> bool {
        self.active.header.version == FIRST_FORMAT
    }

    /// Goes on in the next segment. All of this one is made durable first, whatever the policy: that
    /// only the last segment can be unfinished is what recovery builds on.
    fn rotate(&mut self) -> Result<(), AppendError> {
        self.prepare_spare()?;
        self.sync()?;
        let Some(spare) = self.spare.take() else {
            unreachable!("a spare segment was prepared above")
        };
        let header = SegmentHeader {
            version: FORMAT_VERSION,
            life: spare.next_life(self.active.header.life),
            log_id: self.log_id,
            first_lsn: self.next_lsn,
            capacity: spare.capacity(),
            begun_unix_ms: self.storage.unix_ms(),
            chain: self.chain,
        };
        let is_used = spare.is_used();
        match spare.activate(&*self.storage, &self.options.dir, header) {
            Ok(next) => {
                // One without any record had the same name, and has been replaced.
                if self.active.header.first_lsn != header.first_lsn {
                    self.sealed.push_back(Sealed::of(&self.active));
                }
                self.active = next;
                self.life = Life::new(header.log_id, header.life);
                self.offset = SEGMENT_HEADER_BYTES as u64;
                self.synced_offset = self.offset;
                self.relaxed = Relaxed::No;
                self.stats.reused_segments += u64::from(is_used);
                Ok(())
            }
            Err(error) => Err(self.could_not_make(error)),
        }
    }
}

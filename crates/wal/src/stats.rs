//! [`Stats`]: what the log has done since it was opened, as plain numbers.
//!
//! The one idea: the log counts and nobody else; whoever shows metrics reads a copy. Counters only grow.

use std::time::Duration;

/// Upper bounds of the buckets of [`Stats::sync_buckets`]: from a fast NVMe drive to a disk in trouble.
pub const SYNC_BUCKET_BOUNDS: [Duration; 12] = [
    Duration::from_micros(50),
    Duration::from_micros(100),
    Duration::from_micros(250),
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
];

/// Counters and sizes of an open log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Segments on the disk now, the active one included and spare ones not.
    pub segments: u64,
    /// Their size, in bytes.
    pub segment_bytes: u64,
    /// Room that is reserved for segments to come, in bytes.
    pub spare_bytes: u64,
    /// Segments begun since the log was opened in the room of released ones.
    pub reused_segments: u64,
    /// Frames appended since the log was opened.
    pub frames: u64,
    /// Records appended since the log was opened.
    pub records: u64,
    /// Bytes of records, lengths included, appended since the log was opened.
    pub payload_bytes: u64,
    /// Bytes of frames, headers and padding included, appended since the log was opened.
    pub frame_bytes: u64,
    /// Syncs of segment data since the log was opened.
    pub syncs: u64,
    /// Time spent in them.
    pub sync_total: Duration,
    /// How long the last one took.
    pub sync_last: Duration,
    /// How many took no longer than each of [`SYNC_BUCKET_BOUNDS`] and longer than the one before;
    /// the last number counts those longer than all.
    pub sync_buckets: [u64; SYNC_BUCKET_BOUNDS.len() + 1],
}

impl Stats {
    pub(crate) fn count_sync(&mut self, took: Duration) {
        self.syncs += 1;
        self.sync_total += took;
        self.sync_last = took;
        let bucket = SYNC_BUCKET_BOUNDS.partition_point(|&bound| bound < took);
        self.sync_buckets[bucket] += 1;
    }
}

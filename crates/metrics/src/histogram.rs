//! How often values fell where: [`Histogram`].
//!
//! Buckets are fixed when the histogram is made. Observing adds one to one bucket and the value to the
//! sum; the total count is not kept but added up when somebody looks, so that what is shown always
//! agrees with itself: the last bucket *is* the count, as both text formats demand, without a lock.
//! Only the sum may be a few observations ahead or behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use crate::instrument::{Instrument, Kind, Reading, sealed};

/// Upper bounds for durations, in seconds: 1, 2.5 and 5 of each power of ten from 100 µs to 100 s.
///
/// The range is that of the daemon: a durable write is a good 100 µs on a fast disk, a model's turn some
/// ten seconds. Three bounds a decade keep a quantile read from the buckets within a factor of 2.5, at
/// twenty series a histogram.
pub const DURATION_BUCKETS_SECONDS: [f64; 19] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0, 10.0, 25.0, 50.0, 100.0,
];

/// Upper bounds `start`, `start * factor`, … of `count` buckets, for sizes and counts.
///
/// # Panics
///
/// If the bounds would not be finite and rise.
#[must_use]
#[track_caller]
pub fn exponential_buckets(start: f64, factor: f64, count: usize) -> Vec<f64> {
    let bounds: Vec<f64> = std::iter::successors(Some(start), |bound| Some(bound * factor))
        .take(count)
        .collect();
    check(&bounds);
    bounds
}

#[track_caller]
fn check(bounds: &[f64]) {
    assert!(
        bounds.iter().all(|bound| bound.is_finite()) && bounds.is_sorted_by(|a, b| a < b),
        "the bounds of a histogram must be finite and rise, and they are {bounds:?}"
    );
}

/// How often values fell into each of some buckets, and their sum. Clones count together.
#[derive(Clone, Debug)]
pub struct Histogram(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bounds: Box<[f64]>,
    /// One for each bound, counting what is at most that and above the one before, and one for the
    /// rest.
    counts: Box<[AtomicU64]>,
    /// The bits of an `f64`.
    sum: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Snapshot {
    /// The upper bounds, and for each how many values are at most that.
    pub(crate) cumulative: Vec<(f64, u64)>,
    pub(crate) count: u64,
    pub(crate) sum: f64,
}

impl Histogram {
    /// A histogram of these upper bounds; one for what is above the last is added.
    #[track_caller]
    pub(crate) fn new(bounds: &[f64]) -> Self {
        check(bounds);
        Self(Arc::new(Inner {
            bounds: bounds.into(),
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0f64.to_bits()),
        }))
    }

    /// Counts a duration, in seconds.
    pub fn observe(&self, duration: Duration) {
        self.observe_f64(duration.as_secs_f64());
    }

    /// Counts a value. One that is negative or not finite is ignored: it would spoil the sum for
    /// good, which must not go down.
    ///
    /// The sum is an `f64`. Its relative error after n values is below n · 2⁻⁵³ (a billion values: one
    /// in ten millions), far finer than the buckets.
    pub fn observe_f64(&self, value: f64) {
        if !value.is_finite() || value < 0.0 {
            return;
        }
        let inner = &*self.0;
        let bucket = inner.bounds.partition_point(|bound| *bound < value);
        inner.counts[bucket].fetch_add(1, Relaxed);
        let add = |sum: u64| (f64::from_bits(sum) + value).to_bits();
        let mut sum = inner.sum.load(Relaxed);
        while let Err(changed) = inner
            .sum
            .compare_exchange_weak(sum, add(sum), Relaxed, Relaxed)
        {
            sum = changed;
        }
    }

    /// How many values were counted so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.counts.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// Their sum.
    #[must_use]
    pub fn sum(&self) -> f64 {
        f64::from_bits(self.0.sum.load(Relaxed))
    }
}

impl Instrument for Histogram {}
impl sealed::Read for Histogram {
    const KIND: Kind = Kind::Histogram;

    fn read(&self) -> Reading {
        let sum = self.sum();
        let mut count = 0;
        let mut upto = |bucket: &AtomicU64| {
            count += bucket.load(Relaxed);
            count
        };
        let cumulative = self
            .0
            .bounds
            .iter()
            .zip(&self.0.counts)
            .map(|(le, it)| (*le, upto(it)))
            .collect();
        if let Some(rest) = self.0.counts.last() {
            upto(rest);
        }
        Reading::Histogram(Snapshot {
            cumulative,
            count,
            sum,
        })
    }
}

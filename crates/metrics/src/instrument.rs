//! The things that are counted with: [`Counter`], [`Gauge`] and [`FloatGauge`].
//!
//! Each is one atomic behind an `Arc`. All orderings are relaxed: a metric is a number that somebody
//! looks at a few times a minute, and nothing may be concluded from it about other memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use crate::histogram::Snapshot;

/// A number as it is shown. Integers stay integers: a counter is exact beyond 2^53.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A count.
    Unsigned(u64),
    /// A level that may be negative.
    Signed(i64),
    /// Anything else.
    Float(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Unsigned(value)
    }
}

impl From<i64> for Number {
    fn from(value: i64) -> Self {
        Self::Signed(value)
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

/// What kind of metric a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// What an instrument shows at one moment.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    Number(Number),
    Histogram(Snapshot),
}

pub(crate) mod sealed {
    /// What the registry needs of an instrument, and nobody else.
    pub trait Read: Clone + Send + Sync + 'static {
        const KIND: super::Kind;
        fn read(&self) -> super::Reading;
    }
}

/// A [`Counter`], [`Gauge`], [`FloatGauge`] or [`Histogram`](crate::Histogram). Sealed: the text
/// formats know these and no others.
pub trait Instrument: sealed::Read {}

/// A number that only goes up, until the process ends. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Counter(Arc<AtomicU64>);

impl Counter {
    /// One more.
    pub fn inc(&self) {
        self.inc_by(1);
    }

    /// So many more.
    pub fn inc_by(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The count now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Instrument for Counter {}
impl sealed::Read for Counter {
    const KIND: Kind = Kind::Counter;

    fn read(&self) -> Reading {
        Reading::Number(self.get().into())
    }
}

/// A whole number that goes up and down. Clones are the same level.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicI64>);

impl Gauge {
    /// Makes it this.
    pub fn set(&self, value: i64) {
        self.0.store(value, Relaxed);
    }

    /// One more.
    pub fn inc(&self) {
        self.add(1);
    }

    /// One less.
    pub fn dec(&self) {
        self.add(-1);
    }

    /// So much more, or less if negative.
    pub fn add(&self, n: i64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// The level now.
    #[must_use]
    pub fn get(&self) -> i64 {
        self.0.load(Relaxed)
    }
}

impl Instrument for Gauge {}
impl sealed::Read for Gauge {
    const KIND: Kind = Kind::Gauge;

    fn read(&self) -> Reading {
        Reading::Number(self.get().into())
    }
}

/// A number that is set: seconds, ratios, times. Clones are the same level.
#[derive(Clone, Debug, Default)]
pub struct FloatGauge(Arc<AtomicU64>);

impl FloatGauge {
    /// Makes it this.
    pub fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Relaxed);
    }

    /// The level now; 0 until it is set.
    #[must_use]
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

impl Instrument for FloatGauge {}
impl sealed::Read for FloatGauge {
    const KIND: Kind = Kind::Gauge;

    fn read(&self) -> Reading {
        Reading::Number(self.get().into())
    }
}

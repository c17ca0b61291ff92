//! Metrics with labels whose values are not known beforehand: [`Family`].
//!
//! Every value of a label is a series of its own, in this process and for ever in the database that
//! scrapes it, so a label that takes its values from input is a way to fill both. A family therefore has a
//! limit: once it has so many series, every further combination of values is counted in one series whose
//! labels all say [`OTHER`]. The sum over the family stays right.

use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use crate::instrument::{Instrument, Reading};

/// What the labels of the series say in which a [`Family`] counts what is above its limit.
pub const OTHER: &str = "other";

/// The most bytes of a label's value that are kept; what differs only after that is one series.
pub const LABEL_VALUE_MAX_BYTES: usize = 128;

/// Instruments of one name, told apart by the values of their labels. Clones are the same family.
pub struct Family<I> {
    inner: Arc<Inner<I>>,
}

struct Inner<I> {
    label_names: Vec<String>,
    series_max: usize,
    make: Box<dyn Fn() -> I + Send + Sync>,
    /// Sorted by label values. There are few enough that a sorted array finds one faster than a map,
    /// and without making an owned key first.
    series: RwLock<Vec<(Values, I)>>,
    other: OnceLock<I>,
}

/// A label's value for each label.
pub(crate) type Values = Box<[String]>;

impl<I: Instrument> Family<I> {
    pub(crate) fn new(
        label_names: &[&str],
        series_max: usize,
        make: impl Fn() -> I + Send + Sync + 'static,
    ) -> Self {
        Self {
            inner: Arc::new(Inner {
                label_names: label_names.iter().map(|&name| name.to_owned()).collect(),
                series_max,
                make: Box::new(make),
                series: RwLock::default(),
                other: OnceLock::new(),
            }),
        }
    }

    /// The instrument for these label values, in the order of the label names. It is made at its first
    /// use. Whoever needs one often keeps it.
    ///
    /// # Panics
    ///
    /// If there are not as many values as labels.
    #[must_use]
    #[track_caller]
    pub fn with(&self, values: &[&str]) -> I {
        let inner = &*self.inner;
        assert_eq!(
            values.len(),
            inner.label_names.len(),
            "a family with the labels {:?} was asked for {values:?}",
            inner.label_names
        );
        let find = |series: &[(Values, I)]| {
            series.binary_search_by(|(key, _)| {
                key.iter()
                    .map(String::as_str)
                    .cmp(values.iter().map(|value| kept(value)))
            })
        };
        {
            let series = inner.series.read().unwrap_or_else(PoisonError::into_inner);
            if let Ok(at) = find(&series) {
                return series[at].1.clone();
            }
        }
        if values.iter().all(|value| *value == OTHER) {
            return inner.other();
        }
        let mut series = inner.series.write().unwrap_or_else(PoisonError::into_inner);
        match find(&series) {
            Ok(at) => series[at].1.clone(),
            Err(_) if series.len() >= inner.series_max => inner.other(),
            Err(at) => {
                let made = (inner.make)();
                let key = values.iter().map(|value| kept(value).to_owned()).collect();
                series.insert(at, (key, made.clone()));
                made
            }
        }
    }
}

/// What is kept of a label's value.
fn kept(value: &str) -> &str {
    &value[..value.floor_char_boundary(LABEL_VALUE_MAX_BYTES)]
}

impl<I: Instrument> Inner<I> {
    fn other(&self) -> I {
        self.other.get_or_init(|| (self.make)()).clone()
    }
}

/// A family of whatever instrument, as the registry sees it.
pub(crate) trait ReadFamily: Send + Sync {
    /// Every series with the values of its labels.
    fn read(&self) -> Vec<(Values, Reading)>;
}

impl<I: Instrument> ReadFamily for Family<I> {
    fn read(&self) -> Vec<(Values, Reading)> {
        let inner = &*self.inner;
        let series = inner.series.read().unwrap_or_else(PoisonError::into_inner);
        let mut readings: Vec<_> = series
            .iter()
            .map(|(values, it)| (values.clone(), it.read()))
            .collect();
        if let Some(other) = inner.other.get() {
            let values = inner.label_names.iter().map(|_| OTHER.to_owned()).collect();
            readings.push((values, other.read()));
        }
        readings
    }
}

impl<I> Clone for Family<I> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<I> fmt::Debug for Family<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Family")
            .field("label_names", &self.inner.label_names)
            .field("series_max", &self.inner.series_max)
            .finish_non_exhaustive()
    }
}

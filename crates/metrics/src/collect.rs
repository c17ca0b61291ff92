//! Metrics that are looked up when somebody asks: what a collector declares ([`Desc`]) and where it
//! puts what it found ([`Sink`]).

use std::collections::BTreeMap;

use crate::family::Values;
use crate::instrument::{Kind, Number, Reading};

/// A metric that a collector will give numbers for.
#[derive(Clone, Debug)]
pub struct Desc {
    pub(crate) name: String,
    pub(crate) help: String,
    pub(crate) kind: Kind,
    pub(crate) label_names: Vec<String>,
}

impl Desc {
    /// A counter.
    #[must_use]
    pub fn counter(name: &str, help: &str) -> Self {
        Self::new(name, help, Kind::Counter)
    }

    /// A gauge.
    #[must_use]
    pub fn gauge(name: &str, help: &str) -> Self {
        Self::new(name, help, Kind::Gauge)
    }

    /// The same metric with labels. The collector bounds how many values they take.
    #[must_use]
    pub fn labels(mut self, names: &[&str]) -> Self {
        self.label_names = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    pub(crate) fn new(name: &str, help: &str, kind: Kind) -> Self {
        Self {
            name: name.to_owned(),
            help: help.to_owned(),
            kind,
            label_names: Vec::new(),
        }
    }
}

/// The series of one metric, by the values of their labels.
pub(crate) type Series = BTreeMap<Values, Reading>;

/// Where a collector puts its numbers.
///
/// Giving a number for something that was not declared is a bug: it panics in a debug build, and is left
/// out in a release build, where a scrape is not worth a panic.
#[derive(Debug)]
pub struct Sink<'a> {
    pub(crate) declared: &'a [Desc],
    pub(crate) found: &'a mut BTreeMap<String, Series>,
}

impl Sink<'_> {
    /// A number for a metric without labels.
    pub fn put(&mut self, name: &str, value: impl Into<Number>) {
        self.put_with(name, &[], value);
    }

    /// A number for the series with these label values, in the order in which the labels were declared.
    /// A second one for the same series replaces the first.
    pub fn put_with(&mut self, name: &str, label_values: &[&str], value: impl Into<Number>) {
        let declared = self
            .declared
            .iter()
            .any(|desc| desc.name == name && desc.label_names.len() == label_values.len());
        debug_assert!(
            declared,
            "a collector gave {name} with the labels {label_values:?}, which it did not declare"
        );
        if declared {
            let values = label_values.iter().map(|&value| value.to_owned()).collect();
            let reading = Reading::Number(value.into());
            self.found
                .entry(name.to_owned())
                .or_default()
                .insert(values, reading);
        }
    }
}

//! Metric primitives, a registry, and the Prometheus text they are shown as.
//!
//! A crate that has something to measure takes a [`Registry`] and keeps the handles it gets: a
//! [`Counter`], a [`Gauge`], a [`Histogram`]. A handle is an `Arc` of atomics; changing it takes no
//! lock and never fails, however often somebody scrapes. What is cheaper to look up than to keep
//! counting is [collected](Registry::collect) when a scrape asks for it.
//!
//! ```
//! use metrics::{Format, Registry};
//!
//! let registry = Registry::new();
//! let appends = registry.counter("tinkerbell_wal_appends_total", "Records appended to the log.");
//! appends.inc();
//! let text = registry.render(Format::Prometheus);
//! assert!(text.ends_with("\ntinkerbell_wal_appends_total 1\n"));
//! ```
//!
//! **Registering panics on a mistake** (a name that breaks the rules of [`name`], a name registered twice,
//! an empty help text), and gives no `Result`. Names are constants of the source, metrics are made
//! when the process starts, so such a mistake shows in the first run of any test, with the line that
//! made it; a `Result` would put a variant into every crate's error type that no caller can act on.
//! Nothing that depends on input can panic: label values may be any text, and a [`Family`] takes any
//! number of them and keeps a bounded number.
//!
//! This crate knows no other crate, no transport and no time.

mod collect;
mod family;
mod histogram;
mod instrument;
pub mod name;
pub mod process;
mod registry;
mod text;

pub use collect::{Desc, Sink};
pub use family::{Family, LABEL_VALUE_MAX_BYTES, OTHER};
pub use histogram::{DURATION_BUCKETS_SECONDS, Histogram, exponential_buckets};
pub use instrument::{Counter, FloatGauge, Gauge, Instrument, Number};
pub use registry::Registry;
pub use text::Format;

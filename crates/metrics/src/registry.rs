//! Where metrics are made and shown: [`Registry`].
//!
//! A name stands for one metric for the life of the registry, with one kind, one help text and one set
//! of label names. What is shown is sorted, by name and then by label values, so that two scrapes differ
//! only where numbers do.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::collect::{Desc, Series, Sink};
use crate::family::{Family, ReadFamily, Values};
use crate::histogram::Histogram;
use crate::instrument::{Counter, FloatGauge, Gauge, Instrument, Kind, Number, Reading};
use crate::name;
use crate::text::{self, Format, Metric};

/// The metrics of a process, or of a test. Clones are the same registry.
///
/// The methods that register panic on mistakes of the programmer (see the [crate documentation](crate)):
/// a name that breaks the rules of [`name`], an empty help text, a metric that is there already.
#[derive(Clone, Default)]
pub struct Registry {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// By the name of the family ([`name::family`]), since names that differ only in what OpenMetrics
    /// takes off would clash there.
    metrics: RwLock<BTreeMap<String, Registered>>,
    collectors: RwLock<Vec<Arc<Collector>>>,
}

/// Whoever panicked with one of these locks had changed nothing yet or everything already: a poisoned
/// one is as good as any.
impl Inner {
    fn metrics(&self) -> RwLockReadGuard<'_, BTreeMap<String, Registered>> {
        self.metrics.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn metrics_mut(&self) -> RwLockWriteGuard<'_, BTreeMap<String, Registered>> {
        self.metrics.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn collectors(&self) -> RwLockReadGuard<'_, Vec<Arc<Collector>>> {
        self.collectors
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn collectors_mut(&self) -> RwLockWriteGuard<'_, Vec<Arc<Collector>>> {
        self.collectors
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

struct Registered {
    desc: Desc,
    source: Source,
}

/// Where the numbers of a metric come from.
enum Source {
    /// One instrument for each set of label values that was registered.
    Instruments(BTreeMap<Values, Box<dyn Fn() -> Reading + Send + Sync>>),
    /// A family that makes them as they are used.
    Family(Box<dyn ReadFamily>),
    /// A collector gives them.
    Collected,
}

struct Collector {
    declared: Vec<Desc>,
    collect: Box<dyn Fn(&mut Sink<'_>) + Send + Sync>,
}

impl Registry {
    /// A registry with nothing in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A counter; its name ends in `_total`.
    ///
    /// # Panics
    ///
    /// On a mistake, see [`Registry`].
    #[must_use]
    #[track_caller]
    pub fn counter(&self, name: &str, help: &str) -> Counter {
        self.counter_with(name, help, &[])
    }

    /// A counter that is one of several of its name, told apart by labels that are known beforehand.
    /// Each is registered with the same help and label names.
    ///
    /// # Panics
    ///
    /// On a mistake, see [`Registry`].
    #[must_use]
    #[track_caller]
    pub fn counter_with(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Counter {
        self.instrument(name, help, labels, Counter::default())
    }

    /// A gauge of whole numbers.
    ///
    /// # Panics
    ///
    /// On a mistake, see [`Registry`].
    #[must_use]
    #[track_caller]
    pub fn gauge(&self, name: &str, help: &str) -> Gauge {
        self.gauge_with(name, help, &[])
    }

    /// A gauge that is one of several of its name, as [`Registry::counter_with`].
    ///
    /// # Panics
    ///
    /// On a mistake, see [`Registry`].
    #[must_use]
    #[track_caller]
    pub fn gauge_with(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> Gauge {
        self.instrument(name, help, labels, Gauge::default())
    }

    /// A gauge of any number.
    ///
    /// # Panics
    ///
    /// On a mistake, see [`Registry`].
    #[must_use]
    #[track_caller]
    pub fn float_gauge(&self, name: &str, help: &str) -> FloatGauge {
        self.float_gauge_with(name, help, &[])
    }

    /// A gauge of any number that is one of several of its name, as [`Registry::counter_with`].
    ///
    /// # Panics
    ///
    /// On a mistake, see [`Registry`].
    #[must_use]
    #[track_caller]
    pub fn float_gauge_with(&self, name: &str, help: &str, labels: &[(&str, &str)]) -> FloatGauge {
        self.instrument(name, help, labels, FloatGauge::default())
    }

    /// A histogram with these upper bounds, most often
    /// [`DURATION_BUCKETS_SECONDS`](crate::DURATION_BUCKETS_SECONDS).
    ///
    /// # Panics
    ///
    /// On a mistake, see [`Registry`], and if the bounds are not finite and rising.
    #[must_use]
    #[track_caller]
    pub fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        self.histogram_with(name, help, &[], bounds)
    }

    /// A histogram that is one of several of its name, as [`Registry::counter_with`].
    ///
    /// # Panics
    ///
    /// On a mistake, see [`Registry`], and if the bounds are not finite and rising.
    #[must_use]
    #[track_caller]
    pub fn histogram_with(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        bounds: &[f64],
    ) -> Histogram {
        self.instrument(name, help, labels, Histogram::new(bounds))
    }

    /// Counters for label values that are not known beforehand, at most `series_max` of them and one
    /// more for the rest ([`Family`]).
    ///
    /// # Panics
    ///
    /// On a mistake, see [`Registry`].
    #[must_use]
    #[track_caller]
    pub fn counter_family(
        &self,
        name: &str,
        help: &str,
        label_names: &[&str],
        series_max: usize,
    ) -> Family<Counter> {
        self.family(
            name,
            help,
            label_names,
            Family::new(label_names, series_max, Counter::default),
        )
    }

    /// Gauges for label values that are not known beforehand, as [`Registry::counter_family`].
    ///
    /// # Panics
    ///
    /// On a mistake, see [`Registry`].
    #[must_use]
    #[track_caller]
    pub fn gauge_family(
        &self,
        name: &str,
        help: &str,
        label_names: &[&str],
        series_max: usize,
    ) -> Family<Gauge> {
        self.family(
            name,
            help,
            label_names,
            Family::new(label_names, series_max, Gauge::default),
        )
    }

    /// Histograms for label values that are not known beforehand, as [`Registry::counter_family`]. Each
    /// is a series for every bound: keep both few.
    ///
    /// # Panics
    ///
    /// On a mistake, see [`Registry`], and if the bounds are not finite and rising.
    #[must_use]
    #[track_caller]
    pub fn histogram_family(
        &self,
        name: &str,
        help: &str,
        label_names: &[&str],
        series_max: usize,
        bounds: &[f64],
    ) -> Family<Histogram> {
        // Made once here, so that bad bounds panic here and not at the first use.
        drop(Histogram::new(bounds));
        let bounds: Box<[f64]> = bounds.into();
        let make = move || Histogram::new(&bounds);
        self.family(
            name,
            help,
            label_names,
            Family::new(label_names, series_max, make),
        )
    }

    /// Facts that do not change, as labels of a metric that is always 1; its name ends in `_info`.
    ///
    /// # Panics
    ///
    /// On a mistake, see [`Registry`].
    #[track_caller]
    pub fn info(&self, name: &str, help: &str, labels: &[(&str, &str)]) {
        let one = || Reading::Number(Number::Unsigned(1));
        self.fixed(name, help, Kind::Info, labels, Box::new(one));
    }

    /// A gauge that is looked up at each scrape.
    ///
    /// # Panics
    ///
    /// On a mistake, see [`Registry`].
    #[track_caller]
    pub fn gauge_fn<N: Into<Number>>(
        &self,
        name: &str,
        help: &str,
        get: impl Fn() -> N + Send + Sync + 'static,
    ) {
        let same_name = name.to_owned();
        self.collect(vec![Desc::gauge(name, help)], move |sink| {
            sink.put(&same_name, get());
        });
    }

    /// A counter that something else keeps, looked up at each scrape.
    ///
    /// # Panics
    ///
    /// On a mistake, see [`Registry`].
    #[track_caller]
    pub fn counter_fn<N: Into<Number>>(
        &self,
        name: &str,
        help: &str,
        get: impl Fn() -> N + Send + Sync + 'static,
    ) {
        let same_name = name.to_owned();
        self.collect(vec![Desc::counter(name, help)], move |sink| {
            sink.put(&same_name, get());
        });
    }

    /// Several metrics that are looked up together at each scrape. No lock of the registry is held
    /// meanwhile, but one of the caller's would be waited for by every scrape: keep it short.
    ///
    /// # Panics
    ///
    /// On a mistake, see [`Registry`].
    #[track_caller]
    pub fn collect(
        &self,
        declared: Vec<Desc>,
        collect: impl Fn(&mut Sink<'_>) + Send + Sync + 'static,
    ) {
        for desc in &declared {
            self.insert(desc.clone(), Source::Collected);
        }
        let collector = Collector {
            declared,
            collect: Box::new(collect),
        };
        self.inner.collectors_mut().push(Arc::new(collector));
    }

    /// All metrics as text. Those without a number yet are left out.
    #[must_use]
    pub fn render(&self, format: Format) -> String {
        text::write(&self.gather(), format)
    }

    fn gather(&self) -> Vec<Metric> {
        let collectors = self.inner.collectors().clone();
        let mut found = BTreeMap::new();
        for collector in collectors {
            let declared = &collector.declared;
            (collector.collect)(&mut Sink {
                declared,
                found: &mut found,
            });
        }
        let metrics = self.inner.metrics();
        metrics
            .values()
            .map(|metric| {
                let series: Series = match &metric.source {
                    Source::Instruments(instruments) => instruments
                        .iter()
                        .map(|(values, read)| (values.clone(), read()))
                        .collect(),
                    Source::Family(family) => family.read().into_iter().collect(),
                    Source::Collected => found.remove(&metric.desc.name).unwrap_or_default(),
                };
                Metric {
                    desc: metric.desc.clone(),
                    series,
                }
            })
            .filter(|metric| !metric.series.is_empty())
            .collect()
    }

    #[track_caller]
    fn instrument<I: Instrument>(
        &self,
        name: &str,
        help: &str,
        labels: &[(&str, &str)],
        instrument: I,
    ) -> I {
        let shown = instrument.clone();
        self.fixed(name, help, I::KIND, labels, Box::new(move || shown.read()));
        instrument
    }

    #[track_caller]
    fn family<I: Instrument>(
        &self,
        name: &str,
        help: &str,
        label_names: &[&str],
        family: Family<I>,
    ) -> Family<I> {
        let desc = Desc::new(name, help, I::KIND).labels(label_names);
        self.insert(desc, Source::Family(Box::new(family.clone())));
        family
    }

    /// Adds a series to a metric of fixed series; makes the metric if this is its first.
    #[track_caller]
    fn fixed(
        &self,
        name: &str,
        help: &str,
        kind: Kind,
        labels: &[(&str, &str)],
        read: Box<dyn Fn() -> Reading + Send + Sync>,
    ) {
        let (names, values): (Vec<&str>, Vec<String>) = labels
            .iter()
            .map(|&(name, value)| (name, value.to_owned()))
            .unzip();
        let desc = Desc::new(name, help, kind).labels(&names);
        let instruments = BTreeMap::from([(values.into_boxed_slice(), read)]);
        self.insert(desc, Source::Instruments(instruments));
    }

    #[track_caller]
    fn insert(&self, desc: Desc, source: Source) {
        let name = desc.name.clone();
        if let Err(why) = self.try_insert(desc, source) {
            panic!("the metric `{name}` is refused: {why}");
        }
    }

    fn try_insert(&self, desc: Desc, source: Source) -> Result<(), String> {
        desc.check()?;
        let mut metrics = self.inner.metrics_mut();
        let family = name::family(&desc.name, desc.kind);
        let Some(there) = metrics.get_mut(family) else {
            metrics.insert(family.to_owned(), Registered { desc, source });
            return Ok(());
        };
        if there.desc.name != desc.name {
            return Err(format!(
                "OpenMetrics could not tell it from `{}`",
                there.desc.name
            ));
        }
        let (Source::Instruments(old), Source::Instruments(new)) = (&mut there.source, source)
        else {
            return Err("it is registered already".to_owned());
        };
        let shape = |desc: &Desc| (desc.help.clone(), desc.kind, desc.label_names.clone());
        if shape(&there.desc) != shape(&desc) {
            return Err("its other series have another kind, help or labels".to_owned());
        }
        if let Some(values) = new.keys().find(|values| old.contains_key(*values)) {
            return Err(format!(
                "it is registered already with the label values {values:?}"
            ));
        }
        old.extend(new);
        Ok(())
    }
}

impl Desc {
    /// What is wrong with it, if something is.
    fn check(&self) -> Result<(), String> {
        name::check(&self.name, self.kind)?;
        if self.help.trim().is_empty() {
            return Err("it must say what it is in its help text".to_owned());
        }
        for (index, label) in self.label_names.iter().enumerate() {
            name::check_label(label)?;
            if self.label_names[..index].contains(label) {
                return Err(format!("it has the label `{label}` twice"));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let metrics = self.inner.metrics();
        f.debug_struct("Registry")
            .field("metrics", &metrics.keys())
            .finish_non_exhaustive()
    }
}

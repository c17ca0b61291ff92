//! What is written is what was counted, in both formats.

use metrics::{DURATION_BUCKETS_SECONDS, Format, Number, Registry, exponential_buckets};
use proptest::prelude::*;

use crate::parser::parse;

const BOTH: [Format; 2] = [Format::Prometheus, Format::OpenMetrics];

/// One of everything.
fn example() -> Registry {
    let registry = Registry::new();
    registry.info(
        "tinkerbell_build_info",
        "What was built.",
        &[
            ("version", "0.1.0"),
            ("features", "a \"quoted\" \\ path\nand a line"),
        ],
    );
    registry
        .counter("tinkerbell_wal_appends_total", "Records appended.")
        .inc_by(u64::MAX);
    registry
        .gauge(
            "tinkerbell_jobs_live",
            "Help with a \\ and a\nline and a \"quote\".",
        )
        .set(-3);
    registry
        .float_gauge("tinkerbell_pal_fill_ratio", "How full it is.")
        .set(0.25);
    let histogram = registry.histogram(
        "tinkerbell_wal_fsync_seconds",
        "Time of an fsync.",
        &[0.001, 1.0],
    );
    for seconds in [0.0005, 0.001, 0.5, 3.0] {
        histogram.observe_f64(seconds);
    }
    let kinds = registry.counter_family(
        "tinkerbell_steps_ended_total",
        "Steps that ended.",
        &["kind", "status"],
        8,
    );
    kinds.with(&["run", "ok"]).inc_by(2);
    kinds.with(&["ask", "failed"]).inc();
    registry
}

#[test]
fn the_prometheus_format() {
    insta::assert_snapshot!(example().render(Format::Prometheus));
}

#[test]
fn the_openmetrics_format() {
    insta::assert_snapshot!(example().render(Format::OpenMetrics));
}

#[test]
fn both_formats_are_well_formed_and_have_the_same_samples() {
    let [prometheus, open_metrics] = BOTH.map(|format| {
        let metrics = parse(&example().render(format), format);
        metrics
            .into_values()
            .flat_map(|metric| metric.samples)
            .collect::<Vec<_>>()
    });
    for sample in &prometheus {
        assert!(open_metrics.contains(sample), "{sample:?}");
    }
    assert_eq!(prometheus.len(), open_metrics.len());
}

#[test]
fn units_are_told_where_they_are_known() {
    let metrics = parse(&example().render(Format::OpenMetrics), Format::OpenMetrics);
    assert_eq!(
        metrics["tinkerbell_wal_fsync_seconds"].unit.as_deref(),
        Some("seconds")
    );
    assert_eq!(
        metrics["tinkerbell_pal_fill_ratio"].unit.as_deref(),
        Some("ratio")
    );
    assert_eq!(metrics["tinkerbell_jobs_live"].unit, None);
}

#[test]
fn numbers_that_are_none_have_names() {
    let registry = Registry::new();
    for (name, value) in [
        ("tinkerbell_test_nan", f64::NAN),
        ("tinkerbell_test_up", f64::INFINITY),
        ("tinkerbell_test_down", f64::NEG_INFINITY),
        ("tinkerbell_test_tiny", 5e-324),
        ("tinkerbell_test_huge", 1e300),
        ("tinkerbell_test_whole", 3.0),
    ] {
        registry.float_gauge(name, "A number.").set(value);
    }
    let text = registry.render(Format::Prometheus);
    let values: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    insta::assert_snapshot!(values.join("\n"), @r"
    tinkerbell_test_down -Inf
    tinkerbell_test_huge 1e300
    tinkerbell_test_nan NaN
    tinkerbell_test_tiny 5e-324
    tinkerbell_test_up +Inf
    tinkerbell_test_whole 3.0
    ");
}

/// The sum of a histogram may not go down, and what is no number would be its sum for ever.
#[test]
fn what_would_spoil_a_sum_is_not_counted() {
    let histogram = Registry::new().histogram("tinkerbell_test_seconds", "A time.", &[1.0]);
    for value in [f64::NAN, f64::INFINITY, -1.0, 0.5] {
        histogram.observe_f64(value);
    }
    assert_eq!((histogram.count(), histogram.sum()), (1, 0.5));
}

#[test]
fn buckets_can_be_computed() {
    assert_eq!(exponential_buckets(1.0, 4.0, 4), [1.0, 4.0, 16.0, 64.0]);
    assert!(DURATION_BUCKETS_SECONDS.is_sorted());
}

#[test]
fn a_format_is_chosen_by_what_the_client_accepts() {
    let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
                        application/openmetrics-text;version=0.0.1;q=0.4,\
                        text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
                        text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    let cases = [
        (prometheus_3, Format::OpenMetrics),
        ("application/openmetrics-text", Format::OpenMetrics),
        (
            "Application/OpenMetrics-Text; Version=\"1.0.0\"",
            Format::OpenMetrics,
        ),
        (
            "text/plain;q=0.5, application/openmetrics-text;q=0.5",
            Format::OpenMetrics,
        ),
        (
            "text/plain, application/openmetrics-text;q=0.5",
            Format::Prometheus,
        ),
        (
            "application/openmetrics-text;version=0.0.1",
            Format::Prometheus,
        ),
        ("application/openmetrics-text;q=0", Format::Prometheus),
        ("application/openmetrics-text;q=lots", Format::Prometheus),
        ("application/openmetrics-text;q=NaN", Format::Prometheus),
        (
            "text/html,application/xhtml+xml,*/*;q=0.8",
            Format::Prometheus,
        ),
        ("*/*", Format::Prometheus),
        ("image/png", Format::Prometheus),
        (";;=,;q", Format::Prometheus),
        ("", Format::Prometheus),
    ];
    for (accept, format) in cases {
        assert_eq!(Format::negotiate(accept), format, "{accept}");
    }
}

/// Text with what needs escaping in it, and much else.
fn any_text() -> impl Strategy<Value = String> {
    let c = prop_oneof![
        any::<char>(),
        prop::sample::select(vec!['\\', '"', '\n', 'n', '{', '}', ',', '=', '#', ' ']),
    ];
    prop::collection::vec(c, 0..20).prop_map(String::from_iter)
}

fn any_number() -> impl Strategy<Value = Number> {
    prop_oneof![
        any::<u64>().prop_map(Number::from),
        any::<i64>().prop_map(Number::from),
        any::<f64>().prop_map(Number::from),
    ]
}

fn same(written: &str, number: Number) -> bool {
    match number {
        Number::Unsigned(n) => written.parse() == Ok(n),
        Number::Signed(n) => written.parse() == Ok(n),
        Number::Float(n) if n.is_nan() => written == "NaN",
        Number::Float(n) => written.trim_start_matches('+').parse() == Ok(n),
    }
}

proptest! {
    /// Every number and every text comes back as it was, whatever is in it.
    #[test]
    fn what_is_written_is_what_was_counted(
        series in prop::collection::btree_map(any_text(), any_number(), 1..6),
        help in any_text().prop_filter("a help text says something", |it| !it.trim().is_empty()),
    ) {
        let registry = Registry::new();
        let shown = series.clone();
        let desc = metrics::Desc::gauge("tinkerbell_test_level", &help).labels(&["of"]);
        registry.collect(vec![desc], move |sink| {
            for (label, number) in &shown {
                sink.put_with("tinkerbell_test_level", &[label], *number);
            }
        });
        for format in BOTH {
            let text = registry.render(format);
            // A carriage return is no line end in either format, as it is to `str::lines`.
            let parsed = parse(&text.replace('\r', "\u{f8ff}"), format);
            let metric = &parsed["tinkerbell_test_level"];
            prop_assert_eq!(metric.help.replace('\u{f8ff}', "\r"), help.clone().replace('\u{f8ff}', "\r"));
            prop_assert_eq!(metric.samples.len(), series.len());
            for (sample, (label, number)) in metric.samples.iter().zip(&series) {
                let expected = label.replace('\r', "\u{f8ff}");
                prop_assert_eq!(&sample.labels, &[("of".to_owned(), expected)]);
                prop_assert!(same(&sample.value, *number), "{} for {:?}", sample.value, number);
            }
        }
    }

    /// A histogram shows for each bound how many values were at most that, as counting them one by one does.
    #[test]
    fn histograms_count_right(
        values in prop::collection::vec(prop_oneof![0.0..200.0f64, prop::sample::select(&DURATION_BUCKETS_SECONDS[..])], 0..60),
    ) {
        let registry = Registry::new();
        let histogram =
            registry.histogram("tinkerbell_test_seconds", "A time.", &DURATION_BUCKETS_SECONDS);
        values.iter().for_each(|value| histogram.observe_f64(*value));

        let parsed = parse(&registry.render(Format::OpenMetrics), Format::OpenMetrics);
        let samples = &parsed["tinkerbell_test_seconds"].samples;
        let (buckets, rest) = samples.split_at(DURATION_BUCKETS_SECONDS.len() + 1);
        for (bucket, le) in buckets.iter().zip(DURATION_BUCKETS_SECONDS.into_iter().chain([f64::INFINITY])) {
            let shown_le: f64 = bucket.labels[0].1.replace('+', "").parse().unwrap();
            prop_assert_eq!(shown_le, le);
            let expected = values.iter().filter(|value| **value <= le).count();
            prop_assert_eq!(bucket.number(), expected as f64);
        }
        prop_assert_eq!(rest[0].number(), values.iter().sum::<f64>());
        prop_assert_eq!(rest[1].number(), values.len() as f64);
    }
}

//! Labels whose values come from outside stay bounded.

use metrics::{Format, LABEL_VALUE_MAX_BYTES, OTHER, Registry};

use crate::parser::{Sample, parse};

fn samples(registry: &Registry) -> Vec<Sample> {
    let mut metrics = parse(&registry.render(Format::Prometheus), Format::Prometheus);
    metrics
        .remove("tinkerbell_test_calls_total")
        .unwrap()
        .samples
}

#[test]
fn above_its_limit_a_family_counts_in_one_series() {
    let registry = Registry::new();
    let calls = registry.counter_family(
        "tinkerbell_test_calls_total",
        "Calls.",
        &["tool", "status"],
        3,
    );
    for tool in 0..1000 {
        calls.with(&[&format!("tool-{tool}"), "ok"]).inc();
    }
    // One that is there already still counts for itself.
    calls.with(&["tool-1", "ok"]).inc();
    let samples = samples(&registry);
    assert_eq!(samples.len(), 4);
    assert_eq!(samples.iter().map(Sample::number).sum::<f64>(), 1001.0);
    let other = &samples[0];
    assert!(
        other.labels.iter().all(|(_, value)| value == OTHER),
        "{other:?}"
    );
    assert_eq!(other.number(), 997.0);
    assert_eq!(samples[2].number(), 2.0);
}

#[test]
fn a_value_that_is_called_other_is_the_other_one() {
    let registry = Registry::new();
    let calls = registry.counter_family("tinkerbell_test_calls_total", "Calls.", &["tool"], 1);
    for tool in [OTHER, "a", "b"] {
        calls.with(&[tool]).inc();
    }
    let values: Vec<f64> = samples(&registry).iter().map(Sample::number).collect();
    assert_eq!(values, [1.0, 2.0]);
}

#[test]
fn long_values_are_cut_at_a_character() {
    let registry = Registry::new();
    let calls = registry.counter_family("tinkerbell_test_calls_total", "Calls.", &["tool"], 9);
    let long = "€".repeat(1000);
    calls.with(&[&long]).inc();
    calls.with(&[&format!("{long} and more")]).inc();
    let samples = samples(&registry);
    assert_eq!(samples.len(), 1);
    assert_eq!(
        samples[0].labels[0].1,
        "€".repeat(LABEL_VALUE_MAX_BYTES / 3)
    );
    assert_eq!(samples[0].number(), 2.0);
}

#[test]
fn the_same_values_are_the_same_instrument() {
    let registry = Registry::new();
    let times = registry.histogram_family(
        "tinkerbell_test_turn_seconds",
        "Turns.",
        &["program"],
        4,
        &[0.1, 1.0],
    );
    times.with(&["plan"]).observe_f64(0.5);
    times.clone().with(&["plan"]).observe_f64(0.25);
    assert_eq!(times.with(&["plan"]).count(), 2);
    assert_eq!(times.with(&["command"]).count(), 0);
}

//! What can be registered, and what is refused.

use std::panic::{AssertUnwindSafe, catch_unwind};

use metrics::{Desc, Format, Registry};

/// The message with which a registry refuses.
fn refusal(register: impl FnOnce(&Registry)) -> String {
    let registry = Registry::new();
    let _ = registry.counter("tinkerbell_test_there_total", "A counter that is there.");
    let _ = registry.gauge_with("tinkerbell_test_level", "A level.", &[("of", "a")]);
    let panic = catch_unwind(AssertUnwindSafe(|| register(&registry))).unwrap_err();
    let message = panic.downcast_ref::<String>().unwrap().clone();
    // A refusal leaves the registry as it was, and usable.
    let _ = registry.gauge_with("tinkerbell_test_level", "A level.", &[("of", "b")]);
    message
}

#[test]
fn mistakes_are_refused_and_named() {
    let refusals = [
        refusal(|it| drop(it.counter("tinkerbell_test_there_total", "Again."))),
        refusal(|it| drop(it.gauge("tinkerbell_test_there", "A gauge."))),
        refusal(|it| it.info("tinkerbell_test_level", "A level.", &[("of", "b")])),
        refusal(|it| drop(it.gauge_with("tinkerbell_test_level", "A level.", &[("of", "a")]))),
        refusal(|it| drop(it.gauge_with("tinkerbell_test_level", "A level.", &[("from", "b")]))),
        refusal(|it| drop(it.gauge_with("tinkerbell_test_level", "Another.", &[("of", "b")]))),
        refusal(|it| drop(it.gauge_family("tinkerbell_test_level", "A level.", &["of"], 3))),
        refusal(|it| it.gauge_fn("tinkerbell_test_level", "A level.", || 1.0)),
        refusal(|it| {
            let desc = Desc::counter("tinkerbell_test_there_total", "A counter that is there.");
            it.collect(vec![desc], |_| {});
        }),
        refusal(|it| drop(it.counter("tinkerbell_test_things", "Things."))),
        refusal(|it| drop(it.histogram("tinkerbell_test_turn_ms", "A turn.", &[1.0]))),
        refusal(|it| drop(it.gauge("tinkerbell_test_mute", " "))),
        refusal(|it| drop(it.gauge_with("tinkerbell_test_some", "It.", &[("le", "1")]))),
        refusal(|it| {
            drop(it.gauge_with("tinkerbell_test_some", "It.", &[("a", "1"), ("a", "2")]));
        }),
        refusal(|it| drop(it.histogram("tinkerbell_test_seconds", "A time.", &[2.0, 1.0]))),
        refusal(|it| {
            drop(
                it.gauge_family("tinkerbell_test_rows", "It.", &["a", "b"], 9)
                    .with(&["1"]),
            );
        }),
    ];
    insta::assert_snapshot!(refusals.join("\n"));
}

#[test]
fn series_of_one_name_stand_together_and_in_order() {
    let registry = Registry::new();
    for part in ["wal", "api", "pal"] {
        let name = "tinkerbell_start_phase_seconds";
        registry
            .float_gauge_with(name, "Time of a phase.", &[("phase", part)])
            .set(1.5);
        registry
            .gauge(&format!("tinkerbell_{part}_level"), "A level.")
            .set(1);
    }
    insta::assert_snapshot!(registry.render(Format::Prometheus));
}

#[test]
fn what_is_looked_up_is_looked_up_at_each_scrape() {
    let registry = Registry::new();
    let kept = registry.counter("tinkerbell_test_kept_total", "Kept.");
    let source = kept.clone();
    registry.counter_fn("tinkerbell_test_seen_total", "Seen.", move || source.get());
    for n in 1..3 {
        kept.inc();
        let line = format!("tinkerbell_test_seen_total {n}\n");
        assert!(registry.render(Format::Prometheus).contains(&line));
    }
}

#[test]
fn what_has_no_number_is_left_out() {
    let registry = Registry::new();
    let family = registry.counter_family("tinkerbell_test_things_total", "Things.", &["of"], 3);
    registry.collect(
        vec![Desc::gauge("tinkerbell_test_level", "A level.")],
        |_| {},
    );
    assert_eq!(registry.render(Format::Prometheus), "");
    assert_eq!(registry.render(Format::OpenMetrics), "# EOF\n");
    family.with(&["a"]).inc();
    assert!(
        registry
            .render(Format::Prometheus)
            .contains("tinkerbell_test_things_total")
    );
}

/// It may use the registry it is in: nothing is locked while it runs.
#[test]
fn a_collector_may_register() {
    let registry = Registry::new();
    let same = registry.clone();
    registry.collect(
        vec![Desc::gauge("tinkerbell_test_depth", "A depth.")],
        move |sink| {
            same.gauge("tinkerbell_test_late", "A late one.").set(2);
            sink.put("tinkerbell_test_depth", 1u64);
        },
    );
    assert!(
        registry
            .render(Format::Prometheus)
            .contains("tinkerbell_test_late 2\n")
    );
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "did not declare")]
fn a_collector_must_declare() {
    let registry = Registry::new();
    registry.collect(vec![], |sink| sink.put("tinkerbell_test_depth", 1u64));
    let _ = registry.render(Format::Prometheus);
}

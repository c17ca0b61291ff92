//! Many threads count at once: nothing is lost, and what a scrape shows meanwhile agrees with itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use metrics::{Format, Registry};

use crate::parser::{Sample, parse};

#[test]
fn nothing_is_lost_and_every_scrape_is_consistent() {
    const THREADS: u32 = 4;
    const ROUNDS: u32 = 5000;
    let registry = Registry::new();
    let counter = registry.counter("tinkerbell_test_things_total", "Things.");
    let gauge = registry.gauge("tinkerbell_test_level", "A level.");
    let histogram = registry.histogram("tinkerbell_test_seconds", "A time.", &[1.0, 2.0]);
    let family = registry.counter_family("tinkerbell_test_calls_total", "Calls.", &["of"], 2);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let scraper = scope.spawn(|| {
            let mut last = 0.0;
            while !done.load(Ordering::Relaxed) {
                let text = registry.render(Format::OpenMetrics);
                let samples = parse(&text, Format::OpenMetrics)["tinkerbell_test_seconds"]
                    .samples
                    .clone();
                let numbers: Vec<f64> = samples.iter().map(Sample::number).collect();
                let [one, two, all, _sum, count] = numbers[..] else {
                    panic!("{samples:?}")
                };
                assert!(one <= two && two <= all && all == count, "{samples:?}");
                assert!(count >= last, "a count went down from {last} to {count}");
                last = count;
            }
        });
        let workers: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (counter, gauge) = (counter.clone(), gauge.clone());
                let (histogram, family) = (histogram.clone(), family.clone());
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        counter.inc();
                        gauge.add(if round % 2 == 0 { 3 } else { -3 });
                        histogram.observe_f64(f64::from(round % 3));
                        family.with(&[&thread.to_string()]).inc();
                    }
                })
            })
            .collect();
        workers
            .into_iter()
            .for_each(|worker| worker.join().unwrap());
        done.store(true, Ordering::Relaxed);
        scraper.join().unwrap();
    });
    let total = u64::from(THREADS * ROUNDS);
    assert_eq!(counter.get(), total);
    assert_eq!(gauge.get(), 0);
    assert_eq!(histogram.count(), total);
    let of_one: u32 = (0..ROUNDS).map(|round| round % 3).sum();
    assert_eq!(
        histogram.sum(),
        f64::from(of_one * THREADS),
        "whole numbers add up exactly"
    );
    let calls = &parse(&registry.render(Format::Prometheus), Format::Prometheus)["tinkerbell_test_calls_total"];
    assert_eq!(
        calls.samples.iter().map(Sample::number).sum::<f64>(),
        total as f64
    );
}

//! What the process says of itself is true of this one.

use std::collections::BTreeMap;
use std::fs::File;
use std::sync::mpsc;
use std::thread;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use metrics::{Format, Registry, process};

use crate::parser::parse;

fn numbers(registry: &Registry) -> BTreeMap<String, f64> {
    parse(&registry.render(Format::Prometheus), Format::Prometheus)
        .into_iter()
        .map(|(name, metric)| (name, metric.samples[0].number()))
        .collect()
}

#[test]
#[cfg(target_os = "linux")]
fn the_process_is_measured() {
    let registry = Registry::new();
    process::register(&registry);
    let before = numbers(&registry);
    assert_eq!(before.len(), 7, "{before:?}");

    // Other tests run beside this one: everything below leaves room for what they do.
    let files: Vec<File> = (0..200)
        .map(|_| File::open("/proc/self/exe").unwrap())
        .collect();
    let memory = vec![1u8; 64 << 20];
    let (stop, stopped) = mpsc::channel::<()>();
    let waiting = thread::spawn(move || stopped.recv());
    let busy_since = Instant::now();
    let mut after = numbers(&registry);
    while after["process_cpu_seconds_total"] <= before["process_cpu_seconds_total"] {
        assert!(
            busy_since.elapsed().as_secs() < 60,
            "no CPU time was counted"
        );
        after = numbers(&registry);
    }

    assert!(after["process_open_fds"] >= files.len() as f64);
    assert!(after["process_open_fds"] <= after["process_max_fds"]);
    assert!(after["process_resident_memory_bytes"] >= memory.len() as f64);
    assert!(after["process_virtual_memory_bytes"] >= after["process_resident_memory_bytes"]);
    assert!(after["process_threads"] >= 2.0);
    assert_eq!(
        after["process_start_time_seconds"],
        before["process_start_time_seconds"]
    );
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64();
    let age = now - after["process_start_time_seconds"];
    assert!((-2.0..3600.0).contains(&age), "started {age} s ago");
    assert!(memory.iter().all(|byte| *byte == 1));
    drop(stop);
    let _ = waiting.join();
}

//! What it costs to run one `true` as an effect, beside what `std::process::Command` takes for it.
//!
//! `cargo run --release -p tools --example process_cost [ROUNDS]`. The two take turns, so that both meet the same
//! machine; medians are printed, and their ratio.

use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use runtime::{Attempt, EffectCall, EffectClass, EffectId, JobId, Json, StepIndex};
use tools::{Options, PROCESS_RUN, ToolBox};

fn main() {
    tools::supervisor::main_if_requested();
    let rounds = std::env::args()
        .nth(1)
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(500u32)
        .max(1);
    let dir = std::env::temp_dir().join(format!("tinkerbell-process-cost-{}", std::process::id()));
    let io = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("because a machine to measure on has an epoll instance left");
    let options = Options::new(&dir, format!("process-cost-{}", std::process::id()));
    let tools = ToolBox::new(options, io.handle().clone(), pal::Pal::new(64, 1 << 16));

    let (mut plain, mut supervised) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        plain.push(time(|| {
            let output = Command::new("true").stdin(Stdio::null()).output();
            assert!(output.is_ok_and(|output| output.status.success()));
        }));
        supervised.push(time(|| {
            let (sender, result) = mpsc::channel();
            tools.start_with(call(round), move |result, _| drop(sender.send(result)));
            let result = io.block_on(async {
                loop {
                    match result.try_recv() {
                        Ok(result) => break result,
                        Err(_) => tokio::task::yield_now().await,
                    }
                }
            });
            assert!(result.is_ok(), "{result:?}");
        }));
    }
    let _ = std::fs::remove_dir_all(&dir);
    let (plain, supervised) = (median(plain), median(supervised));
    println!("std::process::Command  {:>8} µs", plain.as_micros());
    println!("process.run            {:>8} µs", supervised.as_micros());
    println!(
        "difference             {:>8} µs",
        supervised.saturating_sub(plain).as_micros()
    );
    println!(
        "ratio                  {:>8.2}",
        supervised.as_secs_f64() / plain.as_secs_f64()
    );
}

fn call(round: u32) -> EffectCall {
    EffectCall {
        id: EffectId {
            job: JobId::from_parts(1, 1),
            step: StepIndex(round),
            attempt: Attempt::FIRST,
        },
        kind: PROCESS_RUN.into(),
        class: EffectClass::External,
        input: Json::of(&serde_json::json!({ "argv": ["true"] })),
        label: "true".into(),
        interrupted: false,
    }
}

fn time(what: impl FnOnce()) -> Duration {
    let started_at = Instant::now();
    what();
    started_at.elapsed()
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}

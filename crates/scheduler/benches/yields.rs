//! The quick look, a minute without anything to install: the scheduler beside tokio's current-thread runtime, and beside
//! the least that can poll, a `VecDeque` of boxed futures, polled in turn, with no wakers, ids, priorities, joins,
//! timers or trace. All peers, the limit of a real executor, round trips and lateness are in `benches/peers/scheduler`,
//! a workspace of its own so that this one need not build them.
//!
//! ```text
//! cargo bench -p scheduler
//! ```
//!
//! Each figure is the best of several rounds in which all three take turns, in nanoseconds per operation.
//! Memory is measured as growth of the resident set, each in a process of its own, so that no allocator
//! hands one what the other gave back.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::hint::black_box;
use std::pin::Pin;
use std::process::Command;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use scheduler::{Handle, Idle, LongPoll, Options, Priority, Scheduler};
use tokio::runtime::Runtime;
use tokio::sync::Notify;

/// Rounds of which the best counts.
const ROUNDS: usize = 7;
/// Operations in a round.
const OPERATIONS: u64 = 1_000_000;
/// Tasks parked to measure memory.
const PARKED: u64 = 1_000_000;
/// The argument that makes this program one of the processes that measure memory.
const MEMORY_ARGUMENT: &str = "--parked-by";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments
        .iter()
        .position(|argument| argument == MEMORY_ARGUMENT)
    {
        print!("{}", parked_bytes(&arguments[at + 1]));
        return;
    }

    println!(
        "{:<34}{:>10}{:>10}{:>10}{:>12}{:>10}",
        "", "ours", "tokio", "bare", "tokio/ours", "ours/bare"
    );
    for tasks in [1, 1_000, 100_000] {
        row(
            &format!("yield, {tasks} tasks, ns"),
            &mut [
                &mut || ours_yield(Options::default(), tasks),
                &mut || tokio_yield(tasks),
                &mut || bare_yield(tasks),
            ],
        );
    }
    row(
        "yield, 1000 tasks, watched, ns",
        &mut [
            &mut || ours_yield(watched(), 1_000),
            &mut || tokio_yield(1_000),
            &mut || bare_yield(1_000),
        ],
    );
    row(
        "spawn + join, one by one, ns",
        &mut [&mut ours_spawn_join, &mut tokio_spawn_join],
    );
    row(
        "spawn + join, a million, ns",
        &mut [&mut ours_spawn_all, &mut tokio_spawn_all],
    );
    row(
        "ping-pong, a round trip, ns",
        &mut [&mut ours_ping_pong, &mut tokio_ping_pong],
    );
    row("spawn, sleep, fire, a million, ns", &mut [&mut ours_timers]);
    let memory = |who: &'static str| move || measure_parked(who);
    row(
        "memory per parked task, bytes",
        &mut [&mut memory("ours"), &mut memory("tokio")],
    );
}

/// Measures in turn and prints one line.
fn row(name: &str, candidates: &mut [&mut dyn FnMut() -> f64]) {
    let mut best = [f64::INFINITY; 3];
    for _ in 0..ROUNDS {
        for (best, candidate) in best.iter_mut().zip(candidates.iter_mut()) {
            *best = best.min(candidate());
        }
    }
    let [ours, tokio, bare] = best;
    let cell = |value: f64| {
        if value.is_finite() {
            format!("{value:.1}")
        } else {
            "–".to_owned()
        }
    };
    let ratio = |value: f64| {
        if value.is_finite() && value > 0.0 {
            format!("{value:.2}")
        } else {
            "–".to_owned()
        }
    };
    println!(
        "{name:<34}{:>10}{:>10}{:>10}{:>12}{:>10}",
        cell(ours),
        cell(tokio),
        cell(bare),
        ratio(tokio / ours),
        ratio(ours / bare)
    );
}

fn nanos_per_operation(operations: u64, run: impl FnOnce()) -> f64 {
    let start = Instant::now();
    run();
    start.elapsed().as_nanos() as f64 / operations as f64
}

/// With the watch on long polls on, reading the fine clock: what a limit of few milliseconds costs. The daemon's reads
/// the coarse one.
fn watched() -> Options {
    let start = Instant::now();
    Options {
        long_poll: Some(LongPoll {
            limit: Duration::from_secs(1),
            clock: Box::new(move || start.elapsed().as_nanos() as u64),
        }),
        ..Options::default()
    }
}

fn ours_yield(options: Options, tasks: u64) -> f64 {
    let mut scheduler = Scheduler::new(options);
    for _ in 0..tasks {
        let handle = scheduler.handle();
        let task = async move {
            for _ in 0..OPERATIONS / tasks {
                handle.yield_now().await;
            }
        };
        scheduler
            .handle()
            .spawn("yield", Priority::Normal, task)
            .detach();
    }
    nanos_per_operation(OPERATIONS, || {
        assert_eq!(scheduler.run_until_idle(), Idle::Finished);
    })
}

fn tokio_yield(tasks: u64) -> f64 {
    let runtime = tokio_runtime();
    let joined: Vec<_> = (0..tasks)
        .map(|_| {
            runtime.spawn(async move {
                for _ in 0..OPERATIONS / tasks {
                    tokio::task::yield_now().await;
                }
            })
        })
        .collect();
    nanos_per_operation(OPERATIONS, || {
        runtime.block_on(async {
            for task in joined {
                task.await.expect("a task that returns");
            }
        });
    })
}

fn bare_yield(tasks: u64) -> f64 {
    let mut queue: VecDeque<Pin<Box<dyn Future<Output = ()>>>> = VecDeque::new();
    for _ in 0..tasks {
        queue.push_back(Box::pin(async move {
            for _ in 0..OPERATIONS / tasks {
                let mut yielded = false;
                poll_fn(|_| {
                    if std::mem::replace(&mut yielded, true) {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                })
                .await;
            }
        }));
    }
    nanos_per_operation(OPERATIONS, || {
        let mut context = Context::from_waker(Waker::noop());
        while let Some(mut task) = queue.pop_front() {
            if task.as_mut().poll(&mut context).is_pending() {
                queue.push_back(task);
            }
        }
    })
}

/// Runs one task, given a handle, to its end.
fn ours<F: Future<Output = ()> + 'static>(operations: u64, task: impl FnOnce(Handle) -> F) -> f64 {
    let mut scheduler = Scheduler::default();
    let handle = scheduler.handle();
    handle
        .spawn("main", Priority::Normal, task(handle.clone()))
        .detach();
    nanos_per_operation(operations, || {
        assert_eq!(scheduler.run_virtual(), Idle::Finished);
    })
}

fn ours_spawn_join() -> f64 {
    ours(OPERATIONS, async |handle| {
        for number in 0..OPERATIONS {
            let task = handle.spawn("child", Priority::Normal, async move { number });
            black_box(task.await.expect("a task that returns"));
        }
    })
}

fn tokio_spawn_join() -> f64 {
    let runtime = tokio_runtime();
    nanos_per_operation(OPERATIONS, || {
        runtime.block_on(async {
            let main = tokio::spawn(async {
                for number in 0..OPERATIONS {
                    let task = tokio::spawn(async move { number });
                    black_box(task.await.expect("a task that returns"));
                }
            });
            main.await.expect("a task that returns");
        });
    })
}

fn ours_spawn_all() -> f64 {
    ours(OPERATIONS, async |handle| {
        let tasks: Vec<_> = (0..OPERATIONS)
            .map(|number| handle.spawn("child", Priority::Normal, async move { number }))
            .collect();
        for task in tasks {
            black_box(task.await.expect("a task that returns"));
        }
    })
}

fn tokio_spawn_all() -> f64 {
    let runtime = tokio_runtime();
    nanos_per_operation(OPERATIONS, || {
        runtime.block_on(async {
            let tasks: Vec<_> = (0..OPERATIONS)
                .map(|number| tokio::spawn(async move { number }))
                .collect();
            for task in tasks {
                black_box(task.await.expect("a task that returns"));
            }
        });
    })
}

fn ours_ping_pong() -> f64 {
    ours(OPERATIONS, async |handle| {
        let (ping, pong) = (handle.new_key(), handle.new_key());
        let ponger = handle.clone();
        let other = handle.spawn("pong", Priority::Normal, async move {
            for _ in 0..OPERATIONS {
                ponger.wait(ping).await;
                ponger.signal(pong);
            }
        });
        for _ in 0..OPERATIONS {
            handle.signal(ping);
            handle.wait(pong).await;
        }
        other.await.expect("a task that returns");
    })
}

fn tokio_ping_pong() -> f64 {
    let runtime = tokio_runtime();
    nanos_per_operation(OPERATIONS, || {
        runtime.block_on(async {
            let (ping, pong) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
            let (pinged, ponged) = (ping.clone(), pong.clone());
            let other = tokio::spawn(async move {
                for _ in 0..OPERATIONS {
                    pinged.notified().await;
                    ponged.notify_one();
                }
            });
            let this = tokio::spawn(async move {
                for _ in 0..OPERATIONS {
                    ping.notify_one();
                    pong.notified().await;
                }
            });
            this.await.expect("a task that returns");
            other.await.expect("a task that returns");
        });
    })
}

fn ours_timers() -> f64 {
    ours(OPERATIONS, async |handle| {
        for number in 0..OPERATIONS {
            let sleeper = handle.clone();
            // Deadlines in no order, as the fractional parts of multiples of the golden ratio are.
            let nanos = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24;
            let task = async move { sleeper.sleep(Duration::from_nanos(nanos)).await };
            handle.spawn("sleeper", Priority::Normal, task).detach();
        }
        handle.sleep(Duration::from_nanos(u64::MAX >> 24)).await;
    })
}

fn tokio_runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime without drivers")
}

/// Runs this program again to measure what a parked task takes.
fn measure_parked(who: &str) -> f64 {
    let program = std::env::current_exe().expect("the path of this program");
    let output = Command::new(program)
        .args([MEMORY_ARGUMENT, who])
        .output()
        .expect("this program runs again");
    String::from_utf8_lossy(&output.stdout)
        .parse()
        .unwrap_or(f64::INFINITY)
}

/// Bytes of resident memory per task, with many that wait, each for a key of its own, or for a `Notify` of
/// its own.
fn parked_bytes(who: &str) -> f64 {
    let before = resident_bytes();
    if who == "ours" {
        let mut scheduler = Scheduler::default();
        for _ in 0..PARKED {
            let handle = scheduler.handle();
            let key = handle.new_key();
            let task = async move { handle.wait(key).await };
            scheduler
                .handle()
                .spawn("parked", Priority::Normal, task)
                .detach();
        }
        scheduler.run(PARKED);
        let bytes = resident_bytes() - before;
        // A million tasks need not be dropped for this.
        std::mem::forget(scheduler);
        return bytes / PARKED as f64;
    }
    let runtime = tokio_runtime();
    for _ in 0..PARKED {
        runtime.spawn(async move { Notify::new().notified().await });
    }
    runtime.block_on(async {
        tokio::spawn(tokio::task::yield_now())
            .await
            .expect("a task that returns");
    });
    let bytes = resident_bytes() - before;
    std::mem::forget(runtime);
    bytes / PARKED as f64
}

fn resident_bytes() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|statm| statm.split(' ').nth(1)?.parse::<f64>().ok())
        .unwrap_or(f64::NAN);
    pages * 4096.0
}

//! `may`: coroutines with stacks, here with one worker, as the others have one thread.

use std::hint::black_box;
use std::sync::Arc;

use may::coroutine::{JoinHandle, spawn, yield_now};
use may::sync::Semphore;

use crate::cell::Row;
use crate::stopwatch::Stopwatch;
use crate::workloads::{OPERATIONS, yields_of};

/// A stack that is big enough for what runs here, and small enough for a million.
const STACK_WORDS: usize = 0x200;

/// Every stack is two mappings, and the kernel allows a process 65,530: with more, `may` hangs.
const STACKS_MAX: u64 = 30_000;

/// Measures one row; `None` for what cannot be asked of it.
pub(crate) fn measure(row: Row) -> Option<f64> {
    may::config()
        .set_workers(1)
        .set_stack_size(STACK_WORDS)
        .set_pool_capacity(1_000);
    let work = move || match row {
        Row::Yield(tasks) if tasks < STACKS_MAX => Some(yields(tasks)),
        Row::SpawnJoin => Some(spawn_join()),
        Row::PingPong => Some(ping_pong()),
        _ => None,
    };
    // A coroutine among the others, so that the one worker does all the work.
    start(work).join().expect("a coroutine that returned")
}

fn start<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    // SAFETY: what runs here keeps nothing in thread-local storage, and none of it needs a deep stack.
    unsafe { spawn(work) }
}

fn yields(tasks: u64) -> f64 {
    let each = yields_of(tasks) / tasks;
    let yielder = move || (0..each).for_each(|_| yield_now());
    let tasks: Vec<_> = (0..tasks).map(|_| start(yielder)).collect();
    let (count, begun) = (tasks.len() as u64, Stopwatch::start());
    tasks
        .into_iter()
        .for_each(|task| task.join().expect("a coroutine that returned"));
    begun.per_operation(each * count)
}

fn spawn_join() -> f64 {
    let begun = Stopwatch::start();
    for number in 0..OPERATIONS {
        black_box(
            start(move || number)
                .join()
                .expect("a coroutine that returned"),
        );
    }
    begun.per_operation(OPERATIONS)
}

fn ping_pong() -> f64 {
    let [ping, pong] = [(); 2].map(|()| Arc::new(Semphore::new(0)));
    let (pinged, ponged) = (Arc::clone(&ping), Arc::clone(&pong));
    let other = start(move || {
        for _ in 0..OPERATIONS {
            pinged.wait();
            ponged.post();
        }
    });
    let begun = Stopwatch::start();
    for _ in 0..OPERATIONS {
        ping.post();
        pong.wait();
    }
    let nanos = begun.per_operation(OPERATIONS);
    other.join().expect("a coroutine that returned");
    nanos
}

//! What is measured, written once for every runtime that runs futures. Each gives nanoseconds per operation, or bytes.

use std::cell::Cell;
use std::hint::black_box;
use std::rc::Rc;
use std::time::Duration;

use crate::cell::Row;
use crate::peer::{Peer, SharedFlag};
use crate::stopwatch::Stopwatch;

/// Operations of a measurement that is over quickly.
pub(crate) const OPERATIONS: u64 = 1_000_000;

/// Measures one row; `None` if the peer has no such thing.
pub(crate) fn measure<P: Peer>(row: Row) -> Option<f64> {
    match row {
        Row::Yield(tasks) => Some(P::run(move |peer| yields(peer, tasks))),
        Row::SpawnJoin => Some(P::run(spawn_join)),
        Row::SpawnAll => Some(P::run(spawn_all)),
        Row::PingPong => Some(P::run(ping_pong)),
        Row::Parked(tasks) => Some(P::run(move |peer| parked(peer, tasks))),
        Row::ParkedBare(tasks) => Some(P::run(move |peer| parked_bare(peer, tasks))),
        Row::PingPongFlag => Some(P::run(ping_pong_on_flags)),
        Row::Timers => P::run_virtual(timers)?,
    }
}

/// Yields of a row of that many tasks.
pub(crate) fn yields_of(tasks: u64) -> u64 {
    // Among very many tasks each has still enough to do for its beginning and end not to count.
    (OPERATIONS / tasks).max(30) * tasks
}

async fn yields<P: Peer>(peer: P, tasks: u64) -> f64 {
    let each = yields_of(tasks) / tasks;
    let (left, done) = (Rc::new(Cell::new(tasks)), peer.event());
    for _ in 0..tasks {
        let (yielder, left, done) = (peer.clone(), Rc::clone(&left), done.clone());
        peer.detach(async move {
            for _ in 0..each {
                yielder.yield_now().await;
            }
            left.set(left.get() - 1);
            if left.get() == 0 {
                yielder.notify(&done);
            }
        });
    }
    let start = Stopwatch::start();
    peer.wait(&done).await;
    start.per_operation(each * tasks)
}

async fn spawn_join<P: Peer>(peer: P) -> f64 {
    let start = Stopwatch::start();
    for number in 0..OPERATIONS {
        black_box(peer.spawn(async move { number }).await);
    }
    start.per_operation(OPERATIONS)
}

async fn spawn_all<P: Peer>(peer: P) -> f64 {
    let start = Stopwatch::start();
    let tasks: Vec<_> = (0..OPERATIONS)
        .map(|number| peer.spawn(async move { number }))
        .collect();
    for task in tasks {
        black_box(task.await);
    }
    start.per_operation(OPERATIONS)
}

async fn ping_pong<P: Peer>(peer: P) -> f64 {
    let (ping, pong) = (peer.event(), peer.event());
    let (ponger, pinged, ponged) = (peer.clone(), ping.clone(), pong.clone());
    let other = peer.spawn(async move {
        for _ in 0..OPERATIONS {
            ponger.wait(&pinged).await;
            ponger.notify(&ponged);
        }
    });
    let start = Stopwatch::start();
    for _ in 0..OPERATIONS {
        peer.notify(&ping);
        peer.wait(&pong).await;
    }
    let nanos = start.per_operation(OPERATIONS);
    other.await;
    nanos
}

async fn parked<P: Peer>(peer: P, tasks: u64) -> f64 {
    grown(&peer, tasks, |peer| {
        let parker = peer.clone();
        peer.detach(async move { parker.park().await });
    })
    .await
}

/// The task alone: it waits for nothing that the runtime knows.
async fn parked_bare<P: Peer>(peer: P, tasks: u64) -> f64 {
    grown(&peer, tasks, |peer| peer.detach(std::future::pending())).await
}

/// Bytes of resident memory that each of many tasks takes once it has been polled.
async fn grown<P: Peer>(peer: &P, tasks: u64, start: impl Fn(&P)) -> f64 {
    let before = resident_bytes();
    for _ in 0..tasks {
        start(peer);
    }
    // In line behind all of them.
    peer.spawn(async {}).await;
    (resident_bytes() - before) / tasks as f64
}

async fn timers<P: Peer>(peer: P) -> Option<f64> {
    let start = Stopwatch::start();
    let mut last = Duration::ZERO;
    for number in 0..OPERATIONS {
        let delay = Duration::from_millis(1 + scattered(number) % 1_000_000);
        let sleep = peer.sleep(delay)?;
        peer.detach(sleep);
        last = last.max(delay);
    }
    peer.sleep(last + Duration::from_millis(1))?.await;
    Some(start.per_operation(OPERATIONS))
}

/// Numbers in no order, as the fractional parts of multiples of the golden ratio are.
pub(crate) fn scattered(number: u64) -> u64 {
    number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24
}

/// Resident memory of this process.
pub(crate) fn resident_bytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("a /proc to read");
    let pages = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse::<f64>().ok());
    pages.expect("the resident pages in the second place") * rustix::param::page_size() as f64
}

/// Where the runtimes that lack a cell of their own, and those that have one, wait for the same thing.
pub(crate) async fn ping_pong_on_flags<P: Peer>(peer: P) -> f64 {
    let [ping, pong] = [SharedFlag::default(), SharedFlag::default()];
    let (pinged, ponged) = (Rc::clone(&ping), Rc::clone(&pong));
    let other = peer.spawn(async move {
        for _ in 0..OPERATIONS {
            pinged.wait().await;
            ponged.notify();
        }
    });
    let start = Stopwatch::start();
    for _ in 0..OPERATIONS {
        ping.notify();
        pong.wait().await;
    }
    let nanos = start.per_operation(OPERATIONS);
    other.await;
    nanos
}

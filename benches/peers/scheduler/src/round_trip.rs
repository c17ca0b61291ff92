//! One round trip from a task to the I/O runtime, a tokio `current_thread` on a thread of its own, and back.
//!
//! Ours as the daemon does it: the scheduler's thread blocks on a `std::sync::mpsc` inbox while nothing is ready, and
//! signals the key that comes in. Against what a user of tokio alone would do: the same from a task of one runtime to a
//! task of another and back by tokio's channels, and `spawn_blocking`.

use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Instant;

use scheduler::{Idle, Key, Priority, RunState, Scheduler};
use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use crate::peers::ours::watched;

/// Round trips of one measurement.
const TRIPS: u64 = 20_000;

/// How a round trip is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Ours,
    Tokio,
    SpawnBlocking,
}

impl Way {
    pub(crate) const ALL: [Self; 3] = [Self::Ours, Self::Tokio, Self::SpawnBlocking];

    /// How the table calls it.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Ours => "ours, its I/O runtime, ours",
            Self::Tokio => "tokio, another tokio, tokio",
            Self::SpawnBlocking => "tokio, `spawn_blocking`, tokio",
        }
    }

    /// Nanoseconds for each round trip, with that many tasks making them at once.
    pub(crate) fn measure(self, tasks: u64) -> f64 {
        let each = TRIPS / tasks;
        let start = Instant::now();
        match self {
            Self::Ours => ours(tasks, each),
            Self::Tokio => tokio(tasks, each),
            Self::SpawnBlocking => spawn_blocking(tasks, each),
        }
        start.elapsed().as_nanos() as f64 / (each * tasks) as f64
    }
}

/// The I/O runtime: answers every request in a task of its own, as an effect would be carried out.
fn io_thread<T: Send + 'static>(
    mut requests: UnboundedReceiver<T>,
    answer: impl Fn(T) + Clone + Send + 'static,
) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let runtime = Builder::new_current_thread()
            .build()
            .expect("a runtime without I/O");
        runtime.block_on(async move {
            while let Some(request) = requests.recv().await {
                let answer = answer.clone();
                tokio::spawn(async move { answer(request) });
            }
        });
    })
}

fn ours(tasks: u64, each: u64) {
    let (inbox, completions) = mpsc::channel::<Key>();
    let (requests, to_do) = unbounded_channel::<Key>();
    let io = io_thread(to_do, move |key| {
        inbox.send(key).expect("a loop that waits for this")
    });
    let mut scheduler = Scheduler::new(watched());
    let handle = scheduler.handle();
    for _ in 0..tasks {
        let (task, requests) = (handle.clone(), requests.clone());
        let trips = async move {
            for _ in 0..each {
                let key = task.new_key();
                requests
                    .send(key)
                    .expect("an I/O runtime that waits for this");
                task.wait_external(key).await;
            }
        };
        handle.spawn("trips", Priority::Normal, trips).detach();
    }
    drop(requests);
    loop {
        match scheduler.run(u64::MAX).state {
            RunState::Ready => {}
            RunState::Idle(Idle::Finished) => break,
            RunState::Idle(_) => {
                handle.signal(completions.recv().expect("the I/O runtime's sender"))
            }
        }
        completions.try_iter().for_each(|key| handle.signal(key));
    }
    io.join().expect("a thread that returned");
}

fn tokio(tasks: u64, each: u64) {
    let (requests, to_do) = unbounded_channel::<oneshot::Sender<()>>();
    let io = io_thread(to_do, |answer| {
        answer.send(()).expect("a task that waits for this")
    });
    on_tokio(tasks, each, move || {
        let requests: UnboundedSender<_> = requests.clone();
        async move {
            let (answer, answered) = oneshot::channel();
            requests
                .send(answer)
                .expect("an I/O runtime that waits for this");
            answered.await.expect("an answer");
        }
    });
    io.join().expect("a thread that returned");
}

fn spawn_blocking(tasks: u64, each: u64) {
    on_tokio(tasks, each, || async {
        tokio::task::spawn_blocking(|| ())
            .await
            .expect("a closure that returned")
    });
}

/// Makes round trips from tasks of a tokio `current_thread`.
fn on_tokio<F>(tasks: u64, each: u64, trip: impl Fn() -> F + Clone + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let runtime = Builder::new_current_thread()
        .build()
        .expect("a runtime without I/O");
    runtime.block_on(async {
        let trips = |trip: _| async move {
            let trip: Box<dyn Fn() -> F + Send> = trip;
            for _ in 0..each {
                trip().await;
            }
        };
        let tasks: Vec<_> = (0..tasks)
            .map(|_| tokio::spawn(trips(Box::new(trip.clone()))))
            .collect();
        drop(trip);
        for task in tasks {
            task.await.expect("a task that returned");
        }
    });
}

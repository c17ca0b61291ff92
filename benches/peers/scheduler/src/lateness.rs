//! A million timers on the real clock: each a task that sleeps until its deadline and writes down how late it was.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use scheduler::{Idle, Priority, RunState, Scheduler, Time};
use tokio::runtime::Builder;

use crate::foreign::Foreign;
use crate::peer::AssertSend;
use crate::stopwatch::Stopwatch;
use crate::workloads::scattered;

/// Timers set.
const TIMERS: u64 = 1_000_000;
/// When the first is due: late enough for all to be set by then.
const FIRST: Duration = Duration::from_secs(5);
/// Over how long they are scattered.
const SPAN: Duration = Duration::from_secs(10);
/// Polls between two looks at the clock.
const POLLS_PER_TURN: u64 = 256;

/// Who sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sleeper {
    Ours,
    Tokio,
    Go,
}

/// How it went: lateness in microseconds, and the processor's time for each timer in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lateness {
    pub(crate) median: f64,
    pub(crate) percentile_99: f64,
    pub(crate) max: f64,
    pub(crate) processor_ns: f64,
}

impl Sleeper {
    pub(crate) const ALL: [Self; 3] = [Self::Ours, Self::Tokio, Self::Go];

    /// How the table calls it.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Tokio => "tokio",
            Self::Go => "Go",
        }
    }

    /// The line that a process of its own prints; `None` for the one that is another program.
    pub(crate) fn measure_here(self) -> Option<String> {
        let used = Stopwatch::start();
        let mut late = match self {
            Self::Ours => ours(),
            Self::Tokio => tokio(),
            Self::Go => return None,
        };
        let used = used.per_operation(TIMERS);
        late.sort_unstable();
        assert_eq!(late.len() as u64, TIMERS);
        let micros = |place: u64| late[place as usize].as_nanos() as f64 / 1_000.0;
        Some(format!(
            "{} {} {} {used}",
            micros(TIMERS / 2),
            micros(TIMERS / 100 * 99),
            micros(TIMERS - 1)
        ))
    }

    /// The argument by which the other program is told what this one knows.
    pub(crate) fn foreign(self, dir: &Path) -> std::process::Command {
        Foreign::Go.program(
            dir,
            &format!("lateness:{}:{}", FIRST.as_millis(), SPAN.as_millis()),
        )
    }
}

impl Lateness {
    /// Reads the line that a process printed.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut numbers = line.split_whitespace().map(|number| number.parse().ok());
        let mut next = || numbers.next()?;
        Some(Self {
            median: next()?,
            percentile_99: next()?,
            max: next()?,
            processor_ns: next()?,
        })
    }
}

fn delay(number: u64) -> Duration {
    FIRST + Duration::from_nanos(scattered(number) % SPAN.as_nanos() as u64)
}

fn ours() -> Vec<Duration> {
    let late = Rc::new(RefCell::new(Vec::with_capacity(TIMERS as usize)));
    let mut scheduler = Scheduler::default();
    let handle = scheduler.handle();
    let start = Instant::now();
    for number in 0..TIMERS {
        let (sleeper, late) = (handle.clone(), Rc::clone(&late));
        let task = async move {
            let due = delay(number);
            sleeper.sleep_until(Time::ZERO + due).await;
            late.borrow_mut().push(start.elapsed() - due);
        };
        handle.spawn("sleeper", Priority::Normal, task).detach();
    }
    loop {
        scheduler.advance_to(Time::ZERO + start.elapsed());
        match scheduler.run(POLLS_PER_TURN).state {
            RunState::Idle(Idle::UntilTimer(deadline)) => {
                // As the daemon's loop waits, there with an inbox beside it.
                let now = Time::ZERO + start.elapsed();
                std::thread::park_timeout(deadline.duration_since(now));
            }
            RunState::Idle(Idle::Finished) => break,
            RunState::Idle(idle) => unreachable!("sleepers only, but {idle}"),
            RunState::Ready => {}
        }
    }
    late.take()
}

fn tokio() -> Vec<Duration> {
    let late = Rc::new(RefCell::new(Vec::with_capacity(TIMERS as usize)));
    let runtime = Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime with timers");
    runtime.block_on(async {
        let start = Instant::now();
        let tasks: Vec<_> = (0..TIMERS)
            .map(|number| {
                let late = Rc::clone(&late);
                tokio::spawn(AssertSend(async move {
                    let due = delay(number);
                    tokio::time::sleep_until((start + due).into()).await;
                    late.borrow_mut().push(start.elapsed() - due);
                }))
            })
            .collect();
        for task in tasks {
            task.await.expect("a task that returned");
        }
    });
    late.take()
}

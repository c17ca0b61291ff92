//! One round of one candidate.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use crate::candidates::Appender;

/// What came of a round.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// How many records were appended.
    pub records: u64,
    /// How long it took.
    pub elapsed: Duration,
}

impl Round {
    /// Records a second.
    pub fn rate(self) -> f64 {
        self.records as f64 / self.elapsed.as_secs_f64()
    }
}

/// All appenders at once, each in a thread of its own if there are several, append `count` records at a
/// time for as long as `round`.
pub fn round(
    appenders: &mut [Box<dyn Appender>],
    record: &[u8],
    count: usize,
    round: Duration,
) -> Round {
    let work = |appender: &mut dyn Appender, started: Instant| {
        let mut records = 0;
        while started.elapsed() < round {
            appender.append(record, count);
            records += count as u64;
        }
        records
    };
    if let [appender] = appenders {
        let started = Instant::now();
        let records = work(&mut **appender, started);
        let elapsed = started.elapsed();
        return Round { records, elapsed };
    }
    let ready = Barrier::new(appenders.len() + 1);
    let (ready, work) = (&ready, &work);
    std::thread::scope(|scope| {
        let threads: Vec<_> = appenders
            .iter_mut()
            .map(|appender| {
                scope.spawn(move || {
                    ready.wait();
                    work(&mut **appender, Instant::now())
                })
            })
            .collect();
        ready.wait();
        let started = Instant::now();
        let records = threads
            .into_iter()
            .map(|thread| thread.join().expect("the appender is at work"))
            .sum();
        let elapsed = started.elapsed();
        Round { records, elapsed }
    })
}

/// The value in the middle.
pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

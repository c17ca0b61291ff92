//! Durable records a second, in two ways.
//!
//! *Blocking threads*: so many threads, each of which appends a record and waits until it is durable. Who
//! gathers their records for one sync is up to the store. *Batches*: one thread hands so many records over
//! at a time, as one unit, and waits. The limit is the same for both: as many records in one write and
//! one sync.

use std::fmt;

use crate::candidates::{self, Appender, BARE, BARE_WRITTEN, Candidate, Durability, LOG, WRITER};
use crate::measure::{median, round};
use crate::plan::{self, IN_FLIGHT, Plan, RECORD_BYTES};
use crate::table::{self, NONE, whole};

/// How records are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// One by one, by threads that wait.
    Threads,
    /// Many at once, by one thread.
    Batches,
}

impl Way {
    /// With so many records in flight: how many appenders there are, and how many records each
    /// appends at once.
    pub fn split(self, in_flight: usize) -> (usize, usize) {
        match self {
            Way::Threads => (in_flight, 1),
            Way::Batches => (1, in_flight),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Way::Threads => "threads",
            Way::Batches => "batches",
        })
    }
}

/// A row of the tables: the medians by candidate.
#[derive(Debug)]
pub struct Row {
    pub way: Way,
    pub record_bytes: usize,
    pub in_flight: usize,
    rates: Vec<(&'static str, f64)>,
}

impl Row {
    /// Records a second.
    pub fn rate(&self, candidate: &dyn Candidate) -> Option<f64> {
        let found = |(name, _): &&(_, _)| *name == candidate.name();
        self.rates.iter().find(found).map(|(_, rate)| *rate)
    }

    /// The part of the limit that was reached.
    pub fn share(&self, candidate: &dyn Candidate) -> Option<f64> {
        Some(self.rate(candidate)? / self.rate(BARE)?)
    }

    /// The best of the others.
    pub fn best_peer(&self) -> f64 {
        let rates = candidates::PEERS.iter().filter_map(|peer| self.rate(*peer));
        rates.fold(0.0, f64::max)
    }
}

/// Measures and prints all of it.
pub fn measure(plan: &Plan) -> Vec<Row> {
    let mut all = Vec::new();
    for (way, what, title) in [
        (
            Way::Threads,
            "threads",
            "Durable records/s, blocking threads (share of bare, which writes as many in one batch)",
        ),
        (
            Way::Batches,
            "batch",
            "Durable records/s, one thread, batches (share of bare)",
        ),
    ] {
        let shown: Vec<_> = candidates::all()
            .filter(|candidate| way == Way::Batches || candidate.name() != LOG.name())
            .collect();
        let mut head = vec!["bytes".to_owned(), what.to_owned()];
        head.extend(shown.iter().map(|candidate| candidate.name().to_owned()));
        head.push("`wal::Writer` / best peer".to_owned());
        let mut lines = Vec::new();
        for record_bytes in RECORD_BYTES {
            for in_flight in IN_FLIGHT {
                let row = measure_row(plan, way, record_bytes, in_flight, &shown);
                lines.push(line(&row, &shown));
                all.push(row);
            }
        }
        table::print(title, &head, &lines);
    }
    all
}

fn measure_row(
    plan: &Plan,
    way: Way,
    record_bytes: usize,
    in_flight: usize,
    shown: &[&'static dyn Candidate],
) -> Row {
    let dir = plan.dir();
    let record = plan::record(record_bytes);
    let mut turns: Vec<Turn> = Vec::new();
    for (index, candidate) in shown.iter().enumerate() {
        // The limit knows no threads: it is what one batch of all their records would be.
        let is_limit = [BARE.name(), BARE_WRITTEN.name()].contains(&candidate.name());
        let way = if is_limit { Way::Batches } else { way };
        let (appenders, count) = way.split(in_flight);
        let dir = dir.path().join(index.to_string());
        std::fs::create_dir(&dir).expect("a new directory");
        let opened = candidate.open(&dir, Durability::Synced, appenders);
        turns.extend(opened.map(|appenders| Turn {
            name: candidate.name(),
            appenders,
            count,
            rates: Vec::new(),
        }));
    }
    dir.settle();
    for _ in 0..plan.rounds {
        for turn in &mut turns {
            let round = round(&mut turn.appenders, &record, turn.count, plan.round);
            turn.rates.push(round.rate());
        }
        // Nobody is to be first every time.
        turns.rotate_left(1);
    }
    Row {
        way,
        record_bytes,
        in_flight,
        rates: turns
            .iter_mut()
            .map(|turn| (turn.name, median(&mut turn.rates)))
            .collect(),
    }
}

/// A candidate at work.
struct Turn {
    name: &'static str,
    appenders: Vec<Box<dyn Appender>>,
    count: usize,
    rates: Vec<f64>,
}

fn line(row: &Row, shown: &[&'static dyn Candidate]) -> Vec<String> {
    let mut line = vec![row.record_bytes.to_string(), row.in_flight.to_string()];
    for candidate in shown {
        line.push(match (row.rate(*candidate), row.share(*candidate)) {
            (Some(rate), Some(share)) if candidate.name() != BARE.name() => {
                format!("{} ({share:.3})", whole(rate))
            }
            (Some(rate), _) => whole(rate),
            (None, _) => NONE.to_owned(),
        });
    }
    let ours = row.rate(WRITER).unwrap_or(f64::NAN);
    line.push(format!("{:.1}", ours / row.best_peer()));
    line
}

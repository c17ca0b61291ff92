//! What appending costs when nobody waits for the disk.

use std::time::Duration;

use crate::candidates::{self, Candidate, Durability};
use crate::measure::{median, round};
use crate::plan::{self, Plan, RECORD_BYTES};
use crate::table::{self, NONE, whole};

/// How many records are handed over at a time.
const BATCH: usize = 64;
/// Shorter than the other rounds: what is written stays in the page cache, and is not to fill it.
const ROUND: Duration = Duration::from_millis(50);

/// Measures and prints it.
pub fn measure(plan: &Plan) {
    let all: Vec<_> = candidates::all().collect();
    let mut head = vec!["bytes".to_owned()];
    head.extend(all.iter().map(|candidate| candidate.name().to_owned()));
    let mut lines = Vec::new();
    for record_bytes in RECORD_BYTES {
        let mut rates: Vec<Vec<f64>> = vec![Vec::new(); all.len()];
        for _ in 0..plan.rounds {
            for (candidate, rates) in all.iter().zip(&mut rates) {
                rates.extend(one_round(plan, *candidate, record_bytes));
            }
        }
        let mut line = vec![record_bytes.to_string()];
        for rates in &mut rates {
            line.push(if rates.is_empty() {
                NONE.to_owned()
            } else {
                whole(median(rates) * record_bytes as f64 / 1e6)
            });
        }
        lines.push(line);
    }
    let title = format!("MB/s of payload without sync, one thread, batches of {BATCH}");
    table::print(&title, &head, &lines);
}

/// A new store each time, so that what one round has left in memory does not slow the next.
fn one_round(plan: &Plan, candidate: &dyn Candidate, record_bytes: usize) -> Option<f64> {
    let dir = plan.dir();
    let mut appenders = candidate.open(dir.path(), Durability::Unsynced, 1)?;
    let record = plan::record(record_bytes);
    dir.settle();
    let result = round(&mut appenders, &record, BATCH, ROUND.min(plan.round));
    drop(appenders);
    Some(result.rate())
}

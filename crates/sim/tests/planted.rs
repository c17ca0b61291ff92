//! Does the simulation find what it should? Each of these faults is planted, alone, and must be found within its number of
//! seeds. `docs/simulation.md` has the table.
//!
//! The faults are compiled in with `--cfg planted` only: `cargo xtask sim --planted`. `TINKERBELL_PLANTED` chooses one of
//! them, and its story is told.
#![cfg(planted)]

use sim::hunt::{hunt_planted, seeds};

/// A fault: its name in the code, what it does, and within how many seeds, counted from 1, it must be found.
struct Fault(&'static str, &'static str, u64);

const FAULTS: &[Fault] = &[
    Fault(
        "segment-sync-dropped",
        "the log acknowledges frames without a sync",
        50,
    ),
    Fault(
        "failed-sync-retried",
        "a sync that failed is tried again and called good",
        500,
    ),
    Fault(
        "directory-sync-dropped",
        "a new segment's name is not made durable",
        500,
    ),
    Fault(
        "checksum-skipped",
        "a frame's payload is not held against its checksum",
        50,
    ),
    Fault(
        "page-cache-trusted",
        "recovery takes what it can read for durable",
        500,
    ),
    Fault(
        "torn-tail-left",
        "recovery leaves the remains of a torn frame where they are",
        2_000,
    ),
    Fault(
        "released-one-too-many",
        "retention deletes one record too many",
        2_000,
    ),
    Fault(
        "life-not-checked",
        "what an earlier life left in a segment that is used again is taken for this one's",
        2_000,
    ),
    Fault(
        "life-repeated",
        "a segment that is used again has the life that it had before",
        2_000,
    ),
    Fault(
        "released-name-unsynced",
        "a released segment is used again before the loss of its name is durable",
        2_000,
    ),
    Fault(
        "blob-sync-dropped",
        "a blob gets its name before its content is durable",
        50,
    ),
    Fault(
        "blob-directory-sync-dropped",
        "a blob's name is not made durable",
        50,
    ),
    Fault(
        "blob-after-entry",
        "a blob is written after the entry that names it",
        50,
    ),
    Fault(
        "timer-lost",
        "of two timers for one moment the first is lost",
        500,
    ),
    Fault(
        "join-lost",
        "who waits for a child is not woken at its end",
        50,
    ),
    Fault(
        "low-priority-starved",
        "a higher priority leaves nothing to a lower one",
        2_000,
    ),
    Fault(
        "acknowledged-early",
        "a submission is acknowledged before it is durable",
        50,
    ),
    Fault(
        "acknowledged-after-failure",
        "what was on its way to a disk that failed is acknowledged",
        50,
    ),
    Fault(
        "failure-ignored",
        "the engine goes on when its log has failed",
        500,
    ),
    Fault(
        "cancel-lost",
        "a cancellation is acknowledged and forgotten",
        50,
    ),
    Fault(
        "started-early",
        "every effect starts before its intent is durable",
        50,
    ),
    Fault("limit-passed", "more effects run than may", 50),
    Fault(
        "result-forgotten",
        "a finished effect is forgotten when its journal is followed",
        50,
    ),
    Fault(
        "external-rerun",
        "an interrupted external effect runs again",
        50,
    ),
    Fault(
        "interruption-untold",
        "an interrupted effect is not told that it was",
        50,
    ),
    Fault(
        "duplicate-accepted",
        "a result that comes twice counts twice",
        50,
    ),
    Fault(
        "retry-unwritten",
        "another try starts without an entry that says so",
        50,
    ),
    Fault(
        "two-deliveries-at-once",
        "a job gets two answers without coming to rest between them",
        50,
    ),
    Fault(
        "time-goes-back",
        "a timer tells its job the wall clock, wherever that was set",
        500,
    ),
    Fault(
        "signal-dropped",
        "a signal that nobody waits for yet is dropped",
        50,
    ),
    Fault(
        "checkpoint-forgets-draws",
        "a checkpoint forgets how many random numbers were drawn",
        500,
    ),
    Fault(
        "checkpoint-forgets-branches",
        "a checkpoint forgets the branches that were taken",
        50,
    ),
    Fault(
        "checkpoint-forgets-signals",
        "a checkpoint forgets signals that were not taken",
        50,
    ),
    Fault(
        "key-forgotten",
        "idempotency keys are forgotten at a restart",
        500,
    ),
    Fault(
        "live-job-released",
        "retention forgets that a job lives",
        50,
    ),
    Fault(
        "retention-ignored",
        "retention forgets jobs that are over at once",
        50,
    ),
    Fault("shown-early", "an event is shown before it is durable", 50),
    Fault(
        "space-never-again",
        "the engine does not hear that there is space again",
        2_000,
    ),
    Fault(
        "written-after-the-end",
        "jobs go on after the marker of a clean end",
        500,
    ),
];

#[test]
fn every_planted_fault_is_found() {
    let mut missed = Vec::new();
    println!("| planted fault | what it does | found at seed | within | by |");
    println!("|---|---|---|---|---|");
    let chosen = std::env::var("TINKERBELL_PLANTED").ok();
    for Fault(name, what, bound) in FAULTS {
        if chosen.as_ref().is_some_and(|chosen| chosen != name) {
            continue;
        }
        let within = seeds(*bound);
        let (seed, by) = match hunt_planted(name, within) {
            Err(found) => {
                if chosen.is_some() {
                    println!("{found} --planted {name}");
                }
                let by = found.what.lines().next().unwrap_or_default();
                (found.seed.to_string(), by.to_owned())
            }
            Ok(_) => {
                missed.push(*name);
                ("-".to_owned(), "-".to_owned())
            }
        };
        println!("| `{name}` | {what} | {seed} | {bound} | {by} |");
    }
    assert!(missed.is_empty(), "not found: {missed:?}");
}

/// What is found is the fault and not the simulation: without one all is well.
#[test]
fn without_a_fault_there_is_nothing_to_be_found() {
    let found = hunt_planted("", seeds(100));
    found.unwrap_or_else(|found| panic!("\n{found}"));
}

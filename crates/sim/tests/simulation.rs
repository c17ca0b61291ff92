//! Thousands of seeds: `TINKERBELL_SEED` sets the first, `TINKERBELL_CASES` how many.

use sim::hunt::{hunt, seeds, try_seed};
use sim::simulation::Fate;

/// So many seeds by default.
const SEEDS: u64 = 2_000;

/// What must have happened in at least one of a hundred runs, or the runs prove less than they seem to.
const HAPPENINGS: &[&str] = &[
    "another job",
    "answer again",
    "cancel",
    "checkpoints",
    "failed",
    "full disk",
    "interrupted",
    "killed",
    "leftovers",
    "name to fail",
    "not started",
    "power cut",
    "power lost",
    "released",
    "reused",
    "shutdown",
    "slow syncs",
    "stalled",
    "stopped",
    "submit again",
    "sync to fail",
    "trouble at the start",
    "upgrade",
    "wall clock",
    "write to fail",
];

#[test]
fn every_promise_is_kept_whatever_goes_wrong() {
    let summary = hunt(seeds(SEEDS)).unwrap_or_else(|found| panic!("\n{found}"));
    println!("{summary}");
    if summary.runs >= 1_000 {
        for what in HAPPENINGS {
            let runs = summary.runs_with.get(what).copied().unwrap_or(0);
            assert!(
                runs >= summary.runs / 100,
                "of {} runs only {runs} had: {what}",
                summary.runs
            );
        }
    }
}

#[test]
fn a_seed_is_a_run_to_the_last_byte() {
    for seed in seeds(SEEDS).take(100) {
        let run = || try_seed(seed, Fate::Random).unwrap_or_else(|found| panic!("\n{found}"));
        assert_eq!(run(), run(), "seed {seed} is not one run");
    }
}

/// The same runs, on whatever threads and in whatever order they come to their ends.
#[test]
fn many_seeds_at_once_are_the_same_runs() {
    let first = seeds(SEEDS).start;
    let seeds = first..first + 50;
    let summary = hunt(seeds.clone()).unwrap_or_else(|found| panic!("\n{found}"));
    let mut hash = 0;
    for seed in seeds {
        let trace = try_seed(seed, Fate::Random).unwrap_or_else(|found| panic!("\n{found}"));
        hash ^= trace.hash;
    }
    assert_eq!(summary.hash, hash);
}

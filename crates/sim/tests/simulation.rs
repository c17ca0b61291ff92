//! Thousands of seeds: `TINKERBELL_SEED` sets the first, `TINKERBELL_CASES` how many.

use sim::hunt::{hunt, seeds};

/// So many seeds by default: a good minute on one core.
const SEEDS: u64 = 3_000;

#[test]
fn every_promise_is_kept_whatever_goes_wrong() {
    let seeds = seeds(SEEDS);
    let summary = hunt(seeds.clone()).unwrap_or_else(|found| panic!("\n{found}"));
    println!("{summary}");
}

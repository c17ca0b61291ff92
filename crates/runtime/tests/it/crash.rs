//! Crashes at any moment, over random jobs: nothing that was acknowledged is lost, nothing that was finished is repeated.
//!
//! What is run, what goes wrong and what is held against it is crate `sim`; here is only how much of it, so that whoever
//! tests this crate alone meets it too. `TINKERBELL_CASES` sets the number of cases, `TINKERBELL_SEED` the first seed.

use sim::hunt::{hunt, seeds, try_seed};
use sim::simulation::{Fate, Trace};

fn run(seed: u64, fate: Fate) -> Trace {
    try_seed(seed, fate).unwrap_or_else(|found| panic!("\n{found}"))
}

#[test]
fn random_crashes() {
    hunt(seeds(100)).unwrap_or_else(|found| panic!("\n{found}"));
}

#[test]
fn a_crash_at_every_step() {
    for seed in seeds(2) {
        for step in 1..=run(seed, Fate::Spared).steps {
            run(seed, Fate::AtStep(step));
        }
    }
}

#[test]
fn a_loss_of_power_at_every_change_of_the_disk() {
    for seed in seeds(2) {
        for change in 0..run(seed, Fate::Spared).changes {
            run(seed, Fate::AfterChanges(change));
        }
    }
}

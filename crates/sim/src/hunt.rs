//! Many runs: on all cores, until one fails or all have passed.
//!
//! The one idea: a run is its seed. So all that a failing run leaves to be said is its number, the command that repeats
//! it, and the hash by which one knows that it was the same run.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, Once, PoisonError};

use crate::simulation::{Fate, Trace, run};
use crate::story::Story;

/// A run that failed.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its seed.
    pub seed: u64,
    /// What it stumbled upon.
    pub what: String,
    /// The hash over everything until then.
    pub hash: u64,
    /// The last things that happened.
    pub story: Vec<String>,
    fate: Fate,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            what,
            hash,
            story,
            fate,
        } = self;
        for line in story {
            writeln!(f, "  {line}")?;
        }
        writeln!(f, "seed {seed}, trace {hash:016x}, {fate:?}: {what}")?;
        let test = match fate {
            Fate::Random => {
                return write!(f, "to repeat it: cargo xtask sim --seed {seed} --seeds 1");
            }
            Fate::Spared | Fate::AtStep(_) => "a_crash_at_every_step",
            Fate::AfterChanges(_) => "a_loss_of_power_at_every_change_of_the_disk",
        };
        write!(
            f,
            "to repeat it: TINKERBELL_SEED={seed} TINKERBELL_CASES=1 cargo test -p runtime --test it crash::{test}"
        )
    }
}

/// What some runs had in common.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How many there were.
    pub runs: u64,
    /// How many steps they had, together.
    pub steps: u64,
    /// In how many of them each thing happened.
    pub runs_with: BTreeMap<&'static str, u64>,
    /// How often each thing happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// The hash over the hashes of all runs, in whatever order they came to their ends.
    pub hash: u64,
}

impl Summary {
    fn add(&mut self, trace: &Trace) {
        self.runs += 1;
        self.steps += trace.steps;
        self.hash ^= trace.hash;
        for (what, count) in &trace.counts {
            *self.counts.entry(what).or_default() += count;
            *self.runs_with.entry(what).or_default() += u64::from(*count > 0);
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} runs, {} steps, trace {:016x}",
            self.runs, self.steps, self.hash
        )?;
        for (what, count) in &self.counts {
            writeln!(f, "{count:>10} {what}, in {} runs", self.runs_with[what])?;
        }
        Ok(())
    }
}

/// Runs one seed.
///
/// # Errors
///
/// What it stumbled upon.
pub fn try_seed(seed: u64, fate: Fate) -> Result<Trace, Box<Found>> {
    let story = Rc::<RefCell<Story>>::default();
    let ran = quietly(|| run(seed, fate, &story));
    ran.map_err(|what| {
        let story = story.borrow();
        Box::new(Found {
            seed,
            what,
            hash: story.hash(),
            story: story.end(),
            fate,
        })
    })
}

/// Runs many seeds, on as many threads as there are cores.
///
/// # Errors
///
/// The first that fails, by number.
pub fn hunt(seeds: Range<u64>) -> Result<Summary, Box<Found>> {
    hunt_with(seeds, || {})
}

/// Runs many seeds with a fault planted.
///
/// # Errors
///
/// The first that fails, by number: it has found the fault.
#[cfg(planted)]
pub fn hunt_planted(fault: &'static str, seeds: Range<u64>) -> Result<Summary, Box<Found>> {
    hunt_with(seeds, || {
        wal::planted::plant(fault);
        scheduler::planted::plant(fault);
    })
}

fn hunt_with(seeds: Range<u64>, begin: impl Fn() + Sync) -> Result<Summary, Box<Found>> {
    let next = AtomicU64::new(seeds.start);
    let end = AtomicU64::new(seeds.end);
    let outcome = Mutex::new((Summary::default(), None::<Box<Found>>));
    let work = || {
        begin();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end.load(Ordering::Relaxed) {
                return;
            }
            let ran = try_seed(seed, Fate::Random);
            let mut outcome = outcome.lock().unwrap_or_else(PoisonError::into_inner);
            match ran {
                Ok(trace) => outcome.0.add(&trace),
                Err(found) => {
                    // Those before it are still run to their ends: the first is the one to be told.
                    end.fetch_min(seed, Ordering::Relaxed);
                    if outcome.1.as_ref().is_none_or(|first| seed < first.seed) {
                        outcome.1 = Some(found);
                    }
                }
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    match outcome.into_inner().unwrap_or_else(PoisonError::into_inner) {
        (_, Some(found)) => Err(found),
        (summary, None) => Ok(summary),
    }
}

/// The seeds that the environment asks for: from `TINKERBELL_SEED` on, `TINKERBELL_CASES` of them.
///
/// # Panics
///
/// If those are no numbers.
#[must_use]
pub fn seeds(cases: u64) -> Range<u64> {
    let number = |name: &str, default: u64| -> u64 {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let first = number("TINKERBELL_SEED", 1);
    first..first + number("TINKERBELL_CASES", cases)
}

thread_local! {
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
    static LAST_WORDS: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs something that may panic, and gives the words of the panic and their place.
///
/// Panics are part of the simulation: programs panic, and the engine goes on. So none of them is printed on this thread
/// meanwhile, and only the one that comes through is of interest.
fn quietly<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if IS_QUIET.get() {
                let place = panic
                    .location()
                    .map_or_else(String::new, |place| format!(" ({place})"));
                LAST_WORDS.set(format!("{}{place}", words(panic.payload())));
            } else {
                usual(panic);
            }
        }));
    });
    let was_quiet = IS_QUIET.replace(true);
    let ran = catch_unwind(AssertUnwindSafe(code));
    IS_QUIET.set(was_quiet);
    ran.map_err(|_| LAST_WORDS.take())
}

fn words(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words")
}

//! The deterministic simulation: a whole node in one thread, on a disk, a clock and a world that a seed decides.
//!
//! The one idea: scheduler, engine and log are state machines that are told the time and what came in, so a test can be
//! their machine, their clients and their world, and let everything happen in any order: one seed, one run, one trace
//! hash. `docs/simulation.md` says how to run it, what it checks and what it cannot find.
//!
//! - [`Node`] is the process: the engine over a real log on a simulated disk, turn by turn. Other crates' tests drive it
//!   by hand.
//! - [`World`] carries effects out. It outlives crashes, as the world does, and holds every start of an effect against
//!   what the log had durable at that moment: see [`ledger`].
//! - [`history`] compares what the log promised with what it has.
//! - [`mod@program`] makes a program of a closure; [`tale`] makes random programs.
//! - [`swarm`] says what a seed lets go wrong, [`simulation`] is one run, and [`hunt`] runs many.
//!
//! Nothing here depends on threads or on real time, so a run that fails fails every time. With `--cfg shuttle` there is
//! nothing here at all: the engine's channels are shuttle's then.
#![cfg(not(shuttle))]
#![allow(
    clippy::unwrap_used,
    clippy::missing_errors_doc,
    clippy::missing_panics_doc,
    clippy::should_implement_trait,
    reason = "this is test code: a panic is a failed test"
)]

pub mod history;
pub mod hunt;
pub mod ledger;
pub mod node;
pub mod program;
pub mod random;
pub mod simulation;
pub mod story;
pub mod swarm;
pub mod tale;
pub mod world;

pub use self::node::{Node, Setup};
pub use self::program::{FnProgram, done, failed, program, step, tried};
pub use self::random::Random;
pub use self::world::{Behaviour, Start, World};

//! A whole node in one thread: the engine over a real log on a simulated disk, with a clock that only moves when told
//! to, and a world of effects that does what a test says.
//!
//! - [`Node`] is the process: it starts, takes turns, writes the log, crashes and comes back.
//! - [`World`] carries effects out. It outlives crashes, as the world does, and holds every start of an effect against
//!   what the log had durable at that moment: see [`world::Ledger`].
//! - [`program`] makes a program of a closure.
//!
//! Nothing here depends on threads or on real time, so a test that fails fails every time.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    reason = "shared by the tests of two crates, none of which uses all of it"
)]

pub mod node;
pub mod program;
pub mod random;
pub mod world;

pub use self::node::{Node, Setup};
pub use self::program::{FnProgram, done, failed, program, step, tried};
pub use self::random::Random;
pub use self::world::{Behaviour, Start, World};

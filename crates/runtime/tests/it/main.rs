//! The runtime, tested through the doors that its users take: a node that is driven turn by turn on a simulated disk
//! (crate `sim`), and, for the threads, the real thing.
#![allow(
    clippy::unwrap_used,
    reason = "in tests, helpers included, a panic is a failed test"
)]

mod codec;
mod crash;
mod effects;
mod evolution;
mod history;
mod index;
mod intake;
mod programs;
mod sleepers;
mod stopping;
mod threads;
mod trouble;

use sim as support;

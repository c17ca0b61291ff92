//! Effect handlers: what jobs do to the outside world.
//!
//! The runtime decides that an effect runs; this crate knows how. [`ToolBox`] maps a kind of effect to its handler:
//! `process.run` runs a command ([`ProcessInput`], [`ProcessResult`]), `file.read` reads a file ([`FileReadInput`],
//! [`FileContent`]); with the feature `a2a`, `a2a.send` and `a2a.follow` hand work to another agent ([`remote`]).
//!
//! The one idea behind commands: each runs below a small process of its own, a [`supervisor`], which adopts every
//! descendant, however it tries to get away, and leaves only when none is left. What even that cannot hold, because
//! daemon and supervisors were killed together, [`leftovers`] finds by a mark in its environment. A command of class
//! `workspace` can be run again after an interruption because [`snapshot`] gives it the tree of before.
//!
//! [`model`] is what language models are told and what they answer; no effect uses it yet.
//!
//! This crate knows neither programs nor the scheduler nor the log.

mod command;
mod error;
mod file;
pub mod leftovers;
pub mod model;
mod output;
mod process;
mod procfs;
#[cfg(feature = "a2a")]
pub mod remote;
pub mod snapshot;
pub mod supervisor;
mod toolbox;
mod workspace;

pub use command::{PROCESS_RUN, ProcessInput, ProcessOutcome, ProcessResult};
pub use error::Error;
pub use file::{FILE_READ, FileContent, FileReadInput};
pub use output::{SHOW_INTERVAL, SHOWN_EVENT_BYTES};
pub use toolbox::{Attachments, Handler, Options, Performing, ToolBox};

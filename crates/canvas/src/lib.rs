//! A virtual workspace over a git repository: edits that touch nothing of the user's until they are asked to.
//!
//! A [`Canvas`] is opened over a commit of a repository. Edits are staged in memory; a [step](Canvas::step) makes a tree of them,
//! durably, in an object store of our own that sees the repository's objects as its alternates. So every step has a tree id,
//! going back to one is choosing another id, and a base commit and a tree id are all that a journal needs to bring a canvas
//! back. The user's work tree and index are never touched; objects and branches of the repository only by
//! [`commit`](Canvas::commit) and [`export`](Canvas::export), which are what asks for it.
//!
//! - [`path`]: which paths there may be. No path leaves the repository, or enters `.git`.
//! - [`patch`]: patches, and where their hunks belong.
//! - [`diff`]: what is different between two trees, as a patch.
//! - `work`: trees in a directory where commands run, and back.
//! - `commit`: micro-commits, found again after a crash, and their squash onto a branch.
//!
//! This crate knows neither jobs nor agents. All of it blocks.

mod canvas;
mod commit;
pub mod diff;
mod error;
pub mod patch;
pub mod path;
mod work;

pub use canvas::{Canvas, Content, Entry, Kind, Limits, Patched, State, TreeId};
pub use commit::{CommitId, Conflict, Export, MicroCommit, Signature};
pub use error::Error;
pub use path::RepoPath;
pub use work::{Captured, Skipped};

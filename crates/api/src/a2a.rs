//! Agent2Agent, version 1.0: JSON-RPC, HTTP+JSON and gRPC on one port, over the jobs of this node.
//!
//! A task *is* a job: its id is the job's, its context and skill are labels, its history, status and artifacts are told from
//! the job's journal. So tasks outlive the daemon, a stream taken up again after a restart misses nothing, and a message sent
//! twice makes one task. Types, codecs and routes are the protocol's own crates (`docs/a2a.md` says which and why); what
//! would be state in them is the journal here.
//!
//! - [`skill`]: which skill takes a message, and the job that it makes of it.
//! - `message`: messages as plans see them, and answers to open questions.
//! - `story`: a job's journal told as a task.
//! - `live`: the same, going on as it happens.
//! - `handler`: the protocol's operations.
//! - [`push`]: what happens to a task, sent to an address that a client has named.
//! - `serve`: connections, who may ask, and how they end.

mod card;
mod fault;
#[doc(hidden)]
pub mod fuzz;
mod handler;
mod live;
mod message;
pub mod push;
mod serve;
pub mod skill;
mod story;

pub use crate::server::Server;
pub use crate::token::TokenCheck;
pub use card::{Agent, Provider};
pub use serve::{Access, Pushes, serve};
pub use skill::{AnswerKind, Rule, Skill, Template};

/// The version of the protocol that is spoken.
pub const VERSION: &str = a2a_types::VERSION;

/// The versions of HTTP that it is spoken over, for TLS.
pub const PROTOCOLS: &[&str] = &["h2", "http/1.1"];

/// The label that every task carries, with the version of the protocol that made it.
const LABEL: &str = "a2a";
/// The label of a task's context.
const LABEL_CONTEXT: &str = "a2a.context";
/// The label of the skill that took the message.
const LABEL_SKILL: &str = "a2a.skill";

//! The effects `a2a.send` and `a2a.follow`: work handed to another agent over the Agent2Agent protocol.
//!
//! Two effects and not one, because their interruptions differ. Sending leaves a task behind, and is tried again only after
//! the other side was asked whether it has the message already; it ends as soon as the task's id is known, so that this is in
//! the journal before anything is waited for. Following leaves nothing behind: after a crash the task is taken up again by its
//! id, and is never begun twice.
//!
//! Codecs and transports are the protocol's own crate. What is here is which agent may be spoken to and with which token, what
//! of its answer a job sees, and what is done when a connection is lost.

mod agents;
mod follow;
mod send;
mod words;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use agents::{Agents, RemoteAgent, RemoteAgentError};
pub(crate) use follow::run as follow;
pub(crate) use send::run as send;

/// The kind of effect that hands a message to another agent.
pub const A2A_SEND: &str = "a2a.send";
/// The kind of effect that waits for another agent's task.
pub const A2A_FOLLOW: &str = "a2a.follow";

/// The input of `a2a.send`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendInput {
    /// Which agent, as the config calls it.
    pub agent: String,
    /// What to tell it, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// What to tell it, as data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// What to say of the message.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// The context that the message belongs to; one of its own if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// The task that the message goes on with, if it does not begin one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
}

/// The input of `a2a.follow`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FollowInput {
    /// Which agent, as the config calls it.
    pub agent: String,
    /// The task, as the agent calls it.
    pub task: String,
}

/// What an agent has made of a message so far: the result of both effects.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Delegated {
    /// The task, as the agent calls it; none if it answered at once, without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The context, as the agent calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// Where it stands.
    pub state: RemoteState,
    /// Of a task that is done, the texts of its artifacts; else, or if there are none, what was said last.
    #[serde(default)]
    pub text: String,
    /// The first data, in the same order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
    /// What it gave.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<RemoteArtifact>,
}

/// Where another agent's task stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoteState {
    /// It goes on by itself.
    Working,
    /// It wants to be told something.
    InputRequired,
    /// It wants to be shown who asks.
    AuthRequired,
    /// It is done.
    Completed,
    /// It came to nothing.
    Failed,
    /// Somebody cancelled it.
    Canceled,
    /// The agent does not do this.
    Rejected,
}

impl RemoteState {
    /// Whether nothing will happen any more unless somebody says something.
    #[must_use]
    pub fn is_settled(self) -> bool {
        self != Self::Working
    }
}

/// Something that another agent gave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoteArtifact {
    /// What it is called.
    pub name: String,
    /// What it consists of.
    pub parts: Vec<RemotePart>,
}

/// A piece of an artifact.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemotePart {
    /// What kind of data it is.
    pub media_type: String,
    /// What it is.
    #[serde(flatten)]
    pub content: RemoteContent,
}

/// What a piece of an artifact is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoteContent {
    /// Text.
    Text(String),
    /// Data.
    Data(Value),
    /// Where to find it.
    Url(String),
    /// A file, kept beside the result as a blob.
    File {
        /// What it is called.
        name: String,
        /// How large it is, in bytes.
        size: u64,
        /// The SHA-256 of it, in hexadecimal.
        blob: String,
    },
}

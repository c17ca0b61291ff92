//! Language models over HTTP: what is said to them, and what they answer, in the three languages that servers speak.
//!
//! [`Prompt`] is a conversation in our own words; [`encode`](wire::encode) puts it into those of a server, and a
//! [`Decoder`](wire::Decoder) reads the stream that comes back, byte by byte, into a [`Turn`]. Both are pure: bytes and values
//! in, values out. So what a model said can be read again from the journal, byte for byte, without it.
//!
//! Three rules stand behind the types, since a conversation that breaks one is refused by servers for ever after:
//!
//! - Every call of a turn is answered, once, before anything else is said: [`Said::Results`] follows the turn that has calls.
//! - What a model said is said back to it as it came. A [`Turn`] keeps the server's own items beside what was understood of
//!   them, so that signatures of thoughts and fields that nobody here knows survive.
//! - A call that was cut off is none: neither [`Turn::calls`] nor the items kept have it.

pub mod sse;
pub mod wire;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A conversation, and what a model may do about it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Prompt {
    /// The model, as the server calls it.
    pub model: String,
    /// What the model is to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// What was said so far.
    pub said: Vec<Said>,
    /// What the model may call, in an order that stays: a server keeps what it has read, up to the first difference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// The most that it may answer, in tokens.
    pub max_tokens: u64,
    /// How freely it chooses its words; the server's own default if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// What its answer must be, if it must be something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<OutputSchema>,
    /// Fields of the request that are passed on as they are, over ours.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extra: Map<String, Value>,
}

/// A piece of a conversation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// By whoever asks.
    User(String),
    /// By the model.
    Model(Turn),
    /// What the calls of the model's last turn gave: one for each, in its order.
    Results(Vec<CallResult>),
}

/// What a model said at once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Turn {
    /// What it said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// What it thought aloud, where a server tells.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub thinking: String,
    /// What it calls; only calls that came whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<Call>,
    /// Why it ended.
    pub stop: Stop,
    /// What it cost.
    pub usage: Usage,
    /// The model that answered, as the server calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The server's own items, to be said back to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Items>,
}

/// What a server said, as it came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Items {
    /// In which language.
    pub wire: wire::Wire,
    /// The items.
    pub list: Vec<Value>,
}

/// A call of a tool.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// What its result is to name.
    pub id: String,
    /// Which tool.
    pub name: String,
    /// With what: JSON, as it came. Empty text stands for `{}`.
    pub arguments: String,
}

impl Call {
    /// The arguments.
    ///
    /// # Errors
    ///
    /// What is wrong with them, for the model to read.
    pub fn read_arguments(&self) -> Result<Value, String> {
        if self.arguments.trim().is_empty() {
            return Ok(Value::Object(Map::new()));
        }
        serde_json::from_str(&self.arguments)
            .map_err(|error| format!("the arguments are no JSON: {error}"))
    }
}

/// What a call gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallResult {
    /// Which call.
    pub id: String,
    /// What it gave, for the model to read.
    pub text: String,
    /// Whether it failed.
    #[serde(default)]
    pub is_error: bool,
}

/// A tool that a model may call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tool {
    /// What it is called: 1 to 64 letters, digits, `_` and `-`, which all servers take.
    pub name: String,
    /// What it does, for the model.
    pub description: String,
    /// What it takes: a JSON schema of an object.
    pub parameters: Value,
}

/// What an answer must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputSchema {
    /// What it is called.
    pub name: String,
    /// Its JSON schema.
    pub schema: Value,
}

/// Why a turn ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// All is said.
    #[default]
    End,
    /// It waits for what it called.
    Calls,
    /// It had no more tokens.
    Length,
    /// It said what it was told to stop at.
    Sequence,
    /// It, or the server, would not say more.
    Refused,
    /// The server wants the turn back, to go on with it.
    Paused,
    /// The conversation is longer than the model can read.
    ContextFull,
    /// The server's own word.
    Other(String),
}

/// What a turn cost, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Read by the model, with what came from the server's cache and what went there.
    pub input: u64,
    /// Said by it, with what it thought.
    pub output: u64,
    /// Of `input`, what came from the server's cache.
    #[serde(default)]
    pub cache_read: u64,
    /// Of `input`, what went there.
    #[serde(default)]
    pub cache_write: u64,
    /// Whether the server did not say, and this was guessed.
    #[serde(default)]
    pub is_guess: bool,
}

//! The three languages of model servers.

mod chat;
mod messages;
mod responses;

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::sse::{Event, Events};
use super::{Prompt, Turn};

/// A language.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wire {
    /// OpenAI's chat completions, which most servers speak.
    Chat,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Messages,
}

impl Wire {
    /// Where requests go, below the server's base address.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Chat => "/chat/completions",
            Self::Responses => "/responses",
            Self::Messages => "/messages",
        }
    }
}

impl fmt::Display for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Messages => "messages",
        })
    }
}

/// The body of a request that asks for a stream.
#[must_use]
pub fn encode(wire: Wire, prompt: &Prompt) -> Value {
    let mut body = match wire {
        Wire::Chat => chat::encode(prompt),
        Wire::Responses => responses::encode(prompt),
        Wire::Messages => messages::encode(prompt),
    };
    for (name, value) in &prompt.extra {
        body[name] = value.clone();
    }
    body
}

/// Something that a model said just now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// Words.
    Text(String),
    /// Thoughts.
    Thinking(String),
    /// It begins to call a tool.
    Call(String),
}

/// Why a stream gave no turn.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// It ended before the turn did. What was called is not run: it may not be all of it.
    #[error("the answer was cut off before its end")]
    CutOff,
    /// The server gave up, after it had begun to answer.
    #[error("the server gave up: {kind}: {message}")]
    Server {
        /// Its word for it.
        kind: String,
        /// What it says.
        message: String,
    },
    /// What came is not in the language.
    #[error("the server does not speak as it should: {0}")]
    Malformed(String),
}

impl StreamError {
    /// Whether asking again may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::CutOff => true,
            Self::Server { kind, .. } => {
                let permanent = [
                    "invalid_request",
                    "authentication",
                    "permission",
                    "not_found",
                    "insufficient_quota",
                ];
                !permanent.iter().any(|word| kind.contains(word))
            }
            Self::Malformed(_) => false,
        }
    }
}

/// Reads what a server streams.
#[derive(Debug)]
pub struct Decoder {
    events: Events,
    reader: Reader,
    /// What went wrong, if something did: nothing after it is looked at.
    failed: Option<StreamError>,
}

#[derive(Debug)]
enum Reader {
    Chat(chat::Reader),
    Responses(responses::Reader),
    Messages(messages::Reader),
}

impl Decoder {
    /// Begins to read an answer.
    #[must_use]
    pub fn new(wire: Wire) -> Self {
        let reader = match wire {
            Wire::Chat => Reader::Chat(chat::Reader::default()),
            Wire::Responses => Reader::Responses(responses::Reader::default()),
            Wire::Messages => Reader::Messages(messages::Reader::default()),
        };
        Self {
            events: Events::default(),
            reader,
            failed: None,
        }
    }

    /// Takes in a piece of the body, and gives what the model said in it.
    pub fn push(&mut self, piece: &[u8]) -> Vec<Delta> {
        if self.failed.is_some() {
            return Vec::new();
        }
        match self.events.push(piece) {
            Ok(events) => self.read_all(events),
            Err(error) => {
                self.failed = Some(StreamError::Malformed(error.to_string()));
                Vec::new()
            }
        }
    }

    fn read_all(&mut self, events: impl IntoIterator<Item = Event>) -> Vec<Delta> {
        let mut deltas = Vec::new();
        for event in events {
            if let Err(error) = self.read(&event, &mut deltas) {
                self.failed = Some(error);
                break;
            }
        }
        deltas
    }

    fn read(&mut self, event: &Event, deltas: &mut Vec<Delta>) -> Result<(), StreamError> {
        let data = event.data.trim();
        if data.is_empty() || event.name == "ping" {
            return Ok(());
        }
        if data == "[DONE]" {
            if let Reader::Chat(reader) = &mut self.reader {
                reader.is_done = true;
            }
            return Ok(());
        }
        let value: Value = serde_json::from_str(data)
            .map_err(|error| StreamError::Malformed(format!("an event is no JSON: {error}")))?;
        // All three have it, some under a name of its own and some among the others.
        if event.name == "error" || value["type"] == "error" || value["error"].is_object() {
            return Err(server_error(&value));
        }
        match &mut self.reader {
            Reader::Chat(reader) => reader.read(&value, deltas),
            Reader::Responses(reader) => reader.read(value, deltas),
            Reader::Messages(reader) => reader.read(&value, deltas),
        }
    }

    /// The turn, once the body has ended.
    ///
    /// # Errors
    ///
    /// Why there is none.
    pub fn finish(mut self) -> Result<Turn, StreamError> {
        if self.failed.is_none() {
            let last = self.events.finish();
            self.read_all(last);
        }
        if let Some(error) = self.failed {
            return Err(error);
        }
        match self.reader {
            Reader::Chat(reader) => reader.finish(),
            Reader::Responses(reader) => reader.finish(),
            Reader::Messages(reader) => reader.finish(),
        }
    }
}

fn server_error(value: &Value) -> StreamError {
    let error = match &value["error"] {
        Value::Object(_) => &value["error"],
        _ => value,
    };
    let text = |name: &str| error[name].as_str().filter(|text| !text.is_empty());
    let kind = text("code").or(text("type")).unwrap_or("error");
    StreamError::Server {
        kind: kind.to_owned(),
        message: text("message").unwrap_or("it does not say why").to_owned(),
    }
}

/// A number of a field, 0 if there is none.
fn count(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// Text of a field, empty if there is none.
fn text_of(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// What is said of a tool that gave nothing: servers refuse an empty answer.
const NOTHING: &str = "(no output)";

fn answer_of(text: &str) -> &str {
    match text.trim().is_empty() {
        true => NOTHING,
        false => text,
    }
}

/// Tokens of a text, if nobody counts: about four bytes each, as servers say of English.
fn guess(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(4)
}

#[cfg(test)]
mod tests;

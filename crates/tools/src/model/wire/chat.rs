//! OpenAI's chat completions, as OpenAI and the many servers that are said to be compatible speak them.
//!
//! What those do, and what is done about it: a call's `index` may be missing, or 0 for every call (a new id opens a new call); a
//! whole call may come at once; `choices` may be empty or null; usage may come with the last words, after them, or never;
//! `finish_reason` may say `stop` although there are calls. So calls are known by their presence.

use serde_json::{Value, json};

use super::{Delta, StreamError, Wire, answer_of, count, guess, text_of};
use crate::model::{Call, Items, Prompt, Said, Stop, Turn, Usage};

pub(super) fn encode(prompt: &Prompt) -> Value {
    let mut messages = Vec::new();
    messages.extend(
        prompt
            .system
            .iter()
            .map(|text| json!({"role": "system", "content": text})),
    );
    for said in &prompt.said {
        match said {
            Said::User(text) => messages.push(json!({"role": "user", "content": text})),
            Said::Model(turn) => messages.push(said_back(turn)),
            Said::Results(results) => messages.extend(results.iter().map(|result| {
                json!({"role": "tool", "tool_call_id": result.id, "content": answer_of(&result.text)})
            })),
        }
    }
    let mut body = json!({
        "model": prompt.model,
        "messages": messages,
        "max_tokens": prompt.max_tokens,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    if !prompt.tools.is_empty() {
        let tool = |tool: &crate::model::Tool| {
            json!({"type": "function", "function": {
                "name": tool.name, "description": tool.description, "parameters": tool.parameters,
            }})
        };
        body["tools"] = prompt.tools.iter().map(tool).collect();
    }
    if let Some(temperature) = prompt.temperature {
        body["temperature"] = json!(temperature);
    }
    if let Some(output) = &prompt.output {
        body["response_format"] = json!({"type": "json_schema", "json_schema": {
            "name": output.name, "schema": output.schema, "strict": true,
        }});
    }
    body
}

fn said_back(turn: &Turn) -> Value {
    if let Some(items) = turn.items.as_ref().filter(|items| items.wire == Wire::Chat)
        && let [message] = &items.list[..]
    {
        return message.clone();
    }
    message_of(turn)
}

/// A turn as a message, made from what was understood of it.
fn message_of(turn: &Turn) -> Value {
    let mut message = json!({"role": "assistant"});
    if !turn.text.is_empty() || turn.calls.is_empty() {
        message["content"] = turn.text.clone().into();
    }
    if !turn.calls.is_empty() {
        let call = |call: &Call| {
            let arguments = match call.arguments.trim().is_empty() {
                true => "{}",
                false => &call.arguments,
            };
            json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}})
        };
        message["tool_calls"] = turn.calls.iter().map(call).collect();
    }
    message
}

#[derive(Debug, Default)]
pub(super) struct Reader {
    text: String,
    thinking: String,
    /// In the order in which they began, each with the index it goes by.
    calls: Vec<(Option<u64>, Call)>,
    finish_reason: Option<String>,
    usage: Option<Usage>,
    model: Option<String>,
    bytes: usize,
    pub(super) is_done: bool,
}

impl Reader {
    pub(super) fn read(
        &mut self,
        chunk: &Value,
        deltas: &mut Vec<Delta>,
    ) -> Result<(), StreamError> {
        if let Some(model) = chunk["model"].as_str().filter(|model| !model.is_empty()) {
            self.model.get_or_insert_with(|| model.to_owned());
        }
        if chunk["usage"].is_object() {
            self.usage = Some(usage_of(&chunk["usage"]));
        }
        // Null, empty, or one: we ask for no more.
        let Some(choice) = chunk["choices"].get(0) else {
            return Ok(());
        };
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish_reason = Some(reason.to_owned());
        }
        // A server that was asked for a stream and gives a whole answer has the same under another name.
        let delta = match &choice["delta"] {
            Value::Null => &choice["message"],
            delta => delta,
        };
        for name in ["reasoning_content", "reasoning"] {
            let thought = text_of(&delta[name]);
            if !thought.is_empty() {
                self.thinking.push_str(thought);
                self.bytes += thought.len();
                deltas.push(Delta::Thinking(thought.to_owned()));
                break;
            }
        }
        for name in ["content", "refusal"] {
            let words = text_of(&delta[name]);
            if !words.is_empty() {
                self.text.push_str(words);
                self.bytes += words.len();
                deltas.push(Delta::Text(words.to_owned()));
            }
        }
        if let Some(pieces) = delta["tool_calls"].as_array() {
            for piece in pieces {
                self.call(piece, deltas)?;
            }
        }
        Ok(())
    }

    fn call(&mut self, piece: &Value, deltas: &mut Vec<Delta>) -> Result<(), StreamError> {
        let (id, name) = (text_of(&piece["id"]), text_of(&piece["function"]["name"]));
        let index = piece["index"].as_u64();
        let open = match index {
            // The last with this index, unless an id says that this is another call.
            Some(_) => self
                .calls
                .iter()
                .rposition(|(known, call)| *known == index && (id.is_empty() || call.id == id)),
            // Without an index: the one of this id, or the last, if it has none.
            None if id.is_empty() && name.is_empty() => self.calls.len().checked_sub(1),
            None => self
                .calls
                .iter()
                .rposition(|(_, call)| !id.is_empty() && call.id == id),
        };
        let at = match open {
            Some(at) => at,
            None if name.is_empty() => {
                return Err(StreamError::Malformed(
                    "a piece of a call belongs to none that has begun".to_owned(),
                ));
            }
            None => {
                deltas.push(Delta::Call(name.to_owned()));
                let call = Call {
                    id: match id {
                        "" => format!("call_{}", self.calls.len()),
                        id => id.to_owned(),
                    },
                    name: name.to_owned(),
                    arguments: String::new(),
                };
                self.calls.push((index, call));
                self.calls.len() - 1
            }
        };
        let arguments = match &piece["function"]["arguments"] {
            // Some give the arguments themselves, and not their text.
            arguments @ (Value::Object(_) | Value::Array(_)) => arguments.to_string(),
            arguments => text_of(arguments).to_owned(),
        };
        self.bytes += arguments.len();
        self.calls[at].1.arguments.push_str(&arguments);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Turn, StreamError> {
        if !self.is_done && self.finish_reason.is_none() {
            return Err(StreamError::CutOff);
        }
        let mut calls: Vec<Call> = self.calls.into_iter().map(|(_, call)| call).collect();
        let reason = self.finish_reason.as_deref();
        if matches!(reason, Some("length" | "content_filter")) {
            // Calls come one after the other: the last one may not be whole.
            calls.pop();
        }
        let stop = match reason {
            Some("length") => Stop::Length,
            Some("content_filter") => Stop::Refused,
            _ if !calls.is_empty() => Stop::Calls,
            Some("stop" | "tool_calls" | "function_call") | None => Stop::End,
            Some(other) => Stop::Other(other.to_owned()),
        };
        let mut turn = Turn {
            text: self.text,
            thinking: self.thinking,
            calls,
            stop,
            usage: self.usage.unwrap_or(Usage {
                output: guess(self.bytes),
                is_guess: true,
                ..Usage::default()
            }),
            model: self.model,
            items: None,
        };
        turn.items = Some(Items {
            wire: Wire::Chat,
            list: vec![message_of(&turn)],
        });
        Ok(turn)
    }
}

fn usage_of(usage: &Value) -> Usage {
    Usage {
        input: count(&usage["prompt_tokens"]),
        output: count(&usage["completion_tokens"]),
        cache_read: count(&usage["prompt_tokens_details"]["cached_tokens"]),
        cache_write: 0,
        is_guess: false,
    }
}

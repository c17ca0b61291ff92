//! Anthropic's messages.
//!
//! Two rules of this one are strict: all results of a turn stand in one user message, before any words of the user's; and a
//! turn is said back with its blocks as they came, thoughts with their signatures above all. So the blocks are kept as values
//! and put together from their deltas without being understood.

use serde_json::{Value, json};

use super::{Delta, StreamError, Wire, answer_of, count, text_of};
use crate::model::{Call, Items, Prompt, Said, Stop, Turn, Usage};

pub(super) fn encode(prompt: &Prompt) -> Value {
    let mut messages: Vec<Value> = Vec::new();
    for said in &prompt.said {
        match said {
            Said::User(text) => {
                let block = json!({"type": "text", "text": answer_of(text)});
                // Behind the results, in the message that has them: two messages of one side are one anyway.
                match messages.last_mut().filter(|last| last["role"] == "user") {
                    Some(last) => push_block(last, block),
                    None => messages.push(json!({"role": "user", "content": [block]})),
                }
            }
            Said::Model(turn) => messages.push(said_back(turn)),
            Said::Results(results) => {
                let blocks = results.iter().map(|result| {
                    let mut block = json!({
                        "type": "tool_result",
                        "tool_use_id": result.id,
                        "content": answer_of(&result.text),
                    });
                    if result.is_error {
                        block["is_error"] = true.into();
                    }
                    block
                });
                messages.push(json!({"role": "user", "content": blocks.collect::<Vec<_>>()}));
            }
        }
    }
    let mut body = json!({
        "model": prompt.model,
        "messages": messages,
        "max_tokens": prompt.max_tokens,
        "stream": true,
    });
    if let Some(system) = &prompt.system {
        body["system"] =
            json!([{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]);
    }
    if !prompt.tools.is_empty() {
        let tool = |tool: &crate::model::Tool| json!({"name": tool.name, "description": tool.description, "input_schema": tool.parameters});
        body["tools"] = prompt.tools.iter().map(tool).collect();
    }
    if let Some(temperature) = prompt.temperature {
        body["temperature"] = json!(temperature);
    }
    if let Some(output) = &prompt.output {
        body["output_config"] = json!({"format": {"type": "json_schema", "schema": output.schema}});
    }
    body
}

fn push_block(message: &mut Value, block: Value) {
    if let Some(blocks) = message["content"].as_array_mut() {
        blocks.push(block);
    }
}

fn said_back(turn: &Turn) -> Value {
    if let Some(items) = turn
        .items
        .as_ref()
        .filter(|items| items.wire == Wire::Messages)
    {
        return json!({"role": "assistant", "content": items.list});
    }
    let mut blocks = Vec::new();
    if !turn.text.is_empty() {
        blocks.push(json!({"type": "text", "text": turn.text}));
    }
    blocks.extend(turn.calls.iter().map(|call| {
        // What cannot be read is said back as nothing: the result says what was wrong with it.
        let input = call.read_arguments().ok().filter(Value::is_object);
        json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input.unwrap_or_else(|| json!({}))})
    }));
    if blocks.is_empty() {
        // Another server's turn of no words, which this one would refuse.
        blocks.push(json!({"type": "text", "text": super::NOTHING}));
    }
    json!({"role": "assistant", "content": blocks})
}

#[derive(Debug, Default)]
pub(super) struct Reader {
    blocks: Vec<Block>,
    stop_reason: Option<String>,
    usage: Usage,
    model: Option<String>,
    is_over: bool,
}

#[derive(Debug)]
struct Block {
    index: u64,
    /// As it began, with its deltas put in.
    value: Value,
    /// The input of a call, as text.
    input: String,
    is_whole: bool,
}

impl Reader {
    pub(super) fn read(
        &mut self,
        event: &Value,
        deltas: &mut Vec<Delta>,
    ) -> Result<(), StreamError> {
        match text_of(&event["type"]) {
            "message_start" => {
                let message = &event["message"];
                self.model = message["model"].as_str().map(str::to_owned);
                self.add_usage(&message["usage"]);
            }
            "content_block_start" => {
                let block = event["content_block"].clone();
                if block["type"] == "tool_use" {
                    deltas.push(Delta::Call(text_of(&block["name"]).to_owned()));
                }
                self.blocks.push(Block {
                    index: count(&event["index"]),
                    value: block,
                    input: String::new(),
                    is_whole: false,
                });
            }
            "content_block_delta" => self.delta(event, deltas)?,
            "content_block_stop" => {
                let block = self.block(event)?;
                block.is_whole = true;
            }
            "message_delta" => {
                let reason = event["delta"]["stop_reason"].as_str();
                self.stop_reason = reason.map(str::to_owned).or(self.stop_reason.take());
                self.add_usage(&event["usage"]);
            }
            "message_stop" => self.is_over = true,
            // What is new may be passed over, as the protocol says.
            _ => {}
        }
        Ok(())
    }

    fn block(&mut self, event: &Value) -> Result<&mut Block, StreamError> {
        let index = count(&event["index"]);
        let found = self
            .blocks
            .iter_mut()
            .rev()
            .find(|block| block.index == index);
        found.ok_or_else(|| StreamError::Malformed(format!("block {index} has not begun")))
    }

    fn delta(&mut self, event: &Value, deltas: &mut Vec<Delta>) -> Result<(), StreamError> {
        let delta = event["delta"].clone();
        let block = self.block(event)?;
        match text_of(&delta["type"]) {
            "text_delta" => {
                append(&mut block.value, "text", &delta["text"]);
                deltas.push(Delta::Text(text_of(&delta["text"]).to_owned()));
            }
            "thinking_delta" => {
                append(&mut block.value, "thinking", &delta["thinking"]);
                deltas.push(Delta::Thinking(text_of(&delta["thinking"]).to_owned()));
            }
            "signature_delta" => append(&mut block.value, "signature", &delta["signature"]),
            "input_json_delta" => block.input.push_str(text_of(&delta["partial_json"])),
            "citations_delta" => match block.value["citations"].as_array_mut() {
                Some(citations) => citations.push(delta["citation"].clone()),
                None => block.value["citations"] = json!([delta["citation"]]),
            },
            _ => {}
        }
        Ok(())
    }

    /// Each count is of all so far, and not every event has every one.
    fn add_usage(&mut self, usage: &Value) {
        let known = |value: &Value, last: u64| value.as_u64().unwrap_or(last);
        let cached = self.usage.cache_read.saturating_add(self.usage.cache_write);
        let fresh = self.usage.input.saturating_sub(cached);
        let fresh = known(&usage["input_tokens"], fresh);
        self.usage.cache_read = known(&usage["cache_read_input_tokens"], self.usage.cache_read);
        self.usage.cache_write = known(
            &usage["cache_creation_input_tokens"],
            self.usage.cache_write,
        );
        self.usage.input = fresh
            .saturating_add(self.usage.cache_read)
            .saturating_add(self.usage.cache_write);
        self.usage.output = known(&usage["output_tokens"], self.usage.output);
    }

    pub(super) fn finish(self) -> Result<Turn, StreamError> {
        if !self.is_over {
            return Err(StreamError::CutOff);
        }
        let reason = self.stop_reason.as_deref();
        let mut turn = Turn {
            usage: self.usage,
            model: self.model,
            ..Turn::default()
        };
        let mut list = Vec::new();
        let count = self.blocks.len();
        for (at, mut block) in self.blocks.into_iter().enumerate() {
            let is_call = block.value["type"] == "tool_use";
            // Even a call that was ended is not whole if the tokens ran out in it.
            let is_cut = !block.is_whole || (reason == Some("max_tokens") && at + 1 == count);
            if is_call && is_cut {
                continue;
            }
            match text_of(&block.value["type"]) {
                "text" => turn.text.push_str(text_of(&block.value["text"])),
                "thinking" => turn.thinking.push_str(text_of(&block.value["thinking"])),
                "tool_use" => {
                    if !block.input.trim().is_empty() {
                        // What is no JSON stays with the call, and its result says so.
                        block.value["input"] =
                            serde_json::from_str(&block.input).unwrap_or_else(|_| json!({}));
                    } else if block.value["input"].is_object() {
                        block.input = block.value["input"].to_string();
                    }
                    turn.calls.push(Call {
                        id: text_of(&block.value["id"]).to_owned(),
                        name: text_of(&block.value["name"]).to_owned(),
                        arguments: block.input,
                    });
                }
                _ => {}
            }
            // An empty text is what a server refuses when it is said back.
            if block.value["type"] != "text" || !text_of(&block.value["text"]).is_empty() {
                list.push(block.value);
            }
        }
        turn.stop = match reason {
            Some("max_tokens") => Stop::Length,
            Some("stop_sequence") => Stop::Sequence,
            Some("pause_turn") => Stop::Paused,
            Some("refusal") => Stop::Refused,
            Some("model_context_window_exceeded") => Stop::ContextFull,
            _ if !turn.calls.is_empty() => Stop::Calls,
            Some("end_turn" | "tool_use") | None => Stop::End,
            Some(other) => Stop::Other(other.to_owned()),
        };
        turn.items = (!list.is_empty()).then_some(Items {
            wire: Wire::Messages,
            list,
        });
        Ok(turn)
    }
}

fn append(block: &mut Value, field: &str, more: &Value) {
    let text = format!("{}{}", text_of(&block[field]), text_of(more));
    block[field] = text.into();
}

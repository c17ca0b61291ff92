//! OpenAI's responses.
//!
//! State stays here: `store` is false, the whole conversation goes with every request, and what the model thought comes
//! encrypted and is said back. A call has two ids, that of the item and that of the call; results name the second. There is no
//! `[DONE]`: the last event says how it ended.

use serde_json::{Value, json};

use super::{Delta, StreamError, Wire, answer_of, count, guess, text_of};
use crate::model::{Call, Items, Prompt, Said, Stop, Turn, Usage};

pub(super) fn encode(prompt: &Prompt) -> Value {
    let mut input = Vec::new();
    for said in &prompt.said {
        match said {
            Said::User(text) => input.push(json!({"role": "user", "content": text})),
            Said::Model(turn) => input.extend(said_back(turn)),
            Said::Results(results) => input.extend(results.iter().map(|result| {
                json!({"type": "function_call_output", "call_id": result.id, "output": answer_of(&result.text)})
            })),
        }
    }
    let mut body = json!({
        "model": prompt.model,
        "input": input,
        "max_output_tokens": prompt.max_tokens,
        "stream": true,
        "store": false,
        "include": ["reasoning.encrypted_content"],
    });
    if let Some(system) = &prompt.system {
        body["instructions"] = system.clone().into();
    }
    if !prompt.tools.is_empty() {
        let tool = |tool: &crate::model::Tool| {
            json!({
                "type": "function", "name": tool.name, "description": tool.description,
                "parameters": tool.parameters, "strict": false,
            })
        };
        body["tools"] = prompt.tools.iter().map(tool).collect();
    }
    if let Some(temperature) = prompt.temperature {
        body["temperature"] = json!(temperature);
    }
    if let Some(output) = &prompt.output {
        body["text"] = json!({"format": {
            "type": "json_schema", "name": output.name, "schema": output.schema, "strict": true,
        }});
    }
    body
}

fn said_back(turn: &Turn) -> Vec<Value> {
    if let Some(items) = turn
        .items
        .as_ref()
        .filter(|items| items.wire == Wire::Responses)
    {
        return items.list.clone();
    }
    let mut items = Vec::new();
    if !turn.text.is_empty() {
        items.push(json!({"role": "assistant", "content": turn.text}));
    }
    items.extend(turn.calls.iter().map(|call| {
        let arguments = match call.arguments.trim().is_empty() {
            true => "{}",
            false => &call.arguments,
        };
        json!({"type": "function_call", "call_id": call.id, "name": call.name, "arguments": arguments})
    }));
    items
}

#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Items that are whole, each with its place.
    items: Vec<(u64, Value)>,
    end: Option<Value>,
}

impl Reader {
    pub(super) fn read(
        &mut self,
        mut event: Value,
        deltas: &mut Vec<Delta>,
    ) -> Result<(), StreamError> {
        let delta = |event: &Value| text_of(&event["delta"]).to_owned();
        match text_of(&event["type"]) {
            "response.output_text.delta" | "response.refusal.delta" => {
                deltas.push(Delta::Text(delta(&event)));
            }
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                deltas.push(Delta::Thinking(delta(&event)));
            }
            "response.output_item.added" if event["item"]["type"] == "function_call" => {
                deltas.push(Delta::Call(text_of(&event["item"]["name"]).to_owned()));
            }
            "response.output_item.done" => {
                let index = count(&event["output_index"]);
                let item = event["item"].take();
                match self.items.iter_mut().find(|(known, _)| *known == index) {
                    Some((_, known)) => *known = item,
                    None => self.items.push((index, item)),
                }
            }
            "response.failed" => {
                let error = &event["response"]["error"];
                let kind = text_of(&error["code"]);
                return Err(StreamError::Server {
                    kind: if kind.is_empty() { "failed" } else { kind }.to_owned(),
                    message: text_of(&error["message"]).to_owned(),
                });
            }
            "response.completed" | "response.incomplete" => {
                self.end = Some(event["response"].take());
            }
            _ => {}
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Turn, StreamError> {
        let end = self.end.ok_or(StreamError::CutOff)?;
        if self.items.is_empty()
            && let Some(output) = end["output"].as_array()
        {
            // A server that gives its items at the end only.
            self.items = (0..).zip(output.iter().cloned()).collect();
        }
        self.items.sort_by_key(|(index, _)| *index);
        let mut turn = Turn {
            usage: usage_of(&end["usage"]),
            model: end["model"].as_str().map(str::to_owned),
            ..Turn::default()
        };
        let mut list = Vec::new();
        let mut is_refused = false;
        for (_, item) in self.items {
            match text_of(&item["type"]) {
                "message" => {
                    for part in item["content"].as_array().into_iter().flatten() {
                        is_refused |= part["type"] == "refusal";
                        turn.text.push_str(text_of(&part["text"]));
                        turn.text.push_str(text_of(&part["refusal"]));
                    }
                }
                "reasoning" => {
                    for part in item["summary"].as_array().into_iter().flatten() {
                        turn.thinking.push_str(text_of(&part["text"]));
                    }
                }
                "function_call" => {
                    if item["status"] == "incomplete" {
                        continue;
                    }
                    turn.calls.push(Call {
                        id: text_of(&item["call_id"]).to_owned(),
                        name: text_of(&item["name"]).to_owned(),
                        arguments: text_of(&item["arguments"]).to_owned(),
                    });
                }
                _ => {}
            }
            list.push(item);
        }
        turn.stop = match text_of(&end["incomplete_details"]["reason"]) {
            "max_output_tokens" => Stop::Length,
            "content_filter" => Stop::Refused,
            "" if !turn.calls.is_empty() => Stop::Calls,
            "" if is_refused => Stop::Refused,
            "" => Stop::End,
            other => Stop::Other(other.to_owned()),
        };
        if turn.usage.is_guess {
            let arguments: usize = turn.calls.iter().map(|call| call.arguments.len()).sum();
            turn.usage.output = guess(turn.text.len() + turn.thinking.len() + arguments);
        }
        turn.items = (!list.is_empty()).then_some(Items {
            wire: Wire::Responses,
            list,
        });
        Ok(turn)
    }
}

fn usage_of(usage: &Value) -> Usage {
    Usage {
        input: count(&usage["input_tokens"]),
        output: count(&usage["output_tokens"]),
        cache_read: count(&usage["input_tokens_details"]["cached_tokens"]),
        cache_write: 0,
        is_guess: !usage.is_object(),
    }
}

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::{Call, CallResult, OutputSchema, Said, Stop, Tool, Usage};

fn stream(events: &[Value]) -> String {
    events
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect()
}

fn decoded(wire: Wire, body: &str) -> Result<Turn, StreamError> {
    let mut decoder = Decoder::new(wire);
    decoder.push(body.as_bytes());
    decoder.finish()
}

fn deltas(wire: Wire, body: &str) -> Vec<Delta> {
    Decoder::new(wire).push(body.as_bytes())
}

fn call(id: &str, name: &str, arguments: &str) -> Call {
    Call {
        id: id.to_owned(),
        name: name.to_owned(),
        arguments: arguments.to_owned(),
    }
}

/// A chunk of a chat.
#[expect(
    clippy::needless_pass_by_value,
    reason = "values are made in place, so that a test reads well"
)]
fn chunk(delta: Value, finish_reason: Value) -> Value {
    json!({"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})
}

fn piece(index: Value, id: &str, name: &str, arguments: &str) -> Value {
    let mut piece = json!({"function": {"arguments": arguments}});
    if !index.is_null() {
        piece["index"] = index;
    }
    if !id.is_empty() {
        piece["id"] = id.into();
    }
    if !name.is_empty() {
        piece["function"]["name"] = name.into();
    }
    chunk(json!({"tool_calls": [piece]}), Value::Null)
}

#[test]
fn a_chat_is_read_with_its_calls_and_its_cost() {
    let body = stream(&[
        chunk(json!({"role": "assistant", "content": ""}), Value::Null),
        chunk(json!({"reasoning_content": "hm"}), Value::Null),
        chunk(json!({"content": "Let me "}), Value::Null),
        chunk(json!({"content": "look."}), Value::Null),
        piece(json!(0), "a", "read", ""),
        piece(json!(0), "", "", "{\"path\":"),
        piece(json!(1), "b", "list", "{}"),
        piece(json!(0), "", "", "\"x\"}"),
        chunk(json!({}), json!("tool_calls")),
        json!({"choices": [], "usage": {
            "prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4},
        }}),
    ]) + "data: [DONE]\n\n";
    let turn = decoded(Wire::Chat, &body).unwrap();
    assert_eq!(
        (turn.text.as_str(), turn.thinking.as_str()),
        ("Let me look.", "hm")
    );
    assert_eq!(
        turn.calls,
        [
            call("a", "read", "{\"path\":\"x\"}"),
            call("b", "list", "{}")
        ]
    );
    assert_eq!(turn.stop, Stop::Calls);
    let usage = Usage {
        input: 10,
        output: 5,
        cache_read: 4,
        ..Usage::default()
    };
    assert_eq!((turn.usage, turn.model.as_deref()), (usage, Some("m")));
    assert_eq!(
        deltas(Wire::Chat, &body),
        [
            Delta::Thinking("hm".to_owned()),
            Delta::Text("Let me ".to_owned()),
            Delta::Text("look.".to_owned()),
            Delta::Call("read".to_owned()),
            Delta::Call("list".to_owned()),
        ]
    );
}

#[test]
fn what_foreign_servers_send_is_understood() {
    let end = chunk(json!({}), json!("stop"));
    // No index at all; every call at index 0; whole calls in one chunk; arguments that are no text.
    let no_index = [
        piece(Value::Null, "a", "x", "{\"n\":"),
        piece(Value::Null, "", "", "1}"),
        piece(Value::Null, "b", "y", ""),
    ];
    let zeros = [
        piece(json!(0), "a", "x", "{\"n\":1}"),
        piece(json!(0), "b", "y", ""),
    ];
    let whole = [chunk(
        json!({"tool_calls": [
            {"index": 0, "id": "a", "function": {"name": "x", "arguments": {"n": 1}}},
            {"index": 1, "id": "b", "function": {"name": "y"}},
        ]}),
        Value::Null,
    )];
    for pieces in [&no_index[..], &zeros, &whole] {
        let body = stream(pieces) + &stream(std::slice::from_ref(&end)) + "data: [DONE]\n\n";
        let turn = decoded(Wire::Chat, &body).unwrap();
        assert_eq!(
            turn.calls,
            [call("a", "x", "{\"n\":1}"), call("b", "y", "")],
            "{body}"
        );
        assert_eq!(turn.calls[1].read_arguments(), Ok(json!({})));
        // Whatever the server calls its end.
        assert_eq!(turn.stop, Stop::Calls);
        assert!(turn.usage.is_guess && turn.usage.output > 0);
    }
    // `choices` is null, usage comes with the last words, there is no `[DONE]`, and an event is a comment.
    let body = ": OPENROUTER PROCESSING\n\n".to_owned()
        + &stream(&[
            json!({"choices": null}),
            json!({"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}),
        ]);
    let turn = decoded(Wire::Chat, &body).unwrap();
    assert_eq!(
        (turn.text.as_str(), turn.stop, turn.usage.output),
        ("hi", Stop::End, 1)
    );
}

#[test]
fn what_is_cut_off_is_not_run() {
    let half = stream(&[piece(json!(0), "a", "x", "{\"n\":1}")]);
    assert_eq!(decoded(Wire::Chat, &half), Err(StreamError::CutOff));
    let length = stream(&[
        piece(json!(0), "a", "x", "{}"),
        piece(json!(1), "b", "y", "{}"),
        chunk(json!({}), json!("length")),
    ]);
    let turn = decoded(Wire::Chat, &length).unwrap();
    assert_eq!(
        (turn.calls, turn.stop),
        (vec![call("a", "x", "{}")], Stop::Length)
    );
    let said = &turn.items.unwrap().list[0];
    assert_eq!(said["tool_calls"].as_array().unwrap().len(), 1);

    let events = messages_of(
        &[("t", "x", "{\"n\":1}"), ("u", "y", "{\"n\"")],
        "max_tokens",
    );
    let turn = decoded(Wire::Messages, &stream(&events)).unwrap();
    assert_eq!(
        (turn.calls, turn.stop),
        (vec![call("t", "x", "{\"n\":1}")], Stop::Length)
    );
    assert_eq!(turn.items.unwrap().list.len(), 1);
    let (_, all_but_last) = events.split_last().unwrap();
    assert_eq!(
        decoded(Wire::Messages, &stream(all_but_last)),
        Err(StreamError::CutOff)
    );

    let incomplete = stream(&[
        json!({"type": "response.output_item.done", "output_index": 0, "item": {
            "type": "function_call", "call_id": "c", "name": "x", "arguments": "{", "status": "incomplete"}}),
        json!({"type": "response.incomplete", "response": {"incomplete_details": {"reason": "max_output_tokens"}}}),
    ]);
    let turn = decoded(Wire::Responses, &incomplete).unwrap();
    assert_eq!(
        (turn.calls.len(), turn.stop, turn.items),
        (0, Stop::Length, None)
    );
}

/// The events of a turn of nothing but calls.
fn messages_of(calls: &[(&str, &str, &str)], stop_reason: &str) -> Vec<Value> {
    let mut events = vec![
        json!({"type": "message_start", "message": {"model": "m", "usage": {
        "input_tokens": 3, "cache_read_input_tokens": 20, "cache_creation_input_tokens": 100, "output_tokens": 1}}}),
    ];
    for (index, (id, name, input)) in calls.iter().enumerate() {
        events.push(json!({"type": "content_block_start", "index": index,
            "content_block": {"type": "tool_use", "id": id, "name": name, "input": {}}}));
        let (a, b) = input.split_at(input.len() / 2);
        for part in [a, b] {
            events.push(json!({"type": "content_block_delta", "index": index,
                "delta": {"type": "input_json_delta", "partial_json": part}}));
        }
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    events.push(json!({"type": "message_delta", "delta": {"stop_reason": stop_reason}, "usage": {"output_tokens": 9}}));
    events.push(json!({"type": "message_stop"}));
    events
}

#[test]
fn thoughts_are_said_back_as_they_came() {
    let events = [
        json!({"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 3}}}),
        json!({"type": "ping"}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": "", "new_field": 7}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "so"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "signature_delta", "signature": "sig=="}}),
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "content_block_start", "index": 1, "content_block": {"type": "redacted_thinking", "data": "zzz"}}),
        json!({"type": "content_block_stop", "index": 1}),
        json!({"type": "content_block_start", "index": 2, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "content_block_stop", "index": 2}),
        json!({"type": "content_block_start", "index": 3, "content_block": {"type": "tool_use", "id": "t", "name": "x", "input": {}}}),
        json!({"type": "content_block_delta", "index": 3, "delta": {"type": "input_json_delta", "partial_json": ""}}),
        json!({"type": "content_block_stop", "index": 3}),
        json!({"type": "some_new_event"}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}}),
        json!({"type": "message_stop"}),
    ];
    let turn = decoded(Wire::Messages, &stream(&events)).unwrap();
    assert_eq!(
        (turn.thinking.as_str(), turn.stop.clone()),
        ("so", Stop::Calls)
    );
    assert_eq!(turn.calls[0].read_arguments(), Ok(json!({})));
    let prompt = Prompt {
        said: vec![Said::User("go".to_owned()), Said::Model(turn)],
        ..Prompt::default()
    };
    assert_eq!(
        encode(Wire::Messages, &prompt)["messages"][1]["content"],
        json!([
            {"type": "thinking", "thinking": "so", "signature": "sig==", "new_field": 7},
            {"type": "redacted_thinking", "data": "zzz"},
            {"type": "tool_use", "id": "t", "name": "x", "input": {}},
        ])
    );
}

#[test]
fn the_cost_of_messages_counts_what_the_cache_has() {
    let turn = decoded(Wire::Messages, &stream(&messages_of(&[], "end_turn"))).unwrap();
    let usage = Usage {
        input: 123,
        output: 9,
        cache_read: 20,
        cache_write: 100,
        is_guess: false,
    };
    assert_eq!(turn.usage, usage);
}

#[test]
fn responses_are_read_and_said_back_item_by_item() {
    let reasoning = json!({"type": "reasoning", "id": "rs_1", "encrypted_content": "xyz", "summary": [{"type": "summary_text", "text": "hm"}]});
    let message = json!({"type": "message", "id": "msg_1", "content": [{"type": "output_text", "text": "Let me look."}]});
    let function = json!({"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "read", "arguments": "{\"path\":\"x\"}", "status": "completed"});
    let done = |index: u64, item: &Value| json!({"type": "response.output_item.done", "output_index": index, "item": item});
    let body = stream(&[
        json!({"type": "response.created", "response": {}}),
        json!({"type": "response.output_text.delta", "delta": "Let me look."}),
        json!({"type": "response.output_item.added", "output_index": 2, "item": {"type": "function_call", "name": "read"}}),
        done(2, &function),
        done(0, &reasoning),
        done(1, &message),
        json!({"type": "response.completed", "response": {"model": "m", "usage": {
            "input_tokens": 7, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 2}}}}),
    ]);
    let turn = decoded(Wire::Responses, &body).unwrap();
    assert_eq!(
        (turn.text.as_str(), turn.thinking.as_str()),
        ("Let me look.", "hm")
    );
    assert_eq!(turn.calls, [call("call_1", "read", "{\"path\":\"x\"}")]);
    assert_eq!(
        turn.usage,
        Usage {
            input: 7,
            output: 3,
            cache_read: 2,
            ..Usage::default()
        }
    );
    let prompt = Prompt {
        said: vec![
            Said::User("go".to_owned()),
            Said::Model(turn),
            Said::Results(vec![CallResult {
                id: "call_1".to_owned(),
                text: String::new(),
                is_error: false,
            }]),
        ],
        ..Prompt::default()
    };
    assert_eq!(
        encode(Wire::Responses, &prompt)["input"],
        json!([
            {"role": "user", "content": "go"}, reasoning, message, function,
            {"type": "function_call_output", "call_id": "call_1", "output": "(no output)"},
        ])
    );
}

#[test]
fn errors_after_a_good_beginning_are_told() {
    let overloaded = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"Overloaded\"}}\n\n";
    let begun = stream(&messages_of(&[("t", "x", "{}")], "tool_use")[..3]);
    let error = decoded(Wire::Messages, &(begun + overloaded)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server gave up: overloaded_error: Overloaded"
    );
    assert!(error.is_transient());
    for (wire, body, text, is_transient) in [
        (
            Wire::Chat,
            "data: {\"error\":{\"message\":\"no\",\"code\":\"invalid_request_error\"}}\n\n",
            "invalid_request_error: no",
            false,
        ),
        (
            Wire::Responses,
            "data: {\"type\":\"response.failed\",\"response\":{\"error\":{\"code\":\"server_error\",\"message\":\"oh\"}}}\n\n",
            "server_error: oh",
            true,
        ),
        (
            Wire::Responses,
            "data: {\"type\":\"error\",\"code\":\"insufficient_quota\",\"message\":\"pay\"}\n\n",
            "insufficient_quota: pay",
            false,
        ),
        (Wire::Chat, "data: {\n\n", "an event is no JSON", false),
        (
            Wire::Chat,
            "data: {\"choices\":[{\"delta\":{\"tool_calls\":[{\"function\":{\"arguments\":\"{}\"}}]}}]}\n\n",
            "belongs to none",
            false,
        ),
        (
            Wire::Messages,
            "data: {\"type\":\"content_block_stop\",\"index\":3}\n\n",
            "block 3 has not begun",
            false,
        ),
    ] {
        let error = decoded(wire, body).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(error.is_transient(), is_transient, "{error}");
    }
}

#[test]
fn a_request_says_all_that_the_prompt_does() {
    let prompt = Prompt {
        model: "m".to_owned(),
        system: Some("be brief".to_owned()),
        tools: vec![Tool {
            name: "t".to_owned(),
            description: "d".to_owned(),
            parameters: json!({"type": "object"}),
        }],
        max_tokens: 100,
        temperature: Some(0.5),
        output: Some(OutputSchema {
            name: "answer".to_owned(),
            schema: json!({"type": "object"}),
        }),
        extra: json!({"top_k": 1, "stream_options": null})
            .as_object()
            .unwrap()
            .clone(),
        said: vec![Said::User("hi".to_owned())],
    };
    let chat = encode(Wire::Chat, &prompt);
    assert_eq!(
        chat["messages"][0],
        json!({"role": "system", "content": "be brief"})
    );
    assert_eq!(chat["tools"][0]["function"]["name"], "t");
    assert_eq!(
        (&chat["top_k"], &chat["stream_options"]),
        (&json!(1), &Value::Null)
    );
    let messages = encode(Wire::Messages, &prompt);
    assert_eq!(messages["system"][0]["text"], "be brief");
    assert_eq!(
        messages["tools"][0]["input_schema"],
        json!({"type": "object"})
    );
    let responses = encode(Wire::Responses, &prompt);
    assert_eq!(
        (&responses["instructions"], &responses["store"]),
        (&json!("be brief"), &json!(false))
    );
    for body in [chat, messages, responses] {
        assert_eq!(
            (&body["model"], &body["stream"], &body["temperature"]),
            (&json!("m"), &json!(true), &json!(0.5))
        );
    }
}

/// Held against the rules by which servers refuse a conversation for ever.
fn check_pairs(wire: Wire, body: &Value) {
    let list = match wire {
        Wire::Responses => &body["input"],
        Wire::Chat | Wire::Messages => &body["messages"],
    };
    let list = list.as_array().expect("a conversation");
    let mut open: Vec<String> = Vec::new();
    let mut last_role = "";
    for message in list {
        let blocks = message["content"].as_array().cloned().unwrap_or_default();
        match wire {
            Wire::Chat => {
                if message["role"] == "tool" {
                    let id = message["tool_call_id"].as_str().expect("an id");
                    let at = open
                        .iter()
                        .position(|open| open == id)
                        .expect("a call that is open");
                    open.remove(at);
                } else {
                    assert!(open.is_empty(), "a call is not answered before {message}");
                }
                for call in message["tool_calls"].as_array().into_iter().flatten() {
                    let arguments = call["function"]["arguments"].as_str().expect("text");
                    assert!(!arguments.is_empty());
                    open.push(call["id"].as_str().expect("an id").to_owned());
                }
                assert!(
                    message["content"] != ""
                        || message["role"] == "assistant"
                        || message["role"] == "user"
                );
            }
            Wire::Messages => {
                let role = message["role"].as_str().expect("a role");
                assert_ne!(role, last_role, "two messages of one side");
                assert!(!blocks.is_empty(), "a message of nothing");
                if role == "user" {
                    let is_result = |block: &Value| block["type"] == "tool_result";
                    let results: Vec<&str> = blocks
                        .iter()
                        .filter(|block| is_result(block))
                        .filter_map(|block| block["tool_use_id"].as_str())
                        .collect();
                    assert_eq!(results, open, "every call is answered in the next message");
                    assert!(
                        blocks
                            .iter()
                            .skip_while(|block| is_result(block))
                            .all(|block| !is_result(block)),
                        "words before results"
                    );
                    open.clear();
                } else {
                    assert!(open.is_empty());
                    open = blocks
                        .iter()
                        .filter(|block| block["type"] == "tool_use")
                        .filter_map(|block| block["id"].as_str())
                        .map(str::to_owned)
                        .collect();
                }
                for block in &blocks {
                    assert_ne!(block["text"], "", "an empty text");
                    assert_ne!(block["content"], "", "an empty result");
                }
            }
            Wire::Responses => match message["type"].as_str() {
                Some("function_call") => {
                    open.push(message["call_id"].as_str().expect("an id").to_owned());
                }
                Some("function_call_output") => {
                    let id = message["call_id"].as_str().expect("an id");
                    let at = open
                        .iter()
                        .position(|open| open == id)
                        .expect("a call that is open");
                    open.remove(at);
                    assert_ne!(message["output"], "");
                }
                _ if message["role"] == "user" => {
                    assert!(open.is_empty(), "a call is not answered");
                }
                _ => {}
            },
        }
        last_role = message["role"].as_str().unwrap_or_default();
    }
    assert!(open.is_empty(), "a call is not answered at the end");
}

/// A round of a conversation: words of the user's, what the model said and called, and what that gave.
fn round() -> impl Strategy<Value = (Vec<String>, String, Vec<(String, String)>)> {
    let words = "[a-z ]{0,6}";
    (
        proptest::collection::vec(words, 1..3),
        words,
        proptest::collection::vec(("[{}a\":1]{0,5}", words), 0..4),
    )
}

proptest! {
    #[test]
    fn no_conversation_breaks_a_servers_rules(rounds in proptest::collection::vec(round(), 1..5), through in 0..4u8) {
        let mut said = Vec::new();
        for (number, (words, text, calls)) in rounds.into_iter().enumerate() {
            said.extend(words.into_iter().map(Said::User));
            let ids: Vec<String> = (0..calls.len()).map(|at| format!("c{number}-{at}")).collect();
            let turn = Turn {
                text,
                calls: ids.iter().zip(&calls).map(|(id, (arguments, _))| call(id, "t", arguments)).collect(),
                ..Turn::default()
            };
            // As a server told it, in each language, or as some other did.
            let turn = match through {
                0 => turn,
                1 => told(Wire::Chat, &turn),
                2 => told(Wire::Messages, &turn),
                _ => told(Wire::Responses, &turn),
            };
            prop_assert_eq!(turn.calls.len(), calls.len());
            said.push(Said::Model(turn));
            if !calls.is_empty() {
                let results = ids.into_iter().zip(calls).map(|(id, (_, text))| CallResult { id, text, is_error: number % 2 == 0 });
                said.push(Said::Results(results.collect()));
            }
        }
        let prompt = Prompt { said, ..Prompt::default() };
        for wire in [Wire::Chat, Wire::Messages, Wire::Responses] {
            check_pairs(wire, &encode(wire, &prompt));
        }
        let text = serde_json::to_string(&prompt).unwrap();
        prop_assert_eq!(serde_json::from_str::<Prompt>(&text).unwrap(), prompt);
    }

    #[test]
    fn it_makes_no_difference_where_an_answer_is_cut(cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        let turn = Turn { text: "ä\u{1F600}".to_owned(), calls: vec![call("a", "x", "{\"n\":\"ü\"}"), call("b", "y", "{}")], ..Turn::default() };
        for wire in [Wire::Chat, Wire::Messages, Wire::Responses] {
            let body = streamed(wire, &turn);
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len())).collect();
            at.sort_unstable();
            let mut decoder = Decoder::new(wire);
            let mut begin = 0;
            for end in at.into_iter().chain([body.len()]) {
                decoder.push(&body.as_bytes()[begin..end]);
                begin = end;
            }
            prop_assert_eq!(decoder.finish().unwrap(), decoded(wire, &body).unwrap());
        }
    }

    #[test]
    fn whatever_a_server_sends_nothing_breaks(
        events in proptest::collection::vec(prop::sample::select(odd_events()), 0..12),
        noise in "[\\PC\n]{0,20}",
    ) {
        for wire in [Wire::Chat, Wire::Messages, Wire::Responses] {
            let mut body = stream(&events);
            let _ = decoded(wire, &body);
            body.push_str("data: ");
            body.push_str(&noise);
            let _ = decoded(wire, &body);
        }
    }
}

fn odd_events() -> Vec<Value> {
    vec![
        json!(null),
        json!(7),
        json!([]),
        json!({}),
        json!({"choices": [null]}),
        json!({"choices": {"0": 1}}),
        chunk(json!(null), json!(3)),
        chunk(json!({"tool_calls": [null, 1, {}]}), json!("stop")),
        piece(json!(0), "a", "x", "{"),
        piece(json!(-1), "", "x", ""),
        json!({"usage": {"prompt_tokens": "many"}}),
        json!({"type": "message_start"}),
        json!({"type": "message_stop"}),
        json!({"type": "message_delta", "usage": {"cache_read_input_tokens": u64::MAX}}),
        json!({"type": "content_block_start", "index": 0, "content_block": null}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": 3}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta"}}),
        json!({"type": "content_block_delta", "index": 0, "delta": {"type": "citations_delta", "citation": 1}}),
        json!({"type": "content_block_stop"}),
        json!({"type": "response.output_item.done"}),
        json!({"type": "response.completed"}),
        json!({"type": "response.completed", "response": {"output": [1, null]}}),
        json!({"type": "response.failed"}),
    ]
}

/// What a server streams that says this.
fn streamed(wire: Wire, turn: &Turn) -> String {
    match wire {
        Wire::Chat => {
            let mut events = vec![chunk(json!({"content": turn.text}), Value::Null)];
            for (index, call) in turn.calls.iter().enumerate() {
                events.push(piece(json!(index), &call.id, &call.name, &call.arguments));
            }
            events.push(chunk(json!({}), json!("stop")));
            stream(&events) + "data: [DONE]\n\n"
        }
        Wire::Messages => {
            let calls: Vec<_> = turn
                .calls
                .iter()
                .map(|call| (call.id.as_str(), call.name.as_str(), "{}"))
                .collect();
            let mut events = messages_of(&calls, "end_turn");
            let block = json!({"type": "content_block_start", "index": 99, "content_block": {"type": "text", "text": ""}});
            let delta = json!({"type": "content_block_delta", "index": 99, "delta": {"type": "text_delta", "text": turn.text}});
            events.splice(
                1..1,
                [
                    block,
                    delta,
                    json!({"type": "content_block_stop", "index": 99}),
                ],
            );
            stream(&events)
        }
        Wire::Responses => {
            let mut items = vec![
                json!({"type": "message", "content": [{"type": "output_text", "text": turn.text}]}),
            ];
            items.extend(turn.calls.iter().map(|call| {
                json!({"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments})
            }));
            let done = |(index, item): (usize, Value)| json!({"type": "response.output_item.done", "output_index": index, "item": item});
            let mut events: Vec<Value> = items.into_iter().enumerate().map(done).collect();
            events.push(json!({"type": "response.completed", "response": {}}));
            stream(&events)
        }
    }
}

fn told(wire: Wire, turn: &Turn) -> Turn {
    decoded(wire, &streamed(wire, turn)).unwrap()
}

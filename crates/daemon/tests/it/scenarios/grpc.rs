//! The transport grpc, with grpcio and what the server says of itself by reflection (`door` in
//! `tests/clients/grpc_client.py`).

use std::cell::Cell;
use std::rc::Rc;

use serde_json::{Map, Value, json};

use super::doors::{Answer, Ask, Door, Events, Filter, Refusal, bare};
use crate::grpc::{Client, address, python};
use crate::support::{Daemon, Lines, Node};

pub(super) fn open(_: &Node, daemon: &Daemon) -> Result<Box<dyn Door>, String> {
    let python = python()?;
    Ok(Box::new(Channel {
        client: Rc::new(Client::start(&python, &address(daemon), &[], &["door"])),
        calls: Cell::new(0),
    }))
}

struct Channel {
    client: Rc<Client>,
    calls: Cell<u64>,
}

/// The messages of one call, as they come.
struct Call {
    /// For as long as it is read, the client lives.
    _client: Rc<Client>,
    lines: Lines,
    prefix: String,
    read: usize,
}

impl Iterator for Call {
    type Item = Answer;

    fn next(&mut self) -> Option<Answer> {
        let (number, line) = self.lines.wait_for(self.read, &self.prefix, |line| {
            line.starts_with(&self.prefix)
        });
        self.read = number + 1;
        let mut told: Value =
            serde_json::from_str(&line[self.prefix.len()..]).expect("it says JSON");
        match told.get_mut("message").map(Value::take) {
            Some(message) => Some(Ok(message)),
            None if told["refused"].is_null() => None,
            None => Some(Err(refusal(&told["refused"]))),
        }
    }
}

/// The field that a refusal names as the pointer of ipc: of what is inside of a JSON text the description begins with
/// it.
fn place(field: &str, what: &str) -> (String, String) {
    let pointer = format!("/{}", field.trim_start_matches("spec.").replace('.', "/"));
    let pointer = pointer.trim_end_matches("_json");
    match what.split_once(": ") {
        Some((inside, what)) if inside.starts_with('/') => {
            (format!("{pointer}{inside}"), what.to_owned())
        }
        _ => (pointer.to_owned(), what.to_owned()),
    }
}

fn refusal(told: &Value) -> Refusal {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let places = told["places"].as_array().into_iter().flatten();
    Refusal {
        code: Some(text(&told["reason"])),
        places: Some(
            places
                .map(|one| place(&text(&one["field"]), &text(&one["description"])))
                .collect(),
        ),
        later: told["later"].as_bool(),
        text: text(&told["text"]),
    }
}

fn priority(word: &Value) -> Value {
    match word.as_str() {
        Some(word) => format!("JOB_PRIORITY_{}", word.to_uppercase()).into(),
        None => Value::Null,
    }
}

fn filter(filter: &Filter) -> Map<String, Value> {
    let states: Vec<String> = filter
        .states
        .iter()
        .map(|state| format!("JOB_STATE_{}", state.to_uppercase()))
        .collect();
    let labels: Map<String, Value> = filter
        .labels
        .iter()
        .map(|(label, value)| (label.clone(), json!(value)))
        .collect();
    let all =
        json!({"states": states, "name": filter.name, "labels": labels, "limit": filter.limit});
    match bare(all) {
        Value::Object(members) => members,
        _ => Map::new(),
    }
}

impl Channel {
    /// Begins a call. What is null is left out.
    fn call(&self, method: &str, fields: &Value) -> Call {
        let number = self.calls.get();
        self.calls.set(number + 1);
        let mut fields = fields.clone();
        if let Some(members) = fields.as_object_mut() {
            members.retain(|_, value| !value.is_null());
        }
        let request =
            json!({"call": number, "method": format!("tinkerbell.v1.{method}"), "fields": fields});
        self.client.tell(&request.to_string());
        Call {
            _client: Rc::clone(&self.client),
            lines: self.client.lines(),
            prefix: format!("{number} "),
            read: 0,
        }
    }

    /// All messages of a call.
    fn all(&self, method: &str, fields: &Value) -> Result<Vec<Value>, Refusal> {
        self.call(method, fields).collect()
    }

    /// The message of a call that has one.
    fn one(&self, method: &str, fields: &Value) -> Answer {
        let mut messages = self.all(method, fields)?;
        assert_eq!(messages.len(), 1, "{method}: {messages:?}");
        Ok(messages.remove(0))
    }
}

impl Door for Channel {
    fn ask(&self, ask: &Ask) -> Answer {
        let answer = match ask {
            Ask::Submit(spec) => {
                let mut spec = spec.clone();
                spec["input_json"] = spec["input"].to_string().into();
                spec["priority"] = priority(&spec["priority"]);
                let members = spec.as_object_mut().expect("an object");
                members.remove("input");
                members.retain(|_, value| !value.is_null());
                self.one("JobService/Submit", &json!({"spec": spec}))
            }
            Ask::List(which) => self.one("JobService/List", &filter(which).into()),
            Ask::Get(job) => self
                .one("JobService/Get", &json!({"job": job}))
                .map(|told| {
                    let mut details = told["details"].clone();
                    let job = details["job"].take();
                    let members = details.as_object_mut().expect("details");
                    members.extend(job.as_object().expect("a job").clone());
                    members.remove("job");
                    details
                }),
            Ask::Result(job) => self
                .one("JobService/Result", &json!({"job": job}))
                .map(|told| told["result"].clone()),
            Ask::Cancel(job, reason) => {
                self.one("JobService/Cancel", &json!({"job": job, "reason": reason}))
            }
            Ask::CancelMany(which, dry_run) => {
                let mut fields = filter(which);
                fields.insert("dry_run".to_owned(), json!(dry_run));
                self.one("JobService/CancelMany", &fields.into())
            }
            Ask::Signal(job, name, payload) => self.one(
                "JobService/Signal",
                &json!({"job": job, "name": name, "payload_json": payload.to_string()}),
            ),
            Ask::Logs(job, stream) => {
                let stream =
                    stream.map(|stream| format!("OUTPUT_STREAM_{}", stream.to_uppercase()));
                self.all("JobService/Logs", &json!({"job": job, "stream": stream}))
                    .map(|told| {
                        let pieces = told.iter().map(|message| message["piece"].clone());
                        json!({"pieces": pieces.collect::<Vec<_>>()})
                    })
            }
            Ask::Artifacts(job) => self.one("JobService/ListArtifacts", &json!({"job": job})),
            Ask::Artifact(job, name) => {
                let fields = json!({"job": job, "name": name});
                return self.all("JobService/GetArtifact", &fields).map(|told| {
                    let chunks = told.iter().filter_map(|message| message["chunk"].as_str());
                    chunks.collect::<String>().into()
                });
            }
            Ask::Node => self
                .one("NodeService/Get", &json!({}))
                .map(|told| told["node"].clone()),
            Ask::Drain { stop } => self.one("NodeService/Drain", &json!({"stop": stop})),
        };
        answer.map(bare)
    }

    fn watch(&self, job: &str, after: Option<u64>) -> Events {
        let fields = json!({"job": job, "after": after, "output": false});
        let events = self.call("JobService/Watch", &fields);
        Box::new(events.map(|message| {
            let mut message = message?;
            for kind in ["event", "gap", "end"] {
                let mut item = message[kind].take();
                if !item.is_null() {
                    if kind != "event" {
                        item["type"] = kind.into();
                    }
                    return Ok(bare(item));
                }
            }
            panic!("a message that is none: {message}")
        }))
    }
}

//! The transport ipc, with a client of our own.

use serde_json::{Value, json};

use super::doors::{Answer, Ask, Door, Events, Filter, Refusal, bare};
use crate::support::{self, Daemon, Ipc, Message, Node};

pub(super) fn open(node: &Node, _: &Daemon) -> Result<Box<dyn Door>, String> {
    Ok(Box::new(Client(Ipc::of(node))))
}

struct Client(Ipc);

/// A part of a path or a value of a parameter.
fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' => char::from(byte).to_string(),
        other => format!("%{other:02X}"),
    };
    text.bytes().map(one).collect()
}

fn query(filter: &Filter) -> String {
    let mut parameters = Vec::new();
    let states = filter.states.iter().map(|state| ("state", state.clone()));
    parameters.extend(states);
    parameters.extend(filter.name.iter().map(|name| ("name", name.clone())));
    let labels = filter.labels.iter();
    parameters.extend(labels.map(|(label, value)| ("label", format!("{label}={value}"))));
    parameters.extend(filter.limit.map(|limit| ("limit", limit.to_string())));
    let parameters: Vec<String> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={}", encoded(value)))
        .collect();
    parameters.join("&")
}

fn refusal(answer: &support::Answer) -> Refusal {
    let problem = answer.json();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let places = problem["errors"].as_array().into_iter().flatten();
    Refusal {
        code: Some(text(&problem["code"])),
        places: Some(
            places
                .map(|error| (text(&error["pointer"]), text(&error["detail"])))
                .collect(),
        ),
        later: Some(problem["retry_after_ms"].is_u64()),
        text: text(&problem["detail"]),
    }
}

impl Door for Client {
    fn ask(&self, ask: &Ask) -> Answer {
        let ipc = &self.0;
        let get = |path: String| ipc.get(&path);
        let post = |path: String, body: Value| ipc.post(&path, &body);
        let of = |job: &str, what: &str| format!("/v1/jobs/{}{what}", encoded(job));
        let answer = match ask {
            Ask::Submit(spec) => post("/v1/jobs".to_owned(), spec.clone()),
            Ask::List(filter) => get(format!("/v1/jobs?{}", query(filter))),
            Ask::Get(job) => get(of(job, "")),
            Ask::Result(job) => get(of(job, "/result")),
            Ask::Cancel(job, reason) => post(of(job, "/cancel"), json!({"reason": reason})),
            Ask::CancelMany(filter, dry_run) => {
                let labels: serde_json::Map<_, _> = filter
                    .labels
                    .iter()
                    .map(|(label, value)| (label.clone(), json!(value)))
                    .collect();
                let body = json!({"states": filter.states, "name": filter.name, "labels": labels, "dry_run": dry_run});
                post("/v1/jobs/cancel".to_owned(), body)
            }
            Ask::Signal(job, name, payload) => post(
                of(job, &format!("/signals/{}", encoded(name))),
                payload.clone(),
            ),
            Ask::Logs(job, stream) => {
                let stream = stream.map_or(String::new(), |stream| format!("?stream={stream}"));
                get(of(job, &format!("/logs{stream}")))
            }
            Ask::Artifacts(job) => get(of(job, "/artifacts")),
            Ask::Artifact(job, name) => get(of(job, &format!("/artifacts/{}", encoded(name)))),
            Ask::Node => get("/v1/node".to_owned()),
            Ask::Drain { stop } => post("/v1/node/drain".to_owned(), json!({"stop": stop})),
        };
        match (answer.status, ask) {
            (200..=299, Ask::Artifact(..)) => Ok(answer.body.into()),
            (200..=299, _) => Ok(bare(answer.json())),
            _ => Err(refusal(&answer)),
        }
    }

    fn watch(&self, job: &str, after: Option<u64>) -> Events {
        let after = after.map_or(String::new(), |after| format!("&after={after}"));
        let path = format!("/v1/jobs/{}/events?output=false{after}", encoded(job));
        let mut stream = match self.0.try_stream(&path, "") {
            Ok(stream) => stream,
            Err(answer) => return Box::new(std::iter::once(Err(refusal(&answer)))),
        };
        let event = |message: Message| {
            let mut event = message.data;
            match message.event.as_str() {
                "event" => assert_eq!(event["lsn"].as_u64(), message.id),
                kind => event["type"] = kind.into(),
            }
            Ok(bare(event))
        };
        Box::new(std::iter::from_fn(move || stream.next().map(event)))
    }
}

//! What can be asked for, in the words that all transports have, and what comes back.

use std::fmt;

use serde_json::{Map, Value, json};

/// What is asked.
#[derive(Clone, Debug)]
pub(super) enum Ask {
    /// A specification, as ipc has it.
    Submit(Value),
    List(Filter),
    Get(String),
    Result(String),
    /// A job, and why.
    Cancel(String, Option<String>),
    /// Which, and whether they are only to be named.
    CancelMany(Filter, bool),
    /// A job, the name it waits for, and what is sent.
    Signal(String, String, Value),
    /// A job, and of which of its streams.
    Logs(String, Option<&'static str>),
    Artifacts(String),
    Artifact(String, String),
    Node,
    Drain {
        stop: bool,
    },
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submit(spec) => write!(f, "submit {spec}"),
            Self::List(filter) => write!(f, "list {filter}"),
            Self::Get(job) => write!(f, "get {job}"),
            Self::Result(job) => write!(f, "result {job}"),
            Self::Cancel(job, None) => write!(f, "cancel {job}"),
            Self::Cancel(job, Some(reason)) => write!(f, "cancel {job}: {reason}"),
            Self::CancelMany(filter, dry_run) => write!(f, "cancel {filter} dry_run={dry_run}"),
            Self::Signal(job, name, payload) => write!(f, "signal {job} {name} {payload}"),
            Self::Logs(job, stream) => write!(f, "logs {job} {}", stream.unwrap_or("")),
            Self::Artifacts(job) => write!(f, "artifacts {job}"),
            Self::Artifact(job, name) => write!(f, "artifact {job} {name}"),
            Self::Node => write!(f, "node"),
            Self::Drain { stop } => write!(f, "drain stop={stop}"),
        }
    }
}

/// Which jobs.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) states: Vec<String>,
    pub(super) name: Option<String>,
    pub(super) labels: Vec<(String, String)>,
    pub(super) limit: Option<usize>,
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let labels: Map<String, Value> = self
            .labels
            .iter()
            .map(|(label, value)| (label.clone(), json!(value)))
            .collect();
        let all = json!({"states": self.states, "name": self.name, "labels": labels, "limit": self.limit});
        write!(f, "{}", bare(all))
    }
}

/// What comes back, in the form that ipc has, without what is said by leaving it out.
pub(super) type Answer = Result<Value, Refusal>;

/// Why it was refused. What a door has no words for is `None`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    /// As one word.
    pub(super) code: Option<String>,
    /// Where it stands, as JSON pointers into the request, and what is wrong there.
    pub(super) places: Option<Vec<(String, String)>>,
    /// Whether trying again later may work.
    pub(super) later: Option<bool>,
    /// For people.
    pub(super) text: String,
}

impl Refusal {
    /// What only people can read.
    pub(super) fn prose(text: String) -> Self {
        Self {
            code: None,
            places: None,
            later: None,
            text,
        }
    }

    pub(super) fn masked(self, mask: &impl Fn(&str) -> String) -> Self {
        Self {
            text: mask(&self.text),
            ..self
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code.as_deref().unwrap_or("refused");
        write!(f, "{code}: {}", self.text)?;
        for (place, what) in self.places.iter().flatten() {
            write!(f, "\n!   at {place}: {what}")?;
        }
        match self.later {
            Some(true) => write!(f, "\n!   may work later"),
            _ => Ok(()),
        }
    }
}

/// What happens to a job, to the end of the stream, which is an event of the type `end`.
pub(super) type Events = Box<dyn Iterator<Item = Answer>>;

/// A way to a daemon.
pub(super) trait Door {
    /// Asks something. The answer is [`bare`].
    fn ask(&self, ask: &Ask) -> Answer;

    /// Watches a job, without what its steps print, after an entry or from its beginning.
    fn watch(&self, job: &str, after: Option<u64>) -> Events;
}

/// What is sent as it is: there a null is not the same as nothing.
const FREE: [&str; 5] = ["input", "output", "data", "default", "payload"];

/// A value without members that say nothing: some transports leave out what is null, false, zero or empty, and others
/// do not.
pub(super) fn bare(value: Value) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            .map(|(name, value)| {
                let is_free = FREE.contains(&name.as_str());
                (name, if is_free { value } else { bare(value) })
            })
            .filter(|(_, value)| !says_nothing(value))
            .collect(),
        Value::Array(values) => values.into_iter().map(bare).collect(),
        other => other,
    }
}

fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(yes) => !yes,
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        Value::Object(members) => members.is_empty(),
    }
}

/// What is another in every run, and what counts whoever asks.
fn is_of_the_moment(name: &str) -> bool {
    const NAMES: [&str; 10] = [
        "lsn",
        "after",
        "version",
        "commit",
        "features",
        "log_id",
        "requests",
        "streams",
        "blob",
        "max_rss_kib",
    ];
    NAMES.contains(&name) || name.ends_with("_ms")
}

/// A value without what is another in every run: `mask` does texts.
pub(super) fn masked(value: Value, mask: &impl Fn(&str) -> String) -> Value {
    match value {
        Value::Object(members) => members
            .into_iter()
            // Which is none where it is zero.
            .filter(|(name, _)| name != "duration_us")
            .map(|(name, value)| {
                let value = match is_of_the_moment(&name) {
                    true => json!("…"),
                    false => masked(value, mask),
                };
                (name, value)
            })
            .collect(),
        Value::Array(values) => values
            .into_iter()
            .map(|value| masked(value, mask))
            .collect(),
        Value::String(text) => mask(&text).into(),
        other => other,
    }
}

/// Events without when they happened and how long they took: of that the log knows less.
pub(super) fn facts(events: &[Value]) -> Vec<Value> {
    let mut events = events.to_vec();
    for event in &mut events {
        let event = event.as_object_mut().expect("an event");
        event.retain(|name, _| !name.ends_with("_ms") && !name.ends_with("_us"));
    }
    events
}

/// Makes sure that a door says what the first one said.
#[track_caller]
pub(super) fn assert_agrees(door: &str, asked: &str, answer: &Answer, expected: &Answer) {
    match (answer, expected) {
        (Ok(answer), Ok(expected)) => {
            let lines = |value: &Value| serde_json::to_string_pretty(value).unwrap_or_default();
            assert_eq!(answer, expected, "{door}: {asked}: {}", lines(answer));
        }
        (Err(refusal), Err(expected)) => {
            let same = |own: bool| assert!(own, "{door}: {asked}: {refusal}, not {expected}");
            same(refusal.code.is_none() || refusal.code == expected.code);
            same(refusal.places.is_none() || refusal.places == expected.places);
            same(refusal.later.is_none() || refusal.later == expected.later);
            let places = expected.places.iter().flatten();
            match refusal.places {
                Some(_) => same(refusal.text == expected.text),
                // It is prose, and has it all in its text.
                None if places.clone().count() > 0 => {
                    same(places.clone().all(|(_, what)| refusal.text.contains(what)));
                }
                None => same(refusal.text.contains(&expected.text)),
            }
        }
        (answer, expected) => panic!("{door}: {asked}: {answer:?}, not {expected:?}"),
    }
}

//! The verbs of the command line, with `--json`.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Map, Value, json};

use super::doors::{Answer, Ask, Door, Events, Filter, Refusal, bare};
use crate::support::{Daemon, Ended, Node};

pub(super) fn open(node: &Node, _: &Daemon) -> Result<Box<dyn Door>, String> {
    Ok(Box::new(Terminal {
        socket: node.data_dir().join("ipc.sock"),
        place: node.place.path(""),
    }))
}

struct Terminal {
    socket: PathBuf,
    place: PathBuf,
}

/// What the rows of tables have beside the names of ipc: the same in the form of a column.
const COLUMNS: [&str; 10] = [
    "step",
    "attempt",
    "attempts",
    "next_retry",
    "submitted",
    "finished",
    "last_error",
    "deadline",
    "size",
    "started",
];

/// A row as ipc has it.
fn row(mut row: Value, keep: &[&str]) -> Value {
    if let Some(members) = row.as_object_mut() {
        members
            .retain(|name, _| keep.contains(&name.as_str()) || !COLUMNS.contains(&name.as_str()));
    }
    row
}

fn rows(table: &Value, keep: &[&str]) -> Value {
    let rows = table.as_array().into_iter().flatten();
    rows.map(|one| row(one.clone(), keep)).collect()
}

fn filters(filter: &Filter) -> Vec<String> {
    let mut args = Vec::new();
    for state in &filter.states {
        args.extend(["--state".to_owned(), state.clone()]);
    }
    if let Some(name) = &filter.name {
        args.extend(["--name".to_owned(), name.clone()]);
    }
    for (label, value) in &filter.labels {
        args.extend(["--label".to_owned(), format!("{label}={value}")]);
    }
    if let Some(limit) = filter.limit {
        args.extend(["--limit".to_owned(), limit.to_string()]);
    }
    args
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Terminal {
    fn command(&self, args: &[String]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinkerbell"));
        command
            .env_clear()
            .env("TINKERBELL_SOCKET", &self.socket)
            .args(args)
            .current_dir(&self.place)
            .stdin(Stdio::piped());
        command
    }

    fn run(&self, args: &[String], input: &str) -> Ended {
        let mut daemon = Daemon::spawn(&mut self.command(args));
        // Who refuses its arguments does not read.
        let _ = daemon.stdin().write_all(input.as_bytes());
        daemon.ended()
    }

    /// Its job file: what the program reads stands beside what every job has.
    fn submit(&self, spec: &Value) -> Ended {
        let mut spec = spec.as_object().expect("an object").clone();
        let mut args: Vec<String> = ["job", "submit", "-", "--json"].map(str::to_owned).into();
        if let Some(key) = spec.remove("key") {
            args.extend(["--key".to_owned(), text(&key)]);
        }
        if let Some(Value::Object(input)) = spec.remove("input") {
            spec.extend(input);
        }
        self.run(&args, &Value::Object(spec).to_string())
    }

    /// What ipc would say to one who cancels.
    fn cancelled(ask: &Ask, told: &Value) -> Answer {
        let rows = told["jobs"].as_array().expect("a table");
        let job = |row: &Value| row["job"].clone();
        if let (Ask::Cancel(..), [row]) = (ask, rows.as_slice()) {
            return match &row["error"] {
                Value::Null => Ok(json!({"job": job(row)})),
                error => Err(Refusal::prose(text(error))),
            };
        }
        let (done, failed): (Vec<&Value>, Vec<&Value>) =
            rows.iter().partition(|row| row["error"].is_null());
        let failed: Vec<Value> = failed
            .iter()
            .map(|row| json!({"job": job(row), "error": row["error"]}))
            .collect();
        let done: Vec<Value> = done.into_iter().map(job).collect();
        Ok(bare(
            json!({"jobs": done, "failed": failed, "dry_run": told["dry_run"]}),
        ))
    }
}

/// What was printed as ipc has it.
fn neutral(ask: &Ask, told: Value) -> Answer {
    let value = match ask {
        Ask::Submit(_) | Ask::Logs(..) | Ask::Artifact(..) => told,
        Ask::List(_) => json!({"jobs": rows(&told["jobs"], &[]), "next": told["next"]}),
        Ask::Get(_) => {
            let mut job = row(told, &[]);
            let steps = ["step", "attempt", "attempts", "last_error"];
            job["steps"] = rows(&job["steps"], &steps);
            job["questions"] = rows(&job["questions"], &[]);
            job
        }
        Ask::Result(_) => {
            let members = match told["state"].as_str() {
                Some("completed") => &["state", "output"][..],
                Some("failed") => &["state", "code", "message", "output"],
                _ => &["state", "reason"],
            };
            let member = |name: &&str| ((*name).to_owned(), told[*name].clone());
            members.iter().map(member).collect::<Map<_, _>>().into()
        }
        Ask::Cancel(..) | Ask::CancelMany(..) => return Terminal::cancelled(ask, &told),
        Ask::Signal(..) => json!({"job": told["job"]}),
        Ask::Artifacts(_) => json!({"artifacts": rows(&told["artifacts"], &[])}),
        Ask::Node => row(told, &[]),
        Ask::Drain { stop } => {
            assert_eq!(told, json!({"state": "draining", "stops": stop}));
            json!({})
        }
    };
    Ok(bare(value))
}

impl Door for Terminal {
    fn ask(&self, ask: &Ask) -> Answer {
        let run = |args: &[&str], more: Vec<String>| {
            let mut args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            args.extend(more);
            self.run(&args, "")
        };
        let json = |args: &[&str]| run(&[args, &["--json"]].concat(), Vec::new());
        let ended = match ask {
            Ask::Submit(spec) => self.submit(spec),
            Ask::List(filter) => run(&["job", "list", "--json"], filters(filter)),
            Ask::Get(job) => json(&["job", "show", job]),
            Ask::Result(job) => json(&["job", "result", job]),
            Ask::Cancel(job, None) => json(&["job", "cancel", job]),
            Ask::Cancel(job, Some(reason)) => json(&["job", "cancel", job, "--reason", reason]),
            Ask::CancelMany(filter, dry_run) => {
                let mut more = filters(filter);
                more.extend(dry_run.then(|| "--dry-run".to_owned()));
                run(&["job", "cancel", "--json"], more)
            }
            Ask::Signal(job, name, Value::Bool(true)) => json(&["job", "approve", job, name]),
            Ask::Signal(job, name, Value::Bool(false)) => json(&["job", "deny", job, name]),
            Ask::Signal(job, name, payload) => {
                json(&["job", "signal", job, name, &payload.to_string()])
            }
            Ask::Logs(job, None) => json(&["job", "logs", job]),
            Ask::Logs(job, Some(stream)) => json(&["job", "logs", job, "--stream", stream]),
            Ask::Artifacts(job) => json(&["job", "artifacts", job]),
            Ask::Artifact(job, name) => run(&["job", "artifacts", job, name], Vec::new()),
            Ask::Node => json(&["node", "show"]),
            Ask::Drain { stop: true } => json(&["node", "drain"]),
            Ask::Drain { stop: false } => json(&["node", "drain", "--no-stop"]),
        };
        match (ended.code, ask) {
            // The line's end is of those that keep it for us.
            (0, Ask::Artifact(..)) => {
                Ok(ended.stdout.strip_suffix('\n').unwrap_or_default().into())
            }
            // One of several that were refused is told where the others are.
            (0 | 1, _) if !ended.stdout.is_empty() => {
                let told = serde_json::from_str(&ended.stdout).expect("it prints JSON");
                let answer = neutral(ask, told);
                assert_eq!(answer.is_ok(), ended.code == 0, "{answer:?}");
                answer
            }
            (1, _) => Err(Refusal::prose(ended.stderr)),
            _ => panic!("{ask}: {}: {}", ended.code, ended.said()),
        }
    }

    fn watch(&self, job: &str, after: Option<u64>) -> Events {
        let mut args = ["job", "watch", "--json", "--reconnect", "0s", job]
            .map(str::to_owned)
            .to_vec();
        args.extend(after.map(|after| format!("--after={after}")));
        let mut watcher = Some(Daemon::spawn(&mut self.command(&args)));
        let mut read = 0;
        Box::new(std::iter::from_fn(move || {
            let watching = watcher.as_ref()?;
            if let Some(line) = watching.stdout.line(read) {
                read += 1;
                let event = serde_json::from_str(&line).expect("it prints a line of JSON for each");
                return Some(Ok(bare(event)));
            }
            let ended = watcher.take()?.ended();
            match ended.code {
                0 => None,
                1 => Some(Err(Refusal::prose(ended.stderr))),
                code => panic!("{code}: {}", ended.said()),
            }
        }))
    }
}

//! Programs, run by the real engine on a simulated disk, with a world that says what commands come to.
#![allow(
    clippy::unwrap_used,
    reason = "in tests, helpers included, a panic is a failed test"
)]
#![allow(
    clippy::needless_pass_by_value,
    reason = "`json!` in a call reads best without a borrow"
)]

mod command;
mod golden;
mod plan;
mod steps;

use runtime::entry::{Ending, Entry, Outcome};
use runtime::{EffectCall, EffectError, EffectResult, JobId, JobSpec, Json, Stored};
use serde_json::{Value, json};
use sim as support;

use crate::support::{Behaviour, Node, World};

/// A node that knows all programs.
fn node(world: World) -> Node {
    Node::new(reasonact::programs(100), world)
}

/// What a command gives that prints this and exits well.
fn printed(stdout: &str) -> EffectResult {
    Ok(Json::of(
        &json!({ "exit_code": 0, "stdout": stdout, "stderr": "" }),
    ))
}

/// What a command comes to that exits with 1.
fn exited() -> EffectError {
    let output = json!({ "exit_code": 1, "stdout": "", "stderr": "no" });
    EffectError::transient("exit_status", "exited with 1").with_output(Json::of(&output))
}

/// A world whose commands print what they were given, and fail if that is `fail`.
fn echo() -> World {
    World::new(|call| Behaviour::Answer(echoed(call)))
}

fn echoed(call: &EffectCall) -> EffectResult {
    let input = call.input.value();
    let argv: Vec<_> = input["argv"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    match argv[..] {
        ["fail", ..] => Err(exited()),
        _ => printed(&argv.join(" ")),
    }
}

/// Submits a plan and lets it go on as far as it does by itself.
fn plan(node: &mut Node, plan: Value) -> JobId {
    node.run_spec(JobSpec::new("plan", Json::of(&plan)))
}

/// How a job ended: its result, or its failure with what it gave all the same.
fn ending(node: &Node, job: JobId) -> Result<Value, (String, Value)> {
    let value = |stored: Stored| match stored {
        Stored::Inline(text) => serde_json::from_str(&text).unwrap(),
        Stored::Blob { .. } => panic!("the tests' results are small"),
    };
    match node.journal(job).pop() {
        Some(Entry::Finished { ending, .. }) => match ending {
            Ending::Completed { output } => Ok(value(output)),
            Ending::Failed {
                message, output, ..
            } => Err((message, output.map_or(Value::Null, value))),
            Ending::Cancelled { reason } => Err((reason, Value::Null)),
        },
        other => panic!("the job is not over: {other:?}"),
    }
}

/// The policies of a job's effects, with their labels.
fn policies(node: &Node, job: JobId) -> Vec<(String, runtime::EffectPolicy)> {
    node.journal(job)
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Requested { label, policy, .. } => Some((label, policy)),
            _ => None,
        })
        .collect()
}

/// The status of each step of a result.
fn statuses(result: &Value) -> Vec<(String, String)> {
    let steps = result["steps"].as_object().unwrap();
    steps
        .iter()
        .map(|(id, step)| (id.clone(), step["status"].as_str().unwrap().to_owned()))
        .collect()
}

fn is_interrupted(entry: &Entry) -> bool {
    matches!(
        entry,
        Entry::Completed {
            outcome: Outcome::Interrupted,
            ..
        }
    )
}

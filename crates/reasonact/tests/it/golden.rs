//! Whole journals as released versions wrote them: today's programs must follow them to the same hash.
//!
//! `runtime/tests/golden` has a file for each: the journal's records as LSN and bytes, one a line, and the hash that a
//! replay gives as the last. `TINKERBELL_WRITE_GOLDEN=1` writes what is missing; a file that is there is only ever read,
//! since a journal that was written cannot be written otherwise.

use std::path::PathBuf;
use std::sync::Arc;

use runtime::{JobId, JobSpec, Json, Payloads, Recorded};
use serde_json::{Value, json};
use wal::sim::MemStorage;
use wal::{BlobStore, Lsn};

use crate::support::world::{from_hex, hex};
use crate::support::{Behaviour, Node, World};
use crate::{echoed, exited, node, printed};

fn path_of(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("../runtime/tests/golden/{name}.txt"))
}

/// A plan with something of everything, through a crash.
fn write_plan() -> (Node, JobId) {
    let world = World::new(|call| match &*call.label {
        "by_hand" | "unknown" => Behaviour::Hang,
        "busy" if call.id.attempt.0 == 1 => Behaviour::Answer(Err(exited())),
        "file.0" => Behaviour::Answer(Ok(Json::of(&json!({
            "name": "f", "media_type": "text/plain", "size": 3, "length": 3, "blob": "b",
        })))),
        _ => Behaviour::Answer(echoed(call)),
    });
    let mut node = node(world);
    let plan = json!({
        "input": { "who": "you" },
        "steps": [
            { "id": "hello", "title": "Says hello", "run": { "argv": ["hello", "{{ input.who }}"] } },
            { "id": "busy", "class": "keyed", "retry": { "attempts": 2 }, "run": { "argv": ["busy"] } },
            { "id": "bad", "may_fail": true, "run": { "argv": ["fail"] } },
            { "id": "unknown", "on_interrupted": "continue", "run": { "argv": ["unknown"] } },
            { "id": "by_hand", "class": "workspace", "timeout": "1h", "run": { "argv": ["by", "hand"] } },
            { "id": "nap", "needs": ["hello"], "sleep": "2s" },
            { "id": "gate", "needs": ["nap"], "ask": { "prompt": "go on?", "approval": true } },
            { "id": "default", "ask": { "prompt": "colour?", "deadline": "1s", "default": "grey" } },
            { "id": "tell", "needs": ["gate", "default"], "say": "{{ steps.default.answer }}" },
            { "id": "text", "needs": ["tell"], "artifact": { "name": "t", "text": "abcdef", "chunk_bytes": 4 } },
            { "id": "file", "needs": ["text"], "artifact": { "name": "f", "file": "f" } },
            { "id": "skipped", "needs": ["bad"], "when": "steps.bad.status == 'ok'", "say": "never" },
        ],
        "output": { "said": "{{ steps.hello.stdout }}" },
    });
    let mut spec = JobSpec::new("plan", Json::of(&plan))
        .named("golden")
        .keyed("golden");
    spec.labels.insert("kind".to_owned(), "golden".to_owned());
    let job = node.run_spec(spec);
    node.restart();
    for _ in 0..4 {
        node.advance(std::time::Duration::from_secs(1));
    }
    drop(node.signal(job, "gate", "true"));
    node.settle();
    node.world.complete("by_hand", printed("done"));
    node.settle();
    (node, job)
}

fn write_command() -> (Node, JobId) {
    let mut node = node(World::new(|call| Behaviour::Answer(echoed(call))));
    let input = json!({ "argv": ["hello", "world"], "env": { "A": "b" }, "timeout": "5s" });
    let job = node.run_spec(JobSpec::new("command", Json::of(&input)));
    (node, job)
}

fn text_of(node: &Node, job: JobId) -> String {
    node.assert_replays(job);
    let lines: String = node
        .recorded(job)
        .iter()
        .map(|recorded| format!("{} {}\n", recorded.lsn, hex(&recorded.bytes)))
        .collect();
    format!("{lines}hash {}\n", node.replay(job).unwrap().hash)
}

/// Replays a golden journal and gives its result.
fn replay(name: &str, write: impl Fn() -> (Node, JobId)) -> Value {
    let path = path_of(name);
    if std::env::var_os("TINKERBELL_WRITE_GOLDEN").is_some() && !path.exists() {
        let (node, job) = write();
        std::fs::write(&path, text_of(&node, job)).unwrap();
    }
    let text = std::fs::read_to_string(path).unwrap();
    let (lines, hash) = text.trim_end().rsplit_once("\nhash ").unwrap();
    let journal: Vec<Recorded> = lines
        .lines()
        .map(|line| {
            let (lsn, bytes) = line.split_once(' ').unwrap();
            Recorded {
                lsn: Lsn(lsn.parse().unwrap()),
                bytes: from_hex(bytes).into(),
            }
        })
        .collect();
    let Ok(runtime::entry::Record::Job(job, _)) = runtime::entry::Record::decode(&journal[0].bytes)
    else {
        panic!("a journal begins with its job");
    };
    let disk = Arc::new(MemStorage::new(1));
    let payloads = Arc::new(Payloads::new(
        Arc::new(BlobStore::open("/", disk).unwrap()),
        1 << 20,
    ));
    let replayed = runtime::replay(&reasonact::programs(100), &payloads, job, journal)
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(replayed.hash.to_string(), hash, "{name}");
    match replayed.ending {
        Some(runtime::entry::Ending::Completed {
            output: runtime::Stored::Inline(text),
        }) => serde_json::from_str(&text).unwrap(),
        other => panic!("{name} ends with {other:?}"),
    }
}

#[test]
fn a_plan_of_version_1() {
    let result = replay("plan-v1", write_plan);
    assert_eq!(result["output"]["said"], "hello you");
    assert_eq!(result["steps"]["unknown"]["status"], "interrupted");
    assert_eq!(result["steps"]["default"]["answer"], "grey");
    assert_eq!(result["steps"]["busy"]["stdout"], "busy");
    assert_eq!(result["steps"]["skipped"]["status"], "skipped");
}

#[test]
fn a_command_of_version_1() {
    let result = replay("command-v1", write_command);
    assert_eq!(result["stdout"], "hello world");
}

#[test]
fn what_the_golden_journals_show_can_be_shown_again() {
    // The writers above are kept working, for the journals of the next version.
    for (node, job) in [write_plan(), write_command()] {
        node.assert_replays(job);
    }
}

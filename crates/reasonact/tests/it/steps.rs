//! The kinds of step that are not commands.

use std::time::Duration;

use pal::{EventKind, Part, StepStatus};
use runtime::{JobState, Json};
use serde_json::{Value, json};

use crate::support::node::now_or_never;
use crate::support::{Behaviour, World};
use crate::{ending, node, plan};

#[test]
fn sleep_takes_its_time() {
    let mut node = node(World::by_hand());
    let job = plan(
        &mut node,
        json!({ "steps": [{ "id": "nap", "sleep": "1m" }] }),
    );
    node.advance(Duration::from_secs(59));
    assert_eq!(node.state(job), JobState::Waiting);
    node.restart();
    node.advance(Duration::from_secs(1));
    assert_eq!(ending(&node, job).unwrap()["steps"]["nap"]["status"], "ok");
    node.assert_replays(job);
}

#[test]
fn say_is_heard_by_who_watches_and_seen_by_later_steps() {
    let mut node = node(World::by_hand());
    let job = plan(
        &mut node,
        json!({ "input": 7, "steps": [
            { "id": "one", "say": "the number is {{ input }}" },
            { "id": "two", "needs": ["one"], "say": "({{ steps.one.text }})" },
        ]}),
    );
    let said: Vec<_> = node
        .take_events()
        .into_iter()
        .filter_map(|event| match event {
            EventKind::Message { step, text } => Some((step.unwrap(), text)),
            _ => None,
        })
        .collect();
    let one = ("one".to_owned(), "the number is 7".to_owned());
    let two = ("two".to_owned(), "(the number is 7)".to_owned());
    assert_eq!(said, [one, two]);
    node.assert_replays(job);
}

#[test]
fn fail_fails_with_its_words() {
    let mut node = node(World::by_hand());
    let job = plan(
        &mut node,
        json!({ "input": { "n": 3 }, "steps": [{ "id": "stop", "when": "input.n > 2", "fail": "{{ input.n }} is too many" }] }),
    );
    let (message, _) = ending(&node, job).unwrap_err();
    assert_eq!(message, "step `stop` failed: 3 is too many");
}

fn ask(ask: Value) -> Value {
    json!({ "steps": [
        { "id": "gate", "ask": ask },
        { "id": "after", "needs": ["gate"], "say": "{{ steps.gate.answer }} by {{ steps.gate.by }}" },
    ]})
}

#[test]
fn ask_waits_for_the_first_answer() {
    let mut node = node(World::by_hand());
    let job = plan(&mut node, ask(json!({ "prompt": "which colour?" })));
    assert_eq!(node.view(job).waits_for.as_deref(), Some("signal `gate`"));
    node.restart();
    let answers = [
        node.signal(job, "gate", "\"blue\""),
        node.signal(job, "gate", "\"red\""),
    ];
    node.settle();
    let [first, second] = answers.map(now_or_never);
    assert_eq!(first, Some(Ok(())));
    // Over by now; had it gone on, the question would be settled.
    assert!(second.unwrap().is_err());
    assert_eq!(
        ending(&node, job).unwrap()["steps"]["after"]["text"],
        "blue by client"
    );
    node.assert_replays(job);
}

#[test]
fn ask_takes_its_default_when_its_time_is_over() {
    let mut node = node(World::by_hand());
    let job = plan(
        &mut node,
        ask(json!({ "prompt": "which colour?", "deadline": "1h", "default": "grey" })),
    );
    node.advance(Duration::from_secs(3600));
    assert_eq!(
        ending(&node, job).unwrap()["steps"]["after"]["text"],
        "grey by deadline"
    );
    node.assert_replays(job);
}

#[test]
fn an_approval_that_is_refused_fails_its_step() {
    for (answer, status) in [("true", "ok"), ("false", "failed"), ("\"yes\"", "failed")] {
        let mut node = node(World::by_hand());
        let job = plan(
            &mut node,
            ask(json!({ "prompt": "really?", "approval": true })),
        );
        drop(node.signal(job, "gate", answer));
        node.settle();
        let result = match ending(&node, job) {
            Ok(result) => result,
            Err((message, result)) => {
                assert!(message.contains(&format!("not approved (client answered {answer})")));
                result
            }
        };
        assert_eq!(result["steps"]["gate"]["status"], status);
        node.assert_replays(job);
    }
}

fn artifact(node: &mut crate::support::Node, artifact: Value) -> Vec<(Part, u32, bool, bool)> {
    let job = plan(
        node,
        json!({ "input": { "n": 1 }, "steps": [{ "id": "out", "artifact": artifact }] }),
    );
    assert_eq!(
        node.state(job),
        JobState::Completed,
        "{:?}",
        node.view(job).error
    );
    node.assert_replays(job);
    node.take_events()
        .into_iter()
        .filter_map(|event| match event {
            EventKind::Artifact {
                part,
                index,
                last,
                append,
                ..
            } => Some((part, index, last, append)),
            _ => None,
        })
        .collect()
}

#[test]
fn artifacts_are_texts_data_and_urls() {
    let mut node = node(World::by_hand());
    let text = artifact(&mut node, json!({ "name": "t", "text": "n={{ input.n }}" }));
    let part = Part::Text {
        text: "n=1".to_owned(),
    };
    assert_eq!(text, [(part, 0, true, false)]);
    let data = artifact(
        &mut node,
        json!({ "name": "d", "data": { "n": "{{ input.n }}" } }),
    );
    let part = Part::Data {
        data: json!({ "n": 1 }),
    };
    assert_eq!(data, [(part, 0, true, false)]);
    let url = artifact(
        &mut node,
        json!({ "name": "u", "url": "https://example.org/{{ input.n }}" }),
    );
    let part = Part::Url {
        url: "https://example.org/1".to_owned(),
    };
    assert_eq!(url, [(part, 0, true, false)]);
}

#[test]
fn a_long_text_comes_in_chunks_that_make_up_the_whole() {
    let mut node = node(World::by_hand());
    let text = "àé€ and more";
    let parts = artifact(
        &mut node,
        json!({ "name": "t", "text": text, "chunk_bytes": 4 }),
    );
    let mut whole = String::new();
    let count = parts.len();
    for (number, (part, index, last, append)) in parts.into_iter().enumerate() {
        assert_eq!(index as usize, number);
        assert_eq!((last, append), (number + 1 == count, number > 0));
        let Part::Text { text } = part else {
            panic!("{part:?}");
        };
        assert!(text.len() <= 4);
        whole.push_str(&text);
    }
    assert_eq!(whole, text);
}

#[test]
fn a_file_comes_in_blobs_of_its_chunks() {
    const SIZE: u64 = 25;
    let world = World::new(|call| {
        let input = call.input.value();
        assert_eq!(
            (&*call.kind, input["path"].as_str()),
            ("file.read", Some("report-1.txt"))
        );
        let offset = input["offset"].as_u64().unwrap();
        let length = input["length"].as_u64().unwrap().min(SIZE - offset);
        Behaviour::Answer(Ok(Json::of(&json!({
            "name": "report-1.txt", "media_type": "text/plain", "size": SIZE,
            "length": length, "blob": format!("at {offset}"),
        }))))
    });
    let mut node = node(world);
    let parts = artifact(
        &mut node,
        json!({ "name": "f", "file": "report-{{ input.n }}.txt", "chunk_bytes": 10 }),
    );
    let blobs: Vec<_> = parts
        .iter()
        .map(|(part, ..)| match part {
            Part::File { blob, size, .. } => (blob.as_str(), *size),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(blobs, [("at 0", 10), ("at 10", 10), ("at 20", 5)]);
}

#[test]
fn each_step_is_seen_to_end_once() {
    let mut node = node(crate::echo());
    plan(
        &mut node,
        json!({ "steps": [
            { "id": "a", "run": { "argv": ["a"] } },
            { "id": "b", "say": "b" },
            { "id": "c", "when": "false", "say": "c" },
        ]}),
    );
    let mut ends: Vec<_> = node
        .take_events()
        .into_iter()
        .filter_map(|event| match event {
            EventKind::StepFinished { step, status, .. } => Some((step, status)),
            _ => None,
        })
        .collect();
    ends.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(
        ends,
        [
            ("a".to_owned(), StepStatus::Ok),
            ("b".to_owned(), StepStatus::Ok),
            ("c".to_owned(), StepStatus::Skipped),
        ]
    );
}

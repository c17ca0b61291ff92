//! The program `command`.

use std::time::Duration;

use runtime::{EffectClass, JobSpec, JobState, Json};
use serde_json::{Value, json};

use crate::support::{Behaviour, Node, World};
use crate::{ending, exited, is_interrupted, node, policies, printed};

fn command(node: &mut Node, input: Value) -> runtime::JobId {
    node.run_spec(JobSpec::new("command", Json::of(&input)))
}

#[test]
fn what_is_asked_for_reaches_the_handler_and_its_result_is_the_job_s() {
    let mut node = node(World::by_hand());
    let input = json!({
        "argv": ["/usr/bin/wc", "-l"],
        "env": { "LANG": "C" },
        "cwd": "/tmp",
        "stdin": "a\nb\n",
        "timeout": "1m 30s",
        "class": "keyed",
        "retry": { "attempts": 4, "backoff": "250ms", "growth": 1.5, "max_backoff": "1s", "on": ["busy"] },
    });
    let job = command(&mut node, input);
    let (label, policy) = policies(&node, job).remove(0);
    assert_eq!(label, "wc");
    assert_eq!(policy.class, EffectClass::Keyed);
    assert_eq!(policy.timeout, Some(Duration::from_secs(90)));
    assert_eq!((policy.attempts, policy.backoff_growth_percent), (4, 150));
    assert_eq!(policy.backoff, Duration::from_millis(250));
    assert_eq!(policy.backoff_max, Duration::from_secs(1));
    assert_eq!(policy.retry_on, ["busy"]);
    node.world.complete("wc", printed("2\n"));
    node.settle();
    assert_eq!(ending(&node, job).unwrap()["stdout"], "2\n");
    node.assert_replays(job);
}

#[test]
fn a_command_that_fails_fails_its_job_and_keeps_what_it_printed() {
    let mut node = node(World::new(|_| Behaviour::Answer(Err(exited()))));
    let job = command(&mut node, json!({ "shell": "echo no >&2; exit 1" }));
    let (message, output) = ending(&node, job).unwrap_err();
    assert_eq!(message, "exited with 1");
    assert_eq!(output["stderr"], "no");
    node.assert_replays(job);
}

#[test]
fn what_becomes_of_an_unknown_outcome_is_the_submitter_s_to_say() {
    for (on_interrupted, state) in [
        ("fail", JobState::Failed),
        ("continue", JobState::Completed),
        ("rerun", JobState::Running),
    ] {
        let mut node = node(World::by_hand());
        let input = json!({ "argv": ["pay"], "on_interrupted": on_interrupted });
        let job = command(&mut node, input);
        node.restart();
        assert_eq!(node.state(job), state, "{on_interrupted}");
        assert!(node.journal(job).iter().any(is_interrupted));
        match on_interrupted {
            "continue" => assert_eq!(ending(&node, job).unwrap(), json!({ "outcome": "unknown" })),
            "rerun" => {
                let starts = node.world.starts();
                assert_ne!(
                    starts[0].key, starts[1].key,
                    "it is asked for anew, as another request"
                );
                node.world.complete("pay", printed("paid"));
                node.settle();
                assert_eq!(ending(&node, job).unwrap()["stdout"], "paid");
            }
            _ => assert!(ending(&node, job).unwrap_err().0.contains("unknown")),
        }
        node.assert_replays(job);
    }
}

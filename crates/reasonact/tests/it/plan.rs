//! The program `plan` as a whole: order, concurrency, conditions, failure, output.

use std::time::Duration;

use runtime::JobState;
use runtime::entry::{Ending, Entry};
use serde_json::{Value, json};

use crate::support::World;
use crate::{echo, ending, exited, is_interrupted, node, plan, policies, printed, statuses};

fn run(id: &str, needs: &[&str]) -> Value {
    json!({ "id": id, "needs": needs, "run": { "argv": ["echo", id] } })
}

fn diamond() -> Value {
    json!({ "steps": [
        run("join", &["left", "right"]),
        run("right", &["top"]),
        run("left", &["top"]),
        run("top", &[]),
    ]})
}

#[test]
fn steps_wait_for_what_they_need_and_for_nothing_else() {
    for restarts in [false, true] {
        let mut node = node(World::by_hand());
        let mut spec = diamond();
        for step in spec["steps"].as_array_mut().unwrap() {
            step["class"] = "keyed".into();
        }
        let job = plan(&mut node, spec);
        for (running, over) in [
            (&["top"][..], "top"),
            (&["right", "left"], "left"),
            (&["right"], "right"),
            (&["join"], "join"),
        ] {
            assert_eq!(node.world.running(), running);
            if restarts {
                node.restart();
            }
            node.world.complete(over, printed(over));
            node.settle();
        }
        let result = ending(&node, job).unwrap();
        assert_eq!(result["steps"]["join"]["stdout"], "join");
        assert!(statuses(&result).iter().all(|(_, status)| status == "ok"));
        node.assert_replays(job);
    }
}

#[test]
fn the_same_plan_in_the_same_world_writes_the_same_journal() {
    let logs = [0, 1].map(|_| {
        let mut node = node(echo());
        plan(&mut node, diamond());
        node.records()
    });
    assert!(logs[0] == logs[1]);
}

#[test]
fn what_earlier_steps_gave_can_be_used_by_later_ones() {
    let mut node = node(echo());
    let job = plan(
        &mut node,
        json!({
            "input": { "who": "you", "times": [1, 2, 3] },
            "steps": [
                { "id": "a", "run": { "argv": ["hello", "{{ input.who }}"] } },
                { "id": "b", "needs": ["a"], "run": {
                    "argv": ["{{ steps.a.stdout | upper }}", "{{ steps.a.status }}", "{{ steps.a.exit_code + 1 }}"],
                    "env": { "JOB": "{{ job.id }}" },
                } },
            ],
            "output": { "said": "{{ steps.b.stdout }}", "count": "{{ input.times | length }}", "times": "{{ input.times }}" },
        }),
    );
    let result = ending(&node, job).unwrap();
    assert_eq!(
        result["output"],
        json!({ "said": "HELLO YOU ok 1", "count": 3, "times": [1, 2, 3] })
    );
    let input = node
        .story(job)
        .into_iter()
        .find(|entry| entry.contains("`b`"))
        .unwrap();
    assert!(input.contains("input {\"argv\":[\"HELLO YOU\""), "{input}");
    node.assert_replays(job);
}

#[test]
fn a_step_whose_condition_does_not_hold_is_skipped_and_those_that_need_it_are_not() {
    let mut node = node(echo());
    let job = plan(
        &mut node,
        json!({
            "input": { "deploy": false },
            "steps": [
                { "id": "deploy", "when": "input.deploy", "run": { "argv": ["deploy"] } },
                { "id": "after", "needs": ["deploy"], "run": { "argv": ["{{ steps.deploy.status }}"] } },
                { "id": "wrong", "may_fail": true, "when": "input.nothing.more", "run": { "argv": ["x"] } },
            ],
        }),
    );
    let result = ending(&node, job).unwrap();
    let steps = &result["steps"];
    assert_eq!(steps["deploy"]["status"], "skipped");
    assert_eq!(
        steps["deploy"]["reason"],
        "its condition does not hold: input.deploy"
    );
    assert_eq!(steps["after"]["stdout"], "skipped");
    assert_eq!(steps["wrong"]["status"], "failed");
    assert_eq!(node.world.starts().len(), 1);
    node.assert_replays(job);
}

#[test]
fn a_failure_keeps_those_from_running_that_need_it_and_no_others() {
    let mut node = node(echo());
    let job = plan(
        &mut node,
        json!({ "steps": [
            { "id": "bad", "run": { "argv": ["fail"] } },
            run("needs_bad", &["bad"]),
            run("needs_that", &["needs_bad"]),
            run("other", &[]),
            { "id": "report", "needs": ["bad"], "when": "steps.bad.status == 'failed'",
              "run": { "argv": ["code", "{{ steps.bad.code }}", "{{ steps.bad.stderr }}"] } },
        ]}),
    );
    let (message, output) = ending(&node, job).unwrap_err();
    assert_eq!(message, "step `bad` failed: exited with 1");
    let status = |id: &str| output["steps"][id]["status"].as_str().unwrap().to_owned();
    assert_eq!(
        ["bad", "needs_bad", "needs_that", "other", "report"].map(status),
        ["failed", "skipped", "skipped", "ok", "ok"]
    );
    assert_eq!(output["steps"]["report"]["stdout"], "code exit_status no");
    node.assert_replays(job);
}

#[test]
fn what_may_fail_harms_nobody() {
    let mut node = node(echo());
    let job = plan(
        &mut node,
        json!({ "steps": [
            { "id": "try", "may_fail": true, "run": { "argv": ["fail"] } },
            run("after", &["try"]),
        ]}),
    );
    let result = ending(&node, job).unwrap();
    assert_eq!(result["steps"]["try"]["status"], "failed");
    assert_eq!(result["steps"]["after"]["status"], "ok");
}

#[test]
fn on_failure_stop_ends_what_still_runs() {
    let mut node = node(World::by_hand());
    let job = plan(
        &mut node,
        json!({ "on_failure": "stop", "steps": [run("slow", &[]), run("bad", &[]), run("later", &["slow"])] }),
    );
    node.world.complete("bad", Err(exited()));
    node.settle();
    assert_eq!(node.state(job), JobState::Failed);
    assert_eq!(node.world.cancels().len(), 1, "the slow one was ended");
    let (_, output) = ending(&node, job).unwrap_err();
    assert_eq!(statuses(&output), [("bad".to_owned(), "failed".to_owned())]);
    node.assert_replays(job);
}

#[test]
fn retries_and_timeouts_are_those_of_the_step() {
    let mut node = node(World::by_hand());
    let job = plan(
        &mut node,
        json!({ "steps": [
            { "id": "a", "timeout": "10s", "class": "read", "retry": { "attempts": 2, "backoff": "1s" },
              "run": { "argv": ["a"] } },
            { "id": "b", "run": { "argv": ["b"] } },
        ]}),
    );
    let policies = policies(&node, job);
    assert_eq!(policies[0].1.timeout, Some(Duration::from_secs(10)));
    assert_eq!((policies[0].1.attempts, policies[1].1.attempts), (2, 1));
    assert_eq!(policies[1].1.timeout, None);
    node.world.complete("b", printed("b"));
    node.advance(Duration::from_secs(10));
    node.advance(Duration::from_secs(1));
    assert_eq!(node.world.starts_of("a").len(), 2);
    node.world.complete("a", printed("in time"));
    node.settle();
    assert_eq!(
        ending(&node, job).unwrap()["steps"]["a"]["stdout"],
        "in time"
    );
    node.assert_replays(job);
}

#[test]
fn an_unknown_outcome_fails_its_step_or_is_gone_on_from_or_is_tried_anew() {
    let mut node = node(World::by_hand());
    let step = |id: &str, on: &str| json!({ "id": id, "on_interrupted": on, "may_fail": true, "run": { "argv": [id] } });
    let job = plan(
        &mut node,
        json!({ "steps": [
            step("fails", "fail"),
            step("goes_on", "continue"),
            step("again", "rerun"),
            { "id": "told", "needs": ["goes_on"], "run": { "argv": ["{{ steps.goes_on.status }}"] } },
        ]}),
    );
    assert_eq!(node.world.running(), ["fails", "goes_on", "again"]);
    node.restart();
    assert_eq!(node.world.running(), ["told", "again"]);
    node.world.complete("told", printed("told"));
    node.world.complete("again", printed("again"));
    node.settle();
    let result = ending(&node, job).unwrap();
    let status = |id: &str| result["steps"][id]["status"].as_str().unwrap().to_owned();
    assert_eq!(
        ["fails", "goes_on", "again", "told"].map(status),
        ["failed", "interrupted", "ok", "ok"]
    );
    assert_eq!(
        node.journal(job).into_iter().filter(is_interrupted).count(),
        3
    );
    node.assert_replays(job);
}

#[test]
fn a_plan_with_too_many_steps_is_refused_before_it_is_a_job() {
    let plans = reasonact::programs(2);
    let plan = plans.get("plan").unwrap();
    let error = plan.check(&runtime::Json::of(&diamond())).unwrap_err();
    assert_eq!(error.pointer, "/steps");
    assert!(error.message.contains("limits.steps_per_plan"), "{error}");
}

#[test]
fn a_template_that_cannot_be_filled_fails_its_step_and_nothing_else() {
    let mut node = node(echo());
    let job = plan(
        &mut node,
        json!({ "steps": [
            { "id": "a", "run": { "argv": ["{{ input.missing }}"] } },
            run("b", &[]),
        ]}),
    );
    let (message, output) = ending(&node, job).unwrap_err();
    assert!(
        message.contains("step `a` failed: run.argv: undefined value"),
        "{message}"
    );
    assert_eq!(output["steps"]["b"]["status"], "ok");
    node.assert_replays(job);
}

/// A specification of a few lines is not to fill the memory: every template alone is bounded, and so are all together.
#[test]
fn the_templates_of_a_plan_give_only_so_much_together() {
    let say = |number: usize| json!({ "id": format!("s{number}"), "say": "{{ 'x' * 1048576 }}" });
    let steps: Vec<_> = (0..20).map(say).collect();
    let mut node = node(echo());
    let job = plan(&mut node, json!({ "steps": steps }));
    let Some(Entry::Finished { ending, .. }) = node.journal(job).pop() else {
        panic!("the job is not over");
    };
    let Ending::Failed { message, .. } = ending else {
        panic!("20 MiB of templates were let through");
    };
    let refused = message.matches("more than 16 MiB").count();
    assert_eq!(refused, 4, "{message}");
    node.assert_replays(job);
    node.restart();
    node.assert_replays(job);
}

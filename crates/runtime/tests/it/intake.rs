//! Taking jobs in: when a submission is acknowledged, idempotency keys, limits.

use std::time::Duration;

use runtime::EffectClass::Keyed;
use runtime::engine::Input;
use runtime::{JobId, JobSpec, JobState, Json, Limits, Programs, SubmitError, Submitted};

use crate::support::node::now_or_never;
use crate::support::{Node, Setup, World, failed, program, step};

fn programs() -> Programs {
    Programs::new()
        .with(program("echo", |_, input| async move { Ok(input) }))
        .with(program("one_step", |context, _| async move {
            step(&context, "work", Keyed).await.map_err(failed)
        }))
}

fn spec(program: &str) -> JobSpec {
    JobSpec::new(program, Json::null())
}

#[test]
fn a_submission_is_acknowledged_once_it_is_durable_and_not_before() {
    let mut node = Node::new(programs(), World::by_hand());
    node.settle();
    let answer = node.submit(spec("echo"));
    node.turn();
    assert!(
        node.write().unwrap(),
        "the entries of the turn are to be written"
    );
    node.turn();
    let mut answer = answer;
    assert!(answer.try_recv().is_err(), "written is not durable");
    node.report();
    node.turn();
    let submitted = now_or_never(answer).unwrap().unwrap();
    assert!(submitted.is_new);
    assert!(node.world.ledger().has(submitted.job));
}

#[test]
fn a_job_that_was_not_acknowledged_may_be_gone_and_one_that_was_is_not() {
    let mut node = Node::new(programs(), World::by_hand());
    let kept = node.run("one_step");
    let lost = node.submit(spec("one_step"));
    node.turn();
    node.crash();
    assert!(
        now_or_never(lost).is_none(),
        "nobody said that it is taken in"
    );
    node.start();
    node.settle();
    assert_eq!(node.list(Default::default()).jobs.len(), 1);
    assert_eq!(node.state(kept), JobState::Running);
}

#[test]
fn one_step_takes_two_syncs_until_it_is_over() {
    let mut node = Node::new(programs(), World::by_hand());
    node.settle();
    let answer = node.submit(spec("one_step"));
    node.turn();
    // The submission and the step's intent share one batch.
    assert_eq!(node.unwritten(), 1);
    node.settle();
    let job = now_or_never(answer).unwrap().unwrap().job;
    node.world.complete("work", Ok(Json::of("done")));
    node.turn();
    // So do the step's result and the job's end.
    assert_eq!(node.unwritten(), 1);
    node.settle();
    assert_eq!(node.state(job), JobState::Completed);
    assert_eq!(
        node.story(job),
        [
            "step 0 `work`: effect `work` of class keyed, 1 attempts, input \"work\"",
            "step 0: completed",
            "the end, completed with \"done\"",
        ]
    );
    node.assert_replays(job);
}

#[test]
fn the_same_key_gives_the_same_job_and_another_specification_is_refused() {
    let mut node = Node::new(programs(), World::by_hand());
    let first = node.run_spec(spec("one_step").keyed("nightly"));
    for _ in 0..2 {
        let again = node.submit(spec("one_step").keyed("nightly"));
        let other = node.submit(spec("echo").keyed("nightly"));
        node.settle();
        assert_eq!(
            now_or_never(again).unwrap(),
            Ok(Submitted {
                job: first,
                is_new: false
            })
        );
        assert_eq!(
            now_or_never(other).unwrap(),
            Err(SubmitError::Conflict {
                key: "nightly".to_owned(),
                job: first
            })
        );
        node.restart();
    }
    node.world.complete("work", Ok(Json::null()));
    node.settle();
    node.restart();
    let again = node.submit(spec("one_step").keyed("nightly"));
    node.settle();
    assert_eq!(now_or_never(again).unwrap().unwrap().job, first);
}

#[test]
fn a_repeated_submission_waits_for_the_first_to_be_durable() {
    let mut node = Node::new(programs(), World::by_hand());
    node.settle();
    let first = node.submit(spec("echo").keyed("k"));
    let second = node.submit(spec("echo").keyed("k"));
    node.turn();
    node.write().unwrap();
    node.turn();
    let mut second = second;
    assert!(second.try_recv().is_err());
    node.settle();
    let first = now_or_never(first).unwrap().unwrap();
    let second = now_or_never(second).unwrap().unwrap();
    assert_eq!((first.is_new, second.is_new), (true, false));
    assert_eq!(first.job, second.job);
}

#[test]
fn an_unknown_program_is_named_with_those_there_are() {
    let mut node = Node::new(programs(), World::by_hand());
    let answer = node.submit(spec("ehco"));
    node.settle();
    assert_eq!(
        now_or_never(answer).unwrap().unwrap_err().to_string(),
        "no program is called `ehco`; there are `echo`, `one_step`"
    );
}

#[test]
fn there_are_no_more_live_jobs_than_may_be() {
    let setup = Setup {
        limits: Limits {
            live_jobs: 2,
            ..Limits::default()
        },
        ..Setup::default()
    };
    let mut node = Node::with(setup, programs(), World::by_hand());
    node.run("one_step");
    node.run_spec(spec("one_step").keyed("k"));
    let refused = node.submit(spec("one_step"));
    // What is known already is no new job.
    let known = node.submit(spec("one_step").keyed("k"));
    node.settle();
    let refusal = now_or_never(refused).unwrap().unwrap_err();
    assert_eq!(refusal, SubmitError::TooManyJobs { limit: 2 });
    assert!(refusal.is_temporary());
    assert!(now_or_never(known).unwrap().is_ok());
    node.world.complete("work", Ok(Json::null()));
    node.settle();
    node.run("one_step");
}

#[test]
fn limits_can_change_while_jobs_run() {
    let mut node = Node::new(programs(), World::by_hand());
    node.run("one_step");
    node.send(runtime::engine::Input::SetLimits(Limits {
        live_jobs: 1,
        ..Limits::default()
    }));
    let refused = node.submit(spec("one_step"));
    node.settle();
    assert_eq!(
        now_or_never(refused).unwrap(),
        Err(SubmitError::TooManyJobs { limit: 1 })
    );
}

#[test]
fn a_job_without_steps_is_over_at_once() {
    let mut node = Node::new(programs(), World::by_hand());
    let job = node.run_spec(JobSpec::new("echo", Json::of(&[1, 2])).named("of two"));
    let view = node.view(job);
    assert_eq!(view.state, JobState::Completed);
    assert_eq!(view.name.as_deref(), Some("of two"));
    assert_eq!(node.advance_to_deadline(), Some(Duration::from_secs(30)));
    node.assert_replays(job);
}

/// Whoever waits for the end of a job is told when it is durable, and at once when it has been before.
#[test]
fn the_end_of_a_job_can_be_waited_for() {
    let mut node = Node::new(programs(), World::by_hand());
    let job = node.run("one_step");
    let ask = |node: &mut Node| node.ask(|reply| Input::WhenOver { job, reply });
    let mut early = ask(&mut node);
    drop(ask(&mut node));
    node.settle();
    assert!(early.try_recv().is_err(), "it is not over");
    node.world.complete("work", Ok(Json::of("done")));
    node.turn();
    assert!(node.write().unwrap());
    node.turn();
    assert!(
        early.try_recv().is_err(),
        "its end is not known to be durable"
    );
    node.settle();
    let told = now_or_never(early).unwrap().unwrap();
    assert_eq!(told.state, JobState::Completed);
    assert_eq!(told, node.view(job));
    let late = ask(&mut node);
    node.turn();
    assert_eq!(now_or_never(late).unwrap(), Some(told));
    let unknown = node.ask(|reply| Input::WhenOver {
        job: JobId::from_parts(0, 0),
        reply,
    });
    node.turn();
    assert_eq!(now_or_never(unknown).unwrap(), None);
}

#[test]
fn whoever_waits_for_the_end_of_a_job_hears_of_the_end_of_the_node() {
    let mut node = Node::new(programs(), World::by_hand());
    let job = node.run("one_step");
    let mut waiting = node.ask(|reply| Input::WhenOver { job, reply });
    node.settle();
    node.kill();
    assert_eq!(
        waiting.try_recv().unwrap_err(),
        tokio::sync::oneshot::error::TryRecvError::Closed
    );
}

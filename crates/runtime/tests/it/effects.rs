//! Effects: when they start, what an interruption means, how they are tried again and ended.

use std::time::Duration;

use runtime::EffectClass::{External, Keyed, Read, Workspace};
use runtime::entry::{Entry, Outcome};
use runtime::{
    CancelReason, EffectClass, EffectError, EffectPolicy, JobPriority, JobSpec, JobState, Json,
    Limits, Programs,
};

use crate::support::{Behaviour, Node, Setup, World, done, failed, program, step, tried};

const CLASSES: [EffectClass; 4] = [Read, Workspace, Keyed, External];

/// A program of one step of this class, which says how that went.
fn one_step(class: EffectClass) -> Programs {
    Programs::new().with(program("one", move |context, _| async move {
        step(&context, "work", class).await.map_err(failed)
    }))
}

fn policy(attempts: u32) -> EffectPolicy {
    EffectPolicy {
        attempts,
        ..EffectPolicy::of_class(Keyed)
    }
}

fn one_tried(policy: EffectPolicy) -> Programs {
    Programs::new().with(program("one", move |context, _| {
        let policy = policy.clone();
        async move { tried(&context, "work", policy).await.map_err(failed) }
    }))
}

fn transient() -> EffectError {
    EffectError::transient("exit_status", "exited with 1")
}

#[test]
fn only_a_read_starts_before_its_intent_is_durable() {
    for class in CLASSES {
        let mut node = Node::new(one_step(class), World::by_hand());
        node.settle();
        let _answer = node.submit(JobSpec::new("one", Json::null()));
        node.turn();
        assert_eq!(
            node.world.running().len(),
            usize::from(class == Read),
            "{class}"
        );
        node.write().unwrap();
        node.turn();
        assert_eq!(
            node.world.running().len(),
            usize::from(class == Read),
            "{class}"
        );
        node.report();
        node.turn();
        assert_eq!(node.world.running(), ["work"], "{class}");
    }
}

#[test]
fn what_was_interrupted_runs_again_unless_nobody_can_know_what_it_did() {
    for class in CLASSES {
        let mut node = Node::new(one_step(class), World::by_hand());
        let job = node.run("one");
        node.restart();
        let starts = node.world.starts();
        assert_eq!(
            starts.len(),
            if class == External { 1 } else { 2 },
            "{class}"
        );
        if class == External {
            let view = node.view(job);
            assert_eq!(view.state, JobState::Failed);
            assert!(
                view.error
                    .unwrap()
                    .contains("whether it took effect is unknown")
            );
            assert!(matches!(
                node.journal(job)[2],
                Entry::Completed {
                    outcome: Outcome::Interrupted,
                    ..
                }
            ));
        } else {
            assert!(!starts[0].interrupted && starts[1].interrupted);
            assert_eq!(starts[0].key, starts[1].key, "it is the same request");
            node.world.complete("work", Ok(Json::null()));
            node.settle();
            assert_eq!(node.state(job), JobState::Completed);
        }
        node.assert_replays(job);
    }
}

#[test]
fn a_result_in_the_journal_is_never_asked_for_again() {
    for class in CLASSES {
        let programs = Programs::new().with(program("two", move |context, _| async move {
            step(&context, "first", class).await.map_err(failed)?;
            step(&context, "second", Keyed).await.map_err(failed)
        }));
        let mut node = Node::new(programs, World::by_hand());
        let job = node.run("two");
        node.world.complete("first", Ok(Json::of("1")));
        node.settle();
        node.restart();
        node.restart();
        assert_eq!(node.world.starts_of("first").len(), 1);
        node.world.complete("second", Ok(Json::of("2")));
        node.settle();
        assert_eq!(node.state(job), JobState::Completed);
        node.assert_replays(job);
    }
}

#[test]
fn a_result_that_is_not_durable_yet_is_not_acted_on() {
    let programs = Programs::new().with(program("two", |context, _| async move {
        step(&context, "first", Keyed).await.map_err(failed)?;
        step(&context, "second", Keyed).await.map_err(failed)
    }));
    let mut node = Node::new(programs, World::by_hand());
    let job = node.run("two");
    node.world.complete("first", Ok(Json::of("lost")));
    node.turn();
    node.write().unwrap();
    node.turn();
    assert_eq!(node.world.starts_of("second").len(), 0);
    // The disk may have it or not; either way the job goes on.
    node.restart();
    if node.world.running() == ["first"] {
        node.world.complete("first", Ok(Json::of("again")));
        node.settle();
    }
    assert_eq!(node.world.running(), ["second"]);
    assert_eq!(node.state(job), JobState::Running);
}

#[test]
fn a_failed_try_is_tried_again_after_its_wait_also_across_a_restart() {
    let mut node = Node::new(one_tried(policy(3)), World::by_hand());
    let job = node.run("one");
    node.world.complete("work", Err(transient()));
    node.settle();
    let view = node.view(job);
    assert_eq!(view.state, JobState::Waiting);
    assert_eq!(view.steps[0].status, "backoff");
    let due_ms = view.steps[0].next_attempt_ms.unwrap();
    assert!((500..=1_000).contains(&(due_ms - node.unix_ms())));
    node.advance(Duration::from_millis(300));
    node.restart();
    assert_eq!(node.view(job).steps[0].next_attempt_ms, Some(due_ms));
    node.advance(Duration::from_millis(due_ms - node.unix_ms() - 1));
    assert_eq!(node.world.starts().len(), 1, "not before its time");
    node.advance(Duration::from_millis(1));
    let starts = node.world.starts();
    assert_eq!(starts.len(), 2);
    assert_eq!(starts[1].id.attempt.0, 2);
    assert!(
        !starts[1].interrupted,
        "it is another try, not the same again"
    );
    assert_eq!(starts[0].key, starts[1].key);
    // An interrupted second try is the second try still.
    node.restart();
    assert_eq!(node.world.starts()[2].id.attempt.0, 2);
    node.world.complete("work", Ok(Json::null()));
    node.settle();
    assert_eq!(node.state(job), JobState::Completed);
    node.assert_replays(job);
}

#[test]
fn the_last_error_is_the_program_s() {
    let world =
        World::new(|_| Behaviour::Answer(Err(transient().with_output(Json::of("partial")))));
    let mut node = Node::new(one_tried(policy(3)), world);
    let job = node.run("one");
    while node.state(job) != JobState::Failed {
        node.advance(Duration::from_secs(1));
    }
    assert_eq!(node.world.starts().len(), 3);
    assert!(matches!(
        node.journal(job).last(),
        Some(Entry::Finished { ending: runtime::entry::Ending::Failed { code, output: Some(_), .. }, .. })
            if code == "exit_status"
    ));
    node.assert_replays(job);
}

#[test]
fn a_try_that_takes_too_long_is_ended_and_counts_as_failed() {
    let slow = EffectPolicy {
        timeout: Some(Duration::from_secs(10)),
        ..policy(2)
    };
    let mut node = Node::new(one_tried(slow), World::by_hand());
    let job = node.run("one");
    node.advance(Duration::from_secs(9));
    assert_eq!(node.world.cancels(), []);
    node.advance(Duration::from_secs(1));
    assert_eq!(node.world.cancels().len(), 1);
    assert_eq!(node.world.cancels()[0].1, CancelReason::TimedOut);
    node.advance(Duration::from_secs(2));
    assert_eq!(
        node.world.starts().len(),
        2,
        "time out is worth another try"
    );
    node.advance(Duration::from_secs(10));
    node.settle();
    assert_eq!(node.state(job), JobState::Failed);
    let journal = node.journal(job);
    assert!(journal.iter().any(|entry| matches!(entry,
        Entry::Completed { outcome: Outcome::Failed { error, .. }, .. } if error.code == "timed_out")));
    node.assert_replays(job);
}

#[test]
fn what_is_done_when_its_time_is_over_has_made_it() {
    let slow = EffectPolicy {
        timeout: Some(Duration::from_secs(1)),
        ..policy(1)
    };
    let mut node = Node::new(one_tried(slow), World::new(|_| Behaviour::Stubborn));
    let job = node.run("one");
    node.advance(Duration::from_secs(1));
    assert_eq!(node.world.cancels().len(), 1);
    node.world.complete("work", Ok(Json::of("just so")));
    node.settle();
    assert_eq!(node.state(job), JobState::Completed);
}

#[test]
fn a_handler_that_does_not_end_what_it_should_is_written_off() {
    let slow = EffectPolicy {
        timeout: Some(Duration::from_secs(1)),
        ..policy(2)
    };
    let mut node = Node::new(one_tried(slow), World::new(|_| Behaviour::Stubborn));
    let job = node.run("one");
    node.advance(Duration::from_secs(1));
    let late = node.world.steal("work");
    node.advance(Duration::from_secs(60));
    let view = node.view(job);
    assert_eq!(view.state, JobState::Failed);
    assert!(view.error.unwrap().contains("it may still be at work"));
    // What it still comes to is nobody's result; and it is not tried again beside itself.
    late.complete(Ok(Json::of("too late")));
    node.advance(Duration::from_secs(10));
    assert_eq!(node.world.starts().len(), 1);
    node.assert_replays(job);
}

#[test]
fn a_handler_that_vanishes_leaves_no_job_waiting() {
    let mut node = Node::new(one_tried(policy(1)), World::new(|_| Behaviour::Vanish));
    let job = node.run("one");
    let view = node.view(job);
    assert_eq!(view.state, JobState::Failed);
    assert_eq!(
        view.error.as_deref(),
        Some("the effect's handler ended without a result")
    );
    node.assert_replays(job);
}

#[test]
fn effects_beyond_the_limit_wait_and_the_urgent_go_first() {
    let setup = Setup {
        limits: Limits {
            running_effects: 2,
            ..Limits::default()
        },
        ..Setup::default()
    };
    let programs = Programs::new().with(program("one", |context, input| async move {
        let label = input.as_str().to_owned();
        step(&context, &label, External).await.map_err(failed)
    }));
    let mut node = Node::with(setup, programs, World::by_hand());
    let mut jobs = Vec::new();
    for (number, priority) in [
        (0, JobPriority::Normal),
        (1, JobPriority::Normal),
        (2, JobPriority::Low),
        (3, JobPriority::Normal),
        (4, JobPriority::High),
        (5, JobPriority::Normal),
    ] {
        jobs.push(node.run_spec(JobSpec {
            priority,
            ..JobSpec::new("one", Json::of(&number))
        }));
    }
    assert_eq!(node.world.running(), ["0", "1"]);
    assert_eq!(node.view(jobs[2]).steps[0].status, "queued");
    assert_eq!(node.dump().queued_effects, 4);
    for (over, next) in [("0", "4"), ("1", "3"), ("4", "5"), ("3", "2")] {
        node.world.complete(over, Ok(Json::null()));
        node.settle();
        assert_eq!(node.world.starts().last().unwrap().label, next);
    }
    for label in ["5", "2"] {
        node.world.complete(label, Ok(Json::null()));
    }
    node.settle();
    for job in jobs {
        assert_eq!(node.state(job), JobState::Completed);
        node.assert_replays(job);
    }
}

#[test]
fn what_waited_for_room_when_the_node_died_was_not_interrupted() {
    let setup = Setup {
        limits: Limits {
            running_effects: 1,
            ..Limits::default()
        },
        ..Setup::default()
    };
    let programs = Programs::new().with(program("one", |context, input| async move {
        let label = input.as_str().to_owned();
        step(&context, &label, External).await.map_err(failed)
    }));
    let mut node = Node::with(setup, programs, World::by_hand());
    let first = node.run_spec(JobSpec::new("one", Json::of(&1)));
    let second = node.run_spec(JobSpec::new("one", Json::of(&2)));
    node.restart();
    assert_eq!(
        node.state(first),
        JobState::Failed,
        "it ran, and is unknown"
    );
    assert_eq!(node.world.running(), ["2"], "it had left no trace");
    node.world.complete("2", Ok(Json::null()));
    node.settle();
    assert_eq!(node.state(second), JobState::Completed);
    assert_eq!(
        node.story(second),
        [
            "step 0 `2`: effect `work` of class external, 1 attempts, input \"2\"",
            "step 0: queued",
            "step 0: attempt 1 starts",
            "step 0: completed",
            "the end, completed with null",
        ]
    );
    node.assert_replays(second);
}

#[test]
fn an_effect_that_its_program_drops_is_ended_and_its_result_goes_nowhere() {
    let programs = Programs::new().with(program("hasty", |context, _| async move {
        let slow = step(&context, "slow", External);
        let elapsed = context.timeout(Duration::from_secs(5), slow).await.is_err();
        step(&context, "after", External).await.map_err(failed)?;
        Ok(Json::of(&elapsed))
    }));
    let mut node = Node::new(programs, World::by_hand());
    let job = node.run("hasty");
    node.advance(Duration::from_secs(5));
    assert_eq!(node.world.cancels()[0].1, CancelReason::Cancelled);
    node.world.complete("after", Ok(Json::null()));
    node.settle();
    assert_eq!(node.state(job), JobState::Completed);
    assert_eq!(
        node.story(job),
        [
            "step 0 `slow`: effect `work` of class external, 1 attempts, input \"slow\"",
            "step 1: its time came",
            "step 0: given up by the program",
            "step 2 `after`: effect `work` of class external, 1 attempts, input \"after\"",
            "step 0: completed",
            "step 2: completed",
            "the end, completed with true",
        ]
    );
    node.assert_replays(job);
}

#[test]
fn an_effect_that_is_dropped_before_it_starts_never_does() {
    let programs = Programs::new().with(program("fickle", |context, _| async move {
        let a = step(&context, "a", External);
        let b = step(&context, "b", External);
        let _ = context.select(a, context.select(b, async {})).await;
        done()
    }));
    let mut node = Node::new(programs, World::by_hand());
    let job = node.run("fickle");
    assert_eq!(node.world.starts(), []);
    assert_eq!(node.state(job), JobState::Completed);
    node.assert_replays(job);
}

#[test]
fn an_effect_that_is_dropped_at_once_where_a_journal_ends_never_starts() {
    let programs = Programs::new().with(program("fickle", |context, _| async move {
        context.signal("go").await;
        let dropped = step(&context, "dropped", External);
        let _ = context.select(dropped, async {}).await;
        step(&context, "kept", Keyed).await.map_err(failed)
    }));
    let setup = Setup {
        limits: Limits {
            turn_polls: 1,
            ..Limits::default()
        },
        ..Setup::default()
    };
    let mut node = Node::with(setup, programs, World::by_hand());
    let jobs = [node.run("fickle"), node.run("fickle")];
    for job in jobs {
        drop(node.signal(job, "go", "1"));
    }
    // Both get their signal in this turn, and one of them runs no more: its journal ends with the signal.
    node.turn();
    node.write().unwrap();
    node.kill();
    assert_eq!(node.story(jobs[1]), ["signal `go`"]);
    node.start();
    node.settle();
    assert_eq!(node.world.starts_of("dropped"), []);
    assert_eq!(node.world.running(), ["kept", "kept"]);
}

#[test]
fn a_dropped_effect_is_not_found_interrupted() {
    let programs = Programs::new().with(program("hasty", |context, _| async move {
        let slow = step(&context, "slow", External);
        let _ = context.timeout(Duration::from_secs(5), slow).await;
        step(&context, "after", Keyed).await.map_err(failed)
    }));
    let world = World::new(|_| Behaviour::Stubborn);
    let mut node = Node::new(programs, world);
    let job = node.run("hasty");
    node.advance(Duration::from_secs(5));
    node.restart();
    assert_eq!(node.world.running(), ["after"]);
    node.world.complete("after", Ok(Json::null()));
    node.settle();
    assert!(!node.journal(job).iter().any(|entry| matches!(
        entry,
        Entry::Completed {
            outcome: Outcome::Interrupted,
            ..
        }
    )));
    node.assert_replays(job);
}

#[test]
fn the_runner_is_told_when_a_result_is_durable() {
    let mut node = Node::new(one_step(Workspace), World::by_hand());
    node.run("one");
    node.world.complete("work", Ok(Json::null()));
    node.turn();
    node.write().unwrap();
    node.turn();
    assert_eq!(node.world.settled(), []);
    node.report();
    node.turn();
    assert_eq!(node.world.settled().len(), 1);
}

/// The journal ends where the program asked for an effect; in the same breath it asked for another one and gave the first
/// up, and that is lost.
#[test]
fn what_is_given_up_just_behind_the_end_of_the_journal_does_not_run_again() {
    let programs = Programs::new().with(program("p", |context, _| async move {
        step(&context, "first", Keyed).await.map_err(failed)?;
        let mut old = Box::pin(step(&context, "old", Keyed));
        let mut new = Box::pin(step(&context, "new", Keyed));
        std::future::poll_fn(|waker| {
            assert!(old.as_mut().poll(waker).is_pending());
            assert!(new.as_mut().poll(waker).is_pending());
            std::task::Poll::Ready(())
        })
        .await;
        drop(old);
        new.await.map_err(failed)
    }));
    let mut node = Node::new(programs.clone(), World::by_hand());
    let job = node.run("p");
    node.world.complete("first", Ok(Json::null()));
    node.settle();
    assert_eq!(node.world.running(), ["new"]);
    let asks_for_old =
        |entry: &Entry| matches!(entry, Entry::Requested { label, .. } if label == "old");
    let journal = node.recorded(job);
    let end = journal
        .iter()
        .position(|r| asks_for_old(&r.entry().unwrap()));
    let mut batch = wal::Batch::new();
    for recorded in &journal[..=end.unwrap()] {
        batch.push(&recorded.bytes);
    }

    let mut node = Node::new(programs, World::by_hand());
    node.kill();
    let options = wal::Options {
        segment_bytes: node.setup.segment_bytes,
        ..wal::Options::new("/log")
    };
    let disk = std::sync::Arc::new(node.disk.clone());
    let (mut log, _) = wal::Log::open(options, disk, wal::ignore).unwrap();
    log.append(&[&batch]).unwrap();
    drop(log);
    node.start();
    node.settle();
    assert_eq!(node.world.running(), ["new"]);
    node.world.complete("new", Ok(Json::null()));
    node.settle();
    assert_eq!(node.state(job), JobState::Completed);
    node.assert_replays(job);
}

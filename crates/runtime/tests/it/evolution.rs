//! Programs change and journals stay: version branches, checkpoints, jobs that are stuck.

use std::time::Duration;

use pal::EventKind;
use runtime::EffectClass::Keyed;
use runtime::entry::Entry;
use runtime::{Context, JobError, JobId, JobState, Json, ProgramResult, Programs, ReplayError};

use crate::support::node::now_or_never;
use crate::support::{FnProgram, Node, World, done, failed, program, step};

/// A program made of the labels of its steps.
fn steps(
    labels: &'static [&'static str],
) -> FnProgram<impl Fn(Context, Json) -> runtime::ProgramFuture + Send + Sync> {
    program("p", move |context, _| async move {
        for label in labels {
            step(&context, label, Keyed).await.map_err(failed)?;
        }
        done()
    })
}

fn complete(node: &mut Node, label: &str) {
    node.world.complete(label, Ok(Json::null()));
    node.settle();
}

/// Stops the node and starts it with another build.
fn upgrade(node: &mut Node, programs: Programs) {
    node.programs = programs;
    node.restart();
}

async fn grown(context: Context, _: Json) -> ProgramResult {
    step(&context, "a", Keyed).await.map_err(failed)?;
    match context.version("check twice", 2) {
        0 => {}
        1 => drop(step(&context, "check", Keyed).await),
        _ => {
            step(&context, "check", Keyed).await.map_err(failed)?;
            step(&context, "again", Keyed).await.map_err(failed)?;
        }
    }
    step(&context, "b", Keyed).await.map_err(failed)?;
    done()
}

#[test]
fn a_job_that_is_past_a_change_goes_on_as_it_began() {
    let mut node = Node::new(Programs::new().with(steps(&["a", "b"])), World::by_hand());
    let past = node.run("p");
    complete(&mut node, "a");
    let before = node.run("p");
    upgrade(&mut node, Programs::new().with(program("p", grown)));
    let new = node.run("p");
    // One is past the change, one has not come to it yet, one is new.
    assert_eq!(node.world.running(), ["b", "a", "a"]);
    complete(&mut node, "b");
    assert_eq!(node.state(past), JobState::Completed);
    complete(&mut node, "a");
    complete(&mut node, "a");
    assert_eq!(node.world.running(), ["check", "check"]);
    for label in ["check", "check", "again", "again", "b", "b"] {
        complete(&mut node, label);
    }
    for job in [past, before, new] {
        assert_eq!(node.state(job), JobState::Completed);
        node.assert_replays(job);
    }
    assert!(
        node.story(new)
            .contains(&"branch 2 of change `check twice`".to_owned())
    );
    assert!(
        !node
            .story(past)
            .iter()
            .any(|entry| entry.contains("branch"))
    );
}

#[test]
fn a_change_that_came_later_does_not_take_the_branch_of_an_earlier_one() {
    let mut node = Node::new(
        Programs::new().with(program("p", |context, _| async move {
            assert_eq!(context.version("colour", 1), 1);
            step(&context, "a", Keyed).await.map_err(failed)
        })),
        World::by_hand(),
    );
    let job = node.run("p");
    upgrade(
        &mut node,
        Programs::new().with(program("p", |context, _| async move {
            let size = context.version("size", 3);
            let colour = context.version("colour", 1);
            step(&context, "a", Keyed).await.map_err(failed)?;
            Ok(Json::of(&[size, colour]))
        })),
    );
    complete(&mut node, "a");
    assert_eq!(
        node.story(job).pop().unwrap(),
        "the end, completed with [0,1]"
    );
    node.assert_replays(job);
}

#[test]
fn a_branch_that_was_taken_is_taken_again_by_a_build_that_has_a_newer_one() {
    let mut node = Node::new(
        Programs::new().with(program("p", |context, _| async move {
            assert_eq!(context.version("colour", 1), 1);
            step(&context, "a", Keyed).await.map_err(failed)
        })),
        World::by_hand(),
    );
    let job = node.run("p");
    upgrade(
        &mut node,
        Programs::new().with(program("p", |context, _| async move {
            let branch = context.version("colour", 7);
            step(&context, "a", Keyed).await.map_err(failed)?;
            Ok(Json::of(&[branch, context.version("colour", 9)]))
        })),
    );
    complete(&mut node, "a");
    assert_eq!(
        node.story(job).pop().unwrap(),
        "the end, completed with [1,1]"
    );
    node.assert_replays(job);
}

#[test]
fn a_changed_program_is_stuck_with_the_step_and_both_sides_and_the_others_go_on() {
    let programs = |first: &'static [&'static str]| {
        Programs::new()
            .with(steps(first))
            .with(program("other", |context, _| async move {
                step(&context, "other", Keyed).await.map_err(failed)
            }))
    };
    let mut node = Node::new(programs(&["a", "b", "c"]), World::by_hand());
    let job = node.run("p");
    complete(&mut node, "a");
    let other = node.run("other");
    upgrade(&mut node, programs(&["a", "X", "c"]));
    let view = node.view(job);
    assert_eq!(view.state, JobState::Stuck);
    let reason = view.error.unwrap();
    for part in [
        "at step 1",
        "journal has step 1 `b`",
        "program came with step 1 `X`",
    ] {
        assert!(reason.contains(part), "{reason}");
    }
    assert!(node.take_events().iter().any(|event| matches!(event,
        EventKind::JobStuck { step: Some(step), .. } if step == "1")));
    // Replay, offline, says the very same.
    match node.replay(job) {
        Err(ReplayError::Diverged(divergence)) => assert_eq!(divergence.to_string(), reason),
        other => panic!("{other:?}"),
    }
    assert_eq!(node.dump().running_effects, 1, "nothing of it runs");
    complete(&mut node, "other");
    assert_eq!(node.state(other), JobState::Completed);
    let idle = node.when_idle();
    node.settle();
    assert_eq!(now_or_never(idle).unwrap().stuck, 1);
    let answer = node.signal(job, "x", "1");
    node.settle();
    assert!(matches!(
        now_or_never(answer),
        Some(Err(JobError::Stuck { .. }))
    ));
    // The old build takes it up where it was.
    upgrade(&mut node, programs(&["a", "b", "c"]));
    complete(&mut node, "b");
    complete(&mut node, "c");
    assert_eq!(node.state(job), JobState::Completed);
    node.assert_replays(job);
}

#[test]
fn nothing_happens_to_a_stuck_job_while_it_is_stuck() {
    let sleeper = |label: &'static str| {
        Programs::new().with(program("p", move |context, _| async move {
            let nap = context.sleep(Duration::from_secs(10));
            let work = step(&context, label, Keyed);
            let _ = context.select(nap, work).await;
            done()
        }))
    };
    let mut node = Node::new(sleeper("old"), World::by_hand());
    let job = node.run("p");
    let before = node.story(job);
    upgrade(&mut node, sleeper("new"));
    assert_eq!(node.state(job), JobState::Stuck);
    // Its timer was set before the difference showed.
    node.advance(Duration::from_secs(20));
    assert_eq!(node.story(job), before);
    upgrade(&mut node, sleeper("old"));
    node.settle();
    assert_eq!(node.state(job), JobState::Completed);
    node.assert_replays(job);
}

#[test]
fn a_stuck_job_can_be_cancelled_and_stays_so() {
    for dies_before_the_end in [false, true] {
        let mut node = Node::new(Programs::new().with(steps(&["a", "b"])), World::by_hand());
        let job = node.run("p");
        upgrade(&mut node, Programs::new().with(steps(&["X"])));
        let answer = node.cancel(job);
        if dies_before_the_end {
            node.turn();
            node.write().unwrap();
            drop(answer);
            node.kill();
            // Cut the last entry off, as if it had come in a later batch.
            node.start();
            node.settle();
        } else {
            node.settle();
            assert_eq!(now_or_never(answer), Some(Ok(())));
        }
        assert_eq!(node.state(job), JobState::Cancelled);
        let idle = node.when_idle();
        node.settle();
        assert_eq!(now_or_never(idle).unwrap().stuck, 0);
        node.restart();
        assert_eq!(node.state(job), JobState::Cancelled);
        // Its hash is that of its journal, whoever can follow it.
        node.programs = Programs::new().with(steps(&["a", "b"]));
        node.assert_replays(job);
    }
}

#[test]
fn programs_that_do_less_or_more_than_their_journal_are_found_out() {
    for (labels, expected, found) in [
        (&["a"][..], "step 1 `b`", "its end, completed"),
        (
            &["a", "b", "c", "d"][..],
            "the end, completed",
            "step 3 `d`",
        ),
    ] {
        let mut node = Node::new(
            Programs::new().with(steps(&["a", "b", "c"])),
            World::by_hand(),
        );
        let job = node.run("p");
        for label in ["a", "b", "c"] {
            complete(&mut node, label);
        }
        node.programs = Programs::new().with(steps(labels));
        let error = node.replay(job).unwrap_err().to_string();
        assert!(
            error.contains(&format!("journal has {expected}")),
            "{error}"
        );
        assert!(
            error.contains(&format!("program came with {found}")),
            "{error}"
        );
    }
}

#[test]
fn a_program_that_waits_where_its_journal_goes_on_is_stuck() {
    let mut node = Node::new(Programs::new().with(steps(&["a", "b"])), World::by_hand());
    let job = node.run("p");
    complete(&mut node, "a");
    let waits = program("p", |context, _| async move {
        step(&context, "a", Keyed).await.map_err(failed)?;
        context.signal("never").await;
        done()
    });
    upgrade(&mut node, Programs::new().with(waits));
    let error = node.view(job).error.unwrap();
    assert!(
        error.contains("program came with nothing: it waits"),
        "{error}"
    );
}

#[test]
fn an_older_build_does_not_touch_what_a_newer_one_began() {
    let mut node = Node::new(
        Programs::new().with(steps(&["a"]).version(3)),
        World::by_hand(),
    );
    let job = node.run("p");
    upgrade(&mut node, Programs::new().with(steps(&["a"]).version(2)));
    assert_eq!(
        node.view(job).error.unwrap(),
        "program does not follow its journal (LSN 2): journal has version 3 of program `p`; \
         program came with version 2 in this build"
    );
    upgrade(&mut node, Programs::new().with(steps(&["a"]).version(4)));
    complete(&mut node, "a");
    assert_eq!(node.state(job), JobState::Completed);
}

#[test]
fn a_job_whose_program_is_gone_waits_for_it() {
    let mut node = Node::new(Programs::new().with(steps(&["a"])), World::by_hand());
    let job = node.run("p");
    upgrade(&mut node, Programs::new());
    assert!(
        node.view(job)
            .error
            .unwrap()
            .contains("no program of that name")
    );
    assert!(matches!(
        node.replay(job),
        Err(ReplayError::UnknownProgram(_))
    ));
    upgrade(&mut node, Programs::new().with(steps(&["a"])));
    assert_eq!(node.world.running(), ["a"]);
}

/// A job of many rounds that folds its history after each.
async fn rounds(context: Context, _: Json) -> ProgramResult {
    let mut round: u64 = context
        .checkpointed()
        .map_or(0, |state| state.read().unwrap());
    loop {
        step(&context, &format!("round {round}"), Keyed)
            .await
            .map_err(failed)?;
        let stop = context
            .timeout(Duration::from_millis(5), context.signal("stop"))
            .await;
        round += 1;
        if stop.is_ok() {
            return Ok(Json::of(&(round, context.random(), context.now_ms())));
        }
        context.checkpoint(Json::of(&round)).await;
    }
}

#[test]
fn recovery_goes_back_to_the_last_checkpoint_and_no_further() {
    let mut node = Node::new(
        Programs::new().with(program("p", rounds)),
        World::obliging(),
    );
    let job = node.run("p");
    for _ in 0..20 {
        node.advance(Duration::from_millis(5));
    }
    assert_eq!(node.world.starts().len(), 21);
    node.take_events();
    node.restart();
    let entries = node
        .take_events()
        .into_iter()
        .find_map(|event| match event {
            EventKind::JobRecovered { entries } => Some(entries),
            _ => None,
        });
    assert!(entries.unwrap() <= 4, "{entries:?} entries were followed");
    // A signal that came before it was waited for is part of what is folded.
    drop(node.signal(job, "other", "1"));
    node.settle();
    node.advance(Duration::from_millis(5));
    node.restart();
    drop(node.signal(job, "stop", "1"));
    node.settle();
    node.advance(Duration::from_millis(5));
    assert_eq!(node.state(job), JobState::Completed);
    node.assert_replays(job);
}

#[test]
fn a_checkpoint_is_only_for_who_waits_for_nothing() {
    let programs = Programs::new().with(program("p", |context, _| async move {
        let own = context.clone();
        context
            .spawn("child", async move {
                let _ = step(&own, "work", Keyed).await;
            })
            .detach();
        context
            .timeout(Duration::from_secs(1), context.signal("x"))
            .await
            .ok();
        context.checkpoint(Json::null()).await;
        done()
    }));
    let mut node = Node::new(programs, World::by_hand());
    let job = node.run("p");
    node.advance(Duration::from_secs(1));
    let view = node.view(job);
    assert_eq!(view.state, JobState::Failed);
    assert!(view.error.unwrap().contains("while 1 steps were open"));
}

#[test]
fn a_change_made_after_a_checkpoint_was_written_is_taken_by_later_rounds_only() {
    let old = program("p", |context, _| async move {
        let round: u64 = context
            .checkpointed()
            .map_or(0, |state| state.read().unwrap());
        step(&context, "work", Keyed).await.map_err(failed)?;
        context.checkpoint(Json::of(&(round + 1))).await;
        done()
    });
    let new = program("p", |context, _| async move {
        let round: u64 = context
            .checkpointed()
            .map_or(0, |state| state.read().unwrap());
        let polite = context.version("polite", 1) > 0;
        step(&context, "work", Keyed).await.map_err(failed)?;
        if polite {
            step(&context, "thanks", Keyed).await.map_err(failed)?;
        }
        if round == 5 {
            return Ok(Json::of(&polite));
        }
        context.checkpoint(Json::of(&(round + 1))).await;
        done()
    });
    let mut node = Node::new(Programs::new().with(old), World::by_hand());
    let job = node.run("p");
    for _ in 0..3 {
        complete(&mut node, "work");
    }
    // The fourth round has begun without the change, and ends without it.
    upgrade(&mut node, Programs::new().with(new));
    complete(&mut node, "work");
    assert_eq!(node.world.running(), ["work"], "no thanks were due");
    node.restart();
    while node.state(job) != JobState::Completed {
        let label = node.world.running().remove(0);
        complete(&mut node, &label);
        node.restart();
    }
    // From the beginning, checkpoints of both builds included.
    node.assert_replays(job);
    assert!(
        node.journal(job)
            .iter()
            .filter(|e| matches!(e, Entry::Checkpoint(_)))
            .count()
            == 5
    );
}

#[test]
fn a_job_s_journal_names_it_and_no_other() {
    let mut node = Node::new(Programs::new().with(steps(&["a"])), World::obliging());
    let jobs: Vec<JobId> = (0..3).map(|_| node.run("p")).collect();
    for job in jobs {
        assert_eq!(node.journal(job).len(), 4);
        node.assert_replays(job);
    }
}

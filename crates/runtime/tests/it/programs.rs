//! What programs see: signals, questions, time, randomness, children, each other; and how they fail.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use pal::{EventKind, QuestionKind};
use runtime::EffectClass::{External, Keyed};
use runtime::{
    Context, Either, Failure, JobError, JobState, Json, Limits, ProgramResult, Programs, Question,
};

use crate::support::node::now_or_never;
use crate::support::{Node, Setup, World, done, failed, program, step};

fn one<F, P>(start: F) -> Programs
where
    F: Fn(Context, Json) -> P + Send + Sync + 'static,
    P: Future<Output = ProgramResult> + 'static,
{
    Programs::new().with(program("p", start))
}

fn result_of(node: &Node, job: runtime::JobId) -> String {
    node.story(job).pop().unwrap()
}

#[test]
fn a_signal_reaches_who_waits_for_it_and_is_kept_for_who_will() {
    let programs = one(|context, _| async move {
        let early = context.signal("early").await;
        let late = context.signal("late").await;
        Ok(Json::of(&[early, late]))
    });
    let mut node = Node::new(programs, World::by_hand());
    let job = node.run("p");
    assert_eq!(node.view(job).waits_for.as_deref(), Some("signal `early`"));
    // The second comes before it is waited for.
    for (name, json) in [("late", "2"), ("early", "1")] {
        let answer = node.signal(job, name, json);
        node.settle();
        assert_eq!(now_or_never(answer), Some(Ok(())));
        if name == "late" {
            node.restart();
        }
    }
    assert_eq!(result_of(&node, job), "the end, completed with [1,2]");
    node.assert_replays(job);
}

#[test]
fn a_signal_is_acknowledged_once_it_is_durable() {
    let programs = one(|context, _| async move { Ok(context.signal("go").await) });
    let mut node = Node::new(programs, World::by_hand());
    let job = node.run("p");
    let mut answer = node.signal(job, "go", "1");
    node.turn();
    node.write().unwrap();
    node.turn();
    assert!(answer.try_recv().is_err());
    node.report();
    node.turn();
    assert_eq!(now_or_never(answer), Some(Ok(())));
    node.settle();
    let over = node.signal(job, "go", "2");
    node.settle();
    let state = JobState::Completed;
    assert_eq!(now_or_never(over), Some(Err(JobError::Over { job, state })));
}

fn ask(within: Option<u64>) -> Programs {
    one(move |context, _| async move {
        let answer = context
            .ask(Question {
                name: "proceed".to_owned(),
                step: "gate".to_owned(),
                prompt: "go on?".to_owned(),
                kind: QuestionKind::Approval,
                deadline: within.map(|s| (Duration::from_secs(s), Json::of(&false))),
            })
            .await;
        step(&context, "after", Keyed).await.map_err(failed)?;
        Ok(Json::of(&(answer.value, answer.by_client)))
    })
}

#[test]
fn the_first_answer_to_a_question_wins_and_the_second_is_told_so() {
    for restart in [false, true] {
        let mut node = Node::new(ask(None), World::by_hand());
        let job = node.run("p");
        assert!(node.take_events().iter().any(|event| matches!(event,
            EventKind::Question { name, .. } if name == "proceed")));
        if restart {
            node.restart();
        }
        let first = node.signal(job, "proceed", "true");
        let second = node.signal(job, "proceed", "false");
        node.settle();
        assert_eq!(now_or_never(first), Some(Ok(())));
        let settled = JobError::Settled {
            job,
            question: "proceed".to_owned(),
        };
        assert_eq!(now_or_never(second), Some(Err(settled.clone())));
        if restart {
            node.restart();
        }
        let third = node.signal(job, "proceed", "false");
        node.settle();
        assert_eq!(now_or_never(third), Some(Err(settled)));
        node.world.complete("after", Ok(Json::null()));
        node.settle();
        assert_eq!(result_of(&node, job), "the end, completed with [true,true]");
        node.assert_replays(job);
    }
}

#[test]
fn a_question_nobody_answers_in_time_is_answered_by_its_default() {
    let mut node = Node::new(ask(Some(60)), World::obliging());
    let job = node.run("p");
    node.advance(Duration::from_secs(30));
    node.restart();
    assert_eq!(node.state(job), JobState::Waiting);
    // The rest of the time, and not all of it once more.
    node.advance(Duration::from_secs(30));
    assert_eq!(
        result_of(&node, job),
        "the end, completed with [false,false]"
    );
    node.assert_replays(job);
}

#[test]
fn a_sleep_goes_on_through_a_restart_and_is_over_at_once_if_its_time_has_passed() {
    let programs = one(|context, _| async move {
        let before = context.now_ms();
        context.sleep(Duration::from_secs(100)).await;
        Ok(Json::of(&(context.now_ms() - before)))
    });
    let mut node = Node::new(programs, World::by_hand());
    let job = node.run("p");
    assert!(
        node.view(job)
            .waits_for
            .unwrap()
            .starts_with("time 2025-01-01T00:01:40")
    );
    node.crash();
    node.advance(Duration::from_secs(99));
    node.start();
    node.settle();
    assert_eq!(node.state(job), JobState::Waiting);
    node.crash();
    node.advance(Duration::from_secs(500));
    node.start();
    node.settle();
    assert_eq!(result_of(&node, job), "the end, completed with 599000");
    node.assert_replays(job);
}

#[test]
fn select_takes_the_first_that_comes_and_lets_the_other_go() {
    let programs = one(|context, _| async move {
        let a = step(&context, "a", External);
        let b = step(&context, "b", External);
        let who = match context.select(a, b).await {
            Either::Left(_) => "a",
            Either::Right(_) => "b",
        };
        step(&context, "after", Keyed).await.map_err(failed)?;
        Ok(Json::of(who))
    });
    let mut node = Node::new(programs, World::by_hand());
    let job = node.run("p");
    // Both results come within one turn: each is handed over alone, so the order of the journal decides.
    node.world.complete("b", Ok(Json::null()));
    node.world.complete("a", Ok(Json::null()));
    node.settle();
    node.restart();
    node.world.complete("after", Ok(Json::null()));
    node.settle();
    assert_eq!(result_of(&node, job), "the end, completed with \"b\"");
    node.assert_replays(job);
}

#[test]
fn children_run_beside_each_other_and_are_joined() {
    let programs = one(|context, _| async move {
        let children: Vec<_> = ["x", "y", "z"]
            .map(|label| {
                let own = context.clone();
                context.spawn("child", async move {
                    step(&own, label, Keyed).await.map(|_| label)
                })
            })
            .into_iter()
            .collect();
        let mut labels = Vec::new();
        for child in children {
            labels.push(child.await.unwrap().map_err(failed)?);
        }
        Ok(Json::of(&labels))
    });
    let mut node = Node::new(programs, World::by_hand());
    let job = node.run("p");
    assert_eq!(node.world.running(), ["x", "y", "z"]);
    node.world.complete("z", Ok(Json::null()));
    node.settle();
    node.restart();
    assert_eq!(node.world.running(), ["x", "y"]);
    node.world.complete("y", Ok(Json::null()));
    node.world.complete("x", Ok(Json::null()));
    node.settle();
    assert_eq!(
        result_of(&node, job),
        "the end, completed with [\"x\",\"y\",\"z\"]"
    );
    node.assert_replays(job);
}

#[test]
fn a_job_with_a_step_at_work_is_running_whatever_else_it_waits_for() {
    let programs = one(|context, _| async move {
        let work = step(&context, "work", Keyed);
        context.select(work, context.signal("stop")).await;
        context.signal("go").await;
        done()
    });
    let mut node = Node::new(programs, World::by_hand());
    let job = node.run("p");
    assert_eq!(node.state(job), JobState::Running);
    assert_eq!(node.view(job).waits_for, None);
    node.world.complete("work", Ok(Json::null()));
    node.settle();
    assert_eq!(node.state(job), JobState::Waiting);
    assert_eq!(node.view(job).waits_for.as_deref(), Some("signal `go`"));
}

#[test]
fn every_draw_is_another_number() {
    let programs = one(|context, _| async move {
        let drawn: std::collections::BTreeSet<u64> = (0..100).map(|_| context.random()).collect();
        Ok(Json::of(&drawn.len()))
    });
    let mut node = Node::new(programs, World::by_hand());
    let job = node.run("p");
    assert_eq!(result_of(&node, job), "the end, completed with 100");
}

#[test]
fn time_and_chance_are_the_same_in_every_life_of_a_job() {
    let programs = one(|context, _| async move {
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push((context.now_ms(), context.random()));
            step(&context, "tick", Keyed).await.map_err(failed)?;
        }
        Ok(Json::of(&seen))
    });
    let mut quiet = Node::new(programs.clone(), World::by_hand());
    let mut rough = Node::new(programs, World::by_hand());
    let results = [&mut quiet, &mut rough].map(|node| {
        let job = node.run("p");
        for tick in 1..=4 {
            node.advance(Duration::from_millis(tick));
            node.world.complete("tick", Ok(Json::null()));
            node.settle();
        }
        result_of(node, job)
    });
    assert_eq!(results[0], results[1]);

    let mut node = rough;
    let job = node.run("p");
    for tick in 1..=4 {
        node.advance(Duration::from_millis(tick));
        node.world.complete("tick", Ok(Json::null()));
        node.settle();
        node.restart();
    }
    // What a later life saw is what the first one wrote down: replay compares the result with all it saw.
    assert_eq!(node.state(job), JobState::Completed);
    node.assert_replays(job);
}

#[test]
fn cancelling_a_job_ends_its_tasks_and_its_effects() {
    let programs = one(|context, _| async move {
        let own = context.clone();
        let child = context.spawn("child", async move {
            let _ = step(&own, "in child", External).await;
        });
        step(&context, "in root", External).await.map_err(failed)?;
        let _ = child.await;
        done()
    });
    let mut node = Node::new(programs, World::by_hand());
    let job = node.run("p");
    let mut answer = node.cancel(job);
    node.turn();
    assert!(answer.try_recv().is_err());
    assert_eq!(node.world.cancels().len(), 2);
    assert_ne!(
        node.state(job),
        JobState::Cancelled,
        "its effects have not ended yet"
    );
    let twice = node.cancel(job);
    let too_late = node.signal(job, "x", "1");
    node.settle();
    assert_eq!(now_or_never(answer), Some(Ok(())));
    assert_eq!(now_or_never(twice), Some(Ok(())));
    let state = JobState::Cancelled;
    assert_eq!(
        now_or_never(too_late),
        Some(Err(JobError::Over { job, state }))
    );
    let view = node.view(job);
    assert_eq!(view.state, JobState::Cancelled);
    assert_eq!(view.error.as_deref(), Some("not wanted any more"));
    assert_eq!(node.dump().scheduler.tasks().len(), 0);
    node.assert_replays(job);
    let again = node.cancel(job);
    node.settle();
    assert_eq!(
        now_or_never(again),
        Some(Err(JobError::Over { job, state }))
    );
}

#[test]
fn a_job_can_be_cancelled_whatever_it_is_at() {
    let setup = Setup {
        limits: Limits {
            running_effects: 1,
            ..Limits::default()
        },
        ..Setup::default()
    };
    let programs = one(|context, _| async move {
        let own = context.clone();
        context
            .spawn("sleeper", async move {
                own.sleep(Duration::from_secs(1_000)).await;
            })
            .detach();
        let own = context.clone();
        context
            .spawn("queued", async move {
                let _ = step(&own, "running", Keyed).await;
            })
            .detach();
        let own = context.clone();
        context
            .spawn("retrying", async move {
                let _ = step(&own, "queued", Keyed).await;
            })
            .detach();
        context.signal("never").await;
        done()
    });
    for restart in [false, true] {
        let mut node = Node::with(setup.clone(), programs.clone(), World::by_hand());
        let job = node.run("p");
        let answer = node.cancel(job);
        if restart {
            // The request is durable, and whether anything after it is, is a matter of luck.
            node.turn();
            node.write().unwrap();
            node.restart();
        } else {
            node.settle();
            assert_eq!(now_or_never(answer), Some(Ok(())));
        }
        assert_eq!(node.state(job), JobState::Cancelled);
        assert_eq!(node.dump().queued_effects, 0);
        assert_eq!(node.advance_to_deadline(), Some(Duration::from_secs(30)));
        node.assert_replays(job);
    }
}

#[test]
fn a_cancelled_job_whose_effects_do_not_end_is_over_all_the_same_in_the_end() {
    let programs =
        one(|context, _| async move { step(&context, "deaf", External).await.map_err(failed) });
    let world = World::new(|_| crate::support::Behaviour::Stubborn);
    let mut node = Node::new(programs, world);
    let job = node.run("p");
    let _answer = node.cancel(job);
    node.settle();
    assert_eq!(node.state(job), JobState::Running);
    node.advance(Duration::from_secs(60));
    assert_eq!(node.state(job), JobState::Cancelled);
    node.assert_replays(job);
}

#[test]
fn a_program_that_panics_has_failed_and_nothing_else_has() {
    let programs = one(|context, input| async move {
        if input == Json::of("bad") {
            step(&context, "half way", External).await.map_err(failed)?;
            panic!("out of cheese");
        }
        step(&context, "good", Keyed).await.map_err(failed)
    });
    let mut node = Node::new(programs, World::by_hand());
    let bad = node.run_spec(runtime::JobSpec::new("p", Json::of("bad")));
    let good = node.run("p");
    node.world.complete("half way", Ok(Json::null()));
    node.settle();
    assert_eq!(
        node.view(bad).error.as_deref(),
        Some("program panicked: out of cheese")
    );
    node.world.complete("good", Ok(Json::null()));
    node.settle();
    assert_eq!(node.state(good), JobState::Completed);
    node.assert_replays(bad);
}

#[test]
fn tasks_that_wait_for_each_other_fail_their_job() {
    let programs = one(|context, _| async move {
        let (a, b) = (Rc::new(context.latch()), Rc::new(context.latch()));
        let (theirs, mine) = (Rc::clone(&a), Rc::clone(&b));
        context
            .spawn("other", async move {
                theirs.wait().await;
                mine.set();
            })
            .detach();
        step(&context, "before", Keyed).await.map_err(failed)?;
        b.wait().await;
        a.set();
        done()
    });
    let mut node = Node::new(programs, World::by_hand());
    let job = node.run("p");
    node.restart();
    assert_eq!(node.state(job), JobState::Running);
    node.world.complete("before", Ok(Json::null()));
    node.settle();
    assert_eq!(node.state(job), JobState::Failed);
    assert!(result_of(&node, job).contains("deadlock"));
    node.assert_replays(job);
}

#[test]
fn a_job_that_never_rests_fails_and_the_others_go_on() {
    let programs = one(|context, input| async move {
        if input == Json::of("spin") {
            step(&context, "before", Keyed).await.map_err(failed)?;
            // Two tasks that wake each other for ever, and ask for nothing.
            let turns = Rc::new(Cell::new(0u64));
            loop {
                let turns = Rc::clone(&turns);
                let child = context.spawn("spin", async move { turns.set(turns.get() + 1) });
                let _ = child.await;
            }
        }
        step(&context, "good", Keyed).await.map_err(failed)
    });
    let setup = Setup {
        limits: Limits {
            turn_polls: 10,
            ..Limits::default()
        },
        ..Setup::default()
    };
    let mut node = Node::with(setup, programs, World::by_hand());
    let spin = node.run_spec(runtime::JobSpec::new("p", Json::of("spin")));
    let good = node.run("p");
    node.world.complete("before", Ok(Json::null()));
    node.turn();
    node.world.complete("good", Ok(Json::null()));
    node.settle();
    assert_eq!(node.state(good), JobState::Completed);
    assert_eq!(node.state(spin), JobState::Failed);
    assert!(result_of(&node, spin).contains("livelock"));
}

#[test]
fn a_busy_job_does_not_look_deadlocked_when_its_turn_is_over() {
    // More to run than one turn allows, and nothing asked for yet.
    let programs = one(|context, _| async move {
        for _ in 0..100 {
            let _ = context.spawn("child", async {}).await;
        }
        done()
    });
    let setup = Setup {
        limits: Limits {
            turn_polls: 7,
            ..Limits::default()
        },
        ..Setup::default()
    };
    let mut node = Node::with(setup, programs, World::by_hand());
    let job = node.run("p");
    assert_eq!(node.state(job), JobState::Completed);
    node.assert_replays(job);
}

#[test]
fn what_a_program_tells_is_journaled_shown_when_durable_and_not_shown_again() {
    let programs = one(|context, _| async move {
        context.emit(EventKind::Message {
            step: None,
            text: "hello".to_owned(),
        });
        step(&context, "work", Keyed).await.map_err(failed)
    });
    let mut node = Node::new(programs, World::by_hand());
    let is_hello = |event: &EventKind| matches!(event, EventKind::Message { .. });
    node.settle();
    let answer = node.submit(runtime::JobSpec::new("p", Json::null()));
    node.turn();
    node.write().unwrap();
    assert!(!node.take_events().iter().any(is_hello));
    node.settle();
    assert!(node.take_events().iter().any(is_hello));
    let job = now_or_never(answer).unwrap().unwrap().job;
    node.restart();
    assert!(!node.take_events().iter().any(is_hello));
    node.world.complete("work", Ok(Json::null()));
    node.settle();
    node.assert_replays(job);
}

#[test]
fn watchers_see_a_job_from_its_beginning_to_its_end() {
    let programs = one(|context, _| async move {
        step(&context, "work", Keyed).await.map_err(failed)?;
        context.signal("go").await;
        Err(Failure::new("no_good", "it is no good"))
    });
    let mut node = Node::new(programs, World::obliging());
    let job = node.run("p");
    drop(node.signal(job, "go", "1"));
    node.settle();
    let seen: Vec<_> = node
        .take_events()
        .into_iter()
        .map(|event| {
            serde_json::to_value(event).unwrap()["type"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(
        seen,
        [
            "job_submitted",
            "job_started",
            "step_started",
            "step_finished",
            "job_waiting",
            "job_finished"
        ]
    );
}

/// Two sleepers wake in one turn, and the wall clock was set back between their falling asleep: the second is due at an
/// earlier time of day than the first, and yet no job is ever told that time goes back.
#[test]
fn the_time_of_a_job_never_goes_back() {
    let seen = |context: &Context| Json::of(&context.now_ms());
    let programs = Programs::new().with(program("sleepers", move |context, _| async move {
        let first = context.spawn("first", {
            let context = context.clone();
            async move {
                context.sleep(Duration::from_secs(100)).await;
                context.now_ms()
            }
        });
        context.signal("go").await;
        context.sleep(Duration::from_secs(60)).await;
        let second = context.now_ms();
        let first = first.await.unwrap();
        assert!(first <= second, "time went back by {} ms", first - second);
        Ok(seen(&context))
    }));
    let mut node = Node::new(programs, World::obliging());
    let job = node.run("sleepers");
    node.disk.set_wall_clock(-50_000);
    drop(node.signal(job, "go", "1"));
    node.settle();
    node.advance(Duration::from_secs(120));
    assert_eq!(node.state(job), JobState::Completed);
    node.assert_replays(job);
}

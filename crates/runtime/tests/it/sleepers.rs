//! The first turns of a life with many jobs: they are taken up one after the other, and nobody has to wait for all of them.

use std::time::Duration;

use runtime::EffectClass::Keyed;
use runtime::engine::Input;
use runtime::{JobId, JobSpec, JobState, Json, Limits, Programs, Stopped};

use crate::support::node::now_or_never;
use crate::support::{Node, Setup, World, failed, program, step};

/// A node that takes up one job in a turn, after a restart with so many jobs that wait for the signal `go`.
fn restarted_with(jobs: usize) -> (Node, Vec<JobId>) {
    let programs = Programs::new()
        .with(program("wait", |context, _| async move {
            step(&context, "before", Keyed).await.map_err(failed)?;
            Ok(context.signal("go").await)
        }))
        .with(program("echo", |_, input| async move { Ok(input) }));
    let setup = Setup {
        limits: Limits {
            turn_polls: 1,
            ..Limits::default()
        },
        ..Setup::default()
    };
    let mut node = Node::with(setup, programs, World::obliging());
    let ids = (0..jobs).map(|_| node.run("wait")).collect();
    node.crash();
    node.start();
    (node, ids)
}

/// Turns, writes and reports once.
fn go_on(node: &mut Node) {
    node.turn();
    node.write().unwrap();
    node.report();
}

#[test]
fn a_new_job_is_taken_in_before_all_old_ones_are_taken_up() {
    let (mut node, _) = restarted_with(20);
    let mut submitted = node.submit(JobSpec::new("echo", Json::null()));
    for _ in 0..3 {
        go_on(&mut node);
    }
    assert!(submitted.try_recv().unwrap().unwrap().is_new);
    // The answer to this one comes when it is true.
    let mut all = node.ask(|reply| Input::List {
        filter: Default::default(),
        reply,
    });
    node.turn();
    assert!(all.try_recv().is_err());
    node.settle();
    assert_eq!(now_or_never(all).unwrap().jobs.len(), 21);
}

#[test]
fn who_asks_about_one_job_does_not_wait_for_the_others() {
    let (mut node, ids) = restarted_with(20);
    node.turn();
    // The oldest is first; this is the last.
    let last = ids[19];
    assert_eq!(node.state(last), JobState::Waiting);
    drop(node.signal(ids[18], "go", "1"));
    let over = node.ask(|reply| Input::WhenOver {
        job: ids[18],
        reply,
    });
    for _ in 0..4 {
        go_on(&mut node);
    }
    assert_eq!(
        now_or_never(over).unwrap().unwrap().state,
        JobState::Completed
    );
    let mut dump = node.ask(|reply| Input::Dump { reply });
    node.turn();
    assert!(dump.try_recv().is_err(), "others sleep still");
    node.settle();
    assert_eq!(now_or_never(dump).unwrap().jobs.len(), 19);
}

/// A job is taken up only while all others rest: what is asked about it waits for that, in the order of asking.
#[test]
fn what_is_asked_about_a_sleeping_job_waits_while_others_run() {
    let (mut node, ids) = restarted_with(3);
    // With one poll in a turn some of these are ready still when it is over.
    let answers: Vec<_> = (0..4)
        .map(|_| node.submit(JobSpec::new("echo", Json::null())))
        .collect();
    node.turn();
    assert!(node.is_busy());
    let cancelled = node.cancel(ids[2]);
    let signalled = node.signal(ids[2], "go", "1");
    node.settle();
    for answer in answers {
        assert!(now_or_never(answer).unwrap().is_ok());
    }
    assert_eq!(now_or_never(cancelled).unwrap(), Ok(()));
    assert!(
        now_or_never(signalled).unwrap().is_err(),
        "it was cancelled before it was signalled"
    );
    assert_eq!(node.state(ids[2]), JobState::Cancelled);
    assert_eq!(node.state(ids[1]), JobState::Waiting);
}

#[test]
fn jobs_that_sleep_count_and_keep_the_node_from_being_idle() {
    let (mut node, ids) = restarted_with(5);
    node.setup.limits.live_jobs = 5;
    node.send(Input::SetLimits(node.setup.limits.clone()));
    let mut refused = node.submit(JobSpec::new("echo", Json::null()));
    node.turn();
    assert!(
        refused.try_recv().unwrap().is_err(),
        "there are as many jobs as there may be"
    );
    let mut idle = node.when_idle();
    node.settle();
    assert!(idle.try_recv().is_err());
    for id in &ids {
        drop(node.signal(*id, "go", "1"));
    }
    node.settle();
    assert_eq!(now_or_never(idle).unwrap().completed, 5);
}

#[test]
fn a_node_can_stop_while_jobs_sleep_and_takes_them_up_next_time() {
    let (mut node, ids) = restarted_with(20);
    node.turn();
    node.shutdown(Duration::ZERO, Duration::from_secs(10));
    let got = node.ask(|reply| Input::Get {
        job: ids[19],
        reply,
    });
    node.settle();
    assert!(matches!(
        node.stopped(),
        Some(Stopped::Cleanly { left_running: 0 })
    ));
    // Either it was in time, or it is told that the node stops.
    if let Some(found) = now_or_never(got) {
        assert!(found.is_some());
    }
    node.kill();
    node.start();
    node.settle();
    for id in ids {
        assert_eq!(node.state(id), JobState::Waiting);
        drop(node.signal(id, "go", "1"));
        node.settle();
        assert_eq!(node.state(id), JobState::Completed);
        node.assert_replays(id);
    }
}

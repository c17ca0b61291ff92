//! Stopping: effects are told, what is in doubt stays in doubt, a marker is the last entry.

use std::time::Duration;

use runtime::EffectClass::{External, Keyed, Workspace};
use runtime::entry::{NodeEntry, Record};
use runtime::{CancelReason, JobSpec, JobState, Json, Limits, Programs, Stopped, SubmitError};

use crate::support::node::now_or_never;
use crate::support::{Behaviour, Node, Setup, World, done, failed, program, step};

const GRACE: Duration = Duration::from_secs(10);
const GIVE_UP: Duration = Duration::from_secs(20);

fn programs() -> Programs {
    Programs::new()
        .with(program("external", |context, _| async move {
            step(&context, "external", External).await.map_err(failed)
        }))
        .with(program("keyed", |context, _| async move {
            step(&context, "keyed", Keyed).await.map_err(failed)
        }))
        .with(program("workspace", |context, _| async move {
            step(&context, "workspace", Workspace).await.map_err(failed)
        }))
        .with(program("sleeper", |context, _| async move {
            context.sleep(Duration::from_secs(5)).await;
            done()
        }))
}

fn assert_clean(node: &mut Node, left: usize) {
    match node.stopped() {
        Some(Stopped::Cleanly { left_running }) => assert_eq!(left_running, left),
        other => panic!("{other:?}"),
    }
    let last = node.records().pop().unwrap().1;
    assert!(matches!(
        Record::decode(&last),
        Ok(Record::Node(NodeEntry::Stopped { .. }))
    ));
}

#[test]
fn an_idle_node_stops_at_once() {
    let mut node = Node::new(programs(), World::by_hand());
    node.settle();
    node.shutdown(GRACE, GIVE_UP);
    node.turn();
    assert!(node.stopped().is_none(), "the marker is not durable yet");
    node.settle();
    assert_clean(&mut node, 0);
}

#[test]
fn nothing_is_taken_in_while_it_stops() {
    let mut node = Node::new(programs(), World::by_hand());
    let known = node.run_spec(JobSpec::new("external", Json::null()).keyed("k"));
    node.shutdown(GRACE, GIVE_UP);
    let refused = node.submit(JobSpec::new("external", Json::null()));
    let again = node.submit(JobSpec::new("external", Json::null()).keyed("k"));
    node.settle();
    assert_eq!(now_or_never(refused).unwrap(), Err(SubmitError::Stopping));
    assert_eq!(now_or_never(again).unwrap().unwrap().job, known);
}

#[test]
fn effects_that_run_again_are_ended_at_once_and_the_others_get_their_grace() {
    let mut node = Node::new(programs(), World::by_hand());
    let keyed = node.run("keyed");
    let external = node.run("external");
    node.shutdown(GRACE, GIVE_UP);
    node.settle();
    assert_eq!(node.world.running(), ["external"]);
    assert_eq!(node.world.cancels()[0].1, CancelReason::Shutdown);
    node.advance(Duration::from_secs(5));
    assert!(node.stopped().is_none());
    node.world.complete("external", Ok(Json::null()));
    node.settle();
    assert_clean(&mut node, 0);
    node.kill();
    node.start();
    node.settle();
    assert_eq!(node.state(external), JobState::Completed, "it made it");
    assert!(node.world.starts_of("keyed")[1].interrupted);
    node.world.complete("keyed", Ok(Json::null()));
    node.settle();
    for job in [keyed, external] {
        node.assert_replays(job);
    }
}

#[test]
fn an_external_effect_that_we_ended_half_way_is_unknown_at_the_next_start() {
    let mut node = Node::new(programs(), World::by_hand());
    let job = node.run("external");
    node.shutdown(GRACE, GIVE_UP);
    node.settle();
    node.advance(GRACE);
    assert_clean(&mut node, 0);
    node.restart();
    assert!(node.view(job).error.unwrap().contains("unknown"));
    assert_eq!(node.world.starts().len(), 1);
    node.assert_replays(job);
}

#[test]
fn what_does_not_end_is_left_when_the_time_is_over() {
    let mut node = Node::new(programs(), World::new(|_| Behaviour::Stubborn));
    node.run("external");
    node.run("keyed");
    node.shutdown(GRACE, GIVE_UP);
    node.settle();
    node.advance(GRACE);
    assert!(node.stopped().is_none());
    node.advance(GRACE);
    assert_clean(&mut node, 2);
}

#[test]
fn what_has_not_begun_when_the_node_stops_is_not_in_doubt() {
    let mut node = Node::new(programs(), World::by_hand());
    node.settle();
    let _answer = node.submit(JobSpec::new("external", Json::null()));
    node.turn();
    // Its intent is on its way to the disk, and starts nothing any more.
    node.shutdown(GRACE, GIVE_UP);
    node.settle();
    assert_clean(&mut node, 0);
    assert_eq!(node.world.starts(), []);
    node.restart();
    assert_eq!(node.world.running(), ["external"]);
}

#[test]
fn what_an_earlier_life_began_stays_in_doubt_though_this_one_did_not_begin_it() {
    let mut node = Node::new(programs(), World::by_hand());
    node.run("workspace");
    node.crash();
    node.start();
    node.turn();
    // It is about to run again, and its entry is on the way, when the node stops.
    node.shutdown(Duration::ZERO, GIVE_UP);
    node.settle();
    assert_clean(&mut node, 0);
    assert_eq!(node.world.starts().len(), 1);
    node.restart();
    assert!(
        node.world.starts()[1].interrupted,
        "its workspace may hold what the first life left there"
    );
}

#[test]
fn nothing_follows_the_marker() {
    let mut node = Node::new(programs(), World::by_hand());
    let job = node.run("sleeper");
    node.shutdown(GRACE, GIVE_UP);
    node.turn();
    // The marker is written; now the sleep is over, and somebody calls.
    node.disk.advance(Duration::from_secs(5));
    let cancel = node.cancel(job);
    node.settle();
    assert_clean(&mut node, 0);
    node.kill();
    assert!(now_or_never(cancel).is_none());
    node.start();
    node.settle();
    assert_eq!(node.state(job), JobState::Completed);
    node.assert_replays(job);
}

#[test]
fn a_retry_that_is_due_while_the_node_stops_waits_for_the_next_start() {
    let setup = Setup {
        limits: Limits {
            running_effects: 8,
            ..Limits::default()
        },
        ..Setup::default()
    };
    let programs = programs().with(program("again", |context, _| async move {
        let policy = runtime::EffectPolicy {
            attempts: 2,
            ..runtime::EffectPolicy::of_class(External)
        };
        crate::support::tried(&context, "again", policy)
            .await
            .map_err(failed)
    }));
    let mut node = Node::with(setup, programs, World::by_hand());
    let again = node.run("again");
    node.run("external");
    let error = runtime::EffectError::transient("busy", "busy");
    node.world.complete("again", Err(error));
    node.settle();
    node.shutdown(GRACE, GIVE_UP);
    node.settle();
    node.advance(Duration::from_secs(2));
    assert_eq!(node.world.starts_of("again").len(), 1);
    node.world.complete("external", Ok(Json::null()));
    node.settle();
    assert_clean(&mut node, 0);
    node.restart();
    node.settle();
    assert_eq!(node.world.starts_of("again").len(), 2);
    node.world.complete("again", Ok(Json::null()));
    node.settle();
    assert_eq!(node.state(again), JobState::Completed);
    node.assert_replays(again);
}

#[test]
fn the_epoch_counts_the_lives_of_the_log() {
    let mut node = Node::new(programs(), World::by_hand());
    node.settle();
    assert_eq!(node.dump().epoch, 1);
    node.restart();
    node.restart();
    assert_eq!(node.dump().epoch, 3);
}

#[test]
fn the_node_says_when_nothing_is_left_to_do() {
    let mut node = Node::new(programs(), World::by_hand());
    node.run("external");
    let job = node.run("keyed");
    let mut idle = node.when_idle();
    node.settle();
    assert!(idle.try_recv().is_err());
    node.world.complete("external", Ok(Json::null()));
    drop(node.cancel(job));
    node.settle();
    let idleness = now_or_never(idle).unwrap();
    assert_eq!(
        (idleness.completed, idleness.cancelled, idleness.stuck),
        (1, 1, 0)
    );
}

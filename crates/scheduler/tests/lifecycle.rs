//! How tasks begin and end: joins, panics, cancellation, and what destructors may do.

use std::pin::Pin;

use scheduler::{Handle, Idle, JoinError, Priority, Report, RunState};

mod support;
use support::{Log, OnDrop, SECOND, World};

#[test]
fn joining_gives_the_exit_value_before_or_after_the_end() {
    let mut world = World::new();
    world.start("parent", async |handle: Handle, log: Log| {
        let slow = handle.spawn("slow", Priority::Low, {
            let handle = handle.clone();
            async move {
                handle.sleep(SECOND).await;
                String::from("slow")
            }
        });
        let quick = handle.spawn("quick", Priority::High, async { "quick" });
        log.add(slow.await.unwrap());
        log.add(quick.await.unwrap());
    });
    assert_eq!(world.scheduler.run_virtual(), Idle::Finished);
    assert_eq!(world.log.take(), ["slow", "quick"]);
    world.assert_clean();
}

#[test]
fn a_detached_task_goes_on_and_its_value_is_dropped() {
    let mut world = World::new();
    world
        .spawn("detached", async |handle: Handle, log: Log| {
            handle.yield_now().await;
            log.add("ran");
            log.on_drop("dropped")
        })
        .detach();
    let ended = world.spawn("ended", async |_, log: Log| log.on_drop("dropped late"));
    world.scheduler.run_until_idle();
    assert_eq!(world.log.take(), ["ran", "dropped"]);
    drop(ended);
    assert_eq!(world.log.take(), ["dropped late"]);
    world.assert_clean();
}

#[test]
fn a_panic_is_reported_to_joiners_and_the_loop_goes_on() {
    let mut world = World::new();
    let task = world.spawn("bad", async |handle: Handle, log: Log| {
        let _child = handle.spawn("child", Priority::Normal, {
            let (handle, guard) = (handle.clone(), log.on_drop("child dropped"));
            async move {
                let _guard = guard;
                handle.sleep(SECOND).await;
            }
        });
        handle.yield_now().await;
        let number = 7;
        panic!("no {number}");
    });
    let id = task.id();
    world.start("joiner", async move |_, log: Log| {
        log.add(format!("{:?}", task.await));
    });
    world.start("other", async |handle: Handle, log: Log| {
        handle.sleep(SECOND).await;
        log.add("other");
    });
    assert_eq!(world.scheduler.run_virtual(), Idle::Finished);
    assert_eq!(
        world.log.take(),
        ["child dropped", r#"Err(Panicked("no 7"))"#, "other"]
    );
    let reports = world.scheduler.take_reports();
    let expected = Report::Panicked {
        task: id,
        name: "bad".into(),
        message: "no 7".into(),
    };
    assert_eq!((reports.reports, reports.dropped), (vec![expected], 0));
    world.assert_clean();
}

#[test]
fn a_cancelled_tree_is_dropped_children_first_and_the_youngest_first() {
    let mut world = World::new();
    let root = world.spawn("root", async |handle: Handle, log: Log| {
        let _guard = log.on_drop("root");
        for (child, grandchild) in [("older", "older's"), ("younger", "younger's")] {
            let (handle2, log) = (handle.clone(), log.clone());
            handle
                .spawn(child, Priority::Normal, async move {
                    let _guard = log.on_drop(child);
                    let (handle, guard) = (handle2.clone(), log.on_drop(grandchild));
                    let task = async move {
                        let _guard = guard;
                        handle.sleep(SECOND).await;
                    };
                    let _ = handle2.spawn(grandchild, Priority::Normal, task).await;
                })
                .detach();
        }
        handle.wait(handle.new_key()).await;
    });
    world.scheduler.run_until_idle();
    assert_eq!(world.scheduler.stats().tasks, 5);
    assert!(root.cancel());
    assert!(
        world.log.take().is_empty(),
        "nothing is dropped before the loop gets there"
    );
    assert_eq!(world.scheduler.run_until_idle(), Idle::Finished);
    assert_eq!(
        world.log.take(),
        ["younger's", "younger", "older's", "older", "root"]
    );
    assert!(!root.cancel(), "it has ended");
    drop(root);
    world.assert_clean();
}

#[test]
fn children_end_with_their_parent_before_it_is_seen_to_end() {
    let mut world = World::new();
    world.start("outer", async |handle: Handle, log: Log| {
        let (handle2, log2) = (handle.clone(), log.clone());
        let parent = handle.spawn("parent", Priority::Normal, async move {
            let (handle, guard) = (handle2.clone(), log2.on_drop("child dropped"));
            let child = async move {
                let _guard = guard;
                handle.sleep(SECOND).await;
            };
            handle2.spawn("child", Priority::Normal, child).detach();
            handle2.yield_now().await;
        });
        parent.await.unwrap();
        log.add("parent joined");
    });
    assert_eq!(world.scheduler.run_until_idle(), Idle::Finished);
    assert_eq!(world.log.take(), ["child dropped", "parent joined"]);
    world.assert_clean();
}

#[test]
fn a_task_that_cancels_itself_runs_on_to_its_next_await() {
    let mut world = World::new();
    let mut waits = world.spawn("waits", async |handle: Handle, log: Log| {
        handle.cancel(handle.current().unwrap());
        log.add("still here");
        handle.yield_now().await;
        log.add("never");
    });
    let mut returns = world.spawn("returns", async |handle: Handle, _| {
        handle.cancel(handle.current().unwrap())
    });
    world.scheduler.run_until_idle();
    assert_eq!(world.log.take(), ["still here"]);
    assert_eq!(waits.try_join(), Some(Err(JoinError::Cancelled)));
    assert_eq!(returns.try_join(), Some(Ok(true)));
    world.assert_clean();
}

#[test]
fn destructors_may_make_syscalls_and_what_they_spawn_lives() {
    let mut world = World::new();
    let key = world.handle.new_key();
    let victim = world.spawn("victim", async move |handle: Handle, log: Log| {
        let guard_handle = handle.clone();
        let _guard = OnDrop(move || {
            assert_eq!(guard_handle.current(), None);
            let handle = guard_handle.clone();
            let log = log.clone();
            let cleanup = async move {
                handle.sleep(SECOND).await;
                log.add("cleaned up");
                handle.signal(key);
            };
            let cleanup = guard_handle.spawn("cleanup", Priority::Normal, cleanup);
            assert!(
                guard_handle
                    .dump()
                    .tasks()
                    .iter()
                    .all(|task| task.id != cleanup.id() || task.parent.is_none())
            );
        });
        handle.wait(handle.new_key()).await;
    });
    world.start("patient", async move |handle: Handle, log: Log| {
        handle.wait(key).await;
        log.add("signalled");
    });
    world.scheduler.run_until_idle();
    victim.cancel();
    assert_eq!(world.scheduler.run_virtual(), Idle::Finished);
    assert_eq!(world.log.take(), ["cleaned up", "signalled"]);
    drop(victim);
    world.assert_clean();
}

#[test]
fn a_panic_in_a_destructor_is_caught_and_the_rest_of_the_tree_is_dropped() {
    let mut world = World::new();
    let root = world.spawn("root", async |handle: Handle, log: Log| {
        let _guard = log.on_drop("root");
        let guard = OnDrop(|| panic!("in drop"));
        let child_handle = handle.clone();
        let child = async move {
            let _guard = guard;
            child_handle.sleep(SECOND).await;
        };
        let _ = handle.spawn("child", Priority::Normal, child).await;
    });
    // The value of a detached task panics when it is dropped.
    world
        .spawn("value", async |_, _| OnDrop(|| panic!("value")))
        .detach();
    world.scheduler.run_until_idle();
    root.cancel();
    assert_eq!(world.scheduler.run_until_idle(), Idle::Finished);
    assert_eq!(world.log.take(), ["root"]);
    let reports: Vec<String> = world
        .scheduler
        .take_reports()
        .reports
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        reports,
        [
            "task 1.0 `value` panicked while it was dropped: value",
            "task 2.0 `child` panicked while it was dropped: in drop",
        ]
    );
    drop(root);
    world.assert_clean();
}

#[test]
fn a_panic_whose_payload_panics_is_caught_too() {
    let mut world = World::new();
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("payload");
        }
    }
    let mut task = world.spawn("bomb", async |_, _| std::panic::panic_any(Bomb));
    assert_eq!(world.scheduler.run_until_idle(), Idle::Finished);
    let message = "a value that is not text".to_owned();
    assert_eq!(task.try_join(), Some(Err(JoinError::Panicked(message))));
}

#[test]
fn dropping_the_scheduler_cancels_everything_and_refuses_what_is_new() {
    let world = World::new();
    for name in ["a", "b"] {
        world.start(name, async move |handle: Handle, log: Log| {
            let _guard = log.on_drop(name);
            let handle2 = handle.clone();
            let _respawn = OnDrop(move || {
                let mut task = handle2.spawn("late", Priority::Normal, async {});
                assert_eq!(task.try_join(), Some(Err(JoinError::Cancelled)));
            });
            handle.wait(handle.new_key()).await;
        });
    }
    let World {
        mut scheduler,
        handle,
        log,
    } = world;
    scheduler.run_until_idle();
    drop(scheduler);
    assert_eq!(log.take(), ["b", "a"]);
    assert!(
        handle
            .spawn("late", Priority::Normal, async {})
            .try_join()
            .is_some()
    );
    assert!(handle.dump().tasks().is_empty());
}

/// A chain of tasks, each the child of the one before.
fn descend(handle: Handle, depth: usize) -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(async move {
        if depth > 0 {
            let child = descend(handle.clone(), depth - 1);
            let _ = handle.spawn("link", Priority::Normal, child).await;
        }
        handle.wait(handle.new_key()).await;
    })
}

#[test]
fn a_deep_tree_is_cancelled_in_one_walk() {
    let mut world = World::new();
    let root = world.spawn("root", async |handle: Handle, _| {
        descend(handle, 100_000).await;
    });
    world.scheduler.run_until_idle();
    assert_eq!(world.scheduler.stats().tasks, 100_001);
    root.cancel();
    // Looking for the next leaf from the top each time would be five thousand million steps.
    assert_eq!(world.scheduler.run(1).state, RunState::Idle(Idle::Finished));
    drop(root);
    world.assert_clean();
}

//! Yielding, sleeping, waiting and signalling, as a task sees them: one test per promise.

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use scheduler::{Either, Elapsed, Handle, Idle, Priority, RunState, Time};

mod support;
use support::{Foreign, JoinAll, Log, SECOND, World};

#[test]
fn tasks_take_turns_in_the_order_of_their_spawning() {
    let mut world = World::new();
    for name in ["a", "b", "c"] {
        world.start(name, async move |handle: Handle, log: Log| {
            for turn in 0..2 {
                log.add(format!("{name}{turn}"));
                handle.yield_now().await;
            }
        });
    }
    assert_eq!(world.scheduler.run_until_idle(), Idle::Finished);
    assert_eq!(world.log.take(), ["a0", "b0", "c0", "a1", "b1", "c1"]);
    world.assert_clean();
}

#[test]
fn a_run_stops_when_its_budget_is_spent() {
    let mut world = World::new();
    world.start("spin", async |handle: Handle, _| {
        loop {
            handle.yield_now().await;
        }
    });
    let outcome = world.scheduler.run(10);
    assert_eq!((outcome.polls, outcome.state), (10, RunState::Ready));
    assert_eq!(world.scheduler.stats().polls_total, 10);
}

#[test]
fn sleepers_wake_by_deadline_then_by_age() {
    let mut world = World::new();
    for (name, seconds) in [("a", 2), ("b", 1), ("c", 2), ("d", 1)] {
        world.start(name, async move |handle: Handle, log: Log| {
            handle.sleep(SECOND * seconds).await;
            log.add(format!("{name} {}", handle.now()));
        });
    }
    assert_eq!(
        world.scheduler.run_until_idle(),
        Idle::UntilTimer(Time::ZERO + SECOND)
    );
    assert_eq!(world.scheduler.advance_to(Time::from_millis(999)), 0);
    assert_eq!(world.scheduler.advance_to(Time::from_millis(2000)), 4);
    assert_eq!(world.scheduler.advance_to(Time::from_millis(1000)), 0);
    assert_eq!(world.scheduler.run_until_idle(), Idle::Finished);
    assert_eq!(world.log.take(), ["b 2s", "d 2s", "a 2s", "c 2s"]);
    world.assert_clean();
}

#[test]
fn a_sleep_that_is_over_still_lets_others_run() {
    let mut world = World::new();
    world.start("loop", async |handle: Handle, log: Log| {
        for _ in 0..2 {
            handle.sleep(Duration::ZERO).await;
            log.add("slept");
        }
    });
    world.start("other", async |_, log: Log| log.add("other"));
    world.scheduler.run_until_idle();
    assert_eq!(world.log.take(), ["other", "slept", "slept"]);
}

#[test]
fn signals_are_counted_and_go_to_the_first_in_line() {
    let mut world = World::new();
    let key = world.handle.new_key();
    world.handle.signal(key);
    world.handle.signal(key);
    for name in ["a", "b", "c", "d"] {
        world.start(name, async move |handle: Handle, log: Log| {
            handle.wait(key).await;
            log.add(name);
        });
    }
    assert!(
        matches!(world.scheduler.run_until_idle(), Idle::Deadlock(waiting) if waiting.len() == 2)
    );
    assert_eq!(world.log.take(), ["a", "b"]);
    world.handle.signal(key);
    world.scheduler.run_until_idle();
    assert_eq!(world.log.take(), ["c"]);
    world.handle.signal(key);
    assert_eq!(world.scheduler.run_until_idle(), Idle::Finished);
    assert_eq!(world.log.take(), ["d"]);
    world.assert_clean();
}

#[test]
fn a_broadcast_wakes_all_who_wait_and_is_not_kept() {
    let mut world = World::new();
    let key = world.handle.new_key();
    world.handle.broadcast(key);
    for name in ["a", "b"] {
        world.start(name, async move |handle: Handle, log: Log| {
            handle.wait_external(key).await;
            log.add(name);
        });
    }
    assert_eq!(world.scheduler.run_until_idle(), Idle::External);
    world.handle.broadcast(key);
    assert_eq!(world.scheduler.run_until_idle(), Idle::Finished);
    assert_eq!(world.log.take(), ["a", "b"]);
    world.assert_clean();
}

#[test]
fn permits_that_nobody_wants_can_be_cleared() {
    let world = World::new();
    let key = world.handle.new_key();
    world.handle.signal(key);
    world.handle.signal(key);
    assert_eq!(world.scheduler.stats().keys, 1);
    assert_eq!((world.handle.clear(key), world.handle.clear(key)), (2, 0));
    world.assert_clean();
}

#[test]
fn a_signal_given_to_a_waiter_that_is_dropped_goes_to_the_next() {
    let mut world = World::new();
    let key = world.handle.new_key();
    // The first in line gets the signal and is cancelled before it can run.
    let first = world.spawn("first", async move |handle: Handle, _| {
        handle.wait(key).await;
    });
    world.start("second", async move |handle: Handle, log: Log| {
        handle.wait(key).await;
        log.add("second");
    });
    world.scheduler.run_until_idle();
    world.handle.signal(key);
    first.cancel();
    assert_eq!(world.scheduler.run_until_idle(), Idle::Finished);
    assert_eq!(world.log.take(), ["second"]);

    // And with nobody next, it is kept.
    let last = world.spawn("last", async move |handle: Handle, _| {
        handle.wait(key).await;
    });
    world.scheduler.run_until_idle();
    world.handle.signal(key);
    last.cancel();
    world.scheduler.run_until_idle();
    assert_eq!(world.handle.clear(key), 1);
    drop((first, last));
    world.assert_clean();
}

#[test]
fn select_polls_left_first_and_drops_the_loser() {
    let mut world = World::new();
    let key = world.handle.new_key();
    world.start("select", async move |handle: Handle, log: Log| {
        let tie = handle
            .select(handle.sleep(SECOND), handle.sleep(SECOND))
            .await;
        assert!(matches!(tie, Either::Left(())));
        let never = handle.new_key();
        let right = handle.select(handle.wait(never), handle.wait(key)).await;
        assert!(matches!(right, Either::Right(())));
        log.add("done");
    });
    world.scheduler.run_virtual();
    assert_eq!(world.scheduler.stats().waits, 2);
    world.handle.signal(key);
    assert_eq!(world.scheduler.run_until_idle(), Idle::Finished);
    assert_eq!(world.log.take(), ["done"]);
    world.assert_clean();
}

#[test]
fn a_timeout_ends_a_wait_and_leaves_no_timer() {
    let mut world = World::new();
    let mut results = world.spawn("timeout", async |handle: Handle, _| {
        let key = handle.new_key();
        let late = handle.timeout(SECOND, handle.wait(key)).await;
        handle.signal(key);
        let early = handle.timeout(SECOND, handle.wait(key)).await;
        (late, early, handle.now())
    });
    assert_eq!(world.scheduler.run_virtual(), Idle::Finished);
    assert_eq!(
        results.try_join(),
        Some(Ok((Err(Elapsed), Ok(()), Time::ZERO + SECOND)))
    );
    world.assert_clean();
}

#[test]
fn combinators_with_their_own_wakers_are_woken() {
    let mut world = World::new();
    let key = world.handle.new_key();
    world.start("many", async move |handle: Handle, log: Log| {
        let child = handle.spawn("child", Priority::Normal, {
            let handle = handle.clone();
            async move { handle.sleep(SECOND * 3).await }
        });
        let named = |name: &'static str, future: Pin<Box<dyn Future<Output = ()>>>| {
            let log = log.clone();
            Box::pin(async move {
                future.await;
                log.add(name);
            }) as Pin<Box<dyn Future<Output = ()>>>
        };
        let slept = handle.clone();
        let all = JoinAll::new(vec![
            named("sleep", Box::pin(handle.sleep(SECOND * 2))),
            named(
                "due sleep",
                Box::pin(async move {
                    slept.sleep(Duration::ZERO).await;
                    slept.sleep(SECOND).await;
                }),
            ),
            named("yield", Box::pin(handle.yield_now())),
            named("wait", Box::pin(handle.wait(key))),
            named("broadcast", Box::pin(handle.wait(handle.new_key()))),
            named("join", Box::pin(async move { child.await.unwrap() })),
        ]);
        let _ = handle.timeout(SECOND * 4, all).await;
        log.add("timeout");
    });
    world.start("signal", async move |handle: Handle, _| handle.signal(key));
    assert_eq!(world.scheduler.run_virtual(), Idle::Finished);
    assert_eq!(
        world.log.take(),
        ["yield", "wait", "due sleep", "sleep", "join", "timeout"]
    );
    world.assert_clean();
}

#[test]
fn a_permit_passed_on_by_a_dropped_waiter_calls_the_next_ones_waker() {
    let mut world = World::new();
    let key = world.handle.new_key();
    let first = world.spawn("first", async move |handle: Handle, _| {
        handle.wait(key).await;
    });
    world.start("second", async move |handle: Handle, log: Log| {
        Foreign::new(handle.wait(key)).await;
        log.add("second");
    });
    world.scheduler.run_until_idle();
    world.handle.signal(key);
    first.cancel();
    assert_eq!(world.scheduler.run_until_idle(), Idle::Finished);
    assert_eq!(world.log.take(), ["second"]);
}

#[test]
fn a_wait_belongs_to_the_task_that_polled_it_last() {
    let mut world = World::new();
    let key = world.handle.new_key();
    let shared = Rc::new(RefCell::new(Some(Box::pin(world.handle.wait(key)))));
    let first = shared.clone();
    world.start("first", async move |handle: Handle, _| {
        let mut wait = first.take().unwrap();
        let mut context = Context::from_waker(Waker::noop());
        assert!(wait.as_mut().poll(&mut context).is_pending());
        *first.borrow_mut() = Some(wait);
        handle.wait_external(handle.new_key()).await;
    });
    world.start("second", async move |handle: Handle, log: Log| {
        handle.yield_now().await;
        let wait = shared.take().unwrap();
        wait.await;
        log.add("second");
    });
    world.scheduler.run_until_idle();
    world.handle.signal(key);
    world.scheduler.run_until_idle();
    assert_eq!(world.log.take(), ["second"]);
}

#[test]
fn syscalls_work_without_a_task() {
    let mut world = World::new();
    let key = world.handle.new_key();
    let mut joined = pin!(world.spawn("task", async move |handle: Handle, _| {
        handle.wait(key).await;
    }));
    let mut context = Context::from_waker(Waker::noop());
    assert!(joined.as_mut().poll(&mut context).is_pending());
    world.scheduler.run_until_idle();
    world.handle.signal(key);
    world.scheduler.run_until_idle();
    assert!(joined.as_mut().poll(&mut context).is_ready());
    world.assert_clean();
}

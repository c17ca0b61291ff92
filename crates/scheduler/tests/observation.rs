//! What can be seen from outside: dumps, deadlocks, reports, the trace.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use scheduler::{
    Handle, Idle, JoinHandle, LongPoll, Options, Priority, Report, Reports, TaskState, Time,
    WaitsFor,
};

mod support;
use support::{OnDrop, SECOND, World};

#[test]
fn reports_are_bounded_and_the_rest_is_counted() {
    let mut world = World::with(Options {
        reports_max: 2,
        ..Options::default()
    });
    for _ in 0..5 {
        world.start("bad", async |_, _| panic!("again"));
    }
    world.scheduler.run_until_idle();
    let reports = world.scheduler.take_reports();
    assert_eq!((reports.reports.len(), reports.dropped), (2, 3));
    assert_eq!(world.scheduler.take_reports(), Reports::default());
}

#[test]
fn a_deadlock_names_who_waits_for_what() {
    let mut world = World::new();
    let key = world.handle.new_key();
    // Two that join each other, one that joins one of those, one that waits for a key.
    let handles = Rc::new(RefCell::new(Vec::<Option<JoinHandle<()>>>::new()));
    for (name, other) in [("ping", 1), ("pong", 0)] {
        let others = handles.clone();
        let task = world.spawn(name, async move |handle: Handle, _| {
            handle.yield_now().await;
            let other = others.borrow_mut()[other].take();
            let _ = other.unwrap().await;
        });
        handles.borrow_mut().push(Some(task));
    }
    world.start("parent", async move |handle: Handle, _| {
        let child = handle.spawn("child", Priority::Normal, {
            let handle = handle.clone();
            async move {
                handle
                    .select(handle.wait(key), std::future::pending::<()>())
                    .await;
            }
        });
        let _ = child.await;
    });
    world.start("stray", async |_, _| std::future::pending().await);
    let Idle::Deadlock(waiting) = world.scheduler.run_until_idle() else {
        panic!("not seen as a deadlock");
    };
    let lines: Vec<String> = waiting.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "task 0.0 `ping` waits for task 1.0 `pong`, in a cycle",
            "task 1.0 `pong` waits for task 0.0 `ping`, in a cycle",
            "task 2.0 `parent` waits for task 4.0 `child`",
            "task 4.0 `child` waits for key 0",
            "task 3.0 `stray` waits for nothing the scheduler knows",
        ]
    );
    // It can still be got out of.
    world.handle.signal(key);
    assert!(
        matches!(world.scheduler.run_until_idle(), Idle::Deadlock(waiting) if waiting.len() == 3)
    );
}

#[test]
fn the_dump_shows_every_task() {
    let mut world = World::new();
    let key = world.handle.new_key();
    let parent = world.spawn("parent", async move |handle: Handle, _| {
        let waiting = handle.clone();
        let child = handle.spawn("child", Priority::High, async move {
            waiting
                .select(waiting.wait_external(key), waiting.sleep(SECOND * 9))
                .await;
        });
        handle.sleep(SECOND).await;
        let _ = child.await;
    });
    world.scheduler.run_until_idle();
    world.scheduler.advance_to(Time::ZERO + SECOND);
    world.scheduler.run_until_idle();
    let looker = world
        .handle
        .spawn(format!("looker {}", 1), Priority::Background, {
            let (handle, log) = (world.handle.clone(), world.log.clone());
            async move { log.add(handle.dump().to_string()) }
        });
    world.start("ready", async |_, _| ());
    assert_eq!(world.handle.dump().tasks()[2].state, TaskState::Ready);
    world.scheduler.run(1);
    world.scheduler.run_until_idle();
    let expected = "\
        3 tasks at 1s\n\
        0.0 `parent` normal: waits for task 1.0 `child`, since 1s, 2 polls\n  \
          1.0 `child` high: waits for external key 0 or time 9s, since 0ns, 1 polls\n\
        2.0 `looker 1` background: running, since 1s, 1 polls";
    assert_eq!(world.log.take(), [expected]);
    parent.cancel();
    let dump = world.handle.dump();
    assert_eq!(dump.tasks()[0].state, TaskState::Cancelling);
    assert_eq!(dump.tasks()[1].parent, Some(parent.id()));
    let waits = vec![
        WaitsFor::External(key),
        WaitsFor::Timer(Time::ZERO + SECOND * 9),
    ];
    assert_eq!(dump.tasks()[1].state, TaskState::Waiting(waits));
    drop(looker);
}

#[test]
fn a_task_that_holds_the_loop_is_reported() {
    let clock = Rc::new(Cell::new(0));
    let read = clock.clone();
    let mut world = World::with(Options {
        long_poll: Some(LongPoll {
            limit: Duration::from_millis(10),
            clock: Box::new(move || read.get()),
        }),
        ..Options::default()
    });
    let hold = |millis: u64| {
        let clock = clock.clone();
        move || clock.set(clock.get() + millis * 1_000_000)
    };
    let (quick, slow, slow_drop) = (hold(10), hold(11), hold(12));
    world.start("quick", async move |_, _| quick());
    world.start("slow", async move |handle: Handle, _| {
        handle.yield_now().await;
        slow();
    });
    let sticky = world.spawn("sticky", async move |handle: Handle, _| {
        let _guard = OnDrop(slow_drop);
        handle.wait(handle.new_key()).await;
    });
    let (slow_id, sticky_id) = (world.handle.dump().tasks()[1].id, sticky.id());
    world.scheduler.run_until_idle();
    // Time outside a run is nobody's.
    hold(99)();
    sticky.cancel();
    world.scheduler.run_until_idle();
    let long = |task, name: &'static str, millis| Report::LongPoll {
        task,
        name: name.into(),
        duration: Duration::from_millis(millis),
    };
    assert_eq!(
        world.scheduler.take_reports().reports,
        [long(slow_id, "slow", 11), long(sticky_id, "sticky", 12)]
    );
}

#[test]
fn the_trace_of_a_given_program_is_the_same_on_every_machine() {
    let mut world = World::new();
    let handle = &world.handle;
    let key = handle.new_key();
    handle.signal(key);
    world.start("every syscall", async move |handle: Handle, _| {
        handle.yield_now().await;
        handle.sleep(SECOND).await;
        handle.sleep(Duration::ZERO).await;
        handle.wait(key).await;
        let _ = handle.timeout(SECOND, handle.wait(key)).await;
        let _ = handle.timeout(SECOND, handle.yield_now()).await;
        let spawn = |priority| {
            let child = handle.clone();
            handle.spawn(
                "child",
                priority,
                async move { child.wait_external(key).await },
            )
        };
        let [first, second, third, fourth] = Priority::ALL.map(spawn);
        handle.yield_now().await;
        handle.signal(key);
        let _ = first.await;
        handle.broadcast(key);
        second.detach();
        third.cancel();
        handle.yield_now().await;
        handle.clear(key);
        handle.signal(key);
        let _ = fourth.await;
        std::panic::resume_unwind(Box::new("the end"));
    });
    world.scheduler.run_virtual();
    // A change of this number is a change of what is traced, or of the rules: say so in the change log.
    assert_eq!(world.scheduler.trace_hash(), 11_029_937_360_901_219_950);
}

#[test]
fn the_trace_tells_what_was_waited_for() {
    let trace = |which: usize, external: bool| {
        let mut world = World::new();
        let keys = [world.handle.new_key(), world.handle.new_key()];
        world.start("waits", async move |handle: Handle, _| {
            if external {
                handle.wait_external(keys[which]).await;
            } else {
                handle.wait(keys[which]).await;
            }
        });
        world.scheduler.run_until_idle();
        world.scheduler.trace_hash()
    };
    let traces = [(0, false), (0, true), (1, false), (1, true)].map(|(key, ext)| trace(key, ext));
    let different = traces.iter().collect::<std::collections::BTreeSet<_>>();
    assert_eq!(different.len(), traces.len());
}

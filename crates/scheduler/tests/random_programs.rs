//! Random programs against a reference model, and the properties that must hold for all of them.
//!
//! A program is a tree of lists of steps. It runs twice: as coroutines on the scheduler, and in
//! [`model::run`], an interpreter that does everything by searching lists. Both write down each step as it
//! is done and each task as it is dropped, and the two histories must be the same, word for word.
//!
//! More cases: `PROPTEST_CASES=100000 cargo test --release -p scheduler --test random_programs`.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use proptest::prelude::*;
use scheduler::{
    Either, Elapsed, Handle, Idle, JoinError, JoinHandle, Key, Priority, RunState, Scheduler,
    TaskId,
};

mod model;
mod support;

/// Keys that programs share.
const KEYS: usize = 3;

/// One thing a task does.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Yield,
    Sleep(u64),
    /// `true` for a wait for something outside.
    Wait(usize, bool),
    WaitTimeout(usize, u64),
    /// Waits for the first of two keys, which may be the same.
    Select(usize, usize),
    Signal(usize),
    Broadcast(usize),
    Clear(usize),
    Spawn(Priority, Program),
    /// Joins the child spawned so many steps into the list of those not joined yet, if there is one.
    Join(usize),
    /// The same, for no longer than that.
    JoinTimeout(usize, u64),
    /// Lets such a child go.
    Detach(usize),
    /// Cancels one of all tasks ever spawned.
    Cancel(usize),
    Panic,
}

pub(crate) type Program = Rc<Vec<Step>>;

/// What happened: which task (by its place in the order of all births), at what time, what.
pub(crate) type Event = (usize, u64, String);

fn step() -> impl Strategy<Value = Step> {
    let leaf = prop_oneof![
        3 => Just(Step::Yield),
        3 => (0..6_u64).prop_map(Step::Sleep),
        3 => (0..KEYS, prop::bool::weighted(0.2)).prop_map(|(key, external)| Step::Wait(key, external)),
        3 => (0..KEYS, 0..4_u64).prop_map(|(key, nanos)| Step::WaitTimeout(key, nanos)),
        3 => (0..KEYS, 0..KEYS).prop_map(|(one, other)| Step::Select(one, other)),
        6 => (0..KEYS).prop_map(Step::Signal),
        1 => (0..KEYS).prop_map(Step::Broadcast),
        1 => (0..KEYS).prop_map(Step::Clear),
        3 => (0..4_usize).prop_map(Step::Join),
        2 => (0..4_usize, 0..4_u64).prop_map(|(child, nanos)| Step::JoinTimeout(child, nanos)),
        1 => (0..4_usize).prop_map(Step::Detach),
        2 => any::<usize>().prop_map(Step::Cancel),
        1 => Just(Step::Panic),
    ];
    leaf.prop_recursive(3, 60, 8, |inner| {
        let program = prop::collection::vec(inner.clone(), 0..8).prop_map(Rc::new);
        let priority = prop::sample::select(Priority::ALL.to_vec());
        prop_oneof![2 => inner, 3 => (priority, program).prop_map(|(p, s)| Step::Spawn(p, s))]
    })
}

fn program() -> impl Strategy<Value = Program> {
    prop::collection::vec(step(), 0..12).prop_map(Rc::new)
}

/// What the tasks of one run share.
struct World {
    handle: Handle,
    keys: Vec<Key>,
    events: RefCell<Vec<Event>>,
    born: RefCell<Vec<TaskId>>,
    /// Whether to await everything through a combinator that has wakers of its own.
    foreign: bool,
}

impl World {
    fn log(&self, task: usize, what: impl Into<String>) {
        let now = self.handle.now().as_nanos();
        self.events.borrow_mut().push((task, now, what.into()));
    }

    async fn await_it<F: Future>(&self, future: F) -> F::Output {
        if self.foreign {
            support::Foreign::new(future).await
        } else {
            future.await
        }
    }

    fn spawn(self: &Rc<Self>, priority: Priority, program: &Program) -> JoinHandle<usize> {
        let task = self.born.borrow().len();
        let future = execute(self.clone(), task, program.clone());
        let joined = self.handle.spawn("task", priority, future);
        self.born.borrow_mut().push(joined.id());
        joined
    }
}

/// Writes down that a task's variables were dropped.
struct Guard(Rc<World>, usize);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.log(self.1, "dropped");
    }
}

fn execute(
    world: Rc<World>,
    task: usize,
    program: Program,
) -> Pin<Box<dyn Future<Output = usize>>> {
    let guard = Guard(world.clone(), task);
    Box::pin(async move {
        let _guard = guard;
        let handle = &world.handle;
        let mut children = Vec::new();
        for step in program.iter() {
            let outcome = match *step {
                Step::Yield => {
                    world.await_it(handle.yield_now()).await;
                    "yielded".into()
                }
                Step::Sleep(nanos) => {
                    world
                        .await_it(handle.sleep(Duration::from_nanos(nanos)))
                        .await;
                    "slept".into()
                }
                Step::Wait(key, external) => {
                    let key = world.keys[key];
                    let wait = if external {
                        handle.wait_external(key)
                    } else {
                        handle.wait(key)
                    };
                    world.await_it(wait).await;
                    "waited".into()
                }
                Step::Select(one, other) => {
                    let [one, other] = [one, other].map(|key| handle.wait(world.keys[key]));
                    match world.await_it(handle.select(one, other)).await {
                        Either::Left(()) => "selected: left".into(),
                        Either::Right(()) => "selected: right".into(),
                    }
                }
                Step::WaitTimeout(key, nanos) => {
                    let wait = handle.wait(world.keys[key]);
                    let wait = handle.timeout(Duration::from_nanos(nanos), wait);
                    format!("waited: {}", world.await_it(wait).await.is_ok())
                }
                Step::Signal(key) => {
                    handle.signal(world.keys[key]);
                    "signalled".into()
                }
                Step::Broadcast(key) => {
                    handle.broadcast(world.keys[key]);
                    "broadcast".into()
                }
                Step::Clear(key) => format!("cleared: {}", handle.clear(world.keys[key])),
                Step::Spawn(priority, ref program) => {
                    children.push(world.spawn(priority, program));
                    "spawned".into()
                }
                Step::Join(child) | Step::JoinTimeout(child, _) | Step::Detach(child)
                    if child >= children.len() =>
                {
                    continue;
                }
                Step::Join(child) => joined(world.await_it(children.remove(child)).await),
                Step::JoinTimeout(child, nanos) => {
                    let child = children.remove(child);
                    let child = handle.timeout(Duration::from_nanos(nanos), child);
                    world
                        .await_it(child)
                        .await
                        .map_or_else(|Elapsed| "joined: late".into(), joined)
                }
                Step::Detach(child) => {
                    children.remove(child).detach();
                    "detached".into()
                }
                Step::Cancel(victim) => {
                    let victim = {
                        let born = world.born.borrow();
                        born[victim % born.len()]
                    };
                    format!("cancelled: {}", handle.cancel(victim))
                }
                // Unwinds without the hook that would print it.
                Step::Panic => std::panic::resume_unwind(Box::new("thrown")),
            };
            world.log(task, outcome);
        }
        task
    })
}

fn joined(outcome: Result<usize, JoinError>) -> String {
    match outcome {
        Ok(child) => format!("joined {child}"),
        Err(JoinError::Cancelled) => "joined: cancelled".into(),
        Err(JoinError::Panicked(message)) => format!("joined: {message}"),
    }
}

/// How a run is driven.
#[derive(Clone, Copy)]
struct Drive {
    budget: u64,
    foreign: bool,
}

const STRAIGHT: Drive = Drive {
    budget: u64::MAX,
    foreign: false,
};

struct History {
    events: Vec<Event>,
    polls: u64,
    trace_hash: u64,
    /// Tasks that can never run again; `None` when something outside may still wake one.
    deadlocked: Option<Vec<usize>>,
}

fn run(roots: &[Program], drive: Drive) -> History {
    let mut scheduler = Scheduler::default();
    let handle = scheduler.handle();
    let keys = (0..KEYS).map(|_| handle.new_key()).collect();
    let world = Rc::new(World {
        handle,
        keys,
        events: RefCell::default(),
        born: RefCell::default(),
        foreign: drive.foreign,
    });
    roots
        .iter()
        .for_each(|root| world.spawn(Priority::Normal, root).detach());

    let to_the_end = |scheduler: &mut Scheduler| loop {
        match scheduler.run(drive.budget).state {
            RunState::Ready => {}
            RunState::Idle(Idle::UntilTimer(deadline)) => {
                scheduler.advance_to(deadline);
            }
            RunState::Idle(idle) => return idle,
        }
    };
    let number = |id| {
        world
            .born
            .borrow()
            .iter()
            .position(|&born| born == id)
            .expect("a task of this run")
    };
    let deadlocked = match to_the_end(&mut scheduler) {
        Idle::Finished => Some(Vec::new()),
        Idle::Deadlock(waiting) => {
            let mut tasks: Vec<_> = waiting.iter().map(|waiting| number(waiting.task)).collect();
            tasks.sort_unstable();
            Some(tasks)
        }
        Idle::External => None,
        idle @ Idle::UntilTimer(_) => panic!("ended with {idle}"),
    };
    // What is left waits for signals that nobody will send. It can always be cancelled, and then nothing
    // at all is left: no task, no timer, no wait.
    let born = world.born.borrow().clone();
    born.iter().for_each(|&task| {
        world.handle.cancel(task);
    });
    assert_eq!(to_the_end(&mut scheduler), Idle::Finished);
    world.keys.iter().for_each(|&key| {
        world.handle.clear(key);
    });
    let stats = scheduler.stats();
    let left = (
        stats.tasks,
        stats.ready,
        stats.timers,
        (stats.waits, stats.external_waits),
        stats.keys,
    );
    assert_eq!(left, (0, 0, 0, (0, 0), 0));
    assert_eq!(stats.spawned_total, born.len() as u64);
    let trace_hash = scheduler.trace_hash();
    drop(scheduler);
    History {
        events: world.events.take(),
        polls: stats.polls_total,
        trace_hash,
        deadlocked,
    }
}

/// The events without what only the program knows: a child is let go by the same syscall whether that is said or its
/// handle is dropped at the end, and a timeout whose first poll is its last is to the scheduler a select.
fn seen_by_the_scheduler(events: &[Event]) -> Vec<Event> {
    let said = events.iter().filter(|(_, _, what)| what != "detached");
    said.map(|(task, now, what)| match what.as_str() {
        "waited: true" => (*task, *now, "selected: left".to_owned()),
        what => (*task, *now, what.to_owned()),
    })
    .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_scheduler_does_what_the_model_does(roots in prop::collection::vec(program(), 1..5)) {
        let history = run(&roots, STRAIGHT);
        let expected = model::run(&roots, KEYS);
        prop_assert_eq!(history.events, expected.events);
        prop_assert_eq!(history.polls, expected.polls);
        prop_assert_eq!(history.deadlocked, expected.deadlocked);
    }

    #[test]
    fn equal_runs_have_equal_traces_however_they_are_driven(
        roots in prop::collection::vec(program(), 1..5),
        budget in 1..5_u64,
    ) {
        let first = run(&roots, STRAIGHT);
        for drive in [STRAIGHT, Drive { budget, ..STRAIGHT }, Drive { foreign: true, ..STRAIGHT }] {
            let again = run(&roots, drive);
            prop_assert_eq!(&again.events, &first.events);
            prop_assert_eq!(again.trace_hash, first.trace_hash);
        }
    }

    /// The trace hash sees what the events see: programs with different histories have different hashes.
    #[test]
    fn different_runs_have_different_traces(one in program(), other in program()) {
        let (one, other) = (run(&[one], STRAIGHT), run(&[other], STRAIGHT));
        if seen_by_the_scheduler(&one.events) != seen_by_the_scheduler(&other.events) {
            prop_assert_ne!(one.trace_hash, other.trace_hash);
        }
    }
}

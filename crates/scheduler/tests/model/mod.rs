//! The reference: the scheduler's rules, each written as plainly as it can be said, over lists that are
//! searched from end to end. Slow, and obviously what it is.

use std::collections::VecDeque;
use std::rc::Rc;

use scheduler::Priority;

use crate::{Event, Program, Step};

/// What a parked task is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// Nothing: it begins its next step.
    No,
    /// A yield, or a sleep that was due: over when polled.
    Yielded,
    /// A sleep; `true` when its timer has fired.
    Asleep(bool),
    /// A wait; `Some` when it has been woken, with whether that was by a permit.
    Waiting(usize, Option<bool>),
    /// The same for something outside.
    WaitingOutside(usize, Option<bool>),
    /// Two waits at once, each as above.
    Selecting([usize; 2], [Option<bool>; 2]),
    /// A wait with a timeout: the wait as above, and whether its time is up.
    WaitingTimed(usize, Option<bool>, bool),
    /// Joining a task.
    Joining(usize),
    /// Joining a task with a timeout, and whether its time is up.
    JoiningTimed(usize, bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Returned,
    Cancelled,
    Panicked,
}

struct Task {
    program: Program,
    next_step: usize,
    priority: Priority,
    parent: Option<usize>,
    /// Children not joined yet.
    handles: Vec<usize>,
    pause: Pause,
    cancelled: bool,
    end: Option<End>,
}

pub(crate) struct Expected {
    pub(crate) events: Vec<Event>,
    pub(crate) polls: u64,
    pub(crate) deadlocked: Option<Vec<usize>>,
}

struct Model {
    tasks: Vec<Task>,
    ready: VecDeque<usize>,
    credits: [u64; 4],
    /// Deadline and task, in the order in which they were set.
    timers: Vec<(u64, usize)>,
    /// Key, task, and which of its waits, in the order in which they began.
    line: Vec<(usize, usize, usize)>,
    permits: Vec<u64>,
    now: u64,
    polls: u64,
    events: Vec<Event>,
}

pub(crate) fn run(roots: &[Program], keys: usize) -> Expected {
    let mut model = Model {
        tasks: Vec::new(),
        ready: VecDeque::new(),
        credits: Priority::ALL.map(Priority::weight),
        timers: Vec::new(),
        line: Vec::new(),
        permits: vec![0; keys],
        now: 0,
        polls: 0,
        events: Vec::new(),
    };
    for root in roots {
        model.spawn(None, Priority::Normal, root);
    }
    model.run_to_the_end();
    let alive = |task: &usize| model.tasks[*task].end.is_none();
    let outside = |task: &usize| matches!(model.tasks[*task].pause, Pause::WaitingOutside(_, None));
    let left: Vec<usize> = (0..model.tasks.len()).filter(alive).collect();
    let deadlocked = (!left.iter().any(outside)).then_some(left);
    for task in 0..model.tasks.len() {
        model.cancel(task);
    }
    model.run_to_the_end();
    Expected {
        events: model.events,
        polls: model.polls,
        deadlocked,
    }
}

impl Model {
    fn run_to_the_end(&mut self) {
        loop {
            while let Some(task) = self.choose() {
                self.polls += 1;
                if self.tasks[task].cancelled {
                    self.cancel_tree(task);
                } else {
                    self.poll(task);
                }
            }
            let Some(deadline) = self.timers.iter().map(|&(deadline, _)| deadline).min() else {
                return;
            };
            self.now = self.now.max(deadline);
            // Within one jump all deadlines are equal, so the order of setting is the order of firing.
            let due: Vec<_> = self
                .timers
                .extract_if(.., |timer| timer.0 == deadline)
                .collect();
            for (_, task) in due {
                match &mut self.tasks[task].pause {
                    Pause::Asleep(up)
                    | Pause::WaitingTimed(_, _, up)
                    | Pause::JoiningTimed(_, up) => *up = true,
                    pause => panic!("a timer fired in {pause:?}"),
                }
                self.make_ready(task);
            }
        }
    }

    /// The first ready task of the highest level that has credits; if none of those with a task has, all
    /// levels get theirs back first.
    fn choose(&mut self) -> Option<usize> {
        for _ in 0..2 {
            for priority in Priority::ALL.into_iter().rev() {
                let of_level = |&task: &usize| self.tasks[task].priority == priority;
                let Some(place) = self.ready.iter().position(of_level) else {
                    continue;
                };
                if self.credits[priority as usize] > 0 {
                    self.credits[priority as usize] -= 1;
                    return self.ready.remove(place);
                }
            }
            if self.ready.is_empty() {
                return None;
            }
            self.credits = Priority::ALL.map(Priority::weight);
        }
        unreachable!("with all credits back, a ready task can be chosen")
    }

    fn make_ready(&mut self, task: usize) {
        if self.tasks[task].end.is_none() && !self.ready.contains(&task) {
            self.ready.push_back(task);
        }
    }

    fn log(&mut self, task: usize, what: impl Into<String>) {
        self.events.push((task, self.now, what.into()));
    }

    fn spawn(&mut self, parent: Option<usize>, priority: Priority, program: &Program) -> usize {
        self.tasks.push(Task {
            program: Rc::clone(program),
            next_step: 0,
            priority,
            parent,
            handles: Vec::new(),
            pause: Pause::No,
            cancelled: false,
            end: None,
        });
        let task = self.tasks.len() - 1;
        self.make_ready(task);
        task
    }

    fn cancel(&mut self, task: usize) -> bool {
        if self.tasks[task].end.is_some() {
            return false;
        }
        self.tasks[task].cancelled = true;
        self.make_ready(task);
        true
    }

    fn signal(&mut self, key: usize) {
        match self.line.iter().position(|waiter| waiter.0 == key) {
            Some(place) => {
                let (_, task, which) = self.line.remove(place);
                self.wake(task, which, true);
            }
            None => self.permits[key] += 1,
        }
    }

    fn wake(&mut self, task: usize, which: usize, permit: bool) {
        match &mut self.tasks[task].pause {
            Pause::Waiting(_, woken)
            | Pause::WaitingOutside(_, woken)
            | Pause::WaitingTimed(_, woken, _) => *woken = Some(permit),
            Pause::Selecting(_, woken) => woken[which] = Some(permit),
            pause => panic!("woken in {pause:?}"),
        }
        self.make_ready(task);
    }

    fn take_permit(&mut self, key: usize) -> bool {
        let there = self.permits[key] > 0;
        self.permits[key] -= u64::from(there);
        there
    }

    /// Runs a task until it parks or ends.
    fn poll(&mut self, task: usize) {
        loop {
            let step = self.tasks[task]
                .program
                .get(self.tasks[task].next_step)
                .cloned();
            let Some(step) = step else {
                return self.end(task, End::Returned);
            };
            if matches!(step, Step::Panic) {
                return self.end(task, End::Panicked);
            }
            let Some(outcome) = self.advance(task, &step) else {
                return;
            };
            self.tasks[task].pause = Pause::No;
            self.tasks[task].next_step += 1;
            if !outcome.is_empty() {
                self.log(task, outcome);
            }
        }
    }

    /// Begins a step or goes on with it: what to write down when it is done, `None` while it is not.
    fn advance(&mut self, task: usize, step: &Step) -> Option<String> {
        let pause = self.tasks[task].pause;
        let outcome = match (step, pause) {
            (Step::Yield, Pause::No) => return self.park(task, Pause::Yielded, true),
            (Step::Yield, _) => "yielded".into(),

            (Step::Sleep(0), Pause::No) => return self.park(task, Pause::Yielded, true),
            (Step::Sleep(nanos), Pause::No) => {
                self.timers.push((self.now + nanos, task));
                return self.park(task, Pause::Asleep(false), false);
            }
            (Step::Sleep(_), Pause::Asleep(false)) => return None,
            (Step::Sleep(_), _) => "slept".into(),

            (Step::Wait(key, external), Pause::No) => {
                if !self.take_permit(*key) {
                    self.line.push((*key, task, 0));
                    let pause = if *external {
                        Pause::WaitingOutside
                    } else {
                        Pause::Waiting
                    };
                    return self.park(task, pause(*key, None), false);
                }
                "waited".into()
            }
            (Step::Wait(..), Pause::Waiting(_, None) | Pause::WaitingOutside(_, None)) => {
                return None;
            }
            (Step::Wait(..), _) => "waited".into(),

            (Step::Select(one, other), Pause::No) => {
                if self.take_permit(*one) {
                    return Some("selected: left".into());
                }
                // The first stands in line already when the second looks for a permit.
                if self.take_permit(*other) {
                    return Some("selected: right".into());
                }
                self.line.extend([(*one, task, 0), (*other, task, 1)]);
                let pause = Pause::Selecting([*one, *other], [None, None]);
                return self.park(task, pause, false);
            }
            (Step::Select(..), Pause::Selecting(_, [None, None])) => return None,
            (Step::Select(..), Pause::Selecting(keys, woken)) => {
                self.line.retain(|waiter| waiter.1 != task);
                // The loser is dropped, and a permit that it was given goes on.
                if let [Some(_), Some(true)] = woken {
                    self.signal(keys[1]);
                }
                let left = woken[0].is_some();
                if left {
                    "selected: left"
                } else {
                    "selected: right"
                }
                .into()
            }

            (Step::WaitTimeout(key, nanos), Pause::No) => {
                if !self.take_permit(*key) {
                    self.line.push((*key, task, 0));
                    if *nanos > 0 {
                        self.timers.push((self.now + nanos, task));
                    }
                    // A timeout that is up at once is a yield first, in case the signal comes meanwhile.
                    let up = *nanos == 0;
                    return self.park(task, Pause::WaitingTimed(*key, None, up), up);
                }
                "waited: true".into()
            }
            (Step::WaitTimeout(..), Pause::WaitingTimed(_, Some(_), _)) => {
                self.timers.retain(|&(_, sleeper)| sleeper != task);
                "waited: true".into()
            }
            (Step::WaitTimeout(..), Pause::WaitingTimed(_, None, false)) => return None,
            (Step::WaitTimeout(..), _) => {
                self.line.retain(|waiter| waiter.1 != task);
                "waited: false".into()
            }

            (Step::Signal(key), _) => {
                self.signal(*key);
                "signalled".into()
            }
            (Step::Broadcast(key), _) => {
                let woken: Vec<_> = self
                    .line
                    .extract_if(.., |waiter| waiter.0 == *key)
                    .collect();
                woken
                    .into_iter()
                    .for_each(|(_, waiter, which)| self.wake(waiter, which, false));
                "broadcast".into()
            }
            (Step::Spawn(priority, program), _) => {
                let child = self.spawn(Some(task), *priority, program);
                self.tasks[task].handles.push(child);
                "spawned".into()
            }
            (Step::Clear(key), _) => {
                format!("cleared: {}", std::mem::take(&mut self.permits[*key]))
            }
            (Step::Join(child) | Step::JoinTimeout(child, _) | Step::Detach(child), Pause::No)
                if *child >= self.tasks[task].handles.len() =>
            {
                String::new()
            }
            (Step::Detach(child), _) => {
                self.tasks[task].handles.remove(*child);
                "detached".into()
            }
            (Step::Join(child), Pause::No) => {
                let child = self.tasks[task].handles.remove(*child);
                self.tasks[task].pause = Pause::Joining(child);
                return self.advance(task, step);
            }
            (Step::Join(_), Pause::Joining(child)) => joined(child, self.tasks[child].end?),
            (Step::JoinTimeout(child, nanos), Pause::No) => {
                let child = self.tasks[task].handles.remove(*child);
                if let Some(end) = self.tasks[child].end {
                    return Some(joined(child, end));
                }
                if *nanos > 0 {
                    self.timers.push((self.now + nanos, task));
                }
                let up = *nanos == 0;
                return self.park(task, Pause::JoiningTimed(child, up), up);
            }
            (Step::JoinTimeout(..), Pause::JoiningTimed(child, up)) => {
                match (self.tasks[child].end, up) {
                    (Some(end), _) => {
                        self.timers.retain(|&(_, sleeper)| sleeper != task);
                        joined(child, end)
                    }
                    (None, true) => "joined: late".into(),
                    (None, false) => return None,
                }
            }
            (Step::Cancel(victim), _) => {
                let victim = victim % self.tasks.len();
                format!("cancelled: {}", self.cancel(victim))
            }
            (step, pause) => panic!("{step:?} in {pause:?}"),
        };
        Some(outcome)
    }

    fn park(&mut self, task: usize, pause: Pause, ready: bool) -> Option<String> {
        self.tasks[task].pause = pause;
        if ready {
            self.make_ready(task);
        }
        None
    }

    fn cancel_tree(&mut self, task: usize) {
        self.cancel_children(task);
        self.drop_pause(task);
        self.log(task, "dropped");
        self.set_end(task, End::Cancelled);
    }

    fn cancel_children(&mut self, task: usize) {
        for child in (0..self.tasks.len()).rev() {
            if self.tasks[child].parent == Some(task) && self.tasks[child].end.is_none() {
                self.cancel_tree(child);
            }
        }
    }

    /// A task that returns or panics drops its variables first, and then loses its children.
    fn end(&mut self, task: usize, end: End) {
        self.log(task, "dropped");
        self.cancel_children(task);
        self.set_end(task, end);
    }

    fn set_end(&mut self, task: usize, end: End) {
        self.ready.retain(|&ready| ready != task);
        self.tasks[task].end = Some(end);
        let parent = self.tasks[task].parent;
        let joins = |&parent: &usize| match self.tasks[parent].pause {
            Pause::Joining(joined) | Pause::JoiningTimed(joined, _) => joined == task,
            _ => false,
        };
        if let Some(parent) = parent.filter(joins) {
            self.make_ready(parent);
        }
    }

    /// Takes back what a task waits for; a permit that it was given goes to the next in line.
    fn drop_pause(&mut self, task: usize) {
        self.timers.retain(|&(_, sleeper)| sleeper != task);
        self.line.retain(|waiter| waiter.1 != task);
        match self.tasks[task].pause {
            Pause::Waiting(key, Some(true))
            | Pause::WaitingOutside(key, Some(true))
            | Pause::WaitingTimed(key, Some(true), _) => self.signal(key),
            Pause::Selecting(keys, woken) => {
                // Variables are dropped in the reverse order of their making.
                for which in [1, 0] {
                    if woken[which] == Some(true) {
                        self.signal(keys[which]);
                    }
                }
            }
            _ => {}
        }
    }
}

fn joined(child: usize, end: End) -> String {
    match end {
        End::Returned => format!("joined {child}"),
        End::Cancelled => "joined: cancelled".into(),
        End::Panicked => "joined: thrown".into(),
    }
}

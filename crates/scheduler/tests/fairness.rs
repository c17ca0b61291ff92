//! No task waits longer than [`Priority::polls_within`] says, whatever the others do.
//!
//! The test keeps its own books: whenever a task becomes ready it notes how many of the same priority are
//! ready before it, and when the task runs, how many polls that took.

use std::cell::RefCell;
use std::rc::Rc;

use proptest::prelude::*;
use scheduler::{Handle, Key, Priority, Scheduler};

/// What a task does in one poll.
#[derive(Clone, Copy, Debug)]
enum Step {
    Yield,
    /// Waits until another task unparks it.
    Park,
    /// Wakes another task, if it is parked, and yields.
    Unpark(usize),
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// In the ready queue: when it came in, as a count of polls, and with how many in front of it.
    Ready {
        since: u64,
        ahead: u64,
    },
    Running,
    Parked,
    Ended,
}

struct Books {
    polls: u64,
    tasks: Vec<(Priority, State, Key)>,
    /// The longest wait with nobody ahead, of each priority, in polls.
    longest: [u64; 4],
}

impl Books {
    fn make_ready(&mut self, task: usize) {
        let priority = self.tasks[task].0;
        let is_ahead = |&&(other, state, _): &&(Priority, State, Key)| {
            other == priority && matches!(state, State::Ready { .. })
        };
        let ahead = self.tasks.iter().filter(is_ahead).count() as u64;
        self.tasks[task].1 = State::Ready {
            since: self.polls,
            ahead,
        };
    }

    fn begin_poll(&mut self, task: usize) {
        self.polls += 1;
        let (priority, state, _) = self.tasks[task];
        let State::Ready { since, ahead } = state else {
            panic!("task {task} was run while {state:?}");
        };
        let took = self.polls - since;
        assert!(
            took <= priority.polls_within(ahead),
            "a {priority} task with {ahead} ahead of it waited {took} polls"
        );
        if ahead == 0 {
            let longest = &mut self.longest[priority as usize];
            *longest = took.max(*longest);
        }
        self.tasks[task].1 = State::Running;
    }
}

async fn execute(handle: Handle, books: Rc<RefCell<Books>>, task: usize, steps: Vec<Step>) {
    books.borrow_mut().begin_poll(task);
    for step in steps {
        let parks = match step {
            Step::Yield => false,
            Step::Park => true,
            Step::Unpark(other) => {
                let mut books = books.borrow_mut();
                let other = other % books.tasks.len();
                if matches!(books.tasks[other].1, State::Parked) {
                    books.make_ready(other);
                    handle.signal(books.tasks[other].2);
                }
                false
            }
        };
        let key = books.borrow().tasks[task].2;
        if parks {
            books.borrow_mut().tasks[task].1 = State::Parked;
            handle.wait(key).await;
        } else {
            books.borrow_mut().make_ready(task);
            handle.yield_now().await;
        }
        books.borrow_mut().begin_poll(task);
    }
    books.borrow_mut().tasks[task].1 = State::Ended;
}

/// Runs the tasks and gives the longest wait at the head of each level.
fn run(tasks: Vec<(Priority, Vec<Step>)>) -> [u64; 4] {
    let mut scheduler = Scheduler::default();
    let handle = scheduler.handle();
    let books = Rc::new(RefCell::new(Books {
        polls: 0,
        tasks: Vec::new(),
        longest: [0; 4],
    }));
    for (task, (priority, steps)) in tasks.into_iter().enumerate() {
        let key = handle.new_key();
        books
            .borrow_mut()
            .tasks
            .push((priority, State::Running, key));
        books.borrow_mut().make_ready(task);
        let future = execute(handle.clone(), books.clone(), task, steps);
        handle.spawn("task", priority, future).detach();
    }
    scheduler.run_until_idle();
    let books = books.borrow();
    assert!(
        books
            .tasks
            .iter()
            .all(|task| matches!(task.1, State::Parked | State::Ended))
    );
    books.longest
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_waits_longer_than_the_bound(
        tasks in prop::collection::vec(
            (
                prop::sample::select(Priority::ALL.to_vec()),
                prop::collection::vec(
                    prop_oneof![
                        2 => Just(Step::Yield),
                        2 => Just(Step::Park),
                        3 => any::<usize>().prop_map(Step::Unpark),
                    ],
                    0..40,
                ),
            ),
            1..30,
        ),
    ) {
        run(tasks);
    }
}

#[test]
fn the_lowest_gets_its_share_among_a_thousand_of_the_highest() {
    // Enough for all of the lowest one's polls, at nine apiece.
    let mut tasks = vec![(Priority::High, vec![Step::Yield; 3]); 1000];
    tasks.push((Priority::Background, vec![Step::Yield; 200]));
    let longest = run(tasks);
    // Alone against one full level it gets one poll in nine, and never loses what it has a right to.
    assert_eq!(longest[Priority::Background as usize], 9);
}

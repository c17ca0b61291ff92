//! Who is woken, when, and that nothing of it is left behind.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use pal::{Delivery, EventKind, Filter, Pal, StartAt, Subscription};
use uuid::Uuid;

const A: Uuid = Uuid::from_u128(0xa);
const B: Uuid = Uuid::from_u128(0xb);

/// A task that only counts how often it was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Woken {
    fn times(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

fn poll(reader: &mut Subscription, task: &Arc<Woken>) -> Poll<Delivery> {
    let waker = Waker::from(Arc::clone(task));
    reader.poll_recv(&mut Context::from_waker(&waker))
}

fn say(pal: &Pal, job: Uuid) {
    pal.publish(EventKind::JobStarted, Some(job), 0, None);
}

#[test]
fn only_a_waiting_reader_that_wants_the_event_is_woken() {
    let pal = Pal::new(8, usize::MAX);
    let mut reader = pal.subscribe(Filter::job(A), StartAt::Now);
    let task = Arc::new(Woken::default());

    say(&pal, A);
    assert!(poll(&mut reader, &task).is_ready());
    say(&pal, A);
    assert_eq!(task.times(), 0, "it had not begun to wait");

    assert!(poll(&mut reader, &task).is_ready());
    assert!(poll(&mut reader, &task).is_pending());
    say(&pal, B);
    assert_eq!(task.times(), 0, "it does not want this one");
    say(&pal, A);
    assert_eq!(task.times(), 1);
    say(&pal, A);
    assert_eq!(task.times(), 1, "it is woken once until it waits again");
}

#[test]
fn the_task_that_polled_last_is_woken() {
    let pal = Pal::new(8, usize::MAX);
    let mut reader = pal.subscribe(Filter::all(), StartAt::Now);
    let [first, second] = [(); 2].map(|()| Arc::new(Woken::default()));
    assert!(poll(&mut reader, &first).is_pending());
    assert!(poll(&mut reader, &second).is_pending());
    assert_eq!(Arc::strong_count(&first), 1, "the first task is forgotten");
    say(&pal, A);
    assert_eq!((first.times(), second.times()), (0, 1));
}

#[test]
fn closing_wakes_everybody() {
    let pal = Pal::new(8, usize::MAX);
    let mut reader = pal.subscribe(Filter::job(A), StartAt::Now);
    let task = Arc::new(Woken::default());
    assert!(poll(&mut reader, &task).is_pending());
    pal.close();
    assert_eq!(task.times(), 1);
    assert_eq!(poll(&mut reader, &task), Poll::Ready(Delivery::Closed));
}

#[test]
fn no_waker_outlives_its_reader() {
    let pal = Pal::new(8, usize::MAX);
    let task = Arc::new(Woken::default());
    for _ in 0..100 {
        let mut reader = pal.subscribe(Filter::all(), StartAt::Now);
        for _ in 0..3 {
            assert!(poll(&mut reader, &task).is_pending());
        }
        assert_eq!(Arc::strong_count(&task), 2);
    }
    assert_eq!(Arc::strong_count(&task), 1);
    assert_eq!(pal.stats().readers, 0);
}

#[test]
fn a_dropped_receive_loses_nothing() {
    let pal = Pal::new(8, usize::MAX);
    let mut reader = pal.subscribe(Filter::all(), StartAt::Now);
    let mut context = Context::from_waker(Waker::noop());
    assert!(pin!(reader.recv()).poll(&mut context).is_pending());
    say(&pal, A);
    assert!(pin!(reader.recv()).poll(&mut context).is_ready());
}

/// Wakers are foreign code. This one reads and publishes where an executor would only enqueue.
struct Busybody(Pal);

impl Wake for Busybody {
    fn wake(self: Arc<Self>) {
        let mut reader = self.0.subscribe(Filter::all(), StartAt::Oldest);
        assert!(reader.try_recv().is_some());
        say(&self.0, B);
    }
}

#[test]
fn a_waker_may_use_the_log() {
    let pal = Pal::new(8, usize::MAX);
    let mut reader = pal.subscribe(Filter::job(A), StartAt::Now);
    let waker = Waker::from(Arc::new(Busybody(pal.clone())));
    assert!(
        reader
            .poll_recv(&mut Context::from_waker(&waker))
            .is_pending()
    );
    say(&pal, A);
    assert_eq!(pal.stats().published, 2);
}

/// This one owns a reader, as the waker of a task that holds one may, and is the last to do so.
struct Owner(#[expect(dead_code, reason = "it is there to be dropped")] Mutex<Subscription>);

impl Wake for Owner {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_waker_may_own_a_reader() {
    let pal = Pal::new(8, usize::MAX);
    let owner = || {
        let inner = pal.subscribe(Filter::all(), StartAt::Now);
        Waker::from(Arc::new(Owner(Mutex::new(inner))))
    };
    let mut reader = pal.subscribe(Filter::all(), StartAt::Now);
    // Replaced by another, dropped with the reader: each would deadlock under the lock.
    for _ in 0..2 {
        assert!(
            reader
                .poll_recv(&mut Context::from_waker(&owner()))
                .is_pending()
        );
    }
    drop(reader);
    assert_eq!(pal.stats().readers, 0);
}

//! What the stream costs who publishes and who reads, alone and in each other's way.
//!
//! `cargo bench -p pal`. All of it is with a full ring, as in a daemon that has run for a while: each event
//! that comes in puts one out. Threads beyond the machine's cores measure the system's scheduler.

use std::hint::black_box;
use std::task::{Context, Waker};

use divan::Bencher;
use pal::{Delivery, EventKind, Filter, Pal, StartAt, Stream, Subscription, neutralise};
use uuid::Uuid;

const CAPACITY_EVENTS: usize = 4096;
const JOB: Uuid = Uuid::from_u128(1);
const OTHER_JOB: Uuid = Uuid::from_u128(2);

fn main() {
    divan::main();
}

fn output() -> EventKind {
    EventKind::StepOutput {
        step: "build".to_owned(),
        stream: Stream::Stdout,
        data: "   Compiling something v1.2.3 (a line as tools print it)\n".to_owned(),
        lost_bytes: 0,
    }
}

fn publish(pal: &Pal, job: Uuid) {
    pal.publish(output(), Some(job), 0, None);
}

fn full() -> Pal {
    let pal = Pal::new(CAPACITY_EVENTS, usize::MAX);
    (0..CAPACITY_EVENTS).for_each(|_| publish(&pal, JOB));
    pal
}

/// What the others contain: making the event, its strings included.
#[divan::bench]
fn make_an_event() -> EventKind {
    output().bounded()
}

#[divan::bench(threads = [1, 2, 4])]
fn publish_to_nobody(bencher: Bencher<'_, '_>) {
    let pal = full();
    bencher.bench(|| publish(&pal, JOB));
}

/// Readers that never read: they cost nothing, however many.
#[divan::bench(args = [1, 100, 1000])]
fn publish_past_stalled_readers(bencher: Bencher<'_, '_>, readers: usize) {
    let pal = full();
    let stalled: Vec<_> = (0..readers)
        .map(|_| pal.subscribe(Filter::all(), StartAt::Now))
        .collect();
    bencher.bench_local(|| publish(&pal, JOB));
    drop(stalled);
}

/// Readers that wait for another job: each is looked at.
#[divan::bench(args = [1, 100, 1000])]
fn publish_past_readers_waiting_for_another_job(bencher: Bencher<'_, '_>, readers: usize) {
    let pal = full();
    let mut waiting: Vec<_> = (0..readers)
        .map(|_| pal.subscribe(Filter::job(OTHER_JOB), StartAt::Now))
        .collect();
    waiting.iter_mut().for_each(wait);
    bencher.bench_local(|| publish(&pal, JOB));
}

#[divan::bench]
fn publish_wake_receive(bencher: Bencher<'_, '_>) {
    let pal = full();
    let mut reader = pal.subscribe(Filter::all(), StartAt::Now);
    bencher.bench_local(|| {
        wait(&mut reader);
        publish(&pal, JOB);
        receive(&mut reader)
    });
}

/// The most a reader has to look at to find its next event: a whole ring of others'.
#[divan::bench]
fn receive_behind_a_ring_of_another_job(bencher: Bencher<'_, '_>) {
    let pal = full();
    publish(&pal, OTHER_JOB);
    bencher
        .with_inputs(|| pal.subscribe(Filter::job(OTHER_JOB), StartAt::Oldest))
        .bench_local_refs(receive);
}

#[divan::bench]
fn neutralise_a_harmless_line(bencher: Bencher<'_, '_>) {
    let line = "   Compiling something v1.2.3 (a line as tools print it)\n";
    bencher.bench(|| neutralise(black_box(line)).len());
}

fn wait(reader: &mut Subscription) {
    assert!(
        reader
            .poll_recv(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
}

fn receive(reader: &mut Subscription) -> Option<Delivery> {
    reader.try_recv()
}

//! The engine, the log's writer, clients and effects under many orders of their threads: `cargo xtask shuttle`.
//!
//! [shuttle](https://github.com/awslabs/shuttle) chooses which thread goes on at every lock, wait, wake-up and message.
//! Waits never time out, so that a wake-up that is missing shows as a deadlock. What is real here is everything but the
//! disk: `Runtime::start`, its two channels, the handle and the completers.
#![cfg(shuttle)]

use std::sync::Arc;
use std::time::Duration;

use metrics::Registry;
use pal::Pal;
use runtime::{
    CancelReason, Completer, Context, EffectCall, EffectError, EffectId, EffectRequest,
    EffectRunner, Failure, InputError, Instruments, JobError, JobSpec, JobState, Jobs, Json,
    Limits, Payloads, Program, ProgramFuture, Programs, Recovery, Runtime, RuntimeOptions,
    Shutdown, Stopped,
};
use shuttle::future::block_on;
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::sync::mpsc::{Sender, channel};
use shuttle::{Config, Runner, thread};
use wal::sim::MemStorage;
use wal::{BlobStore, Log, Options, Storage};

fn under_many_orders(case: fn()) {
    let orders = std::env::var("TINKERBELL_CASES").map_or(200, |text| text.parse().unwrap());
    let mut config = Config::new();
    // The threads are shuttle's own coroutines; their usual stacks are too small for debug builds of serde.
    config.stack_size = 1 << 20;
    Runner::new(RandomScheduler::new(orders), config.clone()).run(case);
    Runner::new(PctScheduler::new(3, orders), config).run(case);
}

/// Two steps, one after the other.
struct TwoSteps;

impl Program for TwoSteps {
    fn name(&self) -> &str {
        "two-steps"
    }

    fn version(&self) -> u32 {
        1
    }

    fn check(&self, _input: &Json) -> Result<(), InputError> {
        Ok(())
    }

    fn start(&self, context: Context, _input: Json) -> ProgramFuture {
        Box::pin(async move {
            for _ in 0..2 {
                let done = context.effect(EffectRequest::new("work", Json::null()));
                done.await
                    .map_err(|error| Failure::new(error.code, error.message))?;
            }
            Ok(Json::null())
        })
    }
}

/// Has every effect carried out by another thread.
struct Elsewhere(Sender<Completer>);

impl EffectRunner for Elsewhere {
    fn start(&mut self, _call: EffectCall, completer: Completer) {
        // A completer that nobody takes any more reports its effect lost by being dropped.
        let _ = self.0.send(completer);
    }

    fn cancel(&mut self, _id: EffectId, _reason: CancelReason) {}
}

struct Node {
    runtime: Runtime,
    elsewhere: thread::JoinHandle<()>,
}

fn start(disk: &MemStorage) -> Node {
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    let mut recovery = Recovery::new();
    let options = Options {
        segment_bytes: 64 << 10,
        ..Options::new("/log")
    };
    let (log, _) = Log::open(options, Arc::clone(&storage), |lsn, bytes| {
        recovery.take_in(lsn, bytes)
    })
    .unwrap();
    let blobs = Arc::new(BlobStore::open("/blobs", storage).unwrap());
    let (work, works) = channel();
    let elsewhere = thread::spawn(move || {
        for (number, completer) in works.iter().enumerate() {
            let completer: Completer = completer;
            completer.complete(match number % 3 {
                0 => Err(EffectError::permanent("broken", "by the test")),
                _ => Ok(Json::null()),
            });
        }
    });
    let mut drawn = u128::from(log.next_lsn().0) << 64;
    let options = RuntimeOptions {
        limits: Limits::default(),
        intake_queue: 8,
        retention: Duration::from_secs(3600),
        long_poll: None,
        programs: Programs::new().with(TwoSteps),
        payloads: Arc::new(Payloads::new(blobs, 4096)),
        pal: Pal::new(256, 1 << 20),
        instruments: Instruments::new(&Registry::new()),
        entropy: Box::new(move || {
            drawn = drawn.wrapping_add(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
            drawn
        }),
        version: "test".to_owned(),
    };
    let recovery = recovery.finish().unwrap();
    Node {
        runtime: Runtime::start(options, log, recovery, Elsewhere(work)).unwrap(),
        elsewhere,
    }
}

impl Node {
    fn jobs(&self) -> Jobs {
        self.runtime.jobs().clone()
    }

    fn stop(self) {
        self.runtime.jobs().shutdown(Shutdown {
            finish_within: Duration::ZERO,
            give_up_after: Duration::from_secs(3600),
        });
        let stopped = self.runtime.join().unwrap();
        assert!(matches!(stopped, Stopped::Cleanly { .. }), "{stopped:?}");
        self.elsewhere.join().unwrap();
    }
}

fn spec(key: &str) -> JobSpec {
    JobSpec::new("two-steps", Json::null()).keyed(key.to_owned())
}

#[test]
fn every_job_ends_and_whoever_waits_for_it_is_told() {
    under_many_orders(|| {
        let disk = MemStorage::new(1);
        let node = start(&disk);
        let clients: Vec<_> = ["a", "b", "a"]
            .into_iter()
            .map(|key| {
                let jobs = node.jobs();
                thread::spawn(move || {
                    let job = block_on(jobs.submit(spec(key))).unwrap().job;
                    block_on(jobs.when_over(job)).unwrap().unwrap()
                })
            })
            .collect();
        let ends: Vec<_> = clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect();
        assert!(ends.iter().all(|end| end.state.is_final()));
        assert_eq!(ends[0], ends[2], "the same key is the same job");
        assert_ne!(ends[0].id, ends[1].id);
        node.stop();
    });
}

#[test]
fn a_node_stops_whatever_is_going_on_and_goes_on_in_its_next_life() {
    under_many_orders(|| {
        let disk = MemStorage::new(1);
        let node = start(&disk);
        let clients: Vec<_> = ["a", "b"]
            .into_iter()
            .map(|key| {
                let jobs = node.jobs();
                thread::spawn(move || {
                    let Ok(submitted) = block_on(jobs.submit(spec(key))) else {
                        return None;
                    };
                    // Told the end, or that the node stops; never left alone.
                    match block_on(jobs.when_over(submitted.job)) {
                        Ok(view) => assert!(view.unwrap().state.is_final()),
                        Err(error) => assert_eq!(error, JobError::Stopping),
                    }
                    Some(submitted.job)
                })
            })
            .collect();
        node.stop();
        let acknowledged: Vec<_> = clients
            .into_iter()
            .filter_map(|client| client.join().unwrap())
            .collect();
        let node = start(&disk);
        for job in acknowledged {
            let view = block_on(node.jobs().when_over(job)).unwrap().unwrap();
            assert!(matches!(view.state, JobState::Completed | JobState::Failed));
        }
        node.stop();
    });
}

//! The runtime with its threads, on a real disk: the same engine behind the handle that everybody uses.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metrics::Registry;
use pal::Pal;
use runtime::EffectClass::Keyed;
use runtime::{
    CancelReason, Completer, EffectCall, EffectId, EffectRunner, Instruments, JobError, JobFilter,
    JobId, JobSpec, JobState, Jobs, Json, Limits, Payloads, Programs, Recovery, Runtime,
    RuntimeOptions, Shutdown, Stopped, SubmitError,
};
use wal::{BlobStore, Log, Options, OsStorage, Storage};

use crate::support::{failed, program, step};

/// Carries everything out at once, on the engine's own thread.
struct Obliging;

impl EffectRunner for Obliging {
    fn start(&mut self, call: EffectCall, completer: Completer) {
        completer.complete(Ok(call.input));
    }

    fn cancel(&mut self, _id: EffectId, _reason: CancelReason) {}
}

/// Carries nothing out.
#[derive(Default)]
struct Idle(Vec<Completer>);

impl EffectRunner for Idle {
    fn start(&mut self, _call: EffectCall, completer: Completer) {
        self.0.push(completer);
    }

    fn cancel(&mut self, id: EffectId, _reason: CancelReason) {
        if let Some(at) = self.0.iter().position(|completer| completer.id() == id) {
            let error = runtime::EffectError::permanent("cancelled", "ended");
            self.0.swap_remove(at).complete(Err(error));
        }
    }
}

fn start(dir: &Path, intake_queue: usize, runner: impl EffectRunner + Send + 'static) -> Runtime {
    let storage: Arc<dyn Storage> = Arc::new(OsStorage::new());
    let mut recovery = Recovery::new();
    let options = Options {
        segment_bytes: 1 << 20,
        ..Options::new(dir.join("wal"))
    };
    let (log, _) = Log::open(options, Arc::clone(&storage), |lsn, bytes| {
        recovery.take_in(lsn, bytes)
    })
    .unwrap();
    let blobs = Arc::new(BlobStore::open(dir.join("blobs"), storage).unwrap());
    let ids = AtomicU64::new(log.next_lsn().0);
    let options = RuntimeOptions {
        limits: Limits::default(),
        intake_queue,
        retention: Duration::from_secs(3600),
        long_poll: Some(Duration::from_millis(100)),
        programs: Programs::new().with(program("work", |context, _| async move {
            step(&context, "work", Keyed).await.map_err(failed)
        })),
        payloads: Arc::new(Payloads::new(blobs, 4096)),
        pal: Pal::new(1024, 1 << 20),
        instruments: Instruments::new(&Registry::new()),
        entropy: Box::new(move || {
            u128::from(ids.fetch_add(1, Ordering::Relaxed)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        }),
        version: "test".to_owned(),
    };
    Runtime::start(options, log, recovery.finish().unwrap(), runner).unwrap()
}

fn stop(runtime: Runtime) {
    runtime.jobs().shutdown(Shutdown {
        finish_within: Duration::ZERO,
        give_up_after: Duration::from_secs(10),
    });
    assert!(matches!(
        runtime.join().unwrap(),
        Stopped::Cleanly { left_running: 0 }
    ));
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

fn submit_many(jobs: &Jobs, thread: usize, count: usize) -> Vec<JobId> {
    block_on(async {
        let mut ids = Vec::new();
        for number in 0..count {
            let spec = JobSpec::new("work", Json::null()).keyed(format!("{thread}/{number}"));
            ids.push(jobs.submit(spec).await.unwrap().job);
        }
        ids
    })
}

#[test]
fn a_thousand_jobs_of_eight_threads_are_all_there_after_a_restart() {
    const THREADS: usize = 8;
    const JOBS: usize = 1_000;
    let dir = tempfile::tempdir().unwrap();
    let runtime = start(dir.path(), 100, Obliging);
    let mut ids: Vec<JobId> = std::thread::scope(|scope| {
        let submitters: Vec<_> = (0..THREADS)
            .map(|thread| {
                let jobs = runtime.jobs();
                scope.spawn(move || submit_many(jobs, thread, JOBS / THREADS))
            })
            .collect();
        submitters
            .into_iter()
            .flat_map(|submitter| submitter.join().unwrap())
            .collect()
    });
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), JOBS);
    stop(runtime);

    let runtime = start(dir.path(), 100, Obliging);
    let jobs = runtime.jobs();
    let idleness = block_on(jobs.when_idle()).unwrap();
    assert_eq!(idleness.stuck, 0);
    let all = JobFilter {
        states: vec![JobState::Completed],
        limit: 2 * JOBS,
        ..JobFilter::default()
    };
    let mut found: Vec<JobId> = block_on(jobs.list(all))
        .unwrap()
        .jobs
        .iter()
        .map(|view| view.id)
        .collect();
    found.reverse();
    assert_eq!(found, ids);
    // The same keys again are the same jobs.
    let again = submit_many(jobs, 3, JOBS / THREADS);
    assert!(again.iter().all(|id| ids.binary_search(id).is_ok()));
    stop(runtime);
}

#[test]
fn a_handle_answers_while_the_runtime_lives_and_says_so_when_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = start(dir.path(), 100, Idle::default());
    let jobs = runtime.jobs().clone();
    let job = block_on(jobs.submit(JobSpec::new("work", Json::null())))
        .unwrap()
        .job;
    assert_eq!(
        block_on(jobs.get(job)).unwrap().unwrap().state,
        JobState::Running
    );
    assert_eq!(block_on(jobs.dump()).unwrap().running_effects, 1);
    block_on(jobs.cancel(job, "enough")).unwrap();
    let over = block_on(jobs.when_over(job)).unwrap().unwrap();
    assert_eq!(over.state, JobState::Cancelled);
    block_on(jobs.when_idle()).unwrap();
    assert_eq!(block_on(jobs.get(job)).unwrap(), Some(over));
    stop(runtime);
    assert_eq!(
        block_on(jobs.submit(JobSpec::new("work", Json::null()))),
        Err(SubmitError::Stopping)
    );
    assert_eq!(block_on(jobs.get(job)), Err(JobError::Stopping));
    assert_eq!(block_on(jobs.when_over(job)), Err(JobError::Stopping));
}

#[test]
fn what_a_handle_can_see_it_refuses_itself() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = start(dir.path(), 0, Obliging);
    let jobs = runtime.jobs();
    let submit = |spec| block_on(jobs.submit(spec)).unwrap_err();
    assert!(matches!(
        submit(JobSpec::new("wrok", Json::null())),
        SubmitError::UnknownProgram { .. }
    ));
    assert!(matches!(
        submit(JobSpec::new("work", Json::of(&"x".repeat(2 << 20)))),
        SubmitError::TooLarge { limit_bytes, .. } if limit_bytes == 1 << 20
    ));
    // No request may wait, so none gets in.
    assert_eq!(
        submit(JobSpec::new("work", Json::null())),
        SubmitError::Busy { limit: 0 }
    );
    jobs.set_limits(Limits {
        spec_bytes: 10,
        ..Limits::default()
    });
    assert!(matches!(
        submit(JobSpec::new("work", Json::of("eleven bytes"))),
        SubmitError::TooLarge {
            limit_bytes: 10,
            ..
        }
    ));
    stop(runtime);
}

#[test]
fn a_signal_may_be_as_long_as_the_limit_and_no_longer() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = start(dir.path(), 10, Obliging);
    let jobs = runtime.jobs();
    jobs.set_limits(Limits {
        spec_bytes: 10,
        ..Limits::default()
    });
    let nobody = runtime::JobId::from_parts(1, 1);
    let send = |text: &str| block_on(jobs.signal(nobody, "name", Json::of(text)));
    // Four for the name, two for the quotes.
    assert!(matches!(send("1234"), Err(runtime::JobError::NotFound(_))));
    assert!(matches!(
        send("12345"),
        Err(runtime::JobError::TooLarge {
            bytes: 11,
            limit_bytes: 10
        })
    ));
    stop(runtime);
}

#[test]
fn jobs_go_on_where_the_last_life_of_the_process_left_them() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = start(dir.path(), 100, Idle::default());
    let ids = submit_many(runtime.jobs(), 0, 20);
    stop(runtime);
    let runtime = start(dir.path(), 100, Obliging);
    let idleness = block_on(runtime.jobs().when_idle()).unwrap();
    assert_eq!(idleness.completed, 20);
    for id in ids {
        let view = block_on(runtime.jobs().get(id)).unwrap().unwrap();
        assert_eq!(view.state, JobState::Completed);
    }
    stop(runtime);
}

//! A log with a past: many jobs that are over, and some that wait.
//!
//! It is made by the runtime itself, with the daemon's own wiring: every job is submitted through [`runtime::Jobs`], one
//! after the other, so that the log has the frames of a daemon that was never busy, which are the smallest and so the
//! slowest to read. Only the syncs are left out. The first start on a copy of it writes the tail again, as it has to
//! when it cannot know that it is durable; so that start does not count.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use daemon::boot::{open_log, start_runtime};
use daemon::config::{Config, Environment, LoadOptions, SetFlag};
use daemon::transports::Site;
use metrics::Registry;
use pal::Pal;
use runtime::{JobSpec, Jobs, Json, Shutdown, Stopped};
use serde_json::json;

/// Jobs that are over.
const FINISHED: usize = 100_000;
/// Jobs that wait: one half for an answer, the other for a time that is far off.
const LIVE: usize = 1_000;

/// What is in the log that was made.
pub(crate) struct Past {
    finished: usize,
    live: usize,
    records: u64,
    bytes: u64,
}

impl Past {
    /// Makes the log, and makes sure that it can be recovered from.
    pub(crate) fn make(data_dir: &Path) -> Self {
        let options = LoadOptions {
            environment: Environment::of_variables([]),
            sets: vec![
                SetFlag::new(&format!("node.data_dir={}", data_dir.display())),
                SetFlag::new("wal.sync=never"),
            ],
            ..LoadOptions::default()
        };
        let config = Config::load(&options)
            .expect("a config that is valid")
            .config;
        let io_runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime for I/O");
        io_runtime.block_on(async {
            let opened = open_log(&config).expect("a new log");
            let pal = Pal::new(16, 64 << 10);
            let site = Site::of(&config, &opened);
            let runtime = start_runtime(
                &config,
                &options.environment,
                opened,
                &site,
                &pal,
                &Registry::new(),
            )
            .expect("a runtime for the jobs");
            submit_all(runtime.jobs()).await;
            runtime.jobs().shutdown(Shutdown {
                finish_within: Duration::ZERO,
                give_up_after: Duration::from_secs(10),
            });
            let stopped = runtime.join().expect("the log is sound");
            assert!(
                matches!(stopped, Stopped::Cleanly { left_running: 0 }),
                "{stopped:?}"
            );
        });
        let opened = open_log(&config).expect("the log that was just written");
        let past = Self {
            finished: opened.recovery.finished_jobs(),
            live: opened.recovery.live_jobs(),
            records: opened.found.records,
            bytes: opened.found.bytes,
        };
        assert_eq!((past.finished, past.live), (FINISHED, LIVE));
        past
    }
}

/// The jobs that wait lie evenly among the others, as those of a daemon that has been up for long.
async fn submit_all(jobs: &Jobs) {
    let every = FINISHED / LIVE;
    for number in 0..FINISHED {
        let step = json!({ "id": "greet", "say": "hello from {{ input.number }}" });
        submit(jobs, number, &step).await;
        if number % every == 0 {
            let step = match number / every % 2 {
                0 => json!({ "id": "ask", "ask": { "prompt": "go on?", "approval": true } }),
                _ => json!({ "id": "wait", "sleep": "30d" }),
            };
            submit(jobs, number, &step).await;
        }
    }
}

async fn submit(jobs: &Jobs, number: usize, step: &serde_json::Value) {
    let input = json!({ "input": { "number": number }, "steps": [step] });
    let spec = JobSpec::new("plan", Json::of(&input)).named(format!("job-{number}"));
    jobs.submit(spec).await.expect("the job can be taken in");
}

impl fmt::Display for Past {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} finished and {} live jobs, {} records, {:.0} MiB",
            self.finished,
            self.live,
            self.records,
            self.bytes as f64 / f64::from(1 << 20)
        )
    }
}

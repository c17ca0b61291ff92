//! Given a toolbox, when a command runs, then …
#![allow(
    dead_code,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "every test file uses another part, and calls read better with values"
)]

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use pal::{Delivery, EventKind, Filter, Pal, StartAt, Subscription};
use runtime::{
    Attempt, CancelReason, EffectCall, EffectClass, EffectError, EffectId, EffectResult,
    EffectRunner, JobId, Json, StepIndex,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tempfile::TempDir;
use tools::{Options, PROCESS_RUN, ProcessResult, ToolBox};

/// How long anything may take before a test calls it stuck.
pub const STUCK: Duration = Duration::from_secs(20);

pub const SUPERVISOR: &str = env!("CARGO_BIN_EXE_tools-test-supervisor");

static NEXT: AtomicU32 = AtomicU32::new(0);

/// An id that marks the processes of one test.
pub fn fresh_node_id() -> String {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("test-{}-{number}", std::process::id())
}

/// A toolbox with a directory, an activity log and an I/O runtime of its own.
pub struct Bench {
    pub dir: TempDir,
    pub node_id: String,
    pub pal: Pal,
    pub tools: ToolBox,
    next_step: u32,
    io: tokio::runtime::Runtime,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Options)) -> Self {
        let dir = TempDir::new().unwrap();
        let node_id = fresh_node_id();
        let mut options = Options::new(dir.path(), &node_id);
        options.supervisor = SUPERVISOR.into();
        options.grace = Duration::from_millis(300);
        options.leftover_grace = Duration::from_millis(100);
        change(&mut options);
        let io = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let pal = Pal::new(256, 1 << 20);
        let tools = ToolBox::new(options, io.handle().clone(), pal.clone());
        Self {
            dir,
            node_id,
            pal,
            tools,
            next_step: 0,
            io,
        }
    }

    pub fn workspace(&self) -> std::path::PathBuf {
        let path = self.dir.path().join("workspaces").join(job().to_string());
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// A call of the next step.
    pub fn call(&mut self, kind: &str, input: serde_json::Value) -> EffectCall {
        let step = StepIndex(self.next_step);
        self.next_step += 1;
        EffectCall {
            id: EffectId {
                job: job(),
                step,
                attempt: Attempt::FIRST,
            },
            kind: kind.into(),
            class: EffectClass::External,
            input: Json::of(&input),
            label: "step".into(),
            interrupted: false,
        }
    }

    pub fn start_call(&self, call: EffectCall) -> Running {
        let (sender, result) = mpsc::channel();
        let events = self.pal.subscribe(Filter::default(), StartAt::Now);
        let id = call.id;
        self.tools
            .start_with(call, move |result, _| drop(sender.send(result)));
        Running {
            id,
            events,
            seen: String::new(),
            result,
        }
    }

    pub fn start(&mut self, input: serde_json::Value) -> Running {
        let call = self.call(PROCESS_RUN, input);
        self.start_call(call)
    }

    /// Runs a command to its end.
    pub fn run(&mut self, input: serde_json::Value) -> Ran {
        self.start(input).wait()
    }

    pub fn shell(&mut self, line: &str) -> Ran {
        self.run(serde_json::json!({ "shell": line }))
    }

    pub fn cancel(&mut self, running: &Running, reason: CancelReason) {
        self.tools.cancel(running.id, reason);
    }

    /// Asserts that nobody who was started here is alive.
    pub fn assert_nobody_left(&self) {
        let report = tools::leftovers::end_all(&self.node_id).unwrap();
        assert_eq!(report.ended, 0, "processes were left behind");
    }
}

pub fn job() -> JobId {
    JobId::from_parts(1, 2)
}

/// A call that is at work.
pub struct Running {
    pub id: EffectId,
    events: Subscription,
    seen: String,
    result: mpsc::Receiver<EffectResult>,
}

impl Running {
    /// Waits until the command has printed this many lines that begin with `ready`; gives the numbers that follow the
    /// word, and a way to tell whether those processes live.
    pub fn ready(&mut self, count: usize) -> Vec<Process> {
        let until = Instant::now() + STUCK;
        loop {
            let found: Vec<i32> = self
                .seen
                .split_inclusive('\n')
                .filter_map(|line| {
                    line.strip_suffix('\n')?
                        .strip_prefix("ready ")?
                        .parse()
                        .ok()
                })
                .collect();
            if found.len() >= count {
                return found.into_iter().map(Process::of).collect();
            }
            assert!(
                Instant::now() < until,
                "stuck; output so far: {:?}",
                self.seen
            );
            if let Some(Delivery::Event(event)) = self.events.recv_blocking(Duration::from_secs(1))
                && let EventKind::StepOutput { data, .. } = &event.kind
            {
                self.seen.push_str(data);
            }
        }
    }

    pub fn wait(self) -> Ran {
        Ran(self
            .result
            .recv_timeout(STUCK)
            .expect("the effect is stuck"))
    }
}

/// What a call came to.
#[derive(Debug)]
pub struct Ran(pub EffectResult);

impl Ran {
    /// The result of a command that exited with 0.
    #[track_caller]
    pub fn ok(self) -> ProcessResult {
        self.0.expect("the command failed").read().unwrap()
    }

    /// The error of a command that failed, and the result that came with it.
    #[track_caller]
    pub fn failed(self) -> (EffectError, ProcessResult) {
        let mut error = self.0.expect_err("the command succeeded");
        let output = error
            .output
            .take()
            .expect("the error comes without a result");
        (error, output.read().unwrap())
    }

    /// The error of what did not run.
    #[track_caller]
    pub fn refused(self) -> EffectError {
        let error = self.0.expect_err("the call succeeded");
        assert_eq!(error.output, None);
        error
    }
}

/// A process that is watched.
pub struct Process {
    pub pid: i32,
    /// `None` if it was over already.
    pidfd: Option<OwnedFd>,
}

impl Process {
    pub fn of(pid: i32) -> Self {
        let pidfd = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).ok();
        Self { pid, pidfd }
    }

    pub fn is_over(&self) -> bool {
        self.is_over_within(Duration::ZERO)
    }

    /// Waits for its end.
    pub fn is_over_within(&self, limit: Duration) -> bool {
        let Some(pidfd) = &self.pidfd else {
            return true;
        };
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        poll(&mut fds, Some(&limit.try_into().unwrap())).unwrap() == 1
    }
}

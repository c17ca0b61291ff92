//! What all that is measured has in common, however it is reached.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// Jobs of so many steps, so many of them in flight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// Durable no-op steps of each job.
    pub(crate) steps: u32,
    /// Jobs in flight.
    pub(crate) clients: usize,
}

/// How much was done.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(crate) struct Ran {
    /// Jobs, submitted and finished.
    pub(crate) jobs: u64,
    /// From the first submission to the last end.
    pub(crate) seconds: f64,
}

impl Ran {
    /// Jobs a second.
    pub(crate) fn rate(self) -> f64 {
        self.jobs as f64 / self.seconds
    }
}

/// How a start went, from the moment at which the process was made.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    /// Until it says that it takes work.
    pub(crate) ready: Duration,
    /// Until a job of one step was over.
    pub(crate) first_job: Duration,
    /// What else it said when it was ready.
    pub(crate) said: serde_json::Value,
}

/// Resident memory of a process in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Now.
    pub(crate) now_kib: u64,
    /// The most there ever was.
    pub(crate) peak_kib: u64,
}

impl Memory {
    /// Of a process that runs.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .and_then(|rest| rest.split_whitespace().next())
                .and_then(|number| number.parse().ok())
                .with_context(|| format!("/proc/{pid}/status has no {name}"))
        };
        Ok(Self {
            now_kib: field("VmRSS:")?,
            peak_kib: field("VmHWM:")?,
        })
    }
}

/// What a process has sent to the disk so far.
pub(crate) fn written_bytes(pid: u32) -> Result<u64> {
    std::fs::read_to_string(format!("/proc/{pid}/io"))?
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "))
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("/proc/{pid}/io does not say what was written"))
}

/// One of those that are measured. Dropping it ends its process.
pub(crate) trait Peer {
    /// What people call it.
    fn name(&self) -> &'static str;

    /// Where it keeps everything.
    fn data_dir(&self) -> &Path;

    /// Starts it over what is in its directory and has it do a job of one step.
    fn start(&mut self) -> Result<Start>;

    /// Stops it as it wants to be stopped, and waits for that.
    fn stop(&mut self) -> Result<()>;

    /// Its memory.
    fn memory(&self) -> Result<Memory>;

    /// Keeps so many jobs in flight for about so long, and waits for the last.
    fn run(&mut self, scenario: Scenario, span: Duration) -> Result<Ran>;

    /// Jobs one after the other: the microseconds from submission to the known end of each.
    fn lone(&mut self, steps: u32, times: usize) -> Result<Vec<f64>>;

    /// The microseconds of each step of one job.
    fn steps(&mut self, steps: u32) -> Result<Vec<f64>>;

    /// Makes jobs that wait after some steps, so many or as many as it can in so long; says how many wait.
    fn live(&mut self, steps: u32, jobs: u64, limit: Duration) -> Result<u64>;

    /// Waits until all its jobs wait; says how long after the start that was, if it can be known.
    fn when_idle(&mut self) -> Result<Option<Duration>>;

    /// What it has sent to the disk since it was started.
    fn written_bytes(&self) -> Result<u64>;
}

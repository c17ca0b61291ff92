//! A peer as a process that is told what to run by lines on stdin and answers by lines of JSON on stdout.
//!
//! When it is started it says `{"ready":true}`, and `{"first":true}` when a job of one step is over. Then it takes
//!
//! - `run STEPS CLIENTS SECONDS`: so many clients each submit a job, wait for its end and submit the next, for about so
//!   long; answers `{"jobs":…,"seconds":…}`, the time up to the end of the last job;
//! - `lone STEPS TIMES`: jobs one after the other; answers `{"micros":[…]}`, from submission to the known end of each;
//! - `steps STEPS`: one job; answers `{"micros":[…]}`, the time of each of its steps;
//! - `live STEPS JOBS SECONDS`: makes jobs that take their steps and then wait, so many of them or as many as it can in
//!   so long; answers `{"live":…}` when all of them wait.
//!
//! The end of stdin ends it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::peer::{Memory, Peer, Ran, Scenario, Start, written_bytes};

/// How to make the process.
pub(crate) struct Child {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<PathBuf>,
    data_dir: PathBuf,
    /// Whether it knows when all its jobs wait.
    knows_idle: bool,
    process: Option<Process>,
}

struct Process {
    process: std::process::Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    begun: Instant,
}

#[derive(Deserialize)]
struct Micros {
    micros: Vec<f64>,
}

#[derive(Deserialize)]
struct Live {
    live: u64,
}

impl Child {
    /// Not started yet. The data directory comes after the arguments.
    pub(crate) fn new(
        name: &'static str,
        program: PathBuf,
        arguments: Vec<PathBuf>,
        data_dir: PathBuf,
    ) -> Self {
        Self {
            name,
            program,
            arguments,
            data_dir,
            knows_idle: false,
            process: None,
        }
    }

    /// It also takes `idle`, and answers when all jobs that it found at its start wait.
    pub(crate) fn that_knows_idle(mut self) -> Self {
        self.knows_idle = true;
        self
    }

    fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("it was not started")
    }
}

impl Process {
    fn ask<T: DeserializeOwned>(&mut self, order: &str) -> Result<T> {
        let orders = self.orders.as_mut().context("it was stopped")?;
        writeln!(orders, "{order}").with_context(|| format!("asking to {order}"))?;
        self.answer()
    }

    fn answer<T: DeserializeOwned>(&mut self) -> Result<T> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(!line.is_empty(), "the process has ended without an answer");
        serde_json::from_str(&line).with_context(|| format!("reading the answer {line:?}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.orders.take());
        // Gone already is as good.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Peer for Child {
    fn name(&self) -> &'static str {
        self.name
    }

    fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    fn start(&mut self) -> Result<Start> {
        std::fs::create_dir_all(&self.data_dir)?;
        let begun = Instant::now();
        let mut process = Command::new(&self.program)
            .args(&self.arguments)
            .arg(&self.data_dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        let orders = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().context("stdout is a pipe")?);
        let mut process = Process {
            process,
            orders,
            answers,
            begun,
        };
        let said: serde_json::Value = process.answer()?;
        let ready = begun.elapsed();
        let _: serde_json::Value = process.answer()?;
        let first_job = begun.elapsed();
        self.process = Some(process);
        Ok(Start {
            ready,
            first_job,
            said,
        })
    }

    fn stop(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            drop(process.orders.take());
            process.process.wait()?;
        }
        Ok(())
    }

    fn memory(&self) -> Result<Memory> {
        let process = self.process.as_ref().context("it was not started")?;
        Memory::of(process.process.id())
    }

    fn run(&mut self, scenario: Scenario, span: Duration) -> Result<Ran> {
        let Scenario { steps, clients } = scenario;
        let order = format!("run {steps} {clients} {}", span.as_secs_f64());
        self.process()?.ask(&order)
    }

    fn lone(&mut self, steps: u32, times: usize) -> Result<Vec<f64>> {
        let answer: Micros = self.process()?.ask(&format!("lone {steps} {times}"))?;
        Ok(answer.micros)
    }

    fn steps(&mut self, steps: u32) -> Result<Vec<f64>> {
        let answer: Micros = self.process()?.ask(&format!("steps {steps}"))?;
        Ok(answer.micros)
    }

    fn live(&mut self, steps: u32, jobs: u64, limit: Duration) -> Result<u64> {
        let order = format!("live {steps} {jobs} {}", limit.as_secs_f64());
        let answer: Live = self.process()?.ask(&order)?;
        Ok(answer.live)
    }

    fn when_idle(&mut self) -> Result<Option<Duration>> {
        if !self.knows_idle {
            return Ok(None);
        }
        let process = self.process()?;
        let _: serde_json::Value = process.ask("idle")?;
        Ok(Some(process.begun.elapsed()))
    }

    fn written_bytes(&self) -> Result<u64> {
        let process = self.process.as_ref().context("it was not started")?;
        written_bytes(process.process.id())
    }
}

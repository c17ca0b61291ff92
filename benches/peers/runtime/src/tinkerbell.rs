//! The real daemon: from its start to the end of its first job, and its memory when it has nothing to do.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::peer::Memory;

/// A binary and a directory for it.
pub(crate) struct Daemon {
    binary: PathBuf,
    dir: PathBuf,
}

/// Ended when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Daemon {
    pub(crate) fn new(binary: &Path, dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        Ok(Self {
            binary: binary.to_owned(),
            dir: dir.to_owned(),
        })
    }

    fn start(&self, config: &str) -> Result<Running> {
        let path = self.dir.join("config.toml");
        let data_dir = self.dir.join("data");
        let text = format!(
            "[node]\ndata_dir = {:?}\n{config}",
            data_dir.to_str().context("a path is text")?
        );
        std::fs::write(&path, text)?;
        let child = Command::new(&self.binary)
            .arg("--config")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", self.binary.display()))?;
        Ok(Running(child))
    }

    /// Runs the one-shot daemon with a job that runs `/bin/true`: from its start to its exit, which comes after the end
    /// of the job and a clean stop. More than from start to first job, then, and with a process spawned.
    pub(crate) fn first_job(&self, number: usize) -> Result<Duration> {
        let config = format!(
            "exit_when_idle = true\n[http]\nenabled = false\n\
             [[job]]\nname = \"job-{number}\"\nprogram = \"command\"\nargv = [\"/bin/true\"]\n"
        );
        let begun = Instant::now();
        let mut running = self.start(&config)?;
        let output = running.0.stderr.take().context("stderr is a pipe")?;
        // To its end, or the daemon would have nobody to tell what it does.
        let lines: Vec<_> = BufReader::new(output).lines().collect::<Result<_, _>>()?;
        let status = running.0.wait()?;
        let took = begun.elapsed();
        ensure!(
            status.success(),
            "the daemon ended with {status}:\n{}",
            lines.join("\n")
        );
        Ok(took)
    }

    /// Resident memory once it is ready and has nothing to do.
    pub(crate) fn idle_mib(&self) -> Result<f64> {
        let mut running = self.start("[http]\nenabled = false\n")?;
        let output = running.0.stderr.take().context("stderr is a pipe")?;
        let ready = BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .find(|line| line.contains("ready"));
        ensure!(ready.is_some(), "the daemon did not become ready");
        let memory = Memory::of(running.0.id())?;
        kill_process(Pid::from_child(&running.0), Signal::TERM)?;
        running.0.wait()?;
        Ok(memory.now_kib as f64 / 1024.0)
    }
}

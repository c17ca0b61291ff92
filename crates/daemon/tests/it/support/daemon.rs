//! A daemon that runs, and how it ended.

use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::Value;

use super::{Answer, Lines, PATIENCE, get};

/// A child process with all that it says; killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    pub(crate) stdout: Lines,
    pub(crate) stderr: Lines,
    /// The first line of standard error that was not looked at yet.
    unread: usize,
}

/// How a process ended.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    /// As a shell would show it: 128 and the signal, if one ended it.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Makes sure of the exit code.
    #[track_caller]
    pub(crate) fn with(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// The start-up jobs it has acknowledged: name and id of each, as often as it has said so.
    pub(crate) fn start_up_jobs(&self) -> Vec<(String, String)> {
        let lines = self.stderr.lines();
        // The last line may have been cut off by a kill.
        let lines = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let field = |line: &Value, name: &str| line[name].as_str().map(str::to_owned);
        lines
            .filter(|line| {
                let message = line["message"].as_str();
                message.is_some_and(|message| message.starts_with("start-up job "))
            })
            .filter_map(|line| Some((field(&line, "name")?, field(&line, "job")?)))
            .collect()
    }

    /// Both streams.
    pub(crate) fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs a command to its end.
pub(crate) fn end_of(command: &mut Command) -> Ended {
    Daemon::spawn(command).ended()
}

impl Daemon {
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary can be started");
        let stdout = child.stdout.take().expect("it was piped");
        let stderr = child.stderr.take().expect("it was piped");
        Self {
            child,
            stdout: Lines::of("standard output", stdout),
            stderr: Lines::of("standard error", stderr),
            unread: 0,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What is written to its standard input from here on; dropping it is the end of that.
    pub(crate) fn stdin(&mut self) -> std::process::ChildStdin {
        self.child
            .stdin
            .take()
            .expect("it was piped, and is taken once")
    }

    /// Waits for the next log line, after the last one waited for, whose message begins like this.
    #[track_caller]
    pub(crate) fn logged(&mut self, message: &str) -> Value {
        let parsed = |line: &str| serde_json::from_str::<Value>(line).unwrap_or_default();
        let (number, line) = self.stderr.wait_for(self.unread, message, |line| {
            let line = parsed(line);
            line["message"]
                .as_str()
                .is_some_and(|said| said.starts_with(message))
        });
        self.unread = number + 1;
        parsed(&line)
    }

    /// All log lines so far whose message begins like this.
    pub(crate) fn has_logged(&self, message: &str) -> Vec<Value> {
        let lines = self.stderr.so_far();
        let parsed = lines
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        parsed
            .filter(|line| {
                line["message"]
                    .as_str()
                    .is_some_and(|said| said.starts_with(message))
            })
            .collect()
    }

    /// Waits until it is ready.
    pub(crate) fn ready(&mut self) {
        self.logged("ready");
    }

    /// Where it serves HTTP, as it has said.
    pub(crate) fn address(&self) -> SocketAddr {
        let (_, line) = self
            .stderr
            .wait_for(0, "its address", |line| line.contains("serving probes"));
        let line: Value = serde_json::from_str(&line).expect("log lines are JSON");
        let address = line["address"].as_str().and_then(|text| text.parse().ok());
        address.expect("the line holds an address")
    }

    /// Asks it over HTTP.
    pub(crate) fn get(&self, path: &str) -> Answer {
        get(self.address(), path)
    }

    /// Asks over HTTP until the answer is as wanted.
    #[track_caller]
    pub(crate) fn get_until(&self, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = self.get(path);
            if wanted(&answer) {
                return answer;
            }
            assert!(Instant::now() < until, "{path} stays {answer:?}");
            std::thread::yield_now();
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        // The child is not waited for yet, so its id is still its own.
        kill_process(pid.expect("a child has an id"), signal).expect("it can be sent a signal");
    }

    /// Kills it, and gives what it had said.
    pub(crate) fn killed(mut self) -> Ended {
        // It may have ended by itself meanwhile.
        let _ = self.child.kill();
        self.reap()
    }

    /// Waits at most so long for it to end; whether it has.
    pub(crate) fn ends_within(&self, limit: Duration) -> bool {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        let pidfd = pidfd_open(pid.expect("a child has an id"), PidfdFlags::empty())
            .expect("a child that is not waited for has a pidfd");
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).expect("limits are short");
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
                Ok(ready) => return ready > 0,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("a pidfd can be polled: {error}"),
            }
        }
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn ended(self) -> Ended {
        let in_time = self.ends_within(PATIENCE);
        assert!(
            in_time,
            "it does not end; it said:\n{}",
            self.stderr.so_far().join("\n")
        );
        self.reap()
    }

    fn reap(mut self) -> Ended {
        let status = self.child.wait().expect("a child can be waited for");
        let text = |lines: &Lines| {
            lines
                .all()
                .iter()
                .fold(String::new(), |text, line| text + line + "\n")
        };
        Ended {
            code: code_of(status),
            stdout: text(&self.stdout),
            stderr: text(&self.stderr),
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Both fail only if it is over and waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn code_of(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt;
    let by_signal = || status.signal().map(|signal| 128 + signal);
    status
        .code()
        .or_else(by_signal)
        .expect("it exited, or a signal ended it")
}

//! The supervisor: the small process between the daemon and one command.
//!
//! Ending a command means ending everything it started, also what called `setsid`, forked twice and holds the output
//! pipe; a timeout that only kills the shell is the best-known fault of agent runtimes. A process group does not hold
//! such descendants, and cgroups are not to be had everywhere. A *child subreaper* (`prctl(2)`) is: every orphan
//! below it becomes its child, so "no children left", told by one `wait4`, means "no descendant left". The daemon
//! itself must not be one (it would adopt, and have to reap, what it never started), so each command gets a process
//! of its own for that: the daemon's binary again, started with [`ARGUMENT`] and entered by [`main_if_requested`]
//! before anything else is set up.
//!
//! Invariants:
//! - The supervisor leaves only when no descendant is left, or says which ones SIGKILL did not end.
//! - The daemon's death, seen as the end of the socket, ends everything at once by SIGKILL.
//! - The command's exit is reported the moment it is seen; leftovers and pipes never delay it.
//! - Whatever happens takes bounded time from the request to end, or from the command's own exit.

pub(crate) mod protocol;
mod sys;
mod tree;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Resource, Rlimit};

pub use self::protocol::ResourceLimits;
use self::protocol::{ExitReport, Order, Report, SpawnFailure, TERMINATE, VERSION};
use self::sys::{Reap, Reaped, Signals};
use self::tree::Tree;

/// The first argument that makes the binary a supervisor. Not for people.
pub const ARGUMENT: &str = "__supervise";

/// How long to wait between two rounds of SIGKILL when no child reports its end before.
const KILL_ROUND: Duration = Duration::from_millis(5);

/// Becomes a supervisor, and never returns, if this process was started as one.
///
/// Must be the first thing in `main`: before threads, logging and the command line, so that a supervisor is up within
/// a millisecond and shares nothing with the daemon but its binary.
pub fn main_if_requested() {
    if std::env::args_os().nth(1).as_deref() != Some(OsStr::new(ARGUMENT)) {
        return;
    }
    let code = match supervise() {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("supervisor: {error}");
            70
        }
    };
    std::process::exit(code);
}

/// The life of a supervisor. An error means that the daemon can no longer be told anything, or never could.
fn supervise() -> io::Result<()> {
    sys::reset_signals()?;
    sys::close_inherited_on_exec()?;
    // A session of its own: no terminal reaches it, and no descendant can join the daemon's process group.
    // It fails only for a process group's leader, which is one of its own already.
    let _ = rustix::process::setsid();
    // What is set here is inherited by the command: no set-uid program below gives back what was taken away.
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut socket = take_socket()?;
    let Some((order, streams)) = receive_order(&mut socket)? else {
        return Ok(()); // The daemon died before it asked for anything.
    };
    let started_at = Instant::now();
    match start(&order, streams) {
        Ok(pid) => {
            let signals = Signals::block()?;
            // The working directory must not be kept busy by us.
            let _ = std::env::set_current_dir("/");
            // A write fails only if the daemon is gone; the loop sees that by itself and ends the command.
            let _ = protocol::write_frame(&socket, &Report::Started { pid });
            Supervision::new(socket, signals, &order, pid, started_at).run()
        }
        Err((kind, message)) => {
            protocol::write_frame(&socket, &Report::SpawnFailed { kind, message })
        }
    }
}

/// Takes the socket, which is standard input, out of the way of the command.
fn take_socket() -> io::Result<UnixStream> {
    let socket = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(UnixStream::from(socket))
}

/// Reads the order and the descriptors that come with its first byte. `None` if the daemon is gone.
fn receive_order(socket: &mut UnixStream) -> io::Result<Option<(Order, Vec<OwnedFd>)>> {
    let mut prefix = [0u8; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = {
        let mut parts = [IoSliceMut::new(&mut prefix)];
        recvmsg(&*socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes
    };
    if received == 0 {
        return Ok(None);
    }
    let mut streams = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(fds) = message {
            streams.extend(fds);
        }
    }
    socket.read_exact(&mut prefix[received..])?;
    let order = protocol::read_frame_body(&mut *socket, prefix)?;
    Ok(Some((order, streams)))
}

/// Starts the command and gives its process id.
fn start(order: &Order, streams: Vec<OwnedFd>) -> Result<i32, (SpawnFailure, String)> {
    let bad_order = |what: &str| (SpawnFailure::BadOrder, what.to_owned());
    if order.version != VERSION {
        let text = format!("order has version {}, expected {VERSION}", order.version);
        return Err((SpawnFailure::BadOrder, text));
    }
    let (name, arguments) = order
        .argv
        .split_first()
        .ok_or_else(|| bad_order("order has no program"))?;
    let mut streams = streams.into_iter();
    let mut next = || {
        let missing = || bad_order("a standard stream is missing");
        streams.next().map(Stdio::from).ok_or_else(missing)
    };
    let stdin = if order.has_stdin {
        next()?
    } else {
        Stdio::null()
    };
    let (stdout, stderr) = (next()?, next()?);

    std::env::set_current_dir(&order.cwd).map_err(|error| {
        let cwd = Path::new(&order.cwd).display();
        (
            SpawnFailure::BadCwd,
            format!("cannot enter working directory {cwd}: {error}"),
        )
    })?;
    limit(&order.limits).map_err(|error| {
        (
            SpawnFailure::Other,
            format!("cannot set resource limits: {error}"),
        )
    })?;
    let program = find_program(name, &order.env)?;
    let child = Command::new(&program)
        .arg0(name)
        .args(arguments)
        .env_clear()
        .envs(order.env.iter().map(|(key, value)| (key, value)))
        .process_group(0)
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .map_err(|error| explain_spawn_error(&program, &error))?;
    Ok(i32::try_from(child.id()).expect("because the kernel's process ids are positive i32"))
}

fn limit(limits: &ResourceLimits) -> io::Result<()> {
    let wanted = [
        (Resource::Core, limits.core_bytes),
        (Resource::Nofile, limits.open_files),
        (Resource::Nproc, limits.processes),
    ];
    for (resource, value) in wanted {
        let Some(value) = value else { continue };
        // Never above what the daemon has: raising a hard limit is for root alone.
        let hard = rustix::process::getrlimit(resource).maximum;
        let value = hard.map_or(value, |hard| hard.min(value));
        let limit = Rlimit {
            current: Some(value),
            maximum: Some(value),
        };
        rustix::process::setrlimit(resource, limit)?;
    }
    Ok(())
}

/// Finds a program as `execvp(3)` does, along the `PATH` the command will have and not along ours, telling what is
/// missing from what is there but cannot be run.
fn find_program(
    name: &str,
    env: &[(std::ffi::OsString, std::ffi::OsString)],
) -> Result<PathBuf, (SpawnFailure, String)> {
    if name.contains('/') {
        return Ok(PathBuf::from(name)); // The kernel will say what is wrong with it.
    }
    let path = env.iter().find(|(key, _)| key == "PATH");
    let mut present = None;
    for directory in path
        .iter()
        .flat_map(|(_, path)| std::env::split_paths(path))
    {
        let candidate = directory.join(name);
        let Ok(metadata) = candidate.metadata() else {
            continue;
        };
        if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 {
            // Made absolute-looking where PATH holds an empty entry, so that nothing searches PATH again.
            return Ok(if directory.as_os_str().is_empty() {
                Path::new(".").join(name)
            } else {
                candidate
            });
        }
        present.get_or_insert(candidate);
    }
    Err(match present {
        Some(candidate) => (
            SpawnFailure::NotExecutable,
            format!("{} is not executable", candidate.display()),
        ),
        None => (
            SpawnFailure::NotFound,
            format!("program `{name}` was not found on PATH"),
        ),
    })
}

fn explain_spawn_error(program: &Path, error: &io::Error) -> (SpawnFailure, String) {
    let shown = program.display();
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    match errno {
        Some(Errno::NOENT) if program.exists() => (
            SpawnFailure::NotFound,
            format!("{shown} is there, but the interpreter it names is not"),
        ),
        Some(Errno::NOENT | Errno::NOTDIR) => (
            SpawnFailure::NotFound,
            format!("program {shown} was not found"),
        ),
        Some(Errno::ACCESS | Errno::ISDIR | Errno::PERM) => (
            SpawnFailure::NotExecutable,
            format!("cannot execute {shown}: {error}"),
        ),
        Some(Errno::NOEXEC) => (
            SpawnFailure::NotExecutable,
            format!("{shown} is neither a program for this machine nor a script with a `#!` line"),
        ),
        _ => (
            SpawnFailure::Other,
            format!("cannot start {shown}: {error}"),
        ),
    }
}

/// A running command and everything below it.
struct Supervision {
    socket: UnixStream,
    /// Cleared at the socket's end: there is nobody to listen to or to tell any more.
    daemon_lives: bool,
    signals: Signals,
    tree: Tree,
    started_at: Instant,
    grace: Duration,
    leftover_grace: Duration,
    give_up: Duration,
    end: End,
}

/// How far the end has come.
#[derive(Clone, Copy)]
enum End {
    /// Nothing is to end.
    NotAsked,
    /// Everybody was sent SIGTERM, and is sent SIGKILL from this time on.
    Killing { from: Instant },
}

impl Supervision {
    fn new(
        socket: UnixStream,
        signals: Signals,
        order: &Order,
        command: i32,
        started_at: Instant,
    ) -> Self {
        Self {
            socket,
            daemon_lives: true,
            signals,
            tree: Tree::new(command),
            started_at,
            grace: Duration::from_millis(order.grace_ms),
            leftover_grace: Duration::from_millis(order.leftover_grace_ms),
            give_up: Duration::from_millis(order.give_up_ms),
            end: End::NotAsked,
        }
    }

    /// Until nobody is left: reap, end who is to be ended, wait for news.
    fn run(mut self) -> io::Result<()> {
        loop {
            if self.reap_all()? {
                break;
            }
            let wait_until = match self.end {
                End::NotAsked => None,
                End::Killing { from } => {
                    let now = Instant::now();
                    if now >= from + self.give_up {
                        break;
                    }
                    if now >= from {
                        self.tree.kill();
                        Some(now + KILL_ROUND)
                    } else {
                        Some(from)
                    }
                }
            };
            self.wait_for_news(wait_until)?;
        }
        let report = self.tree.into_report();
        match protocol::write_frame(&self.socket, &Report::Ended(report)) {
            Err(error) if self.daemon_lives => Err(error),
            _ => Ok(()),
        }
    }

    /// Reaps everybody who is over; whether nobody is left.
    fn reap_all(&mut self) -> io::Result<bool> {
        let mut command_is_over = false;
        loop {
            match sys::reap()? {
                Reap::One(child) => {
                    if self.tree.reaped(&child) {
                        command_is_over = true;
                        self.report_exit(&child);
                    }
                }
                Reap::NoChildren => return Ok(true),
                Reap::AllAlive => break,
            }
        }
        // Who was asked to end already keeps the grace that was promised then.
        if command_is_over && matches!(self.end, End::NotAsked) {
            self.end_within(self.leftover_grace);
        }
        Ok(false)
    }

    fn report_exit(&mut self, command: &Reaped) {
        let report = Report::Exited(ExitReport {
            code: command.code,
            signal: command.signal,
            core_dumped: command.core_dumped,
            duration_us: u64::try_from(self.started_at.elapsed().as_micros()).unwrap_or(u64::MAX),
        });
        // A write fails only if the daemon is gone, and then the socket's end says so too.
        let _ = protocol::write_frame(&self.socket, &report);
    }

    /// Asks everybody to end, and sets the time from which they are not asked any more. What is to end earlier
    /// already stays so.
    fn end_within(&mut self, grace: Duration) {
        let from = Instant::now() + grace;
        self.end = match self.end {
            End::Killing { from: earlier } => End::Killing {
                from: from.min(earlier),
            },
            End::NotAsked => End::Killing { from },
        };
        if !grace.is_zero() {
            self.tree.terminate();
        }
    }

    /// Waits for a child's end, a word from the daemon, a signal, or the given time.
    fn wait_for_news(&mut self, until: Option<Instant>) -> io::Result<()> {
        let timeout = until.map(|until| {
            let left = until.saturating_duration_since(Instant::now());
            left.try_into()
                .expect("because graces are milliseconds in a u64, far below a Timespec's range")
        });
        let readable = PollFlags::IN;
        let mut fds = vec![PollFd::new(&self.signals, readable)];
        if self.daemon_lives {
            fds.push(PollFd::new(&self.socket, readable));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [signals, socket] =
            [0, 1].map(|i| fds.get(i).is_some_and(|fd| !fd.revents().is_empty()));
        if signals && self.signals.drain() {
            self.end_within(self.grace);
        }
        if socket {
            self.listen();
        }
        Ok(())
    }

    fn listen(&mut self) {
        let mut byte = [0u8; 1];
        match self.socket.read(&mut byte) {
            Ok(1) if byte[0] == TERMINATE => self.end_within(self.grace),
            // A byte we do not know comes from no daemon of ours.
            Ok(1) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The daemon is gone, and with it whoever wanted the result.
            _ => {
                self.daemon_lives = false;
                self.end_within(Duration::ZERO);
            }
        }
    }
}

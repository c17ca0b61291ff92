//! The daemon's side of a running command: starting its supervisor, following its reports, draining its output.
//!
//! Two truths are kept apart. The command's *exit* comes from the supervisor the moment it happens. The *streams* end
//! when nobody holds them any more, which a background process can put off for ever; since the supervisor ends every
//! descendant, they end soon after, and in any case they are waited for only for [`DRAIN_LIMIT`].

use std::io::{self, IoSlice, PipeReader, PipeWriter, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use runtime::CancelReason;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use crate::error::Error;
use crate::leftovers::{self, Marks};
use crate::output::{Kept, Output};
use crate::supervisor::protocol::{self, EndReport, ExitReport, Order, Report, SpawnFailure};
use crate::supervisor::{ARGUMENT, protocol::TERMINATE};

/// How long output is waited for once no process is left that could write it.
const DRAIN_LIMIT: Duration = Duration::from_secs(1);

/// How much longer than it promised a supervisor may take before it counts as lost.
const SUPERVISOR_MARGIN: Duration = Duration::from_secs(5);

/// How long a supervisor may take to accept its order.
const ORDER_LIMIT: Duration = Duration::from_secs(10);

/// What to start, and with what.
pub(crate) struct Launch {
    /// The binary that becomes the supervisor.
    pub(crate) supervisor: PathBuf,
    pub(crate) order: Order,
    pub(crate) stdin: Option<Vec<u8>>,
    /// How everything started for this command can be told from all else, should its supervisor be lost.
    pub(crate) marks: Marks,
}

/// What became of a command.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) fate: Fate,
    pub(crate) end: EndReport,
    pub(crate) stdout: Kept,
    pub(crate) stderr: Kept,
    /// Whether both streams came to their end within the time there is for that.
    pub(crate) is_drained: bool,
    /// Why the command was asked to end, if it was, before it did so by itself.
    pub(crate) asked_to_end: Option<CancelReason>,
}

/// How the command itself fared.
#[derive(Debug)]
pub(crate) enum Fate {
    NotStarted {
        kind: SpawnFailure,
        message: String,
    },
    Exited(ExitReport),
    /// It was asked to end, and neither it nor SIGKILL obeyed in time (uninterruptible sleep).
    Unkillable,
}

/// Runs a command to its end: its own, or the one that `cancel` asks for.
pub(crate) async fn run<F: FnMut(String, u64)>(
    launch: Launch,
    mut stdout: Output<F>,
    mut stderr: Output<F>,
    mut cancel: watch::Receiver<Option<CancelReason>>,
) -> Result<Finished, Error> {
    let path = launch.supervisor.clone();
    let failed = |source| Error::StartSupervisor { path, source };
    let timing = Timing::of(&launch.order);
    let marks = launch.marks.clone();
    let stdin = launch.stdin.clone();
    let spawned = tokio::task::spawn_blocking(move || spawn(&launch)).await;
    let spawned = match spawned
        .map_err(io::Error::other)
        .and_then(|spawned| spawned)
    {
        Ok(spawned) => spawned,
        Err(error) => return Err(failed(error)),
    };
    let Spawned {
        mut supervisor,
        socket,
        stdin: stdin_pipe,
        stdout: stdout_pipe,
        stderr: stderr_pipe,
    } = spawned;
    let connected = (|| {
        socket.set_nonblocking(true)?;
        let stdin_pipe = stdin_pipe.map(|fd| pipe::Sender::from_owned_fd(OwnedFd::from(fd)));
        Ok((
            UnixStream::from_std(socket)?,
            stdin_pipe.transpose()?,
            pipe::Receiver::from_owned_fd(OwnedFd::from(stdout_pipe))?,
            pipe::Receiver::from_owned_fd(OwnedFd::from(stderr_pipe))?,
        ))
    })();
    let (socket, stdin_pipe, stdout_pipe, stderr_pipe) = connected.map_err(failed)?;

    let (followed, is_drained) = {
        let streams = async { tokio::join!(stdout.pump(stdout_pipe), stderr.pump(stderr_pipe)) };
        let feed = feed(stdin_pipe, stdin);
        let follow = follow(socket, &timing, &mut cancel);
        tokio::pin!(streams, feed, follow);
        let (mut is_drained, mut is_fed) = (false, false);
        let followed = loop {
            tokio::select! {
                followed = &mut follow => break followed,
                _ = &mut streams, if !is_drained => is_drained = true,
                () = &mut feed, if !is_fed => is_fed = true,
            }
        };
        if followed.is_lost {
            supervisor.kill();
            end_marked(marks).await;
        }
        if !is_drained {
            is_drained = timeout(DRAIN_LIMIT, streams).await.is_ok();
        }
        (followed, is_drained)
    };
    supervisor.reap().await;
    let fate = match followed.fate {
        Some(fate) => fate,
        None if !followed.end.unkillable.is_empty() => Fate::Unkillable,
        None => return Err(Error::SupervisorLost),
    };
    Ok(Finished {
        fate,
        end: followed.end,
        stdout: stdout.finish(),
        stderr: stderr.finish(),
        is_drained,
        asked_to_end: followed.asked_to_end,
    })
}

async fn end_marked(marks: Marks) {
    let ended = tokio::task::spawn_blocking(move || leftovers::end_marked(&marks)).await;
    match ended {
        Ok(Ok(report)) => tracing::warn!(
            ended = report.ended,
            survivors = report.survivors.len(),
            "supervisor of a command was lost; what it had started was ended"
        ),
        Ok(Err(error)) => tracing::error!(%error, "cannot look for a lost supervisor's processes"),
        Err(error) => tracing::error!(%error, "looking for a lost supervisor's processes failed"),
    }
}

/// Writes the command's input and closes it. A command need not read all of it, or any.
async fn feed(stdin: Option<pipe::Sender>, bytes: Option<Vec<u8>>) {
    if let (Some(mut stdin), Some(bytes)) = (stdin, bytes) {
        let _ = stdin.write_all(&bytes).await;
    }
}

/// The bounds a supervisor promised to keep.
struct Timing {
    after_request: Duration,
    after_exit: Duration,
}

impl Timing {
    fn of(order: &Order) -> Self {
        let give_up = Duration::from_millis(order.give_up_ms) + SUPERVISOR_MARGIN;
        Self {
            after_request: Duration::from_millis(order.grace_ms) + give_up,
            after_exit: Duration::from_millis(order.leftover_grace_ms) + give_up,
        }
    }
}

/// What the reports came to.
#[derive(Debug, Default)]
struct Followed {
    fate: Option<Fate>,
    end: EndReport,
    asked_to_end: Option<CancelReason>,
    /// The supervisor went silent before it said that all is over.
    is_lost: bool,
}

/// Follows the supervisor's reports to the last one, and passes a request to end on to it.
async fn follow(
    socket: UnixStream,
    timing: &Timing,
    cancel: &mut watch::Receiver<Option<CancelReason>>,
) -> Followed {
    let (read_half, mut write_half) = socket.into_split();
    let (sender, mut reports) = mpsc::channel(4);
    let reader = read_reports(read_half, sender);
    tokio::pin!(reader);
    let mut followed = Followed::default();
    let mut deadline: Option<Instant> = None;
    let mut is_read = false;
    let mut may_be_asked = true;
    loop {
        tokio::select! {
            biased;
            report = reports.recv() => match report {
                Some(Report::Started { .. }) => {}
                Some(Report::SpawnFailed { kind, message }) => {
                    followed.fate = Some(Fate::NotStarted { kind, message });
                    return followed;
                }
                Some(Report::Exited(exit)) => {
                    followed.fate = Some(Fate::Exited(exit));
                    may_be_asked = false;
                    deadline = deadline.or(Some(Instant::now() + timing.after_exit));
                }
                Some(Report::Ended(end)) => {
                    followed.end = end;
                    return followed;
                }
                None => {
                    followed.is_lost = true;
                    return followed;
                }
            },
            () = &mut reader, if !is_read => is_read = true,
            reason = asked(cancel), if may_be_asked => {
                may_be_asked = false;
                followed.asked_to_end = Some(reason);
                deadline = Some(Instant::now() + timing.after_request);
                // Fails only if the supervisor is gone; then its reports end, too.
                let _ = write_half.write_all(&[TERMINATE]).await;
            }
            () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {
                followed.is_lost = true;
                return followed;
            }
        }
    }
}

/// Waits until somebody asks for the end; for ever, if nobody can any more.
async fn asked(cancel: &mut watch::Receiver<Option<CancelReason>>) -> CancelReason {
    let reason = match cancel.wait_for(Option::is_some).await {
        Ok(reason) => *reason,
        Err(_) => None,
    };
    match reason {
        Some(reason) => reason,
        None => std::future::pending().await,
    }
}

/// Passes reports on until the socket's end or the first thing that is not one.
async fn read_reports(mut socket: tokio::net::unix::OwnedReadHalf, reports: mpsc::Sender<Report>) {
    loop {
        let mut prefix = [0u8; 4];
        let read = async {
            socket.read_exact(&mut prefix).await?;
            let mut body = vec![0; protocol::frame_len(prefix)?];
            socket.read_exact(&mut body).await?;
            Ok::<Report, io::Error>(serde_json::from_slice(&body)?)
        };
        match read.await {
            Ok(report) => {
                if reports.send(report).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                if error.kind() != io::ErrorKind::UnexpectedEof {
                    tracing::debug!(%error, "cannot read a supervisor's report");
                }
                return;
            }
        }
    }
}

/// A supervisor that has its order, and the daemon's ends of all that leads to it.
struct Spawned {
    supervisor: Supervisor,
    socket: StdUnixStream,
    stdin: Option<PipeWriter>,
    stdout: PipeReader,
    stderr: PipeReader,
}

/// Starts a supervisor and hands it its order. Blocks for about the time of an exec.
fn spawn(launch: &Launch) -> io::Result<Spawned> {
    let (ours, theirs) = StdUnixStream::pair()?;
    let stdin = launch.stdin.as_ref().map(|_| io::pipe()).transpose()?;
    let (stdout, stdout_theirs) = io::pipe()?;
    let (stderr, stderr_theirs) = io::pipe()?;
    let (stdin_theirs, stdin) = stdin.unzip();
    // Descriptors of the command travel in a message: all that is open here is closed by exec, so that no other
    // process started at the same moment can inherit, and hold open, a pipe of this one.
    let child = Command::new(&launch.supervisor)
        .arg0("tinkerbell")
        .arg(ARGUMENT)
        .env_clear()
        .envs(launch.marks.iter())
        .stdin(OwnedFd::from(theirs))
        .stdout(Stdio::null())
        .spawn()?;
    let supervisor = Supervisor(Some(child));
    ours.set_write_timeout(Some(ORDER_LIMIT))?;
    let streams: Vec<BorrowedFd<'_>> = stdin_theirs
        .as_ref()
        .map(AsFd::as_fd)
        .into_iter()
        .chain([stdout_theirs.as_fd(), stderr_theirs.as_fd()])
        .collect();
    send_order(&ours, &protocol::encode(&launch.order)?, &streams)?;
    Ok(Spawned {
        supervisor,
        socket: ours,
        stdin,
        stdout,
        stderr,
    })
}

/// Sends a frame, and the descriptors along with its first bytes.
fn send_order(mut socket: &StdUnixStream, frame: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = control.push(SendAncillaryMessage::ScmRights(fds));
    assert!(fits, "space for three descriptors holds three descriptors");
    let sent = sendmsg(
        socket,
        &[IoSlice::new(&frame[..4])],
        &mut control,
        SendFlags::NOSIGNAL,
    )?;
    socket.write_all(&frame[sent..])
}

/// A started supervisor, which is always reaped, and never killed while it does its work: it is the one that ends the
/// command. Letting go of its socket is enough to make it end everything.
struct Supervisor(Option<Child>);

impl Supervisor {
    /// Ends a supervisor that no longer answers.
    fn kill(&mut self) {
        if let Some(child) = &mut self.0 {
            // Fails only if it is over already.
            let _ = child.kill();
        }
    }

    /// Waits for its last breath, which its last report announced.
    async fn reap(mut self) {
        if let Some(mut child) = self.0.take() {
            let waited = tokio::task::spawn_blocking(move || child.wait()).await;
            if let Ok(Err(error)) = waited {
                tracing::warn!(%error, "cannot reap a supervisor");
            }
        }
    }
}

impl Drop for Supervisor {
    /// Reached when a handler panics or is given up: nobody waits here, but no zombie stays.
    fn drop(&mut self) {
        let Some(mut child) = self.0.take() else {
            return;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || child.wait());
        }
    }
}

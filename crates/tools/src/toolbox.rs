//! The toolbox: which handler carries out which kind of effect, and who is at work right now.
//!
//! Each call is one task on the I/O runtime, known by its id from its start until its result is on its way. A handler
//! that panics, or does not know the kind, still gives a result: no job ever waits for an effect that is not there.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use pal::Pal;
use runtime::{
    CancelReason, Completer, EffectCall, EffectError, EffectId, EffectResult, EffectRunner, JobId,
    Progress,
};
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::command::{self, PROCESS_RUN};
use crate::error::Error;
use crate::file::{self, FILE_READ};
#[cfg(feature = "a2a")]
use crate::remote::{self, A2A_FOLLOW, A2A_SEND};
use crate::snapshot::{Snapshot, SnapshotLimits};
use crate::supervisor::ResourceLimits;
use crate::workspace::Workspaces;

/// How effects are carried out on this node.
#[derive(Clone, Debug)]
pub struct Options {
    /// Below it lie `workspaces/` and `snapshots/`.
    pub data_dir: PathBuf,
    /// What marks all processes of this daemon, in this and in later lives; no other daemon's on this machine.
    pub node_id: String,
    /// The binary that supervises commands: one whose `main` begins with
    /// [`main_if_requested`](crate::supervisor::main_if_requested). By default our own.
    pub supervisor: PathBuf,
    /// How much of each output stream of a command is kept unless its spec says otherwise, in bytes.
    pub output_limit_bytes: usize,
    /// How much its spec may ask for, in bytes.
    pub output_limit_max_bytes: usize,
    /// The largest file that `file.read` reads, in bytes.
    pub file_limit_bytes: u64,
    /// From a request to end until SIGKILL, unless a command's spec says otherwise.
    pub grace: Duration,
    /// The longest grace a spec may ask for.
    pub grace_max: Duration,
    /// From a command's own exit until SIGKILL for what it left running.
    pub leftover_grace: Duration,
    /// From SIGKILL until a process that does not die is given up, and named.
    pub give_up: Duration,
    /// Where the daemon was started: what commands find in `TINKERBELL_START_DIR`.
    pub start_dir: PathBuf,
    /// Variables of the daemon's environment that commands get too.
    pub inherited_variables: Vec<String>,
    /// Resource limits of commands.
    pub resource_limits: ResourceLimits,
    /// How large a workspace may be for commands of class `workspace`.
    pub snapshot_limits: SnapshotLimits,
    /// The agents that work can be handed to.
    #[cfg(feature = "a2a")]
    pub agents: crate::remote::Agents,
}

impl Options {
    /// The defaults, for a data directory and a node.
    ///
    /// # Panics
    ///
    /// If `node_id` is empty or holds a NUL byte: it could mark nothing.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>, node_id: impl Into<String>) -> Self {
        let node_id = node_id.into();
        assert!(
            !node_id.is_empty() && !node_id.contains('\0'),
            "a node id is a text that an environment variable can hold"
        );
        Self {
            data_dir: data_dir.into(),
            node_id,
            // Not the path it leads to: that may be a newer binary by now, or none.
            supervisor: PathBuf::from("/proc/self/exe"),
            output_limit_bytes: 1024 * 1024,
            output_limit_max_bytes: 16 * 1024 * 1024,
            file_limit_bytes: 16 * 1024 * 1024,
            grace: Duration::from_secs(5),
            grace_max: Duration::from_secs(600),
            leftover_grace: Duration::from_millis(500),
            give_up: Duration::from_secs(5),
            start_dir: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            inherited_variables: ["PATH", "HOME", "LANG", "TZ", "USER"]
                .map(str::to_owned)
                .into(),
            resource_limits: ResourceLimits::default(),
            snapshot_limits: SnapshotLimits::default(),
            #[cfg(feature = "a2a")]
            agents: crate::remote::Agents::default(),
        }
    }
}

/// What all handlers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) workspaces: Workspaces,
    turns: Mutex<HashMap<JobId, Weak<tokio::sync::Mutex<()>>>>,
}

impl Shared {
    /// Whose turn it is in a job's workspace, among those that may roll it back.
    pub(crate) fn turn(&self, job: JobId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|_, turn| turn.strong_count() > 0);
        if let Some(turn) = turns.get(&job).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::default();
        turns.insert(job, Arc::downgrade(&turn));
        turn
    }
}

/// Bytes beside a result, which names them by their SHA-256.
pub type Attachments = Vec<Vec<u8>>;

/// Carries out the effects of all jobs.
#[derive(Debug)]
pub struct ToolBox {
    shared: Arc<Shared>,
    runtime: Handle,
    pal: Pal,
    running: Arc<Mutex<HashMap<EffectId, watch::Sender<Option<CancelReason>>>>>,
}

impl ToolBox {
    /// A toolbox whose tasks run on `runtime` and show what they do on `pal`.
    #[must_use]
    pub fn new(options: Options, runtime: Handle, pal: Pal) -> Self {
        let shared = Shared {
            workspaces: Workspaces::new(&options.data_dir),
            options,
            turns: Mutex::default(),
        };
        Self {
            shared: Arc::new(shared),
            runtime,
            pal,
            running: Arc::default(),
        }
    }

    /// Starts one try and calls `done`, once, with what it came to, on a thread that may wait for the disk.
    /// [`EffectRunner::start`] is this with a completer.
    pub fn start_with(
        &self,
        call: EffectCall,
        done: impl FnOnce(EffectResult, Attachments) + Send + 'static,
    ) {
        let (sender, cancel) = watch::channel(None);
        let id = call.id;
        self.lock_running().insert(id, sender);
        let shared = Arc::clone(&self.shared);
        let running = Arc::clone(&self.running);
        let progress = Progress::new(self.pal.clone(), &call);
        self.runtime.spawn(async move {
            let kind = Arc::clone(&call.kind);
            // A task of its own, so that a panic ends there.
            let handler =
                tokio::spawn(async move { perform(&shared, &call, &progress, cancel).await });
            let (result, attachments) = match handler.await {
                Ok(performed) => performed,
                Err(error) => {
                    let text = format!("handler of effect `{kind}` failed: {error}");
                    (
                        Err(EffectError::permanent("panic", text)),
                        Attachments::new(),
                    )
                }
            };
            running
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&id);
            tokio::task::spawn_blocking(move || done(result, attachments));
        });
    }

    /// Removes the snapshots of jobs that are over: at boot, before any effect starts. [`EffectRunner::settled`] removes
    /// each in its time; this is for those whose result nobody waited for, because their job was cancelled, or the daemon stopped. Blocks.
    ///
    /// # Errors
    ///
    /// If the directory of snapshots cannot be listed, or one of them cannot be removed.
    pub fn sweep_snapshots(&self, is_live: impl Fn(JobId) -> bool) -> Result<usize, Error> {
        self.shared.workspaces.sweep_snapshots(is_live)
    }

    /// How many calls are at work.
    #[must_use]
    pub fn running(&self) -> usize {
        self.lock_running().len()
    }

    fn lock_running(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<EffectId, watch::Sender<Option<CancelReason>>>> {
        // Nothing that can panic happens under this lock.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The kinds of effects that this build carries out.
const KINDS: &[&str] = &[
    PROCESS_RUN,
    FILE_READ,
    #[cfg(feature = "a2a")]
    A2A_SEND,
    #[cfg(feature = "a2a")]
    A2A_FOLLOW,
];

/// Waits until an end is asked for, and gives the reason.
pub(crate) async fn cancelled(cancel: &mut watch::Receiver<Option<CancelReason>>) -> CancelReason {
    match cancel.wait_for(Option::is_some).await.map(|reason| *reason) {
        Ok(Some(reason)) => reason,
        _ => std::future::pending().await,
    }
}

/// Gives a call to its handler.
async fn perform(
    shared: &Shared,
    call: &EffectCall,
    progress: &Progress,
    cancel: watch::Receiver<Option<CancelReason>>,
) -> (EffectResult, Attachments) {
    let result = match &*call.kind {
        PROCESS_RUN => command::run(shared, call, progress, cancel).await,
        FILE_READ => match file::run(shared, call).await {
            Ok((result, bytes)) => return (Ok(result), vec![bytes]),
            Err(error) => Err(error),
        },
        #[cfg(feature = "a2a")]
        A2A_SEND => match remote::send(shared, call, cancel).await {
            Ok((result, attachments)) => return (Ok(result), attachments),
            Err(error) => Err(error),
        },
        #[cfg(feature = "a2a")]
        A2A_FOLLOW => match remote::follow(shared, call, progress, cancel).await {
            Ok((result, attachments)) => return (Ok(result), attachments),
            Err(error) => Err(error),
        },
        #[cfg(test)]
        "test.panic" => panic!("as asked"),
        kind => Err(EffectError::permanent(
            "unknown_effect",
            format!(
                "there is no effect `{kind}` in this build; there are {}",
                KINDS.join(", ")
            ),
        )),
    };
    (result, Attachments::new())
}

impl EffectRunner for ToolBox {
    fn start(&mut self, call: EffectCall, mut completer: Completer) {
        self.start_with(call, move |result, attachments| {
            let attached = attachments
                .iter()
                .try_for_each(|bytes| completer.attach(bytes).map(drop));
            completer.complete(match attached {
                Ok(()) => result,
                Err(error) => Err(EffectError::transient(
                    "io",
                    format!("cannot keep what was read: {error}"),
                )),
            });
        });
    }

    fn cancel(&mut self, id: EffectId, reason: CancelReason) {
        if let Some(sender) = self.lock_running().get(&id) {
            sender.send_if_modified(|asked| {
                // The first reason stays: it is the one the command was ended for.
                let is_first = asked.is_none();
                if is_first {
                    *asked = Some(reason);
                }
                is_first
            });
        }
    }

    fn settled(&mut self, id: EffectId) {
        let path = self.shared.workspaces.snapshot_path(id);
        self.runtime.spawn_blocking(move || {
            let removed = Snapshot::find(&path).map_or(Ok(()), Snapshot::remove);
            if let Err(error) = removed {
                tracing::warn!(%error, "cannot remove a snapshot that is no longer needed");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use runtime::{Attempt, EffectClass, Json, StepIndex};

    use super::*;

    #[test]
    fn a_handler_that_panics_still_gives_a_result() {
        let io = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let dir = tempfile::TempDir::new().unwrap();
        let options = Options::new(dir.path(), "test");
        let tools = ToolBox::new(options, io.handle().clone(), Pal::new(8, 1024));
        let call = EffectCall {
            id: EffectId {
                job: JobId::from_parts(1, 2),
                step: StepIndex(0),
                attempt: Attempt::FIRST,
            },
            kind: "test.panic".into(),
            class: EffectClass::Read,
            input: Json::null(),
            label: "step".into(),
            interrupted: false,
        };
        let (sender, result) = mpsc::channel();
        tools.start_with(call, move |result, _| drop(sender.send(result)));
        let error = result
            .recv_timeout(Duration::from_secs(20))
            .unwrap()
            .unwrap_err();
        assert_eq!((error.code.as_str(), error.retryable), ("panic", false));
        assert_eq!(tools.running(), 0);
    }
}

//! The toolbox: which handler carries out which kind of effect, and who is at work right now.
//!
//! Each call is one task on the I/O runtime, known by its id from its start until its result is on its way. A handler
//! that panics, or does not know the kind, still gives a result: no job ever waits for an effect that is not there.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::pin::Pin;
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

/// Carries out a kind of effect that this crate knows nothing of.
pub trait Handler: Send + Sync {
    /// One try. The future is dropped when the try is to end, and must leave nothing at work then.
    fn perform(&self, call: EffectCall) -> Performing;
}

/// One try of a [`Handler`].
pub type Performing = Pin<Box<dyn Future<Output = EffectResult> + Send>>;

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

/// The handlers that came from outside, by the kinds of effect.
type Handlers = BTreeMap<String, Arc<dyn Handler>>;

/// Carries out the effects of all jobs.
pub struct ToolBox {
    shared: Arc<Shared>,
    handlers: Arc<Handlers>,
    runtime: Handle,
    pal: Pal,
    running: Arc<Mutex<HashMap<EffectId, watch::Sender<Option<CancelReason>>>>>,
}

impl std::fmt::Debug for ToolBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ToolBox")
            .field("handlers", &self.handlers.keys())
            .field("running", &self.running())
            .finish_non_exhaustive()
    }
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
            handlers: Arc::default(),
            runtime,
            pal,
            running: Arc::default(),
        }
    }

    /// Has another kind of effect carried out; one of that kind that was there before is replaced, but none of this crate's.
    #[must_use]
    pub fn with(mut self, kind: impl Into<String>, handler: impl Handler + 'static) -> Self {
        let mut handlers = Handlers::clone(&self.handlers);
        handlers.insert(kind.into(), Arc::new(handler));
        self.handlers = Arc::new(handlers);
        self
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
        let handlers = Arc::clone(&self.handlers);
        let running = Arc::clone(&self.running);
        let progress = Progress::new(self.pal.clone(), &call);
        self.runtime.spawn(async move {
            let kind = Arc::clone(&call.kind);
            // A task of its own, so that a panic ends there.
            let handler =
                tokio::spawn(
                    async move { perform(&shared, &handlers, &call, &progress, cancel).await },
                );
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
    handlers: &Handlers,
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
        kind => match handlers.get(kind) {
            Some(handler) => until_cancelled(handler.perform(call.clone()), cancel).await,
            None => Err(unknown(kind, handlers)),
        },
    };
    (result, Attachments::new())
}

fn unknown(kind: &str, handlers: &Handlers) -> EffectError {
    let ours = KINDS.iter().copied();
    let known: Vec<&str> = ours.chain(handlers.keys().map(String::as_str)).collect();
    EffectError::permanent(
        "unknown_effect",
        format!(
            "there is no effect `{kind}` in this build; there are {}",
            known.join(", ")
        ),
    )
}

/// Drops what is at work when it is to end.
async fn until_cancelled(
    performing: Performing,
    mut cancel: watch::Receiver<Option<CancelReason>>,
) -> EffectResult {
    let ended = async {
        // Without a sender nobody can ask for the end any more.
        if cancel.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        result = performing => result,
        () = ended => Err(EffectError::transient(
            EffectError::CANCELLED,
            "ended before it was done",
        )),
    }
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

    fn call(kind: &str) -> EffectCall {
        EffectCall {
            id: EffectId {
                job: JobId::from_parts(1, 2),
                step: StepIndex(0),
                attempt: Attempt::FIRST,
            },
            kind: kind.into(),
            class: EffectClass::Read,
            input: Json::null(),
            label: "step".into(),
            interrupted: false,
        }
    }

    struct Bench {
        io: tokio::runtime::Runtime,
        _dir: tempfile::TempDir,
        tools: ToolBox,
    }

    impl Bench {
        fn new(handlers: impl FnOnce(ToolBox) -> ToolBox) -> Self {
            let io = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .build()
                .unwrap();
            let dir = tempfile::TempDir::new().unwrap();
            let options = Options::new(dir.path(), "test");
            let tools = ToolBox::new(options, io.handle().clone(), Pal::new(8, 1024));
            Self {
                io,
                _dir: dir,
                tools: handlers(tools),
            }
        }

        fn start(&self, kind: &str) -> mpsc::Receiver<EffectResult> {
            let (sender, result) = mpsc::channel();
            self.tools
                .start_with(call(kind), move |result, _| drop(sender.send(result)));
            result
        }
    }

    fn result_of(result: &mpsc::Receiver<EffectResult>) -> EffectResult {
        result.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    #[test]
    fn a_handler_that_panics_still_gives_a_result() {
        let bench = Bench::new(|tools| tools);
        let error = result_of(&bench.start("test.panic")).unwrap_err();
        assert_eq!((error.code.as_str(), error.retryable), ("panic", false));
        assert_eq!(bench.tools.running(), 0);
        drop(bench.io);
    }

    /// Gives its input back, or waits for ever with something that tells of its end.
    struct Other(Option<Arc<()>>);

    impl Handler for Other {
        fn perform(&self, call: EffectCall) -> Performing {
            let held = self.0.clone();
            Box::pin(async move {
                if held.is_some() {
                    std::future::pending::<()>().await;
                }
                drop(held);
                Ok(call.input)
            })
        }
    }

    #[test]
    fn a_handler_from_outside_is_asked_for_its_kind_alone() {
        let bench = Bench::new(|tools| tools.with("other", Other(None)));
        assert_eq!(result_of(&bench.start("other")), Ok(Json::null()));
        let error = result_of(&bench.start("another")).unwrap_err();
        assert_eq!(error.code, "unknown_effect");
        assert!(error.message.ends_with(", other"), "{error}");
    }

    #[test]
    fn a_handler_from_outside_is_dropped_when_it_is_to_end() {
        let held = Arc::new(());
        let mut bench = Bench::new(|tools| tools.with("other", Other(Some(Arc::clone(&held)))));
        let result = bench.start("other");
        bench
            .tools
            .cancel(call("other").id, CancelReason::Cancelled);
        let error = result_of(&result).unwrap_err();
        assert_eq!(error.code, EffectError::CANCELLED);
        // The test's own, and the handler's.
        assert_eq!(Arc::strong_count(&held), 2);
    }
}

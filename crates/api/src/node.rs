//! What is asked of the process as a whole: the daemon does it, this crate only passes it on.

use std::fmt;

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::fault::{Fault, FaultCode};

/// A request to the process.
#[derive(Debug)]
pub enum NodeRequest {
    /// Read the config again.
    Reload(oneshot::Sender<Reload>),
    /// Stop, as a signal would. Answered before it is done.
    Shutdown {
        /// Who asks.
        by: String,
        /// The answer: it has begun.
        reply: oneshot::Sender<()>,
    },
    /// Take in nothing more.
    Drain {
        /// Who asks.
        by: String,
        /// Whether to stop as soon as nothing is left to do.
        stop: bool,
        /// The answer: it has begun.
        reply: oneshot::Sender<()>,
    },
}

/// How a reload went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// Whether the config was good; if not, the one before is in force still.
    pub accepted: bool,
    /// The keys whose new values are in force now.
    pub applied: Vec<String>,
    /// The keys whose new values wait for a restart.
    pub needs_restart: Vec<String>,
    /// What is wrong with the config, if it was not accepted.
    pub error: Option<String>,
}

/// Who the process is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeIdentity {
    /// What it is called.
    pub name: String,
    /// The version of the binary.
    pub version: String,
    /// The commit it was built from.
    pub commit: String,
    /// The features it was built with.
    pub features: Vec<String>,
    /// When it was started, in Unix milliseconds.
    pub started_ms: u64,
    /// The id of its log.
    pub log_id: String,
}

/// The way to the process. Clones lead to the same.
#[derive(Clone)]
pub struct NodeControl(mpsc::Sender<NodeRequest>);

impl fmt::Debug for NodeControl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NodeControl")
    }
}

/// Requests to the process that may wait. They are few and served at once.
const WAITING_MAX: usize = 16;

impl NodeControl {
    /// The way, and the place where it ends.
    #[must_use]
    pub fn new() -> (Self, mpsc::Receiver<NodeRequest>) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        (Self(sender), receiver)
    }

    pub(crate) async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> NodeRequest,
    ) -> Result<T, Fault> {
        let (reply, answer) = oneshot::channel();
        self.0
            .try_send(request(reply))
            .map_err(|error| match error {
                mpsc::error::TrySendError::Full(_) => Fault::new(
                    FaultCode::Exhausted,
                    format!("{WAITING_MAX} requests to the node are waiting; try again later"),
                ),
                mpsc::error::TrySendError::Closed(_) => Fault::stopping(),
            })?;
        answer.await.map_err(|_| Fault::stopping())
    }
}

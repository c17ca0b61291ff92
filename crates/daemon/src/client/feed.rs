//! [`Feed`]: a stream of server-sent events that outlives its connection.
//!
//! The daemon may be restarted while a stream is open. Then the feed looks for it again, for so long as it was told to, and
//! goes on after the last event it had: what is in the log is not missed. It says so on standard error.

use std::time::Duration;

use api::ipc::client::{ClientError, Events, ServerEvent};
use api::wire::{Problem, StreamEnd};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::{Failure, Route, Session};
use crate::cli::exit;

/// What comes from a feed.
#[derive(Debug)]
pub(super) enum Fed {
    /// A message.
    Message(ServerEvent),
    /// It is connected again. A feed that does not resume comes from its beginning again.
    Again,
    /// Nothing comes any more: the job is over.
    End(StreamEnd),
}

/// A stream to be opened, and opened again.
#[derive(Debug)]
pub(super) struct Feed {
    session: Session,
    route: Route,
    resumes: bool,
    says: bool,
    patience: Duration,
    /// The last event there was.
    after: Option<String>,
    open: Option<Events>,
    /// If the connection is lost: when to give up.
    lost: Option<Instant>,
}

/// How often a daemon that is gone is looked for.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Messages that wait to be shown. More stay with the daemon, which counts what it must drop.
const WAITING_MAX: usize = 64;

impl Feed {
    /// A stream from its beginning. `patience` is how long a daemon that is gone is looked for.
    pub(super) fn new(session: &Session, route: Route, patience: Duration) -> Self {
        Self {
            session: session.clone(),
            route,
            resumes: false,
            says: true,
            patience,
            after: None,
            open: None,
            lost: None,
        }
    }

    /// The same, which goes on after the last event it had, or after this one.
    pub(super) fn resuming(mut self, after: Option<u64>) -> Self {
        self.resumes = true;
        self.after = after.map(|after| after.to_string());
        self
    }

    /// The same, which does not say when it looks for the daemon.
    pub(super) fn silent(mut self) -> Self {
        self.says = false;
        self
    }

    /// Begins. What comes after a failure or an end is nothing.
    pub(super) fn start(mut self) -> mpsc::Receiver<Result<Fed, Failure>> {
        let (sender, fed) = mpsc::channel(WAITING_MAX);
        tokio::spawn(async move {
            loop {
                let next = self.next().await;
                let is_last = matches!(next, Err(_) | Ok(Fed::End(_)));
                if sender.send(next).await.is_err() || is_last {
                    return;
                }
            }
        });
        fed
    }

    async fn next(&mut self) -> Result<Fed, Failure> {
        loop {
            if let Some(again) = self.connect().await? {
                return Ok(again);
            }
            let Some(open) = &mut self.open else {
                continue;
            };
            let next = open.next().await;
            if let Some(id) = open.last_id().filter(|_| self.resumes) {
                self.after = Some(id.to_owned());
            }
            match next {
                Ok(Some(message)) => match message.event.as_str() {
                    "error" => return Err(Failure::refused(&read::<Problem>(&message)?)),
                    "end" => {
                        let end: StreamEnd = read(&message)?;
                        match end.reason.as_str() {
                            "job_over" => return Ok(Fed::End(end)),
                            "lagged" if self.resumes => {
                                self.lose("more came than could be shown; the rest is in the log")?;
                            }
                            "lagged" => self.lose(
                                "more came than could be shown; `tinkerbell job logs` has all of it once the step is over",
                            )?,
                            _ => self.lose("the daemon is stopping")?,
                        }
                    }
                    _ => return Ok(Fed::Message(message)),
                },
                Ok(None) => self.lose("the daemon ended the stream")?,
                Err(error) => self.lose(&error.to_string())?,
            }
        }
    }

    fn lose(&mut self, why: &str) -> Result<(), Failure> {
        self.open = None;
        if self.patience.is_zero() {
            return Err(Failure::said(exit::UNAVAILABLE, why));
        }
        if self.lost.is_none() {
            self.lost = Some(Instant::now() + self.patience);
            self.say(&format!("{why}; looking for the daemon again"));
        }
        Ok(())
    }

    fn say(&self, text: &str) {
        if self.says {
            self.session.note(text);
        }
    }

    /// Makes sure of a connection; says if it is a new one in the place of one that was lost.
    async fn connect(&mut self) -> Result<Option<Fed>, Failure> {
        if self.open.is_some() {
            return Ok(None);
        }
        let route = match &self.after {
            Some(after) => self.route.clone().with("after", after),
            None => self.route.clone(),
        };
        let error = match self.session.client.events(&route.path).await {
            Ok(open) => {
                self.open = Some(open);
                if self.lost.take().is_none() {
                    return Ok(None);
                }
                match &self.after {
                    Some(after) => self.say(&format!("found it; going on after entry {after}")),
                    None => self.say("found it"),
                }
                return Ok(Some(Fed::Again));
            }
            Err(error) => error,
        };
        let later = match &error {
            ClientError::Unreachable { .. } | ClientError::Broken(_) => true,
            ClientError::Refused(problem) => problem.retry_after_ms.is_some(),
        };
        match self.lost {
            Some(give_up) if later && Instant::now() < give_up => {
                sleep(AGAIN_AFTER).await;
                Ok(None)
            }
            _ => Err(self.session.failed(error)),
        }
    }
}

/// What a message says.
pub(super) fn read<T: DeserializeOwned>(message: &ServerEvent) -> Result<T, Failure> {
    serde_json::from_str(&message.data).map_err(|error| {
        let what = format!("the daemon's message is not understood: {error}");
        Failure::said(exit::UNAVAILABLE, what)
    })
}

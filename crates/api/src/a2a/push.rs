//! Push notifications: what happens to a task, sent to an address that a client has named.
//!
//! Each config is a job of its own beside the task's, of the program [`PROGRAM`]: so it is there after a restart, it is
//! tried again as effects are, and to delete it is to cancel the job. It sends one event after the other, in their order,
//! and goes on where it was: after each one the journal says which was the last. An event is told from the task's journal
//! when it is sent, and named by its place there. So the daemon may die at any moment: what was not known to be taken is
//! sent again, under the same name, and nothing is left out.
//!
//! While there is nothing to send the job waits for a signal, and holds no place among the effects; [`Pusher`] sends the
//! signal when something happens to the task.
//!
//! - `target`: where notifications may go.
//! - `post`: one notification on its way.
//! - `pusher`: the effect that sends the next event, and who is woken by what.
//! - `configs`: the protocol's operations.

mod configs;
mod post;
mod pusher;
mod target;

use std::time::Duration;

use runtime::{
    Context, EffectClass, EffectPolicy, EffectRequest, Failure, InputError, JobId, Json, Program,
    ProgramFuture, ProgramResult,
};
use serde::{Deserialize, Serialize};
use wal::Lsn;

use post::{Receiver, Unsent};

pub(super) use configs::{Configs, Given};
pub use pusher::Pusher;
pub use target::Targets;

/// The program of the jobs that send notifications.
pub const PROGRAM: &str = "a2a.push";

/// The effect that sends the next one. [`Pusher::deliver`] carries it out.
pub const DELIVER: &str = "a2a.push.deliver";

/// The label that every config carries, with the version of the protocol that made it.
const LABEL: &str = "a2a.push";
/// The label of its task.
const LABEL_TASK: &str = "a2a.push.task";
/// The label of its id.
const LABEL_ID: &str = "a2a.push.id";

/// The signal that says that there may be something to send.
const WAKE: &str = "more";

/// How often one event is tried: with the waits of [`policy`], for about half an hour.
const ATTEMPTS: u32 = 12;

/// After so many events in a row that were not taken, the receiver is given up.
const MISSES_MAX: u32 = 5;

/// After so many events the history of the job is folded.
const CHECKPOINT_EVERY: u32 = 64;

/// What a job of [`PROGRAM`] is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
enum Spec {
    /// To send what happens to a task from `from` on.
    Config {
        task: JobId,
        id: String,
        to: Receiver,
        from: Place,
    },
    /// Nothing: it stands for the end of a config whose job is over and can be cancelled no more.
    Deleted { task: JobId, id: String },
}

/// Where an event stands: the entry that it shows, and which of that entry's events it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Place {
    lsn: u64,
    index: u32,
}

impl Place {
    /// Before everything.
    const FIRST: Self = Self { lsn: 0, index: 0 };

    /// After everything in an entry, and in those before it.
    fn after(lsn: Lsn) -> Self {
        Self {
            lsn: lsn.0 + 1,
            index: 0,
        }
    }

    fn next(self) -> Self {
        Self {
            index: self.index + 1,
            ..self
        }
    }
}

/// What the effect is asked for: to send the first event that stands at `next` or later.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Asked {
    task: JobId,
    to: Receiver,
    next: Place,
}

/// What the effect came to; beside the error, if it was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Told {
    /// Where to go on.
    next: Place,
    /// Whether there was something to send.
    was_event: bool,
    /// Whether nothing more comes after that.
    is_over: bool,
}

/// How far a config has come; also what its job comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    next: Place,
    /// Events that were taken.
    sent: u64,
    /// Events that were not.
    missed: u64,
    /// How many of them are the last ones.
    missed_in_a_row: u32,
}

/// How one event is tried.
fn policy() -> EffectPolicy {
    EffectPolicy {
        class: EffectClass::Keyed,
        attempts: ATTEMPTS,
        backoff: Duration::from_secs(1),
        backoff_growth_percent: 200,
        backoff_max: Duration::from_secs(600),
        // The sender has a limit of its own, and knows more.
        timeout: None,
        retry_on: Vec::new(),
    }
}

/// The program of the jobs that send notifications.
#[derive(Clone, Copy, Debug, Default)]
pub struct Push;

impl Program for Push {
    fn name(&self) -> &str {
        PROGRAM
    }

    fn version(&self) -> u32 {
        1
    }

    fn check(&self, input: &Json) -> Result<(), InputError> {
        // What does not fit is not repeated: it holds secrets.
        let read: Result<Spec, _> = input.read();
        read.map(drop)
            .map_err(|_| InputError::at("", "is no push notification config"))
    }

    fn start(&self, context: Context, input: Json) -> ProgramFuture {
        Box::pin(async move {
            let spec: Result<Spec, _> = input.read();
            match spec {
                Ok(Spec::Config { task, to, from, .. }) => push(&context, task, to, from).await,
                Ok(Spec::Deleted { .. }) => Ok(Json::null()),
                Err(_) => Err(unreadable("the config")),
            }
        })
    }
}

async fn push(context: &Context, task: JobId, to: Receiver, from: Place) -> ProgramResult {
    let mut progress = match context.checkpointed() {
        Some(state) => state.read().map_err(|_| unreadable("the checkpoint"))?,
        None => Progress {
            next: from,
            sent: 0,
            missed: 0,
            missed_in_a_row: 0,
        },
    };
    let mut since_checkpoint = 0;
    loop {
        let asked = Asked {
            task,
            to: to.clone(),
            next: progress.next,
        };
        let request = EffectRequest::new(DELIVER, Json::of(&asked))
            .label("deliver")
            .policy(policy());
        let (told, unsent) = match context.effect(request).await {
            Ok(told) => (told, None),
            Err(mut error) => match error.output.take() {
                Some(told) => (told, Some(error)),
                None => return Err(failure(error.code, error.message, &progress)),
            },
        };
        let told: Told = told.read().map_err(|_| unreadable("the effect's result"))?;
        progress.next = told.next;
        if let Some(error) = unsent {
            progress.missed += 1;
            progress.missed_in_a_row += 1;
            if error.code == Unsent::GONE || progress.missed_in_a_row >= MISSES_MAX {
                return Err(failure(error.code, error.message, &progress));
            }
        } else if told.was_event {
            progress.sent += 1;
            progress.missed_in_a_row = 0;
        }
        if told.is_over {
            return Ok(Json::of(&progress));
        }
        since_checkpoint += 1;
        if !told.was_event {
            // Only here, where nothing waits to be read: a restart has the least to do.
            if since_checkpoint > CHECKPOINT_EVERY {
                context.checkpoint(Json::of(&progress)).await;
            }
            context.signal(WAKE).await;
        }
    }
}

fn failure(code: String, message: String, progress: &Progress) -> Failure {
    Failure::new(code, message).with_output(Json::of(progress))
}

fn unreadable(what: &str) -> Failure {
    Failure::new(
        "unreadable",
        format!("{what} cannot be read by this version"),
    )
}

/// The input of a job of [`PROGRAM`] without its secrets: for whoever looks at jobs.
pub(crate) fn without_secrets(mut input: serde_json::Value) -> serde_json::Value {
    let hidden = || serde_json::Value::from("…");
    if let Some(token) = input.pointer_mut("/to/token") {
        *token = hidden();
    }
    if let Some(credentials) = input.pointer_mut("/to/authentication/credentials") {
        *credentials = hidden();
    }
    input
}

/// What is made of a config that a client gives, but for what its host's name leads to: for fuzzing.
pub(super) fn look_over(config: a2a_types::TaskPushNotificationConfig) -> String {
    let receiver = Receiver::of(&config);
    let targets = Targets::default();
    let Ok(url) = targets.check(&receiver.url) else {
        return "refused".to_owned();
    };
    assert_eq!(
        url.scheme(),
        "https",
        "nobody is trusted, and `{url}` was taken"
    );
    let again = targets.check(url.as_str());
    assert_eq!(again.as_ref(), Ok(&url), "the same address is another");
    if let Ok(headers) = receiver.headers() {
        assert!(headers.values().all(axum::http::HeaderValue::is_sensitive));
    }
    let spec = Spec::Config {
        task: JobId::from_parts(1, 2),
        id: config.id.unwrap_or_default(),
        to: receiver,
        from: Place::FIRST,
    };
    let input = Json::of(&spec);
    assert!(Push.check(&input).is_ok(), "what was taken is no job");
    let shown = without_secrets(input.value());
    for secret in ["/to/token", "/to/authentication/credentials"] {
        assert!(shown.pointer(secret).is_none_or(|hidden| hidden == "…"));
    }
    url.to_string()
}

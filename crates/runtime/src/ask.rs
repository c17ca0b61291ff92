//! Questions to people: asked, answered, or settled by the clock.

use std::time::Duration;

use pal::{AnsweredBy, EventKind, QuestionKind};

use crate::context::{Context, Either};
use crate::json::Json;

/// A question that a program asks of whoever watches.
#[derive(Clone, Debug)]
pub struct Question {
    /// The name under which it is answered: the signal's name. No two questions of one job share a name.
    pub name: String,
    /// The step it belongs to, for people.
    pub step: String,
    /// What is asked.
    pub prompt: String,
    /// Whether a yes or no is wanted, or anything.
    pub kind: QuestionKind,
    /// How long to wait for an answer, and what counts as the answer then. `None` waits for ever.
    pub deadline: Option<(Duration, Json)>,
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What was answered.
    pub value: Json,
    /// Whether somebody answered; otherwise the time was over, and the value is the default.
    pub by_client: bool,
}

impl Context {
    /// Asks a question and waits for the first answer. The job is `waiting` meanwhile; the question survives restarts.
    pub async fn ask(&self, question: Question) -> Answer {
        let Question {
            name,
            step,
            prompt,
            kind,
            deadline,
        } = question;
        self.emit(EventKind::Question {
            name: name.clone(),
            step: Some(step),
            prompt,
            kind,
            deadline_ms: deadline.as_ref().map(|(within, _)| {
                let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
                self.now_ms().saturating_add(within_ms)
            }),
            default: deadline.as_ref().map(|(_, default)| default.value()),
        });
        let answer = match deadline {
            None => Answer {
                value: self.signal(&name).await,
                by_client: true,
            },
            Some((within, default)) => {
                match self.select(self.signal(&name), self.sleep(within)).await {
                    Either::Left(value) => Answer {
                        value,
                        by_client: true,
                    },
                    Either::Right(()) => Answer {
                        value: default,
                        by_client: false,
                    },
                }
            }
        };
        let by = if answer.by_client {
            AnsweredBy::Client
        } else {
            AnsweredBy::Deadline
        };
        self.emit(EventKind::Answered { name, by });
        answer
    }
}

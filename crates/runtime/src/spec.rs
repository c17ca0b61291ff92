//! What a client asks for: a job's specification.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::json::Json;

/// How urgent a job is, next to others that are ready at the same moment. Less urgent jobs still get their share.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum JobPriority {
    /// When there is nothing better to do.
    Background,
    /// After the usual.
    Low,
    /// The usual.
    #[default]
    Normal,
    /// Before the usual.
    High,
}

impl JobPriority {
    pub(crate) fn level(self) -> scheduler::Priority {
        match self {
            Self::Background => scheduler::Priority::Background,
            Self::Low => scheduler::Priority::Low,
            Self::Normal => scheduler::Priority::Normal,
            Self::High => scheduler::Priority::High,
        }
    }
}

/// A job as it is submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobSpec {
    /// The program that runs it, such as `command` or `plan`.
    pub program: String,
    /// What the program is to do, in the program's own form.
    pub input: Json,
    /// What people call it.
    #[serde(default)]
    pub name: Option<String>,
    /// The idempotency key: submitting the same specification again under the same key gives the same job, and
    /// another specification under it is refused.
    #[serde(default)]
    pub key: Option<String>,
    /// Words to find it by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How urgent it is.
    #[serde(default)]
    pub priority: JobPriority,
}

impl JobSpec {
    /// A job of a program with an input, and nothing else said.
    #[must_use]
    pub fn new(program: impl Into<String>, input: Json) -> Self {
        Self {
            program: program.into(),
            input,
            name: None,
            key: None,
            labels: BTreeMap::new(),
            priority: JobPriority::Normal,
        }
    }

    /// Names the job, for people.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Gives the job an idempotency key.
    #[must_use]
    pub fn keyed(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The length of all its texts in bytes: what is held against the limit.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let labels = self
            .labels
            .iter()
            .map(|(label, value)| label.len() + value.len());
        let words = [&self.name, &self.key]
            .into_iter()
            .flatten()
            .map(String::len);
        self.program.len() + self.input.len() + labels.chain(words).sum::<usize>()
    }

    /// What two submissions under one key are compared by: a hash of all that was asked for, in which the order of
    /// an object's keys and white space do not matter.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        // A `Value`'s objects are sorted maps, so its text is canonical.
        let canonical = serde_json::json!([
            self.program,
            self.input.value(),
            self.name,
            self.labels,
            self.priority,
        ]);
        Fingerprint(Sha256::digest(canonical.to_string()).into())
    }
}

/// A hash of a specification.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Fingerprint(pub(crate) [u8; 32]);

/// The first eight bytes in hexadecimal: enough to tell specifications of one key apart.
impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::entry::hex(&self.0[..8]))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Submitted; its program has not begun.
    Queued,
    /// Its program or one of its effects is at work.
    Running,
    /// It waits for time to pass, or for somebody.
    Waiting,
    /// It cannot go on by itself: its journal and its program disagree. An operator decides.
    Stuck,
    /// Over: the program gave a result.
    Completed,
    /// Over: the program failed.
    Failed,
    /// Over: somebody cancelled it.
    Cancelled,
}

impl JobState {
    /// Whether nothing will ever change it again.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }

    /// The name as it is written everywhere.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Stuck => "stuck",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }
}

impl From<pal::JobState> for JobState {
    fn from(ended: pal::JobState) -> Self {
        match ended {
            pal::JobState::Completed => Self::Completed,
            pal::JobState::Failed => Self::Failed,
            pal::JobState::Cancelled => Self::Cancelled,
        }
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(input: &str) -> JobSpec {
        JobSpec::new("command", Json::parse_text(input).unwrap())
    }

    #[test]
    fn order_of_keys_and_white_space_do_not_make_another_job() {
        let one = spec(r#"{"argv":["true"],"env":{"A":"1","B":"2"}}"#);
        let two = spec(r#"{ "env": {"B":"2", "A":"1"}, "argv": ["true"] }"#);
        assert_eq!(one.fingerprint(), two.fingerprint());
    }

    #[test]
    fn anything_else_does() {
        let base = spec(r#"{"argv":["true"]}"#);
        let others = [
            spec(r#"{"argv":["false"]}"#),
            base.clone().named("other"),
            JobSpec {
                program: "plan".into(),
                ..base.clone()
            },
            JobSpec {
                priority: JobPriority::High,
                ..base.clone()
            },
        ];
        for other in others {
            assert_ne!(base.fingerprint(), other.fingerprint(), "{other:?}");
        }
        assert_eq!(base.fingerprint().to_string().len(), 16);
        assert_ne!(
            base.fingerprint().to_string(),
            base.clone().named("other").fingerprint().to_string()
        );
        // The key itself is what is compared *under*, not *by*.
        assert_eq!(base.fingerprint(), base.clone().keyed("k").fingerprint());
    }
}

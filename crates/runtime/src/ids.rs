//! The names of things: jobs, steps, attempts.
//!
//! Each is a type of its own, so that a step can never be taken for an attempt. All of them are written into the
//! journal, so their encodings never change.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A job's id: a UUID of version 7 (RFC 9562 section 5.7), so that ids sort by the time of submission.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobId(Uuid);

impl JobId {
    /// Makes an id from a time in Unix milliseconds and 74 bits out of `entropy`. Deterministic: clocks and
    /// randomness stay with the caller.
    #[must_use]
    pub fn from_parts(unix_ms: u64, entropy: u128) -> Self {
        let random = entropy.to_le_bytes();
        let mut tail = [0u8; 10];
        tail.copy_from_slice(&random[..10]);
        Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, &tail).into_uuid())
    }

    /// The id as a UUID.
    #[must_use]
    pub fn as_uuid(self) -> Uuid {
        self.0
    }

    /// Whether people may mean this job by `word`: it is the beginning or the end of the id, in whatever case.
    #[must_use]
    pub fn is_called(self, word: &str) -> bool {
        /// Ids of one minute begin alike; what is shorter says nothing.
        const PART_MIN: usize = 4;
        let mut buffer = [0; uuid::fmt::Hyphenated::LENGTH];
        let id = self.0.hyphenated().encode_lower(&mut buffer).as_bytes();
        let (word, count) = (word.as_bytes(), word.len());
        let begins = || id[..count].eq_ignore_ascii_case(word);
        let ends = || id[id.len() - count..].eq_ignore_ascii_case(word);
        (PART_MIN..=id.len()).contains(&count) && (begins() || ends())
    }

    /// The id as a number: a seed for what must be derived from it alone.
    #[must_use]
    pub fn as_u128(self) -> u128 {
        self.0.as_u128()
    }
}

impl From<Uuid> for JobId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JobId({self})")
    }
}

impl FromStr for JobId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// Which request of a job, counted from 0 in the order in which its program made them. The same program over the
/// same journal gives every request the same index.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct StepIndex(pub u32);

impl fmt::Display for StepIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Which try of one effect, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl Attempt {
    /// The first try.
    pub const FIRST: Self = Self(1);

    /// The try after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One try of one effect of one job: what a runner starts, cancels and completes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EffectId {
    /// The job that asked for it.
    pub job: JobId,
    /// Which of the job's requests it is.
    pub step: StepIndex,
    /// Which try of it.
    pub attempt: Attempt,
}

impl fmt::Display for EffectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.job, self.step, self.attempt)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_time_and_survive_text() {
        let early = JobId::from_parts(1_000, u128::MAX);
        let late = JobId::from_parts(1_001, 0);
        assert!(early < late);
        assert_eq!(early.to_string().parse::<JobId>().unwrap(), early);
        assert_eq!(early.as_uuid().get_version_num(), 7);
    }
}

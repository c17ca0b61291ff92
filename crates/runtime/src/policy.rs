//! How an effect is tried: how often, how long each time, and how long between.
//!
//! The policy is journaled with the effect's intent and carried out by the runtime, so that a retry that was waiting
//! when the daemon died goes on waiting for the rest of its time. Jitter comes from the effect's own id, so that a
//! replay waits exactly as long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::effect::{EffectClass, EffectError};
use crate::ids::{Attempt, EffectId};

/// How one effect is to be tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EffectPolicy {
    /// What an interruption by a crash means.
    pub class: EffectClass,
    /// How often it is tried in all, at least 1.
    pub attempts: u32,
    /// How long to wait before the second try.
    pub backoff: Duration,
    /// By how much, in percent, each wait is longer than the one before: 200 doubles it.
    pub backoff_growth_percent: u32,
    /// The longest wait between tries.
    pub backoff_max: Duration,
    /// How long one try may take; `None` is for ever.
    pub timeout: Option<Duration>,
    /// Codes of errors to try again; empty means every error that calls itself retryable.
    pub retry_on: Vec<String>,
}

impl Default for EffectPolicy {
    /// One try, without a limit of time; were it tried again, after 1 s, 2 s, 4 s, … up to a minute.
    fn default() -> Self {
        Self {
            class: EffectClass::External,
            attempts: 1,
            backoff: Duration::from_secs(1),
            backoff_growth_percent: 200,
            backoff_max: Duration::from_secs(60),
            timeout: None,
            retry_on: Vec::new(),
        }
    }
}

impl EffectPolicy {
    /// The default policy for effects of a class.
    #[must_use]
    pub fn of_class(class: EffectClass) -> Self {
        Self {
            class,
            ..Self::default()
        }
    }

    /// When to try again after `error` ended the try `id`: how long from now, or `None` for not at all.
    #[must_use]
    pub fn retry_after(&self, id: EffectId, error: &EffectError) -> Option<Duration> {
        if id.attempt.0 >= self.attempts || !self.retries(error) {
            return None;
        }
        let wait = self.backoff_before(id);
        Some(error.retry_after.map_or(wait, |asked| asked.max(wait)))
    }

    fn retries(&self, error: &EffectError) -> bool {
        if self.retry_on.is_empty() {
            error.retryable
        } else {
            self.retry_on.contains(&error.code)
        }
    }

    /// Exponential backoff with "equal jitter" (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog,
    /// 2015): half of the wait is fixed, the other half is spread.
    fn backoff_before(&self, failed: EffectId) -> Duration {
        let Attempt(failed_attempt) = failed.attempt;
        let mut wait_ms = saturating_ms(self.backoff);
        let max_ms = saturating_ms(self.backoff_max);
        for _ in 1..failed_attempt {
            wait_ms =
                (wait_ms.saturating_mul(u64::from(self.backoff_growth_percent)) / 100).min(max_ms);
            if wait_ms == max_ms {
                break;
            }
        }
        let wait_ms = wait_ms.min(max_ms);
        let spread_ms = wait_ms / 2;
        let jitter_ms = match spread_ms {
            0 => 0,
            _ => seed_of(failed) % (spread_ms + 1),
        };
        Duration::from_millis(wait_ms - spread_ms + jitter_ms)
    }
}

fn saturating_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The finaliser of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014)
/// over the parts of the id.
fn seed_of(id: EffectId) -> u64 {
    let job = id.job.as_u128();
    let parts = [
        (job >> 64) as u64,
        job as u64,
        u64::from(id.step.0),
        u64::from(id.attempt.0),
    ];
    parts.iter().fold(0x9e37_79b9_7f4a_7c15, |state, part| {
        crate::random::mix(state ^ part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{JobId, StepIndex};

    fn attempt(attempt: u32) -> EffectId {
        EffectId {
            job: JobId::from_parts(1, 7),
            step: StepIndex(3),
            attempt: Attempt(attempt),
        }
    }

    #[test]
    fn waits_grow_to_the_limit_and_are_the_same_every_time() {
        let policy = EffectPolicy {
            attempts: 100,
            ..EffectPolicy::default()
        };
        let error = EffectError::transient("exit_status", "exited with 1");
        for n in 1..20u32 {
            let wait = policy.retry_after(attempt(n), &error).unwrap();
            let full = Duration::from_secs(1 << (n - 1).min(10)).min(policy.backoff_max);
            assert!(
                wait >= full / 2 && wait <= full,
                "try {n}: {wait:?} of {full:?}"
            );
            assert_eq!(policy.retry_after(attempt(n), &error), Some(wait));
        }
    }

    #[test]
    fn the_other_side_may_ask_for_longer_but_not_for_less() {
        let policy = EffectPolicy {
            attempts: 2,
            ..EffectPolicy::default()
        };
        let mut error = EffectError::transient("busy", "busy");
        error.retry_after = Some(Duration::from_secs(30));
        assert_eq!(
            policy.retry_after(attempt(1), &error),
            Some(Duration::from_secs(30))
        );
        error.retry_after = Some(Duration::ZERO);
        assert!(policy.retry_after(attempt(1), &error).unwrap() >= Duration::from_millis(500));
    }

    /// A wait is journaled, so how it is found is part of the journal's format.
    #[test]
    fn the_jitter_of_a_try_never_changes() {
        let policy = EffectPolicy {
            attempts: 9,
            ..EffectPolicy::default()
        };
        let error = EffectError::transient("exit_status", "exited with 1");
        let waits: Vec<_> = (1..4)
            .map(|n| policy.retry_after(attempt(n), &error).unwrap().as_millis())
            .collect();
        assert_eq!(waits, [881, 1159, 2262]);
    }

    #[test]
    fn a_wait_of_nothing_is_not_spread() {
        let policy = EffectPolicy {
            attempts: 2,
            backoff: Duration::ZERO,
            ..EffectPolicy::default()
        };
        let error = EffectError::transient("exit_status", "exited with 1");
        assert_eq!(policy.retry_after(attempt(1), &error), Some(Duration::ZERO));
    }

    #[test]
    fn what_cannot_help_is_not_tried_again() {
        let policy = EffectPolicy {
            attempts: 3,
            ..EffectPolicy::default()
        };
        let permanent = EffectError::permanent("invalid_input", "no");
        assert_eq!(policy.retry_after(attempt(1), &permanent), None);
        let transient = EffectError::transient("exit_status", "no");
        assert!(policy.retry_after(attempt(2), &transient).is_some());
        assert_eq!(policy.retry_after(attempt(3), &transient), None);
        let picky = EffectPolicy {
            retry_on: vec!["busy".to_owned()],
            ..policy
        };
        assert_eq!(picky.retry_after(attempt(1), &transient), None);
    }
}

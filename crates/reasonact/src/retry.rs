//! How often and how long a step is tried, as specifications say it.

use std::time::Duration;

use runtime::{EffectClass, EffectPolicy};
use serde::Deserialize;

use crate::duration::HumanDuration;

/// How a step is tried again.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Retry {
    /// How often in all.
    attempts: Option<u32>,
    /// How long before the second try.
    backoff: Option<HumanDuration>,
    /// By how much each wait is longer than the one before.
    growth: Option<f64>,
    /// The longest wait.
    max_backoff: Option<HumanDuration>,
    /// Codes of errors to try again; all that may help if none are named.
    on: Vec<String>,
}

/// The most tries that a specification may ask for.
const ATTEMPTS_MAX: u32 = 1_000;

impl Retry {
    /// Says what cannot be meant.
    pub(crate) fn check(&self) -> Result<(), String> {
        if let Some(attempts) = self.attempts
            && !(1..=ATTEMPTS_MAX).contains(&attempts)
        {
            return Err(format!(
                "retry.attempts: {attempts} is not between 1 and {ATTEMPTS_MAX}"
            ));
        }
        if let Some(growth) = self.growth
            && !(1.0..=100.0).contains(&growth)
        {
            return Err(format!("retry.growth: {growth} is not between 1 and 100"));
        }
        Ok(())
    }

    /// The policy of an effect that is tried `attempts` times if nobody says how often.
    pub(crate) fn policy_or(&self, class: EffectClass, attempts: u32) -> EffectPolicy {
        EffectPolicy {
            attempts: self.attempts.unwrap_or(attempts),
            ..self.policy(class, None)
        }
    }

    pub(crate) fn policy(
        &self,
        class: EffectClass,
        timeout: Option<HumanDuration>,
    ) -> EffectPolicy {
        let default = EffectPolicy::default();
        let or = |given: Option<HumanDuration>, default: Duration| given.map_or(default, |d| d.0);
        EffectPolicy {
            class,
            attempts: self.attempts.unwrap_or(default.attempts),
            backoff: or(self.backoff, default.backoff),
            backoff_growth_percent: self
                .growth
                .map_or(default.backoff_growth_percent, |growth| {
                    (growth * 100.0).round() as u32
                }),
            backoff_max: or(self.max_backoff, default.backoff_max),
            timeout: timeout.map(|timeout| timeout.0),
            retry_on: self.on.clone(),
        }
    }
}

/// What to do when it is not known whether a step took effect, because the daemon ended while it ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnInterrupted {
    /// Fail, saying so.
    #[default]
    Fail,
    /// Go on, saying so.
    Continue,
    /// Do it again: whoever wrote the specification knows that twice is no harm.
    Rerun,
}

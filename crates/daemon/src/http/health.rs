//! How the daemon is: named checks, each kept up to date by the part it is about.
//!
//! Health is *told*, not *asked*: a part reports a change when it happens, and a probe only reads. So a probe costs
//! nothing and cannot hang on a part that hangs.
//!
//! Invariants: a check does not hold until its part says so, so nothing is ready by being forgotten; once draining,
//! never ready again.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Instant;

use serde_json::{Value, json};

/// How one part is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It has said nothing yet. Not ready, but no failure either.
    Starting,
    /// Well.
    Ok,
    /// At work, but something needs a person's attention: a config that was not taken, a disk that fills. Still ready:
    /// to send work elsewhere would not mend it.
    Degraded(String),
    /// Not at work.
    Failed(String),
}

impl State {
    fn mark(&self) -> &'static str {
        match self {
            Self::Ok => "[+]",
            Self::Degraded(_) => "[!]",
            Self::Starting | Self::Failed(_) => "[-]",
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ok => "ok",
            Self::Degraded(_) => "degraded",
            Self::Failed(_) => "failed",
        }
    }

    fn detail(&self) -> Option<&str> {
        match self {
            Self::Starting | Self::Ok => None,
            Self::Degraded(detail) | Self::Failed(detail) => Some(detail),
        }
    }
}

/// The daemon's health. Clones are handles of the same.
#[derive(Clone, Debug)]
pub struct Health(Arc<RwLock<Inner>>);

#[derive(Debug)]
struct Inner {
    started: Instant,
    /// In the order of registration, which is the order of boot.
    checks: Vec<NamedCheck>,
    draining: Option<String>,
}

#[derive(Debug)]
struct NamedCheck {
    name: &'static str,
    /// Whether the process is of no more use if this fails, and is to be restarted.
    vital: bool,
    state: State,
}

/// The right to say how one part is.
#[derive(Clone, Debug)]
pub struct Check {
    health: Health,
    index: usize,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// A health without checks: ready, until one is added.
    #[must_use]
    pub fn new() -> Self {
        let inner = Inner {
            started: Instant::now(),
            checks: Vec::new(),
            draining: None,
        };
        Self(Arc::new(RwLock::new(inner)))
    }

    /// Adds a check, which is starting, and so not ready, until its holder says otherwise.
    #[must_use]
    pub fn check(&self, name: &'static str) -> Check {
        self.add(name, false)
    }

    /// Adds a check whose failure means that the process is of no more use: `/livez` fails with it, and a supervisor
    /// restarts us. For what cannot mend itself, such as a scheduler that has stopped turning. To be still starting
    /// is no failure: a supervisor must not restart a boot for being slow.
    #[must_use]
    pub fn vital_check(&self, name: &'static str) -> Check {
        self.add(name, true)
    }

    fn add(&self, name: &'static str, vital: bool) -> Check {
        let mut inner = self.write();
        inner.checks.push(NamedCheck {
            name,
            vital,
            state: State::Starting,
        });
        Check {
            health: self.clone(),
            index: inner.checks.len() - 1,
        }
    }

    /// Not ready from here on, for this reason.
    pub fn drain(&self, reason: impl Into<String>) {
        self.write().draining.get_or_insert(reason.into());
    }

    /// Whether work may be sent here: every part is at work, and the daemon is not on its way out.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.read().is_ready()
    }

    /// Whether the process is worth keeping.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let inner = self.read();
        let dead = |check: &NamedCheck| check.vital && matches!(check.state, State::Failed(_));
        !inner.checks.iter().any(dead)
    }

    /// Every check on its own line, in the form of Kubernetes' own `?verbose` probes.
    #[must_use]
    pub fn verbose(&self) -> String {
        let inner = self.read();
        let mut text = String::new();
        for check in &inner.checks {
            let detail = check
                .state
                .detail()
                .map(|detail| format!(": {detail}"))
                .unwrap_or_default();
            let name = check.name;
            text.push_str(&format!(
                "{}{name} {}{detail}\n",
                check.state.mark(),
                check.state.name()
            ));
        }
        if let Some(reason) = &inner.draining {
            text.push_str(&format!("[-]shutdown draining: {reason}\n"));
        }
        text.push_str(if inner.is_ready() {
            "ready\n"
        } else {
            "not ready\n"
        });
        text
    }

    /// The health as JSON.
    #[must_use]
    pub fn to_json(&self, version: &str) -> Value {
        let inner = self.read();
        let checks: Vec<Value> = inner
            .checks
            .iter()
            .map(|check| {
                json!({
                    "name": check.name,
                    "state": check.state.name(),
                    "detail": check.state.detail(),
                })
            })
            .collect();
        json!({
            "schema": 1,
            "status": inner.status(),
            "draining": inner.draining,
            "version": version,
            "uptime_s": inner.started.elapsed().as_secs(),
            "checks": checks,
        })
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        // Nothing panics while the lock is held, and if it did, the list would still be whole.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_ready(&self) -> bool {
        let at_work = |check: &NamedCheck| matches!(check.state, State::Ok | State::Degraded(_));
        self.draining.is_none() && self.checks.iter().all(at_work)
    }

    fn status(&self) -> &'static str {
        if self.draining.is_some() {
            return "draining";
        }
        if !self.is_ready() {
            return "unavailable";
        }
        let degraded = |check: &NamedCheck| matches!(check.state, State::Degraded(_));
        if self.checks.iter().any(degraded) {
            "degraded"
        } else {
            "ok"
        }
    }
}

impl Check {
    /// Says how the part is.
    pub fn set(&self, state: State) {
        self.health.write().checks[self.index].state = state;
    }

    /// The part is well.
    pub fn ok(&self) {
        self.set(State::Ok);
    }

    /// The part is at work, but needs attention.
    pub fn degraded(&self, detail: impl Into<String>) {
        self.set(State::Degraded(detail.into()));
    }

    /// The part is not at work.
    pub fn failed(&self, detail: impl Into<String>) {
        self.set(State::Failed(detail.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_means_that_every_part_has_said_so() {
        let health = Health::new();
        let wal = health.check("wal");
        let config = health.check("config");
        wal.ok();
        assert!(
            !health.is_ready(),
            "a part that has said nothing is not ready"
        );
        config.ok();
        assert!(health.is_ready());
        config.degraded("line 3: unknown key");
        assert!(health.is_ready(), "what needs attention still works");
        wal.failed("fsync failed");
        assert!(!health.is_ready());
        insta::assert_snapshot!(health.verbose(), @r"
        [-]wal failed: fsync failed
        [!]config degraded: line 3: unknown key
        not ready
        ");
    }

    #[test]
    fn draining_cannot_be_taken_back() {
        let health = Health::new();
        let wal = health.check("wal");
        wal.ok();
        health.drain("SIGTERM");
        health.drain("something later");
        wal.ok();
        assert!(!health.is_ready());
        insta::assert_snapshot!(health.verbose(), @r"
        [+]wal ok
        [-]shutdown draining: SIGTERM
        not ready
        ");
        assert_eq!(health.to_json("1")["status"], "draining");
    }

    #[test]
    fn only_a_vital_part_that_has_failed_makes_the_process_dead() {
        let health = Health::new();
        let scheduler = health.vital_check("scheduler");
        let wal = health.check("wal");
        assert!(health.is_alive(), "a slow boot is no failure");
        wal.failed("disk full");
        assert!(health.is_alive());
        scheduler.failed("no turn for 60 s");
        assert!(!health.is_alive());
    }
}

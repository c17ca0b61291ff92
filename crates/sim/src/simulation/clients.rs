//! The clients of a run: what they ask for, and what they are told.

use runtime::{JobError, JobId, JobPriority, JobSpec, Json, SubmitError, Submitted};

use super::Run;
use crate::node::Answer;
use crate::tale::{SIGNALS, Tale};

/// One client, and what it waits for. It has one job after the other.
pub(super) struct Client {
    pub(super) spec: JobSpec,
    pub(super) asked: Option<Answer<Result<Submitted, SubmitError>>>,
    pub(super) job: Option<JobId>,
    pub(super) cancel: Option<Answer<Result<(), JobError>>>,
    pub(super) signals: Vec<(Answer<Result<(), JobError>>, String)>,
}

impl Run {
    /// A client with a job that nobody had before.
    pub(super) fn new_client(&mut self) -> Client {
        let number = self.tales.len();
        let random = &mut self.random;
        let tale = Tale::random(random);
        // Its name is its number, so that a job that nobody remembers is known by its entry.
        let mut spec = JobSpec::new("tale", Json::of(&tale)).named(number.to_string());
        if random.percent(85) {
            spec = spec.keyed(format!("key {number}"));
        }
        spec.priority = *random.pick(&[JobPriority::Low, JobPriority::Normal, JobPriority::High]);
        self.tales.push(tale);
        Client {
            spec,
            asked: None,
            job: None,
            cancel: None,
            signals: Vec::new(),
        }
    }

    /// A client does what it does next: submits, signals, waits.
    pub(super) fn call(&mut self) {
        let index = self.random.below(self.clients.len() as u64) as usize;
        let client = &mut self.clients[index];
        match client.job {
            None if client.asked.is_none() => {
                let spec = client.spec.clone();
                client.asked = Some(self.node.submit(spec));
                self.say("submit", index as u64);
            }
            None => {}
            Some(job) => {
                let is_idle = client.asked.is_none() && client.cancel.is_none();
                if is_idle && self.node.world.ledger().is_over(job) && self.random.percent(30) {
                    self.say("another job", index as u64);
                    self.clients[index] = self.new_client();
                } else if self.random.percent(30) {
                    let name = *self.random.pick(&SIGNALS);
                    self.signal(index, job, name);
                }
            }
        }
    }

    pub(super) fn signal(&mut self, index: usize, job: JobId, name: &str) {
        self.signals_sent += 1;
        self.say("signal", self.signals_sent);
        let payload = self.signals_sent.to_string();
        let answer = self.node.signal(job, name, &payload);
        self.clients[index].signals.push((answer, payload));
    }

    pub(super) fn cancel(&mut self) {
        let index = self.random.below(self.clients.len() as u64) as usize;
        if let Some(job) = self.clients[index].job {
            self.say("cancel", index as u64);
            self.clients[index].cancel = Some(self.node.cancel(job));
        }
    }

    pub(super) fn submit_again(&mut self) {
        let index = self.random.below(self.clients.len() as u64) as usize;
        let client = &mut self.clients[index];
        if client.job.is_some() && client.asked.is_none() && client.spec.key.is_some() {
            let spec = client.spec.clone();
            client.asked = Some(self.node.submit(spec));
            self.say("submit again", index as u64);
        }
    }

    /// The clients look for answers, and hold them against what is on disk.
    pub(super) fn hear(&mut self) {
        let ledger = self.node.world.ledger();
        for client in &mut self.clients {
            if let Some(asked) = &mut client.asked
                && let Ok(answer) = asked.try_recv()
            {
                client.asked = None;
                match answer {
                    Ok(Submitted { job, .. }) => {
                        assert!(ledger.has(job), "{job} is acknowledged and not durable");
                        if let Some(known) = client.job.filter(|known| *known != job) {
                            let facts = ledger.job(known);
                            let forgotten = facts.and_then(|facts| facts.finished_ms);
                            let retention_ms = self.swarm.setup.retention.as_millis() as u64;
                            // The new one may have been taken in by an earlier life, which could not say so any more.
                            assert!(
                                forgotten.is_some_and(|end| end + retention_ms <= self.latest_ms),
                                "the key of {known} now names {job}, and {known} is remembered still"
                            );
                        }
                        client.job = Some(job);
                    }
                    Err(error) => assert!(error.is_temporary(), "refused for good: {error}"),
                }
            }
            if let Some(cancel) = &mut client.cancel
                && let Ok(answer) = cancel.try_recv()
            {
                client.cancel = None;
                let job = client.job.expect("a job, because it was cancelled");
                let is_cancelled = ledger.job(job).is_some_and(|facts| facts.is_cancelled);
                assert!(
                    answer.is_err() || is_cancelled,
                    "the end of {job} is acknowledged and not durable"
                );
                if let Err(JobError::Over { .. }) = answer {
                    assert!(ledger.is_over(job), "{job} is said to be over, and is not");
                }
            }
            client.signals.retain_mut(|(answer, payload)| {
                let Ok(answer) = answer.try_recv() else {
                    return true;
                };
                let job = client.job.expect("a job, because it was sent something");
                assert!(
                    answer.is_err() || ledger.has_signal(job, payload),
                    "a signal to {job} is acknowledged and not durable"
                );
                false
            });
        }
    }
}

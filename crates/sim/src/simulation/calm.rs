//! The end of a run: nothing goes wrong any more, and everything must come to its end.

use std::time::Duration;

use runtime::{Json, LogState};

use super::{CALM_ROUNDS_MAX, Run};
use crate::tale::SIGNALS;

impl Run {
    /// Nothing goes wrong any more: everything comes to its end.
    pub(super) fn calm(&mut self) {
        self.say("calm", 0);
        self.is_stormy = false;
        self.full_until = None;
        if !self.node.disk.has_power() && self.node.is_alive() {
            self.go_down(true);
        }
        self.node.disk.heal();
        for round in 0.. {
            assert!(
                round < CALM_ROUNDS_MAX,
                "nothing goes wrong any more, and yet after {round} rounds there are jobs that are not over: {}",
                self.unfinished()
            );
            self.story.borrow_mut().steps += 1;
            if !self.node.is_alive() {
                self.start();
            }
            self.node.settle();
            self.look();
            if self.node.stopped().is_some() {
                self.end();
                continue;
            }
            let log_state = self.node.log_state();
            assert!(
                log_state == LogState::Ok,
                "the disk is well, and the engine does not know: {log_state:?}"
            );
            let ledger = self.node.world.ledger();
            let all_over = ledger.jobs().all(|(_, facts)| facts.finished_ms.is_some());
            drop(ledger);
            if self.is_over() && all_over {
                return;
            }
            self.help();
            if round % 8 == 7 {
                // The wall clock may have been set back by days, and sleepers that a restart has woken go by it.
                self.node.disk.advance(Duration::from_secs(3_600));
            }
        }
    }

    pub(super) fn unfinished(&mut self) -> String {
        let jobs = self.node.list(Default::default()).jobs;
        let live = jobs.iter().filter(|view| !view.state.is_final());
        let words =
            live.map(|view| format!("{} {} waits for {:?}", view.id, view.state, view.waits_for));
        let unsubmitted = self
            .clients
            .iter()
            .filter(|client| client.job.is_none())
            .count();
        let words: Vec<_> = words.collect();
        format!(
            "[{}], {unsubmitted} of them not even submitted",
            words.join("; ")
        )
    }

    /// The world outside does its part: submits what is not submitted, ends what hangs, sends each signal as often as its
    /// job can take it and no more, and lets time pass.
    pub(super) fn help(&mut self) {
        for index in 0..self.clients.len() {
            if self.clients[index].job.is_none() && self.clients[index].asked.is_none() {
                let spec = self.clients[index].spec.clone();
                self.clients[index].asked = Some(self.node.submit(spec));
            }
        }
        for id in self.node.world.running_ids() {
            self.node.world.complete_id(id, Ok(Json::of("in the end")));
        }
        let mut missing = Vec::new();
        let ledger = self.node.world.ledger();
        for (job, facts) in ledger
            .jobs()
            .filter(|(_, facts)| facts.finished_ms.is_none())
        {
            let index = facts
                .name
                .as_deref()
                .and_then(|name| name.parse::<usize>().ok());
            let index = index.expect("the number of its client, because that is its name");
            for name in SIGNALS {
                let sent = facts.signals.get(name).copied().unwrap_or(0);
                if sent < self.tales[index].signals(name) {
                    missing.push((job, name));
                }
            }
        }
        drop(ledger);
        for (job, name) in missing {
            self.signals_sent += 1;
            let payload = self.signals_sent.to_string();
            drop(self.node.signal(job, name, &payload));
        }
        self.node.advance_to_deadline();
    }
}

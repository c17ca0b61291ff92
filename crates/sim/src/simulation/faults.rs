//! What goes wrong in a run.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use runtime::effect::EffectDone;
use runtime::engine::Input;
use runtime::{EffectError, Json};
use wal::sim::Op;

use super::{Run, weighted};
use crate::swarm::Swarm;
use crate::{Behaviour, Random, World};

impl Run {
    /// Lets something go wrong, if it is its time.
    pub(super) fn go_wrong(&mut self) -> bool {
        if self.full_until.is_some_and(|step| step <= self.steps()) {
            self.full_until = None;
            self.say("space again", 0);
            self.node.disk.set_capacity(u64::MAX);
        }
        let faults = self.swarm.faults.clone();
        let random = &mut self.random;
        if faults.power_loss.strikes(random) {
            self.go_down(true);
        } else if faults.kill.strikes(random) {
            self.go_down(false);
        } else if faults.power_cut.strikes(random) {
            let changes = random.below(12);
            self.say("power cut", changes);
            self.node.disk.power_off_after(changes);
        } else if faults.failed_sync.strikes(random) {
            let nth = 1 + random.below(3);
            self.say("sync to fail", nth);
            self.node.disk.fail(Op::Sync, nth, ErrorKind::Other);
        } else if faults.failed_write.strikes(random) {
            let op = *random.pick(&[Op::Write, Op::Allocate]);
            let error = *random.pick(&[ErrorKind::Other, ErrorKind::StorageFull]);
            let nth = 1 + random.below(4);
            self.say("write to fail", nth);
            self.node.disk.fail(op, nth, error);
        } else if faults.failed_name.strikes(random) {
            let op = *random.pick(&[Op::SyncDir, Op::Rename, Op::Remove]);
            let nth = 1 + random.below(2);
            self.say("name to fail", nth);
            self.node.disk.fail(op, nth, ErrorKind::Other);
        } else if faults.full_disk.strikes(random) {
            let room = random.below(3) * random.below(self.swarm.setup.segment_bytes);
            self.full_until = Some(self.story.borrow().steps + random.below(60));
            self.say("full disk", room);
            let used = self.node.disk.used_bytes();
            self.node.disk.set_capacity(used + room);
        } else if faults.slow_syncs.strikes(random) {
            let ms = random.below(2) * random.below(20_000);
            self.say("slow syncs", ms);
            self.node.disk.set_sync_latency(Duration::from_millis(ms));
        } else if faults.wall_clock.strikes(random) {
            let most_ms = *random.pick(&[2_000, 100_000, 20_000_000]);
            let by_ms = random.below(2 * most_ms) as i64 - most_ms as i64;
            self.say("wall clock", by_ms.unsigned_abs());
            self.node.disk.set_wall_clock(by_ms);
        } else if faults.pause.strikes(random) {
            let ms = random.below(120_000);
            self.say("pause", ms);
            self.node.disk.advance(Duration::from_millis(ms));
        } else if faults.shutdown.strikes(random) {
            let (finish_ms, give_up_ms) = (random.below(2) * random.below(5_000), 10_000);
            self.say("shutdown", finish_ms);
            self.is_draining = true;
            self.node.shutdown(
                Duration::from_millis(finish_ms),
                Duration::from_millis(give_up_ms),
            );
        } else if faults.cancel.strikes(random) {
            self.cancel();
        } else if faults.duplicate.strikes(random) {
            self.answer_again();
        } else if faults.resubmission.strikes(random) {
            self.submit_again();
        } else if faults.leftovers.strikes(random) {
            self.look_for_leftovers();
        } else {
            return false;
        }
        true
    }

    pub(super) fn go_down(&mut self, loses_power: bool) {
        let loses_power = loses_power || !self.node.disk.has_power();
        if loses_power {
            self.say("power lost", 0);
            self.node.crash();
        } else {
            self.say("killed", 0);
            self.node.kill();
        }
        self.forget_calls();
        if self.random.percent(50) {
            let ms = self.random.below(2_000);
            self.node.disk.advance(Duration::from_millis(ms));
        }
    }

    pub(super) fn answer_again(&mut self) {
        let answered = self.node.world.answered();
        if !answered.is_empty() {
            let id = *self.random.pick(&answered);
            self.say("answer again", u64::from(id.step.0));
            let error = self.random.percent(50);
            let error = error.then(|| EffectError::transient("twice", "said once more"));
            self.node.send(Input::EffectDone(EffectDone {
                id,
                output: None,
                error,
                unwritten: None,
            }));
        }
    }

    pub(super) fn look_for_leftovers(&mut self) {
        match self.leftovers.take() {
            Some(found) => {
                self.say("leftovers", found.len() as u64);
                self.node.send(Input::StoredBlobs(found));
            }
            None => {
                let blobs = Arc::clone(self.node.payloads().blobs());
                let found = blobs.remove_unfinished().and_then(|_| blobs.list());
                self.leftovers = found.ok();
            }
        }
    }
}

/// The world that a swarm makes.
pub(super) fn world(swarm: &Swarm, mut chance: Random) -> World {
    let shares = swarm.world.clone();
    World::new(move |_| {
        let weights = [
            shares.transient,
            shares.permanent,
            shares.vanishes,
            shares.hangs,
            shares.stubborn,
            100,
        ];
        match weighted(&mut chance, &weights) {
            0 => {
                let error = EffectError::transient("busy", format!("try {}", chance.below(9)));
                Behaviour::Answer(Err(error))
            }
            1 => Behaviour::Answer(Err(EffectError::permanent("broken", "for good"))),
            2 => Behaviour::Vanish,
            3 => Behaviour::Hang,
            4 => Behaviour::Stubborn,
            _ if chance.percent(shares.large) => {
                // Few different ones, so that some blobs are shared.
                let text = format!("long {} ", chance.below(20)).repeat(60);
                Behaviour::Answer(Ok(Json::of(&text)))
            }
            _ => Behaviour::Answer(Ok(Json::of(&chance.next()))),
        }
    })
}

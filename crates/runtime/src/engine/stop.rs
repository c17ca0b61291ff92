//! The engine's end: what runs is brought to an end, a last entry says so, and nothing follows it.

use super::{After, Alarm, Draining, Engine, Idleness, Shutdown, Stopped};
use crate::effect::{CancelReason, EffectClass, EffectRunner};
use crate::entry::NodeEntry;

impl<R: EffectRunner> Engine<R> {
    pub(super) fn begin_shutdown(&mut self, how: Shutdown) {
        if self.draining.is_some() {
            return;
        }
        self.draining = Some(Draining {
            gave_up: false,
            said_stopped: false,
        });
        if how.finish_within.is_zero() {
            self.end_effects();
        } else {
            self.end_effects_that_run_again();
            self.set_alarm(how.finish_within, Alarm::EndEffects);
        }
        self.set_alarm(how.give_up_after, Alarm::GiveUp);
    }

    pub(super) fn end_effects(&mut self) {
        self.cancel_effects(|_| true, CancelReason::Shutdown);
    }

    /// Effects that will simply be run again at the next start need not be waited for.
    fn end_effects_that_run_again(&mut self) {
        self.cancel_effects(EffectClass::reruns, CancelReason::Shutdown);
    }

    pub(super) fn give_up(&mut self) {
        if let Some(draining) = &mut self.draining {
            draining.gave_up = true;
        }
    }

    /// Whether the last entry of this life is written. Nothing may follow it, so no job goes on.
    pub(super) fn is_winding_down(&self) -> bool {
        #[cfg(planted)]
        if wal::planted::is("written-after-the-end") {
            return false;
        }
        self.draining
            .as_ref()
            .is_some_and(|draining| draining.said_stopped)
    }

    /// Once nothing runs any more, or the time is over, writes the marker of a clean end.
    pub(super) fn wind_down(&mut self) {
        let Some(draining) = &mut self.draining else {
            return;
        };
        let gave_up = draining.gave_up;
        let through = self.running_effects == 0 || gave_up;
        if through && !draining.said_stopped {
            draining.said_stopped = true;
            self.write_node(NodeEntry::Stopped {
                at_ms: self.now.unix_ms,
            });
            self.open.after.push(After::Stopped);
        }
        if gave_up
            && self.stopped.is_none()
            && let Some(reason) = &self.stalled
        {
            // There may never be space for the marker, and the time is over.
            self.stopped = Some(Stopped::OutOfSpace(reason.clone()));
        }
    }

    pub(super) fn stop_cleanly(&mut self) {
        self.stopped = Some(Stopped::Cleanly {
            left_running: self.running_effects,
        });
    }

    pub(super) fn tell_if_idle(&mut self) {
        let idle = self.live == self.stuck
            && self.asleep.is_empty()
            && self.in_flight.is_empty()
            && self.full.is_empty()
            && self.open.is_empty();
        if idle && !self.idle_waiters.is_empty() {
            let idleness = Idleness {
                stuck: self.stuck as u64,
                ..self.tally
            };
            for reply in self.idle_waiters.drain(..) {
                let _ = reply.send(idleness);
            }
        }
    }
}

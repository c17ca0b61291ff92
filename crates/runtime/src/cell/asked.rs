//! What a program's context does with its cell.

use scheduler::{Handle, Key, TaskId};

use super::{Awaited, Cell, Delivered, Front, Generated, Request};
use crate::effect::EffectError;
use crate::entry::{Checkpoint, Entry};
use crate::ids::StepIndex;
use crate::json::Json;
use crate::policy::EffectPolicy;

impl Cell {
    /// The branch to take of a change, and whether it is journaled.
    pub(crate) fn version(&self, change: &str, max: u32) -> u32 {
        let mut state = self.state.borrow_mut();
        if let Some(&taken) = state.versions.get(change) {
            return taken;
        }
        let taken = match state.front() {
            // The journal knows this change, whatever branch this build would take today.
            Front::Entry(
                Entry::Version {
                    change: recorded,
                    version,
                },
                _,
            ) if recorded == change => Some(*version),
            // It was written by a build that did not have the change: it goes on as it began.
            Front::Entry(..) | Front::Damaged(_) => None,
            Front::End => Some(max),
        };
        let Some(taken) = taken else {
            state.versions.insert(change.to_owned(), 0);
            return 0;
        };
        state.versions.insert(change.to_owned(), taken);
        let entry = Entry::Version {
            change: change.to_owned(),
            version: taken,
        };
        state.generate(self.job, entry, None);
        self.touched.mark(self.slot);
        taken
    }

    pub(crate) fn random(&self) -> u64 {
        self.state.borrow_mut().random.next()
    }

    pub(crate) fn checkpointed(&self) -> Option<Json> {
        self.state.borrow().checkpointed.clone()
    }

    /// # Panics
    ///
    /// If it is not the program's own task that asks, or a step is open: its answer would be lost.
    pub(crate) fn checkpoint(&self, by: Option<TaskId>, json: Json) {
        let mut state = self.state.borrow_mut();
        assert!(
            by == state.root,
            "a checkpoint was asked for by a task beside the program's own: only that one can begin anew"
        );
        assert!(
            state.open.is_empty(),
            "a checkpoint was asked for while {} steps were open: their answers would be lost",
            state.open.len()
        );
        let (payload, blob) = self.payloads.plan(json.clone());
        let checkpoint = Checkpoint {
            state: payload.stored(),
            next_step: StepIndex(state.next_step),
            random_drawn: state.random.drawn(),
            versions: state
                .versions
                .iter()
                .map(|(c, v)| (c.clone(), *v))
                .collect(),
            signals: state
                .mailboxes
                .iter()
                .flat_map(|(name, letters)| {
                    letters
                        .iter()
                        .map(|(stored, _)| (name.clone(), stored.clone()))
                })
                .collect(),
            now_ms: state.now_ms,
        };
        if state.generate(self.job, Entry::Checkpoint(Box::new(checkpoint)), blob)
            != Generated::Refused
        {
            state.checkpointed = Some(json);
            // What a recovery from here does not know, nobody is to know who comes by here.
            state.questions.clear();
            state.begins_anew = true;
        }
        self.touched.mark(self.slot);
    }

    pub(crate) fn emit(&self, event: pal::EventKind) {
        // An artifact is kept as it is: the activity log cuts what is too large for it, and whoever asks for the artifact
        // gets it from here.
        let event = match event {
            pal::EventKind::Artifact { .. } => event,
            other => other.bounded(),
        };
        let (payload, blob) = self.payloads.plan(Json::of(&event));
        let mut state = self.state.borrow_mut();
        match &event {
            pal::EventKind::Question { name, .. } => {
                state.questions.insert(name.clone(), false);
            }
            pal::EventKind::Answered { name, .. } => {
                state.questions.insert(name.clone(), true);
            }
            _ => {}
        }
        let entry = Entry::Emitted {
            event: payload.stored(),
        };
        if state.generate(self.job, entry, blob) == Generated::Appended
            && let Some(appended) = state.appended.last_mut()
        {
            appended.event = Some(Box::new(event));
        }
        self.touched.mark(self.slot);
    }

    /// Opens a step for an effect; `None` if the program has left its journal and is to stand still.
    pub(crate) fn open_effect(
        &self,
        handle: &Handle,
        kind: String,
        label: String,
        title: Option<String>,
        policy: EffectPolicy,
        input: Json,
    ) -> Option<(StepIndex, Key)> {
        let (payload, blob) = self.payloads.plan(input);
        let mut state = self.state.borrow_mut();
        let step = StepIndex(state.next_step);
        let entry = Entry::Requested {
            step,
            kind: kind.clone(),
            label: label.clone(),
            title: title.clone(),
            policy: policy.clone(),
            input: payload.stored(),
        };
        let intent = match state.generate(self.job, entry, blob) {
            Generated::Refused => return None,
            Generated::Followed => None,
            Generated::Appended => Some(state.appended.len() - 1),
        };
        state.requests.push(Request::Effect {
            step,
            intent,
            kind,
            label: label.clone(),
            title,
            policy,
            input: payload.json().clone(),
        });
        self.touched.mark(self.slot);
        Some((step, state.open(handle, Awaited::Effect { label })))
    }

    pub(crate) fn open_timer(&self, handle: &Handle, wait_ms: u64) -> Option<(StepIndex, Key)> {
        let mut state = self.state.borrow_mut();
        if state.is_halted() {
            return None;
        }
        let step = StepIndex(state.next_step);
        let deadline_ms = state.now_ms.saturating_add(wait_ms);
        state.requests.push(Request::Timer { step, deadline_ms });
        self.touched.mark(self.slot);
        Some((step, state.open(handle, Awaited::Timer { deadline_ms })))
    }

    /// Takes a signal that came before it was waited for.
    pub(crate) fn take_letter(&self, name: &str) -> Option<Json> {
        let mut state = self.state.borrow_mut();
        let letters = state.mailboxes.get_mut(name)?;
        let (_, json) = letters.pop_front()?;
        if letters.is_empty() {
            state.mailboxes.remove(name);
        }
        Some(json)
    }

    pub(crate) fn open_signal(&self, handle: &Handle, name: &str) -> Option<(StepIndex, Key)> {
        let mut state = self.state.borrow_mut();
        if state.is_halted() {
            return None;
        }
        let step = StepIndex(state.next_step);
        let awaited = Awaited::Signal {
            name: name.to_owned(),
        };
        self.touched.mark(self.slot);
        Some((step, state.open(handle, awaited)))
    }

    pub(crate) fn take_effect(&self, step: StepIndex) -> Option<Result<Json, EffectError>> {
        match self.take(step)? {
            Delivered::Effect(result) => Some(result),
            Delivered::Time | Delivered::Signal(_) => None,
        }
    }

    pub(crate) fn take_signal(&self, step: StepIndex) -> Option<Json> {
        match self.take(step)? {
            Delivered::Signal(json) => Some(json),
            Delivered::Time | Delivered::Effect(_) => None,
        }
    }

    pub(crate) fn take_time(&self, step: StepIndex) -> Option<()> {
        self.take(step).map(|_| ())
    }

    fn take(&self, step: StepIndex) -> Option<Delivered> {
        let mut state = self.state.borrow_mut();
        let delivered = state.open.get_mut(&step)?.delivered.take()?;
        state.open.remove(&step);
        Some(delivered)
    }

    /// The program dropped what it waited for: gives an unfinished effect up, and puts a signal back that it did
    /// not take.
    pub(crate) fn let_go(&self, step: StepIndex) {
        let mut state = self.state.borrow_mut();
        let Some(open) = state.open.remove(&step) else {
            return;
        };
        match (open.awaited, open.delivered) {
            // A job that was cancelled while it was stuck ended as a whole: nothing was given up one by one.
            (Awaited::Effect { .. }, None) if state.ends_cancelled_here() => {}
            (Awaited::Effect { .. }, None) => {
                let generated = state.generate(self.job, Entry::Abandoned { step }, None);
                let said = generated != Generated::Refused;
                state
                    .requests
                    .extend(said.then_some(Request::Abandon { step }));
            }
            (Awaited::Timer { .. }, None) => state.requests.push(Request::ForgetTimer { step }),
            (Awaited::Signal { name }, Some(Delivered::Signal(json))) => {
                let stored = self.payloads.plan(json.clone()).0.stored();
                state
                    .mailboxes
                    .entry(name)
                    .or_default()
                    .push_front((stored, json));
            }
            _ => {}
        }
        self.touched.mark(self.slot);
    }
}

//! The meeting place of a job's program and the engine.
//!
//! A program's context writes requests into its job's cell; the engine reads them, and writes answers back. Every entry
//! of the job passes through here, on its way into the log or, while a journal is followed, in comparison with what
//! the log has. So this is where determinism is kept:
//!
//! - While recorded entries are left, every generated entry must [agree](Entry::agrees_with) with the next recorded one.
//!   The first that does not is the [`Divergence`]; from then on the program's requests go nowhere, and it stands still.
//! - Delivered entries are handed over one at a time, and only when the whole job is quiescent. So the order of a
//!   job's steps depends on the order of its journal and nothing else: not on how the deliveries of a live run
//!   happened to be batched, and not on other jobs.

mod asked;
mod script;
mod state;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use scheduler::{Handle, Key, TaskId};
use wal::BlobId;

use self::script::{Front, Script};
use self::state::{Generated, State};
use crate::effect::EffectError;
use crate::entry::{Checkpoint, Entry, JournalHash};
use crate::ids::{JobId, StepIndex};
use crate::json::Json;
use crate::payload::Payloads;
use crate::policy::EffectPolicy;
use crate::program::ProgramResult;

pub(crate) use self::script::ScriptNext;
pub use self::script::{Divergence, Recorded};

/// An entry on its way into the log.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) bytes: Vec<u8>,
    /// A blob that must be on disk first.
    pub(crate) blob: Option<(BlobId, Vec<u8>)>,
    /// What watchers are told once it is durable.
    pub(crate) event: Option<Box<pal::EventKind>>,
    /// The blobs that it names.
    pub(crate) names: Vec<[u8; 32]>,
}

/// What a program asks of the engine.
#[derive(Debug)]
pub(crate) enum Request {
    Effect {
        step: StepIndex,
        /// Which of the entries appended since the engine last looked is its intent; `None` if the journal has it.
        intent: Option<usize>,
        kind: String,
        label: String,
        title: Option<String>,
        policy: EffectPolicy,
        input: Json,
    },
    Abandon {
        step: StepIndex,
    },
    Timer {
        step: StepIndex,
        deadline_ms: u64,
    },
    ForgetTimer {
        step: StepIndex,
    },
}

/// What an open step waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Awaited {
    Effect { label: String },
    Timer { deadline_ms: u64 },
    Signal { name: String },
}

#[derive(Debug)]
enum Delivered {
    Effect(Result<Json, EffectError>),
    Time,
    Signal(Json),
}

#[derive(Debug)]
struct OpenStep {
    awaited: Awaited,
    key: Key,
    delivered: Option<Delivered>,
}

/// Why the engine should look at a cell.
#[derive(Debug, Default)]
pub(crate) struct Touched(RefCell<Vec<usize>>);

impl Touched {
    pub(crate) fn mark(&self, slot: usize) {
        let mut slots = self.0.borrow_mut();
        // A job that asks for many things in one turn is the usual case; a job that comes again later in the turn
        // is harmless.
        if slots.last() != Some(&slot) {
            slots.push(slot);
        }
    }

    pub(crate) fn take_into(&self, slots: &mut Vec<usize>) {
        slots.append(&mut self.0.borrow_mut());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_empty()
    }
}

pub(crate) struct Cell {
    job: JobId,
    slot: usize,
    payloads: Arc<Payloads>,
    touched: Rc<Touched>,
    state: RefCell<State>,
}

impl Cell {
    pub(crate) fn new(
        job: JobId,
        slot: usize,
        payloads: Arc<Payloads>,
        touched: Rc<Touched>,
    ) -> Self {
        Self {
            job,
            slot,
            payloads,
            touched,
            state: RefCell::new(State::new(job)),
        }
    }

    pub(crate) fn job(&self) -> JobId {
        self.job
    }

    /// Sets the journal to follow: everything after the submission.
    pub(crate) fn set_script(&self, entries: VecDeque<Recorded>) {
        let mut state = self.state.borrow_mut();
        state.script = Script {
            rest: entries,
            ..Script::default()
        };
    }

    /// Takes in the first entry as recorded, without following it.
    pub(crate) fn begin_recorded(&self, bytes: &[u8], at_ms: u64) {
        let mut state = self.state.borrow_mut();
        state.hash = state.hash.then(bytes);
        state.now_ms = at_ms;
    }

    /// Appends the first entry of a new job.
    pub(crate) fn deliver_first(
        &self,
        entry: Entry,
        blob: Option<(BlobId, Vec<u8>)>,
        event: pal::EventKind,
        at_ms: u64,
    ) {
        self.append(entry, blob, Some(event));
        self.state.borrow_mut().now_ms = at_ms;
    }

    /// Goes on from a checkpoint, with the hash that the journal had after it.
    ///
    /// # Errors
    ///
    /// If a payload of the checkpoint cannot be read.
    pub(crate) fn begin_checkpointed(
        &self,
        checkpoint: &Checkpoint,
        hash: JournalHash,
    ) -> Result<(), crate::payload::PayloadError> {
        let mut state = self.state.borrow_mut();
        state.hash = hash;
        state.now_ms = checkpoint.now_ms;
        state.next_step = checkpoint.next_step.0;
        state.random.skip_to(checkpoint.random_drawn);
        state.versions = checkpoint.versions.iter().cloned().collect();
        #[cfg(planted)]
        if wal::planted::is("checkpoint-forgets-draws") {
            state.random.skip_to(0);
        }
        #[cfg(planted)]
        if wal::planted::is("checkpoint-forgets-branches") {
            state.versions.clear();
        }
        state.checkpointed = Some(self.payloads.load(&checkpoint.state)?.json().clone());
        for (name, stored) in &checkpoint.signals {
            #[cfg(planted)]
            if wal::planted::is("checkpoint-forgets-signals") {
                continue;
            }
            let json = self.payloads.load(stored)?.json().clone();
            state
                .mailboxes
                .entry(name.clone())
                .or_default()
                .push_back((stored.clone(), json));
        }
        Ok(())
    }

    // --- what the engine reads and does ---

    pub(crate) fn now_ms(&self) -> u64 {
        self.state.borrow().now_ms
    }

    pub(crate) fn hash(&self) -> JournalHash {
        self.state.borrow().hash
    }

    pub(crate) fn divergence(&self) -> Option<Divergence> {
        self.state.borrow().divergence.clone()
    }

    pub(crate) fn diverge(&self, divergence: Divergence) {
        let mut state = self.state.borrow_mut();
        state.divergence.get_or_insert(divergence);
        self.touched.mark(self.slot);
    }

    pub(crate) fn returned(&self) -> Option<ProgramResult> {
        self.state.borrow().returned.clone()
    }

    pub(crate) fn has_returned(&self) -> bool {
        self.state.borrow().returned.is_some()
    }

    pub(crate) fn set_returned(&self, result: ProgramResult) {
        let mut state = self.state.borrow_mut();
        if !state.closed && state.divergence.is_none() {
            state.returned.get_or_insert(result);
            self.touched.mark(self.slot);
        }
    }

    pub(crate) fn take_appended(&self, into: &mut Vec<Appended>) {
        into.append(&mut self.state.borrow_mut().appended);
    }

    pub(crate) fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.borrow_mut().requests)
    }

    /// From here on nothing is generated any more: for a job that is taken down without being over.
    pub(crate) fn close(&self) {
        self.state.borrow_mut().closed = true;
    }

    /// What the program waits for, by step.
    pub(crate) fn awaited(&self) -> Vec<(StepIndex, Awaited)> {
        let state = self.state.borrow();
        state
            .open
            .iter()
            .filter(|(_, open)| open.delivered.is_none())
            .map(|(step, open)| (*step, open.awaited.clone()))
            .collect()
    }

    /// Whether the program waits for anything that could still come.
    pub(crate) fn awaits_anything(&self) -> bool {
        !self.state.borrow().open.is_empty()
    }

    /// Appends an entry of the engine's, which the program does not see, and what watchers are told of it.
    pub(crate) fn append(
        &self,
        entry: Entry,
        blob: Option<(BlobId, Vec<u8>)>,
        event: Option<pal::EventKind>,
    ) {
        let mut state = self.state.borrow_mut();
        state.append(self.job, entry, blob);
        if let Some(appended) = state.appended.last_mut() {
            appended.event = event.map(Box::new);
        }
        self.touched.mark(self.slot);
    }

    /// Appends a delivered entry and hands it to the program. `json` is its payload, where it has one.
    pub(crate) fn deliver(
        &self,
        handle: &Handle,
        entry: &Entry,
        json: Option<Json>,
        blob: Option<(BlobId, Vec<u8>)>,
        event: Option<pal::EventKind>,
    ) {
        let mut state = self.state.borrow_mut();
        state.append(self.job, entry.clone(), blob);
        if let Some(appended) = state.appended.last_mut() {
            appended.event = event.map(Box::new);
        }
        if let Err(divergence) = state.apply(handle, &self.payloads, entry, json, None) {
            state.divergence.get_or_insert(divergence);
        }
        self.touched.mark(self.slot);
    }

    /// The engine's own notes among the entries followed so far.
    pub(crate) fn take_notes(&self) -> Vec<Entry> {
        std::mem::take(&mut self.state.borrow_mut().script.notes)
    }

    /// Why the job was asked to end, if that stands in the part of the journal that cannot be followed.
    pub(crate) fn cancelled_beyond(&self) -> Option<String> {
        let state = self.state.borrow();
        state
            .script
            .rest
            .iter()
            .find_map(|recorded| match recorded.entry() {
                Ok(Entry::CancelRequested { reason, .. }) => Some(reason),
                _ => None,
            })
    }

    /// Whether the journal is followed to its end.
    pub(crate) fn is_at_end(&self) -> bool {
        matches!(self.state.borrow_mut().front(), Front::End)
    }

    // --- what the root task does ---

    /// Says which task is the program's own.
    pub(crate) fn set_root(&self, root: Option<TaskId>) {
        self.state.borrow_mut().root = root;
    }

    pub(crate) fn add_child(&self, child: TaskId) {
        self.state.borrow_mut().children.push(child);
    }

    /// The tasks of the program but its own; those that have ended among them.
    pub(crate) fn take_children(&self) -> Vec<TaskId> {
        std::mem::take(&mut self.state.borrow_mut().children)
    }

    /// Whether the program is to be begun anew, from its checkpoint; asked once.
    pub(crate) fn takes_restart(&self) -> bool {
        std::mem::take(&mut self.state.borrow_mut().begins_anew)
    }

    /// Gives up following the journal, and takes the rest of it into the hash.
    pub(crate) fn skip_script(&self) {
        let mut state = self.state.borrow_mut();
        let script = std::mem::take(&mut state.script);
        for recorded in &script.rest {
            state.hash = state.hash.then(&recorded.bytes);
        }
    }

    /// Whether the question answered by this signal is settled; `None` if there is no such question.
    pub(crate) fn is_settled(&self, name: &str) -> Option<bool> {
        self.state.borrow().questions.get(name).copied()
    }

    /// When the time comes that a step waits for, in Unix milliseconds.
    pub(crate) fn deadline_of(&self, step: StepIndex) -> Option<u64> {
        match self.state.borrow().open.get(&step)?.awaited {
            Awaited::Timer { deadline_ms } => Some(deadline_ms),
            _ => None,
        }
    }

    /// Whether the program still waits for a step.
    pub(crate) fn is_open(&self, step: StepIndex) -> bool {
        self.state.borrow().open.contains_key(&step)
    }

    /// Follows the journal by one delivered entry. To be called when the job is quiescent.
    pub(crate) fn follow(&self, handle: &Handle) -> ScriptNext {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if state.divergence.is_some() {
            return ScriptNext::End;
        }
        let divergence = match state.front() {
            Front::End => return ScriptNext::End,
            Front::Damaged(divergence) => Some(divergence),
            Front::Entry(entry, recorded) if entry.is_generated() => Some(Divergence {
                lsn: Some(recorded.lsn),
                step: entry.step(),
                expected: entry.describe(),
                found: String::new(),
            }),
            Front::Entry(..) => None,
        };
        if let Some(mut divergence) = divergence {
            if divergence.found.is_empty() {
                divergence.found = state.describe_standstill();
            }
            state.divergence = Some(divergence);
            return ScriptNext::End;
        }
        let Some((entry, recorded)) = state.script.pop() else {
            return ScriptNext::End;
        };
        if let Entry::Finished { .. } = entry {
            return ScriptNext::Finished(entry, recorded);
        }
        state.hash = state.hash.then(&recorded.bytes);
        match state.apply(handle, &self.payloads, &entry, None, Some(recorded.lsn)) {
            Ok(()) => ScriptNext::Delivered(entry),
            Err(divergence) => {
                state.divergence = Some(divergence);
                ScriptNext::End
            }
        }
    }
}

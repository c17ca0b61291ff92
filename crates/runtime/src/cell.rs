//! The meeting place of a job's program and the engine.
//!
//! A program's context writes requests into its job's cell; the engine reads them, and writes answers back. Every entry
//! of the job passes through here, on its way into the log or, while a journal is followed, in comparison with what
//! the log has. So this is where determinism is kept:
//!
//! - While recorded entries are left, every generated entry must equal the next recorded one byte for byte. The first
//!   that does not is the [`Divergence`]; from then on the program's requests go nowhere, and it stands still.
//! - Delivered entries are handed over one at a time, and only when the whole job is quiescent. So the order of a
//!   job's steps depends on the order of its journal and nothing else: not on how the deliveries of a live run
//!   happened to be batched, and not on other jobs.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use scheduler::{Handle, Key, TaskId};
use wal::{BlobId, Lsn};

use crate::effect::EffectError;
use crate::entry::{Checkpoint, DecodeError, Ending, Entry, JournalHash, Outcome, Record};
use crate::ids::{JobId, StepIndex};
use crate::json::Json;
use crate::payload::{Payloads, Stored};
use crate::policy::EffectPolicy;
use crate::program::ProgramResult;
use crate::random::JobRandom;

/// Where a program left its journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The position in the log of the entry that could not be followed, if there was one.
    pub lsn: Option<Lsn>,
    /// The step it happened at.
    pub step: Option<StepIndex>,
    /// What the journal has.
    pub expected: String,
    /// What the program did.
    pub found: String,
}

impl fmt::Display for Divergence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("program does not follow its journal")?;
        if let Some(step) = self.step {
            write!(f, " at step {step}")?;
        }
        if let Some(lsn) = self.lsn {
            write!(f, " (LSN {lsn})")?;
        }
        write!(
            f,
            ": journal has {}; program came with {}",
            self.expected, self.found
        )
    }
}

/// An entry as the log has it.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Where it stands.
    pub lsn: Lsn,
    /// Its record's bytes.
    pub bytes: Box<[u8]>,
}

impl Recorded {
    /// Reads the entry.
    ///
    /// # Errors
    ///
    /// If the bytes are no record of a job that this build knows.
    pub fn entry(&self) -> Result<Entry, DecodeError> {
        match Record::decode(&self.bytes)? {
            Record::Job(_, entry) => Ok(entry),
            Record::Node(_) => Err(DecodeError::Malformed {
                schema: self.bytes[0],
                reason: "it is an entry of the node, not of a job".to_owned(),
            }),
        }
    }
}

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

struct State {
    now_ms: u64,
    next_step: u32,
    random: JobRandom,
    versions: BTreeMap<String, u32>,
    script: Script,
    divergence: Option<Divergence>,
    hash: JournalHash,
    appended: Vec<Appended>,
    requests: Vec<Request>,
    open: BTreeMap<StepIndex, OpenStep>,
    mailboxes: BTreeMap<String, VecDeque<(Stored, Json)>>,
    /// Questions asked, by the signal that answers them; true once they are settled.
    questions: BTreeMap<String, bool>,
    checkpointed: Option<Json>,
    /// The program has folded its history and is to be begun anew.
    begins_anew: bool,
    /// The program's own task, and all that it and its children have spawned since it began.
    root: Option<TaskId>,
    children: Vec<TaskId>,
    returned: Option<ProgramResult>,
    closed: bool,
}

/// The recorded entries not followed yet. The engine's own notes among them, which the program never saw, are taken
/// out on the way: where they stand between two requests says nothing about the program.
#[derive(Default)]
struct Script {
    rest: VecDeque<Recorded>,
    /// The first of `rest`, decoded.
    front: Option<Entry>,
    notes: Vec<Entry>,
    damage: Option<Divergence>,
}

impl Script {
    /// Decodes the next entry that is not a note, adding what it passes to `hash`.
    fn advance(&mut self, hash: &mut JournalHash) {
        while self.front.is_none()
            && self.damage.is_none()
            && let Some(recorded) = self.rest.front()
        {
            match recorded.entry() {
                Ok(entry) if entry.is_note() => {
                    *hash = hash.then(&recorded.bytes);
                    self.notes.push(entry);
                    self.rest.pop_front();
                }
                Ok(entry) => self.front = Some(entry),
                Err(error) => {
                    self.damage = Some(Divergence {
                        lsn: Some(recorded.lsn),
                        step: None,
                        expected: format!("a record that cannot be read: {error}"),
                        found: "nothing to compare it with".to_owned(),
                    });
                }
            }
        }
    }

    fn pop(&mut self) -> Option<(Entry, Recorded)> {
        Some((self.front.take()?, self.rest.pop_front()?))
    }
}

/// The next recorded entry, if the journal is not followed to its end.
enum Front<'a> {
    Entry(&'a Entry, &'a Recorded),
    Damaged(Divergence),
    End,
}

/// What a journal asks to happen next, once the job is quiescent.
#[derive(Debug)]
pub(crate) enum ScriptNext {
    /// A delivered entry, which has been applied.
    Delivered(Entry),
    /// The job's recorded end. The program must have returned the same.
    Finished(Entry, Recorded),
    /// Nothing: the journal is followed to its end, or cannot be followed.
    End,
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
            state: RefCell::new(State {
                now_ms: 0,
                next_step: 0,
                random: JobRandom::new(job),
                versions: BTreeMap::new(),
                script: Script::default(),
                divergence: None,
                hash: JournalHash::default(),
                appended: Vec::new(),
                requests: Vec::new(),
                open: BTreeMap::new(),
                mailboxes: BTreeMap::new(),
                questions: BTreeMap::new(),
                checkpointed: None,
                begins_anew: false,
                root: None,
                children: Vec::new(),
                returned: None,
                closed: false,
            }),
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
        state.checkpointed = Some(self.payloads.load(&checkpoint.state)?.json().clone());
        for (name, stored) in &checkpoint.signals {
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

    // --- what the context does ---

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
        let event = event.bounded();
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Generated {
    /// It is what the journal has.
    Followed,
    /// It is new, and goes into the log.
    Appended,
    /// The program has left its journal, or is being taken down.
    Refused,
}

impl State {
    fn front(&mut self) -> Front<'_> {
        self.script.advance(&mut self.hash);
        if let Some(damage) = &self.script.damage {
            return Front::Damaged(damage.clone());
        }
        match (&self.script.front, self.script.rest.front()) {
            (Some(entry), Some(recorded)) => Front::Entry(entry, recorded),
            _ => Front::End,
        }
    }

    fn ends_cancelled_here(&mut self) -> bool {
        matches!(
            self.front(),
            Front::Entry(
                Entry::Finished {
                    ending: Ending::Cancelled { .. },
                    ..
                },
                _
            )
        )
    }

    fn describe_standstill(&self) -> String {
        match &self.returned {
            Some(Ok(_)) => "its end, completed".to_owned(),
            Some(Err(failure)) => format!("its end, failed with {}: {failure}", failure.code),
            None => "nothing: it waits".to_owned(),
        }
    }

    fn is_halted(&self) -> bool {
        self.closed || self.divergence.is_some()
    }

    fn append(&mut self, job: JobId, entry: Entry, blob: Option<(BlobId, Vec<u8>)>) {
        let mut names = Vec::new();
        entry.visit_blobs(|blob| names.push(blob));
        let bytes = Record::Job(job, entry).encode();
        self.hash = self.hash.then(&bytes);
        self.appended.push(Appended {
            bytes,
            blob,
            event: None,
            names,
        });
    }

    fn generate(&mut self, job: JobId, entry: Entry, blob: Option<(BlobId, Vec<u8>)>) -> Generated {
        if self.is_halted() {
            return Generated::Refused;
        }
        let (bytes, versions) = match self.front() {
            Front::End => {
                self.append(job, entry, blob);
                return Generated::Appended;
            }
            Front::Damaged(divergence) => {
                self.divergence = Some(divergence);
                return Generated::Refused;
            }
            Front::Entry(expected, recorded) => {
                let bytes = Record::Job(job, entry.clone()).encode();
                if *bytes != *recorded.bytes && !expected.agrees_with(&entry) {
                    self.divergence = Some(Divergence {
                        lsn: Some(recorded.lsn),
                        step: entry.step().or_else(|| expected.step()),
                        expected: expected.describe(),
                        found: entry.describe(),
                    });
                    return Generated::Refused;
                }
                // From a checkpoint on the branches are those that a recovery from it finds there.
                let versions = match expected {
                    Entry::Checkpoint(checkpoint) => Some(checkpoint.versions.clone()),
                    _ => None,
                };
                (recorded.bytes.clone(), versions)
            }
        };
        if let Some(versions) = versions {
            self.versions = versions.into_iter().collect();
        }
        self.hash = self.hash.then(&bytes);
        self.script.pop();
        Generated::Followed
    }

    fn open(&mut self, handle: &Handle, awaited: Awaited) -> Key {
        let key = handle.new_key();
        let step = StepIndex(self.next_step);
        self.next_step += 1;
        self.open.insert(
            step,
            OpenStep {
                awaited,
                key,
                delivered: None,
            },
        );
        key
    }

    /// Hands a delivered entry to whoever waits for it. Entries about tries, and about effects that were given up,
    /// are nobody's.
    fn apply(
        &mut self,
        handle: &Handle,
        payloads: &Payloads,
        entry: &Entry,
        json: Option<Json>,
        lsn: Option<Lsn>,
    ) -> Result<(), Divergence> {
        let load = |stored: &Stored, json: Option<Json>| match json {
            Some(json) => Ok(json),
            None => payloads
                .load(stored)
                .map(|payload| payload.json().clone())
                .map_err(|error| Divergence {
                    lsn,
                    step: entry.step(),
                    expected: entry.describe(),
                    found: format!("a payload that cannot be read: {error}"),
                }),
        };
        match entry {
            Entry::Completed {
                step,
                at_ms,
                outcome,
                ..
            } => {
                self.now_ms = *at_ms;
                let result = match outcome {
                    Outcome::Ok { output, .. } => Ok(load(output, json)?),
                    Outcome::Failed { error, output, .. } => {
                        let mut error = error.clone();
                        error.output = match output {
                            Some(output) => Some(load(output, json)?),
                            None => None,
                        };
                        Err(error)
                    }
                    Outcome::Interrupted => Err(EffectError::interrupted()),
                };
                self.answer(handle, *step, Delivered::Effect(result));
            }
            Entry::TimerFired { step, at_ms } => {
                self.now_ms = *at_ms;
                if !self.answer(handle, *step, Delivered::Time) {
                    return Err(Divergence {
                        lsn,
                        step: Some(*step),
                        expected: entry.describe(),
                        found: "no such wait".to_owned(),
                    });
                }
            }
            Entry::Signalled {
                name,
                at_ms,
                payload,
            } => {
                self.now_ms = *at_ms;
                let json = load(payload, json)?;
                let waiter = self.open.iter().find_map(|(step, open)| {
                    let waits = open.delivered.is_none()
                        && matches!(&open.awaited, Awaited::Signal { name: n } if n == name);
                    waits.then_some(*step)
                });
                match waiter {
                    Some(step) => {
                        self.answer(handle, step, Delivered::Signal(json));
                    }
                    None => self
                        .mailboxes
                        .entry(name.clone())
                        .or_default()
                        .push_back((payload.clone(), json)),
                }
            }
            Entry::CancelRequested { at_ms, .. } => self.now_ms = *at_ms,
            _ => {}
        }
        Ok(())
    }

    fn answer(&mut self, handle: &Handle, step: StepIndex, delivered: Delivered) -> bool {
        let Some(open) = self.open.get_mut(&step) else {
            return false;
        };
        open.delivered = Some(delivered);
        handle.signal(open.key);
        true
    }
}

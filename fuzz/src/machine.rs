//! The engine with a log in a vector, a disk in memory, a clock that is pushed and a world that answers at once.
//!
//! What is fuzzed is what the engine makes of specifications and records; the log below it is fuzzed by itself.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use metrics::Registry;
use pal::Pal;
use runtime::engine::{Engine, EngineOptions, Input};
use runtime::entry::{Entry, Record};
use runtime::{
    CancelReason, Completer, EffectCall, EffectError, EffectId, EffectResult, EffectRunner,
    Instruments, JobFilter, JobId, JobSpec, JobState, Json, Limits, Now, Payloads, Programs,
    Recorded, RecoverError, Recovery, ReplayError, Replayed, Stored,
};
use scheduler::Time;
use serde_json::{Value, json};
use wal::sim::MemStorage;
use wal::{BlobStore, Lsn, WriterEvent};

/// How many turns a run may take: no input is worth more time.
const TURNS_MAX: usize = 300;
/// When the machine is switched on, in Unix milliseconds.
const BEGUN_MS: u64 = 1_760_000_000_000;
/// Payloads longer than this are blobs.
const THRESHOLD_BYTES: usize = 1024;
/// The longest batch.
const BATCH_BYTES: usize = 8 << 20;

/// The calls that wait for their answers.
#[derive(Clone, Default)]
struct World(Rc<RefCell<Vec<(EffectCall, Completer)>>>);

impl EffectRunner for World {
    fn start(&mut self, call: EffectCall, completer: Completer) {
        self.0.borrow_mut().push((call, completer));
    }

    fn cancel(&mut self, id: EffectId, _: CancelReason) {
        let mut calls = self.0.borrow_mut();
        if let Some(at) = calls.iter().position(|(call, _)| call.id == id) {
            let (_, completer) = calls.swap_remove(at);
            let error = EffectError::permanent(EffectError::CANCELLED, "ended as asked");
            completer.complete(Err(error));
        }
    }
}

/// What the world says: commands print their arguments, or fail if they are to; files are eight bytes long.
fn answer(call: &EffectCall) -> EffectResult {
    let input = call.input.value();
    if &*call.kind == "file.read" {
        let name = input["path"].as_str().unwrap_or_default();
        let read = json!({ "name": name, "media_type": "text/plain", "size": 8, "length": 8, "blob": "00" });
        return Ok(Json::of(&read));
    }
    let argv = input["argv"].as_array().into_iter().flatten();
    let words: Vec<&str> = argv.filter_map(Value::as_str).collect();
    let output =
        |code: i32, stdout: &str| json!({ "exit_code": code, "stdout": stdout, "stderr": "" });
    match words.as_slice() {
        ["fail", ..] => Err(EffectError::transient("exit_status", "exited with 1")
            .with_output(Json::of(&output(1, "")))),
        ["refuse", ..] => Err(EffectError::permanent("invalid_input", "no")),
        words => Ok(Json::of(&output(0, &words.join(" ")))),
    }
}

/// A process and its disk.
pub(crate) struct Machine {
    engine: Engine<World>,
    world: World,
    inbox: Sender<Input>,
    inputs: Receiver<Input>,
    payloads: Arc<Payloads>,
    disk: MemStorage,
    /// The first record's place in the log.
    first: u64,
    records: Vec<Vec<u8>>,
    now: Now,
    /// Questions that were answered.
    answered: BTreeSet<(JobId, String)>,
}

impl Machine {
    /// Starts with a log that holds these records, the first of them at `first`.
    pub(crate) fn boot(
        disk: MemStorage,
        first: u64,
        records: Vec<Vec<u8>>,
    ) -> Result<Self, RecoverError> {
        let mut recovery = Recovery::new();
        for (at, record) in records.iter().enumerate() {
            recovery.take_in(Lsn(first + at as u64), record)?;
        }
        let recovery = recovery.finish()?;
        let blobs = BlobStore::open("/blobs", Arc::new(disk.clone())).expect("the disk is sound");
        let payloads = Arc::new(Payloads::new(Arc::new(blobs), THRESHOLD_BYTES));
        let (inbox, inputs) = channel();
        let world = World::default();
        let mut drawn = 0_u128;
        let options = EngineOptions {
            limits: Limits::default(),
            retention: Duration::from_secs(3600),
            programs: programs(),
            payloads: Arc::clone(&payloads),
            pal: Pal::new(16, 1 << 16),
            instruments: Instruments::new(&Registry::new()),
            inbox: inbox.clone(),
            next_lsn: Lsn(first + records.len() as u64),
            batch_bytes: BATCH_BYTES,
            entropy: Box::new(move || {
                drawn += 1;
                drawn
            }),
            version: "fuzz".to_owned(),
            scheduler: scheduler::Options::default(),
        };
        let now = Now {
            monotonic: Time::ZERO,
            unix_ms: BEGUN_MS,
        };
        Ok(Self {
            engine: Engine::new(options, world.clone(), recovery, now),
            world,
            inbox,
            inputs,
            payloads,
            disk,
            first,
            records,
            now,
            answered: BTreeSet::new(),
        })
    }

    /// Hands a job in; says which it is if it was taken.
    pub(crate) fn submit(&mut self, spec: JobSpec) -> Option<JobId> {
        let (input, unwritten) = self.payloads.store(spec.input.clone());
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        self.send(Input::Submit {
            spec: Box::new(spec),
            input,
            unwritten,
            reply,
        });
        self.run();
        Some(answer.try_recv().ok()?.ok()?.job)
    }

    fn send(&self, input: Input) {
        self.inbox
            .send(input)
            .expect("the machine holds the other end");
    }

    /// Goes on until nothing is left to do, or for as long as anything is worth.
    pub(crate) fn run(&mut self) {
        for _ in 0..TURNS_MAX {
            let mut inputs: Vec<Input> = self.inputs.try_iter().collect();
            let quiet = inputs.is_empty();
            let turn = self.engine.turn(self.now, &mut inputs);
            let mut wrote = false;
            if let Some(submission) = turn.submission {
                wrote = true;
                let blobs = submission.blobs.iter().map(|(id, bytes)| (*id, &bytes[..]));
                let put = self.payloads.blobs().put_all(blobs);
                put.expect("the disk is sound");
                let first = self.next_lsn();
                let mut batch = submission.batch;
                assert!(
                    batch.encoded_bytes() <= BATCH_BYTES,
                    "a batch that no frame takes"
                );
                let records: Vec<Vec<u8>> = batch.iter().map(<[u8]>::to_vec).collect();
                for record in &records {
                    self.answer_questions(record);
                }
                self.records.extend(records);
                batch.clear();
                self.send(Input::Log(WriterEvent::Durable {
                    token: submission.token,
                    first,
                    last: self.next_lsn().prev(),
                    batch,
                }));
            }
            let calls = self.world.0.take();
            let called = !calls.is_empty();
            for (call, completer) in calls {
                completer.complete(answer(&call));
            }
            if !quiet || wrote || called || turn.busy {
                continue;
            }
            let Some(at) = turn.deadline else { return };
            let step = at
                .duration_since(self.now.monotonic)
                .max(Duration::from_millis(1));
            let step_ms = u64::try_from(step.as_millis()).unwrap_or(u64::MAX);
            self.now = Now {
                monotonic: self.now.monotonic + step,
                unix_ms: self.now.unix_ms.saturating_add(step_ms),
            };
        }
    }

    /// Answers every question once.
    fn answer_questions(&mut self, record: &[u8]) {
        let Ok(Record::Job(job, Entry::Emitted { event })) = Record::decode(record) else {
            return;
        };
        let Stored::Inline(text) = event else { return };
        let Ok(event) = serde_json::from_str::<Value>(&text) else {
            return;
        };
        let (Some("question"), Some(name)) = (event["type"].as_str(), event["name"].as_str())
        else {
            return;
        };
        if self.answered.insert((job, name.to_owned())) {
            let (reply, _) = tokio::sync::oneshot::channel();
            self.send(Input::Signal {
                job,
                name: name.to_owned(),
                payload: Json::of(&(name.len() % 2 == 0)),
                reply,
            });
        }
    }

    fn next_lsn(&self) -> Lsn {
        Lsn(self.first + self.records.len() as u64)
    }

    /// All records, those of before included.
    pub(crate) fn records(&self) -> &[Vec<u8>] {
        &self.records
    }

    /// The disk, to start again with.
    pub(crate) fn disk(&self) -> MemStorage {
        self.disk.clone()
    }

    /// Where every job stands that is known.
    pub(crate) fn states(&mut self) -> Vec<(JobId, JobState)> {
        let (reply, mut answer) = tokio::sync::oneshot::channel();
        let mut inputs = vec![Input::List {
            filter: JobFilter::default(),
            reply,
        }];
        self.engine.turn(self.now, &mut inputs);
        let page = answer.try_recv().expect("a list is answered at once");
        page.jobs.iter().map(|job| (job.id, job.state)).collect()
    }

    /// Replays a job.
    pub(crate) fn replay(&self, job: JobId) -> Result<Replayed, ReplayError> {
        let journal = self
            .records
            .iter()
            .zip(self.first..)
            .filter_map(|(bytes, lsn)| {
                let of_job = matches!(Record::decode(bytes), Ok(Record::Job(id, _)) if id == job);
                let recorded = || Recorded {
                    lsn: Lsn(lsn),
                    bytes: bytes.as_slice().into(),
                };
                of_job.then(recorded)
            });
        runtime::replay(&programs(), &self.payloads, job, journal.collect())
    }
}

/// What jobs can be.
fn programs() -> Programs {
    reasonact::programs(100)
}

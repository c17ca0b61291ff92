//! A node: the engine, its log and its clock, driven by hand.

mod log;
mod writer;

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use metrics::Registry;
use pal::{EventKind, Filter, Pal, StartAt, Subscription};
use runtime::engine::{Engine, EngineOptions, Input, Release, Reply};
use runtime::{
    Dump, Idleness, Instruments, JobError, JobFilter, JobId, JobSpec, JobState, JobView, Json,
    Limits, LogState, Now, Page, Payloads, Programs, RecoverError, Recovery, Shutdown, Stopped,
    SubmitError, Submitted,
};
use scheduler::Time;
use wal::sim::MemStorage;
use wal::{AppendError, BlobStore, Log, Lsn, OpenError, Options, Storage, Submission, WriterEvent};

use self::writer::Writing;
use crate::history::History;
use crate::ledger::Ledger;
use crate::world::{Runner, World};

pub use self::writer::Worked;

/// Where a node's log is.
pub const LOG_DIR: &str = "/log";
/// Where a node's blobs are.
pub const BLOB_DIR: &str = "/blobs";

/// A node that is not done after so many turns never will be.
const TURNS_TO_SETTLE: u32 = 100_000;

/// How a node is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What it takes on.
    pub limits: Limits,
    /// How long finished jobs are kept.
    pub retention: Duration,
    /// Payloads longer than this are blobs.
    pub threshold_bytes: usize,
    /// The size of the log's segments.
    pub segment_bytes: u64,
    /// Determines the disk and the ids.
    pub seed: u64,
    /// How the log is synced.
    pub sync: wal::SyncPolicy,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            retention: Duration::from_secs(3600),
            threshold_bytes: 1024,
            segment_bytes: 1 << 20,
            seed: 1,
            sync: wal::SyncPolicy::Always,
        }
    }
}

/// One life of the process.
struct Life {
    engine: Engine<Runner>,
    log: Log,
    payloads: Arc<Payloads>,
    inbox: Sender<Input>,
    inputs: Receiver<Input>,
    /// Handed over by the engine and not written yet.
    to_write: VecDeque<Submission>,
    /// Written, and the engine does not know yet.
    to_report: VecDeque<WriterEvent>,
    /// The log's writer is to delete what is not needed any more, as of this time.
    release: Option<(Release, u64)>,
    writing: Writing,
    failure: Option<wal::Failure>,
    space_low: bool,
    busy: bool,
    deadline: Option<Time>,
    stopped: Option<Stopped>,
    begun: Duration,
}

/// A node, alive or not. Its disk and its clock outlive it.
pub struct Node {
    /// How it is set up; changes count from the next start.
    pub setup: Setup,
    /// What jobs can be; changes count from the next start.
    pub programs: Programs,
    /// What carries effects out.
    pub world: World,
    /// Its disk.
    pub disk: MemStorage,
    /// Its events.
    pub events: Subscription,
    /// What its log has acknowledged.
    pub history: History,
    pal: Pal,
    life: Option<Life>,
    ids_drawn: Rc<Cell<u64>>,
    /// The hash over everything the schedulers of its lives did.
    pub trace: u64,
}

/// An answer that may have come.
pub type Answer<T> = tokio::sync::oneshot::Receiver<T>;

impl Node {
    /// A node that has started with an empty disk.
    pub fn new(programs: Programs, world: World) -> Self {
        Self::with(Setup::default(), programs, world)
    }

    /// The same, set up otherwise.
    pub fn with(setup: Setup, programs: Programs, world: World) -> Self {
        let pal = Pal::new(65_536, 64 << 20);
        let mut node = Self {
            disk: MemStorage::new(setup.seed),
            setup,
            programs,
            world,
            history: History::default(),
            events: pal.subscribe(Filter::all(), StartAt::Now),
            pal,
            life: None,
            ids_drawn: Rc::default(),
            trace: 0,
        };
        node.start();
        node
    }

    // --- lives ---

    /// Starts the process.
    pub fn start(&mut self) {
        self.try_start()
            .unwrap_or_else(|error| panic!("the log can be recovered from: {error}"));
    }

    /// Starts the process, if its log lets it.
    pub fn try_start(&mut self) -> Result<(), OpenError<RecoverError>> {
        assert!(self.life.is_none(), "the node is alive already");
        let storage: Arc<dyn Storage> = Arc::new(self.disk.clone());
        let options = Options {
            segment_bytes: self.setup.segment_bytes,
            sync: self.setup.sync,
            ..Options::new(LOG_DIR)
        };
        let mut recovery = Recovery::new();
        let mut records = Vec::new();
        let (log, _) = Log::open(options, Arc::clone(&storage), |lsn, bytes| {
            records.push((lsn, bytes.to_vec()));
            recovery.take_in(lsn, bytes)
        })?;
        // Whatever else may go wrong: what recovery has handed out is durable.
        let news = match self.setup.sync {
            wal::SyncPolicy::Always => self.history.compare(&records),
            _ => {
                *self.world.ledger_mut() = Ledger::default();
                records
            }
        };
        self.enter(&news);
        let recovery = recovery.finish().map_err(|source| OpenError::Visitor {
            lsn: Lsn::FIRST,
            source,
        })?;
        let blobs = BlobStore::open(BLOB_DIR, storage).map_err(|error| match error {
            wal::BlobError::Io(failure) => OpenError::Io(failure),
            wal::BlobError::NoSpace(failure) => OpenError::NoSpace(failure),
            other => panic!("{other}"),
        })?;
        let blobs = Arc::new(blobs);
        self.world.begin_life();
        let payloads = Arc::new(Payloads::new(blobs, self.setup.threshold_bytes));
        let (inbox, inputs) = channel();
        let begun = self.disk.monotonic();
        let drawn = Rc::clone(&self.ids_drawn);
        let seed = u128::from(self.setup.seed);
        let options = EngineOptions {
            limits: self.setup.limits.clone(),
            retention: self.setup.retention,
            programs: self.programs.clone(),
            payloads: Arc::clone(&payloads),
            pal: self.pal.clone(),
            instruments: Instruments::new(&Registry::new()),
            inbox: inbox.clone(),
            next_lsn: log.next_lsn(),
            batch_bytes: log.payload_limit(),
            entropy: Box::new(move || {
                drawn.set(drawn.get() + 1);
                // In the order of drawing, so that ids of one millisecond sort as they were given.
                u128::from(drawn.get().swap_bytes()) | seed << 64
            }),
            version: "test".to_owned(),
            scheduler: scheduler::Options::default(),
        };
        let now = now_of(&self.disk, begun);
        self.life = Some(Life {
            engine: Engine::new(options, self.world.runner(), recovery, now),
            log,
            payloads,
            inbox,
            inputs,
            to_write: VecDeque::new(),
            to_report: VecDeque::new(),
            release: None,
            writing: Writing::GoingOn,
            failure: None,
            space_low: false,
            busy: true,
            deadline: None,
            stopped: None,
            begun,
        });
        Ok(())
    }

    /// The machine loses its power: what was not synced survives or not.
    pub fn crash(&mut self) {
        self.end_life();
        self.disk.crash();
    }

    /// The process is killed: what was written stays.
    pub fn kill(&mut self) {
        self.end_life();
        self.disk.kill();
    }

    fn end_life(&mut self) {
        if let Some(life) = self.life.take() {
            self.trace = fold(self.trace, life.engine.trace_hash());
            drop(life.engine);
            self.world.end_life();
        }
    }

    /// Crashes and starts again.
    pub fn restart(&mut self) {
        self.crash();
        self.start();
        self.settle();
    }

    /// Whether the process is there.
    pub fn is_alive(&self) -> bool {
        self.life.is_some()
    }

    fn life(&mut self) -> &mut Life {
        self.life.as_mut().expect("the node is alive")
    }

    // --- turns ---

    /// Takes one turn of the engine, with all inputs that are there.
    pub fn turn(&mut self) {
        let life = self.life.as_mut().expect("the node is alive");
        let now = now_of(&self.disk, life.begun);
        let mut inputs: Vec<Input> = life.inputs.try_iter().collect();
        let mut turn = life.engine.turn(now, &mut inputs);
        life.busy = turn.busy;
        life.deadline = turn.deadline;
        life.to_write.extend(turn.submission.take());
        if turn.stopped.is_some() {
            life.stopped = turn.stopped;
        }
        if let Some(release) = turn.release {
            life.release = Some((release, now.unix_ms));
        }
        for id in turn.garbage {
            // A blob that cannot be removed is found again at the next start.
            let _ = life.payloads.discard(id);
        }
    }

    fn enter(&self, records: &[(Lsn, Vec<u8>)]) {
        let mut ledger = self.world.ledger_mut();
        for (lsn, record) in records {
            ledger.enter(*lsn, record);
        }
    }

    /// Tells the engine of what was written first and not told yet. Says whether there was anything.
    pub fn report(&mut self) -> bool {
        let life = self.life();
        let Some(event) = life.to_report.pop_front() else {
            return false;
        };
        life.inbox.send(Input::Log(event)).unwrap();
        true
    }

    /// Has the log say something of its own.
    pub fn log_says(&mut self, event: WriterEvent) {
        self.send(Input::Log(event));
    }

    /// Turns, writes and lets the world answer until nothing is left to do at this moment.
    pub fn settle(&mut self) {
        for _ in 0..TURNS_TO_SETTLE {
            self.turn();
            let wrote = matches!(self.work(1), Worked::Wrote(_));
            let reported = self.report();
            let ready = self.world.ready();
            for id in &ready {
                self.world.answer(*id);
            }
            let due = self.is_due();
            if !(wrote || reported || !ready.is_empty() || due || self.life().busy) {
                return;
            }
            if self.stopped().is_some() {
                return;
            }
        }
        panic!("the node does not settle");
    }

    /// Does what a process does that has [stopped](Self::stopped): ends the log's writer and itself. Whether the log could
    /// be closed is known then.
    pub fn exit(&mut self) -> Result<(), AppendError> {
        let mut closed = match &self.life().failure {
            Some(failure) => Err(AppendError::Failed(failure.clone())),
            None => Ok(true),
        };
        while let Ok(true) = closed {
            closed = self.write();
        }
        let life = self.life.take().expect("the node is alive");
        self.trace = fold(self.trace, life.engine.trace_hash());
        drop(life.engine);
        self.world.end_life();
        let closed = closed.and(life.log.close());
        self.disk.kill();
        closed
    }

    /// Whether there is something to do now.
    pub fn is_due(&mut self) -> bool {
        let begun = self.life().begun;
        let now = now_of(&self.disk, begun);
        let life = self.life();
        life.deadline.is_some_and(|at| at <= now.monotonic)
    }

    /// Submissions not written yet.
    pub fn unwritten(&mut self) -> usize {
        self.life().to_write.len()
    }

    /// How many events of the log's writer the engine does not know of yet.
    pub fn unreported(&mut self) -> usize {
        self.life().to_report.len()
    }

    /// The payloads of this life.
    pub fn payloads(&mut self) -> &Arc<Payloads> {
        &self.life().payloads
    }

    /// Whether the next turn would do anything by itself.
    pub fn is_busy(&mut self) -> bool {
        self.life().busy
    }

    /// How the engine ended, if it has.
    pub fn stopped(&mut self) -> Option<Stopped> {
        self.life().stopped.clone()
    }

    /// How the log does.
    pub fn log_state(&mut self) -> LogState {
        self.life().engine.log_state()
    }

    /// Lets time pass.
    pub fn advance(&mut self, by: Duration) {
        self.disk.advance(by);
        if self.life.is_some() {
            self.settle();
        }
    }

    /// Lets time pass until the engine wants a turn; says by how much, or nothing if it never will.
    pub fn advance_to_deadline(&mut self) -> Option<Duration> {
        let begun = self.life().begun;
        let now = now_of(&self.disk, begun);
        let deadline = self.life().deadline?;
        let by = deadline.duration_since(now.monotonic);
        // Clocks of jobs count whole milliseconds.
        self.disk.advance(by);
        Some(by)
    }

    /// The wall clock.
    pub fn unix_ms(&self) -> u64 {
        self.disk.unix_ms()
    }

    // --- clients ---

    /// Puts something into the engine's inbox.
    pub fn send(&mut self, input: Input) {
        self.life().inbox.send(input).unwrap();
    }

    /// Puts a request into the engine's inbox.
    pub fn ask<T>(&mut self, input: impl FnOnce(Reply<T>) -> Input) -> Answer<T> {
        let (reply, answer) = tokio::sync::oneshot::channel();
        self.send(input(reply));
        answer
    }

    /// Submits a job.
    pub fn submit(&mut self, spec: JobSpec) -> Answer<Result<Submitted, SubmitError>> {
        let (input, unwritten) = self.life().payloads.store(spec.input.clone());
        self.ask(|reply| Input::Submit {
            spec: Box::new(spec),
            input,
            unwritten,
            reply,
        })
    }

    /// Submits a job of a program without input, and lets it go on as far as it does by itself.
    pub fn run(&mut self, program: &str) -> JobId {
        self.run_spec(JobSpec::new(program, Json::null()))
    }

    /// Submits a job, and lets it go on as far as it does by itself.
    pub fn run_spec(&mut self, spec: JobSpec) -> JobId {
        let answer = self.submit(spec);
        self.settle();
        now_or_never(answer).unwrap().unwrap().job
    }

    /// Asks for the end of a job.
    pub fn cancel(&mut self, job: JobId) -> Answer<Result<(), JobError>> {
        let reason = "not wanted any more".to_owned();
        self.ask(|reply| Input::Cancel { job, reason, reply })
    }

    /// Sends something to a job.
    pub fn signal(&mut self, job: JobId, name: &str, json: &str) -> Answer<Result<(), JobError>> {
        let (name, payload) = (name.to_owned(), Json::parse_text(json).unwrap());
        self.ask(|reply| Input::Signal {
            job,
            name,
            payload,
            reply,
        })
    }

    /// Begins to stop.
    pub fn shutdown(&mut self, finish_within: Duration, give_up_after: Duration) {
        self.send(Input::Shutdown(Shutdown {
            finish_within,
            give_up_after,
        }));
    }

    /// A job as it is shown.
    pub fn view(&mut self, job: JobId) -> JobView {
        self.find(job).expect("the job is known")
    }

    /// Asks, and takes turns until there is an answer: one, unless jobs sleep that it is about.
    fn asked<T>(&mut self, input: impl FnOnce(Reply<T>) -> Input) -> T {
        let mut answer = self.ask(input);
        for _ in 0..TURNS_TO_SETTLE {
            self.turn();
            if let Ok(answer) = answer.try_recv() {
                return answer;
            }
        }
        panic!("the node does not answer");
    }

    /// A job as it is shown, if it is known.
    pub fn find(&mut self, job: JobId) -> Option<JobView> {
        self.asked(|reply| Input::Get { job, reply })
    }

    /// Where a job stands.
    pub fn state(&mut self, job: JobId) -> JobState {
        self.view(job).state
    }

    /// Some jobs.
    pub fn list(&mut self, filter: JobFilter) -> Page {
        self.asked(|reply| Input::List { filter, reply })
    }

    /// All that the engine knows.
    pub fn dump(&mut self) -> Box<Dump> {
        self.asked(|reply| Input::Dump { reply })
    }

    /// Asks to be told when nothing is left to do.
    pub fn when_idle(&mut self) -> Answer<Idleness> {
        self.ask(|reply| Input::WhenIdle { reply })
    }

    /// The events since this was last called.
    pub fn take_events(&mut self) -> Vec<EventKind> {
        let mut events = Vec::new();
        while let Some(pal::Delivery::Event(event)) = self.events.try_recv() {
            events.push(event.kind.clone());
        }
        events
    }
}

/// What the clocks say. The monotonic one begins anew with each life.
fn now_of(disk: &MemStorage, begun: Duration) -> Now {
    let elapsed_ns = (disk.monotonic() - begun).as_nanos() as u64;
    Now {
        monotonic: Time::from_nanos(elapsed_ns),
        unix_ms: disk.unix_ms(),
    }
}

fn fold(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// What a future gives if it is asked once; `None` if it is not ready.
pub fn now_or_never<T>(answer: Answer<T>) -> Option<T> {
    let mut answer = pin!(answer);
    match answer
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(answer) => answer.ok(),
        Poll::Pending => None,
    }
}

//! One run: a node, its clients, its world and its machine, and a driver that does the next thing at random.
//!
//! First comes the *storm*: for some hundreds of steps the engine takes a turn, the log's writer works, the world answers,
//! a client calls, time goes on, and whatever the [`Swarm`] allows goes wrong. Clients do what clients do: who got no
//! answer asks again under the same key, who was refused for now tries again later. Then comes the *calm*: nothing goes
//! wrong any more, and everything must come to its end within a known number of rounds.
//!
//! Held against it are
//!
//! - the rules between entries, and between entries and effects: [`crate::ledger`];
//! - the promises of the log: [`crate::history`], and a flipped bit in what it acknowledged, which must be found;
//! - every acknowledgement: that the log has what is acknowledged; every event shown: that it is durable;
//! - every start: that no crash looks like damage, that the blobs are there that the log names, that no job is stuck;
//! - every end of a job: that a replay of its journal gives the recorded hash and ending;
//! - the end of it all: that each job has ended, once.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use runtime::effect::EffectDone;
use runtime::engine::Input;
use runtime::entry::{Entry, Record};
use runtime::{
    EffectError, JobError, JobId, JobPriority, JobSpec, JobState, Json, Payloads, Recorded,
    Stopped, SubmitError, Submitted,
};
use wal::sim::{MemStorage, Op};
use wal::{BlobId, BlobStore, Log, Lsn, OpenError, Options, Storage};

use crate::ledger::JobFacts;
use crate::node::{Answer, BLOB_DIR, LOG_DIR, Worked};
use crate::swarm::Swarm;
use crate::tale::{BUILDS, SIGNALS, Tale, programs};
use crate::{Behaviour, Node, Random, World};

/// In so many rounds everything must have come to its end once nothing goes wrong any more.
pub const CALM_ROUNDS_MAX: u64 = 2_000;

/// How many of the last things that happened are told when a run fails.
const STORY_LENGTH: usize = 40;

/// What happened, in order: all of it as a hash, the end of it in words.
#[derive(Debug, Default)]
pub struct Story {
    hash: u64,
    steps: u64,
    last: VecDeque<(u64, &'static str, u64)>,
    counts: BTreeMap<&'static str, u64>,
}

impl Story {
    fn say(&mut self, what: &'static str, number: u64) {
        let words = what.bytes().map(u64::from).chain([number]);
        self.hash = words.fold(self.hash, mix);
        *self.counts.entry(what).or_default() += 1;
        if self.last.len() == STORY_LENGTH {
            self.last.pop_front();
        }
        self.last.push_back((self.steps, what, number));
    }

    /// The last things that happened.
    #[must_use]
    pub fn end(&self) -> Vec<String> {
        let last = self.last.iter();
        last.map(|(step, what, number)| format!("step {step}: {what} {number}"))
            .collect()
    }

    /// The hash over everything so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }
}

/// All that a run leaves behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The hash over everything that happened: each step, each decision of the schedulers, each byte of the log.
    pub hash: u64,
    /// How many steps there were.
    pub steps: u64,
    /// How many changes of the disk there were.
    pub changes: u64,
    /// How often each thing happened.
    pub counts: BTreeMap<&'static str, u64>,
}

/// When the node goes down, besides what the swarm says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// As the swarm says.
    Random,
    /// Nothing goes wrong at all.
    Spared,
    /// Nothing goes wrong but a crash before this step.
    AtStep(u64),
    /// Nothing goes wrong but that the disk loses its power after so many changes.
    AfterChanges(u64),
}

struct Client {
    spec: JobSpec,
    tale: Tale,
    asked: Option<Answer<Result<Submitted, SubmitError>>>,
    job: Option<JobId>,
    cancel: Option<Answer<Result<(), JobError>>>,
    signals: Vec<(Answer<Result<(), JobError>>, String)>,
}

/// One run.
struct Run {
    node: Node,
    swarm: Swarm,
    fate: Fate,
    random: Random,
    story: Rc<RefCell<Story>>,
    clients: Vec<Client>,
    /// The wall clock at its latest so far.
    latest_ms: u64,
    build: u32,
    signals_sent: u64,
    /// The disk is full until this step.
    full_until: Option<u64>,
    leftovers: Option<Vec<BlobId>>,
    is_draining: bool,
    is_stormy: bool,
    replayed: BTreeMap<JobId, ()>,
}

/// Runs one seed. What happens is told to `story` as it happens.
///
/// # Panics
///
/// If a promise is broken.
pub fn run(seed: u64, fate: Fate, story: &Rc<RefCell<Story>>) -> Trace {
    let mut run = Run::new(seed, fate, Rc::clone(story));
    run.storm();
    run.calm();
    run.finish()
}

impl Run {
    fn new(seed: u64, fate: Fate, story: Rc<RefCell<Story>>) -> Self {
        let mut random = Random::new(seed);
        let mut swarm = Swarm::random(seed, &mut random);
        if fate != Fate::Random {
            swarm.setup.retention = Duration::from_secs(3_600);
        }
        let world = world(&swarm, random.split());
        world.limit_running(swarm.setup.limits.running_effects);
        world.ledger_mut().live_jobs_max = Some(swarm.setup.limits.live_jobs);
        let clients = (0..swarm.clients)
            .map(|number| client(number, &mut random))
            .collect();
        let node = Node::with(swarm.setup.clone(), programs(1), world);
        if let Fate::AfterChanges(changes) = fate {
            node.disk.power_off_after(changes);
        }
        Self {
            latest_ms: node.unix_ms(),
            node,
            swarm,
            fate,
            random,
            story,
            clients,
            build: 1,
            signals_sent: 0,
            full_until: None,
            leftovers: None,
            is_draining: false,
            is_stormy: true,
            replayed: BTreeMap::new(),
        }
    }

    fn say(&self, what: &'static str, number: u64) {
        self.story.borrow_mut().say(what, number);
    }

    fn steps(&self) -> u64 {
        self.story.borrow().steps
    }

    // --- the storm ---

    fn storm(&mut self) {
        while self.steps() < self.swarm.storm_steps && !self.is_over() {
            self.story.borrow_mut().steps += 1;
            self.step();
            self.look();
        }
    }

    fn step(&mut self) {
        if !self.node.is_alive() {
            self.start();
            return;
        }
        let goes_wrong = match self.fate {
            Fate::Random => self.go_wrong(),
            Fate::AtStep(step) if step == self.steps() => {
                self.go_down(self.steps() % 2 == 0);
                true
            }
            _ => false,
        };
        if !goes_wrong {
            self.go_on();
        }
        if self.node.is_alive() && self.node.stopped().is_some() {
            self.end();
        }
    }

    /// Does one of the things that happen all the time.
    fn go_on(&mut self) {
        let can_write = self.node.unwritten() > 0 || self.random.percent(10);
        let can_report = self.node.unreported() > 0;
        let can_answer = !self.node.world.ready().is_empty();
        let pace = &self.swarm.pace;
        let shares = [
            pace.turn,
            pace.write * u64::from(can_write),
            pace.report * u64::from(can_report),
            pace.answer * u64::from(can_answer),
            pace.call,
            pace.time,
            2,
        ];
        match weighted(&mut self.random, &shares) {
            0 => {
                self.say("turn", 0);
                self.node.turn();
            }
            1 => self.write(),
            2 => {
                let told = self.node.report();
                self.say("report", told.into());
            }
            3 => self.answer(),
            4 => self.call(),
            5 => {
                let ms = self.random.below(300);
                self.say("time", ms);
                self.node.disk.advance(Duration::from_millis(ms));
            }
            _ => self.nudge(),
        }
    }

    fn write(&mut self) {
        let most = 1 + self.random.below(self.swarm.group_max);
        let worked = self.node.work(most as usize);
        match worked {
            Worked::Nothing => self.say("nothing written", 0),
            Worked::Wrote(count) => self.say("written", count as u64),
            Worked::Stalled => self.say("stalled", 0),
            Worked::Failed => self.say("log failed", 0),
        }
        if worked == Worked::Failed && !self.node.disk.has_power() {
            self.go_down(true);
        }
    }

    fn answer(&mut self) {
        let ready = self.node.world.ready();
        if !ready.is_empty() {
            let id = *self.random.pick(&ready);
            self.say("answer", u64::from(id.step.0));
            self.node.world.answer(id);
        }
    }

    /// Lets something go wrong, if it is its time.
    fn go_wrong(&mut self) -> bool {
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

    fn go_down(&mut self, loses_power: bool) {
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

    /// The engine has stopped: so does the process.
    fn end(&mut self) {
        let stopped = self.node.stopped();
        let is_asked_to = self.is_draining;
        // Whoever was told before the end was told the truth.
        self.hear();
        let closed = self.node.exit();
        match stopped {
            Some(Stopped::Cleanly { .. }) => {
                assert!(
                    is_asked_to,
                    "the engine stopped, and nobody had asked it to"
                );
                if closed.is_ok() {
                    self.say("stopped", 0);
                    assert!(
                        self.node.world.ledger().has_stopped(),
                        "the process ended cleanly, and the log does not end with the marker of it"
                    );
                }
            }
            Some(Stopped::LogFailed(_)) => {
                self.say("failed", 0);
                assert!(
                    closed.is_err(),
                    "a log that has failed was closed as if it had not"
                );
            }
            None => unreachable!("asked only when it has stopped"),
        }
        if !self.node.disk.has_power() {
            self.node.disk.crash();
        }
        self.forget_calls();
    }

    fn forget_calls(&mut self) {
        self.is_draining = false;
        self.leftovers = None;
        for client in &mut self.clients {
            client.asked = None;
            client.cancel = None;
            client.signals.clear();
        }
    }

    fn start(&mut self) {
        let faults = self.swarm.faults.clone();
        let is_stormy = self.is_stormy && self.fate == Fate::Random;
        if is_stormy && faults.at_start.strikes(&mut self.random) {
            let nth = self.random.below(8);
            self.say("trouble at the start", nth);
            match self.random.below(4) {
                0 => self.node.disk.fail(Op::Sync, 1, ErrorKind::Other),
                1 => self.node.disk.fail(Op::Write, 1 + nth, ErrorKind::Other),
                2 => self
                    .node
                    .disk
                    .fail(Op::SyncDir, 1 + nth / 4, ErrorKind::Other),
                _ => self.node.disk.power_off_after(nth),
            }
        }
        if is_stormy && faults.upgrade.strikes(&mut self.random) && self.build < BUILDS {
            self.build += 1;
            self.say("upgrade", self.build.into());
            self.node.programs = programs(self.build);
        }
        match self.node.try_start() {
            Ok(()) => {
                self.say("started", 0);
                self.check_start();
            }
            Err(OpenError::Io(failure)) => {
                self.say("not started", 0);
                assert!(is_stormy, "a good disk failed: {failure}");
                if self.node.disk.has_power() && self.random.percent(50) {
                    self.node.disk.kill();
                } else {
                    self.node.disk.crash();
                }
            }
            Err(OpenError::NoSpace(failure)) => {
                self.say("no space to start", 0);
                assert!(is_stormy, "a disk without a limit was full: {failure}");
                self.node.disk.kill();
            }
            Err(error) => panic!("a crash is taken for damage: {error}"),
        }
    }

    fn check_start(&mut self) {
        self.check_blobs();
        let stuck = self.node.list(Default::default()).jobs;
        let stuck = stuck.iter().find(|view| view.state == JobState::Stuck);
        if let Some(view) = stuck {
            panic!("{} is stuck: {:?}", view.id, view.error);
        }
    }

    /// The disk as it is, for somebody to look at to whom nothing happens.
    fn sound_copy(&self) -> MemStorage {
        let copy = self.node.disk.fork();
        copy.heal();
        copy
    }

    /// Every blob must be there and sound that an entry names which the log still has.
    fn check_blobs(&self) {
        let storage: Arc<dyn Storage> = Arc::new(self.sound_copy());
        let blobs = BlobStore::open(BLOB_DIR, Arc::clone(&storage)).unwrap();
        let records = wal::Reader::open(LOG_DIR, storage, Lsn::FIRST).unwrap();
        for record in records {
            let (lsn, bytes) = record.unwrap();
            if let Ok(Record::Job(_, entry)) = Record::decode(&bytes) {
                entry.visit_blobs(|id| {
                    if let Err(error) = blobs.get(BlobId(id)) {
                        panic!("LSN {lsn} names a blob, and {error}");
                    }
                });
            }
        }
    }

    // --- clients ---

    /// A client does what it does next: submits, signals, waits.
    fn call(&mut self) {
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
                if self.random.percent(30) {
                    let name = *self.random.pick(&SIGNALS);
                    self.signal(index, job, name);
                }
            }
        }
    }

    fn signal(&mut self, index: usize, job: JobId, name: &str) {
        self.signals_sent += 1;
        self.say("signal", self.signals_sent);
        let payload = self.signals_sent.to_string();
        let answer = self.node.signal(job, name, &payload);
        self.clients[index].signals.push((answer, payload));
    }

    fn cancel(&mut self) {
        let index = self.random.below(self.clients.len() as u64) as usize;
        if let Some(job) = self.clients[index].job {
            self.say("cancel", index as u64);
            self.clients[index].cancel = Some(self.node.cancel(job));
        }
    }

    fn answer_again(&mut self) {
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

    fn submit_again(&mut self) {
        let index = self.random.below(self.clients.len() as u64) as usize;
        let client = &mut self.clients[index];
        if client.job.is_some() && client.asked.is_none() && client.spec.key.is_some() {
            let spec = client.spec.clone();
            client.asked = Some(self.node.submit(spec));
            self.say("submit again", index as u64);
        }
    }

    fn look_for_leftovers(&mut self) {
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

    /// If nothing goes on by itself, something from outside does.
    fn nudge(&mut self) {
        if self.node.is_busy() || self.node.unwritten() > 0 || !self.node.world.ready().is_empty() {
            return;
        }
        let running = self.node.world.running_ids();
        if !running.is_empty() && self.random.percent(50) {
            let id = *self.random.pick(&running);
            self.say("end what hangs", u64::from(id.step.0));
            let result = Ok(Json::of("in the end"));
            self.node.world.complete_id(id, result);
        } else {
            let by = self.node.advance_to_deadline();
            self.say("deadline", by.map_or(0, |by| by.as_millis() as u64));
        }
    }

    // --- what must hold at every step ---

    fn look(&mut self) {
        self.latest_ms = self.latest_ms.max(self.node.unix_ms());
        self.hear();
        let last = self.node.history.last();
        while let Some(pal::Delivery::Event(event)) = self.node.events.try_recv() {
            assert!(
                event.lsn.is_none_or(|lsn| lsn <= last.0),
                "an event was shown before it was durable: {:?}",
                event.kind
            );
        }
        if self.node.is_alive() {
            assert!(
                self.node.unwritten() + self.node.unreported() <= 8,
                "the queue of the log grows"
            );
        }
        self.replay_new_ends();
    }

    /// The clients look for answers, and hold them against what is on disk.
    fn hear(&mut self) {
        let ledger = self.node.world.ledger();
        for client in &mut self.clients {
            if let Some(asked) = &mut client.asked
                && let Ok(answer) = asked.try_recv()
            {
                client.asked = None;
                match answer {
                    Ok(Submitted { job, is_new }) => {
                        assert!(ledger.has(job), "{job} is acknowledged and not durable");
                        if let Some(known) = client.job.filter(|known| *known != job) {
                            let facts = ledger.job(known);
                            let forgotten = facts.and_then(|facts| facts.finished_ms);
                            let retention_ms = self.swarm.setup.retention.as_millis() as u64;
                            assert!(
                                is_new
                                    && forgotten
                                        .is_some_and(|end| end + retention_ms <= self.latest_ms),
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

    /// Every job that has ended is replayed, once.
    fn replay_new_ends(&mut self) {
        let ledger = self.node.world.ledger();
        let ended: Vec<JobId> = ledger
            .jobs()
            .filter(|(job, facts)| facts.finished_ms.is_some() && !self.replayed.contains_key(job))
            .map(|(job, _)| job)
            .collect();
        drop(ledger);
        for job in ended {
            self.replayed.insert(job, ());
            let ledger = self.node.world.ledger();
            let facts = ledger.job(job).expect("a job, because it has ended");
            self.replay(job, facts);
        }
    }

    fn replay(&self, job: JobId, facts: &JobFacts) {
        let records = facts.records.iter();
        let journal: Vec<Recorded> = records
            .map(|(lsn, bytes)| Recorded {
                lsn: *lsn,
                bytes: bytes.as_slice().into(),
            })
            .collect();
        let last = journal.last().map(|recorded| recorded.entry().unwrap());
        let storage: Arc<dyn Storage> = Arc::new(self.sound_copy());
        let blobs = Arc::new(BlobStore::open(BLOB_DIR, storage).unwrap());
        let payloads = Arc::new(Payloads::new(blobs, self.swarm.setup.threshold_bytes));
        let replayed = runtime::replay(&self.node.programs, &payloads, job, journal)
            .unwrap_or_else(|error| panic!("{job} cannot be replayed: {error}"));
        let Some(Entry::Finished {
            ending,
            journal: hash,
            ..
        }) = last
        else {
            panic!("{job} is over, and its journal does not say so");
        };
        assert_eq!(
            replayed.hash, hash,
            "the replay of {job} gives another hash"
        );
        assert_eq!(
            replayed.ending.as_ref(),
            Some(&ending),
            "the replay of {job} ends otherwise"
        );
    }

    fn is_over(&self) -> bool {
        let ledger = self.node.world.ledger();
        self.clients
            .iter()
            .all(|client| client.job.is_some_and(|job| ledger.is_over(job)))
    }

    // --- the calm ---

    /// Nothing goes wrong any more: everything comes to its end.
    fn calm(&mut self) {
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
            let ledger = self.node.world.ledger();
            let all_over = ledger.jobs().all(|(_, facts)| facts.finished_ms.is_some());
            drop(ledger);
            if self.is_over() && all_over {
                return;
            }
            self.help();
        }
    }

    fn unfinished(&mut self) -> String {
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
    fn help(&mut self) {
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
                if sent < self.clients[index].tale.signals(name) {
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

    // --- the end ---

    fn finish(mut self) -> Trace {
        self.node.settle();
        self.look();
        let running = self.node.world.running_unasked();
        assert!(
            running.is_empty(),
            "all jobs are over, and effects run: {running:?}"
        );
        self.check_list();
        self.node.kill();
        self.node.start();
        self.check_start();
        self.check_list();
        self.node.kill();
        self.flip_bits();
        let mut story = self.story.borrow_mut();
        let log = self.node.history.records();
        for (lsn, bytes) in log {
            story.hash = bytes.iter().fold(mix(story.hash, lsn.0), |hash, byte| {
                mix(hash, (*byte).into())
            });
        }
        story.hash = mix(story.hash, self.node.trace);
        let ledger = self.node.world.ledger();
        story.counts.insert("interrupted", ledger.interrupted);
        story.counts.insert("checkpoints", ledger.checkpoints);
        Trace {
            hash: story.hash,
            steps: story.steps,
            changes: self.node.disk.changes(),
            counts: story.counts.clone(),
        }
    }

    /// Every job is known that must be: what is over may be forgotten after the retention, and no sooner.
    fn check_list(&mut self) {
        let known = self.node.list(runtime::JobFilter {
            limit: usize::MAX,
            ..Default::default()
        });
        let retention_ms = self.swarm.setup.retention.as_millis() as u64;
        let latest_ms = self.latest_ms.max(self.node.unix_ms());
        let ledger = self.node.world.ledger();
        for (job, facts) in ledger.jobs() {
            let is_kept = facts
                .finished_ms
                .is_none_or(|end| end + retention_ms > latest_ms);
            let view = known.jobs.iter().find(|view| view.id == job);
            assert!(
                view.is_some() || !is_kept,
                "{job} is forgotten, and should be known"
            );
            if let Some(view) = view {
                assert_eq!(view.state.is_final(), facts.finished_ms.is_some());
            }
        }
    }

    /// A flipped bit anywhere in what the log has acknowledged must be found, and no other.
    fn flip_bits(&mut self) {
        let open = |disk: &MemStorage| {
            let options = Options {
                segment_bytes: self.swarm.setup.segment_bytes,
                ..Options::new(LOG_DIR)
            };
            Log::open(options, Arc::new(disk.clone()), wal::ignore).map(drop)
        };
        let sound = self.node.disk.fork();
        open(&sound).unwrap_or_else(|error| panic!("a sound log is taken for damaged: {error}"));
        let files = sound.files();
        let segments: Vec<_> = files
            .iter()
            .filter(|path| path.starts_with(LOG_DIR) && path.extension().is_some())
            .collect();
        for _ in 0..4 {
            let path = *self.random.pick(&segments);
            let bytes = sound.read_file(path).unwrap();
            // The last byte of a frame is never zero, and after a recovery only zeros follow the last frame.
            let length = bytes
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |last| last + 1);
            let bit = self.random.below(8 * length as u64);
            let disk = sound.fork();
            disk.flip_bit(path, bit);
            match open(&disk) {
                Err(OpenError::Damaged(_)) => {}
                Err(error) => panic!("bit {bit} of {} is flipped: {error}", path.display()),
                Ok(()) => panic!(
                    "bit {bit} of {} is flipped in what was acknowledged, and nobody notices",
                    path.display()
                ),
            }
        }
    }
}

fn client(number: u64, random: &mut Random) -> Client {
    let tale = Tale::random(random);
    // Its name is its number, so that a job that nobody remembers is known by its entry.
    let mut spec = JobSpec::new("tale", Json::of(&tale)).named(number.to_string());
    if random.percent(85) {
        spec = spec.keyed(format!("key {number}"));
    }
    spec.priority = *random.pick(&[JobPriority::Low, JobPriority::Normal, JobPriority::High]);
    Client {
        spec,
        tale,
        asked: None,
        job: None,
        cancel: None,
        signals: Vec::new(),
    }
}

fn world(swarm: &Swarm, mut chance: Random) -> World {
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

/// The index of one of these, as often as its share says.
fn weighted(random: &mut Random, shares: &[u64]) -> usize {
    let mut at = random.below(shares.iter().sum());
    for (index, share) in shares.iter().enumerate() {
        if at < *share {
            return index;
        }
        at -= share;
    }
    unreachable!("the number is below the sum of all shares")
}

fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(5) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

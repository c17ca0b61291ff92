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

mod calm;
mod checks;
mod clients;
mod faults;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use runtime::{JobId, Json, Stopped};
use wal::sim::Op;
use wal::{BlobId, OpenError};

use self::checks::Watched;
use self::clients::Client;
use crate::node::Worked;
use crate::story::{Story, mix};
use crate::swarm::Swarm;
use crate::tale::{BUILDS, Tale, programs};
use crate::{Node, Random};

/// In so many rounds everything must have come to its end once nothing goes wrong any more.
pub const CALM_ROUNDS_MAX: u64 = 2_000;

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

/// One run.
struct Run {
    node: Node,
    swarm: Swarm,
    fate: Fate,
    random: Random,
    story: Rc<RefCell<Story>>,
    clients: Vec<Client>,
    /// What each job is to do; its name is the number of its tale.
    tales: Vec<Tale>,
    /// The wall clock at its latest so far.
    latest_ms: u64,
    build: u32,
    signals_sent: u64,
    /// The disk is full until this step.
    full_until: Option<u64>,
    leftovers: Option<Vec<BlobId>>,
    is_draining: bool,
    is_stormy: bool,
    /// Jobs that have ended, and were replayed.
    replayed: BTreeSet<JobId>,
    watched: Watched,
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
            // There are as many runs as one has steps, or changes of the disk.
            swarm.storm_steps = swarm.storm_steps.min(100);
        }
        let world = faults::world(&swarm, random.split());
        world.limit_running(swarm.setup.limits.running_effects);
        world.ledger_mut().live_jobs_max = Some(swarm.setup.limits.live_jobs);
        world.ledger_mut().only_tales = true;
        let node = Node::with(swarm.setup.clone(), programs(1), world);
        if let Fate::AfterChanges(changes) = fate {
            node.disk.power_off_after(changes);
        }
        let mut run = Self {
            latest_ms: node.unix_ms(),
            node,
            swarm,
            fate,
            random,
            story,
            clients: Vec::new(),
            tales: Vec::new(),
            build: 1,
            signals_sent: 0,
            full_until: None,
            leftovers: None,
            is_draining: false,
            is_stormy: true,
            replayed: BTreeSet::new(),
            watched: Watched::default(),
        };
        for _ in 0..run.swarm.clients {
            let client = run.new_client();
            run.clients.push(client);
        }
        run
    }

    fn say(&self, what: &'static str, number: u64) {
        self.story.borrow_mut().say(what, number);
    }

    fn steps(&self) -> u64 {
        self.story.borrow().steps
    }

    fn storm(&mut self) {
        while self.steps() < self.swarm.storm_steps {
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
                self.go_down(self.steps().is_multiple_of(2));
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
            if can_report || can_answer || self.node.is_busy() {
                1
            } else {
                8
            },
        ];
        match weighted(&mut self.random, &shares) {
            0 => {
                self.say("turn", 0);
                self.turn();
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
            // There may be space again by now: the engine did not wait to hear of it.
            Some(Stopped::OutOfSpace(_)) => {
                assert!(
                    is_asked_to,
                    "the engine stopped, and nobody had asked it to"
                );
                self.say("out of space", 0);
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
        self.watched = Watched::default();
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

    fn is_over(&self) -> bool {
        let ledger = self.node.world.ledger();
        self.clients
            .iter()
            .all(|client| client.job.is_some_and(|job| ledger.is_over(job)))
    }

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
        story.counts.insert("released", ledger.released);
        let reused = self.node.history.reused;
        story.counts.insert("reused", reused);
        Trace {
            hash: story.hash,
            steps: story.steps,
            changes: self.node.disk.changes(),
            counts: story.counts.clone(),
        }
    }
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

//! The power fails: nothing acknowledged is lost, nothing finished is repeated.
//!
//! The real binary, with its data on ext4 on a block device that forgets what was not flushed ([`PowerDisk`]). It runs jobs
//! of every class until the power fails at some write or flush, is started again on what has survived, and so on, until
//! it comes to the end of the work. Effects add lines to a file on another disk, as the world outside has a memory of its own.
//!
//! `TINKERBELL_POWER_CUTS` is how many cuts there are at least, `TINKERBELL_POWER_SEED` what they are drawn from.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{
    Daemon, Effect, Effects, Ended, Entry, Journal, Node, PowerDisk, Random, are_over, end_of, skip,
};

const CLASSES: [&str; 4] = ["read", "keyed", "workspace", "external"];
const JOBS: usize = 12;

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Plans of two steps and single commands, of all classes.
fn load() -> String {
    let mut config = "[node]\nexit_when_idle = true\n".to_owned();
    let effect =
        |job: &str, step: &str| format!("echo {job} {step} >> $TINKERBELL_START_DIR/effects");
    for number in 0..JOBS {
        let (name, class) = (format!("job-{number}"), CLASSES[number % CLASSES.len()]);
        let written = match number % 3 {
            0 => write!(
                config,
                "[[job]]\nname = \"{name}\"\nprogram = \"command\"\nclass = \"{class}\"\non_interrupted = \"continue\"\n\
                 shell = '{}'\n",
                effect(&name, "sh")
            ),
            _ => write!(
                config,
                "[[job]]\nname = \"{name}\"\nprogram = \"plan\"\n\
                 [[job.steps]]\nid = \"one\"\nclass = \"{class}\"\non_interrupted = \"continue\"\nrun.shell = '{}'\n\
                 [[job.steps]]\nid = \"two\"\nneeds = [\"one\"]\non_interrupted = \"continue\"\nrun.shell = '{}'\n",
                effect(&name, "one"),
                effect(&name, "two")
            ),
        };
        written.expect("text takes text");
    }
    config
}

/// A node whose data is on a disk that loses its power.
struct Campaign {
    disk: PowerDisk,
    node: Node,
    /// The id under which each job was first acknowledged.
    acknowledged: BTreeMap<String, String>,
    /// The lines of each effect when it was first found finished in the log.
    finished: BTreeMap<Effect, usize>,
    cuts: u64,
    /// Cuts at which a job was acknowledged and not over.
    cuts_at_work: usize,
}

impl Campaign {
    fn new(seed: u64, config: &str) -> Result<Self, String> {
        let disk = PowerDisk::new(seed)?;
        Ok(Self {
            node: Node::at(disk.path("data"), config),
            disk,
            acknowledged: BTreeMap::new(),
            finished: BTreeMap::new(),
            cuts: 0,
            cuts_at_work: 0,
        })
    }

    fn spawn(&self) -> Daemon {
        Daemon::spawn(&mut self.disk.command(&self.node, &[]))
    }

    /// Cuts the power again and again, then lets the daemon come to its end.
    fn run(mut self, random: &mut Random) -> Self {
        /// After so many it is left alone, so that bad luck cannot make it endless.
        const CUTS_MAX: u64 = 20;
        while self.cuts < CUTS_MAX {
            // From a new log, or the first look at an old one, to the middle of the work.
            let within = [20, 60, 250][random.below(3) as usize];
            self.disk.cut_after(random.below(within));
            let daemon = self.spawn();
            while !self.disk.is_cut() {
                if daemon.ends_within(Duration::from_millis(1)) {
                    self.conclude(&daemon.ended());
                    return self;
                }
            }
            self.dies(daemon);
            self.disk.restore().expect("the file system has a journal");
            self.look();
        }
        let ended = self.spawn().ended();
        self.conclude(&ended);
        self
    }

    /// The machine is dead, and everybody on it.
    fn dies(&mut self, daemon: Daemon) {
        self.cuts += 1;
        daemon.signal(Signal::KILL);
        // From here on it cannot take an answer any more, only end.
        self.disk.everybody_is_dead();
        let ended = daemon.killed();
        loop {
            let left = self.node.place.processes();
            if left.is_empty() {
                break;
            }
            left.iter().for_each(|process| process.signal(Signal::KILL));
            are_over(&left);
        }
        self.note_acknowledged(&ended);
    }

    /// What was acknowledged is what the daemon has said was taken in.
    fn note_acknowledged(&mut self, ended: &Ended) {
        for (name, job) in ended.start_up_jobs() {
            let first = self.acknowledged.entry(name).or_insert_with(|| job.clone());
            assert_eq!(
                *first, job,
                "an acknowledged job was lost and taken in again"
            );
        }
    }

    fn journal(&self) -> Journal {
        let run = |args| end_of(&mut self.disk.command(&self.node, args)).with(0);
        run(&["log", "verify"]);
        let cat = run(&["log", "cat"]).stdout;
        Journal::of(cat.lines().map(Entry::parse).collect())
    }

    /// What has survived: all that was acknowledged, and whatever is over.
    fn look(&mut self) {
        let journal = match self.disk.seen_from_here("data/wal").is_dir() {
            true => self.journal(),
            false => Journal::default(),
        };
        for (name, job) in &self.acknowledged {
            let found = journal.jobs.get(name).map(Vec::as_slice);
            assert_eq!(
                found,
                Some(&[job.clone()][..]),
                "an acknowledged job is lost: {name}"
            );
        }
        let over = journal.of_kind("finished").count();
        self.cuts_at_work += usize::from(self.acknowledged.len() > over);
        let lines = self.lines();
        for (effect, state) in Effects::of(&journal).0 {
            if state.outcome.is_some() {
                let count = lines.get(&effect).copied().unwrap_or(0);
                self.finished.entry(effect).or_insert(count);
            }
        }
    }

    /// How many lines each effect has added.
    fn lines(&self) -> BTreeMap<Effect, usize> {
        let mut lines = BTreeMap::new();
        for line in self.node.place.read("effects").lines() {
            let (job, step) = line.split_once(' ').expect("an effect adds whole lines");
            *lines.entry((job.to_owned(), step.to_owned())).or_default() += 1;
        }
        lines
    }

    /// Holds the end against everything that was seen on the way.
    fn conclude(&mut self, ended: &Ended) {
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        self.note_acknowledged(ended);
        let journal = self.journal();
        assert_eq!(self.acknowledged.len(), JOBS);
        for (name, job) in &self.acknowledged {
            assert_eq!(
                journal.job(name),
                job,
                "an acknowledged job is lost: {name}"
            );
            let entries = journal.entries_of(name);
            let ends = entries.iter().filter(|entry| entry.kind() == "finished");
            let ends: Vec<_> = ends.map(|entry| entry.ending()).collect();
            assert_eq!(ends, [Some("completed")], "{name}");
        }
        let lines = self.lines();
        for (effect, state) in Effects::of(&journal).0 {
            let count = lines.get(&effect).copied().unwrap_or(0);
            if let Some(&then) = self.finished.get(&effect) {
                assert_eq!(count, then, "a finished effect was repeated: {effect:?}");
            }
            match (state.class.as_str(), state.outcome.as_deref()) {
                ("external", Some("interrupted")) => assert!(count <= 1, "{effect:?}: {count}"),
                ("external", Some("ok")) => assert_eq!(count, 1, "{effect:?}"),
                // Those may be begun again: a read even without a trace of it in the log, before its intent is durable.
                ("read", Some("ok")) => assert!(count >= 1, "{effect:?}"),
                (_, Some("ok")) => {
                    assert!(
                        (1..=1 + state.begun_again).contains(&count),
                        "{effect:?}: {count}"
                    );
                }
                other => panic!("{effect:?}: {other:?}"),
            }
        }
    }
}

/// Whether this machine can do it; says so if it cannot.
fn campaign(test: &str, seed: u64, config: &str) -> Option<Campaign> {
    match Campaign::new(seed, config) {
        Ok(campaign) => Some(campaign),
        Err(reason) => {
            skip(test, &reason);
            None
        }
    }
}

#[test]
fn whenever_the_power_fails_nothing_is_lost_and_nothing_done_twice() {
    let test = "whenever_the_power_fails_nothing_is_lost_and_nothing_done_twice";
    let cuts = number("TINKERBELL_POWER_CUTS", 30);
    let mut random = Random::new(number("TINKERBELL_POWER_SEED", 1));
    let (mut done, mut at_work, mut with_unsynced, mut lost, mut kept) = (0, 0, 0, 0, 0);
    while done < cuts {
        let Some(campaign) = campaign(test, random.next(), &load()) else {
            return;
        };
        let campaign = campaign.run(&mut random);
        at_work += campaign.cuts_at_work;
        let tally = campaign.disk.tally();
        done += tally.cuts as u64;
        with_unsynced += tally.cuts_with_unsynced;
        lost += tally.sectors_lost;
        kept += tally.sectors_kept;
    }
    println!(
        "{done} cuts, {at_work} of jobs at work, {with_unsynced} with {lost} sectors lost and {kept} kept that were not flushed"
    );
    assert!(
        at_work > 0 && with_unsynced > 0 && lost > 0 && kept > 0,
        "nothing was ever at stake"
    );
}

/// The test's own test: a log that is not synced does lose what it has acknowledged.
#[test]
fn without_syncs_the_power_takes_what_was_acknowledged() {
    let test = "without_syncs_the_power_takes_what_was_acknowledged";
    let config = "[wal]\nsync = \"never\"\n[[job]]\nname = \"job\"\nprogram = \"command\"\nargv = [\"true\"]\n";
    let Some(mut campaign) = campaign(test, 1, config) else {
        return;
    };
    let mut daemon = campaign.spawn();
    daemon.ready();
    campaign.disk.cut();
    campaign.dies(daemon);
    campaign
        .disk
        .restore()
        .expect("the file system has a journal");
    assert_eq!(campaign.acknowledged.len(), 1);
    let journal = campaign.journal();
    assert!(!journal.jobs.contains_key("job"), "the cut has cut nothing");
}

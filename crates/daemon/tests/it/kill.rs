//! kill -9 at random moments: nothing acknowledged is lost, nothing finished is repeated.
//!
//! A *campaign* is a node with a load of jobs of every class, each of whose effects appends a line to one file. Its
//! daemon is killed at a random moment, again and again, also while it boots and recovers, until it comes to the end of
//! the work by itself. After every kill the log is read: what it says then is what the end is measured by.
//!
//! `TINKERBELL_KILL_ROUNDS` is how many kills there are at least, `TINKERBELL_KILL_SEED` what they are drawn from.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Daemon, Effect, Effects, Ended, Journal, Node, Random};

/// What the kills of all campaigns came upon; a test that came upon nothing shows nothing.
#[derive(Debug, Default)]
struct Tally {
    kills: usize,
    /// Kills before the daemon was ready.
    kills_in_boot: usize,
    /// Kills that took the supervisors along, so that only the mark finds what is left.
    kills_with_supervisors: usize,
    /// Effects of class `external` that were interrupted.
    unknown: usize,
    /// Tries that were begun again, by class.
    begun_again: BTreeMap<String, usize>,
}

#[test]
fn killed_at_any_moment_nothing_is_lost_and_nothing_done_twice() {
    let number = |name| {
        std::env::var(name)
            .ok()
            .and_then(|text: String| text.parse().ok())
    };
    let rounds = number("TINKERBELL_KILL_ROUNDS").unwrap_or(200);
    let seed = number("TINKERBELL_KILL_SEED").unwrap_or(1);
    let mut random = Random::new(seed as u64);
    let mut tally = Tally::default();
    while tally.kills < rounds {
        Campaign::new().run(&mut random, &mut tally);
    }
    println!("{tally:?}");
    assert!(
        tally.kills_in_boot > 0 && tally.kills_with_supervisors > 0,
        "{tally:?}"
    );
    assert!(tally.unknown > 0, "{tally:?}");
    for class in ["read", "workspace", "keyed"] {
        assert!(tally.begun_again.contains_key(class), "{class}: {tally:?}");
    }
    assert!(!tally.begun_again.contains_key("external"), "{tally:?}");
}

/// What an effect does: say so, once, and take its time before or after. It holds a lock while it lives, so that a
/// second copy beside it would be seen. (`TINKERBELL_START_DIR` is the node's place.)
fn script(job: &str, step: &str, class: &str, takes_time_first: bool) -> String {
    let inside = match class {
        "workspace" => format!("echo once >> {step}.txt; "),
        _ => String::new(),
    };
    let effect = format!(
        "{inside}echo {job} {step} $TINKERBELL_ATTEMPT $TINKERBELL_IDEMPOTENCY_KEY >> $place/effects"
    );
    let (first, second) = match takes_time_first {
        true => ("sleep 0.03", effect.as_str()),
        false => (effect.as_str(), "sleep 0.03"),
    };
    format!(
        "place=$TINKERBELL_START_DIR; exec 9>>$place/lock.{job}.{step}; \
         flock -n 9 || echo twice {job} {step} >> $place/effects; {first}; {second}"
    )
}

const CLASSES: [&str; 4] = ["read", "keyed", "workspace", "external"];
const PLANS: usize = 10;
const COMMANDS: usize = 8;

fn load() -> String {
    let mut config = "[node]\nexit_when_idle = true\n".to_owned();
    for number in 0..PLANS {
        let name = format!("plan-{number}");
        write!(config, "[[job]]\nname = \"{name}\"\nprogram = \"plan\"\n")
            .expect("text takes text");
        // One of each class side by side, then two that need them.
        let steps = CLASSES.iter().map(|class| (*class, *class, "[]"));
        let after = [
            ("sum", "workspace", "[\"workspace\"]"),
            ("tell", "external", "[\"read\", \"keyed\"]"),
        ];
        for (step, class, needs) in steps.chain(after) {
            write!(
                config,
                "[[job.steps]]\nid = \"{step}\"\nclass = \"{class}\"\nneeds = {needs}\non_interrupted = \"continue\"\n\
                 run.shell = '{}'\n",
                script(&name, step, class, number % 2 == 0)
            )
            .expect("text takes text");
        }
    }
    for number in 0..COMMANDS {
        let (name, class) = (format!("command-{number}"), CLASSES[number % CLASSES.len()]);
        write!(
            config,
            "[[job]]\nname = \"{name}\"\nprogram = \"command\"\nclass = \"{class}\"\non_interrupted = \"continue\"\n\
             shell = '{}'\n",
            script(&name, "sh", class, number % 3 == 0)
        )
        .expect("text takes text");
    }
    // One that would take far too long, until it has been interrupted: what is left of it then must be ended.
    write!(
        config,
        "[[job]]\nname = \"long\"\nprogram = \"command\"\nclass = \"read\"\nshell = '{}; \
         test $(grep -c \"^long\" $place/effects) -gt 1 || sleep 1000'\n",
        script("long", "sh", "read", true)
    )
    .expect("text takes text");
    config
}

struct Campaign {
    node: Node,
    /// The id under which each job was first acknowledged.
    acknowledged: BTreeMap<String, String>,
    /// The lines of each effect when it was first found finished in the log.
    finished: BTreeMap<Effect, usize>,
    /// External effects that were begun and not over when the daemon was killed.
    in_doubt: BTreeSet<Effect>,
}

impl Campaign {
    fn new() -> Self {
        Self {
            node: Node::new(&load()),
            acknowledged: BTreeMap::new(),
            finished: BTreeMap::new(),
            in_doubt: BTreeSet::new(),
        }
    }

    fn run(mut self, random: &mut Random, tally: &mut Tally) {
        /// After so many it is left alone, so that bad luck cannot make it endless.
        const KILLS_MAX: usize = 40;
        for _ in 0..KILLS_MAX {
            let daemon = self.node.spawn();
            // From where the moment is drawn: the start, the end of the log's recovery, or being ready.
            let (from, most_us) = match random.below(4) {
                0 => (None, 20_000),
                1 => (Some("\"phase\":\"wal\""), 20_000),
                _ => (Some("\"message\":\"ready\""), 150_000),
            };
            if let Some(line) = from {
                daemon.stderr.wait_for(0, line, |said| said.contains(line));
            }
            if daemon.ends_within(Duration::from_micros(random.below(most_us))) {
                return self.conclude(&daemon.ended(), random, tally);
            }
            let with_supervisors = random.below(4) == 0;
            let ended = if with_supervisors {
                self.kill_all(daemon)
            } else {
                daemon.killed()
            };
            if ended.code == 0 {
                return self.conclude(&ended, random, tally);
            }
            tally.kills += 1;
            tally.kills_in_boot += usize::from(!ended.stderr.contains("\"message\":\"ready\""));
            tally.kills_with_supervisors += usize::from(with_supervisors);
            self.note_acknowledged(&ended);
            self.look();
        }
        let ended = self.node.spawn().ended();
        self.conclude(&ended, random, tally);
    }

    /// Kills the daemon and the supervisors of its tools at one moment: those that could clean up stand still first.
    fn kill_all(&self, daemon: Daemon) -> Ended {
        let processes = self.node.processes();
        let supervisors = || processes.iter().filter(|process| process.is_supervisor());
        supervisors().for_each(|supervisor| supervisor.signal(Signal::STOP));
        daemon.signal(Signal::KILL);
        supervisors().for_each(|supervisor| supervisor.signal(Signal::KILL));
        daemon.killed()
    }

    /// What was acknowledged is what the daemon has said was taken in.
    fn note_acknowledged(&mut self, ended: &Ended) {
        for (name, job) in ended.start_up_jobs() {
            let first = self.acknowledged.entry(name).or_insert_with(|| job.clone());
            assert_eq!(*first, job, "a job was taken in twice");
        }
    }

    /// Notes what the log says after a kill.
    fn look(&mut self) {
        if !self.node.data_dir().join("wal").is_dir() {
            return;
        }
        let effects = Effects::of(&self.node.journal());
        let lines = self.lines();
        for (effect, state) in &effects.0 {
            if state.outcome.is_some() {
                let count = lines.get(effect).map_or(0, Vec::len);
                self.finished.entry(effect.clone()).or_insert(count);
            } else if state.class == "external" {
                self.in_doubt.insert(effect.clone());
            }
        }
    }

    /// What the effects have written: for each, the rest of its lines.
    fn lines(&self) -> BTreeMap<Effect, Vec<String>> {
        let mut lines: BTreeMap<Effect, Vec<String>> = BTreeMap::new();
        let text = self.node.place.read("effects");
        assert!(
            !text.contains("twice"),
            "two copies of one effect at work:\n{text}"
        );
        for line in text.lines() {
            let mut words = line.splitn(3, ' ').map(str::to_owned);
            let (Some(job), Some(step), Some(rest)) = (words.next(), words.next(), words.next())
            else {
                panic!("what an effect wrote is not whole: {line}");
            };
            lines.entry((job, step)).or_default().push(rest);
        }
        lines
    }

    /// Holds the end against everything that was seen on the way.
    fn conclude(mut self, ended: &Ended, random: &mut Random, tally: &mut Tally) {
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        self.note_acknowledged(ended);
        // Also those that a killed daemon could not end, and whose supervisors were killed with it.
        let left = self.node.processes();
        assert!(left.is_empty(), "{left:?}");
        self.node.run(&["log", "verify"]).with(0);
        let journal = self.node.journal();
        assert_eq!(journal.jobs.len(), PLANS + COMMANDS + 1);
        assert_eq!(self.acknowledged.len(), journal.jobs.len());
        for (name, job) in &self.acknowledged {
            assert_eq!(
                journal.job(name),
                job,
                "an acknowledged job is lost: {name}"
            );
            let entries = journal.entries_of(name);
            let endings: Vec<_> = entries
                .iter()
                .filter(|entry| entry.kind() == "finished")
                .map(|entry| entry.ending())
                .collect();
            assert_eq!(endings, [Some("completed")], "{name}");
        }
        self.check_effects(&journal, tally);
        self.check_workspaces(&journal);
        for _ in 0..3 {
            let name = format!("plan-{}", random.below(PLANS as u64));
            let replayed = self.node.run(&["replay", &name]).with(0).stdout;
            let entries = journal.entries_of(&name);
            let hash = entries.last().and_then(|entry| entry.0["journal"].as_str());
            assert!(
                replayed.contains(hash.expect("the last entry has the hash")),
                "{replayed}"
            );
        }
    }

    fn check_effects(&self, journal: &Journal, tally: &mut Tally) {
        let effects = Effects::of(journal);
        assert_eq!(effects.0.len(), PLANS * 6 + COMMANDS + 1);
        let lines = self.lines();
        for (effect, state) in &effects.0 {
            let lines = lines.get(effect).map_or(&[][..], Vec::as_slice);
            if let Some(&then) = self.finished.get(effect) {
                assert_eq!(
                    lines.len(),
                    then,
                    "a finished effect was repeated: {effect:?}"
                );
            }
            let outcome = state
                .outcome
                .as_deref()
                .expect("a finished job has no open effects");
            let in_doubt = self.in_doubt.contains(effect);
            if state.class == "external" {
                // Once at the most, and whether it was is said to be unknown exactly when it is.
                assert!(lines.len() <= 1, "{effect:?}: {lines:?}");
                assert_eq!(outcome == "interrupted", in_doubt, "{effect:?}");
                assert_eq!(state.begun_again, 0, "{effect:?}");
                tally.unknown += usize::from(in_doubt);
                if in_doubt {
                    assert_eq!(told(journal, effect), "unknown", "{effect:?}");
                } else {
                    assert_eq!(lines.len(), 1, "{effect:?}");
                }
            } else {
                assert_eq!(outcome, "ok", "{effect:?}");
                // A read may begin before its job is durable. If that job was lost, unacknowledged, it has left its line here, under
                // another key: the job that was submitted in its stead came later.
                let lost = lines
                    .iter()
                    .take_while(|line| state.class == "read" && Some(*line) != lines.last())
                    .count();
                let lines = &lines[lost..];
                assert!(
                    (1..=1 + state.begun_again).contains(&lines.len()),
                    "{effect:?}: {lines:?}"
                );
                // The same try under the same key: to whoever knows the key it is the same request.
                assert!(
                    lines.iter().all(|line| *line == lines[0]),
                    "{effect:?}: {lines:?}"
                );
                if state.begun_again > 0 {
                    *tally.begun_again.entry(state.class.clone()).or_default() += state.begun_again;
                }
            }
        }
    }

    /// What was interrupted in a workspace was undone before it was done again.
    fn check_workspaces(&self, journal: &Journal) {
        let workspaces = self.node.data_dir().join("workspaces");
        for number in 0..PLANS {
            let workspace = workspaces.join(journal.job(&format!("plan-{number}")));
            for file in ["workspace.txt", "sum.txt"] {
                let text = std::fs::read_to_string(workspace.join(file));
                assert_eq!(
                    text.expect("the step has written it"),
                    "once\n",
                    "plan-{number} {file}"
                );
            }
        }
    }
}

/// What the job was told about an effect whose outcome is not known.
fn told(journal: &Journal, (job, step): &Effect) -> String {
    let entries = journal.entries_of(job);
    let output = &entries.last().expect("a job has entries").0["ending"]["output"];
    let end = match step.as_str() {
        "sh" => output,
        step => {
            assert_eq!(output["steps"][step]["status"], "interrupted");
            &output["steps"][step]
        }
    };
    end["outcome"].as_str().unwrap_or_default().to_owned()
}

//! A node's log, as `tinkerbell log cat` prints it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// One line of it.
#[derive(Clone, Debug)]
pub(crate) struct Entry(pub(crate) Value);

impl Entry {
    pub(crate) fn parse(line: &str) -> Self {
        Self(serde_json::from_str(line).expect("every line of `log cat` is JSON"))
    }

    pub(crate) fn kind(&self) -> &str {
        self.0["type"].as_str().expect("every line has a type")
    }

    pub(crate) fn lsn(&self) -> u64 {
        self.0["lsn"].as_u64().expect("every line has a position")
    }

    pub(crate) fn job(&self) -> Option<&str> {
        self.0["job"].as_str()
    }

    pub(crate) fn step(&self) -> Option<u64> {
        self.0["step"].as_u64()
    }

    /// How an effect or a job ended: `ok`, `interrupted`, `completed`, …
    pub(crate) fn ending(&self) -> Option<&str> {
        let (outcome, ending) = (&self.0["outcome"]["type"], &self.0["ending"]["type"]);
        outcome.as_str().or(ending.as_str())
    }
}

/// All entries, by job.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal {
    pub(crate) entries: Vec<Entry>,
    /// The job of every name.
    pub(crate) jobs: BTreeMap<String, Vec<String>>,
}

impl Journal {
    pub(crate) fn of(entries: Vec<Entry>) -> Self {
        let mut jobs: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry.kind() == "submitted") {
            let name = entry.0["spec"]["name"].as_str().unwrap_or_default();
            let job = entry.job().expect("a submission has a job");
            jobs.entry(name.to_owned())
                .or_default()
                .push(job.to_owned());
        }
        Self { entries, jobs }
    }

    /// The one job of a name.
    pub(crate) fn job(&self, name: &str) -> &str {
        match self.jobs.get(name).map(Vec::as_slice) {
            Some([job]) => job,
            found => panic!("expected one job called {name}, found {found:?}"),
        }
    }

    /// The entries of this kind.
    pub(crate) fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Entry> {
        self.entries
            .iter()
            .filter(move |entry| entry.kind() == kind)
    }

    /// The entries of the one job of this name.
    pub(crate) fn entries_of(&self, name: &str) -> Vec<&Entry> {
        let job = self.job(name);
        let entries = self.entries.iter();
        entries.filter(|entry| entry.job() == Some(job)).collect()
    }
}

/// The id of the log in a data directory, with which all its processes are marked: bytes 16 to 32 of every segment.
pub(crate) fn log_id(data_dir: &Path) -> Option<String> {
    let segment = fs::read_dir(data_dir.join("wal"))
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "wal"))?;
    let bytes = fs::read(segment).ok()?;
    let id = bytes.get(16..32)?.iter();
    Some(id.map(|byte| format!("{byte:02x}")).collect())
}

/// A job's name and the label of one of its steps: one effect.
pub(crate) type Effect = (String, String);

/// What the log says of one effect.
#[derive(Debug, Default)]
pub(crate) struct EffectState {
    pub(crate) class: String,
    /// How it ended, if it has.
    pub(crate) outcome: Option<String>,
    /// Tries after the first.
    pub(crate) begun_again: usize,
}

/// What the log says of all effects.
pub(crate) struct Effects(pub(crate) BTreeMap<Effect, EffectState>);

impl Effects {
    pub(crate) fn of(journal: &Journal) -> Self {
        let mut effects = BTreeMap::new();
        for name in journal.jobs.keys() {
            let mut labels = BTreeMap::new();
            for entry in journal.entries_of(name) {
                let Some(step) = entry.step() else { continue };
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let label = labels
                    .entry(step)
                    .or_insert_with(|| text(&entry.0["label"]))
                    .clone();
                let state: &mut EffectState = effects.entry((name.clone(), label)).or_default();
                match entry.kind() {
                    "requested" => {
                        assert_eq!(state.class, "", "requested twice");
                        state.class = text(&entry.0["policy"]["class"]);
                    }
                    "starting" => state.begun_again += 1,
                    "completed" => {
                        assert_eq!(state.outcome, None, "completed twice");
                        state.outcome = entry.ending().map(str::to_owned);
                    }
                    other => panic!("no effect here should have a `{other}`"),
                }
            }
        }
        Self(effects)
    }
}

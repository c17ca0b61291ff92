//! Jobs as they are written: start-up jobs in the config, and job files for `tinkerbell job run`.
//!
//! A job has a few keys that every job has (its *head*) and a *body* that only its program understands. The body is
//! kept as JSON together with the place of each of its values, so that the program, which checks it later and
//! knows it by JSON pointers, can still be answered with a line and a column.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use super::error::{ConfigError, ConfigErrors, ErrorKind, nearest};
use super::origin::{Origin, Position};
use super::syntax::{self, Data, Entry, Format, Node, place};
use super::value::{Field, Mismatch, Raw};
use super::words::{OnChange, Priority, Program};

/// A job as somebody wrote it.
#[derive(Clone, Debug)]
pub struct Job {
    /// What it is called, if it is. The name of a start-up job is its idempotency key.
    pub name: Option<JobName>,
    /// What it is for, for people.
    pub title: Option<String>,
    /// Which program runs it.
    pub program: Program,
    /// Words to find it by.
    pub labels: BTreeMap<String, String>,
    /// How urgent it is.
    pub priority: Priority,
    /// What to do if it is already known with another specification.
    pub on_change: OnChange,
    /// Everything else, for the program to read: an object.
    pub body: Value,
    /// Where the body's values are written.
    pub source: Source,
}

/// A job that is submitted at boot.
#[derive(Clone, Debug)]
pub struct StartupJob {
    /// Its name and idempotency key, unique in the config.
    pub name: JobName,
    /// The job.
    pub job: Job,
    /// Where in the config it is.
    pub origin: Origin,
}

/// The name of a job: 1 to 128 letters, digits and `-_.:/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobName(String);

impl JobName {
    const LEN_MAX: usize = 128;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Field for JobName {
    fn expected() -> String {
        format!(
            "a name of 1 to {} letters, digits and `-`, `_`, `.`, `:`, `/`",
            Self::LEN_MAX
        )
    }

    fn read(raw: Raw<'_>) -> Result<Self, Mismatch> {
        let text = raw.text().ok_or_else(Mismatch::plain)?;
        let word = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/');
        let fits =
            !text.is_empty() && text.chars().count() <= Self::LEN_MAX && text.chars().all(word);
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(Mismatch::plain())
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

impl Field for String {
    fn expected() -> String {
        "a string".to_owned()
    }

    fn read(raw: Raw<'_>) -> Result<Self, Mismatch> {
        raw.text()
            .map(str::to_owned)
            .ok_or_else(|| Mismatch::with_help("put it in quotes"))
    }

    fn to_value(&self) -> Value {
        Value::String(self.clone())
    }
}

impl Job {
    /// Reads a job file. Each of `inputs` is `key=value` and is put into the body's `input`; a value that is JSON is
    /// taken as such, any other as text (`version="1.0"` is a string either way).
    ///
    /// # Errors
    /// Whatever is wrong with the file's form, or with an input.
    pub fn load(path: &Path, inputs: &[String]) -> Result<Self, ConfigErrors> {
        let mut errors = Vec::new();
        let job = Self::read_file(&Arc::from(path), &mut errors);
        Self::with_inputs(job, inputs, errors)
    }

    /// Reads a job from a text, as if it were a file called `name`.
    ///
    /// # Errors
    /// Whatever is wrong with the text's form, or with an input.
    pub fn parse(
        name: &Path,
        text: &str,
        format: Format,
        inputs: &[String],
    ) -> Result<Self, ConfigErrors> {
        let (file, mut errors) = (Arc::from(name), Vec::new());
        let job = match syntax::read_str(&file, text, format) {
            Ok(entries) => Self::read_entries(entries, &file, &mut errors),
            Err(found) => {
                errors.extend(found);
                None
            }
        };
        Self::with_inputs(job, inputs, errors)
    }

    fn with_inputs(
        job: Option<Self>,
        inputs: &[String],
        mut errors: Vec<ConfigError>,
    ) -> Result<Self, ConfigErrors> {
        let Some(mut job) = job else {
            return ConfigErrors::check(errors)
                .map(|()| unreachable!("a job that is none has errors"));
        };
        for input in inputs {
            if let Err(error) = job.add_input(input) {
                errors.push(error);
            }
        }
        ConfigErrors::check(errors)?;
        Ok(job)
    }

    fn read_file(file: &Arc<Path>, errors: &mut Vec<ConfigError>) -> Option<Self> {
        let entries = match syntax::read(file) {
            Ok(entries) => entries,
            Err(found) => {
                errors.extend(found);
                return None;
            }
        };
        Self::read_entries(entries, file, errors)
    }

    fn read_entries(
        entries: Vec<Entry>,
        file: &Arc<Path>,
        errors: &mut Vec<ConfigError>,
    ) -> Option<Self> {
        Head::take(entries, file, errors).into_job(None, file, Position::START, errors)
    }

    fn add_input(&mut self, input: &str) -> Result<(), ConfigError> {
        let origin = |key: &str| Origin::Flag(format!("--input {key}"));
        let Some((key, value)) = input.split_once('=') else {
            let origin = origin(input);
            let message = format!("expected `key=value`, found `{input}`");
            return Err(ConfigError::new(ErrorKind::Value, message, origin));
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        let body = self
            .body
            .as_object_mut()
            .expect("a body is an object, because a job is a table");
        let inputs = body
            .entry("input")
            .or_insert_with(|| Value::Object(Map::new()));
        let Some(inputs) = inputs.as_object_mut() else {
            let origin = origin(key);
            let message = "the job's `input` is not a table, so no key can be set in it";
            return Err(ConfigError::new(ErrorKind::Conflict, message, origin)
                .with_related("it is given here", self.source.locate("/input")));
        };
        inputs.insert(key.to_owned(), value);
        Ok(())
    }

    /// Whether two jobs ask for the same, wherever they are written.
    #[must_use]
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        let parts = |job: &Self| (job.program, job.priority, job.on_change);
        parts(self) == parts(other)
            && self.name == other.name
            && self.title == other.title
            && self.labels == other.labels
            && self.body == other.body
    }
}

/// Where the values of a job's body are written.
#[derive(Clone, Debug)]
pub struct Source {
    file: Arc<Path>,
    /// By JSON pointer (RFC 6901); the empty pointer is the job itself.
    places: BTreeMap<String, Position>,
}

impl Source {
    fn of(file: &Arc<Path>, at: Position, entries: &[Entry]) -> Self {
        let mut places = BTreeMap::from([(String::new(), at)]);
        note_entries(&mut places, "", entries);
        Self {
            file: Arc::clone(file),
            places,
        }
    }

    /// The place of the value at a JSON pointer into the body, such as `/steps/2/run`; that of the nearest value
    /// around it, if there is none at the pointer itself.
    #[must_use]
    pub fn locate(&self, pointer: &str) -> Origin {
        let mut pointer = pointer;
        loop {
            if let Some(at) = self.places.get(pointer) {
                return place(&self.file, *at);
            }
            pointer = pointer.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
    }

    /// A mistake that the job's program found in its body.
    #[must_use]
    pub fn error(&self, pointer: &str, message: impl Into<String>) -> ConfigError {
        ConfigError::new(ErrorKind::Value, message, self.locate(pointer))
    }
}

fn note_entries(places: &mut BTreeMap<String, Position>, prefix: &str, entries: &[Entry]) {
    for entry in entries {
        let escaped = entry.key.replace('~', "~0").replace('/', "~1");
        note(places, format!("{prefix}/{escaped}"), entry.at, &entry.node);
    }
}

fn note(places: &mut BTreeMap<String, Position>, pointer: String, at: Position, node: &Node) {
    match &node.value {
        Data::Table(entries) => note_entries(places, &pointer, entries),
        Data::List(items) => {
            for (index, item) in items.iter().enumerate() {
                note(places, format!("{pointer}/{index}"), item.at, item);
            }
        }
        Data::Null | Data::Bool(_) | Data::Integer(_) | Data::Float(_) | Data::Text(_) => {}
    }
    places.insert(pointer, at);
}

/// The keys that every job has, and the rest.
#[derive(Default)]
struct Head {
    name: Option<JobName>,
    title: Option<String>,
    program: Option<Program>,
    labels: BTreeMap<String, String>,
    priority: Option<Priority>,
    on_change: Option<OnChange>,
    file: Option<(PathBuf, Position)>,
    program_at: Option<Position>,
    /// A key of the head is there and wrong, so that a complaint that it is missing would be a second one.
    broken: Vec<&'static str>,
    body: Vec<Entry>,
}

const HEAD_KEYS: [&str; 7] = [
    "name",
    "title",
    "program",
    "labels",
    "priority",
    "on_change",
    "file",
];

impl Head {
    fn take(entries: Vec<Entry>, file: &Arc<Path>, errors: &mut Vec<ConfigError>) -> Self {
        let mut head = Self::default();
        for entry in entries {
            let Some(key) = HEAD_KEYS.into_iter().find(|key| *key == entry.key) else {
                head.body.push(entry);
                continue;
            };
            if let Err(error) = head.take_key(key, &entry, file) {
                head.broken.push(key);
                errors.push(error);
            }
        }
        head
    }

    fn take_key(&mut self, key: &str, entry: &Entry, file: &Arc<Path>) -> Result<(), ConfigError> {
        let node = &entry.node;
        match key {
            "name" => self.name = Some(field(key, node, file)?),
            "title" => self.title = Some(field(key, node, file)?),
            "program" => {
                self.program = Some(field(key, node, file)?);
                self.program_at = Some(entry.at);
            }
            "labels" => self.labels = labels(node, file)?,
            "priority" => self.priority = Some(field(key, node, file)?),
            "on_change" => self.on_change = Some(field(key, node, file)?),
            _ => self.file = Some((PathBuf::from(field::<String>(key, node, file)?), entry.at)),
        }
        Ok(())
    }

    /// The job, if it is whole. `directory` is what `file` is relative to; without it, no `file` is allowed.
    fn into_job(
        self,
        directory: Option<&Path>,
        file: &Arc<Path>,
        at: Position,
        errors: &mut Vec<ConfigError>,
    ) -> Option<Job> {
        if self.file.is_some() {
            return self.into_job_of_file(directory, file, errors);
        }
        let Some(program) = self.program else {
            if !self.broken.contains(&"program") {
                errors.push(self.missing("program", "`command` or `plan`", file, at));
            }
            return None;
        };
        let source = Source::of(file, at, &self.body);
        Some(Job {
            name: self.name,
            title: self.title,
            program,
            labels: self.labels,
            priority: self.priority.unwrap_or(Priority::Normal),
            on_change: self.on_change.unwrap_or(OnChange::Refuse),
            body: table_to_json(&self.body),
            source,
        })
    }

    /// A job whose program and body are in a file of their own; the head's other keys win over that file's.
    fn into_job_of_file(
        self,
        directory: Option<&Path>,
        file: &Arc<Path>,
        errors: &mut Vec<ConfigError>,
    ) -> Option<Job> {
        let (job_file, at) = self.file?;
        let Some(directory) = directory else {
            let message = "a job file cannot refer to another with `file`";
            errors.push(ConfigError::new(
                ErrorKind::Conflict,
                message,
                place(file, at),
            ));
            return None;
        };
        let beside = self.program_at.map(|at| ("program", at));
        let beside = self
            .body
            .first()
            .map(|entry| (entry.key.as_str(), entry.at))
            .or(beside);
        if let Some((key, key_at)) = beside {
            let message = format!("`{key}` is given beside `file`, which says it already");
            let error = ConfigError::new(ErrorKind::Conflict, message, place(file, key_at));
            errors.push(
                error.with_related("the file is named here", place(file, at)).with_help(
                    "beside `file` there can be `name`, `title`, `labels`, `priority` and `on_change`",
                ),
            );
            return None;
        }
        let found_before = errors.len();
        let job = Job::read_file(&Arc::from(directory.join(job_file)), errors);
        for error in &mut errors[found_before..] {
            *error = error
                .clone()
                .with_related("the file is named here", place(file, at));
        }
        let mut job = job?;
        job.name = self.name.or(job.name);
        job.title = self.title.or(job.title);
        job.labels.extend(self.labels);
        job.priority = self.priority.unwrap_or(job.priority);
        job.on_change = self.on_change.unwrap_or(job.on_change);
        Some(job)
    }

    /// A required key is not there; perhaps it is misspelt, and so landed in the body.
    fn missing(&self, key: &str, what: &str, file: &Arc<Path>, at: Position) -> ConfigError {
        let slip = self
            .body
            .iter()
            .find(|entry| nearest(&entry.key, [key]).is_some());
        let error = ConfigError::new(
            ErrorKind::MissingKey,
            format!("the job has no `{key}`"),
            place(file, slip.map_or(at, |entry| entry.at)),
        );
        match slip {
            Some(entry) => error.with_help(format!("did you mean `{key}` by `{}`?", entry.key)),
            None => error.with_help(format!("add `{key} = …`: {what}")),
        }
    }
}

/// A job without a name, as a template for others. What is wrong with it is added to `errors`.
pub(crate) fn template(
    entries: Vec<Entry>,
    directory: &Path,
    file: &Arc<Path>,
    at: Position,
    errors: &mut Vec<ConfigError>,
) -> Option<Job> {
    Head::take(entries, file, errors).into_job(Some(directory), file, at, errors)
}

/// The start-up jobs of a config file.
pub(crate) fn startup_jobs(
    nodes: Vec<Node>,
    file: &Arc<Path>,
    errors: &mut Vec<ConfigError>,
) -> Vec<StartupJob> {
    let mut jobs: Vec<StartupJob> = Vec::new();
    for node in nodes {
        let origin = place(file, node.at);
        let Data::Table(entries) = node.value else {
            let message = format!("expected a job, found {}", node.value.describe());
            errors.push(ConfigError::new(ErrorKind::Value, message, origin));
            continue;
        };
        let head = Head::take(entries, file, errors);
        // A name may also come from the job's own file; only then is it known whether one is missing.
        let missing = (head.file.is_none()
            && head.name.is_none()
            && !head.broken.contains(&"name"))
        .then(|| {
            head.missing(
                "name",
                "it is what the job is known by from one start to the next",
                file,
                node.at,
            )
        });
        let broken_name = head.broken.contains(&"name");
        let job = head.into_job(
            Some(file.parent().unwrap_or(Path::new(""))),
            file,
            node.at,
            errors,
        );
        errors.extend(missing);
        let Some(job) = job else { continue };
        let Some(name) = job.name.clone() else {
            if !broken_name && job.source.file != *file {
                let message = "the job has no `name`, neither here nor in its file";
                errors.push(ConfigError::new(ErrorKind::MissingKey, message, origin));
            }
            continue;
        };
        if let Some(first) = jobs.iter().find(|known| known.name == name) {
            let message = format!("two jobs are called `{}`", name.as_str());
            let error = ConfigError::new(ErrorKind::Conflict, message, origin)
                .with_related("the first is here", first.origin.clone())
                .with_help("a start-up job's name is its idempotency key: give each its own");
            errors.push(error);
            continue;
        }
        jobs.push(StartupJob { name, job, origin });
    }
    jobs
}

fn field<T: Field>(key: &str, node: &Node, file: &Arc<Path>) -> Result<T, ConfigError> {
    let raw = Raw::Node(node);
    T::read(raw).map_err(|mismatch| {
        let found = mismatch.found.unwrap_or_else(|| raw.describe());
        let message = format!(
            "expected {} for the job's `{key}`, found {found}",
            T::expected()
        );
        ConfigError::new(ErrorKind::Value, message, place(file, node.at))
            .with_help_if(mismatch.help)
    })
}

fn labels(node: &Node, file: &Arc<Path>) -> Result<BTreeMap<String, String>, ConfigError> {
    let Data::Table(entries) = &node.value else {
        let found = node.value.describe();
        let message = format!("expected a table for the job's `labels`, found {found}");
        return Err(
            ConfigError::new(ErrorKind::Value, message, place(file, node.at))
                .with_help("write `labels = { team = \"search\" }`"),
        );
    };
    let label = |entry: &Entry| {
        let value = field(&format!("labels.{}", entry.key), &entry.node, file)?;
        Ok((entry.key.clone(), value))
    };
    entries.iter().map(label).collect()
}

/// The tree as JSON, places left out.
pub(crate) fn to_json(node: &Node) -> Value {
    match &node.value {
        Data::Null => Value::Null,
        Data::Bool(value) => Value::Bool(*value),
        Data::Integer(value) => i64::try_from(*value)
            .map(Value::from)
            .or_else(|_| u64::try_from(*value).map(Value::from))
            .expect("an integer fits 64 bits, because the reader refuses larger ones"),
        Data::Float(value) => Value::from(*value),
        Data::Text(value) => Value::String(value.clone()),
        Data::List(items) => items.iter().map(to_json).collect(),
        Data::Table(entries) => table_to_json(entries),
    }
}

fn table_to_json(entries: &[Entry]) -> Value {
    Value::Object(
        entries
            .iter()
            .map(|entry| (entry.key.clone(), to_json(&entry.node)))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(text: &str, inputs: &[&str]) -> Result<Job, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("job.toml");
        std::fs::write(&path, text).unwrap();
        let inputs: Vec<String> = inputs.iter().copied().map(str::to_owned).collect();
        Job::load(&path, &inputs).map_err(|errors| {
            errors
                .to_string()
                .replace(&format!("{}/", dir.path().display()), "")
        })
    }

    #[test]
    fn inputs_of_the_command_line_are_laid_over_those_of_the_file() {
        let text = "program = \"plan\"\n[input]\nroot = \".\"\ndepth = 1\n";
        let job = job(text, &["depth=3", "name=a b", "version=\"1.0\""]).unwrap();
        assert_eq!(
            job.body.to_string(),
            r#"{"input":{"depth":3,"name":"a b","root":".","version":"1.0"}}"#
        );
    }

    #[test]
    fn a_program_can_point_into_the_body() {
        let text = "program = \"plan\"\n[[steps]]\nrun = [\"true\"]\n[[steps]]\nrun = [\n  7\n]\n";
        let job = job(text, &[]).unwrap();
        let place = |pointer: &str| {
            let origin = job.source.locate(pointer).to_string();
            origin.rsplit_once("job.toml:").unwrap().1.to_owned()
        };
        assert_eq!(place("/steps/1/run/0"), "6:3");
        assert_eq!(place("/steps/1/run/0/deeper"), "6:3");
        assert_eq!(place("/steps/0/title"), "2:1");
        assert_eq!(place("/nothing/here"), "1:1");
    }

    #[test]
    fn a_job_that_cannot_be_run_says_why() {
        insta::assert_snapshot!(job("progam = \"plan\"", &[]).unwrap_err(), @r"
        error: the job has no `program`
          --> job.toml:1:1
          help: did you mean `program` by `progam`?
        ");
        insta::assert_snapshot!(job("program = \"plam\"\nlabels = 3", &["x"]).unwrap_err(), @r#"
        error: expected `command` or `plan` for the job's `program`, found the string `plam`
          --> job.toml:1:11
          help: did you mean `plan`?

        error: expected a table for the job's `labels`, found the number `3`
          --> job.toml:2:10
          help: write `labels = { team = "search" }`
        "#);
        insta::assert_snapshot!(job("program = \"plan\"\ninput = 3", &["x", "a=1"]).unwrap_err(), @r"
        error: expected `key=value`, found `x`
          --> --input x

        error: the job's `input` is not a table, so no key can be set in it
          --> --input a
          note: it is given here: job.toml:2:1
        ");
        insta::assert_snapshot!(job("file = \"other.toml\"", &[]).unwrap_err(), @r"
        error: a job file cannot refer to another with `file`
          --> job.toml:1:1
        ");
    }
}

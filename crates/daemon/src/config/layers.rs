//! The layers a config is made of, laid over one another: file, environment, flags; later ones win.
//!
//! Each layer only says *what was written where*; the types come afterwards, from the schema. All layers of a key
//! are read, not only the one that wins: a mistake in the file does not become right by being overridden.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use super::environment::Environment;
use super::error::{ConfigError, ErrorKind, nearest};
use super::names::LogFilter;
use super::origin::{Origin, Provenance};
use super::schema::{KEYS, SECTIONS, key};
use super::syntax::{Data, Entry, Node, place};
use super::value::{Field, Raw};

/// What every variable that sets a key begins with. Section and name are parted by two underscores.
pub(crate) const VARIABLE_PREFIX: &str = "TINKERBELL_";

/// A key set on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetFlag {
    /// `section.name=value`.
    assignment: String,
    /// What was typed, without the value.
    flag: String,
}

impl SetFlag {
    /// From the argument of `--set`. The value is left out where the flag is named, since such texts go to logs.
    #[must_use]
    pub fn new(assignment: &str) -> Self {
        let key = assignment.split('=').next().unwrap_or_default();
        Self {
            assignment: assignment.to_owned(),
            flag: format!("--set {key}"),
        }
    }

    /// From a flag that stands for an assignment, as `-v` does for `log.filter=debug`.
    #[must_use]
    pub fn by(flag: &str, assignment: &str) -> Self {
        Self {
            assignment: assignment.to_owned(),
            flag: flag.to_owned(),
        }
    }
}

/// Something that is allowed but probably not meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// What, as a sentence without a full stop.
    pub message: String,
    /// Where.
    pub origin: Origin,
}

impl std::fmt::Display for Warning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use std::fmt::Write as _;
        write!(
            crate::neutral::Neutral(&mut *f),
            "warning: {}",
            self.message
        )?;
        f.write_str("\n  --> ")?;
        write!(crate::neutral::Neutral(f), "{}", self.origin)
    }
}

/// All that was written, by key.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    written: BTreeMap<&'static str, Vec<(Written, Origin)>>,
    /// The elements of `[[job]]`.
    pub(crate) jobs: Vec<Node>,
    /// The elements of `[[a2a.skill]]`.
    pub(crate) skills: Vec<Node>,
    /// The elements of `[[a2a.agent]]`.
    pub(crate) agents: Vec<Node>,
    pub(crate) warnings: Vec<Warning>,
}

#[derive(Debug)]
enum Written {
    Node(Node),
    Text(String),
}

impl Settings {
    /// Reads a key of all its layers. What does not fit is added to `errors`. Gives the strongest layer's value, or
    /// nothing if that is wrong or no layer has one.
    pub(crate) fn read<T: Field>(
        &self,
        path: &str,
        in_range: fn(&T) -> bool,
        errors: &mut Vec<ConfigError>,
    ) -> Option<T> {
        let mut value = None;
        for (written, origin) in self.written.get(path).into_iter().flatten() {
            let raw = match written {
                Written::Node(node) => Raw::Node(node),
                Written::Text(text) => Raw::Text(text),
            };
            value = read_one(path, raw, origin, in_range)
                .map_err(|error| errors.push(error))
                .ok();
        }
        value
    }

    /// Where everything came from.
    pub(crate) fn provenance(&self) -> Provenance {
        let mut provenance = Provenance::default();
        for (path, layers) in &self.written {
            for (_, origin) in layers {
                provenance.add(path, origin.clone());
            }
        }
        provenance
    }

    fn add(&mut self, path: &'static str, written: Written, origin: Origin) {
        self.written
            .entry(path)
            .or_default()
            .push((written, origin));
    }

    /// Lays a file's tree over what is there.
    pub(crate) fn add_file(
        &mut self,
        root: Vec<Entry>,
        file: &Arc<Path>,
        errors: &mut Vec<ConfigError>,
    ) {
        for section in root {
            if section.key == "job" {
                add_list(&mut self.jobs, section, "job", file, errors);
                continue;
            }
            let origin = place(file, section.at);
            if !SECTIONS.iter().any(|known| known.name == section.key) {
                errors.push(unknown_section(&section.key, origin));
                continue;
            }
            let Data::Table(entries) = section.node.value else {
                let found = section.node.value.describe();
                let message = format!("expected a table for `{}`, found {found}", section.key);
                errors.push(ConfigError::new(ErrorKind::Value, message, origin));
                continue;
            };
            for entry in entries {
                let origin = place(file, entry.at);
                match (section.key.as_str(), entry.key.as_str()) {
                    ("a2a", "skill") => {
                        add_list(&mut self.skills, entry, "a2a.skill", file, errors);
                        continue;
                    }
                    ("a2a", "agent") => {
                        add_list(&mut self.agents, entry, "a2a.agent", file, errors);
                        continue;
                    }
                    _ => {}
                }
                match known_key(&section.key, &entry.key) {
                    Ok(path) => {
                        let at = place(file, entry.node.at);
                        self.add(path, Written::Node(entry.node), at);
                    }
                    Err(help) => errors.push(
                        unknown_key(&format!("{}.{}", section.key, entry.key), origin)
                            .with_help_if(help),
                    ),
                }
            }
        }
    }

    /// Lays the environment over what is there: `TINKERBELL_WAL__SYNC=never` sets `wal.sync`.
    ///
    /// Variables without the double underscore are left alone, whatever they are: Kubernetes gives every pod
    /// `TINKERBELL_PORT`, `TINKERBELL_SERVICE_HOST` and more for a service called `tinkerbell`.
    pub(crate) fn add_environment(
        &mut self,
        environment: &Environment,
        errors: &mut Vec<ConfigError>,
    ) {
        for (name, value) in environment.variables() {
            let Some((section, key)) = name
                .strip_prefix(VARIABLE_PREFIX)
                .and_then(|rest| rest.split_once("__"))
            else {
                continue;
            };
            if let Err(error) = self.add_variable(name, section, key, value) {
                errors.push(error);
            }
        }
        if let Some(filter) = environment.variable("RUST_LOG") {
            self.add_rust_log(filter);
        }
    }

    fn add_variable(
        &mut self,
        name: &str,
        section: &str,
        key: &str,
        value: &OsString,
    ) -> Result<(), ConfigError> {
        let origin = Origin::Env(name.to_owned());
        if section == "JOB" {
            let message = "jobs cannot be given in the environment";
            return Err(ConfigError::new(ErrorKind::UnknownKey, message, origin)
                .with_help("write them as `[[job]]` in a config file"));
        }
        let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
        if !SECTIONS.iter().any(|known| known.name == section) {
            return Err(unknown_section(&section, origin));
        }
        let path = known_key(&section, &key).map_err(|help| {
            unknown_key(&format!("{section}.{key}"), origin.clone()).with_help_if(help)
        })?;
        let Some(text) = value.to_str() else {
            return Err(ConfigError::new(
                ErrorKind::Value,
                "the variable is not UTF-8 text",
                origin,
            ));
        };
        // As everywhere, an empty variable is one that is not set: `VAR=` in a unit file or a manifest means "no".
        if !text.is_empty() {
            self.add(path, Written::Text(text.to_owned()), origin);
        }
        Ok(())
    }

    /// `RUST_LOG` is not ours alone and may be set for another program: if it makes no sense it is reported and
    /// passed over, so that it cannot keep the daemon from starting.
    fn add_rust_log(&mut self, filter: &OsString) {
        let origin = Origin::Env("RUST_LOG".to_owned());
        match filter
            .to_str()
            .ok_or("it is not UTF-8 text".to_owned())
            .and_then(LogFilter::parse)
        {
            // It wins over the flags too, so it is laid on last, by `load`.
            Ok(filter) => self.add(
                "log.filter",
                Written::Text(filter.as_str().to_owned()),
                origin,
            ),
            Err(error) => self.warnings.push(Warning {
                message: format!("`RUST_LOG` is not a log filter and is passed over: {error}"),
                origin,
            }),
        }
    }

    /// Lays flags over what is there.
    pub(crate) fn add_flags(&mut self, flags: &[SetFlag], errors: &mut Vec<ConfigError>) {
        for flag in flags {
            if let Err(error) = self.add_flag(flag) {
                errors.push(error);
            }
        }
        // `RUST_LOG` wins over the flags: it is what the person at the keyboard said last.
        if let Some(layers) = self.written.get_mut("log.filter") {
            layers.sort_by_key(
                |(_, origin)| matches!(origin, Origin::Env(name) if name == "RUST_LOG"),
            );
        }
    }

    fn add_flag(&mut self, flag: &SetFlag) -> Result<(), ConfigError> {
        let origin = Origin::Flag(flag.flag.clone());
        let Some((path, value)) = flag.assignment.split_once('=') else {
            let message = format!("expected `section.key=value`, found `{}`", flag.assignment);
            return Err(ConfigError::new(ErrorKind::Value, message, origin));
        };
        let path = path.trim();
        let Some((section, name)) = path.split_once('.') else {
            return Err(unknown_section(path, origin));
        };
        if section == "job" {
            let message = "jobs cannot be given on the command line";
            return Err(
                ConfigError::new(ErrorKind::UnknownKey, message, origin).with_help(
                    "write them as `[[job]]` in a config file, or use `tinkerbell job run FILE`",
                ),
            );
        }
        if !SECTIONS.iter().any(|known| known.name == section) {
            return Err(unknown_section(section, origin));
        }
        let path = known_key(section, name)
            .map_err(|help| unknown_key(path, origin.clone()).with_help_if(help))?;
        self.add(path, Written::Text(value.trim().to_owned()), origin);
        Ok(())
    }
}

fn read_one<T: Field>(
    path: &str,
    raw: Raw<'_>,
    origin: &Origin,
    in_range: fn(&T) -> bool,
) -> Result<T, ConfigError> {
    let value = T::read(raw).map_err(|mismatch| {
        let found = mismatch.found.unwrap_or_else(|| raw.describe());
        let message = format!("expected {} for `{path}`, found {found}", T::expected());
        ConfigError::new(ErrorKind::Value, message, origin.clone()).with_help_if(mismatch.help)
    })?;
    if in_range(&value) {
        return Ok(value);
    }
    let found = match value.to_value() {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    };
    let range = key(path).and_then(|key| (key.range)()).unwrap_or_default();
    let message = format!("`{path}` is out of range: found {found}, expected {range}");
    Err(ConfigError::new(ErrorKind::Range, message, origin.clone()))
}

/// Takes the elements of an array of tables.
fn add_list(
    to: &mut Vec<Node>,
    list: Entry,
    name: &str,
    file: &Arc<Path>,
    errors: &mut Vec<ConfigError>,
) {
    match list.node.value {
        Data::List(items) => to.extend(items),
        other => {
            let what = name.rsplit('.').next().unwrap_or(name);
            let message = format!("expected a list of {what}s, found {}", other.describe());
            let error = ConfigError::new(ErrorKind::Value, message, place(file, list.at));
            errors.push(error.with_help(format!(
                "write `[[{name}]]`, with two brackets, above each {what}"
            )));
        }
    }
}

/// The schema's path of a key, or a hint at what was meant.
fn known_key(section: &str, name: &str) -> Result<&'static str, Option<String>> {
    let in_section = || KEYS.iter().filter(|key| key.section == section);
    if let Some(key) = in_section().find(|key| key.name == name) {
        return Ok(key.path);
    }
    let meant = nearest(name, in_section().map(|key| key.name))
        .map(|near| format!("did you mean `{near}`?"))
        .or_else(|| elsewhere(name))
        .unwrap_or_else(|| {
            let names: Vec<&str> = in_section().map(|key| key.name).collect();
            format!("the keys of `{section}` are {}", list(&names))
        });
    Err(Some(meant))
}

/// The key of this name in another section.
fn elsewhere(name: &str) -> Option<String> {
    let key = KEYS.iter().find(|key| key.name == name)?;
    Some(format!("did you mean `{}`?", key.path))
}

fn unknown_key(path: &str, origin: Origin) -> ConfigError {
    ConfigError::new(
        ErrorKind::UnknownKey,
        format!("unknown key `{path}`"),
        origin,
    )
}

fn unknown_section(name: &str, origin: Origin) -> ConfigError {
    let sections = SECTIONS.iter().map(|section| section.name).chain(["job"]);
    let help = match nearest(name, sections) {
        Some("job") => "did you mean `[[job]]`?".to_owned(),
        Some(near) => format!("did you mean `{near}`?"),
        None => elsewhere(name).unwrap_or_else(|| {
            let names: Vec<&str> = SECTIONS.iter().map(|section| section.name).collect();
            format!("the sections are {} and `[[job]]`", list(&names))
        }),
    };
    let message = format!("unknown section `{name}`");
    ConfigError::new(ErrorKind::UnknownKey, message, origin).with_help(help)
}

fn list(names: &[&str]) -> String {
    names
        .iter()
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ")
}

//! Skills of the a2a transport as they are written: `[[a2a.skill]]`.
//!
//! A skill has keys of its own, which say what the agent's card shows and which messages it takes; all its other keys are
//! those of a job as `[[job]]` has them, but for the name: the job that it makes of a message.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::error::{ConfigError, ErrorKind, nearest};
use super::job::{self, Job};
use super::origin::{Origin, Position};
use super::syntax::{Data, Entry, Node, place};
use super::value::{Field, Raw};
use super::words::SkillAnswer;

/// A skill: a job template that takes messages.
#[derive(Clone, Debug)]
pub struct A2aSkill {
    /// What it is known by, unique in the config.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it does.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Prompts that it is good for.
    pub examples: Vec<String>,
    /// The media types it takes; those of `a2a.input_modes` if there are none.
    pub input_modes: Vec<String>,
    /// The media types it gives; those of `a2a.output_modes` if there are none.
    pub output_modes: Vec<String>,
    /// Whether only the extended card shows it.
    pub is_extended: bool,
    /// Whether it takes what no other does.
    pub is_default: bool,
    /// What it answers with.
    pub answer: SkillAnswer,
    /// Which messages it takes: those for which one of these holds.
    pub rules: Vec<SkillRule>,
    /// The job it makes of one.
    pub job: Job,
    /// Where in the config it is.
    pub origin: Origin,
}

/// Which messages a skill takes: those for which all of this holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SkillRule {
    /// Metadata that must have these values.
    pub metadata: BTreeMap<String, Value>,
    /// A regular expression that the text must match.
    pub text: Option<String>,
    /// What the message's id must begin with.
    pub message_id: Option<String>,
    /// The skill that took the message before in the same context.
    pub after: Option<String>,
}

impl A2aSkill {
    /// Whether two skills are the same, wherever they are written.
    #[must_use]
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        let texts = |skill: &Self| {
            let lists = [
                &skill.tags,
                &skill.examples,
                &skill.input_modes,
                &skill.output_modes,
            ];
            (
                [&skill.id, &skill.name, &skill.description].map(Clone::clone),
                lists.map(Clone::clone),
            )
        };
        let rest = |skill: &Self| (skill.is_extended, skill.is_default, skill.answer);
        texts(self) == texts(other)
            && rest(self) == rest(other)
            && self.rules == other.rules
            && self.job.says_the_same_as(&other.job)
    }
}

const KEYS: [&str; 11] = [
    "id",
    "name",
    "description",
    "tags",
    "examples",
    "input_modes",
    "output_modes",
    "extended",
    "default",
    "answer",
    "match",
];

/// Keys of start-up jobs that mean nothing here.
const FOREIGN: [(&str, &str); 1] = [(
    "on_change",
    "a message's id is what its job is known by, whatever becomes of the skill",
)];

#[derive(Default)]
struct Draft {
    texts: BTreeMap<&'static str, String>,
    lists: BTreeMap<&'static str, Vec<String>>,
    flags: BTreeMap<&'static str, bool>,
    answer: Option<SkillAnswer>,
    rules: Vec<SkillRule>,
    /// The places of the skills that rules name.
    named: Vec<(String, Position)>,
}

impl Draft {
    fn take(
        &mut self,
        key: &'static str,
        node: &Node,
        file: &Arc<Path>,
    ) -> Result<(), ConfigError> {
        match key {
            "id" | "name" | "description" => {
                let text: String = field(key, node, file)?;
                if text.trim().is_empty() {
                    let message = format!("the skill's `{key}` is empty");
                    let at = place(file, node.at);
                    return Err(ConfigError::new(ErrorKind::Value, message, at));
                }
                self.texts.insert(key, text);
            }
            "extended" | "default" => {
                self.flags.insert(key, field(key, node, file)?);
            }
            "answer" => self.answer = Some(field(key, node, file)?),
            "match" => self.take_rules(node, file)?,
            _ => {
                self.lists.insert(key, field(key, node, file)?);
            }
        }
        Ok(())
    }

    fn take_rules(&mut self, node: &Node, file: &Arc<Path>) -> Result<(), ConfigError> {
        let help = "write `match = [{ text = \"^convert\" }, { message_id = \"test-\" }]`";
        let wrong = |node: &Node| {
            let message = format!(
                "expected a list of rules for the skill's `match`, found {}",
                node.value.describe()
            );
            ConfigError::new(ErrorKind::Value, message, place(file, node.at)).with_help(help)
        };
        let Data::List(items) = &node.value else {
            return Err(wrong(node));
        };
        for item in items {
            let Data::Table(entries) = &item.value else {
                return Err(wrong(item));
            };
            let rule = self.rule(entries, item.at, file)?;
            self.rules.push(rule);
        }
        Ok(())
    }

    fn rule(
        &mut self,
        entries: &[Entry],
        at: Position,
        file: &Arc<Path>,
    ) -> Result<SkillRule, ConfigError> {
        const RULE_KEYS: [&str; 4] = ["metadata", "text", "message_id", "after"];
        let mut rule = SkillRule::default();
        if entries.is_empty() {
            let error = ConfigError::new(
                ErrorKind::Value,
                "a rule of the skill's `match` says nothing",
                place(file, at),
            );
            return Err(
                error.with_help("`default = true` takes every message that no other skill takes")
            );
        }
        for entry in entries {
            let node = &entry.node;
            match entry.key.as_str() {
                "metadata" => {
                    let Data::Table(wanted) = &node.value else {
                        let found = node.value.describe();
                        let message =
                            format!("expected a table for `match.metadata`, found {found}");
                        let error =
                            ConfigError::new(ErrorKind::Value, message, place(file, node.at));
                        return Err(error.with_help("write `metadata = { skill = \"convert\" }`"));
                    };
                    let wanted = wanted.iter();
                    rule.metadata = wanted
                        .map(|entry| (entry.key.clone(), job::to_json(&entry.node)))
                        .collect();
                }
                "text" => {
                    let text: String = field("match.text", node, file)?;
                    check_pattern(&text).map_err(|why| {
                        let message = format!("`match.text` is no regular expression: {why}");
                        ConfigError::new(ErrorKind::Value, message, place(file, node.at))
                    })?;
                    rule.text = Some(text);
                }
                "message_id" => rule.message_id = Some(field("match.message_id", node, file)?),
                "after" => {
                    let after: String = field("match.after", node, file)?;
                    self.named.push((after.clone(), node.at));
                    rule.after = Some(after);
                }
                other => {
                    let message = format!("unknown key `{other}` in a rule of the skill's `match`");
                    let error =
                        ConfigError::new(ErrorKind::UnknownKey, message, place(file, entry.at));
                    return Err(error.with_help(match nearest(other, RULE_KEYS) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => "there are `metadata`, `text`, `message_id` and `after`".to_owned(),
                    }));
                }
            }
        }
        Ok(rule)
    }
}

#[cfg(feature = "a2a")]
fn check_pattern(pattern: &str) -> Result<(), String> {
    let checked = regex::Regex::new(pattern);
    checked.map(|_| ()).map_err(|error| {
        // The last line says what is wrong; those before it draw a picture.
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        last.trim_start_matches("error: ").to_owned()
    })
}

/// A build without the transport reads no patterns.
#[cfg(not(feature = "a2a"))]
#[expect(clippy::unnecessary_wraps, reason = "the other build can refuse one")]
fn check_pattern(_: &str) -> Result<(), String> {
    Ok(())
}

fn field<T: Field>(key: &str, node: &Node, file: &Arc<Path>) -> Result<T, ConfigError> {
    let raw = Raw::Node(node);
    T::read(raw).map_err(|mismatch| {
        let found = mismatch.found.unwrap_or_else(|| raw.describe());
        let message = format!(
            "expected {} for the skill's `{key}`, found {found}",
            T::expected()
        );
        ConfigError::new(ErrorKind::Value, message, place(file, node.at))
            .with_help_if(mismatch.help)
    })
}

/// The skills of a config file.
pub(crate) fn skills(
    nodes: Vec<Node>,
    file: &Arc<Path>,
    errors: &mut Vec<ConfigError>,
) -> Vec<A2aSkill> {
    let mut skills: Vec<A2aSkill> = Vec::new();
    let mut named = Vec::new();
    for node in nodes {
        let at = node.at;
        let Data::Table(entries) = node.value else {
            let message = format!("expected a skill, found {}", node.value.describe());
            errors.push(ConfigError::new(ErrorKind::Value, message, place(file, at)));
            continue;
        };
        let found_before = errors.len();
        let (draft, skill) = skill(entries, at, file, errors);
        named.extend(draft.named);
        let Some(skill) = skill else {
            debug_assert!(
                errors.len() > found_before,
                "a skill that is none has errors"
            );
            continue;
        };
        if let Some(first) = skills.iter().find(|known| known.id == skill.id) {
            let message = format!("two skills are called `{}`", skill.id);
            let error = ConfigError::new(ErrorKind::Conflict, message, skill.origin);
            errors.push(error.with_related("the first is here", first.origin.clone()));
            continue;
        }
        if let Some(first) = skills
            .iter()
            .find(|known| known.is_default && skill.is_default)
        {
            let message = "two skills are the default one";
            let error = ConfigError::new(ErrorKind::Conflict, message, skill.origin);
            errors.push(error.with_related("the first is here", first.origin.clone()));
            continue;
        }
        skills.push(skill);
    }
    let known: Vec<&str> = skills.iter().map(|skill| skill.id.as_str()).collect();
    for (name, at) in named {
        if errors.is_empty() && !known.contains(&name.as_str()) {
            let message = format!("`match.after` names `{name}`, and no skill is called that");
            let error = ConfigError::new(ErrorKind::Value, message, place(file, at));
            errors.push(match nearest(&name, known.iter().copied()) {
                Some(near) => error.with_help(format!("did you mean `{near}`?")),
                None => error,
            });
        }
    }
    skills
}

fn skill(
    entries: Vec<Entry>,
    at: Position,
    file: &Arc<Path>,
    errors: &mut Vec<ConfigError>,
) -> (Draft, Option<A2aSkill>) {
    let found_before = errors.len();
    let mut draft = Draft::default();
    let mut rest = Vec::new();
    for entry in entries {
        if let Some((key, why)) = FOREIGN.into_iter().find(|(key, _)| *key == entry.key) {
            let message = format!("a skill has no `{key}`: {why}");
            let error = ConfigError::new(ErrorKind::UnknownKey, message, place(file, entry.at));
            errors.push(error);
            continue;
        }
        match KEYS.into_iter().find(|key| *key == entry.key) {
            Some(key) => {
                if let Err(error) = draft.take(key, &entry.node, file) {
                    errors.push(error);
                }
            }
            None => rest.push(entry),
        }
    }
    if errors.len() == found_before {
        for (key, what) in [
            ("id", "what it is known by"),
            (
                "description",
                "what it does, for whoever reads the agent's card",
            ),
        ] {
            if !draft.texts.contains_key(key) {
                let message = format!("the skill has no `{key}`");
                let error = ConfigError::new(ErrorKind::MissingKey, message, place(file, at));
                errors.push(error.with_help(format!("add `{key} = …`: {what}")));
            }
        }
    }
    let directory = file.parent().unwrap_or(Path::new(""));
    let job = job::template(rest, directory, file, at, errors);
    let is_default = draft.flags.get("default").copied().unwrap_or(false);
    if errors.len() == found_before && !is_default && draft.rules.is_empty() {
        let message = "no message would ever be taken by this skill";
        let error = ConfigError::new(ErrorKind::MissingKey, message, place(file, at));
        errors.push(error.with_help("say which in `match`, or `default = true`"));
    }
    let Some(job) = job.filter(|_| errors.len() == found_before) else {
        return (draft, None);
    };
    let id = draft.texts.remove("id").unwrap_or_default();
    let mut list = |key| draft.lists.remove(key).unwrap_or_default();
    let skill = A2aSkill {
        tags: list("tags"),
        examples: list("examples"),
        input_modes: list("input_modes"),
        output_modes: list("output_modes"),
        name: draft.texts.remove("name").unwrap_or_else(|| id.clone()),
        description: draft.texts.remove("description").unwrap_or_default(),
        id,
        is_extended: draft.flags.get("extended").copied().unwrap_or(false),
        is_default,
        answer: draft.answer.unwrap_or(SkillAnswer::Task),
        rules: std::mem::take(&mut draft.rules),
        job,
        origin: place(file, at),
    };
    (draft, Some(skill))
}

//! A plan as it is written, and what must hold of it before it is taken in.

use std::collections::{BTreeMap, BTreeSet};

use runtime::{EffectClass, InputError, Json};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::command::Run;
use crate::duration::HumanDuration;
use crate::read_input;
use crate::retry::{OnInterrupted, Retry};
use crate::template;

/// A plan.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlanSpec {
    /// What the steps can refer to as `input`.
    #[serde(default)]
    pub(crate) input: Value,
    /// The steps, in any order.
    pub(crate) steps: Vec<StepSpec>,
    /// What becomes of the others when a step fails.
    #[serde(default)]
    pub(crate) on_failure: OnFailure,
    /// What the plan gives, beside what its steps gave.
    #[serde(default)]
    pub(crate) output: Option<Value>,
}

/// What becomes of the other steps when one fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OnFailure {
    /// Those that do not need it go on.
    #[default]
    Finish,
    /// All are ended.
    Stop,
}

/// One step.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StepSpec {
    /// What the other steps call it.
    pub(crate) id: String,
    /// What it is for, in words.
    #[serde(default)]
    pub(crate) title: Option<String>,
    /// The steps that must be over before it begins.
    #[serde(default)]
    pub(crate) needs: Vec<String>,
    /// Whether it runs at all. Without it, a step runs if none of those it needs failed.
    #[serde(default)]
    pub(crate) when: Option<String>,
    /// How it is tried again.
    #[serde(default)]
    pub(crate) retry: Retry,
    /// How long one try may take.
    #[serde(default)]
    pub(crate) timeout: Option<HumanDuration>,
    /// What an interruption of it means.
    #[serde(default)]
    pub(crate) class: EffectClass,
    /// What to do when it is not known whether it took effect.
    #[serde(default)]
    pub(crate) on_interrupted: OnInterrupted,
    /// Whether the plan is none the worse if it fails.
    #[serde(default)]
    pub(crate) may_fail: bool,

    // What it does: exactly one of these.
    #[serde(default)]
    pub(crate) run: Option<Run>,
    #[serde(default)]
    pub(crate) sleep: Option<HumanDuration>,
    #[serde(default)]
    pub(crate) say: Option<String>,
    #[serde(default)]
    pub(crate) artifact: Option<ArtifactSpec>,
    #[serde(default)]
    pub(crate) ask: Option<AskSpec>,
    #[serde(default)]
    pub(crate) call: Option<CallSpec>,
    #[serde(default)]
    pub(crate) fail: Option<FailSpec>,
}

/// Work for another agent, over Agent2Agent.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallSpec {
    /// Which agent, as the config calls it.
    pub(crate) agent: String,
    /// What to tell it, in words.
    #[serde(default)]
    pub(crate) text: Option<String>,
    /// What to tell it, as data.
    #[serde(default)]
    pub(crate) data: Option<Value>,
    /// What to say of the message.
    #[serde(default)]
    pub(crate) metadata: Map<String, Value>,
    /// The context that the message belongs to; a new one if nothing is said.
    #[serde(default)]
    pub(crate) context: Option<String>,
    /// Whether what the agent gives is given by this job too.
    #[serde(default)]
    pub(crate) forward: bool,
}

impl CallSpec {
    fn check(&self) -> Result<(), String> {
        if self.agent.is_empty() {
            return Err("agent: is empty".to_owned());
        }
        match (&self.text, &self.data) {
            (None, None) => Err("says nothing: give `text`, `data` or both".to_owned()),
            _ => Ok(()),
        }
    }
}

/// Why a step fails: a text, or a text and the word for it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(from = "FailForm")]
pub(crate) struct FailSpec {
    /// What went wrong, for people.
    pub(crate) message: String,
    /// The word for it: that of the plan's own failure, if the plan fails by this step.
    pub(crate) code: Option<String>,
}

/// The two ways to write a [`FailSpec`].
#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "a text, or a table of `message` and `code` (texts both)"
)]
enum FailForm {
    Text(String),
    Table(FailTable),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FailTable {
    message: String,
    #[serde(default)]
    code: Option<String>,
}

impl From<FailForm> for FailSpec {
    fn from(form: FailForm) -> Self {
        let (message, code) = match form {
            FailForm::Text(message) => (message, None),
            FailForm::Table(FailTable { message, code }) => (message, code),
        };
        Self { message, code }
    }
}

impl FailSpec {
    fn check(&self) -> Result<(), String> {
        match &self.code {
            Some(code) => check_id(code)
                .map_err(|_| format!("code: `{code}` is no word of letters, digits, `_` or `-`")),
            None => Ok(()),
        }
    }
}

/// Something that the job gives away while it runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ArtifactSpec {
    /// What it is called.
    pub(crate) name: String,
    /// What kind of data it is; guessed if nothing is said.
    #[serde(default)]
    pub(crate) media_type: Option<String>,
    /// In how many bytes at a time it is given; in one piece if nothing is said. For texts and files.
    #[serde(default)]
    pub(crate) chunk_bytes: Option<u64>,

    // Exactly one of these.
    #[serde(default)]
    pub(crate) text: Option<String>,
    #[serde(default)]
    pub(crate) data: Option<Value>,
    #[serde(default)]
    pub(crate) file: Option<String>,
    #[serde(default)]
    pub(crate) url: Option<String>,
}

/// A question to whoever watches.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AskSpec {
    /// What is asked.
    pub(crate) prompt: String,
    /// Whether a yes or no is wanted.
    #[serde(default)]
    pub(crate) approval: bool,
    /// How long to wait.
    #[serde(default)]
    pub(crate) deadline: Option<HumanDuration>,
    /// What counts as the answer then.
    #[serde(default)]
    pub(crate) default: Option<Value>,
}

/// The words for what a step can do.
const KINDS: &str = "`run`, `sleep`, `say`, `artifact`, `ask`, `call` or `fail`";

impl PlanSpec {
    /// Reads a plan and makes sure that it can be run.
    pub(crate) fn read(input: &Json) -> Result<Self, InputError> {
        let plan: Self = read_input(input)?;
        plan.check()?;
        Ok(plan)
    }

    fn check(&self) -> Result<(), InputError> {
        if self.steps.is_empty() {
            return Err(InputError::at(
                "/steps",
                "steps: a plan needs at least one step",
            ));
        }
        let mut known = BTreeMap::new();
        for (index, step) in self.steps.iter().enumerate() {
            let at = |why: String| {
                InputError::at(
                    format!("/steps/{index}/id"),
                    format!("steps[{index}].id: {why}"),
                )
            };
            check_id(&step.id).map_err(at)?;
            if let Some(other) = known.insert(step.id.as_str(), index) {
                let id = &step.id;
                return Err(at(format!("steps[{other}] is called `{id}` already")));
            }
        }
        for (index, step) in self.steps.iter().enumerate() {
            let at = |part: &str, why: String| {
                InputError::at(
                    format!("/steps/{index}{part}"),
                    format!("step `{}`: {why}", step.id),
                )
            };
            step.check().map_err(|why| at("", why))?;
            for (position, need) in step.needs.iter().enumerate() {
                if !known.contains_key(need.as_str()) {
                    let near = suggestion(need, known.keys().copied());
                    let why = format!("needs `{need}`, and no step is called that{near}");
                    return Err(at(&format!("/needs/{position}"), why));
                }
            }
        }
        let before = self
            .all_needs()
            .map_err(|why| InputError::at("/steps", why))?;
        let environment = template::environment();
        for (index, step) in self.steps.iter().enumerate() {
            let before = &before[step.id.as_str()];
            let at = |part: &str, why: String| {
                InputError::at(
                    format!("/steps/{index}/{}", part.replace('.', "/")),
                    format!("step `{}`: {part}: {why}", step.id),
                )
            };
            for (part, text) in step.texts() {
                template::names_in_text(&environment, &text)
                    .and_then(|names| check_names(&names, before))
                    .map_err(|why| at(part, why))?;
            }
            if let Some(when) = &step.when {
                template::names_in_expression(&environment, when)
                    .and_then(|names| check_names(&names, before))
                    .map_err(|why| at("when", why))?;
            }
        }
        Ok(())
    }

    /// For every step, all those that are over before it begins.
    fn all_needs(&self) -> Result<BTreeMap<&str, BTreeSet<&str>>, String> {
        let mut before: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        // Kahn's algorithm, in the order of the specification.
        while before.len() < self.steps.len() {
            let ready = self.steps.iter().find(|step| {
                !before.contains_key(step.id.as_str())
                    && step
                        .needs
                        .iter()
                        .all(|need| before.contains_key(need.as_str()))
            });
            let Some(step) = ready else {
                let stuck: Vec<_> = self
                    .steps
                    .iter()
                    .filter(|step| !before.contains_key(step.id.as_str()))
                    .map(|step| format!("`{}`", step.id))
                    .collect();
                return Err(format!(
                    "steps: {} need each other in a circle, so none of them could begin",
                    stuck.join(", ")
                ));
            };
            let mut all: BTreeSet<&str> = BTreeSet::new();
            for need in &step.needs {
                all.insert(need);
                all.extend(before[need.as_str()].iter().copied());
            }
            before.insert(&step.id, all);
        }
        Ok(before)
    }
}

impl StepSpec {
    fn check(&self) -> Result<(), String> {
        let kinds = [
            self.run.is_some(),
            self.sleep.is_some(),
            self.say.is_some(),
            self.artifact.is_some(),
            self.ask.is_some(),
            self.call.is_some(),
            self.fail.is_some(),
        ];
        match kinds.iter().filter(|&&is| is).count() {
            1 => {}
            0 => return Err(format!("says nothing of what it does: one of {KINDS}")),
            _ => {
                return Err(format!(
                    "does several things; a step does exactly one of {KINDS}"
                ));
            }
        }
        self.retry.check()?;
        if let Some(run) = &self.run {
            run.check().map_err(|why| format!("run: {why}"))?;
        } else if let Some(call) = &self.call {
            call.check().map_err(|why| format!("call: {why}"))?;
            if self.class != EffectClass::External {
                return Err("class: a call knows its own".to_owned());
            }
        } else {
            self.check_quiet()?;
        }
        if let Some(artifact) = &self.artifact {
            artifact.check().map_err(|why| format!("artifact: {why}"))?;
        }
        if let Some(ask) = &self.ask {
            ask.check().map_err(|why| format!("ask: {why}"))?;
        }
        if let Some(fail) = &self.fail {
            fail.check().map_err(|why| format!("fail: {why}"))?;
        }
        Ok(())
    }

    /// What says how a command is run is refused where none is, instead of being passed over.
    fn check_quiet(&self) -> Result<(), String> {
        let only_of_commands =
            |part: &str| Err(format!("{part}: only a step that runs a command has this"));
        let only_of_work = |part: &str| {
            Err(format!(
                "{part}: only a step that runs a command or calls an agent has this"
            ))
        };
        if self.class != EffectClass::External {
            return only_of_commands("class");
        }
        if self.retry != Retry::default() {
            return only_of_work("retry");
        }
        if self.on_interrupted != OnInterrupted::default() {
            return only_of_work("on_interrupted");
        }
        let reads_file = self.artifact.as_ref().is_some_and(|a| a.file.is_some());
        if self.timeout.is_some() && !reads_file {
            return Err(
                "timeout: only a step that runs a command, calls an agent or reads a file has this"
                    .to_owned(),
            );
        }
        Ok(())
    }

    /// Every text of the step that is a template, and where it stands.
    fn texts(&self) -> Vec<(&'static str, String)> {
        let mut texts = Vec::new();
        if let Some(run) = &self.run {
            texts.extend(run.argv.iter().map(|text| ("run.argv", text.clone())));
            texts.extend(run.shell.iter().map(|text| ("run.shell", text.clone())));
            texts.extend(run.env.values().map(|text| ("run.env", text.clone())));
            texts.extend(run.cwd.iter().map(|text| ("run.cwd", text.clone())));
            texts.extend(run.stdin.iter().map(|text| ("run.stdin", text.clone())));
        }
        texts.extend(self.say.iter().map(|text| ("say", text.clone())));
        texts.extend(self.fail.iter().map(|fail| ("fail", fail.message.clone())));
        if let Some(artifact) = &self.artifact {
            texts.push(("artifact.name", artifact.name.clone()));
            texts.extend(
                artifact
                    .text
                    .iter()
                    .map(|text| ("artifact.text", text.clone())),
            );
            texts.extend(
                artifact
                    .file
                    .iter()
                    .map(|text| ("artifact.file", text.clone())),
            );
            texts.extend(
                artifact
                    .url
                    .iter()
                    .map(|text| ("artifact.url", text.clone())),
            );
            if let Some(data) = &artifact.data {
                strings_in(data, &mut |text| {
                    texts.push(("artifact.data", text.to_owned()));
                });
            }
        }
        if let Some(ask) = &self.ask {
            texts.push(("ask.prompt", ask.prompt.clone()));
        }
        if let Some(call) = &self.call {
            texts.extend(call.text.iter().map(|text| ("call.text", text.clone())));
            let context = call.context.iter();
            texts.extend(context.map(|text| ("call.context", text.clone())));
            let data = call.data.iter().map(|data| ("call.data", data));
            let metadata = call.metadata.values().map(|data| ("call.metadata", data));
            for (part, value) in data.chain(metadata) {
                strings_in(value, &mut |text| texts.push((part, text.to_owned())));
            }
        }
        texts
    }
}

impl ArtifactSpec {
    fn check(&self) -> Result<(), String> {
        let given = [
            self.text.is_some(),
            self.data.is_some(),
            self.file.is_some(),
            self.url.is_some(),
        ];
        if given.iter().filter(|&&is| is).count() != 1 {
            return Err("is exactly one of `text`, `data`, `file` or `url`".to_owned());
        }
        if self.name.is_empty() {
            return Err("name: is empty".to_owned());
        }
        match self.chunk_bytes {
            Some(0) => Err("chunk_bytes: is 0, and a chunk has at least 1 byte".to_owned()),
            Some(_) if self.text.is_none() && self.file.is_none() => {
                Err("chunk_bytes: only texts and files come in chunks".to_owned())
            }
            _ => Ok(()),
        }
    }
}

impl AskSpec {
    fn check(&self) -> Result<(), String> {
        match (&self.deadline, &self.default) {
            (Some(_), None) => Err(
                "deadline: needs a `default`, which counts as the answer when it is over"
                    .to_owned(),
            ),
            (None, Some(_)) => {
                Err("default: needs a `deadline`, after which it counts as the answer".to_owned())
            }
            (_, Some(default)) if self.approval && !default.is_boolean() => {
                Err("default: of an approval is true or false".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// Calls `visit` with every text in a JSON value.
fn strings_in(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(values) => values.iter().for_each(|value| strings_in(value, visit)),
        Value::Object(fields) => fields.values().for_each(|value| strings_in(value, visit)),
        _ => {}
    }
}

fn check_id(id: &str) -> Result<(), String> {
    const LENGTH_MAX: usize = 64;
    let fits = !id.is_empty()
        && id.len() <= LENGTH_MAX
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    if fits {
        Ok(())
    } else {
        Err(format!(
            "`{id}` is no name for a step: 1 to {LENGTH_MAX} letters, digits, `_` or `-`"
        ))
    }
}

/// Whether a template refers only to what it can see.
fn check_names(names: &[String], before: &BTreeSet<&str>) -> Result<(), String> {
    for name in names {
        let mut parts = name.split('.');
        match parts.next() {
            Some("input" | "job") => {}
            Some("steps") => {
                if let Some(step) = parts.next()
                    && !before.contains(step)
                {
                    return Err(format!(
                        "refers to `steps.{step}`, which the step does not need; add \"{step}\" to its `needs`"
                    ));
                }
            }
            Some(other) => {
                return Err(format!(
                    "refers to `{other}`; there are `input`, `steps` and `job`"
                ));
            }
            None => {}
        }
    }
    Ok(())
}

/// The nearest of the known names, as the end of a sentence.
fn suggestion<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    known
        .map(|known| (distance(name, known), known))
        .min()
        .filter(|(distance, _)| *distance <= 1 + name.len() / 4)
        .map_or_else(String::new, |(_, known)| {
            format!(" (did you mean `{known}`?)")
        })
}

/// The edit distance of Levenshtein (1966).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(input: &str) -> String {
        PlanSpec::read(&Json::parse_text(input).unwrap())
            .unwrap_err()
            .message
    }

    #[test]
    fn refusals_say_where_and_how_to_mend_it() {
        for (input, part) in [
            (r#"{"steps":[]}"#, "at least one step"),
            (r#"{"stpes":[]}"#, "unknown field `stpes`"),
            (
                r#"{"steps":[{"id":"a b","say":"x"}]}"#,
                "is no name for a step",
            ),
            (
                r#"{"steps":[{"id":"a","say":"x"},{"id":"a","say":"y"}]}"#,
                "steps[0] is called `a` already",
            ),
            (
                r#"{"steps":[{"id":"a"}]}"#,
                "step `a`: says nothing of what it does",
            ),
            (
                r#"{"steps":[{"id":"a","say":"x","sleep":"1s"}]}"#,
                "does several things",
            ),
            (
                r#"{"steps":[{"id":"count","say":"x"},{"id":"b","needs":["cuont"],"say":"x"}]}"#,
                "did you mean `count`?",
            ),
            (
                r#"{"steps":[{"id":"a","needs":["b"],"say":"x"},{"id":"b","needs":["a"],"say":"x"}]}"#,
                "`a`, `b` need each other in a circle",
            ),
            (
                r#"{"steps":[{"id":"a","say":"x"},{"id":"b","say":"{{ steps.a.stdout }}"}]}"#,
                "add \"a\" to its `needs`",
            ),
            (
                r#"{"steps":[{"id":"a","say":"{{ inptu.x }}"}]}"#,
                "refers to `inptu`",
            ),
            (
                r#"{"steps":[{"id":"a","say":"{{ input.x "}]}"#,
                "step `a`: say: syntax error",
            ),
            (
                r#"{"steps":[{"id":"a","when":"input.x ==","say":"x"}]}"#,
                "step `a`: when: syntax error",
            ),
            (
                r#"{"steps":[{"id":"a","run":{}}]}"#,
                "step `a`: run: either `argv` or `shell`",
            ),
            (r#"{"steps":[{"id":"a","sleep":"long"}]}"#, "steps[0].sleep"),
            (
                r#"{"steps":[{"id":"a","class":"read","say":"x"}]}"#,
                "class: only a step that runs a command",
            ),
            (
                r#"{"steps":[{"id":"a","retry":{"attempts":2},"say":"x"}]}"#,
                "retry: only a step that runs a command",
            ),
            (
                r#"{"steps":[{"id":"a","on_interrupted":"rerun","say":"x"}]}"#,
                "on_interrupted: only a step that runs a command",
            ),
            (
                r#"{"steps":[{"id":"a","timeout":"1s","ask":{"prompt":"?"}}]}"#,
                "timeout: only a step that runs a command, calls an agent or reads a file",
            ),
            (
                r#"{"steps":[{"id":"a","call":{"agent":"","text":"x"}}]}"#,
                "step `a`: call: agent: is empty",
            ),
            (
                r#"{"steps":[{"id":"a","call":{"agent":"b"}}]}"#,
                "call: says nothing: give `text`, `data` or both",
            ),
            (
                r#"{"steps":[{"id":"a","class":"read","call":{"agent":"b","text":"x"}}]}"#,
                "class: a call knows its own",
            ),
            (
                r#"{"steps":[{"id":"a","call":{"agent":"b","data":{"x":["{{ steps.c.y }}"]}}}]}"#,
                "step `a`: call.data: ",
            ),
            (
                r#"{"steps":[{"id":"a","ask":{"prompt":"?","deadline":"1s"}}]}"#,
                "needs a `default`",
            ),
            (
                r#"{"steps":[{"id":"a","ask":{"prompt":"?","approval":true,"deadline":"1s","default":"yes"}}]}"#,
                "is true or false",
            ),
            (
                r#"{"steps":[{"id":"a","fail":{"message":"x","code":"no word"}}]}"#,
                "step `a`: fail: code: `no word` is no word",
            ),
            (
                r#"{"steps":[{"id":"a","fail":{"code":"x"}}]}"#,
                "a text, or a table of `message` and `code`",
            ),
            (
                r#"{"steps":[{"id":"a","artifact":{"name":"n"}}]}"#,
                "exactly one of `text`",
            ),
            (
                r#"{"steps":[{"id":"a","artifact":{"name":"n","url":"u","chunk_bytes":3}}]}"#,
                "only texts and files",
            ),
            (
                r#"{"steps":[{"id":"a","run":{"argv":["x"]},"retry":{"attempts":3,"bakcoff":"1s"}}]}"#,
                "unknown field `bakcoff`",
            ),
        ] {
            let refusal = refusal(input);
            assert!(refusal.contains(part), "{input}: {refusal}");
        }
    }

    #[test]
    fn what_an_earlier_step_of_an_earlier_step_gave_may_be_used() {
        let plan = r#"{"steps":[
            {"id":"c","needs":["b"],"say":"{{ steps.a.stdout }}"},
            {"id":"b","needs":["a"],"say":"x"},
            {"id":"a","run":{"argv":["true"]}}]}"#;
        PlanSpec::read(&Json::parse_text(plan).unwrap()).unwrap();
    }
}

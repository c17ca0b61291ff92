//! The config as text: what is in force, what changed, and the example file. All drawn from the schema.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::agent::A2aAgent;
use super::environment::Environment;
use super::job::{Job, StartupJob};
use super::origin::{Origin, Provenance};
use super::schema::{Config, KEYS, Key, SECTIONS, Section, Temperature};
use super::secret::SecretSource;
use super::skill::A2aSkill;
use super::{Loaded, layers::VARIABLE_PREFIX};
use crate::neutral::one_line;

/// What differs between two configs, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys that a reload applies.
    pub hot: Vec<&'static str>,
    /// Keys that take a restart. `job` stands for the start-up jobs, which are submitted at boot.
    pub cold: Vec<&'static str>,
}

impl Changes {
    /// Whether the two are the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hot.is_empty() && self.cold.is_empty()
    }
}

/// What differs between two configs.
#[must_use]
pub fn diff(old: &Config, new: &Config) -> Changes {
    let mut changes = Changes::default();
    for ((key, before), (_, after)) in old.values().into_iter().zip(new.values()) {
        if before == after {
            continue;
        }
        match key.temperature {
            Temperature::Hot => changes.hot.push(key.path),
            Temperature::Cold => changes.cold.push(key.path),
        }
    }
    let same_job = |(a, b): (&StartupJob, &StartupJob)| a.job.says_the_same_as(&b.job);
    if old.jobs.len() != new.jobs.len() || !old.jobs.iter().zip(&new.jobs).all(same_job) {
        changes.cold.push("job");
    }
    let agents = (&old.a2a_agents, &new.a2a_agents);
    let (old, new) = (&old.a2a_skills, &new.a2a_skills);
    let same_skill = |(a, b): (&A2aSkill, &A2aSkill)| a.says_the_same_as(b);
    if old.len() != new.len() || !old.iter().zip(new).all(same_skill) {
        changes.cold.push("a2a.skill");
    }
    let (old, new) = agents;
    let same_agent = |(a, b): (&A2aAgent, &A2aAgent)| a.says_the_same_as(b);
    if old.len() != new.len() || !old.iter().zip(new).all(same_agent) {
        changes.cold.push("a2a.agent");
    }
    changes
}

/// The config in force as TOML that could be used as a file, each value with where it came from. Of jobs only the
/// head is shown: a body may hold a command line or an environment, and so a secret.
#[must_use]
pub fn show_toml(loaded: &Loaded) -> String {
    let mut out = String::new();
    let mut section = "";
    for (key, value) in loaded.config.values() {
        if key.section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            push(&mut out, format_args!("{gap}[{}]\n", key.section));
            section = key.section;
        }
        let line = match &value {
            Value::Null => format!("# {} is not set", key.name),
            value => format!("{} = {}", key.name, toml_value(value)),
        };
        let origin = one_line(&describe_origin(&loaded.provenance, key.path)).into_owned();
        push(&mut out, format_args!("{line:<40}  # {origin}\n"));
    }
    for job in &loaded.config.jobs {
        push(
            &mut out,
            format_args!("\n# {}\n", one_line(&job.origin.to_string())),
        );
        push(&mut out, format_args!("[[job]]\n"));
        push(
            &mut out,
            format_args!("name = {}\n", toml_value(&json!(job.name.as_str()))),
        );
        if let Some(title) = &job.job.title {
            push(
                &mut out,
                format_args!("title = {}\n", toml_value(&json!(title))),
            );
        }
        push(
            &mut out,
            format_args!("program = \"{}\"\n", job.job.program.as_str()),
        );
        push(
            &mut out,
            format_args!("priority = \"{}\"\n", job.job.priority.as_str()),
        );
        push(
            &mut out,
            format_args!("on_change = \"{}\"\n", job.job.on_change.as_str()),
        );
        let keys = body_keys(&job.job).join(", ");
        push(
            &mut out,
            format_args!("# not shown, as it may hold secrets: {}\n", one_line(&keys)),
        );
    }
    for skill in &loaded.config.a2a_skills {
        push_skill(&mut out, skill);
    }
    for agent in &loaded.config.a2a_agents {
        let origin = agent.origin.to_string();
        push(&mut out, format_args!("\n# {}\n", one_line(&origin)));
        push(&mut out, format_args!("[[a2a.agent]]\n"));
        for (key, value) in agent_fields(agent) {
            push(&mut out, format_args!("{key} = {}\n", toml_value(&value)));
        }
    }
    out
}

fn push_skill(out: &mut String, skill: &A2aSkill) {
    let origin = skill.origin.to_string();
    push(out, format_args!("\n# {}\n", one_line(&origin)));
    push(out, format_args!("[[a2a.skill]]\n"));
    for (key, value) in [
        ("id", json!(skill.id)),
        ("name", json!(skill.name)),
        ("default", json!(skill.is_default)),
        ("extended", json!(skill.is_extended)),
        ("answer", json!(skill.answer.as_str())),
        ("program", json!(skill.job.program.as_str())),
    ] {
        push(out, format_args!("{key} = {}\n", toml_value(&value)));
    }
    let keys = body_keys(&skill.job).join(", ");
    push(
        out,
        format_args!("# not shown, as it may hold secrets: {}\n", one_line(&keys)),
    );
}

/// What is written of an agent; where its token is, and not the token.
fn agent_fields(agent: &A2aAgent) -> Vec<(&'static str, Value)> {
    let mut fields = vec![
        ("name", json!(agent.name)),
        ("url", json!(agent.url.as_str())),
    ];
    match &agent.token {
        Some(SecretSource::Env(name)) => fields.push(("token_env", json!(name.as_str()))),
        Some(SecretSource::File(path)) => fields.push(("token_file", json!(path))),
        None => {}
    }
    if let Some(file) = &agent.ca_file {
        fields.push(("ca_file", json!(file)));
    }
    fields
}

/// The config in force as JSON: `{"schema":1,"values":{key:{"value","origin","overrides","hot"}},"jobs":[…],
/// "a2a_skills":[…],"a2a_agents":[…]}`.
#[must_use]
pub fn show_json(loaded: &Loaded) -> Value {
    let values: Map<String, Value> = loaded
        .config
        .values()
        .into_iter()
        .map(|(key, value)| {
            let overridden = loaded.provenance.overridden(key.path);
            let shown = json!({
                "value": value,
                "origin": loaded.provenance.of(key.path).to_string(),
                "overrides": overridden.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "hot": key.temperature == Temperature::Hot,
            });
            (key.path.to_owned(), shown)
        })
        .collect();
    let jobs: Vec<Value> = loaded
        .config
        .jobs
        .iter()
        .map(|job| {
            json!({
                "name": job.name.as_str(),
                "title": job.job.title,
                "program": job.job.program.as_str(),
                "priority": job.job.priority.as_str(),
                "on_change": job.job.on_change.as_str(),
                "origin": job.origin.to_string(),
                "body_keys": body_keys(&job.job),
            })
        })
        .collect();
    let skills: Vec<Value> = loaded
        .config
        .a2a_skills
        .iter()
        .map(|skill| {
            json!({
                "id": skill.id,
                "name": skill.name,
                "default": skill.is_default,
                "extended": skill.is_extended,
                "answer": skill.answer.as_str(),
                "program": skill.job.program.as_str(),
                "origin": skill.origin.to_string(),
                "body_keys": body_keys(&skill.job),
            })
        })
        .collect();
    let agents: Vec<Value> = loaded
        .config
        .a2a_agents
        .iter()
        .map(|agent| {
            let mut fields: Map<String, Value> = agent_fields(agent)
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect();
            fields.insert("origin".to_owned(), agent.origin.to_string().into());
            fields.into()
        })
        .collect();
    json!({
        "schema": 1,
        "values": values,
        "jobs": jobs,
        "a2a_skills": skills,
        "a2a_agents": agents,
    })
}

fn body_keys(job: &Job) -> Vec<&str> {
    job.body
        .as_object()
        .into_iter()
        .flat_map(|body| body.keys().map(String::as_str))
        .collect()
}

fn describe_origin(provenance: &Provenance, path: &str) -> String {
    let mut text = provenance.of(path).to_string();
    let overridden: Vec<String> = provenance
        .overridden(path)
        .iter()
        .rev()
        .map(Origin::to_string)
        .collect();
    if !overridden.is_empty() {
        push(&mut text, format_args!(", over {}", overridden.join(", ")));
    }
    text
}

/// The text of `config.example.toml`: every key with its meaning, form, range and default.
#[must_use]
pub fn example() -> String {
    let mut out = EXAMPLE_HEAD.replace("{VARIABLE_PREFIX}", VARIABLE_PREFIX);
    // The defaults that depend on the machine are said in words, so any environment will do for the others.
    let environment = Environment::default();
    for section in SECTIONS {
        push_section(&mut out, section);
        for key in KEYS.iter().filter(|key| key.section == section.name) {
            push_key(&mut out, key, &environment);
        }
    }
    out.push_str(EXAMPLE_JOBS);
    out
}

const EXAMPLE_HEAD: &str = r#"# Every key of tinkerbell's config, with its default.
#
# No file is needed: without one, this is what runs. Use it with `tinkerbell --config FILE`, or name it in the
# environment variable TINKERBELL_CONFIG. The same can be written as JSON or YAML: the extension decides.
#
# What is given in more than one place is taken from the last of: this default, the file, the environment
# (`{VARIABLE_PREFIX}WAL__SYNC=interval`), flags (`--set wal.sync=interval`). `tinkerbell config show` prints what is in
# force and where each value came from; `tinkerbell config check` says what is wrong with a file.
#
# A change of a HOT key is applied at the next reload (SIGHUP, or a change of the file); a COLD key takes a restart.
# Sizes: 4096, 16KiB, 64MiB, 1GB. Durations: 250ms, 30s, 1h30m, 7d. Secrets are never written here: `*_env` and `*_file`
# say where they are.
"#;

const EXAMPLE_JOBS: &str = r#"
# ----------------------------------------------------------------------------------------------------------------------
# Start-up jobs
#
# Each is submitted at boot under its name, which is its idempotency key: a job that is already done is not run again.
# The keys that every job has:
#   name       required; letters, digits, `-`, `_`, `.`, `:`, `/`; each name once
#   program    required unless `file` is given: "plan" or "command"
#   title      what people read
#   labels     words to find it by, such as { team = "search" }
#   priority   "background", "low", "normal" or "high"; default "normal"
#   on_change  what to do if a job of this name is in the log with another specification: "refuse" it (the default),
#              "keep" the earlier one, "rerun" as a job of its own
#   file       a file that holds the rest; a relative path is relative to this file
# All other keys belong to the program. COLD.
#
# [[job]]
# name = "greet"
# program = "command"
# argv = ["echo", "hello"]
#
# [[job]]
# name = "nightly-report"
# file = "jobs/report.toml"
# priority = "low"

# ----------------------------------------------------------------------------------------------------------------------
# Skills of the agent that a2a serves
#
# Each makes a job of a message, which is the task that the client gets. Keys:
#   id            required; what it is known by
#   description   required; what it does
#   name, tags, examples, input_modes, output_modes   what else the agent's card says of it
#   match         which messages it takes: a list of rules, each with one or more of `metadata` (a table), `text` (a regular
#                 expression), `message_id` (how it begins) and `after` (the skill that took the message before in the same
#                 context). Skills are asked in the order of this file.
#   default       whether it takes what no other skill does, in a context that no other skill took a message of
#   answer        "task" (the default), or "message": what the job gave, without a task
#   extended      whether only the extended card shows it, which asks for the token
# All other keys are those of a job, as above, but for `name` and `on_change`. A plan finds the message as `input.message`
# (`text`, `data`, `parts`, `metadata`, `message_id`, `context_id`); a command reads its text on standard input, and
# finds all of it as JSON in the variable A2A_MESSAGE. COLD.
#
# [[a2a.skill]]
# id = "echo"
# description = "Says it again"
# default = true
# program = "plan"
# steps = [{ id = "say", say = "{{ input.message.text }}" }]

# ----------------------------------------------------------------------------------------------------------------------
# Agents that work can be handed to, in builds with the feature `a2a`
#
# A step `call = { agent = "NAME", text = "…" }` of a plan hands work to one. Keys:
#   name          required; what plans call it
#   url           required; where its card is, but for /.well-known/agent-card.json
#   token_env     the environment variable that holds the bearer token it asks for; the token goes to this address only
#   token_file    the file that holds it
#   ca_file       the file (PEM) with certificates that its own may lead to, beside those that this machine trusts
# COLD.
#
# [[a2a.agent]]
# name = "converter"
# url = "https://agents.example.org/converter"
# token_env = "CONVERTER_TOKEN"
"#;

fn push_section(out: &mut String, section: &Section) {
    push(out, format_args!("\n# {}\n", "-".repeat(118)));
    push_docs(out, section.docs);
    push(out, format_args!("[{}]\n", section.name));
}

fn push_key(out: &mut String, key: &Key, environment: &Environment) {
    out.push('\n');
    push_docs(out, key.docs);
    let temperature = match key.temperature {
        Temperature::Hot => "HOT",
        Temperature::Cold => "COLD",
    };
    let mut facts = (key.expected)();
    if let Some(range) = (key.range)() {
        push(&mut facts, format_args!(", {range}"));
    }
    match key.machine_default {
        None => {
            push(out, format_args!("# {temperature}; {facts}\n"));
            let default = (key.default)(environment);
            push(
                out,
                format_args!("{} = {}\n", key.name, toml_value(&default)),
            );
        }
        Some((default, example)) => {
            push(
                out,
                format_args!("# {temperature}; {facts}\n# default: {default}\n"),
            );
            push(
                out,
                format_args!("# {} = {}\n", key.name, toml_value(&json!(example))),
            );
        }
    }
}

fn push_docs(out: &mut String, docs: &[&str]) {
    for line in docs {
        push(out, format_args!("#{line}\n"));
    }
}

/// A value as TOML. Nothing but scalars and flat lists is ever a value of a key.
fn toml_value(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            format!(
                "[{}]",
                items.iter().map(toml_value).collect::<Vec<_>>().join(", ")
            )
        }
        Value::String(text) => toml::Value::String(text.clone()).to_string(),
        other => other.to_string(),
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text)
        .expect("a string takes any text, because it has no way to refuse it");
}

//! Agents that work can be handed to, as they are written: `[[a2a.agent]]`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{ConfigError, ErrorKind, nearest};
use super::names::{Url, VariableName};
use super::origin::{Origin, Position};
use super::secret::SecretSource;
use super::syntax::{Data, Entry, Node, place};
use super::value::{Field, Raw};

/// Another agent, by the name that plans call it.
#[derive(Clone, Debug)]
pub struct A2aAgent {
    /// What plans call it, unique in the config.
    pub name: String,
    /// Where its card is, but for the well-known path.
    pub url: Url,
    /// Where the bearer token is that it asks for.
    pub token: Option<SecretSource>,
    /// The file (PEM) with certificates that its own may lead to, beside those that this machine trusts.
    pub ca_file: Option<PathBuf>,
    /// Where in the config it is.
    pub origin: Origin,
}

impl A2aAgent {
    /// Whether two are the same, wherever they are written.
    #[must_use]
    pub fn says_the_same_as(&self, other: &Self) -> bool {
        (&self.name, &self.url, &self.token, &self.ca_file)
            == (&other.name, &other.url, &other.token, &other.ca_file)
    }
}

const KEYS: [&str; 5] = ["name", "url", "token_env", "token_file", "ca_file"];

/// The agents of a config file.
pub(crate) fn agents(
    nodes: Vec<Node>,
    file: &Arc<Path>,
    errors: &mut Vec<ConfigError>,
) -> Vec<A2aAgent> {
    let mut agents: Vec<A2aAgent> = Vec::new();
    for node in nodes {
        let at = node.at;
        let Data::Table(entries) = node.value else {
            let message = format!("expected an agent, found {}", node.value.describe());
            errors.push(ConfigError::new(ErrorKind::Value, message, place(file, at)));
            continue;
        };
        let agent = match agent(&entries, at, file) {
            Ok(agent) => agent,
            Err(found) => {
                errors.extend(found);
                continue;
            }
        };
        match agents.iter().find(|known| known.name == agent.name) {
            Some(first) => {
                let message = format!("two agents are called `{}`", agent.name);
                let error = ConfigError::new(ErrorKind::Conflict, message, agent.origin);
                errors.push(error.with_related("the first is here", first.origin.clone()));
            }
            None => agents.push(agent),
        }
    }
    agents
}

fn agent(entries: &[Entry], at: Position, file: &Arc<Path>) -> Result<A2aAgent, Vec<ConfigError>> {
    let mut errors = Vec::new();
    for entry in entries {
        if !KEYS.contains(&entry.key.as_str()) {
            let message = format!("unknown key `{}` of an agent", entry.key);
            let error = ConfigError::new(ErrorKind::UnknownKey, message, place(file, entry.at));
            errors.push(error.with_help(match nearest(&entry.key, KEYS) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are `{}`", KEYS.join("`, `")),
            }));
        }
    }
    let name: Option<String> = field("name", entries, file, &mut errors);
    let url: Option<Url> = field("url", entries, file, &mut errors);
    let variable: Option<VariableName> = field("token_env", entries, file, &mut errors);
    let token_file: Option<PathBuf> = field("token_file", entries, file, &mut errors);
    let ca_file: Option<PathBuf> = field("ca_file", entries, file, &mut errors);
    let mut complain = |kind, message: String, help: &str| {
        errors.push(ConfigError::new(kind, message, place(file, at)).with_help(help));
    };
    if variable.is_some() && token_file.is_some() {
        let message = "the agent has both `token_env` and `token_file`".to_owned();
        complain(
            ErrorKind::Conflict,
            message,
            "remove one of them: there is one token",
        );
    }
    for (key, is_there, help) in [
        (
            "name",
            name.as_ref().is_some_and(|name| !name.trim().is_empty()),
            "add `name = …`: what plans call it",
        ),
        (
            "url",
            url.is_some(),
            "add `url = \"https://…\"`: where its card is, but for the well-known path",
        ),
    ] {
        let is_written = entries.iter().any(|entry| entry.key == key);
        if !is_there && (!is_written || key == "name") {
            complain(
                ErrorKind::MissingKey,
                format!("the agent has no `{key}`"),
                help,
            );
        }
    }
    match (name, url) {
        (Some(name), Some(url)) if errors.is_empty() => Ok(A2aAgent {
            name,
            url,
            token: SecretSource::of(variable.as_ref(), token_file.as_ref()),
            ca_file,
            origin: place(file, at),
        }),
        _ => Err(errors),
    }
}

fn field<T: Field>(
    key: &str,
    entries: &[Entry],
    file: &Arc<Path>,
    errors: &mut Vec<ConfigError>,
) -> Option<T> {
    let entry = entries.iter().find(|entry| entry.key == key)?;
    let raw = Raw::Node(&entry.node);
    T::read(raw)
        .map_err(|mismatch| {
            let found = mismatch.found.unwrap_or_else(|| raw.describe());
            let expected = T::expected();
            let message = format!("expected {expected} for the agent's `{key}`, found {found}");
            let at = place(file, entry.node.at);
            errors
                .push(ConfigError::new(ErrorKind::Value, message, at).with_help_if(mismatch.help));
        })
        .ok()
}

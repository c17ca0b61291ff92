//! What the config takes from around the process: environment variables, the host's name, who runs it.
//!
//! Taken once, as a value, so that a config is a function of its inputs: a reload sees what the start saw, and a
//! test sees what it wants to.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::names::NodeName;

/// A snapshot of the process' surroundings.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<String, OsString>,
    host_name: String,
    is_root: bool,
}

/// Names only: the values of an environment hold other people's secrets.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("variables", &self.variables.keys())
            .field("host_name", &self.host_name)
            .field("is_root", &self.is_root)
            .finish()
    }
}

impl Environment {
    /// That of this process, as of now. Variables whose names are not UTF-8 are left out: none of ours are.
    #[must_use]
    pub fn of_process() -> Self {
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        Self {
            variables: variables.collect(),
            host_name: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            is_root: rustix::process::geteuid().is_root(),
        }
    }

    /// One of these variables and nothing else, on a host called `localhost`, for an ordinary user.
    #[must_use]
    pub fn of_variables<'a>(variables: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()));
        Self {
            variables: variables.collect(),
            host_name: "localhost".to_owned(),
            is_root: false,
        }
    }

    /// All variables, by name.
    pub(crate) fn variables(&self) -> impl Iterator<Item = (&str, &OsString)> {
        self.variables
            .iter()
            .map(|(name, value)| (name.as_str(), value))
    }

    /// A variable, if it is set and not empty. An empty one counts as not set, as in most shells' idioms.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&OsString> {
        self.variables.get(name).filter(|value| !value.is_empty())
    }

    /// The host's name, as far as it can be a node's.
    pub(crate) fn node_name(&self) -> NodeName {
        let usable: String = self
            .host_name
            .chars()
            .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
            .take(NodeName::LEN_MAX)
            .collect();
        NodeName::new(&usable)
            .or_else(|| NodeName::new("localhost"))
            .expect("`localhost` is a node name, because it consists of a few letters")
    }

    /// Where state is kept when nobody says where: systemd's `StateDirectory=` first, then the system's place for
    /// root, then the user's place by the XDG base directory specification.
    pub(crate) fn data_dir(&self) -> PathBuf {
        if let Some(directories) = self.variable("STATE_DIRECTORY") {
            // systemd gives a colon-separated list where a unit has several; ours is the first.
            let first = std::env::split_paths(directories)
                .next()
                .unwrap_or_default();
            if first.is_absolute() {
                return first;
            }
        }
        if self.is_root {
            return PathBuf::from("/var/lib/tinkerbell");
        }
        let absolute = |name| {
            self.variable(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        if let Some(state) = absolute("XDG_STATE_HOME") {
            return state.join("tinkerbell");
        }
        match absolute("HOME") {
            Some(home) => home.join(".local/state/tinkerbell"),
            // No home either: a container's bare user. The system's place then, where an error will name it.
            None => PathBuf::from("/var/lib/tinkerbell"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_is_kept_where_the_system_says() {
        let dir = |variables: &[(&str, &str)]| {
            Environment::of_variables(variables.iter().copied())
                .data_dir()
                .display()
                .to_string()
        };
        let home = ("HOME", "/home/w");
        assert_eq!(
            dir(&[home, ("STATE_DIRECTORY", "/var/lib/a:/var/lib/b")]),
            "/var/lib/a"
        );
        assert_eq!(dir(&[home, ("XDG_STATE_HOME", "/s")]), "/s/tinkerbell");
        // The XDG specification: relative paths are to be ignored.
        assert_eq!(
            dir(&[home, ("XDG_STATE_HOME", "s")]),
            "/home/w/.local/state/tinkerbell"
        );
        assert_eq!(dir(&[]), "/var/lib/tinkerbell");
        let root = Environment {
            is_root: true,
            ..Environment::of_variables([home])
        };
        assert_eq!(root.data_dir(), PathBuf::from("/var/lib/tinkerbell"));
    }

    #[test]
    fn printing_an_environment_gives_no_secret_away() {
        let environment = Environment::of_variables([("API_KEY", "hunter2")]);
        let printed = format!("{environment:?}");
        assert!(
            printed.contains("API_KEY") && !printed.contains("hunter2"),
            "{printed}"
        );
    }

    #[test]
    fn a_strange_host_name_still_gives_a_node_name() {
        let name = |host: &str| {
            let environment = Environment {
                host_name: host.to_owned(),
                ..Environment::default()
            };
            environment.node_name().as_str().to_owned()
        };
        assert_eq!(name("agent-7.example.org"), "agent-7.example.org");
        assert_eq!(name("grüße"), "gre");
        assert_eq!(name(""), "localhost");
        assert_eq!(name(&"x".repeat(300)).len(), NodeName::LEN_MAX);
    }
}

//! What no value can tell alone: values that contradict each other, and references to what the machine lacks.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::environment::Environment;
use super::error::{ConfigError, ErrorKind};
use super::job::Job;
use super::names::{GrpcAddress, VariableName};
use super::origin::{Origin, Provenance};
use super::schema::Config;
use super::secret::SecretSource;

/// Fits defaults to what somebody chose: who shortens the time of a shutdown need not know of a key that was never
/// touched.
pub(crate) fn fit_defaults(config: &mut Config, provenance: &Provenance) {
    if provenance.of("process.kill_grace") == Origin::Default {
        config.process.kill_grace = config.process.kill_grace.min(config.shutdown.grace);
    }
}

/// What a section has to know its clients by. The keys of these are named alike in each.
struct Guard<'a> {
    section: &'static str,
    token_env: Option<&'a VariableName>,
    token_file: Option<&'a PathBuf>,
    tls_cert_file: Option<&'a PathBuf>,
    tls_key_file: Option<&'a PathBuf>,
    tls_client_ca_file: Option<&'a PathBuf>,
}

impl Guard<'_> {
    fn of(config: &Config) -> [Guard<'_>; 3] {
        let (http, grpc, a2a) = (&config.http, &config.grpc, &config.a2a);
        [
            Guard {
                section: "http",
                token_env: http.token_env.as_ref(),
                token_file: http.token_file.as_ref(),
                tls_cert_file: None,
                tls_key_file: None,
                tls_client_ca_file: None,
            },
            Guard {
                section: "grpc",
                token_env: grpc.token_env.as_ref(),
                token_file: grpc.token_file.as_ref(),
                tls_cert_file: grpc.tls_cert_file.as_ref(),
                tls_key_file: grpc.tls_key_file.as_ref(),
                tls_client_ca_file: grpc.tls_client_ca_file.as_ref(),
            },
            Guard {
                section: "a2a",
                token_env: a2a.token_env.as_ref(),
                token_file: a2a.token_file.as_ref(),
                tls_cert_file: a2a.tls_cert_file.as_ref(),
                tls_key_file: a2a.tls_key_file.as_ref(),
                tls_client_ca_file: a2a.tls_client_ca_file.as_ref(),
            },
        ]
    }

    fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.section)
    }

    /// Whether everybody who can connect may ask.
    fn is_open(&self) -> bool {
        self.token_env.is_none() && self.token_file.is_none() && self.tls_client_ca_file.is_none()
    }

    /// That files belong together.
    fn incomplete(&self) -> Option<(&'static str, &'static str)> {
        match (self.tls_cert_file, self.tls_key_file) {
            (Some(_), None) => Some(("tls_cert_file", "tls_key_file")),
            (None, Some(_)) => Some(("tls_key_file", "tls_cert_file")),
            (None, None) if self.tls_client_ca_file.is_some() => {
                Some(("tls_client_ca_file", "tls_cert_file"))
            }
            _ => None,
        }
    }

    /// What an address is refused for that other machines can reach.
    fn exposes(&self, address: SocketAddr, provenance: &Provenance) -> Option<ConfigError> {
        if address.ip().is_loopback() || !self.is_open() {
            return None;
        }
        let (listen, env, file) = (
            self.key("listen"),
            self.key("token_env"),
            self.key("token_file"),
        );
        let message = format!(
            "`{listen}` has {address}, which other machines can reach, and nothing tells who may ask there"
        );
        let error = ConfigError::new(ErrorKind::Conflict, message, provenance.of(&listen));
        let certificates = match self.section {
            "http" => String::new(),
            _ => format!(" or `{}`", self.key("tls_client_ca_file")),
        };
        Some(error.with_help(format!(
            "set `{env}`, `{file}`{certificates}, or listen on `127.0.0.1`"
        )))
    }
}

/// Adds every pair of values that cannot both be meant.
pub(crate) fn conflicts(config: &Config, provenance: &Provenance, errors: &mut Vec<ConfigError>) {
    let conflict = |message: String, keys: [&str; 2], help: &str| {
        // The error points at the one that somebody wrote; if both are written, at the stronger or later one.
        let [first, second] = keys.map(|key| (key, provenance.of(key)));
        let (at, other) = if first.1 == Origin::Default {
            (second, first)
        } else {
            (first, second)
        };
        let error = ConfigError::new(ErrorKind::Conflict, message, at.1).with_help(help);
        error.with_related(format!("`{}` comes from", other.0), other.1)
    };

    let guards = Guard::of(config);
    for guard in &guards {
        let [by_env, by_file] = [guard.key("token_env"), guard.key("token_file")];
        if guard.token_env.is_some() && guard.token_file.is_some() {
            errors.push(conflict(
                format!("`{by_env}` and `{by_file}` are both set"),
                [&by_file, &by_env],
                "remove one of them: there is one token",
            ));
        }
        if let Some((set, missing)) = guard.incomplete() {
            let (set, missing) = (guard.key(set), guard.key(missing));
            let message = format!("`{set}` is set, and `{missing}` is not");
            let error = ConfigError::new(ErrorKind::Conflict, message, provenance.of(&set));
            errors.push(error.with_help(format!("set `{missing}` too, or neither")));
        }
    }
    let [http, grpc, a2a] = &guards;
    let is_on = config.http.enabled.then_some(config.http.listen);
    errors.extend(is_on.and_then(|address| http.exposes(address, provenance)));
    for address in &config.grpc.listen {
        if let GrpcAddress::Tcp(address) = address {
            errors.extend(grpc.exposes(*address, provenance));
        }
    }
    let is_on = config.a2a.enabled.then_some(config.a2a.listen);
    errors.extend(is_on.and_then(|address| a2a.exposes(address, provenance)));
    a2a_conflicts(config, a2a.is_open(), provenance, errors);

    let wal = &config.wal;
    let largest_inline = wal.segment_size.as_u64() / 4;
    if wal.blob_threshold.as_u64() > largest_inline {
        errors.push(conflict(
            format!(
                "`wal.blob_threshold` ({}) is more than a quarter of `wal.segment_size` ({})",
                wal.blob_threshold, wal.segment_size
            ),
            ["wal.blob_threshold", "wal.segment_size"],
            "a segment must hold several records: make the threshold smaller or the segments larger",
        ));
    }

    if config.process.kill_grace > config.shutdown.grace {
        errors.push(conflict(
            format!(
                "`process.kill_grace` ({}) is longer than `shutdown.grace` ({})",
                config.process.kill_grace, config.shutdown.grace
            ),
            ["process.kill_grace", "shutdown.grace"],
            "a shutdown would be over before stubborn tools are ended: lengthen `shutdown.grace`",
        ));
    }
}

/// Adds what the agent's card must not say.
fn a2a_conflicts(
    config: &Config,
    is_open: bool,
    provenance: &Provenance,
    errors: &mut Vec<ConfigError>,
) {
    let a2a = &config.a2a;
    if a2a.provider.is_some() != a2a.provider_url.is_some() {
        let (given, missing) = match a2a.provider {
            Some(_) => ("a2a.provider", "a2a.provider_url"),
            None => ("a2a.provider_url", "a2a.provider"),
        };
        let message = format!("`{given}` is set, and `{missing}` is not");
        let error = ConfigError::new(ErrorKind::Conflict, message, provenance.of(given));
        errors.push(error.with_help("the card names both or neither"));
    }
    for skill in &config.a2a_skills {
        if skill.is_extended && is_open {
            let message = format!(
                "skill `{}` is for the extended card, which only clients see that are known, and none are",
                skill.id
            );
            let error = ConfigError::new(ErrorKind::Conflict, message, skill.origin.clone());
            errors
                .push(error.with_help(
                    "set `a2a.token_env`, `a2a.token_file` or `a2a.tls_client_ca_file`",
                ));
        }
        if skill
            .job
            .body
            .get("input")
            .is_some_and(|input| !input.is_object())
        {
            let message = "the skill's `input` is not a table, so no message can be put into it";
            errors.push(skill.job.source.error("/input", message));
        }
    }
}

/// Adds every reference to something that is not there.
pub(crate) fn references(
    config: &Config,
    provenance: &Provenance,
    environment: &Environment,
    errors: &mut Vec<ConfigError>,
) {
    let tokens = [
        ("http", config.http.token()),
        ("grpc", config.grpc.token()),
        ("a2a", config.a2a.token()),
    ];
    for (section, source) in tokens {
        let Some(source) = source else { continue };
        let Err(reason) = source.read(environment) else {
            continue;
        };
        let key = match source {
            SecretSource::Env(_) => format!("{section}.token_env"),
            SecretSource::File(_) => format!("{section}.token_file"),
        };
        let message = format!("cannot take the token that `{key}` names: {reason}");
        errors.push(ConfigError::new(
            ErrorKind::Environment,
            message,
            provenance.of(&key),
        ));
    }
    for agent in &config.a2a_agents {
        let token = agent.token.as_ref().map(|source| source.read(environment));
        if let Some(Err(reason)) = token {
            let message = format!("cannot take the token of agent `{}`: {reason}", agent.name);
            let at = agent.origin.clone();
            errors.push(ConfigError::new(ErrorKind::Environment, message, at));
        }
        if let Some(file) = &agent.ca_file
            && let Err(error) = std::fs::File::open(file)
        {
            let message = format!(
                "cannot open {}, with the certificates for agent `{}`: {error}",
                file.display(),
                agent.name
            );
            let at = agent.origin.clone();
            errors.push(ConfigError::new(ErrorKind::Environment, message, at));
        }
    }
    #[cfg(feature = "_tls")]
    for (section, tls) in [("grpc", config.grpc.tls()), ("a2a", config.a2a.tls())] {
        if let Err(error) = crate::boot::read_tls(section, tls, &[]) {
            let at = provenance.of(&format!("{section}.tls_cert_file"));
            errors.push(ConfigError::new(
                ErrorKind::Environment,
                error.to_string(),
                at,
            ));
        }
    }
}

/// What a job's program finds wrong with the job.
pub(super) fn body(job: &Job, config: &Config) -> Option<ConfigError> {
    let programs = reasonact::programs(config.limits.steps_per_plan);
    let program = programs.get(job.program.as_str())?;
    let error = program.check(&runtime::Json::of(&job.body)).err()?;
    Some(job.source.error(&error.pointer, error.message))
}

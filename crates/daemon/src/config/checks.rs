//! What no value can tell alone: values that contradict each other, and references to what the machine lacks.

use super::environment::Environment;
use super::error::{ConfigError, ErrorKind};
use super::job::Job;
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

    let a2a = &config.a2a;
    if a2a.token_env.is_some() && a2a.token_file.is_some() {
        errors.push(conflict(
            "`a2a.token_env` and `a2a.token_file` are both set".to_owned(),
            ["a2a.token_file", "a2a.token_env"],
            "remove one of them: there is one token",
        ));
    }

    let http = &config.http;
    if http.token_env.is_some() && http.token_file.is_some() {
        errors.push(conflict(
            "`http.token_env` and `http.token_file` are both set".to_owned(),
            ["http.token_file", "http.token_env"],
            "remove one of them: there is one token",
        ));
    }
    if http.enabled && !http.listen.ip().is_loopback() && http.token().is_none() {
        let message = format!(
            "`http.listen` is {}, which other machines can reach, and no token is set",
            http.listen
        );
        let error = ConfigError::new(ErrorKind::Conflict, message, provenance.of("http.listen"));
        errors.push(
            error.with_help("set `http.token_env` or `http.token_file`, or listen on `127.0.0.1`"),
        );
    }

    a2a_conflicts(config, provenance, errors);

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

/// Adds what must not be said to the world over a2a.
fn a2a_conflicts(config: &Config, provenance: &Provenance, errors: &mut Vec<ConfigError>) {
    let a2a = &config.a2a;
    if a2a.enabled && !a2a.listen.ip().is_loopback() && a2a.token().is_none() {
        let message = format!(
            "`a2a.listen` is {}, which other machines can reach, and no token is set",
            a2a.listen
        );
        let error = ConfigError::new(ErrorKind::Conflict, message, provenance.of("a2a.listen"));
        errors.push(
            error.with_help("set `a2a.token_env` or `a2a.token_file`, or listen on `127.0.0.1`"),
        );
    }
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
        if skill.is_extended && a2a.token().is_none() {
            let message = format!(
                "skill `{}` is for the extended card, and without a token there is none",
                skill.id
            );
            let error = ConfigError::new(ErrorKind::Conflict, message, skill.origin.clone());
            errors.push(error.with_help("set `a2a.token_env` or `a2a.token_file`"));
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
        (config.http.token(), "http.token_env", "http.token_file"),
        (config.a2a.token(), "a2a.token_env", "a2a.token_file"),
    ];
    for (source, env_key, file_key) in tokens {
        let Some(source) = source else { continue };
        let Err(reason) = source.read(environment) else {
            continue;
        };
        let key = match source {
            SecretSource::Env(_) => env_key,
            SecretSource::File(_) => file_key,
        };
        let message = format!("cannot take the token that `{key}` names: {reason}");
        errors.push(ConfigError::new(
            ErrorKind::Environment,
            message,
            provenance.of(key),
        ));
    }
}

/// What a job's program finds wrong with the job.
pub(super) fn body(job: &Job, config: &Config) -> Option<ConfigError> {
    let programs = reasonact::programs(config.limits.steps_per_plan);
    let program = programs.get(job.program.as_str())?;
    let error = program.check(&runtime::Json::of(&job.body)).err()?;
    Some(job.source.error(&error.pointer, error.message))
}

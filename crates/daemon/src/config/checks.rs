//! What no value can tell alone: values that contradict each other, and references to what the machine lacks.

use super::environment::Environment;
use super::error::{ConfigError, ErrorKind};
use super::job::Job;
use super::names::GrpcAddress;
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

/// The keys that name the tokens: a variable, or a file.
const HTTP_TOKEN: [&str; 2] = ["http.token_env", "http.token_file"];
const GRPC_TOKEN: [&str; 2] = ["grpc.token_env", "grpc.token_file"];

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

    let (http, grpc) = (&config.http, &config.grpc);
    for (variable, file, [by_env, by_file]) in [
        (&http.token_env, &http.token_file, HTTP_TOKEN),
        (&grpc.token_env, &grpc.token_file, GRPC_TOKEN),
    ] {
        if variable.is_some() && file.is_some() {
            errors.push(conflict(
                format!("`{by_env}` and `{by_file}` are both set"),
                [by_file, by_env],
                "remove one of them: there is one token",
            ));
        }
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

    let without = |set: &'static str, missing: &'static str| {
        let message = format!("`{set}` is set, and `{missing}` is not");
        ConfigError::new(ErrorKind::Conflict, message, provenance.of(set))
            .with_help(format!("set `{missing}` too, or neither"))
    };
    match (&grpc.tls_cert_file, &grpc.tls_key_file) {
        (Some(_), None) => errors.push(without("grpc.tls_cert_file", "grpc.tls_key_file")),
        (None, Some(_)) => errors.push(without("grpc.tls_key_file", "grpc.tls_cert_file")),
        (None, None) if grpc.tls_client_ca_file.is_some() => {
            errors.push(without("grpc.tls_client_ca_file", "grpc.tls_cert_file"));
        }
        _ => {}
    }
    let is_open = grpc.token().is_none() && grpc.tls_client_ca_file.is_none();
    for address in &grpc.listen {
        if let GrpcAddress::Tcp(address) = address
            && !address.ip().is_loopback()
            && is_open
        {
            let message = format!(
                "`grpc.listen` has {address}, which other machines can reach, and neither a token nor \
                 `grpc.tls_client_ca_file` is set"
            );
            let error =
                ConfigError::new(ErrorKind::Conflict, message, provenance.of("grpc.listen"));
            errors.push(error.with_help(
                "set `grpc.token_env`, `grpc.token_file` or `grpc.tls_client_ca_file`, or listen on `127.0.0.1`",
            ));
        }
    }

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

/// Adds every reference to something that is not there.
pub(crate) fn references(
    config: &Config,
    provenance: &Provenance,
    environment: &Environment,
    errors: &mut Vec<ConfigError>,
) {
    let tokens = [
        (config.http.token(), HTTP_TOKEN),
        (config.grpc.token(), GRPC_TOKEN),
    ];
    for (source, [by_env, by_file]) in tokens {
        let Some(source) = source else { continue };
        let Err(reason) = source.read(environment) else {
            continue;
        };
        let key = match source {
            SecretSource::Env(_) => by_env,
            SecretSource::File(_) => by_file,
        };
        let message = format!("cannot take the token that `{key}` names: {reason}");
        errors.push(ConfigError::new(
            ErrorKind::Environment,
            message,
            provenance.of(key),
        ));
    }
    #[cfg(feature = "grpc")]
    certificates(config, provenance, errors);
}

#[cfg(feature = "grpc")]
fn certificates(config: &Config, provenance: &Provenance, errors: &mut Vec<ConfigError>) {
    let grpc = &config.grpc;
    if let (Some(certificate), Some(key)) = (&grpc.tls_cert_file, &grpc.tls_key_file)
        && let Err(error) =
            api::grpc::Tls::from_files(certificate, key, grpc.tls_client_ca_file.as_deref())
    {
        let message = format!("TLS for `grpc` cannot be had: {error}");
        let at = provenance.of("grpc.tls_cert_file");
        errors.push(ConfigError::new(ErrorKind::Environment, message, at));
    }
}

/// What a job's program finds wrong with the job.
pub(super) fn body(job: &Job, config: &Config) -> Option<ConfigError> {
    let programs = reasonact::programs(config.limits.steps_per_plan);
    let program = programs.get(job.program.as_str())?;
    let error = program.check(&runtime::Json::of(&job.body)).err()?;
    Some(job.source.error(&error.pointer, error.message))
}

//! The config: read once, checked whole, right by construction.
//!
//! Values come in layers, later ones win: built-in defaults, a file (TOML, JSON or YAML by its extension), the
//! environment (`TINKERBELL_SECTION__KEY`), flags (`--set section.key=value`). The one idea is that everything is
//! derived from one table, [`schema`]: the typed [`Config`], what `config show` prints, what a reload can apply, and
//! `config.example.toml`. The way of a value: `syntax` reads a file into a tree with places, `layers` notes
//! for each key what was written where, `value` gives it its type, `checks` compares values with each other.
//!
//! Invariants: a [`Config`] that exists is valid, and code that has one checks nothing again; every value knows
//! where it came from; all mistakes are reported together; a secret's text is never part of it.

mod agent;
mod checks;
mod environment;
mod error;
mod job;
mod layers;
mod names;
mod origin;
pub mod schema;
mod secret;
mod show;
mod skill;
mod syntax;
mod units;
mod value;
mod words;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use agent::A2aAgent;
pub use environment::Environment;
pub use error::{ConfigError, ConfigErrors, ErrorKind};
pub use job::{Job, JobName, Source, StartupJob};
pub use layers::{SetFlag, Warning};
pub use names::{
    GrpcAddress, HostName, ListenAddress, LogFilter, MediaType, NodeName, Url, VariableName,
};
pub use origin::{Origin, Position, Provenance};
pub use schema::Config;
pub use secret::{Secret, SecretSource, TlsSource};
pub use show::{Changes, diff, example, show_json, show_toml};
pub use skill::{A2aSkill, SkillRule};
pub use syntax::{DEPTH_MAX, FILE_MAX, Format};
pub use units::{Duration, Size, UnitError};
pub use words::{LogFormat, OnChange, Priority, Program, ShowActivity, SkillAnswer, Sync};

use layers::Settings;

/// What a config is made from. A reload uses the same options as the start.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// The config file, if there is one.
    pub path: Option<PathBuf>,
    /// The process' surroundings.
    pub environment: Environment,
    /// Flags, in the order in which they were given.
    pub sets: Vec<SetFlag>,
    /// Whether to check only what is written, and not whether the machine has what it refers to (the variables and
    /// files of secrets): for a config that is checked on another machine than the one it is for.
    pub offline: bool,
}

/// A config, and how it came to be.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The config.
    pub config: Config,
    /// Where each value came from.
    pub provenance: Provenance,
    /// What is allowed, but probably not meant.
    pub warnings: Vec<Warning>,
}

impl Config {
    /// Reads and checks a config.
    ///
    /// # Errors
    /// With everything that is wrong with it.
    pub fn load(options: &LoadOptions) -> Result<Loaded, ConfigErrors> {
        let mut errors = Vec::new();
        let mut settings = Settings::default();
        let (mut jobs, mut skills, mut agents) = (Vec::new(), Vec::new(), Vec::new());
        if let Some(path) = &options.path {
            let file: Arc<Path> = Arc::from(path.as_path());
            match syntax::read(&file) {
                Ok(root) => settings.add_file(root, &file, &mut errors),
                Err(found) => errors.extend(found),
            }
            let nodes = std::mem::take(&mut settings.jobs);
            jobs = job::startup_jobs(nodes, &file, &mut errors);
            let nodes = std::mem::take(&mut settings.skills);
            skills = skill::skills(nodes, &file, &mut errors);
            let nodes = std::mem::take(&mut settings.agents);
            agents = agent::agents(nodes, &file, &mut errors);
        }
        settings.add_environment(&options.environment, &mut errors);
        settings.add_flags(&options.sets, &mut errors);

        let mut config = {
            let lists = (jobs, skills, agents);
            Self::read(&settings, &options.environment, lists, &mut errors)
        };
        let provenance = settings.provenance();
        checks::fit_defaults(&mut config, &provenance);
        // Values that are wrong in themselves stand as their defaults in `config`: to compare those with others
        // would complain about what nobody wrote.
        if errors.is_empty() {
            checks::conflicts(&config, &provenance, &mut errors);
            for startup in &config.jobs {
                errors.extend(checks::body(&startup.job, &config));
            }
            for skill in &config.a2a_skills {
                errors.extend(checks::body(&skill.job, &config));
            }
        }
        if errors.is_empty() && !options.offline {
            checks::references(&config, &provenance, &options.environment, &mut errors);
        }
        errors.sort_by_key(|error| place_order(error.origin()));
        ConfigErrors::check(errors)?;
        Ok(Loaded {
            config,
            provenance,
            warnings: settings.warnings,
        })
    }
}

/// Whether a job's program can do what the job asks of it.
///
/// # Errors
/// With what is wrong, and where in the job's file it is.
pub fn check_job(job: &Job, config: &Config) -> Result<(), ConfigErrors> {
    ConfigErrors::check(checks::body(job, config).into_iter().collect())
}

/// Errors are read beside the file: from its top to its bottom, and what is not in the file after that.
fn place_order(origin: &Origin) -> (u8, Position) {
    match origin {
        Origin::File(_) => (0, Position::START),
        Origin::Place(_, at) => (0, *at),
        Origin::Env(_) => (1, Position::START),
        Origin::Flag(_) => (2, Position::START),
        Origin::Default => (3, Position::START),
    }
}

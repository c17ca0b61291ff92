//! Job files, from their text to the end of the job.
//!
//! The input is text in parts that zeros divide: the file, whose first byte says its format as in [`super::config`], then
//! any number of `key=value`, as `tinkerbell job run --input` takes them. Whatever the parts say:
//! - a file that is refused is refused with a place in it;
//! - a job that is accepted runs, templates included, in bounded time and memory, and replays to the same hash;
//! - a process that is killed half way goes on where it was, and no job is stuck.

use std::sync::OnceLock;

use daemon::config::{Config, Job, LoadOptions, check_job};
use daemon::startup::job_spec;
use runtime::JobState;
use wal::sim::MemStorage;

use super::config::{check_errors, named};
use super::machine::Machine;
use super::scratch::Scratch;

/// Reads a job file and runs the job.
pub fn run(data: &[u8]) {
    let mut parts = data.split(|&byte| byte == 0);
    let (name, text) = named(parts.next().unwrap_or_default());
    let inputs: Vec<String> = parts
        .map(|part| String::from_utf8_lossy(part).into_owned())
        .collect();
    let file = Scratch::new(name, text);
    let job = match Job::load(&file.path(), &inputs) {
        Ok(job) => job,
        Err(errors) => return check_errors(&errors, &file.path(), text),
    };
    if let Err(errors) = check_job(&job, defaults()) {
        return check_errors(&errors, &file.path(), text);
    }

    let spec = job_spec(&job);
    assert_eq!(spec.fingerprint(), job_spec(&job).fingerprint());
    let mut machine = Machine::boot(MemStorage::new(1), 1, Vec::new()).expect("a new log");
    let Some(job) = machine.submit(spec) else {
        return;
    };
    nothing_is_stuck(&mut machine);
    if let Err(error) = machine.replay(job) {
        panic!("the job does not replay: {error}");
    }
    for cut in [machine.records().len() / 2, machine.records().len()] {
        let records = machine.records()[..cut].to_vec();
        let again = Machine::boot(machine.disk(), 1, records);
        let mut again = again.unwrap_or_else(|error| panic!("the log cannot be taken in: {error}"));
        again.run();
        nothing_is_stuck(&mut again);
    }
}

fn nothing_is_stuck(machine: &mut Machine) {
    for (job, state) in machine.states() {
        assert_ne!(state, JobState::Stuck, "{job}");
    }
}

/// The config without a file.
fn defaults() -> &'static Config {
    static CONFIG: OnceLock<Config> = OnceLock::new();
    CONFIG.get_or_init(|| {
        let options = LoadOptions {
            offline: true,
            ..LoadOptions::default()
        };
        let loaded = Config::load(&options).expect("the defaults are sound");
        loaded.config
    })
}

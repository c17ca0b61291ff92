//! `tinkerbell config check` and `tinkerbell config show`.

use std::io::{self, Write};

use super::exit;
use crate::config::{Config, ConfigErrors, LoadOptions, Loaded, show_json, show_toml};

/// Says whether the config is right, and all that is wrong with it. Gives the exit code.
///
/// # Errors
/// If the answer cannot be written.
pub fn check_config(
    options: &LoadOptions,
    out: &mut impl Write,
    messages: &mut impl Write,
) -> io::Result<u8> {
    let loaded = match load(options, messages)? {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    let what = match &options.path {
        Some(path) => path.display().to_string(),
        None => "the config (defaults, environment and flags; no file)".to_owned(),
    };
    let what = crate::neutral::one_line(&what);
    match loaded.config.jobs.len() {
        0 => writeln!(out, "{what} is valid")?,
        1 => writeln!(out, "{what} is valid, with 1 start-up job")?,
        jobs => writeln!(out, "{what} is valid, with {jobs} start-up jobs")?,
    }
    Ok(exit::OK)
}

/// Prints the config in force, and where each value came from. Gives the exit code.
///
/// # Errors
/// If it cannot be written.
pub fn show_config(
    options: &LoadOptions,
    json: bool,
    out: &mut impl Write,
    messages: &mut impl Write,
) -> io::Result<u8> {
    let loaded = match load(options, messages)? {
        Ok(loaded) => loaded,
        Err(code) => return Ok(code),
    };
    if json {
        writeln!(out, "{:#}", show_json(&loaded))?;
    } else {
        write!(out, "{}", show_toml(&loaded))?;
    }
    Ok(exit::OK)
}

fn load(options: &LoadOptions, messages: &mut impl Write) -> io::Result<Result<Loaded, u8>> {
    match Config::load(options) {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                writeln!(messages, "{warning}")?;
            }
            Ok(Ok(loaded))
        }
        Err(errors) => {
            write_errors(&errors, "the config", messages)?;
            Ok(Err(exit::CONFIG))
        }
    }
}

/// Writes what is wrong with a config or a job file, and how much that is. `what` is which of the two.
///
/// # Errors
/// If it cannot be written.
pub fn write_errors(
    errors: &ConfigErrors,
    what: &str,
    messages: &mut impl Write,
) -> io::Result<()> {
    writeln!(messages, "{errors}\n")?;
    match errors.iter().len() {
        1 => writeln!(messages, "{what} is refused: 1 error"),
        count => writeln!(messages, "{what} is refused: {count} errors"),
    }
}

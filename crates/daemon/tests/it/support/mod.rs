//! What the tests stand on.

mod daemon;
mod http;
#[cfg(feature = "ipc")]
mod ipc;
mod lines;
mod log;
mod node;
mod power;
mod processes;
mod random;
#[cfg(any(feature = "grpc", feature = "a2a"))]
mod tls;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use daemon::{Daemon, Ended, end_of};
#[cfg(feature = "a2a")]
pub(crate) use http::exchange;
pub(crate) use http::{Answer, get, request};
#[cfg(feature = "ipc")]
pub(crate) use ipc::{Ipc, Message, parse};
pub(crate) use lines::Lines;
pub(crate) use log::{Effect, Effects, Entry, Journal};
pub(crate) use node::{Node, Place};
pub(crate) use power::PowerDisk;
pub(crate) use processes::are_over;
pub(crate) use random::Random;
#[cfg(any(feature = "grpc", feature = "a2a"))]
pub(crate) use tls::certificate;

/// How long anything may take that a test waits for. Far more than it does, so that a busy machine fails no test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Skips a test that this machine cannot run: loudly, and under CI as a failure, since there everything can be had.
///
/// Written to the terminal itself, past the capture of the test harness, which would hide it.
pub(crate) fn skip(test: &str, reason: &str) {
    let line = format!("SKIPPED: {test}: {reason}\n");
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "{line}"
    );
    let _ = std::io::stderr().lock().write_all(line.as_bytes());
    // For whoever runs all tests and counts at the end.
    if let Some(path) = std::env::var_os("TINKERBELL_SKIPPED_TESTS")
        && let Ok(mut file) = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
    {
        let _ = writeln!(file, "{test}: {reason}");
    }
}

/// The root of the repository.
pub(crate) fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the crate is in a repository")
}

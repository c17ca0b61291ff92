//! What the daemon and a supervisor say to each other over their socket.
//!
//! Daemon to supervisor: one [`Order`], carrying the command's standard streams as file descriptors, then at most a
//! few single bytes [`TERMINATE`]. Supervisor to daemon: a series of [`Report`]s. Orders and reports are frames: a
//! little-endian `u32` length, then that many bytes of JSON. The end of the stream is a message too: to the
//! supervisor it says that the daemon is gone, to the daemon that the supervisor is.
//!
//! Both ends are the same binary (the supervisor is started from `/proc/self/exe`), so the version is there to turn a
//! mistake in a build or a test into a clear refusal, not to be negotiated.

use std::ffi::OsString;
use std::io::{self, Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of the protocol, the first thing an order says.
pub(crate) const VERSION: u32 = 1;

/// The byte that asks for the command to be ended gracefully.
pub(crate) const TERMINATE: u8 = b'T';

/// No frame is longer. Linux refuses arguments and environment of more than 6 MiB in all (`execve(2)`); bytes of an
/// `OsString` take up to four characters in JSON.
pub(crate) const FRAME_MAX_BYTES: usize = 32 * 1024 * 1024;

/// What a supervisor is to start, and how it is to end it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) version: u32,
    pub(crate) argv: Vec<String>,
    /// The whole environment; nothing is inherited.
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) cwd: OsString,
    /// From the request to end until SIGKILL.
    pub(crate) grace_ms: u64,
    /// From the command's own exit until SIGKILL for what it left running.
    pub(crate) leftover_grace_ms: u64,
    /// From SIGKILL until the supervisor gives up on processes that do not die.
    pub(crate) give_up_ms: u64,
    pub(crate) limits: ResourceLimits,
    /// Whether the first descriptor sent along is the command's standard input; without it, it reads `/dev/null`.
    pub(crate) has_stdin: bool,
}

/// Resource limits of a command, as `setrlimit(2)` has them; `None` leaves the daemon's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// Largest core file, in bytes.
    pub core_bytes: Option<u64>,
    /// Most open files.
    pub open_files: Option<u64>,
    /// Most processes of the user the daemon runs as. Does not bind root.
    pub processes: Option<u64>,
}

impl Default for ResourceLimits {
    /// No core files (they would land in the workspace), all else as the daemon has it.
    fn default() -> Self {
        Self {
            core_bytes: Some(0),
            open_files: None,
            processes: None,
        }
    }
}

/// What a supervisor tells. `Started` or `SpawnFailed` comes first; `Exited` follows `Started` at once when the
/// command is over, whoever still holds its pipes; `Ended` comes last, when no descendant is left.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The command runs.
    Started { pid: i32 },
    /// The command could not be started.
    SpawnFailed { kind: SpawnFailure, message: String },
    /// The command is over.
    Exited(ExitReport),
    /// Everything is over.
    Ended(EndReport),
}

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExitReport {
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
    pub(crate) core_dumped: bool,
    /// From its start to its end.
    pub(crate) duration_us: u64,
}

/// What the whole tree of processes came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EndReport {
    /// How many descendants outlived the command and were ended.
    pub(crate) leftovers_ended: u32,
    /// Processes that SIGKILL did not end in time (uninterruptible sleep).
    pub(crate) unkillable: Vec<i32>,
    pub(crate) cpu_user_us: u64,
    pub(crate) cpu_system_us: u64,
    /// Largest resident set of any single process.
    pub(crate) max_rss_kib: u64,
}

/// Why a command could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SpawnFailure {
    /// There is no such program: exit status 127 in shells.
    NotFound,
    /// There is, but it cannot be executed: exit status 126 in shells.
    NotExecutable,
    /// The working directory cannot be entered.
    BadCwd,
    /// The order itself made no sense to the supervisor.
    BadOrder,
    /// Anything else: no memory, too many processes, …
    Other,
}

/// Writes one frame.
pub(crate) fn write_frame<T: Serialize>(mut writer: impl Write, message: &T) -> io::Result<()> {
    writer.write_all(&encode(message)?)
}

/// One frame as bytes.
pub(crate) fn encode<T: Serialize>(message: &T) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let len = frame.len() - 4;
    if len > FRAME_MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("message of {len} bytes is longer than a frame of {FRAME_MAX_BYTES} bytes"),
        ));
    }
    let prefix = u32::try_from(len).expect("because a frame's limit fits into 32 bits");
    frame[..4].copy_from_slice(&prefix.to_le_bytes());
    Ok(frame)
}

/// The length a frame's first four bytes announce, if it is one that a frame may have.
pub(crate) fn frame_len(prefix: [u8; 4]) -> io::Result<usize> {
    let len = u32::from_le_bytes(prefix) as usize;
    if len > FRAME_MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("frame announces {len} bytes, more than the limit of {FRAME_MAX_BYTES}"),
        ));
    }
    Ok(len)
}

/// Reads the rest of a frame whose first four bytes are already read.
pub(crate) fn read_frame_body<T: DeserializeOwned>(
    mut reader: impl Read,
    prefix: [u8; 4],
) -> io::Result<T> {
    let mut body = vec![0; frame_len(prefix)?];
    reader.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_way() {
        let report = Report::Exited(ExitReport {
            code: Some(7),
            signal: None,
            core_dumped: false,
            duration_us: 12,
        });
        let frame = encode(&report).unwrap();
        let (prefix, body) = frame.split_first_chunk::<4>().unwrap();
        assert_eq!(read_frame_body::<Report>(body, *prefix).unwrap(), report);
    }

    #[test]
    fn a_frame_that_announces_too_much_is_refused_before_memory_is_taken() {
        let error = frame_len(u32::MAX.to_le_bytes()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}

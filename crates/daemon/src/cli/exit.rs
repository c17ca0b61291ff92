//! Exit codes, after `sysexits.h` where it has one. A supervisor tells by them whether a restart can help.

/// All went well.
pub const OK: u8 = 0;
/// A job, or what was asked about, failed.
pub const FAILED: u8 = 1;
/// A config that was to be read again is refused; the one before it stays in force. Only from `node reload`.
pub const RELOAD_REFUSED: u8 = 3;
/// A config that was read again is in force but for keys that wait for a restart. Only from `node reload`.
pub const RELOAD_NEEDS_RESTART: u8 = 4;
/// The command line makes no sense (`EX_USAGE`).
pub const USAGE: u8 = 64;
/// The log is damaged (`EX_DATAERR`).
pub const CORRUPT_LOG: u8 = 65;
/// No daemon could be asked, or the connection to it was lost (`EX_UNAVAILABLE`).
pub const UNAVAILABLE: u8 = 69;
/// An error of our own making (`EX_SOFTWARE`).
pub const INTERNAL: u8 = 70;
/// The disk failed (`EX_IOERR`).
pub const IO: u8 = 74;
/// Another daemon holds the log; to try again may help (`EX_TEMPFAIL`).
pub const LOCKED: u8 = 75;
/// The config is wrong (`EX_CONFIG`).
pub const CONFIG: u8 = 78;

/// The code of a process that a signal forced to end, as a shell would show it.
#[must_use]
pub fn forced_by(signal: i32) -> u8 {
    u8::try_from(signal).map_or(INTERNAL, |number| number.saturating_add(128))
}

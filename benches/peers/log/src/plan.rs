//! [`Plan`]: how much is measured, and where.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use tempfile::TempDir;

/// What `statfs` calls a file system that is in memory (`linux/magic.h`).
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// The sizes of the records, in bytes.
pub const RECORD_BYTES: [usize; 2] = [256, 4096];
/// How many appenders there are, or how many records are handed over together.
pub const IN_FLIGHT: [usize; 3] = [1, 8, 64];

/// How much is measured, and where.
#[derive(Debug)]
pub struct Plan {
    /// How often each candidate has its turn.
    pub rounds: usize,
    /// How long a turn is.
    pub round: Duration,
    /// How many records are written to see what they take on the disk.
    pub kept_records: usize,
    /// How many records are read.
    pub scan_records: usize,
    /// For how long a process writes while the device is watched.
    pub device: Duration,
    base: PathBuf,
}

impl Plan {
    /// From the arguments and the environment.
    pub fn new(args: &[String]) -> Self {
        let quick = match args {
            [] => false,
            [arg] if arg == "--quick" => true,
            _ => panic!("the only argument is --quick, not {args:?}"),
        };
        let base = std::env::var_os("LOG_PEERS_DIR").map_or_else(
            || {
                let binary = std::env::current_exe().expect("a path of our own");
                binary.parent().expect("a directory").to_owned()
            },
            PathBuf::from,
        );
        let found = rustix::fs::statfs(&base).expect("the directory is there");
        assert!(
            found.f_type as u64 != TMPFS_MAGIC,
            "{} is in memory: set LOG_PEERS_DIR to a directory on a disk",
            base.display()
        );
        let (rounds, round_ms, kept_records, scan_records, device_ms) = if quick {
            (3, 40, 10_048, 100_000, 100)
        } else {
            (7, 200, 100_032, 1_000_000, 1_000)
        };
        Plan {
            rounds: from_env("LOG_PEERS_ROUNDS").unwrap_or(rounds),
            round: Duration::from_millis(from_env("LOG_PEERS_ROUND_MS").unwrap_or(round_ms)),
            kept_records,
            scan_records,
            device: Duration::from_millis(device_ms),
            base,
        }
    }

    /// A new directory, gone with the value.
    pub fn dir(&self) -> Dir {
        let dir = tempfile::Builder::new()
            .prefix("log-peers-")
            .tempdir_in(&self.base)
            .expect("a directory");
        Dir {
            base: self.base.clone(),
            dir: Some(dir),
        }
    }
}

/// A directory that takes its traces along: the file system has done all it had to do about what was in it
/// before anything else is measured. Blocks may be discarded when they are given back, and all files
/// share one journal.
#[derive(Debug)]
pub struct Dir {
    base: PathBuf,
    /// There until the end.
    dir: Option<TempDir>,
}

impl Dir {
    /// Where it is.
    pub fn path(&self) -> &Path {
        let dir = self.dir.as_ref();
        dir.expect("the directory is there until the end").path()
    }

    /// Writes out what the file system holds back.
    pub fn settle(&self) {
        settle(&self.base);
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        self.dir = None;
        self.settle();
    }
}

/// Writes out what the file system of a directory holds back.
pub fn settle(dir: &Path) {
    let file = File::open(dir).expect("the directory is there");
    rustix::fs::syncfs(&file).expect("a sync");
}

fn from_env<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let value = text.parse().ok();
    assert!(value.is_some(), "{name}={text} is not a number");
    value
}

/// A record nobody can compress: numbers of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
pub fn record(bytes: usize) -> Vec<u8> {
    let mut state = 0u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let words = (0..bytes.div_ceil(8)).flat_map(|_| next().to_le_bytes());
    words.take(bytes).collect()
}

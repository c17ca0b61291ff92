//! A place for a daemon to live in: a directory with its config, its data, and whatever its tools write.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::Signal;

use super::log::{Entry, Journal, log_id};
use super::processes::{Process, marked};
use super::{Daemon, Ended, Lines, end_of};

/// A directory of a test's own; gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Place(tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory can be made"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("a file can be written there");
        path
    }

    /// The text of a file; empty if there is none.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// The binary, run here, with nothing of our own environment but the way to programs.
    pub(crate) fn binary(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tinkerbell"));
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.0.path())
            .stdin(Stdio::null())
            .current_dir(self.0.path());
        command
    }

    /// All processes that were started here, or for a daemon that was.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let here = self.0.path().display().to_string();
        let mut processes = marked("HOME", &here);
        processes.extend(marked("TINKERBELL_START_DIR", &here));
        processes
    }

    /// A text with this place's path taken out.
    pub(crate) fn strip(&self, text: &str) -> String {
        text.replace(&self.0.path().display().to_string(), "[DIR]")
    }

    /// A FIFO through which tools tell the test something, a line each.
    pub(crate) fn fifo(&self, name: &str) -> Lines {
        Lines::of("a FIFO", make_fifo(&self.path(name)))
    }

    /// A FIFO at which tools wait, by `read _ < NAME`, until the test lets them go on.
    pub(crate) fn barrier(&self, name: &str) -> Barrier {
        make_fifo(&self.path(name)).into()
    }
}

/// Makes a FIFO and opens it for both directions, so that nobody ever waits for somebody else to open it.
fn make_fifo(path: &Path) -> File {
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO can be made");
    let both = OpenOptions::new().read(true).write(true).open(path);
    both.expect("a FIFO can be opened")
}

/// A FIFO that tools read a line from before they go on.
#[derive(Debug)]
pub(crate) struct Barrier(File);

impl From<File> for Barrier {
    fn from(file: File) -> Self {
        Self(file)
    }
}

impl Barrier {
    /// Lets so many of those that wait, or will, go on.
    pub(crate) fn release(&mut self, count: usize) {
        self.0
            .write_all("\n".repeat(count).as_bytes())
            .expect("a FIFO takes a few bytes");
    }
}

/// A place with a config, and a data directory below it.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    data_dir: PathBuf,
}

impl Node {
    /// A node with this config, in TOML. What every test wants alike is in the environment, so that the file is the
    /// test's own: the data directory, a free port, segments that are read quickly.
    pub(crate) fn new(config: &str) -> Self {
        let place = Place::new();
        let data_dir = place.path("data");
        let node = Self { place, data_dir };
        node.configure(config);
        node
    }

    /// The same, with its data somewhere else.
    pub(crate) fn at(data_dir: PathBuf, config: &str) -> Self {
        let mut node = Self::new(config);
        node.data_dir = data_dir;
        node
    }

    pub(crate) fn configure(&self, config: &str) {
        self.place.write("tinkerbell.toml", config);
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The binary with this node's config.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.place.binary();
        command
            .args(args)
            .env("TINKERBELL_CONFIG", self.place.path("tinkerbell.toml"))
            .env("TINKERBELL_NODE__DATA_DIR", &self.data_dir)
            .env("TINKERBELL_HTTP__LISTEN", "127.0.0.1:0")
            .env("TINKERBELL_WAL__SEGMENT_SIZE", "1MiB");
        command
    }

    /// Starts the daemon.
    pub(crate) fn spawn(&self) -> Daemon {
        Daemon::spawn(&mut self.command(&[]))
    }

    /// Starts the daemon and waits until it is ready.
    pub(crate) fn start(&self) -> Daemon {
        let mut daemon = self.spawn();
        daemon.ready();
        daemon
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        end_of(&mut self.command(args))
    }

    /// The log, as `log cat` has it.
    pub(crate) fn journal(&self) -> Journal {
        let cat = self.run(&["log", "cat"]).with(0);
        Journal::of(cat.stdout.lines().map(Entry::parse).collect())
    }

    /// All processes that were started for this node's daemon. There are none before there is a log.
    pub(crate) fn processes(&self) -> Vec<Process> {
        log_id(&self.data_dir).map_or_else(Vec::new, |id| marked("TINKERBELL_NODE", &id))
    }

    /// The first segment of the log.
    pub(crate) fn segment(&self) -> (PathBuf, File) {
        let path = self.data_dir.join("wal/0000000000000001.wal");
        let file = OpenOptions::new().read(true).write(true).open(&path);
        (path, file.expect("the first segment is there"))
    }
}

impl Drop for Node {
    /// A test that failed half way leaves nobody running.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for process in self.processes() {
                process.signal(Signal::KILL);
            }
        }
    }
}

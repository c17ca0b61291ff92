//! What a start costs: exec to ready, memory when idle, the way out, and the size of the binary.
//!
//! ```text
//! cargo bench -p daemon --bench boot
//! ```
//!
//! The program measured is the one that users get: it is built here as `cargo build --release -p daemon` builds it, and
//! run as a process of its own. Four pasts of a data directory take turns, run by run, so that the machine's moods hit
//! all of them; each figure is a median. What counts is the ratio to starting and reaping `/bin/true`, the least
//! that a process can cost on this machine.
//!
//! - *new log*: there is no data directory yet.
//! - *empty log*: there is one, without jobs.
//! - *jobs*: a log with many jobs that are over and some that wait, after a clean stop.
//! - *killed*: the same, after a `kill -9`.
//!
//! `BOOT_BENCH_RUNS` says how many runs (default 20), `BOOT_BENCH_DIR` on which file system, `BOOT_BENCH_BINARY` names
//! another binary to measure, built earlier or elsewhere. The page cache is warm throughout: cold, the log's size over
//! the disk's throughput comes on top.

mod node;
mod past;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::node::{Boot, Memory, Node};
use crate::past::Past;

/// The phases of a boot, in their order, as the daemon's own metric names them.
const PHASES: [&str; 6] = ["config", "wal", "leftovers", "jobs", "http", "startup_jobs"];

fn main() {
    let base = std::env::var_os("BOOT_BENCH_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
    let runs: usize = std::env::var("BOOT_BENCH_RUNS")
        .ok()
        .and_then(|runs| runs.parse().ok())
        .unwrap_or(20);
    let binary = std::env::var_os("BOOT_BENCH_BINARY").map_or_else(build, PathBuf::from);
    let dir = tempfile::tempdir_in(base).expect("a directory for the benchmark");
    let past = Past::make(&dir.path().join("past"));

    let mut cases = [
        Case::new("new log", dir.path().join("new"), End::Gone),
        Case::new("empty log", dir.path().join("empty"), End::Clean),
        Case::new("jobs", dir.path().join("jobs"), End::Clean),
        Case::new("killed", dir.path().join("killed"), End::Killed),
    ];
    copy(&dir.path().join("past"), &cases[2].data_dir);
    copy(&dir.path().join("past"), &cases[3].data_dir);
    for case in &mut cases {
        // Once without being counted: it leaves behind what every later run finds.
        case.run(&binary);
        case.samples.clear();
    }
    let mut floor = Vec::new();
    for _ in 0..runs {
        floor.push(spawn_and_reap());
        for case in &mut cases {
            case.run(&binary);
        }
    }
    print_table(&past, &binary, &mut floor, &cases);
}

/// What becomes of a data directory at the end of a run, and so what the next run finds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Stopped, and removed.
    Gone,
    /// Stopped.
    Clean,
    /// Not even stopped.
    Killed,
}

/// A data directory with a certain past, and what was measured on it.
struct Case {
    name: &'static str,
    data_dir: PathBuf,
    end: End,
    samples: Vec<Sample>,
}

struct Sample {
    boot: Boot,
    memory: Memory,
    stopped_after: Option<Duration>,
}

impl Case {
    fn new(name: &'static str, data_dir: PathBuf, end: End) -> Self {
        Self {
            name,
            data_dir,
            end,
            samples: Vec::new(),
        }
    }

    fn run(&mut self, binary: &Path) {
        let (node, boot) = Node::boot(binary, &self.data_dir);
        let memory = node.memory_when_idle();
        let stopped_after = match self.end {
            End::Killed => {
                node.kill();
                None
            }
            End::Gone | End::Clean => Some(node.stop()),
        };
        if self.end == End::Gone {
            std::fs::remove_dir_all(&self.data_dir).expect("the daemon made its data directory");
        }
        self.samples.push(Sample {
            boot,
            memory,
            stopped_after,
        });
    }

    /// The median of what `value` finds in each run; nothing if it finds nothing.
    fn median(&self, value: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
        median(&mut self.samples.iter().filter_map(value).collect::<Vec<_>>())
    }
}

fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Builds what users get, and says where it is.
fn build() -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--release", "-p", "daemon", "--bin", "tinkerbell"])
        .arg("--message-format=json-render-diagnostics")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo can be run, because it runs this");
    assert!(built.status.success(), "the daemon does not build");
    String::from_utf8_lossy(&built.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "tinkerbell")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .expect("cargo says where it put the executable")
}

/// Copies a data directory, and waits until the copy is on the disk: or else the first sync of a boot would pay for it.
/// What was reserved in a segment and never written stays without data, as it is in the original.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp")
        .args(["-r", "--sparse=always"])
        .arg(from)
        .arg(to)
        .status();
    assert!(
        copied.is_ok_and(|status| status.success()),
        "cannot copy {} to {}",
        from.display(),
        to.display()
    );
    rustix::fs::sync();
}

/// The floor, in seconds: a process that does nothing.
fn spawn_and_reap() -> f64 {
    let started = Instant::now();
    let status = Command::new("/bin/true").status();
    let took = started.elapsed();
    assert!(
        status.is_ok_and(|status| status.success()),
        "cannot run /bin/true"
    );
    took.as_secs_f64()
}

fn print_table(past: &Past, binary: &Path, floor: &mut [f64], cases: &[Case]) {
    let runs = floor.len();
    let floor = median(floor).expect("there is at least one run");
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    println!("medians of {runs} interleaved runs on {cpus} CPUs, page cache warm");
    println!("jobs, killed: {past}");
    println!("spawning and reaping /bin/true: {:.2} ms\n", floor * 1e3);

    let title = |title: &str| {
        print!("{title:<40}");
        cases.iter().for_each(|case| print!("{:>12}", case.name));
        println!();
    };
    let row = |name: &str, digits: usize, value: &dyn Fn(&Sample) -> Option<f64>| {
        print!("{name:<40}");
        for case in cases {
            match case.median(value) {
                Some(value) => print!("{value:>12.digits$}"),
                None => print!("{:>12}", "-"),
            }
        }
        println!();
    };
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    title("");
    row("exec to READY=1, ms", 2, &|sample| {
        Some(ms(sample.boot.notified_after))
    });
    row("exec to the first 200 of /readyz, ms", 2, &|sample| {
        Some(ms(sample.boot.probed_after))
    });
    row("exec to READY=1, in /bin/true", 1, &|sample| {
        Some(sample.boot.notified_after.as_secs_f64() / floor)
    });
    row("main to ready, as the daemon says, ms", 2, &|sample| {
        Some(sample.boot.startup_seconds * 1e3)
    });
    for phase in PHASES {
        row(&format!("  phase {phase}, ms"), 2, &|sample| {
            sample.boot.phase_seconds.get(phase).map(|took| took * 1e3)
        });
    }
    row("SIGTERM to exit, ms", 2, &|sample| {
        sample.stopped_after.map(ms)
    });
    row("resident when idle, MiB", 1, &|sample| {
        Some(sample.memory.resident_kib / 1024.0)
    });
    row("proportional share of it (PSS), MiB", 1, &|sample| {
        Some(sample.memory.proportional_kib / 1024.0)
    });
    let bytes = std::fs::metadata(binary).map_or(0, |metadata| metadata.len());
    println!(
        "\nbinary: {:.2} MiB ({})",
        bytes as f64 / f64::from(1 << 20),
        binary.display()
    );
}

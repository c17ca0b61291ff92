//! The runtime beside what a user would take instead: Restate and DBOS, doing the same durable no-op steps.
//!
//! ```text
//! cd benches/peers && cargo run --release -p runtime-peers            # all, some minutes
//! cd benches/peers && cargo run --release -p runtime-peers -- --quick # a look, with spans too short to quote
//! ```
//!
//! Everything is fetched, started on loopback and stopped by this one command; data is below `target/peers`, which has to
//! be on a real disk. All three sync before they acknowledge. For each scenario they take turns, so that what the disk
//! and the machine are up to hits all; what counts is the ratio to the better peer of the same run.
//!
//! Each is reached in the shortest way it has. That is not the same way: Restate is a server that is called over HTTP and
//! calls the service back, DBOS and ours are libraries in the process that has the work. Start and memory of the real
//! daemon are shown too.

mod child;
mod disk;
mod fetch;
mod ours;
mod peer;
mod restate;
mod table;
mod tinkerbell;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use crate::child::Child;
use crate::disk::Bare;
use crate::peer::{Peer, Scenario};
use crate::restate::Restate;
use crate::table::{Live, Measured, PEERS, Row};

/// How much is done.
struct Plan {
    span: Duration,
    starts: usize,
    lone_jobs: usize,
    steps: u32,
    live_jobs: u64,
    live_limits: [Duration; PEERS],
    /// More steps in flight than this take DBOS minutes to finish.
    dbos_steps_max: usize,
}

impl Plan {
    const FULL: Self = Self {
        span: Duration::from_secs(3),
        starts: 5,
        lone_jobs: 300,
        steps: 2_000,
        live_jobs: 100_000,
        live_limits: [
            Duration::from_secs(60),
            Duration::from_secs(90),
            Duration::from_secs(30),
        ],
        dbos_steps_max: 10_000,
    };
    const QUICK: Self = Self {
        span: Duration::from_millis(500),
        starts: 3,
        lone_jobs: 50,
        steps: 200,
        live_jobs: 20_000,
        live_limits: [Duration::from_secs(5); PEERS],
        dbos_steps_max: 640,
    };
}

/// Steps of the jobs that wait: with the submission eleven entries each, for a step leaves two.
const LIVE_STEPS: u32 = 5;
/// What jobs are held against for bytes on disk.
const BYTES_OF: Scenario = Scenario {
    steps: 10,
    clients: 64,
};

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let mut plan = Plan::FULL;
    let mut binary = None;
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("ours") => {
                return ours::main(Path::new(&arguments.next().context("which directory?")?));
            }
            Some("--quick") => plan = Plan::QUICK,
            Some("--binary") => {
                binary = Some(PathBuf::from(arguments.next().context("which binary?")?))
            }
            _ => bail!("usage: runtime-peers [--quick] [--binary TINKERBELL]"),
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../..")
        .canonicalize()?;
    let base = root.join("target/peers");
    std::fs::create_dir_all(&base)?;
    let binary = binary.map_or_else(|| fetch::tinkerbell(&root), Ok)?;
    let programs = Programs {
        ours: std::env::current_exe()?,
        restate: fetch::restate(&base.join("restate"))?,
        dbos: fetch::dbos(&base.join("dbos"))?,
    };
    let data = base.join(format!("data-{}", std::process::id()));
    std::fs::create_dir_all(&data)?;
    let measured = measure(&plan, &programs, &binary, &data);
    std::fs::remove_dir_all(&data)?;
    measured?.print();
    Ok(())
}

/// What is started.
struct Programs {
    ours: PathBuf,
    restate: PathBuf,
    dbos: PathBuf,
}

impl Programs {
    /// All of them over directories of their own: ours first, in the order of the table.
    fn peers(&self, dir: &Path) -> Result<[Box<dyn Peer>; PEERS]> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("dbos_bench.py");
        let ours = Child::new(
            "ours",
            self.ours.clone(),
            vec!["ours".into()],
            dir.join("ours"),
        );
        Ok([
            Box::new(ours.that_knows_idle()),
            Box::new(Restate::new(self.restate.clone(), dir.join("restate"))?),
            Box::new(Child::new(
                "DBOS",
                self.dbos.clone(),
                vec![script],
                dir.join("dbos"),
            )),
        ])
    }
}

fn measure(plan: &Plan, programs: &Programs, binary: &Path, data: &Path) -> Result<Measured> {
    let mut measured = Measured::default();
    let mut bare = Bare::new(data)?;
    let mut peers = programs.peers(&data.join("small"))?;
    starts(plan, &mut peers, binary, data, &mut measured)?;
    for clients in [1, 64, 1_000] {
        for steps in [1, 10, 100] {
            bare.measure(100)?;
            let scenario = Scenario { steps, clients };
            let row = jobs(plan, &mut peers, scenario, &mut measured)?;
            eprintln!("{steps} x {clients}: {:.1?}", row.values);
            measured.jobs.push(row);
        }
    }
    bare.measure(500)?;
    lone(plan, &mut peers, &mut measured)?;
    bare.measure(500)?;
    for (number, peer) in peers.iter_mut().enumerate() {
        measured.peak_mib[number] = Some(peer.memory()?.peak_kib as f64 / 1024.0);
        peer.stop()?;
    }
    drop(peers);
    let mut peers = programs.peers(&data.join("live"))?;
    for (number, peer) in peers.iter_mut().enumerate() {
        let live = live(plan, peer.as_mut(), plan.live_limits[number])
            .with_context(|| format!("live jobs of {}", peer.name()))?;
        eprintln!("{}: {live:?}", peer.name());
        measured.live[number] = Some(live);
    }
    measured.bare_micros = bare.micros;
    Ok(measured)
}

/// Starts all of them over a directory with one past job or a few, in turns. Leaves them running.
fn starts(
    plan: &Plan,
    peers: &mut [Box<dyn Peer>; PEERS],
    binary: &Path,
    data: &Path,
    measured: &mut Measured,
) -> Result<()> {
    let daemon = tinkerbell::Daemon::new(binary, &data.join("daemon"))?;
    daemon.first_job(0)?;
    for peer in peers.iter_mut() {
        peer.start()
            .with_context(|| format!("first start of {}", peer.name()))?;
    }
    for number in 1..=plan.starts {
        measured
            .daemon_first_job_ms
            .push(ms(daemon.first_job(number)?));
        for (peer, times) in peers.iter_mut().zip(&mut measured.first_job_ms) {
            peer.stop()?;
            let start = peer
                .start()
                .with_context(|| format!("start of {}", peer.name()))?;
            times.push(ms(start.first_job));
        }
    }
    measured.daemon_idle_mib = daemon.idle_mib()?;
    for (number, peer) in peers.iter().enumerate() {
        measured.idle_mib[number] = Some(peer.memory()?.now_kib as f64 / 1024.0);
    }
    Ok(())
}

fn jobs(
    plan: &Plan,
    peers: &mut [Box<dyn Peer>; PEERS],
    scenario: Scenario,
    measured: &mut Measured,
) -> Result<Row> {
    let Scenario { steps, clients } = scenario;
    let mut row = Row {
        name: format!("{steps} × {clients}"),
        values: [None; PEERS],
    };
    for (number, peer) in peers.iter_mut().enumerate() {
        if peer.name() == "DBOS" && steps as usize * clients > plan.dbos_steps_max {
            continue;
        }
        let counts_bytes = (steps, clients) == (BYTES_OF.steps, BYTES_OF.clients);
        let before = (
            counts_bytes
                .then(|| disk::used_bytes(peer.data_dir()))
                .transpose()?,
            peer.written_bytes()?,
        );
        let ran = peer
            .run(scenario, plan.span)
            .with_context(|| format!("{} of {}", row.name, peer.name()))?;
        if let (Some(used), written) = before {
            let jobs = ran.jobs as f64;
            let grown = disk::used_bytes(peer.data_dir())?.saturating_sub(used);
            measured.used_bytes[number] = Some(grown as f64 / jobs);
            measured.written_bytes[number] = Some((peer.written_bytes()? - written) as f64 / jobs);
        }
        row.values[number] = Some(ran.rate());
    }
    Ok(row)
}

fn lone(plan: &Plan, peers: &mut [Box<dyn Peer>; PEERS], measured: &mut Measured) -> Result<()> {
    for (number, peer) in peers.iter_mut().enumerate() {
        let lone = &mut measured.lone[number];
        lone.one = peer.lone(1, plan.lone_jobs)?;
        lone.eleven = peer.lone(11, plan.lone_jobs / 3)?;
        lone.steps = peer.steps(plan.steps)?;
        eprintln!("{}: lone jobs done", peer.name());
    }
    Ok(())
}

/// Makes jobs that wait, stops, and starts again over them.
fn live(plan: &Plan, peer: &mut dyn Peer, limit: Duration) -> Result<Live> {
    peer.start()?;
    let empty = peer.memory()?;
    let jobs = peer.live(LIVE_STEPS, plan.live_jobs, limit)?;
    let waiting = peer.memory()?;
    peer.stop()?;
    let start = peer.start()?;
    let all_wait = peer.when_idle()?;
    let again = peer.memory()?;
    peer.stop()?;
    let per_job = |now: u64| now.saturating_sub(empty.now_kib) as f64 * 1024.0 / jobs as f64;
    Ok(Live {
        jobs,
        records: start
            .said
            .get("records")
            .and_then(serde_json::Value::as_u64),
        ready_ms: ms(start.ready),
        first_job_ms: ms(start.first_job),
        all_wait_ms: all_wait.map(ms),
        bytes_before: per_job(waiting.now_kib),
        bytes_after: per_job(again.now_kib),
        rss_mib: again.now_kib as f64 / 1024.0,
    })
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

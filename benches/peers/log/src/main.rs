//! The log against the physical limit and against other logs and stores, in one run.
//!
//! `cargo run --release -p peers-log` in `benches/peers` prints all tables in about five minutes;
//! `-- --quick` the same from short rounds, to see that it works. `LOG_PEERS_ROUNDS` and
//! `LOG_PEERS_ROUND_MS` set how many rounds there are and how long each is, `LOG_PEERS_DIR` where the
//! files are made (default: beside the binary). It must be a real file system.
//!
//! The candidates of a row take turns, round by round, so that the machine's moods hit all of them, and
//! what is printed are medians. What carries over to another machine are the ratios.

#[path = "../../../../crates/wal/benches/bare/mod.rs"]
mod bare;
mod candidates;
mod device;
mod durable;
mod files;
mod goals;
mod measure;
mod plan;
mod scan;
mod table;
mod unsynced;

use crate::plan::Plan;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|first| first == device::CHILD) {
        return device::child(&args[1..]);
    }
    let plan = Plan::new(&args);
    println!(
        "Medians of {} interleaved rounds of {} ms.\n",
        plan.rounds,
        plan.round.as_millis()
    );

    let durable = durable::measure(&plan);
    unsynced::measure(&plan);
    files::measure(&plan);
    let device = device::measure(&plan);
    let scan = scan::measure(&plan);
    goals::print(&durable, &device, &scan);
}

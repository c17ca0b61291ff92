//! The scheduler beside its peers and beside the limit, in one run.
//!
//! ```text
//! cd benches/peers && cargo run --release -p scheduler-peers
//! ```
//!
//! Every figure is measured in a process of its own; the processes of all columns take turns, round by round, and the
//! **best** of the rounds counts: what disturbs a measurement only ever makes it slower. They are measured in processor
//! time, which on a quiet machine is the wall's for work that never waits and on a busy one leaves others out; Go and
//! Erlang on the wall's clock. Lateness and round trips depend on how the kernel wakes threads, and are the **median** of
//! the rounds on the wall's clock.
//!
//! With arguments, the rounds of each of the three parts (`--rounds N`) and the parts (`table`, `timers`, `trips`).

mod cell;
mod foreign;
mod lateness;
mod peer;
mod peers;
mod round_trip;
mod stopwatch;
mod workloads;

use std::path::Path;
use std::process::Command;

use cell::{COLUMNS, How, Role, Row};
use foreign::Foreign;
use lateness::{Lateness, Sleeper};
use round_trip::Way;

/// The first argument of a process that measures one thing and prints it.
const CELL: &str = "--cell";

/// Tasks that make round trips at once.
const TRAVELLERS: [u64; 2] = [1, 64];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let [CELL, what, which] = words[..] {
        return measure_and_print(what, which);
    }
    let (mut rounds, mut parts) = (7, Vec::new());
    let mut rest = words.iter();
    while let Some(&word) = rest.next() {
        match word {
            "--rounds" => {
                let number = rest.next().and_then(|number| number.parse().ok());
                rounds = number.expect("a number of rounds after --rounds");
            }
            "table" | "timers" | "trips" => parts.push(word),
            other => panic!("{other}: not --rounds N, table, timers or trips"),
        }
    }
    let wanted = |part| parts.is_empty() || parts.contains(&part);

    let dir = tempfile::tempdir().expect("a directory for Go's and Erlang's programs");
    let skipped: Vec<Foreign> = [Foreign::Go, Foreign::Erlang]
        .into_iter()
        .filter(|foreign| {
            let built = foreign.build(dir.path());
            if let Err(why) = &built {
                eprintln!("{foreign:?} is skipped: {why}");
            }
            built.is_err()
        })
        .collect();
    if wanted("table") {
        table(rounds, dir.path(), &skipped);
    }
    if wanted("timers") {
        timers(rounds.min(3), dir.path(), &skipped);
    }
    if wanted("trips") {
        trips(rounds);
    }
}

/// What a process for one cell does.
fn measure_and_print(what: &str, which: &str) {
    if let Some(sleeper) = Sleeper::ALL
        .into_iter()
        .find(|sleeper| sleeper.title() == which)
        && what == "lateness"
    {
        print!("{}", sleeper.measure_here().unwrap_or_default());
    } else if let Some((way, tasks)) = which.split_once(':').filter(|_| what == "trip") {
        let way = Way::ALL
            .into_iter()
            .find(|known| format!("{known:?}") == way);
        let tasks = tasks.parse().expect("a number of tasks");
        print!("{}", way.expect("a way that is known").measure(tasks));
    } else {
        let row: Row = which.parse().unwrap_or_else(|error| panic!("{error}"));
        if let Some(figure) = cell::measure_here(what, row) {
            print!("{figure}");
            // Millions of parked tasks need not be dropped for this.
            std::process::exit(0);
        }
    }
}

fn cell_process(what: &str, which: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.args([CELL, what, which]);
    command
}

/// Costs per operation, and memory per task.
fn table(rounds: usize, dir: &Path, skipped: &[Foreign]) {
    let names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
    println!(
        "\n| | {} | best peer | it / ours | ours / limit |",
        names.join(" | ")
    );
    println!("|---|{}", "---|".repeat(COLUMNS.len() + 3));
    for row in Row::ALL {
        let mut best = [None::<f64>; COLUMNS.len()];
        // Memory is the same each time; once to warm up nothing, twice to see that it is.
        for _ in 0..if row.is_memory() {
            rounds.min(2)
        } else {
            rounds
        } {
            for (best, column) in best.iter_mut().zip(COLUMNS) {
                let mut command = match column.how {
                    How::Here(_) => cell_process(column.name, &row.to_string()),
                    How::Foreign(foreign) if skipped.contains(&foreign) => continue,
                    How::Foreign(foreign) => foreign.cell(dir, row),
                };
                let figure = cell::measure_with(&mut command);
                *best = figure.map(|figure| best.map_or(figure, |best| figure.min(best)));
            }
        }
        print_row(row, &best);
    }
}

fn print_row(row: Row, figures: &[Option<f64>]) {
    let of = |role| {
        let columns = COLUMNS
            .iter()
            .zip(figures)
            .filter(move |(column, _)| column.role == role);
        columns.filter_map(|(column, figure)| Some((column.name, (*figure)?)))
    };
    let number = |figure: Option<f64>| match figure {
        None => "–".to_owned(),
        Some(figure) if figure < 100.0 => format!("{figure:.1}"),
        Some(figure) => format!("{figure:.0}"),
    };
    let ratio = |above: Option<f64>, below: Option<f64>| match (above, below) {
        (Some(above), Some(below)) => format!("{:.2}", above / below),
        _ => "–".to_owned(),
    };
    let ours = of(Role::Ours).next().map(|(_, figure)| figure);
    let limit = of(Role::Limit).next().map(|(_, figure)| figure);
    let peer = of(Role::Peer).min_by(|one, other| one.1.total_cmp(&other.1));
    let figures: Vec<String> = figures.iter().map(|&figure| number(figure)).collect();
    println!(
        "| {} | {} | {} | {} | {} |",
        row.title(),
        figures.join(" | "),
        peer.map_or("–", |(name, _)| name),
        ratio(peer.map(|(_, figure)| figure), ours),
        ratio(ours, limit)
    );
}

/// Lateness on the real clock.
fn timers(rounds: usize, dir: &Path, skipped: &[Foreign]) {
    println!(
        "\n| a million timers, real clock | late p50, µs | p99, µs | most, µs | processor, ns a timer |"
    );
    println!("|---|---|---|---|---|");
    let sleepers = Sleeper::ALL
        .into_iter()
        .filter(|&sleeper| sleeper != Sleeper::Go || !skipped.contains(&Foreign::Go));
    let mut measured: Vec<(Sleeper, Vec<Lateness>)> =
        sleepers.map(|sleeper| (sleeper, Vec::new())).collect();
    for _ in 0..rounds {
        for (sleeper, rounds) in &mut measured {
            let mut command = match sleeper {
                Sleeper::Go => sleeper.foreign(dir),
                _ => cell_process("lateness", sleeper.title()),
            };
            let output = command.output().expect("a program that starts");
            let line = String::from_utf8_lossy(&output.stdout);
            rounds
                .push(Lateness::parse(&line).unwrap_or_else(|| panic!("{command:?} said {line}")));
        }
    }
    for (sleeper, rounds) in &mut measured {
        rounds.sort_by(|one, other| one.percentile_99.total_cmp(&other.percentile_99));
        let Lateness {
            median,
            percentile_99,
            max,
            processor_ns,
        } = rounds[rounds.len() / 2];
        println!(
            "| {} | {median:.0} | {percentile_99:.0} | {max:.0} | {processor_ns:.0} |",
            sleeper.title()
        );
    }
}

/// Round trips to the I/O runtime.
fn trips(rounds: usize) {
    println!("\n| round trip to another thread, ns each | 1 task | 64 tasks at once |");
    println!("|---|---|---|");
    let mut measured = Way::ALL.map(|_| TRAVELLERS.map(|_| Vec::new()));
    for _ in 0..rounds {
        for (way, measured) in Way::ALL.into_iter().zip(&mut measured) {
            for (tasks, figures) in TRAVELLERS.into_iter().zip(measured) {
                let mut command = cell_process("trip", &format!("{way:?}:{tasks}"));
                figures.push(cell::measure_with(&mut command).expect("every way can be measured"));
            }
        }
    }
    for (way, mut measured) in Way::ALL.into_iter().zip(measured) {
        let medians = measured.each_mut().map(|figures| {
            figures.sort_by(f64::total_cmp);
            format!("{:.0}", figures[figures.len() / 2])
        });
        println!("| {} | {} |", way.title(), medians.join(" | "));
    }
}

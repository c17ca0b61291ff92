//! All that was measured, and how it is shown.

/// Ours and the two others.
pub(crate) const PEERS: usize = 3;
/// In the order of the columns.
const NAMES: [&str; PEERS] = ["ours", "Restate", "DBOS"];

/// One figure of each; nothing where it was not measured.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) values: [Option<f64>; PEERS],
}

/// Jobs with nothing else going on, in microseconds.
#[derive(Default)]
pub(crate) struct Lone {
    /// Whole jobs of one step.
    pub(crate) one: Vec<f64>,
    /// Whole jobs of eleven.
    pub(crate) eleven: Vec<f64>,
    /// Each step of a long one.
    pub(crate) steps: Vec<f64>,
}

/// A start over jobs that wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    /// How many wait.
    pub(crate) jobs: u64,
    /// Records in the log, where they can be counted.
    pub(crate) records: Option<u64>,
    /// From the start of the process until it takes work.
    pub(crate) ready_ms: f64,
    /// The same until a new job is over.
    pub(crate) first_job_ms: f64,
    /// The same until all of them wait again, where it can be known.
    pub(crate) all_wait_ms: Option<f64>,
    /// Resident memory of each in the process that made them.
    pub(crate) bytes_before: f64,
    /// The same after the start.
    pub(crate) bytes_after: f64,
    /// Resident memory of all after the start.
    pub(crate) rss_mib: f64,
}

/// What a start is asked for; nothing if it does not know.
type Figure = fn(&Live) -> Option<f64>;

/// Everything.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) bare_micros: Vec<f64>,
    pub(crate) jobs: Vec<Row>,
    pub(crate) lone: [Lone; PEERS],
    pub(crate) first_job_ms: [Vec<f64>; PEERS],
    pub(crate) daemon_first_job_ms: Vec<f64>,
    pub(crate) idle_mib: [Option<f64>; PEERS],
    pub(crate) daemon_idle_mib: f64,
    pub(crate) peak_mib: [Option<f64>; PEERS],
    pub(crate) used_bytes: [Option<f64>; PEERS],
    pub(crate) written_bytes: [Option<f64>; PEERS],
    pub(crate) live: [Option<Live>; PEERS],
}

/// Whether more or less of it is the better.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Better {
    More,
    Less,
}

impl Measured {
    /// One table of markdown, and a line on the disk.
    pub(crate) fn print(&self) {
        println!(
            "bare write and fdatasync of 256 bytes, in the same run: p50 {:.0} µs",
            self.bare(0.5)
        );
        println!();
        println!("| | {} | ours to the better peer |", NAMES.join(" | "));
        println!("|---|---|---|---|---|");
        for row in &self.jobs {
            let name = format!("jobs/s, {} steps × in flight", row.name);
            print_row(&name, row.values, Better::More);
        }
        self.print_lone();
        let starts = [0, 1, 2].map(|peer| quantile(&self.first_job_ms[peer], 0.5));
        print_row("start → first job, ms", starts, Better::Less);
        let daemon = quantile(&self.daemon_first_job_ms, 0.5);
        let name = "the real daemon, start → first `/bin/true` → exit, ms";
        print_row(name, [daemon, starts[1], starts[2]], Better::Less);
        print_row("RSS idle, MiB", self.idle_mib, Better::Less);
        let [_, restate, dbos] = self.idle_mib;
        print_row(
            "RSS idle of the real daemon, MiB",
            [Some(self.daemon_idle_mib), restate, dbos],
            Better::Less,
        );
        print_row("RSS peak, MiB", self.peak_mib, Better::Less);
        print_row(
            "bytes kept per job of 10 steps, 64 in flight",
            self.used_bytes,
            Better::Less,
        );
        print_row(
            "bytes sent to the disk per such job",
            self.written_bytes,
            Better::Less,
        );
        self.print_live();
    }

    fn bare(&self, share: f64) -> f64 {
        quantile(&self.bare_micros, share).unwrap_or(f64::NAN)
    }

    fn print_lone(&self) {
        let lone = self.lone.each_ref();
        for (name, share) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            let values = lone.map(|lone| quantile(&lone.steps, share));
            print_row(
                &format!("step of a lone job {name}, µs"),
                values,
                Better::Less,
            );
            let name = format!("the same, in bare syncs ({name} each)");
            let bare = self.bare(share);
            print_row(
                &name,
                values.map(|value| value.map(|value| value / bare)),
                Better::Less,
            );
        }
        // Only of medians: a difference of rare values says nothing.
        let further = lone.map(|lone| {
            let further = quantile(&lone.eleven, 0.5)? - quantile(&lone.one, 0.5)?;
            Some(further / 10.0)
        });
        print_row(
            "(job of 11 steps − of 1) ÷ 10, p50, µs",
            further,
            Better::Less,
        );
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            let values = lone.map(|lone| quantile(&lone.one, share));
            print_row(
                &format!("lone job of 1 step {name}, µs"),
                values,
                Better::Less,
            );
        }
    }

    fn print_live(&self) {
        let of = |value: Figure| self.live.each_ref().map(|live| value(live.as_ref()?));
        let jobs = of(|live| Some(live.jobs as f64));
        // As many as could be made in the time: a number to read the next lines by, not a race.
        let [ours, restate, dbos] = jobs.map(show);
        println!("| live jobs that wait | {ours} | {restate} | {dbos} | – |");
        let rows: [(&str, Figure); 8] = [
            ("start → ready over them, ms", |live| Some(live.ready_ms)),
            ("start → ready, µs a live job", |live| {
                Some(live.ready_ms * 1e3 / live.jobs as f64)
            }),
            ("start → first new job over, ms", |live| {
                Some(live.first_job_ms)
            }),
            ("start → all wait again, ms", |live| live.all_wait_ms),
            ("bytes of memory per live job, as made", |live| {
                Some(live.bytes_before)
            }),
            ("bytes of memory per live job, after the start", |live| {
                Some(live.bytes_after)
            }),
            ("RSS after the start, MiB", |live| Some(live.rss_mib)),
            ("records in the log", |live| {
                live.records.map(|records| records as f64)
            }),
        ];
        for (name, value) in rows {
            print_row(name, of(value), Better::Less);
        }
    }
}

fn print_row(name: &str, values: [Option<f64>; PEERS], better: Better) {
    let [ours, others @ ..] = values;
    let others = others.into_iter().flatten();
    let best = match better {
        Better::More => others.reduce(f64::max),
        Better::Less => others.reduce(f64::min),
    };
    // Nothing is no measure for something.
    let best = best.filter(|best| *best > 0.0);
    let ratio = ours.zip(best).map(|(ours, best)| ours / best);
    let shown: Vec<_> = values.into_iter().map(show).collect();
    println!("| {name} | {} | {} |", shown.join(" | "), show(ratio));
}

/// With as many places as say something.
fn show(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value.abs() >= 100.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 10.0 => format!("{value:.1}"),
        Some(value) if value.abs() >= 1.0 => format!("{value:.2}"),
        Some(value) => format!("{value:.4}"),
    }
}

/// The value below which this share of the values is; nothing of nothing.
fn quantile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * share).round() as usize).copied()
}

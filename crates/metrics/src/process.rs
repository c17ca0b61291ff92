//! What the process itself costs, under the names that every Prometheus client gives these numbers.
//!
//! Read from `/proc/self` when a scrape asks, a few dozen microseconds in all, and never in between.
//! What cannot be read (no `/proc`, no permission) is left out, and the rest shown.

use std::fs;

use crate::collect::{Desc, Sink};
use crate::registry::Registry;

const CPU_SECONDS: &str = "process_cpu_seconds_total";
const RESIDENT_BYTES: &str = "process_resident_memory_bytes";
const VIRTUAL_BYTES: &str = "process_virtual_memory_bytes";
const START_SECONDS: &str = "process_start_time_seconds";
const OPEN_FDS: &str = "process_open_fds";
const MAX_FDS: &str = "process_max_fds";
const THREADS: &str = "process_threads";

/// Adds the process metrics to a registry.
///
/// # Panics
///
/// If they are in it already.
#[track_caller]
pub fn register(registry: &Registry) {
    let declared = vec![
        Desc::counter(CPU_SECONDS, "User and system CPU time spent, in seconds."),
        Desc::gauge(RESIDENT_BYTES, "Resident memory, in bytes."),
        Desc::gauge(VIRTUAL_BYTES, "Virtual memory, in bytes."),
        Desc::gauge(
            START_SECONDS,
            "Start of the process, in seconds since the Unix epoch.",
        ),
        Desc::gauge(OPEN_FDS, "Open file descriptors."),
        Desc::gauge(MAX_FDS, "The most file descriptors that may be open."),
        Desc::gauge(THREADS, "Threads of the process."),
    ];
    let machine = Machine::read();
    registry.collect(declared, move |sink| collect(&machine, sink));
}

fn collect(machine: &Machine, sink: &mut Sink<'_>) {
    if let Some(stat) = read("stat").as_deref().and_then(Stat::parse) {
        sink.put(
            CPU_SECONDS,
            stat.cpu_ticks as f64 / machine.ticks_per_second,
        );
        sink.put(RESIDENT_BYTES, stat.resident_pages * machine.page_bytes);
        sink.put(VIRTUAL_BYTES, stat.virtual_bytes);
        sink.put(THREADS, stat.threads);
        if let Some(boot) = machine.boot_seconds {
            sink.put(
                START_SECONDS,
                boot + stat.start_ticks as f64 / machine.ticks_per_second,
            );
        }
    }
    if let Some(open) = open_fds() {
        sink.put(OPEN_FDS, open);
    }
    if let Some(max) = read("limits").as_deref().and_then(parse_max_fds) {
        sink.put(MAX_FDS, max);
    }
}

fn read(file: &str) -> Option<String> {
    fs::read_to_string(format!("/proc/self/{file}")).ok()
}

fn open_fds() -> Option<u64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    // The one that reads the directory is open too.
    Some((open as u64).saturating_sub(1))
}

/// The soft limit of open files, from `/proc/self/limits`.
fn parse_max_fds(limits: &str) -> Option<f64> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().next()? {
        "unlimited" => Some(f64::INFINITY),
        soft => soft.parse().ok(),
    }
}

/// What is taken of `/proc/self/stat`; see proc_pid_stat(5).
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: u64,
    threads: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, and may itself hold any of both and
        // spaces: what follows the last one is safe to split.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // `rest` begins with the third field of the manual page.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: field(14)? + field(15)?,
            threads: field(20)?,
            start_ticks: field(22)?,
            virtual_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

/// What stays the same while the process runs.
struct Machine {
    ticks_per_second: f64,
    page_bytes: u64,
    /// When the machine booted, in seconds since the Unix epoch.
    boot_seconds: Option<f64>,
}

impl Machine {
    fn read() -> Self {
        let auxv = fs::read("/proc/self/auxv").unwrap_or_default();
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        Self {
            // The values of nearly every Linux, for where `auxv` may not be read.
            ticks_per_second: auxv_entry(&auxv, AT_CLKTCK).unwrap_or(100) as f64,
            page_bytes: auxv_entry(&auxv, AT_PAGESZ).unwrap_or(4096),
            boot_seconds: stat
                .lines()
                .find_map(|line| line.strip_prefix("btime "))
                .and_then(|seconds| seconds.trim().parse().ok()),
        }
    }
}

/// Keys of the auxiliary vector, from the kernel's `include/uapi/linux/auxvec.h`. It is the one place that
/// tells `sysconf`'s page size and clock ticks without a call into C.
const AT_PAGESZ: u64 = 6;
const AT_CLKTCK: u64 = 17;

/// The value of a key in the auxiliary vector: pairs of machine words, getauxval(3).
fn auxv_entry(auxv: &[u8], key: u64) -> Option<u64> {
    const WORD: usize = size_of::<usize>();
    let word = |bytes: &[u8]| Some(usize::from_ne_bytes(bytes.try_into().ok()?) as u64);
    auxv.chunks_exact(2 * WORD)
        .find(|pair| word(&pair[..WORD]) == Some(key))
        .and_then(|pair| word(&pair[WORD..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_cannot_shift_the_fields() {
        let text = "42 (a) R 1 (b) S 1 42 42 0 -1 4194304 100 0 0 0 \
                    70 30 0 0 20 0 5 0 12345 1048576 256 18446744073709551615 1 1";
        let expected = Stat {
            cpu_ticks: 100,
            threads: 5,
            start_ticks: 12345,
            virtual_bytes: 1_048_576,
            resident_pages: 256,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(Stat::parse("42 (a) R 1"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn the_limit_of_open_files_is_the_soft_one() {
        let limits = |soft: &str| {
            format!("Limit  Soft Limit  Hard Limit  Units\nMax open files  {soft}  524288  files\n")
        };
        assert_eq!(parse_max_fds(&limits("1024")), Some(1024.0));
        assert_eq!(parse_max_fds(&limits("unlimited")), Some(f64::INFINITY));
        assert_eq!(parse_max_fds("Max open sockets 1 2"), None);
    }

    #[test]
    fn the_auxiliary_vector_is_read_by_pairs() {
        let auxv: Vec<u8> = [17usize, 6, 6, 4096, 17, 100, 0, 0]
            .into_iter()
            .flat_map(usize::to_ne_bytes)
            .collect();
        assert_eq!(auxv_entry(&auxv, AT_PAGESZ), Some(4096));
        assert_eq!(
            auxv_entry(&auxv[4 * size_of::<usize>()..], AT_CLKTCK),
            Some(100)
        );
        assert_eq!(auxv_entry(&auxv, 99), None);
        assert_eq!(auxv_entry(&[1, 2, 3], AT_PAGESZ), None);
    }
}

//! Bytes that reach the device for each record.
//!
//! Every candidate has a process of its own, so that the kernel's count of its writes is about it
//! alone. Two counts are shown, because each tells only half of it. *Process*: `write_bytes` in
//! `/proc/self/io`, whole pages made dirty, without what the file system writes for its own sake; a
//! page cache in large folios counts the whole folio. *Device*: sectors written by the block device,
//! `/proc/diskstats`, with the file system's journal, and with whatever else the machine does.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::candidates::{self, BARE, BARE_WRITTEN, Candidate, Durability, LOG};
use crate::durable::Way;
use crate::measure;
use crate::plan::{self, Plan, RECORD_BYTES};
use crate::table::{self, NONE};

/// The first argument of the process that is measured.
pub const CHILD: &str = "device-child";
/// The sector of `/proc/diskstats`, whatever the device's own is.
const SECTOR_BYTES: u64 = 512;
const IN_FLIGHT: usize = 64;

/// A line of the table.
#[derive(Debug)]
pub struct Row {
    pub way: Way,
    pub record_bytes: usize,
    pub name: &'static str,
    /// As multiples of the payload.
    pub process: f64,
    /// Nothing where the directory is on no block device of its own (overlay, btrfs).
    pub device: Option<f64>,
}

/// Measures and prints it.
pub fn measure(plan: &Plan) -> Vec<Row> {
    let dir = plan.dir();
    let before = device_bytes(dir.path());
    // Not to wait for anything: for as long as this, nothing is done here.
    std::thread::sleep(plan.device);
    let noise = device_bytes(dir.path())
        .zip(before)
        .map_or(f64::NAN, |(after, before)| {
            (after - before) as f64 / plan.device.as_secs_f64()
        });

    let mut rows = Vec::new();
    let shown: Vec<_> = candidates::all().collect();
    let mut head = vec!["bytes".to_owned(), "way".to_owned()];
    head.extend(shown.iter().map(|candidate| candidate.name().to_owned()));
    let mut lines = Vec::new();
    for record_bytes in RECORD_BYTES {
        for way in [Way::Threads, Way::Batches] {
            let mut line = vec![record_bytes.to_string(), way.to_string()];
            for candidate in &shown {
                let Some(row) = measure_one(plan, *candidate, record_bytes, way) else {
                    line.push(NONE.to_owned());
                    continue;
                };
                let device = row
                    .device
                    .map_or_else(|| NONE.to_owned(), |times| format!("{times:.2}"));
                line.push(format!("{device} / {:.2}", row.process));
                rows.push(row);
            }
            lines.push(line);
        }
    }
    let title = format!(
        "Bytes to the device for each byte of payload, {IN_FLIGHT} in flight (device / process; \
         others wrote {:.1} MB/s before)",
        noise / 1e6
    );
    table::print(&title, &head, &lines);
    rows
}

fn measure_one(
    plan: &Plan,
    candidate: &dyn Candidate,
    record_bytes: usize,
    way: Way,
) -> Option<Row> {
    let is_alone = [BARE.name(), BARE_WRITTEN.name(), LOG.name()].contains(&candidate.name());
    if is_alone && way == Way::Threads {
        return None;
    }
    let dir = plan.dir();
    let output = Command::new(std::env::current_exe().expect("a path of our own"))
        .arg(CHILD)
        .arg(candidate.name())
        .arg(record_bytes.to_string())
        .arg(way.to_string())
        .arg(plan.device.as_millis().to_string())
        .arg(dir.path())
        .output()
        .expect("a process");
    assert!(
        output.status.success(),
        "{}: {}",
        candidate.name(),
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).expect("numbers");
    let numbers: Vec<f64> = text
        .split_whitespace()
        .map(|number| number.parse().expect("a number"))
        .collect();
    let &[records, process, device, _] = &numbers[..] else {
        panic!("four numbers, not {text:?}");
    };
    let payload = records * record_bytes as f64;
    Some(Row {
        way,
        record_bytes,
        name: candidate.name(),
        process: process / payload,
        device: (!device.is_nan()).then_some(device / payload),
    })
}

/// The process that is measured: appends for a while and prints how many records it appended, what was
/// written in that time, by itself and by the device, and how many appends it has made in all.
pub fn child(args: &[String]) {
    let [name, record_bytes, way, millis, dir] = args else {
        panic!("five arguments, not {args:?}");
    };
    let candidate = candidates::all()
        .find(|candidate| candidate.name() == name)
        .expect("a candidate's name");
    let way = if *way == Way::Threads.to_string() {
        Way::Threads
    } else {
        Way::Batches
    };
    let record = plan::record(record_bytes.parse().expect("a size"));
    let duration = Duration::from_millis(millis.parse().expect("a time"));
    let dir = Path::new(dir);
    let (appenders, count) = way.split(IN_FLIGHT);
    let mut appenders = candidate
        .open(dir, Durability::Synced, appenders)
        .expect("every store can sync");
    // What making the store has cost is not what a record costs. The first writes are like it.
    let warm = measure::round(&mut appenders, &record, count, duration / 10);

    let settled = settle(dir);
    let result = measure::round(&mut appenders, &record, count, duration);
    let end = settle(dir);
    println!(
        "{} {} {} {}",
        result.records,
        end.0 - settled.0,
        end.1
            .zip(settled.1)
            .map_or(f64::NAN, |(end, start)| (end - start) as f64),
        // For whoever compares it with the syncs that `strace -c -f` counts.
        (warm.records + result.records) / count as u64
    );
}

/// Writes out what the file system holds back; what was written until then, by us and by the device.
fn settle(dir: &Path) -> (u64, Option<u64>) {
    plan::settle(dir);
    (process_bytes(), device_bytes(dir))
}

fn process_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/self/io").expect("counts of I/O");
    let mut lines = text.lines();
    lines
        .find_map(|line| line.strip_prefix("write_bytes: "))
        .and_then(|number| number.parse().ok())
        .expect("a count of bytes written")
}

/// Bytes written by the device that the directory is on, if there is one.
fn device_bytes(dir: &Path) -> Option<u64> {
    let device = dir.metadata().expect("the directory").dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let id = [major.to_string(), minor.to_string()];
    let text = std::fs::read_to_string("/proc/diskstats").expect("counts of the devices");
    // Fields: major, minor, name, then reads (4), then writes, merged, sectors
    // (Documentation/admin-guide/iostats.rst of Linux).
    let fields = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|fields| fields[..2] == id)?;
    Some(fields[9].parse::<u64>().expect("a count of sectors") * SECTOR_BYTES)
}

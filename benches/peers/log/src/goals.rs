//! What was aimed at, and what came out.

use crate::candidates::WRITER;
use crate::durable::{self, Way};
use crate::scan::Scan;
use crate::table::{self, whole};
use crate::{device, plan};

/// A lone appender's part of the limit.
const LONE_SHARE: f64 = 0.95;
/// The part of the limit when more than one record is in flight.
const SHARE: f64 = 0.9;
/// How many times as fast as the best peer, with the same number of blocking appenders.
const TIMES_PEER: f64 = 4.0;
/// Bytes to the device for each byte of payload.
const DEVICE: f64 = 1.3;
/// Records a second when the log is opened, unless the page cache is slower.
const SCAN: f64 = 5e6;

/// Prints them.
pub fn print(durable: &[durable::Row], device: &[device::Row], scan: &Scan) {
    let mut lines = Vec::new();
    let mut goal = |what: String, aim: String, found: String, met: bool| {
        let met = if met { "yes" } else { "no" };
        lines.push(vec![what, aim, found, met.to_owned()]);
    };
    for way in [Way::Threads, Way::Batches] {
        for bytes in plan::RECORD_BYTES {
            for row in durable
                .iter()
                .filter(|row| row.way == way && row.record_bytes == bytes)
            {
                let aim = if row.in_flight == 1 {
                    LONE_SHARE
                } else {
                    SHARE
                };
                let share = row.share(WRITER).unwrap_or(f64::NAN);
                goal(
                    format!(
                        "share of bare, {bytes} B, {way}, {} in flight",
                        row.in_flight
                    ),
                    format!("≥ {aim}"),
                    format!("{share:.3}"),
                    share >= aim,
                );
                if way == Way::Threads && row.in_flight > 1 {
                    let times = row.rate(WRITER).unwrap_or(f64::NAN) / row.best_peer();
                    goal(
                        format!("times the best peer, {bytes} B, {} threads", row.in_flight),
                        format!("≥ {TIMES_PEER}"),
                        format!("{times:.1}"),
                        times >= TIMES_PEER,
                    );
                }
            }
        }
    }
    for row in device.iter().filter(|row| row.name == WRITER.name()) {
        goal(
            format!(
                "device bytes / payload, {} B, {}",
                row.record_bytes, row.way
            ),
            format!("≤ {DEVICE}"),
            format!("{:.2}, process alone {:.2}", row.device, row.process),
            row.device <= DEVICE,
        );
    }
    let aim = SCAN.min(scan.page_cache);
    goal(
        "records/s of a recovery".to_owned(),
        format!("≥ {}", whole(aim)),
        whole(scan.ours),
        scan.ours >= aim,
    );
    let head = ["goal", "aim", "found", "met"].map(str::to_owned);
    table::print("Goals", &head, &lines);
}

//! What was aimed at, and what came out.

use crate::candidates::{BARE, WRITER};
use crate::durable::{self, Way};
use crate::scan::Scan;
use crate::table::{self, NONE, whole};
use crate::{device, plan};

/// A lone appender's part of the limit.
const LONE_SHARE: f64 = 0.95;
/// The part of the limit when more than one record is in flight.
const SHARE: f64 = 0.9;
/// How many times as fast as the best peer with as many blocking appenders.
const TIMES_PEER: f64 = 4.0;
/// Bytes to the device for each byte of payload.
const DEVICE: f64 = 1.3;
/// Records a second when the log is opened, unless the page cache is slower.
const SCAN: f64 = 5e6;

/// Prints them. "In flight" is the way a single-threaded scheduler uses the log: one thread hands over all
/// that it has. What blocking threads reach with the log is told beside it, without an aim.
pub fn print(durable: &[durable::Row], device: &[device::Row], scan: &Scan) {
    let mut lines = Vec::new();
    for bytes in plan::RECORD_BYTES {
        for in_flight in plan::IN_FLIGHT {
            let find = |way| {
                let same = |row: &&durable::Row| {
                    (row.way, row.record_bytes, row.in_flight) == (way, bytes, in_flight)
                };
                durable.iter().find(same).expect("all were measured")
            };
            let (threads, batches) = (find(Way::Threads), find(Way::Batches));
            let ours = |row: &durable::Row| row.rate(WRITER).expect("ours was measured");
            let shares =
                [threads, batches].map(|row| row.share(WRITER).expect("both were measured"));
            if in_flight == 1 {
                lines.push(at_least(
                    &format!("{bytes} B, a lone writer / bare"),
                    LONE_SHARE,
                    shares[0],
                ));
                continue;
            }
            lines.push(at_least(
                &format!("{bytes} B, {in_flight} in flight / bare"),
                SHARE,
                shares[1],
            ));
            // Both rates as shares of the limit in their own rows, which were measured one after the other.
            let peer = threads.best_peer() / threads.rate(BARE).expect("the limit was measured");
            lines.push(at_least(
                &format!("{bytes} B, {in_flight} in flight / best peer with {in_flight} threads"),
                TIMES_PEER,
                shares[1] / peer,
            ));
            lines.push(told(
                &format!("{bytes} B, {in_flight} blocking threads / bare"),
                &format!("{:.3}", shares[0]),
            ));
            lines.push(told(
                &format!("{bytes} B, {in_flight} blocking threads / best peer with as many"),
                &format!("{:.2}", ours(threads) / threads.best_peer()),
            ));
        }
    }
    for row in device.iter().filter(|row| row.name == WRITER.name()) {
        let (bytes, way) = (row.record_bytes, row.way);
        lines.push(at_most(
            &format!("{bytes} B, {way}, bytes written by the process / payload"),
            DEVICE,
            row.process,
        ));
        lines.extend(row.device.map(|times| {
            at_most(
                &format!("{bytes} B, {way}, bytes written by the device / payload"),
                DEVICE,
                times,
            )
        }));
    }
    let aim = SCAN.min(scan.page_cache);
    lines.push(vec![
        "records/s of a recovery".to_owned(),
        format!("≥ {}", whole(aim)),
        whole(scan.ours),
        yes_or_no(scan.ours >= aim),
    ]);
    let head = ["goal", "aim", "found", "met"].map(str::to_owned);
    table::print("Goals", &head, &lines);
}

fn at_least(what: &str, aim: f64, found: f64) -> Vec<String> {
    vec![
        what.to_owned(),
        format!("≥ {aim}"),
        format!("{found:.3}"),
        yes_or_no(found >= aim),
    ]
}

fn at_most(what: &str, aim: f64, found: f64) -> Vec<String> {
    vec![
        what.to_owned(),
        format!("≤ {aim}"),
        format!("{found:.2}"),
        yes_or_no(found <= aim),
    ]
}

fn told(what: &str, found: &str) -> Vec<String> {
    [what, NONE, found, NONE].map(str::to_owned).to_vec()
}

fn yes_or_no(met: bool) -> String {
    if met { "yes" } else { "no" }.to_owned()
}

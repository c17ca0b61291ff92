//! Reading everything again: opening a closed store and looking at every record.
//!
//! All files are in the page cache. Beside our recovery stands the plain reading of the same bytes
//! from there: no recovery can be faster.

use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::candidates::{Candidate, LOG, PEERS};
use crate::files::{data_ranges, for_each_file};
use crate::measure::median;
use crate::plan::{self, Plan};
use crate::table::{self, whole};

const RECORD_BYTES: usize = 256;
/// What the log's own recovery reads at once.
const READ_BYTES: usize = 256 << 10;

/// Records a second.
#[derive(Debug)]
pub struct Scan {
    pub ours: f64,
    pub page_cache: f64,
}

/// Measures and prints it.
pub fn measure(plan: &Plan) -> Scan {
    let dir = plan.dir();
    let record = plan::record(RECORD_BYTES);
    let mut stores = Vec::new();
    let filled = |name: &str, candidate: &'static dyn Candidate, batch, title: String| {
        let dir = dir.path().join(name);
        std::fs::create_dir(&dir).expect("a new directory");
        candidate.load(&dir, &record, plan.scan_records, batch);
        let rates = Vec::new();
        Store {
            title,
            dir,
            candidate,
            rates,
        }
    };
    for batch in [64, 1] {
        let name = format!("ours-{batch}");
        let title = format!("ours, frames of {batch}");
        stores.push(filled(&name, LOG, batch, title));
    }
    for peer in PEERS {
        stores.push(filled(peer.name(), peer, 64, peer.name().to_owned()));
    }

    dir.settle();
    let mut page_cache = Vec::new();
    for _ in 0..plan.rounds {
        page_cache.push(read_rate(plan, &stores[0].dir));
        for store in &mut stores {
            let started = Instant::now();
            let count = store.candidate.scan(&store.dir).expect("all can be read");
            let elapsed = started.elapsed().as_secs_f64();
            assert_eq!(count, plan.scan_records as u64, "{}", store.title);
            store.rates.push(count as f64 / elapsed);
        }
    }

    let page_cache = median(&mut page_cache);
    let mut head = vec!["page cache, plain reads".to_owned()];
    let mut line = vec![whole(page_cache)];
    let mut ours = 0.0;
    for (index, store) in stores.iter_mut().enumerate() {
        let rate = median(&mut store.rates);
        if index == 0 {
            ours = rate;
        }
        head.push(store.title.clone());
        line.push(whole(rate));
    }
    let title = format!(
        "Records/s when {} records of {RECORD_BYTES} bytes are opened and read",
        whole(plan.scan_records as f64)
    );
    table::print(&title, &head, &[line]);
    Scan { ours, page_cache }
}

struct Store {
    title: String,
    dir: PathBuf,
    candidate: &'static dyn Candidate,
    rates: Vec<f64>,
}

/// How many records a second plain reads of a store's files would be.
fn read_rate(plan: &Plan, dir: &Path) -> f64 {
    let mut ranges = Vec::new();
    for_each_file(dir, &mut |file| {
        let found = data_ranges(&file);
        ranges.push((file, found));
    });
    let mut buffer = vec![0; READ_BYTES];
    let started = Instant::now();
    for (file, ranges) in &ranges {
        for range in ranges {
            let mut at = range.start;
            while at < range.end {
                let count = READ_BYTES.min((range.end - at) as usize);
                file.read_exact_at(&mut buffer[..count], at)
                    .expect("a read");
                black_box(&buffer);
                at += count as u64;
            }
        }
    }
    plan.scan_records as f64 / started.elapsed().as_secs_f64()
}

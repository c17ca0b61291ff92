//! The open log: what an append promises, when it refuses, how it fails, and what it gives back.

mod common;

use std::convert::Infallible;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use common::{DIR, append, batch, open, options, segment, segments, try_open, with_sync};
use wal::sim::{MemStorage, Op};
use wal::{
    AppendError, Batch, Log, LogId, Lsn, OpenError, Options, OsStorage, SYNC_BUCKET_BOUNDS,
    Storage, SyncPolicy,
};

#[test]
fn appended_records_come_back_in_order_across_segments() {
    let disk = MemStorage::new(1);
    let mut log = open(&disk).log;
    let mut written = Vec::new();
    for n in 0..200u32 {
        let records: Vec<Vec<u8>> = (0..n % 4)
            .map(|i| vec![n as u8; (n * i) as usize])
            .collect();
        let first = append(&mut log, &records);
        assert_eq!(first, Lsn(written.len() as u64 + 1));
        written.extend(records);
    }
    let stats = log.stats();
    assert_eq!(stats.records, written.len() as u64);
    assert_eq!(
        (stats.frames, stats.syncs),
        (150, 150),
        "a batch without records is no frame"
    );
    assert_eq!(stats.segments, segments(&disk).len() as u64);
    assert!(stats.segments > 3);
    log.close().expect("a clean close");
    disk.crash();
    assert_eq!(open(&disk).records, written);
}

#[test]
fn several_batches_are_one_frame() {
    let disk = MemStorage::new(1);
    let mut log = open(&disk).log;
    let batches = [batch(&["a", "b"]), Batch::new(), batch(&["c"])];
    let range = log
        .append(&[&batches[0], &batches[1], &batches[2]])
        .expect("an append");
    assert_eq!(range, Lsn(1)..Lsn(4));
    assert_eq!(log.stats().frames, 1);
    drop(log);
    assert_eq!(open(&disk).records, [b"a", b"b", b"c"]);
}

#[test]
fn a_new_log_says_so_and_keeps_its_id() {
    let disk = MemStorage::new(1);
    let id = LogId([7; 16]);
    let first = try_open(
        &disk,
        Options {
            log_id: Some(id),
            ..options()
        },
    )
    .expect("a new log");
    assert!(first.recovered.created);
    assert_eq!(first.log.log_id(), id);
    drop(first);
    let again = open(&disk);
    assert!(!again.recovered.created);
    assert_eq!(again.log.log_id(), id);
    let other = open(&MemStorage::new(2));
    assert_ne!(other.log.log_id(), open(&MemStorage::new(3)).log.log_id());
}

#[test]
fn the_visitor_can_refuse_a_record() {
    let disk = MemStorage::new(1);
    append(&mut open(&disk).log, &["good", "bad"]);
    let opened = Log::open(options(), Arc::new(disk), |_, record: &[u8]| {
        if record == b"bad" {
            Err("not this one")
        } else {
            Ok(())
        }
    });
    let error = opened.map(|_| ()).expect_err("the visitor's error");
    assert_eq!(error.to_string(), "record 2 was refused: not this one");
}

#[test]
fn options_out_of_range_are_refused() {
    let bad = [
        Options {
            segment_bytes: 5000,
            ..options()
        },
        Options {
            segment_bytes: 0,
            ..options()
        },
        Options {
            segment_bytes: 8 << 30,
            ..options()
        },
        Options {
            max_frame_bytes: 47,
            ..options()
        },
        with_sync(SyncPolicy::Interval(Duration::ZERO)),
    ];
    for options in bad {
        let disk = MemStorage::new(1);
        let refused = try_open(&disk, options.clone()).map(|_| ());
        assert!(
            matches!(refused, Err(OpenError::Invalid { .. })),
            "{options:?}"
        );
        assert!(disk.files().is_empty());
    }
}

#[test]
fn one_log_has_one_writer() {
    let disk = MemStorage::new(1);
    let first = open(&disk);
    let refused = try_open(&disk, options())
        .map(|_| ())
        .expect_err("it is locked");
    let pid = std::process::id();
    assert_eq!(
        refused.to_string(),
        format!("the log in {DIR} is in use by process {pid}")
    );
    drop(first);
    open(&disk);
}

#[test]
fn a_batch_that_is_too_large_is_refused_and_the_largest_is_not() {
    let disk = MemStorage::new(1);
    let mut log = open(&disk).log;
    let limit = log.payload_limit();
    let largest = batch(&[vec![1; limit - 2]]);
    assert_eq!(largest.encoded_bytes(), limit);
    let too_large = batch(&[vec![1; limit - 1]]);
    let refused = log.append(&[&too_large]);
    assert!(
        matches!(refused, Err(AppendError::TooLarge { bytes, limit: at }) if bytes == limit + 1 && at == limit)
    );
    for _ in 0..5 {
        log.append(&[&largest])
            .expect("the largest batch there may be");
    }
    drop(log);
    assert_eq!(open(&disk).records.len(), 5);
}

#[test]
fn a_frame_as_large_as_a_segment_fits() {
    let disk = MemStorage::new(1);
    let whole = Options {
        max_frame_bytes: 1 << 20,
        ..options()
    };
    let mut log = try_open(&disk, whole.clone()).expect("a new log").log;
    let record = vec![9; log.payload_limit() - 2];
    for _ in 0..3 {
        append(&mut log, &[&record]);
    }
    assert_eq!(log.stats().segments, 3);
    drop(log);
    assert_eq!(
        try_open(&disk, whole).expect("a sound log").records,
        vec![record; 3]
    );
}

#[test]
fn the_segment_size_may_change_between_lives() {
    let disk = MemStorage::new(1);
    append(&mut open(&disk).log, &["small"]);
    let larger = Options {
        segment_bytes: 64 << 10,
        ..options()
    };
    let mut log = try_open(&disk, larger).expect("a sound log").log;
    for _ in 0..20 {
        append(&mut log, &[vec![1; 3000]]);
    }
    drop(log);
    assert_eq!(
        disk.read_file(&segments(&disk)[1]).map(|bytes| bytes.len()),
        Some(64 << 10)
    );
    assert_eq!(open(&disk).records.len(), 21);
}

#[test]
fn always_means_before_the_append_returns() {
    let disk = MemStorage::new(1);
    let mut log = open(&disk).log;
    append(&mut log, &["one"]);
    assert_eq!(log.synced_lsn(), Lsn(1));
    disk.crash_with(|_| 0);
    assert_eq!(open(&disk).records.len(), 1);
}

#[test]
fn an_interval_syncs_when_it_is_over() {
    let disk = MemStorage::new(1);
    let interval = with_sync(SyncPolicy::Interval(Duration::from_millis(10)));
    let mut log = try_open(&disk, interval).expect("a new log").log;
    assert_eq!(log.sync_due_in(), None);
    append(&mut log, &["one"]);
    disk.advance(Duration::from_millis(4));
    append(&mut log, &["two"]);
    assert_eq!(log.synced_lsn(), Lsn(0));
    assert_eq!(log.sync_due_in(), Some(Duration::from_millis(6)));
    disk.advance(Duration::from_millis(6));
    assert_eq!(log.sync_due_in(), Some(Duration::ZERO));
    append(&mut log, &["three"]);
    assert_eq!((log.synced_lsn(), log.stats().syncs), (Lsn(3), 1));
    disk.crash_with(|_| 0);
    assert_eq!(open(&disk).records.len(), 3);
}

#[test]
fn never_still_syncs_full_segments() {
    let disk = MemStorage::new(1);
    let mut log = try_open(&disk, with_sync(SyncPolicy::Never))
        .expect("a new log")
        .log;
    while segments(&disk).len() < 3 {
        append(&mut log, &[vec![1; 1500]]);
    }
    let sealed = log.synced_lsn();
    assert_eq!(sealed.next().next(), log.next_lsn());
    disk.crash_with(|_| 0);
    assert_eq!(open(&disk).recovered.last_lsn, sealed);
}

#[test]
fn syncs_are_timed() {
    let disk = MemStorage::new(1);
    let mut log = open(&disk).log;
    disk.set_sync_latency(Duration::from_millis(3));
    append(&mut log, &["a"]);
    append(&mut log, &["b"]);
    let stats = log.stats();
    assert_eq!(stats.sync_total, Duration::from_millis(6));
    assert_eq!(stats.sync_last, Duration::from_millis(3));
    assert_eq!(stats.sync_buckets[6], 2, "between 2.5 and 5 ms");
}

/// However long: a disk that hangs for an hour is no reason to panic.
#[test]
fn every_sync_is_in_the_bucket_of_its_length() {
    let disk = MemStorage::new(1);
    let mut log = open(&disk).log;
    let tick = Duration::from_nanos(1);
    for (nth, bound) in SYNC_BUCKET_BOUNDS.into_iter().enumerate() {
        for (latency, bucket) in [(bound, nth), (bound + tick, nth + 1)] {
            disk.set_sync_latency(latency);
            let before = log.stats().sync_buckets;
            append(&mut log, &["a"]);
            let mut expected = before;
            expected[bucket] += 1;
            assert_eq!(log.stats().sync_buckets, expected, "{latency:?}");
        }
    }
    disk.set_sync_latency(Duration::from_secs(3600));
    append(&mut log, &["a"]);
    let stats = log.stats();
    assert_eq!(stats.sync_buckets.last(), Some(&2));
    assert_eq!(stats.sync_buckets.iter().sum::<u64>(), stats.syncs);
}

/// Whoever plans room by the figures has them right at any time: after each append, release and restart.
#[test]
fn the_figures_are_those_of_the_disk() {
    let disk = MemStorage::new(1);
    for life in 0..4u8 {
        let mut log = open(&disk).log;
        let (mut records, mut payload) = (0, 0);
        for n in 0..30u8 {
            let some = batch(&vec![vec![n; 400]; 1 + usize::from(n % 3)]);
            log.append(&[&some]).expect("an append");
            records += some.len() as u64;
            payload += some.encoded_bytes() as u64;
            if n % 11 == life {
                log.release(log.next_lsn(), Duration::ZERO)
                    .expect("a release");
            }
            if n % 4 == 0 {
                log.reserve().expect("a spare");
            }
            let stats = log.stats();
            let paths = segments(&disk);
            let sizes = paths.iter().filter_map(|path| disk.read_file(path));
            let segment_bytes: usize = sizes.map(|bytes| bytes.len()).sum();
            assert_eq!(stats.segments, paths.len() as u64);
            assert_eq!(stats.segment_bytes, segment_bytes as u64);
            let spare_bytes = disk.used_bytes() - stats.segment_bytes;
            assert_eq!(stats.spare_bytes, spare_bytes, "life {life}, append {n}");
            assert_eq!(
                (stats.frames, stats.records, stats.payload_bytes),
                (u64::from(n) + 1, records, payload)
            );
        }
    }
}

/// Fail-stop: whatever fails, nothing is acknowledged after it, also if the disk is well again.
#[test]
fn after_a_failure_nothing_is_accepted() {
    for op in [Op::Write, Op::Sync] {
        let disk = MemStorage::new(5);
        let mut log = open(&disk).log;
        append(&mut log, &["one"]);
        disk.fail(op, 1, ErrorKind::Other);
        let error = log.append(&[&batch(&["two"])]).expect_err("the disk fails");
        assert!(matches!(error, AppendError::Failed(_)));
        assert!(log.failure().is_some());
        for _ in 0..3 {
            assert!(matches!(
                log.append(&[&batch(&["three"])]),
                Err(AppendError::Failed(_))
            ));
            assert!(
                matches!(log.sync(), Err(AppendError::Failed(_))),
                "no sync is tried again"
            );
            assert!(matches!(log.reserve(), Err(AppendError::Failed(_))));
            assert!(matches!(
                log.release(Lsn(9), Duration::ZERO),
                Err(AppendError::Failed(_))
            ));
        }
        assert!(log.close().is_err());
        disk.crash();
        let records = open(&disk).records;
        assert!(records == [b"one".to_vec()] || records == [b"one".to_vec(), b"two".to_vec()]);
    }
}

/// A failure at any step of going on to the next segment, too.
#[test]
fn failures_between_segments_stop_the_log_and_lose_nothing() {
    for op in [
        Op::Open,
        Op::Write,
        Op::Allocate,
        Op::Sync,
        Op::SyncDir,
        Op::Rename,
    ] {
        for nth in 1..4 {
            let disk = MemStorage::new(nth);
            let mut log = open(&disk).log;
            let mut acknowledged = 0;
            while segments(&disk).len() < 2 {
                append(&mut log, &[vec![1; 1500]]);
                acknowledged += 1;
            }
            disk.fail(op, nth, ErrorKind::Other);
            while acknowledged < 40 && log.append(&[&batch(&[vec![2; 1500]])]).is_ok() {
                acknowledged += 1;
            }
            drop(log);
            disk.crash();
            let found = open(&disk).records.len();
            assert!(
                (acknowledged..=acknowledged + 1).contains(&found),
                "{op:?} {nth}"
            );
        }
    }
}

/// A full disk is noticed a whole segment early, refuses cleanly, and takes the same batch later.
#[test]
fn a_full_disk_is_clean() {
    let disk = MemStorage::new(1);
    let mut log = open(&disk).log;
    disk.set_capacity(disk.used_bytes() + 100);
    let mut count = 0;
    let record = vec![1; 1500];
    while segments(&disk).len() < 2 {
        assert!(!log.space_low());
        append(&mut log, &[&record]);
        count += 1;
    }
    // The spare is in use now, and there will be no other.
    assert!(!log.reserve().expect("no failure"));
    assert!(log.space_low());
    loop {
        match log.append(&[&batch(&[&record])]) {
            Ok(_) => count += 1,
            Err(AppendError::NoSpace(_)) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(count, 10, "two whole segments");
    let frames = log.stats().frames;
    assert!(matches!(
        log.append(&[&batch(&[&record])]),
        Err(AppendError::NoSpace(_))
    ));
    assert_eq!(log.stats().frames, frames);
    assert_eq!(log.failure().map(ToString::to_string), None);

    // A power failure finds everything in order, and a log without space opens all the same.
    let fork = disk.fork();
    fork.crash();
    assert_eq!(open(&fork).records.len(), count);

    disk.set_capacity(u64::MAX);
    append(&mut log, &[&record]);
    assert!(!log.space_low() || log.wants_reserve());
    assert!(log.reserve().expect("no failure"));
    assert!(!log.space_low());
    disk.crash();
    assert_eq!(open(&disk).records.len(), count + 1);
}

#[test]
fn a_new_log_on_a_full_disk_is_refused_as_such() {
    let disk = MemStorage::new(1);
    disk.set_capacity(5000);
    assert!(matches!(
        try_open(&disk, options()).map(|_| ()),
        Err(OpenError::NoSpace(_))
    ));
    disk.set_capacity(u64::MAX);
    assert!(open(&disk).recovered.created);
}

#[test]
fn released_segments_are_those_nobody_needs() {
    let disk = MemStorage::new(1);
    let mut log = open(&disk).log;
    while segments(&disk).len() < 5 {
        append(&mut log, &[vec![1; 1500]]);
        disk.advance(Duration::from_secs(1));
    }
    // Five records of a second each in a segment.
    assert_eq!(segments(&disk)[1], segment(6));
    assert_eq!(log.release(Lsn(5), Duration::ZERO).expect("a release"), []);
    let released = log.release(Lsn(11), Duration::ZERO).expect("a release");
    assert_eq!(
        released
            .iter()
            .map(|gone| (gone.first_lsn.0, gone.last_lsn.0))
            .collect::<Vec<_>>(),
        [(1, 5), (6, 10)]
    );
    assert_eq!(log.first_lsn(), Lsn(11));
    // The segment from 11 on has been full for 6 s now, the one from 16 on for 1 s.
    let far = Lsn(1_000);
    assert_eq!(
        log.release(far, Duration::from_secs(7)).expect("a release"),
        []
    );
    assert_eq!(
        log.release(far, Duration::from_secs(6))
            .expect("a release")
            .len(),
        1
    );
    assert_eq!(
        log.release(far, Duration::ZERO).expect("a release").len(),
        1
    );
    assert_eq!(segments(&disk), [segment(21)], "the active one stays");
    append(&mut log, &["more"]);
    disk.crash();
    let opened = open(&disk);
    assert_eq!(opened.recovered.first_lsn, Lsn(21));
    assert_eq!(opened.records.len(), 2);
}

/// One of the released segments is kept for later beside the one that is reserved; the others make room. Across a restart too.
#[test]
fn a_released_segment_is_the_room_of_a_later_one() {
    let disk = MemStorage::new(1);
    let mut log = open(&disk).log;
    let segment_bytes = options().segment_bytes;
    while segments(&disk).len() < 4 {
        append(&mut log, &[vec![1; 1500]]);
    }
    log.reserve().expect("a spare");
    assert_eq!(log.stats().spare_bytes, segment_bytes);
    let released = log.release(log.next_lsn(), Duration::ZERO);
    assert_eq!(released.expect("a release").len(), 3);
    assert_eq!(log.stats().spare_bytes, 2 * segment_bytes);
    // The active one, two spares, the lock.
    assert_eq!(disk.used_bytes(), 3 * segment_bytes);

    drop(log);
    disk.crash();
    let mut log = open(&disk).log;
    assert_eq!(log.stats().spare_bytes, 2 * segment_bytes);
    let full = disk.used_bytes();
    let fork = disk.fork();
    let mut other = open(&fork).log;
    assert!(other.discard_kept().expect("no failure"), "one is kept");
    assert_eq!(fork.used_bytes(), full - segment_bytes);
    disk.set_capacity(full);
    while log.stats().reused_segments < 1 {
        append(&mut log, &[vec![2; 1500]]);
        log.reserve().expect("a spare");
    }
    // That took both, for want of others, and there is no third.
    assert_eq!(disk.used_bytes(), full);
    assert!(log.space_low());
    assert!(!log.discard_kept().expect("no failure"), "nothing is kept");
    log.release(log.next_lsn(), Duration::ZERO)
        .expect("a release");
    assert!(
        log.reserve().expect("no failure"),
        "what was released is reserved"
    );
    assert_eq!(log.stats().spare_bytes, segment_bytes);
    append(&mut log, &["and on"]);
    disk.set_capacity(u64::MAX);
    drop(log);
    disk.crash();
    assert_eq!(
        open(&disk).records.last().map(Vec::as_slice),
        Some(&b"and on"[..])
    );
}

/// What an earlier log has left behind may be of any life, and of another size.
#[test]
fn spares_of_another_log_are_used_or_removed() {
    for segment_bytes in [8192, 16384] {
        let disk = MemStorage::new(1);
        let mut log = open(&disk).log;
        while log.stats().reused_segments < 2 {
            append(&mut log, &[vec![1; 1500]]);
            log.release(log.next_lsn(), Duration::ZERO)
                .expect("a release");
            log.reserve().expect("a spare");
        }
        drop(log);
        let storage: &dyn Storage = &disk;
        for path in segments(&disk) {
            storage.remove(&path).expect("a file that is there");
        }
        let other = Options {
            segment_bytes,
            ..options()
        };
        let mut log = try_open(&disk, other.clone()).expect("a new log").log;
        for n in 0..20u8 {
            append(&mut log, &[vec![n; 900]]);
        }
        drop(log);
        disk.crash();
        let records = try_open(&disk, other).expect("a sound log").records;
        assert_eq!(records, (0..20u8).map(|n| vec![n; 900]).collect::<Vec<_>>());
        let files = disk.files();
        for path in files.iter().filter(|path| path.starts_with(DIR)) {
            let bytes = disk.read_file(path).expect("a listed file");
            assert!(
                bytes.is_empty() || bytes.len() as u64 == segment_bytes,
                "{}",
                path.display()
            );
        }
    }
}

/// The same on the machine's own file system.
#[test]
fn a_log_on_real_files() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("deep").join("log");
    let options = Options {
        dir: path.clone(),
        ..options()
    };
    let storage: Arc<dyn Storage> = Arc::new(OsStorage::new());
    let (mut log, recovered) =
        Log::open(options.clone(), storage.clone(), wal::ignore).expect("a new log");
    assert!(recovered.created);
    for n in 0..50u8 {
        append(&mut log, &[vec![n; 500]]);
    }
    assert!(log.stats().segments > 2);

    let refused = Log::open(options.clone(), storage.clone(), wal::ignore).map(|_| ());
    let pid = std::process::id();
    assert!(matches!(refused, Err(OpenError::Locked { pid: Some(found), .. }) if found == pid));
    let released = log.release(Lsn(20), Duration::ZERO).expect("a release");
    assert!(released.iter().all(|gone| !gone.path.exists()));
    log.close().expect("a clean close");

    // A torn tail: a frame's beginning, and the file cut short.
    let last = std::fs::read_dir(&path)
        .expect("the directory")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|suffix| suffix == "wal"))
        .max()
        .expect("a segment");
    let bytes = std::fs::read(&last).expect("the segment");
    let used = (0..bytes.len())
        .rfind(|at| bytes[*at] != 0 && at % 512 < 508)
        .expect("the header at least");
    std::fs::write(&last, &bytes[..used]).expect("a write");
    let mut count = 0;
    let (mut log, recovered) = Log::open(options.clone(), storage.clone(), |lsn, record: &[u8]| {
        assert_eq!(record, vec![lsn.0 as u8 - 1; 500]);
        count += 1;
        Ok::<(), Infallible>(())
    })
    .expect("a torn log is a sound log");
    assert_eq!(recovered.last_lsn, Lsn(49));
    assert_eq!(recovered.torn.expect("a torn frame").file, last);
    assert_eq!(std::fs::metadata(&last).expect("the segment").len(), 8192);
    append(&mut log, &["again"]);
    log.close().expect("a clean close");
    let (_, recovered) = Log::open(options, storage, wal::ignore).expect("a sound log");
    assert_eq!((recovered.last_lsn, recovered.torn), (Lsn(50), None));
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&last).expect("the segment").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
}

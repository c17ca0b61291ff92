//! Promise 5: torn is not corrupt. What was acknowledged comes back, exactly, whatever a crash left of
//! the frame after it; and acknowledged bytes that have changed are reported, whichever they are.

mod common;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use common::{
    DIR, Records, append, batch, count_from_env, damage, fresh_or_reused, open, options, segment,
    segments, try_open, used_bytes, with_sync,
};
use proptest::prelude::*;
use wal::sim::{MemStorage, Op};
use wal::{DamageKind, Lsn, OpenError, Options, ReadError, SyncPolicy, verify};

/// Where each frame lies in the only segment and which records are in it.
#[derive(Debug)]
struct Written {
    disk: MemStorage,
    path: PathBuf,
    /// The first record's.
    first_lsn: Lsn,
    frames: Vec<(Range<u64>, Records)>,
    /// What the segment held before the frames, but for the first of them in a segment that is used again.
    before: Vec<u8>,
}

impl Written {
    /// A log on a disk of its own, one frame for each of `frames`, in no segment but the last.
    fn new(options: Options, frames: &[Records], is_reused: bool) -> Self {
        let disk = MemStorage::new(7);
        let (mut log, first) = fresh_or_reused(&disk, options, is_reused);
        let path = segments(&disk).pop().expect("a segment");
        let before = disk.read_file(&path).expect("the segment");
        let first_lsn = log.first_lsn();
        let mut written = Vec::new();
        let mut start = used_bytes(&disk, &path);
        if is_reused {
            written.push((64..start, first));
        }
        for frame in frames {
            append(&mut log, frame);
            let end = used_bytes(&disk, &path);
            written.push((start..end, frame.clone()));
            start = end;
        }
        drop(log);
        assert_eq!(segments(&disk).len(), 1, "the test needs one segment");
        Written {
            disk,
            path,
            first_lsn,
            frames: written,
            before,
        }
    }

    fn end(&self) -> u64 {
        self.frames.last().map_or(64, |(range, _)| range.end)
    }

    /// The records of the frames that end at or before an offset.
    fn records_before(&self, offset: u64) -> Records {
        let before = self.frames.iter().filter(|(range, _)| range.end <= offset);
        before.flat_map(|(_, records)| records.clone()).collect()
    }
}

/// Records of all the kinds that are hard on a log: empty ones, text, noise, long runs of zeros or of
/// another byte, and runs of zeros with a single bit in them.
fn record() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        2 => proptest::collection::vec(any::<u8>(), 0..40),
        1 => proptest::collection::vec(any::<u8>(), 100..700),
        1 => (any::<bool>(), 0..1500usize).prop_map(|(a5, size)| vec![if a5 { 0xa5 } else { 0 }; size]),
        1 => (0..1500usize, 0..8u8).prop_map(|(at, bit)| {
            let mut record = vec![0; 1500];
            record[at] = 1 << bit;
            record
        }),
    ]
}

fn frames() -> impl Strategy<Value = Vec<Records>> {
    proptest::collection::vec(proptest::collection::vec(record(), 1..3), 1..3)
}

fn few_cases() -> ProptestConfig {
    ProptestConfig {
        cases: count_from_env("WAL_PROPTEST_CASES", 12) as u32,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(few_cases())]

    /// Cut off, or zero from there on, at every byte: the frames before the cut come back, no more and
    /// no less, and the log goes on from there.
    #[test]
    fn a_cut_at_any_byte_leaves_the_frames_before_it(frames in frames(), is_reused in any::<bool>()) {
        let written = Written::new(big(), &frames, is_reused);
        let path = &written.path;
        let whole = written.disk.read_file(path).expect("the segment");
        for offset in 64..=written.end() {
            for how in [Cut::Off, Cut::Zeroed, Cut::Unwritten] {
                let disk = written.disk.fork();
                match how {
                    Cut::Off => disk.truncate(path, offset),
                    Cut::Zeroed => disk.zero_from(path, offset),
                    // What was written before the frames is in the sector of a frame that must stay.
                    Cut::Unwritten if offset % 512 > 0 || offset < written.frames[0].0.end && is_reused => continue,
                    Cut::Unwritten => {
                        let (kept, at) = (&whole[..offset as usize], offset as usize);
                        disk.write_file(path, &[kept, &written.before[at..]].concat());
                    }
                }
                let expected = written.records_before(offset);
                let opened = try_open(&disk, big()).expect("a torn log is a sound log");
                prop_assert_eq!(&opened.records, &expected, "cut at {}", offset);
                let cut = written.frames.iter().find(|(range, _)| range.contains(&offset));
                if let Some((range, _)) = cut.filter(|(range, _)| range.start < offset) {
                    // A cut may leave nothing but zeros, and then nothing is torn.
                    if let Some(torn) = &opened.recovered.torn {
                        prop_assert_eq!(torn.offset, range.start);
                        prop_assert_eq!(torn.lsn, opened.log.next_lsn());
                    }
                } else {
                    prop_assert_eq!(&opened.recovered.torn, &None);
                }
            }
        }
    }

    /// Any one bit of all that was acknowledged, segment headers included.
    #[test]
    fn a_flipped_bit_is_reported_where_it_is(frames in frames(), is_reused in any::<bool>()) {
        let written = Written::new(big(), &frames, is_reused);
        let path = written.path.clone();
        // All bits of small logs, every 13th of larger ones, in another place each time.
        let step = if written.end() < 600 { 1 } else { 13 };
        for bit in (written.end() % step..written.end() * 8).step_by(step as usize) {
            let disk = written.disk.fork();
            disk.flip_bit(&path, bit);
            let (damage, seen) = damage(&disk, big());
            prop_assert_eq!(&damage.file, &path);
            let offset = bit / 8;
            let start = written
                .frames
                .iter()
                .find(|(range, _)| range.contains(&offset))
                .map_or(0, |(range, _)| range.start);
            prop_assert_eq!(damage.offset, start, "bit {}: {}", bit, damage);
            prop_assert_eq!(&seen, &written.records_before(start));
            prop_assert_eq!(damage.lsn, Lsn(written.first_lsn.0 + seen.len() as u64));
        }
    }
}

/// How what is behind some byte got lost.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// The file ends there.
    Off,
    /// All is zeros from there on.
    Zeroed,
    /// From there on the disk has what was there before.
    Unwritten,
}

/// Room for a frame of a segment used again, and for all of [`frames`].
fn big() -> Options {
    Options {
        segment_bytes: 16 << 10,
        max_frame_bytes: 8000,
        ..options()
    }
}

/// Every bit, no sampling: several segments, short frames and one with a mask.
#[test]
fn every_flipped_bit_of_a_log_with_segments_is_reported() {
    let disk = MemStorage::new(3);
    let small = Options {
        segment_bytes: 4096,
        ..options()
    };
    let mut log = try_open(&disk, small.clone()).expect("a new log").log;
    append(&mut log, &[b"first".to_vec(), vec![0; 1200]]);
    append(&mut log, &[vec![0x5a; 2700]]);
    append(&mut log, &[b"in the second segment"]);
    append(&mut log, &["", "last"]);
    drop(log);
    assert_eq!(segments(&disk), [segment(1), segment(4)]);

    for path in segments(&disk) {
        for bit in 0..used_bytes(&disk, &path) * 8 {
            let disk = disk.fork();
            disk.flip_bit(&path, bit);
            let (damage, seen) = damage(&disk, small.clone());
            assert_eq!(damage.file, path, "bit {bit}");
            assert!(damage.offset <= bit / 8, "bit {bit}: {damage}");
            assert_eq!(damage.lsn, Lsn(seen.len() as u64 + 1), "bit {bit}");
            // Readers see the same, and nothing was changed by looking.
            let verified = verify(DIR, Arc::new(disk));
            assert!(matches!(verified, Err(ReadError::Damaged(found)) if found == damage));
        }
    }
}

/// Wherever a sector boundary cuts a frame's header, and although a part of it may well be zeros.
#[test]
fn every_flipped_bit_of_a_header_is_reported_wherever_it_lies() {
    for before in (0..512).step_by(8) {
        let disk = MemStorage::new(1);
        let mut log = open(&disk).log;
        append(&mut log, &[vec![b'a'; before]]);
        let start = 64 + log.stats().frame_bytes;
        append(&mut log, &["a record"]);
        drop(log);
        for bit in 0..40 * 8 {
            let disk = disk.fork();
            disk.flip_bit(segment(1), start * 8 + bit);
            let (damage, _) = damage(&disk, options());
            assert_eq!(
                (damage.offset, damage.lsn),
                (start, Lsn(2)),
                "{before} bytes, bit {bit}"
            );
        }
    }
}

/// Any subset of the sectors of a frame that was being written: the frame is there or it is not, and
/// what came before it is. The other sectors are as they were, whatever was there.
#[test]
fn any_subset_of_sectors_of_the_unsynced_frame() {
    let mut lone_bit = vec![0; 2000];
    lone_bit[1234] = 0x10;
    let noise: Vec<u8> = (0..2000u32).map(|i| ((i * i) >> 3) as u8).collect();
    let contents = [vec![0; 2000], vec![0xff; 2000], lone_bit, noise];
    for is_reused in [false, true] {
        let base = MemStorage::new(1);
        let kept = fresh_or_reused(&base, big(), is_reused).1;
        // Where the frame begins in its sector, so that the header is cut at each place there is.
        for before in (0..512).step_by(if is_reused { 24 } else { 8 }) {
            for content in &contents {
                let disk = base.fork();
                let mut log = try_open(&disk, big()).expect("a sound log").log;
                let acknowledged = vec![b'a'; before];
                append(&mut log, &[&acknowledged]);
                // The write goes through and the sync does not.
                disk.power_off_after(1);
                log.append(&[&batch(&[content])])
                    .expect_err("the power is off");
                drop(log);

                let mut survivals = 0;
                for subset in 0u32.. {
                    let fork = disk.fork();
                    let mut choices = 0;
                    fork.crash_with(|count| {
                        assert_eq!(count, 2, "each sector was written once");
                        choices += 1;
                        (subset >> (choices - 1) & 1) as usize
                    });
                    let opened = try_open(&fork, big()).expect("a torn log is a sound log");
                    let records = &opened.records[kept.len()..];
                    let (first, rest) = records.split_first().expect("the first record");
                    assert_eq!(first, &acknowledged);
                    match rest {
                        [] => {}
                        [second] => {
                            survivals += 1;
                            assert_eq!(second, content);
                        }
                        _ => panic!("more records than were ever written"),
                    }
                    if subset + 1 == 1 << choices {
                        break;
                    }
                }
                assert_eq!(survivals, 1, "only with all its sectors is the frame there");
            }
        }
    }
}

/// And once such a frame was dropped, what is left of it is nothing to the next: neither is its own remains nor another's
/// taken for a part of it.
#[test]
fn torn_frames_one_after_the_other_in_used_room() {
    for seed in 0..400 {
        let disk = MemStorage::new(seed);
        let (log, _) = fresh_or_reused(&disk, big(), true);
        drop(log);
        for turn in 0..6u64 {
            let mut log = try_open(&disk, big())
                .expect("a torn log is a sound log")
                .log;
            if turn % 2 == 0 {
                append(
                    &mut log,
                    &[vec![turn as u8; (seed * 7 + turn * 100) as usize % 700]],
                );
            }
            let durable = log.synced_lsn();
            match (seed + turn) % 3 {
                0 => disk.fail(Op::Write, 1, std::io::ErrorKind::Other),
                1 => disk.fail(Op::Sync, 1, std::io::ErrorKind::Other),
                _ => disk.power_off_after(1),
            }
            let unlucky = vec![0xee; 300 + (seed * 31 + turn * 300) as usize % 2000];
            log.append(&[&batch(&[&unlucky])])
                .expect_err("the disk fails");
            drop(log);
            if disk.has_power() && (seed + turn) % 4 == 1 {
                disk.kill();
            } else {
                disk.crash();
            }
            let opened = try_open(&disk.fork(), big())
                .unwrap_or_else(|error| panic!("seed {seed}, turn {turn}: {error}"));
            assert!(opened.recovered.last_lsn >= durable);
        }
    }
}

/// Two frames that were both not synced, under a policy that does not: the second may be whole
/// without the first.
#[test]
fn a_frame_that_was_never_promised_may_vanish_before_a_whole_one() {
    let never = with_sync(SyncPolicy::Never);
    let disk = MemStorage::new(1);
    let mut log = try_open(&disk, never.clone()).expect("a new log").log;
    append(&mut log, &[vec![b'a'; 1000]]);
    log.sync().expect("a sync");
    append(&mut log, &[vec![b'b'; 1000]]);
    append(&mut log, &[vec![b'c'; 1000]]);
    drop(log);
    for subset in 0u32..1 << 6 {
        let fork = disk.fork();
        let mut choices = 0;
        fork.crash_with(|count| {
            choices += 1;
            // Any of its versions: where the two frames share a sector there are three.
            (subset as usize >> (choices - 1) & 1) * (count - 1)
        });
        assert_eq!(choices, 5, "the frames lie in five sectors");
        let records = try_open(&fork, never.clone())
            .expect("a torn log is a sound log")
            .records;
        let firsts: Vec<u8> = records.iter().map(|record| record[0]).collect();
        assert!(
            b"abc".starts_with(&firsts) && !firsts.is_empty(),
            "{firsts:?}"
        );
    }
}

/// The same hole is damage once a later frame says that what was there had been synced.
#[test]
fn a_durable_frame_that_vanished_is_damage() {
    let interval = with_sync(SyncPolicy::Never);
    for synced in [false, true] {
        let disk = MemStorage::new(1);
        let mut log = try_open(&disk, interval.clone()).expect("a new log").log;
        append(&mut log, &[vec![b'a'; 400]]);
        let hole = 64 + log.stats().frame_bytes;
        append(&mut log, &[vec![b'b'; 1000]]);
        if synced {
            log.sync().expect("a sync");
        }
        let evidence = 64 + log.stats().frame_bytes;
        append(&mut log, &[vec![b'c'; 400]]);
        drop(log);
        let mut bytes = disk.read_file(segment(1)).expect("the segment");
        bytes[hole as usize..evidence as usize].fill(0);
        disk.write_file(segment(1), &bytes);

        if synced {
            let (damage, seen) = damage(&disk, interval.clone());
            assert_eq!(seen.len(), 1);
            assert_eq!((damage.offset, damage.lsn), (hole, Lsn(2)));
            assert_eq!(damage.what, DamageKind::Vanished { evidence });
        } else {
            let opened = try_open(&disk, interval.clone()).expect("a torn log is a sound log");
            assert_eq!(opened.records.len(), 1);
            assert_eq!(opened.recovered.torn.map(|torn| torn.offset), Some(hole));
        }
    }
}

/// A record that looks like frames, because it is a copy of the log, is no evidence of anything.
#[test]
fn a_copy_of_the_log_inside_of_a_torn_record_is_no_evidence() {
    let disk = MemStorage::new(1);
    let mut log = open(&disk).log;
    append(&mut log, &[b"one"]);
    append(&mut log, &[b"two"]);
    let mut copy = disk.read_file(segment(1)).expect("the segment");
    copy.truncate(1600);
    append(&mut log, &[&copy]);
    let start = 64 + log.stats().frame_bytes;
    append(&mut log, &[&copy]);
    drop(log);
    // The last frame without its first sector.
    let mut bytes = disk.read_file(segment(1)).expect("the segment");
    bytes[start as usize..(start as usize).next_multiple_of(512)].fill(0);
    disk.write_file(segment(1), &bytes);
    let opened = open(&disk);
    assert_eq!(opened.records.len(), 3);
    assert_eq!(opened.recovered.torn.map(|torn| torn.offset), Some(start));
}

/// After a torn tail was dropped only zeros follow, so that the next crash is told apart as well.
#[test]
fn what_was_torn_leaves_no_trace() {
    let disk = MemStorage::new(1);
    let mut log = open(&disk).log;
    append(&mut log, &[b"kept"]);
    let end = 64 + log.stats().frame_bytes;
    append(&mut log, &[vec![7; 3000]]);
    drop(log);
    let whole = used_bytes(&disk, &segment(1));
    disk.zero_from(segment(1), whole - 1);
    let bytes = disk.read_file(segment(1)).expect("the segment");
    let remains = bytes.iter().rposition(|&byte| byte != 0).expect("a header") as u64 + 1;

    let opened = open(&disk);
    let torn = opened.recovered.torn.expect("a torn frame");
    assert_eq!(
        (torn.file, torn.offset, torn.lsn),
        (segment(1), end, Lsn(2))
    );
    assert_eq!(torn.offset + torn.bytes, remains);
    drop(opened.log);
    disk.crash_with(|_| 0);
    assert_eq!(used_bytes(&disk, &segment(1)), end, "durably so");
    assert_eq!(open(&disk).recovered.torn, None);
}

/// A write that fails may have written any part: also the one that drops a torn frame, and what it leaves must not look
/// like damage the next time, whether the process was killed in between or the machine.
#[test]
fn what_is_left_of_a_dropped_frame_is_still_torn() {
    for seed in 0..300 {
        let disk = MemStorage::new(seed);
        let mut log = open(&disk).log;
        let kept = vec![1; 400 + seed as usize];
        append(&mut log, &[&kept]);
        disk.fail(Op::Write, 1, std::io::ErrorKind::Other);
        let unlucky = [vec![2; 900]];
        log.append(&[&batch(&unlucky)]).expect_err("the disk fails");
        drop(log);
        // The first write of a recovery says again what was found, the others drop what was torn.
        for nth in [2, 3, 2] {
            disk.kill();
            disk.fail(Op::Write, nth, std::io::ErrorKind::Other);
            match try_open(&disk, options()) {
                Ok(opened) => assert_eq!(opened.records[0], kept, "seed {seed}"),
                Err(OpenError::Io(_)) => {}
                Err(error) => panic!("seed {seed}: {error}"),
            }
            if seed % 2 == 0 {
                disk.crash();
            }
        }
        disk.crash();
        assert_eq!(open(&disk).records[0], kept, "seed {seed}");
    }
}

/// Recovery hands out what it can read, so it must make that durable first. A sync that failed in an
/// earlier life leaves pages that can be read, count as clean and never reach the disk.
#[test]
fn what_was_recovered_survives_even_after_a_failed_sync() {
    for seed in 0..20 {
        let disk = MemStorage::new(seed);
        let never = with_sync(SyncPolicy::Never);
        let mut log = try_open(&disk, never.clone()).expect("a new log").log;
        append(&mut log, &["one"]);
        log.sync().expect("a sync");
        // Several frames at once, so that it will not do to look after the last one only.
        for n in 2..5 {
            append(&mut log, &[vec![n; 1000]]);
        }
        disk.fail(Op::Sync, 1, std::io::ErrorKind::Other);
        log.sync().expect_err("the sync fails");
        disk.kill();
        let recovered = try_open(&disk, never.clone()).expect("a sound log").records;
        assert_eq!(recovered.len(), 4, "the page cache still has it");
        disk.crash_with(|_| 0);
        let found = try_open(&disk, never).expect("a sound log").records;
        assert_eq!(found, recovered, "seed {seed}");
    }
}

/// Killed between write and sync, then opened, then without power.
#[test]
fn what_was_recovered_survives_after_a_kill() {
    let disk = MemStorage::new(1);
    let never = with_sync(SyncPolicy::Never);
    let mut log = try_open(&disk, never.clone()).expect("a new log").log;
    for n in 0..30u8 {
        append(&mut log, &[vec![n; 700]]);
    }
    disk.kill();
    let recovered = try_open(&disk, never.clone()).expect("a sound log").records;
    assert_eq!(recovered.len(), 30);
    disk.crash_with(|_| 0);
    assert_eq!(
        try_open(&disk, never).expect("a sound log").records,
        recovered
    );
}

/// Killed after a segment got its name and before that was durable.
#[test]
fn a_segment_whose_name_was_not_durable_is_made_so() {
    let disk = MemStorage::new(1);
    let mut log = open(&disk).log;
    // The next sync of the directory is that of the second segment's name.
    disk.fail(Op::SyncDir, 1, std::io::ErrorKind::Other);
    while log.append(&[&batch(&[vec![1; 1500]])]).is_ok() {}
    assert_eq!(segments(&disk).len(), 2);
    disk.kill();
    // Without space for a spare nothing else syncs the directory.
    disk.set_capacity(disk.used_bytes());
    let mut opened = open(&disk);
    append(&mut opened.log, &["into the second segment"]);
    let count = opened.records.len() + 1;
    disk.crash_with(|_| 0);
    assert_eq!(open(&disk).records.len(), count);
}

#[test]
fn a_missing_segment_is_damage_at_the_end_of_the_one_before() {
    let disk = MemStorage::new(1);
    let mut log = open(&disk).log;
    let mut ends = Vec::new();
    while segments(&disk).len() < 3 {
        append(&mut log, &[vec![1; 1500]]);
        ends.push(used_bytes(&disk, &segment(1)));
    }
    drop(log);
    let all = segments(&disk);
    let storage: &dyn wal::Storage = &disk;
    storage.remove(&all[1]).expect("a file that is there");
    let (damage, seen) = damage(&disk, options());
    assert_eq!(
        (&damage.file, damage.offset),
        (&all[0], used_bytes(&disk, &all[0]))
    );
    assert_eq!(damage.lsn, Lsn(seen.len() as u64 + 1));
    assert!(matches!(damage.what, DamageKind::Gap { next } if next > damage.lsn));
}

#[test]
fn a_segment_that_is_not_the_last_may_not_be_cut() {
    let disk = MemStorage::new(1);
    let mut log = open(&disk).log;
    while segments(&disk).len() < 2 {
        append(&mut log, &[vec![1; 1500]]);
    }
    drop(log);
    let end = used_bytes(&disk, &segment(1));
    for offset in [0, 63, 64, 100, end / 2, end - 1] {
        let disk = disk.fork();
        disk.truncate(segment(1), offset);
        assert_eq!(
            damage(&disk, options()).0.file,
            segment(1),
            "cut at {offset}"
        );
    }
}

/// A frame in the middle of the log that has changed is called that, and not what follows from it: that the next segment
/// does not go on where this one ends.
#[test]
fn damage_in_a_full_segment_is_called_by_its_name() {
    let disk = MemStorage::new(1);
    let mut log = open(&disk).log;
    append(&mut log, &["kept"]);
    let start = 64 + log.stats().frame_bytes;
    while segments(&disk).len() < 2 {
        append(&mut log, &[vec![1; 1500]]);
    }
    drop(log);
    for (at, what) in [
        (start + 5, DamageKind::FrameHeader),
        (start + 40 + 5, DamageKind::FramePayload),
    ] {
        let disk = disk.fork();
        disk.flip_bit(segment(1), at * 8);
        let (damage, seen) = damage(&disk, options());
        assert_eq!(damage.what, what);
        assert_eq!((damage.file, damage.offset), (segment(1), start));
        assert_eq!((damage.lsn, seen.len()), (Lsn(2), 1));
    }
}

#[test]
fn segments_of_another_log_and_under_another_name_are_damage() {
    let write = |seed| {
        let disk = MemStorage::new(seed);
        let mut log = open(&disk).log;
        while segments(&disk).len() < 2 {
            append(&mut log, &[vec![1; 1500]]);
        }
        drop(log);
        disk
    };
    let (ours, theirs) = (write(1), write(2));
    let second = segments(&ours)[1].clone();
    let foreign = theirs
        .read_file(&second)
        .expect("the same segment of the other log");
    ours.write_file(&second, &foreign);
    assert_eq!(damage(&ours, options()).0.what, DamageKind::ForeignSegment);

    let misnamed = theirs.read_file(segment(1)).expect("the first segment");
    theirs.write_file(&second, &misnamed);
    let (found, _) = damage(&theirs, options());
    assert_eq!(found.what, DamageKind::MisnamedSegment { found: Lsn(1) });
}

/// A segment that was restored from another moment fits by its numbers, but not by its chain.
#[test]
fn a_segment_from_another_history_breaks_the_chain() {
    let disk = MemStorage::new(1);
    drop(open(&disk).log);
    let history = |byte: u8| {
        let disk = disk.fork();
        let mut log = open(&disk).log;
        while segments(&disk).len() < 2 {
            append(&mut log, &[vec![byte; 1500]]);
        }
        drop(log);
        disk
    };
    let (ours, theirs) = (history(1), history(2));
    let second = segments(&ours)[1].clone();
    ours.write_file(
        &second,
        &theirs.read_file(&second).expect("the same segment"),
    );
    assert_eq!(damage(&ours, options()).0.what, DamageKind::BrokenChain);
}

/// So does a frame that is sound in itself and has the right number.
#[test]
fn a_frame_from_another_history_is_damage() {
    let disk = MemStorage::new(1);
    drop(open(&disk).log);
    let history = |first: &str| {
        let disk = disk.fork();
        let mut log = open(&disk).log;
        append(&mut log, &[first]);
        let start = 64 + log.stats().frame_bytes;
        append(&mut log, &["the same"]);
        (disk, start as usize)
    };
    let ((ours, start), (theirs, _)) = (history("one"), history("two"));
    let mut bytes = ours.read_file(segment(1)).expect("the segment");
    let other = theirs.read_file(segment(1)).expect("the segment");
    bytes[start..].copy_from_slice(&other[start..]);
    ours.write_file(segment(1), &bytes);
    let (damage, seen) = damage(&ours.fork(), options());
    assert_eq!(seen, [b"one"]);
    assert_eq!(damage.what, DamageKind::Misplaced { found: Lsn(2) });
}

#[test]
fn a_newer_format_is_refused_as_such() {
    let disk = MemStorage::new(1);
    drop(open(&disk).log);
    let mut bytes = disk.read_file(segment(1)).expect("the segment");
    bytes[8] = 9;
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    disk.write_file(segment(1), &bytes);
    let refused = try_open(&disk, options()).map(|_| ());
    let Err(OpenError::NewerFormat {
        file,
        found: 9,
        supported: 2,
    }) = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!(file, segment(1));
    assert_eq!(disk.read_file(segment(1)), Some(bytes), "and left alone");
}

/// The whole life of a log, with the power failing after every single change to the disk, under
/// every policy: what comes back is what was appended, in order, at least as far as it was durable.
#[test]
fn power_failures_at_any_moment() {
    let seeds = count_from_env("WAL_CRASH_SEEDS", 40);
    let policies = [
        SyncPolicy::Always,
        SyncPolicy::Interval(std::time::Duration::from_millis(5)),
        SyncPolicy::Never,
    ];
    for seed in 0..seeds {
        let sync = policies[(seed % 3) as usize];
        let mut life = Life {
            disk: MemStorage::new(seed),
            sync,
            durable: 0,
            history: Vec::new(),
        };
        let mut random = seed;
        for _ in 0..25 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            life.run_until_power_off(random >> 33, random % 60);
        }
        assert!(
            life.durable > 20,
            "seed {seed}: the log hardly got anywhere"
        );
    }
}

struct Life {
    disk: MemStorage,
    sync: SyncPolicy,
    /// How many records are sure to be durable.
    durable: usize,
    /// Every record that may be in the log, by its number less one.
    history: Records,
}

impl Life {
    fn run_until_power_off(&mut self, mut random: u64, changes: u64) {
        self.disk.power_off_after(changes);
        let options = Options {
            segment_bytes: 4096,
            ..with_sync(self.sync)
        };
        match try_open(&self.disk, options.clone()) {
            Ok(mut opened) => {
                self.check(&opened);
                self.history
                    .truncate(opened.log.next_lsn().prev().0 as usize);
                self.durable = self.history.len();
                loop {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(11);
                    let size = (random >> 40) as usize % 1500;
                    let filler = if random >> 60 == 0 {
                        0
                    } else {
                        (random >> 50) as u8
                    };
                    let record = vec![filler; size];
                    self.disk
                        .advance(std::time::Duration::from_millis(random >> 62));
                    self.history.push(record.clone());
                    if opened.log.append(&[&batch(&[record])]).is_err() {
                        break;
                    }
                    self.durable = opened.log.synced_lsn().0 as usize;
                    if random >> 32 & 15 == 0 {
                        // Keep a few, so that releases and recoveries meet.
                        let below = Lsn(self.durable as u64 / 2);
                        if opened
                            .log
                            .release(below, std::time::Duration::ZERO)
                            .is_err()
                        {
                            break;
                        }
                    }
                }
            }
            Err(OpenError::Damaged(damage)) => panic!("a crash is not damage: {damage}"),
            // The power failed during recovery.
            Err(_) => {}
        }
        self.disk.crash();
    }

    fn check(&self, opened: &common::Opened) {
        let first = opened.recovered.first_lsn.0 as usize - 1;
        let last = opened.recovered.last_lsn.0 as usize;
        assert!(
            last >= self.durable,
            "{last} records of {} durable ones",
            self.durable
        );
        assert!(last <= self.history.len());
        assert_eq!(opened.records, self.history[first..last]);
    }
}

/// Segments that are larger than what is looked at behind their end.
fn long() -> Options {
    Options {
        segment_bytes: 4 << 20,
        max_frame_bytes: 3 << 20,
        ..options()
    }
}

/// A frame that reaches further than recovery looks is written in two steps. Wherever it is cut off, over whatever was there
/// before, nothing of it is left to be taken for a part of the next.
#[test]
fn a_long_frame_is_cut_off_at_any_moment() {
    let base = MemStorage::new(1);
    let kept = fresh_or_reused(&base, long(), true).1;
    let record = |byte: u8| vec![byte; 1_300_000];
    for changes in 0..5 {
        for seed in 0..2u64 {
            let disk = base.fork();
            let mut log = try_open(&disk, long()).expect("a sound log").log;
            disk.power_off_after(changes);
            let appended = log.append(&[&batch(&[record(1)])]);
            assert_eq!(appended.is_ok(), changes == 4, "two writes, two syncs");
            drop(log);
            let mut random = seed;
            disk.crash_with(|count| {
                random = random
                    .wrapping_mul(0x5851_f42d_4c95_7f2d_u64)
                    .wrapping_add(11 + seed);
                (random >> 33) as usize % count
            });
            let mut log = try_open(&disk, long())
                .expect("a torn log is a sound log")
                .log;
            assert!(
                log.next_lsn().0 - log.first_lsn().0 >= kept.len() as u64 + u64::from(changes >= 4)
            );
            // The next is torn as well, where that was.
            disk.power_off_after(changes.min(3));
            log.append(&[&batch(&[record(2)])])
                .expect_err("the power is off");
            drop(log);
            disk.crash_with(|count| {
                random = random
                    .wrapping_mul(0x5851_f42d_4c95_7f2d_u64)
                    .wrapping_add(17);
                (random >> 33) as usize % count
            });
            let opened = try_open(&disk, long()).expect("a torn log is a sound log");
            assert!(opened.records.starts_with(&kept));
            drop(opened);
            assert_eq!(
                try_open(&disk, long()).expect("a sound log").recovered.torn,
                None
            );
        }
    }
}

/// More is gone than recovery looks at, without a trace, and what is behind it says so.
#[test]
fn frames_that_vanished_before_a_far_one_are_damage() {
    let disk = MemStorage::new(1);
    let mut log = try_open(&disk, long()).expect("a new log").log;
    append(&mut log, &["kept"]);
    let hole = used_bytes(&disk, &segment(1));
    for n in 0..7u8 {
        append(&mut log, &[vec![n; 500_000]]);
    }
    drop(log);
    let mut bytes = disk.read_file(segment(1)).expect("the segment");
    bytes[hole as usize..2_000_000].fill(0);
    disk.write_file(segment(1), &bytes);
    let (damage, seen) = damage(&disk, long());
    assert_eq!((seen.len(), damage.offset), (1, hole));
    assert!(
        matches!(damage.what, DamageKind::Vanished { evidence } if evidence >= 2_000_000),
        "{damage}"
    );
}

/// Without a sync for each frame what is not durable may reach far: once a frame is durable that says so.
#[test]
fn what_may_reach_far_says_so_first() {
    let never = Options {
        sync: SyncPolicy::Never,
        ..long()
    };
    for seed in 0..2u64 {
        let disk = MemStorage::new(seed);
        let (mut log, kept) = fresh_or_reused(&disk, never.clone(), true);
        let durable = log.synced_lsn();
        let syncs = log.stats().syncs;
        for n in 0..8u8 {
            append(&mut log, &[vec![n; 300_000]]);
        }
        assert_eq!(log.stats().syncs, syncs + 1, "one for all of the segment");
        let synced = log.synced_lsn();
        assert!(synced > durable && synced < log.next_lsn().prev());
        drop(log);
        disk.crash();
        let opened = try_open(&disk, never.clone()).expect("a torn log is a sound log");
        assert!(opened.records.starts_with(&kept));
        assert!(opened.recovered.last_lsn >= synced);
        drop(opened);
        let again = try_open(&disk, never.clone()).expect("a sound log");
        assert_eq!(again.recovered.torn, None);
    }
}

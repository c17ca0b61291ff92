//! The log's files: written by a log, changed by an enemy, and read.
//!
//! The first byte is how the log is set up, or `r`: then what follows are the bytes of its only segment, as they are. Else
//! what follows is a program of two parts. In the first a log lives: it appends, is killed, loses its power. After a byte
//! from 128 on its files are changed: by accidents (bits, holes, cuts, copies, lost and renamed files), which know nothing
//! of checksums, and by forgeries, which mend them, so that what is behind the checksums is fuzzed too. Whatever was done:
//! - an accident is never handed out as a record: what is read is what was appended under its number;
//! - one flipped bit is never taken for a crash: all that was acknowledged is read, or damage is reported;
//! - `open`, `verify` and `Reader` find the same, and damage leaves every file as it was;
//! - what was opened can be appended to, and opened again with that.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wal::sim::MemStorage;
use wal::{
    Batch, Log, LogId, Lsn, OpenError, Options, ReadError, Reader, Storage, SyncPolicy, Torn,
    verify,
};

const DIR: &str = "/log";
/// Where a frame's header ends and its payload begins.
const FRAME_HEADER_BYTES: usize = 40;
const SEGMENT_HEADER_BYTES: usize = 64;
const SECTOR_BYTES: usize = 512;
/// Where in a sector its tag is.
const TAG_AT: usize = SECTOR_BYTES - 4;
/// The most that any step may do; no input is worth more time.
const STEPS_MAX: usize = 64;

type Records = Vec<(Lsn, Vec<u8>)>;

/// Builds a log, changes it, reads it.
pub fn run(data: &[u8]) {
    let mut script = Script(data);
    let Some(form) = script.byte() else { return };
    let mut subject = Subject::new(form);
    if form == b'r' {
        subject.raw(script.0);
    } else {
        subject.live(&mut script);
        subject.change(&mut script);
    }
    subject.judge();
}

/// The input, read from its front.
struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    /// A number below `limit`, from two bytes.
    fn below(&mut self, limit: usize) -> usize {
        let low = usize::from(self.byte().unwrap_or(0));
        let high = usize::from(self.byte().unwrap_or(0));
        (low | high << 8) % limit.max(1)
    }

    /// A number near an edge: where fields overflow, if they do.
    fn edge(&mut self) -> u64 {
        let small = self.byte().map_or(0, u64::from);
        match self.byte().unwrap_or(0) % 8 {
            0 | 1 => small,
            2 => small << 8,
            3 => small << 24,
            4 => u64::from(u32::MAX) - small,
            5 => u64::MAX - small,
            6 => (1 << 63) + small,
            _ => small << 32,
        }
    }
}

struct Subject {
    disk: MemStorage,
    options: Options,
    /// What was appended and, as far as anybody was told, is there.
    model: BTreeMap<Lsn, Vec<u8>>,
    /// All up to here is on the disk.
    durable: Lsn,
    /// Changes to its files.
    accidents: usize,
    /// Those that flipped one bit.
    flips: usize,
    /// Whether checksums were mended after a change: then what is read may be anything.
    is_forged: bool,
}

impl Subject {
    fn new(form: u8) -> Self {
        let sync = match form % 4 {
            2 => SyncPolicy::Never,
            3 => SyncPolicy::Interval(Duration::from_secs(1)),
            _ => SyncPolicy::Always,
        };
        let options = Options {
            segment_bytes: 4096 << (form / 4 % 2),
            max_frame_bytes: 2048,
            sync,
            log_id: Some(LogId([form; 16])),
            ..Options::new(DIR)
        };
        Self {
            disk: MemStorage::new(u64::from(form)),
            options,
            model: BTreeMap::new(),
            durable: Lsn::ZERO,
            accidents: 0,
            flips: 0,
            is_forged: false,
        }
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.is_forged = true;
        self.storage()
            .create_dir_all(DIR.as_ref())
            .expect("a disk in memory");
        let mut segment = bytes.to_vec();
        segment.resize(bytes.len().max(4096), 0);
        // Named as it says, since one that is misnamed is not read any further.
        let first = u64_at(&segment, 32).max(1);
        self.disk.write_file(segment_path(first), &segment);
    }

    fn storage(&self) -> Arc<dyn Storage> {
        Arc::new(self.disk.clone())
    }

    // --- the log lives ---

    fn live(&mut self, script: &mut Script<'_>) {
        let mut log = self.reopen();
        for _ in 0..STEPS_MAX {
            let Some(step) = script.byte().filter(|&step| step < 128) else {
                return;
            };
            match step % 8 {
                0..4 => self.append(&mut log, step, script),
                4 => {
                    log.sync().expect("a disk without faults");
                    self.durable = log.synced_lsn();
                }
                5 => {
                    drop(log);
                    self.disk.kill();
                    log = self.reopen();
                }
                6 => {
                    drop(log);
                    self.disk.crash();
                    log = self.reopen();
                }
                _ => {
                    let below = Lsn(log.next_lsn().0.saturating_sub(script.below(64) as u64));
                    log.release(below, Duration::ZERO)
                        .expect("a disk without faults");
                }
            }
        }
    }

    fn append(&mut self, log: &mut Log, step: u8, script: &mut Script<'_>) {
        let mut batch = Batch::new();
        for _ in 0..=step % 4 {
            let length = script.byte().unwrap_or(0);
            let fill = script.byte().unwrap_or(0);
            // Long ones reach over several sectors.
            let length = usize::from(length) * (1 + usize::from(fill % 5));
            batch.push(&vec![fill; length]);
        }
        let lsns = match log.append(&[&batch]) {
            Ok(lsns) => lsns,
            Err(wal::AppendError::TooLarge { .. }) => return,
            Err(error) => panic!("a disk without faults: {error}"),
        };
        for (lsn, record) in (lsns.start.0..).zip(batch.iter()) {
            self.model.insert(Lsn(lsn), record.to_vec());
        }
        self.durable = log.synced_lsn();
    }

    /// Opens the log after a crash: what was durable is there, and nothing that was never appended.
    fn reopen(&mut self) -> Log {
        let mut records = Records::new();
        let opened = Log::open(self.options.clone(), self.storage(), |lsn, bytes: &[u8]| {
            records.push((lsn, bytes.to_vec()));
            Ok::<_, Infallible>(())
        });
        let (log, recovered) =
            opened.unwrap_or_else(|error| panic!("only crashes so far: {error}"));
        assert!(
            recovered.last_lsn >= self.durable,
            "what was durable is gone"
        );
        self.assert_known(&records);
        self.model = records.into_iter().collect();
        self.durable = recovered.last_lsn;
        log
    }

    fn assert_known(&self, records: &Records) {
        for (lsn, record) in records {
            assert_eq!(
                Some(record),
                self.model.get(lsn),
                "record {lsn} was never appended"
            );
        }
    }

    // --- its files are changed ---

    fn change(&mut self, script: &mut Script<'_>) {
        for _ in 0..STEPS_MAX {
            let files = self.segments();
            let (Some(step), false) = (script.byte(), files.is_empty()) else {
                return;
            };
            let path = &files[script.below(files.len())];
            let mut bytes = self.disk.read_file(path).expect("a listed file is there");
            let len = bytes.len();
            match step % 12 {
                0 if len > 0 => {
                    let at = script.below(len);
                    bytes[at] ^= 1 << (script.byte().unwrap_or(0) % 8);
                    self.flips += 1;
                }
                1 => {
                    let at = script.below(len);
                    for byte in bytes.iter_mut().skip(at).take(1 + script.below(16)) {
                        *byte ^= script.byte().unwrap_or(0);
                    }
                }
                2 => bytes.truncate(script.below(len + 1)),
                3 => {
                    let at = script.below(len);
                    let count = script.below(2048);
                    bytes
                        .iter_mut()
                        .skip(at)
                        .take(count)
                        .for_each(|byte| *byte = 0);
                }
                4 => {
                    let from = self.disk.read_file(&files[script.below(files.len())]);
                    let from = from.expect("a listed file is there");
                    let (at, to) = (script.below(from.len()), script.below(len));
                    let count = script.below(2048);
                    let copied = from[at..].iter().take(count);
                    bytes[to..]
                        .iter_mut()
                        .zip(copied)
                        .for_each(|(to, from)| *to = *from);
                }
                5 => {
                    self.storage().remove(path).expect("a listed file is there");
                    self.accidents += 1;
                    continue;
                }
                6 => {
                    let name = segment_path(1 + script.below(64) as u64);
                    self.storage()
                        .rename(path, &name)
                        .expect("a listed file is there");
                    self.accidents += 1;
                    continue;
                }
                7 => self.forge_segment_header(&mut bytes, script),
                8 | 9 => self.forge_frame_header(&mut bytes, script),
                10 => self.forge_payload(&mut bytes, script),
                _ => self.forge_frame(&mut bytes, script),
            }
            self.accidents += 1;
            self.disk.write_file(path, &bytes);
        }
    }

    /// All segments; not the spare ones, which hold nothing that counts.
    fn segments(&self) -> Vec<PathBuf> {
        let mut files = self.disk.files();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "wal"));
        files
    }

    fn forge_segment_header(&mut self, bytes: &mut [u8], script: &mut Script<'_>) {
        let fields = [(8, 4), (32, 8), (40, 8), (48, 8), (56, 4), (12, 4)];
        let (at, size) = fields[script.below(fields.len())];
        let value = script.edge().to_le_bytes();
        let Some(header) = bytes.get_mut(..SEGMENT_HEADER_BYTES) else {
            return;
        };
        header[at..at + size].copy_from_slice(&value[..size]);
        let crc = crc32c::crc32c(&header[..60]).to_le_bytes();
        header[60..64].copy_from_slice(&crc);
        self.is_forged = true;
    }

    fn forge_frame_header(&mut self, bytes: &mut [u8], script: &mut Script<'_>) {
        let Some(at) = nth_frame(bytes, script.below(32)) else {
            return;
        };
        let (field, size) =
            [(4, 4), (8, 8), (16, 4), (20, 4), (24, 4), (28, 4), (32, 8)][script.below(7)];
        let value = script.edge().to_le_bytes();
        bytes[at + field..at + field + size].copy_from_slice(&value[..size]);
        seal_header(bytes, at);
        self.is_forged = true;
    }

    fn forge_payload(&mut self, bytes: &mut [u8], script: &mut Script<'_>) {
        let Some(at) = nth_frame(bytes, script.below(32)) else {
            return;
        };
        let end = (at + frame_bytes(bytes, at)).min(bytes.len());
        let start = at + FRAME_HEADER_BYTES;
        if start >= end {
            return;
        }
        let from = start + script.below(end - start);
        for byte in bytes[from..end].iter_mut().take(1 + script.below(8)) {
            *byte = script.byte().unwrap_or(0);
        }
        seal_payload(bytes, at);
        self.is_forged = true;
    }

    /// Adds a frame that follows the last one as it should, around a payload that anybody may have thought of.
    fn forge_frame(&mut self, bytes: &mut [u8], script: &mut Script<'_>) {
        let Some(last) = (0..64).map_while(|n| nth_frame(bytes, n)).last() else {
            return;
        };
        let at = last + frame_bytes(bytes, last);
        let payload_bytes = script.below(512);
        let end = frame_end(at, payload_bytes);
        let count = script.below(16) as u32;
        if end.next_multiple_of(SECTOR_BYTES) > bytes.len() {
            return;
        }
        let next = u64_at(bytes, last + 8).wrapping_add(u64::from(u32_at(bytes, last + 16)));
        let chain = u32_at(bytes, last + 28);
        // The first sector has one in any case.
        let tag = u32_at(bytes, TAG_AT);
        bytes[at..end.next_multiple_of(SECTOR_BYTES)].fill(0);
        let frame = &mut bytes[at..end];
        frame[4..8].copy_from_slice(&(payload_bytes as u32).to_le_bytes());
        frame[8..16].copy_from_slice(&next.to_le_bytes());
        frame[16..20].copy_from_slice(&count.to_le_bytes());
        frame[24..28].copy_from_slice(&chain.to_le_bytes());
        for byte in &mut frame[FRAME_HEADER_BYTES..] {
            *byte = script.byte().unwrap_or(1);
        }
        let padding = usize::from(end.is_multiple_of(SECTOR_BYTES)) * 4;
        bytes[end - padding - 1] = 0xa5;
        for sector in (at / SECTOR_BYTES..end.div_ceil(SECTOR_BYTES)).map(|at| at * SECTOR_BYTES) {
            bytes[sector + TAG_AT..sector + SECTOR_BYTES].copy_from_slice(&tag.to_le_bytes());
        }
        seal_payload(bytes, at);
        self.is_forged = true;
    }

    // --- it is read ---

    fn judge(&self) {
        let before = self.contents();
        let verified = verify(DIR, self.storage());
        let mut read = Records::new();
        let reader = Reader::open(DIR, self.storage(), Lsn::ZERO);
        let read_error = reader.and_then(|mut reader| {
            reader.try_for_each(|record| record.map(|record| read.push(record)))
        });
        assert_eq!(self.contents(), before, "reading changes nothing");

        let mut records = Records::new();
        let opened = Log::open(self.options.clone(), self.storage(), |lsn, bytes: &[u8]| {
            records.push((lsn, bytes.to_vec()));
            Ok::<_, Infallible>(())
        });
        assert_eq!(records, read, "recovery and reader see the same records");
        if !self.is_forged {
            self.assert_known(&records);
        }
        let (log, recovered) = match opened {
            Ok(opened) => opened,
            Err(error) => return self.assert_refused(&error, verified.err().as_ref(), &before),
        };
        let verified =
            verified.unwrap_or_else(|error| panic!("`verify` is stricter than opening: {error}"));
        read_error.unwrap_or_else(|error| panic!("a reader is stricter than opening: {error}"));
        assert_eq!(verified.records, recovered.records);
        assert_eq!(verified.torn, recovered.torn);
        assert_eq!(records.len() as u64, recovered.records);
        let only_a_flip = self.accidents == 1 && self.flips == 1;
        if only_a_flip && self.options.sync == SyncPolicy::Always {
            assert!(
                recovered.last_lsn >= self.durable,
                "one flipped bit has cost a record"
            );
        }
        self.go_on(log, records);
    }

    fn assert_refused(
        &self,
        error: &OpenError,
        verified: Option<&ReadError>,
        before: &BTreeMap<PathBuf, Vec<u8>>,
    ) {
        match error {
            OpenError::Damaged(damage) => {
                assert!(
                    matches!(verified, Some(ReadError::Damaged(found)) if found == damage),
                    "opening finds {damage}, `verify` {verified:?}"
                );
                assert_eq!(
                    self.contents(),
                    *before,
                    "damage leaves every file as it was"
                );
            }
            OpenError::NewerFormat { .. } => {
                assert!(
                    matches!(verified, Some(ReadError::NewerFormat { .. })),
                    "{verified:?}"
                );
                assert_eq!(self.contents(), *before);
            }
            // A forged size of a segment is more than any disk has.
            OpenError::NoSpace(_) | OpenError::Io(_) => assert!(self.is_forged, "{error}"),
            other => panic!("opening says {other}"),
        }
    }

    fn contents(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let files = self.segments().into_iter();
        files
            .filter_map(|path| Some((path.clone(), self.disk.read_file(&path)?)))
            .collect()
    }

    /// What was opened is a log: it takes a record, and has all of them the next time.
    fn go_on(&self, mut log: Log, mut records: Records) {
        let mut batch = Batch::new();
        batch.push(b"and on");
        match log.append(&[&batch]) {
            Ok(lsns) => records.push((lsns.start, b"and on".to_vec())),
            // A forged log may be at the end of all numbers.
            Err(error) => return assert!(self.is_forged, "{error}"),
        }
        log.sync()
            .unwrap_or_else(|error| panic!("a disk without faults: {error}"));
        drop(log);
        self.disk.crash();
        let mut again = Records::new();
        let opened = Log::open(self.options.clone(), self.storage(), |lsn, bytes: &[u8]| {
            again.push((lsn, bytes.to_vec()));
            Ok::<_, Infallible>(())
        });
        let (_, recovered) = opened.unwrap_or_else(|error| panic!("what was opened once: {error}"));
        assert_eq!(again, records);
        assert_eq!(
            recovered.torn, None::<Torn>,
            "a torn tail is gone after one opening"
        );
    }
}

fn segment_path(first: u64) -> PathBuf {
    Path::new(DIR).join(format!("{first:016x}.wal"))
}

/// Where the `n`th frame of a segment begins, as the headers say whose checksums hold.
fn nth_frame(bytes: &[u8], n: usize) -> Option<usize> {
    let mut at = SEGMENT_HEADER_BYTES;
    for left in (0..=n).rev() {
        let header = bytes.get(at..at.checked_add(FRAME_HEADER_BYTES)?)?;
        // What is left of an earlier life is no frame.
        if header_crc(bytes, at) != u32_at(header, 0) {
            return None;
        }
        if left > 0 {
            at = at.checked_add(frame_bytes(bytes, at))?;
        }
    }
    Some(at)
}

/// The size of the frame at `at`, as its header says.
fn frame_bytes(bytes: &[u8], at: usize) -> usize {
    frame_end(at, u32_at(bytes, at + 4) as usize) - at
}

/// Where a frame at `at` ends: see `wal/src/frame.rs`.
fn frame_end(at: usize, payload_bytes: usize) -> usize {
    let room = TAG_AT.saturating_sub(at % SECTOR_BYTES + FRAME_HEADER_BYTES);
    let tags = (payload_bytes + 1).saturating_sub(room).div_ceil(TAG_AT) * 4;
    let end = (at + FRAME_HEADER_BYTES + payload_bytes + 1 + tags).next_multiple_of(8);
    if end % SECTOR_BYTES > TAG_AT - FRAME_HEADER_BYTES - 8 {
        end.next_multiple_of(SECTOR_BYTES)
    } else {
        end
    }
}

/// Mends the checksum of a frame's payload, and with it that of its header.
fn seal_payload(bytes: &mut [u8], at: usize) {
    let end = (at + frame_bytes(bytes, at)).min(bytes.len());
    let chain = u32_at(bytes, at + 24);
    let crc = crc32c::crc32c_append(chain, &bytes[at + FRAME_HEADER_BYTES..end]);
    bytes[at + 28..at + 32].copy_from_slice(&crc.to_le_bytes());
    seal_header(bytes, at);
}

/// Mends the checksum of a frame's header.
fn seal_header(bytes: &mut [u8], at: usize) {
    let crc = header_crc(bytes, at).to_le_bytes();
    bytes[at..at + 4].copy_from_slice(&crc);
}

/// The checksum that a frame's header should have: of the log's id, the segment's life and the header.
fn header_crc(bytes: &[u8], at: usize) -> u32 {
    let seed = crc32c::crc32c_append(crc32c::crc32c(&bytes[16..32]), &bytes[12..16]);
    crc32c::crc32c_append(seed, &bytes[at + 4..at + FRAME_HEADER_BYTES])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let word = bytes[at..]
        .first_chunk()
        .expect("a header lies within its segment");
    u32::from_le_bytes(*word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let word = bytes[at..]
        .first_chunk()
        .expect("a header lies within its segment");
    u64::from_le_bytes(*word)
}

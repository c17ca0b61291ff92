//! [`MemStorage`]: a machine in memory that can lose its power.
//!
//! The one idea: a disk is what is durable, what is only in the cache, and a free choice of what of
//! the cache survives. All choices come from one seed (or from the caller), time moves only when told
//! to, and nothing depends on threads or addresses: the same calls with the same seed give the same
//! disk, byte for byte. So it serves the tests of this crate and the simulation of a whole system.
//!
//! It is as unkind as the contract of [`crate::storage`] allows:
//! - after a crash each sector that was written since the last sync of its file holds any one of its
//!   versions since then, independently of all others; so does each file's length;
//! - each creation, renaming or removal since the last sync of its directory has happened or not,
//!   independently of all others;
//! - a failed sync of a file makes any part durable and forgets that the rest was ever written, as
//!   Linux does, while reading still shows it; names and reserved room, which file systems keep in a
//!   journal, are not forgotten;
//! - a failed write has written any part;
//! - space runs out when the disk is smaller than the files on it.
//!
//! Invariant: without a crash and without faults it cannot be told from a good disk.

mod disk;

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::format::{SEGMENT_HEADER_BYTES, SegmentHeader};
use crate::frame::Layout;
use crate::storage::{Access, Lock, LockGuard, Storage, StorageFile};
use disk::Disk;

/// An operation that can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Opening or creating a file.
    Open,
    /// Reading from a file.
    Read,
    /// Writing to a file.
    Write,
    /// Reserving space for a file.
    Allocate,
    /// Making a file durable.
    Sync,
    /// Making a directory durable.
    SyncDir,
    /// Renaming a file.
    Rename,
    /// Removing a file.
    Remove,
}

/// A simulated machine's file system, clock and source of randomness. Clones are the same machine.
#[derive(Clone, Debug)]
pub struct MemStorage {
    disk: Arc<Mutex<Disk>>,
}

impl MemStorage {
    /// An empty disk without a limit, whose choices follow from `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        MemStorage {
            disk: Arc::new(Mutex::new(Disk::new(seed))),
        }
    }

    /// A copy of the machine as it is now, cached writes included, that goes its own way. Nobody
    /// holds a lock or an open file on it.
    #[must_use]
    pub fn fork(&self) -> Self {
        let mut disk = self.disk().clone();
        disk.forget_processes();
        MemStorage {
            disk: Arc::new(Mutex::new(disk)),
        }
    }

    /// The power fails and comes back: what was not synced survives or not as the seed decides. All
    /// open files and locks are gone, and so are faults that have not struck yet.
    pub fn crash(&self) {
        let mut disk = self.disk();
        let mut random = disk.split_random();
        disk.crash(&mut |choices| (random.next() % choices as u64) as usize);
    }

    /// Like [`MemStorage::crash`], with the choices made by the caller: `choose(n)` is asked for a
    /// number below `n` for everything that is unsynced, in a fixed order. 0 is the oldest state, the
    /// one that was synced; `n - 1` is the newest.
    pub fn crash_with(&self, mut choose: impl FnMut(usize) -> usize) {
        self.disk().crash(&mut choose);
    }

    /// The process is killed: all open files and locks are gone, and what was written stays.
    pub fn kill(&self) {
        self.disk().forget_processes();
    }

    /// Lets the `nth` operation of this kind from now (1 is the next one) fail with `error`.
    pub fn fail(&self, op: Op, nth: u64, error: ErrorKind) {
        self.disk().add_fault(op, nth, error);
    }

    /// Lets every operation after the next `count` that change anything fail, until the crash.
    pub fn power_off_after(&self, count: u64) {
        self.disk().power_off_after(count);
    }

    /// Whether the power is on: it is unless [`MemStorage::power_off_after`] has taken it away.
    #[must_use]
    pub fn has_power(&self) -> bool {
        self.disk().has_power()
    }

    /// Takes back what was to go wrong and has not yet: faults to come, the loss of power, the limit on space, slow
    /// syncs. What has happened stays so; in particular, power that is off comes back only with a crash.
    pub fn heal(&self) {
        self.disk().heal();
    }

    /// How many operations that change anything there have been.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.disk().changes()
    }

    /// Sets the size of the disk in bytes; files that are there already stay.
    pub fn set_capacity(&self, bytes: u64) {
        self.disk().set_capacity(bytes);
    }

    /// The room that the files take, in bytes.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.disk().used_bytes()
    }

    /// Lets time pass, on both clocks.
    pub fn advance(&self, time: Duration) {
        self.disk().advance(time);
    }

    /// Sets the wall clock forward, or back, as a person or a time server does. The monotonic clock does not notice.
    pub fn set_wall_clock(&self, by_ms: i64) {
        self.disk().set_wall_clock(by_ms);
    }

    /// Lets every sync of a file take so long, on both clocks.
    pub fn set_sync_latency(&self, time: Duration) {
        self.disk().set_sync_latency(time);
    }

    /// The paths of all files, sorted.
    #[must_use]
    pub fn files(&self) -> Vec<PathBuf> {
        self.disk().files()
    }

    /// The bytes of a file as a process would read them; `None` if there is no such file.
    #[must_use]
    pub fn read_file(&self, path: impl AsRef<Path>) -> Option<Vec<u8>> {
        self.disk().read_file(path.as_ref())
    }

    /// Puts a file on the disk, durably and from outside, replacing the one that is there.
    pub fn write_file(&self, path: impl AsRef<Path>, bytes: &[u8]) {
        self.disk().write_file(path.as_ref(), bytes);
    }

    /// Flips one bit of a file, on the disk and in the cache. Bit 8 is the lowest of the second byte.
    ///
    /// # Panics
    /// If there is no such file or bit.
    pub fn flip_bit(&self, path: impl AsRef<Path>, bit: u64) {
        self.edit(path.as_ref(), |bytes| {
            bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
        });
    }

    /// Cuts a file off, on the disk and in the cache.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn truncate(&self, path: impl AsRef<Path>, bytes: u64) {
        self.edit(path.as_ref(), |content| content.truncate(bytes as usize));
    }

    /// Sets a file to zeros from `offset` on, on the disk and in the cache.
    ///
    /// # Panics
    /// If there is no such file or it is shorter.
    pub fn zero_from(&self, path: impl AsRef<Path>, offset: u64) {
        self.edit(path.as_ref(), |bytes| bytes[offset as usize..].fill(0));
    }

    fn edit(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.disk();
        let mut bytes = disk
            .read_file(path)
            .expect("the file to be changed is on the disk");
        change(&mut bytes);
        disk.write_file(path, &bytes);
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        // A panic in one test thread says nothing about the disk.
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the last frame ends of a segment that has these bytes, as far as its headers are sound; 0 if its own is not. For who
/// wants to change a byte that counts: what is behind may be of an earlier life.
#[must_use]
pub fn used_bytes(segment: &[u8]) -> u64 {
    let header = segment
        .first_chunk()
        .and_then(|bytes| SegmentHeader::decode(bytes).ok());
    let Some(header) = header else { return 0 };
    let layout = Layout::of(&header);
    let mut end = SEGMENT_HEADER_BYTES as u64;
    while let Some(bytes) = segment.get(end as usize..)
        && let Some(frame) = layout.decode(bytes, end)
    {
        end += frame.frame_bytes as u64;
    }
    end
}

impl Storage for MemStorage {
    fn create_dir_all(&self, dir: &Path) -> io::Result<()> {
        self.disk().create_dir_all(dir)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.disk().list(dir)
    }

    fn open(&self, path: &Path, access: Access) -> io::Result<Box<dyn StorageFile>> {
        let (inode, life) = self.disk().open(path, access)?;
        let writable = access != Access::Read;
        Ok(Box::new(MemFile {
            storage: self.clone(),
            inode,
            life,
            writable,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk().rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk().remove(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.disk().sync_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        Ok(match self.disk().lock(path)? {
            Some(life) => {
                let (storage, path) = (self.clone(), path.to_owned());
                Lock::Held(Box::new(MemLock {
                    storage,
                    path,
                    life,
                }))
            }
            None => Lock::Taken {
                pid: Some(std::process::id()),
            },
        })
    }

    fn monotonic(&self) -> Duration {
        self.disk().now()
    }

    fn unix_ms(&self) -> u64 {
        self.disk().unix_ms()
    }

    fn fill_random(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.disk().fill_random(bytes);
        Ok(())
    }
}

#[derive(Debug)]
struct MemLock {
    storage: MemStorage,
    path: PathBuf,
    life: u64,
}

impl LockGuard for MemLock {}

impl Drop for MemLock {
    fn drop(&mut self) {
        self.storage.disk().unlock(&self.path, self.life);
    }
}

#[derive(Debug)]
struct MemFile {
    storage: MemStorage,
    inode: usize,
    /// The life of the machine in which it was opened: no handle outlives a crash.
    life: u64,
    writable: bool,
}

impl StorageFile for MemFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut disk = self.storage.disk();
        disk.check_life(self.life)?;
        disk.read(self.inode, buf, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut disk = self.storage.disk();
        disk.check_life(self.life)?;
        self.check_writable()?;
        disk.write(self.inode, bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut disk = self.storage.disk();
        disk.check_life(self.life)?;
        disk.sync(self.inode)
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut disk = self.storage.disk();
        disk.check_life(self.life)?;
        self.check_writable()?;
        disk.allocate(self.inode, bytes)
    }

    fn length(&self) -> io::Result<u64> {
        let disk = self.storage.disk();
        disk.check_life(self.life)?;
        Ok(disk.length(self.inode))
    }

    fn next_data(&self, offset: u64) -> io::Result<Option<u64>> {
        let disk = self.storage.disk();
        disk.check_life(self.life)?;
        Ok(disk.next_data(self.inode, offset))
    }

    fn next_hole(&self, offset: u64) -> io::Result<u64> {
        let disk = self.storage.disk();
        disk.check_life(self.life)?;
        Ok(disk.next_hole(self.inode, offset))
    }
}

impl MemFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable {
            Ok(())
        } else {
            Err(ErrorKind::PermissionDenied.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_wall_clock_may_be_set_and_the_monotonic_one_does_not_notice() {
        let machine = MemStorage::new(1);
        let begun_ms = machine.unix_ms();
        machine.advance(Duration::from_millis(500));
        machine.set_wall_clock(-7_200_000);
        machine.set_wall_clock(3_600_000);
        assert_eq!(machine.unix_ms(), begun_ms + 500 - 3_600_000);
        assert_eq!(machine.monotonic(), Duration::from_millis(500));
        machine.crash();
        assert_eq!(machine.unix_ms(), begun_ms + 500 - 3_600_000);
        machine.set_wall_clock(i64::MIN);
        assert_eq!(machine.unix_ms(), 0, "there is no time before 1970");
    }

    #[test]
    fn a_failed_sync_forgets_what_was_written_and_not_what_was_reserved() {
        for seed in 0..20 {
            let machine = MemStorage::new(seed);
            machine.create_dir_all(Path::new("/d")).unwrap();
            let path = Path::new("/d/file");
            let file = machine.open(path, Access::Create).unwrap();
            machine.sync_dir(Path::new("/d")).unwrap();
            file.allocate(4096).unwrap();
            file.write_all_at(b"forgotten", 0).unwrap();
            machine.fail(Op::Sync, 1, ErrorKind::Other);
            assert!(file.sync_data().is_err());
            file.write_all_at(b"kept", 1024).unwrap();
            file.sync_data().unwrap();
            machine.crash();
            let bytes = machine.read_file(path).unwrap();
            assert_eq!((bytes.len(), &bytes[1024..1028]), (4096, &b"kept"[..]));
            assert!([&b"forgotten"[..], &[0; 9]].contains(&&bytes[..9]));
        }
    }

    #[test]
    fn a_healed_disk_is_a_good_one_but_for_power_that_is_off() {
        let machine = MemStorage::new(1);
        machine.create_dir_all(Path::new("/d")).unwrap();
        let make = |name: &str| {
            let file = machine.open(&Path::new("/d").join(name), Access::Create)?;
            file.write_all_at(b"x", 0)?;
            file.sync_data()
        };
        machine.fail(Op::Write, 1, ErrorKind::Other);
        machine.power_off_after(10);
        machine.set_capacity(0);
        machine.set_sync_latency(Duration::from_secs(1));
        machine.heal();
        for number in 0..10 {
            make(&number.to_string()).unwrap();
        }
        assert_eq!(machine.monotonic(), Duration::ZERO);
        machine.power_off_after(1);
        assert!(machine.has_power());
        assert!(make("last").is_err());
        assert!(!machine.has_power());
        machine.heal();
        assert!(!machine.has_power() && make("none").is_err());
        machine.crash();
        assert!(machine.has_power());
        make("again").unwrap();
    }

    /// A seed that has found something once must find it again: the numbers are those of the published generator.
    #[test]
    fn random_numbers_are_those_of_splitmix64() {
        let mut bytes = [0; 40];
        MemStorage::new(1_234_567).fill_random(&mut bytes).unwrap();
        let (words, _) = bytes.as_chunks::<8>();
        assert_eq!(
            words
                .iter()
                .map(|word| u64::from_le_bytes(*word))
                .collect::<Vec<_>>(),
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423,
                4_593_380_528_125_082_431,
                16_408_922_859_458_223_821,
            ]
        );
    }

    /// Nothing, all or any part: whoever is tested by this disk is to be ready for each.
    #[test]
    fn what_fails_may_have_done_anything() {
        let (mut written, mut named) = (BTreeSet::new(), BTreeSet::new());
        for seed in 0..100 {
            let machine = MemStorage::new(seed);
            machine.create_dir_all(Path::new("/d")).unwrap();
            machine.fail(Op::SyncDir, 1, ErrorKind::Other);
            machine.fail(Op::Write, 1, ErrorKind::Other);
            for name in ["/d/a", "/d/b"] {
                machine.open(Path::new(name), Access::Create).unwrap();
            }
            machine.sync_dir(Path::new("/d")).unwrap_err();
            let file = machine.open(Path::new("/d/b"), Access::Write).unwrap();
            file.write_all_at(b"abc", 0).unwrap_err();
            written.insert(machine.read_file("/d/b").unwrap().len());
            machine.crash_with(|_| 0);
            named.insert(machine.files().len());
        }
        assert_eq!(written, BTreeSet::from([0, 1, 2, 3]));
        assert_eq!(named, BTreeSet::from([0, 1, 2]));
    }

    /// A file that was emptied, and whose old sectors outlive the crash while its length does not.
    #[test]
    fn what_lies_behind_the_end_of_a_file_is_not_found_again() {
        for length in [0usize, 100, 512, 700] {
            let machine = MemStorage::new(1);
            machine.create_dir_all(Path::new("/d")).unwrap();
            let path = Path::new("/d/file");
            let file = machine.open(path, Access::Create).unwrap();
            file.write_all_at(&[7; 2000], 0).unwrap();
            file.sync_data().unwrap();
            machine.sync_dir(Path::new("/d")).unwrap();
            let file = machine.open(path, Access::Create).unwrap();
            file.allocate(length as u64).unwrap();
            // Four sectors were emptied; what is asked for last is the length.
            let mut asked = 0;
            machine.crash_with(|choices| {
                asked += 1;
                if asked <= 4 { 0 } else { choices - 1 }
            });
            assert_eq!(machine.read_file(path), Some(vec![7; length]));
            let file = machine.open(path, Access::Write).unwrap();
            file.allocate(2000).unwrap();
            let mut expected = vec![7; length];
            expected.resize(2000, 0);
            assert_eq!(machine.read_file(path), Some(expected));
        }
    }

    /// The same calls on the machine's own file system come to the same, and so they do after a crash, if all was synced.
    #[test]
    fn without_faults_it_cannot_be_told_from_a_good_disk() {
        for seed in 0..30 {
            let chance = MemStorage::new(seed);
            let below = |limit: usize| {
                let mut bytes = [0; 8];
                chance.fill_random(&mut bytes).unwrap();
                (u64::from_le_bytes(bytes) % limit as u64) as usize
            };
            let temporary = tempfile::tempdir().unwrap();
            let (machine, os) = (MemStorage::new(seed), crate::OsStorage::new());
            let dir = temporary.path();
            machine.create_dir_all(dir).unwrap();
            let disks: [&dyn Storage; 2] = [&machine, &os];
            for _ in 0..60 {
                let [path, other] = [below(3), below(3)].map(|name| dir.join(name.to_string()));
                let access = [Access::Create, Access::Write, Access::Read][below(3)];
                let (what, at, count) = (below(7), below(3000), 1 + below(1500));
                let fill = [0, 1 + below(255) as u8][below(2)];
                let [ours, theirs] = disks.map(|disk| match what {
                    0..4 => disk.open(&path, access).and_then(|file| match what {
                        0 => file.allocate((at + count) as u64),
                        _ => file.write_all_at(&vec![fill; count], at as u64),
                    }),
                    4 => disk.rename(&path, &other),
                    5 => disk.remove(&path),
                    _ => Ok(()),
                });
                assert_eq!(ours.is_ok(), theirs.is_ok(), "{ours:?}, {theirs:?}");
                if what == 6 {
                    for name in machine.list(dir).unwrap() {
                        let file = machine.open(&dir.join(name), Access::Read).unwrap();
                        file.sync_data().unwrap();
                    }
                    machine.sync_dir(dir).unwrap();
                    machine.crash();
                }
                let [names, expected] = disks.map(|disk| disk.list(dir).unwrap());
                assert_eq!(names, expected, "seed {seed}");
                for name in names {
                    let files =
                        disks.map(|disk| disk.open(&dir.join(&name), Access::Read).unwrap());
                    let [ours, theirs] = &files;
                    let length = ours.length().unwrap();
                    assert_eq!(length, theirs.length().unwrap());
                    let (from, count) = (below(length as usize + 9), below(3000));
                    let [read, expected] = files.each_ref().map(|file| {
                        let mut bytes = vec![0; count];
                        let count = file.read_at(&mut bytes, from as u64).unwrap();
                        bytes.truncate(count);
                        bytes
                    });
                    assert_eq!(read, expected, "seed {seed}, {count} bytes at {from}");
                    // Holes are known better than by most file systems: to the sector.
                    let mut whole = vec![0; length as usize];
                    ours.read_at(&mut whole, 0).unwrap();
                    let holes: Vec<bool> = whole
                        .chunks(512)
                        .map(|sector| sector.iter().all(|&byte| byte == 0))
                        .collect();
                    let is_hole = |at: usize| holes[at / 512];
                    let first =
                        |wanted: bool| (from..whole.len()).find(|&at| is_hole(at) == wanted);
                    let data = ours.next_data(from as u64).unwrap();
                    assert_eq!(data, first(false).map(|at| at as u64));
                    if data == Some(from as u64) {
                        let hole = first(true).map_or(length, |at| at as u64);
                        assert_eq!(ours.next_hole(from as u64).unwrap(), hole);
                    }
                }
            }
        }
    }

    /// Whoever ran before cannot write to what is there afterwards, nor give back a lock that somebody else has taken.
    #[test]
    fn nobody_outlives_a_crash_or_a_kill() {
        for is_crash in [false, true] {
            let machine = MemStorage::new(1);
            machine.create_dir_all(Path::new("/d")).unwrap();
            let (path, lock) = (Path::new("/d/file"), Path::new("/d/lock"));
            for life in 0..3u8 {
                let file = machine.open(path, Access::Create).unwrap();
                file.write_all_at(&[life], 0).unwrap();
                file.sync_data().unwrap();
                machine.sync_dir(Path::new("/d")).unwrap();
                let Lock::Held(held) = machine.lock(lock).unwrap() else {
                    panic!("nobody else has it")
                };
                if is_crash {
                    machine.crash();
                } else {
                    machine.kill();
                }
                assert!(file.write_all_at(b"x", 0).is_err());
                assert!(file.read_at(&mut [0], 0).is_err());
                assert!(file.sync_data().is_err() && file.length().is_err());
                assert_eq!(machine.read_file(path), Some(vec![life]));
                let taken = machine.lock(lock).unwrap();
                drop(held);
                assert!(matches!(machine.lock(lock).unwrap(), Lock::Taken { .. }));
                drop(taken);
            }
        }
    }

    #[test]
    fn a_disk_is_full_when_its_last_byte_is_taken() {
        let machine = MemStorage::new(1);
        machine.create_dir_all(Path::new("/d")).unwrap();
        machine.set_capacity(1000);
        let make = |name: &str| machine.open(Path::new(name), Access::Create).unwrap();
        let is_full = |done: io::Result<()>| done.unwrap_err().kind() == ErrorKind::StorageFull;
        let (first, second) = (make("/d/first"), make("/d/second"));
        first.allocate(600).unwrap();
        assert!(is_full(second.allocate(401)));
        assert!(is_full(second.write_all_at(b"xy", 399)));
        second.write_all_at(b"x", 399).unwrap();
        // What is there can be written again, and what is removed makes room.
        first.write_all_at(&[1; 600], 0).unwrap();
        assert!(is_full(first.write_all_at(b"x", 600)));
        machine.remove(Path::new("/d/second")).unwrap();
        first.allocate(1000).unwrap();
        // Also where there is less room than is taken.
        machine.set_capacity(10);
        first.write_all_at(&[2; 1000], 0).unwrap();
    }

    #[test]
    fn the_nth_operation_of_its_kind_fails_and_no_other() {
        for nth in 1..=4 {
            let machine = MemStorage::new(1);
            machine.create_dir_all(Path::new("/d")).unwrap();
            let file = machine.open(Path::new("/d/file"), Access::Create).unwrap();
            machine.fail(Op::Write, nth, ErrorKind::Other);
            let failed: Vec<bool> = (0..6)
                .map(|_| {
                    file.sync_data().unwrap();
                    file.write_all_at(b"x", 0).is_err()
                })
                .collect();
            let expected: Vec<bool> = (1..=6).map(|number| number == nth).collect();
            assert_eq!(failed, expected);
        }
    }
}

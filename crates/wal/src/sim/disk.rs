//! The state of a simulated machine: what its files hold, what of that is durable, what is to fail.
//!
//! The one idea: everything volatile is a list of *versions* since the last sync, and a crash picks
//! one of each. Files are kept as the sectors that are not zero, so that preallocated segments of
//! any size cost nothing.
//!
//! Invariant: whatever is ordered is ordered by number or name, never by address or hash.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Op;
use crate::storage::Access;

const SECTOR_BYTES: usize = 512;
/// When the simulated world begins: 2025-01-01, in milliseconds since 1970.
const EPOCH_UNIX_MS: u64 = 1_735_689_600_000;

type Sector = [u8; SECTOR_BYTES];
const ZEROS: Sector = [0; SECTOR_BYTES];

/// The SplitMix64 generator (Steele, Lea, Flood, 2014): small, fast, seedable from any number.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// What a file holds: its length and its sectors; those that are missing are zeros.
#[derive(Clone, Debug, Default)]
struct Content {
    length: u64,
    sectors: BTreeMap<u64, Box<Sector>>,
}

impl Content {
    fn of(bytes: &[u8]) -> Self {
        let mut content = Content {
            length: bytes.len() as u64,
            ..Content::default()
        };
        for (number, chunk) in bytes.chunks(SECTOR_BYTES).enumerate() {
            let mut sector = ZEROS;
            sector[..chunk.len()].copy_from_slice(chunk);
            content.set(number as u64, &sector);
        }
        content
    }

    fn sector(&self, number: u64) -> &Sector {
        self.sectors.get(&number).map_or(&ZEROS, |sector| sector)
    }

    fn set(&mut self, number: u64, sector: &Sector) {
        if *sector == ZEROS {
            self.sectors.remove(&number);
        } else {
            self.sectors.insert(number, Box::new(*sector));
        }
    }

    fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let count = self.length.saturating_sub(offset).min(buf.len() as u64) as usize;
        let mut done = 0;
        while done < count {
            let at = offset + done as u64;
            let within = (at % SECTOR_BYTES as u64) as usize;
            let part = (SECTOR_BYTES - within).min(count - done);
            let sector = self.sector(at / SECTOR_BYTES as u64);
            buf[done..done + part].copy_from_slice(&sector[within..within + part]);
            done += part;
        }
        count
    }

    /// Nothing lies beyond the length, so that a file that grows again grows by zeros.
    fn trim(&mut self) {
        let whole = self.length / SECTOR_BYTES as u64;
        self.sectors
            .split_off(&self.length.div_ceil(SECTOR_BYTES as u64));
        if let Some(last) = self.sectors.get_mut(&whole) {
            last[(self.length % SECTOR_BYTES as u64) as usize..].fill(0);
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Inode {
    live: Content,
    durable: Content,
    /// The versions of each sector since the last sync, oldest first.
    sectors: BTreeMap<u64, Vec<Sector>>,
    /// The lengths since the last sync, oldest first.
    lengths: Vec<u64>,
    /// How long it is at least because room was reserved for it.
    reserved: u64,
}

impl Inode {
    fn write_sector(&mut self, number: u64, sector: &Sector) {
        self.live.set(number, sector);
        self.sectors.entry(number).or_default().push(*sector);
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + done as u64;
            let (number, within) = (
                at / SECTOR_BYTES as u64,
                (at % SECTOR_BYTES as u64) as usize,
            );
            let part = (SECTOR_BYTES - within).min(bytes.len() - done);
            let mut sector = *self.live.sector(number);
            sector[within..within + part].copy_from_slice(&bytes[done..done + part]);
            self.write_sector(number, &sector);
            done += part;
        }
        self.grow(offset + bytes.len() as u64);
    }

    fn grow(&mut self, length: u64) {
        if length > self.live.length {
            self.live.length = length;
            self.lengths.push(length);
        }
    }

    fn empty(&mut self) {
        let numbers: Vec<u64> = self.live.sectors.keys().copied().collect();
        for number in numbers {
            self.write_sector(number, &ZEROS);
        }
        self.live.length = 0;
        self.reserved = 0;
        self.lengths.push(0);
    }

    fn settle(&mut self, choose: &mut dyn FnMut(usize) -> usize) {
        for (number, versions) in std::mem::take(&mut self.sectors) {
            match choose(versions.len() + 1) {
                0 => {}
                nth => self.durable.set(number, &versions[nth - 1]),
            }
        }
        let lengths = std::mem::take(&mut self.lengths);
        if !lengths.is_empty() {
            match choose(lengths.len() + 1) {
                0 => {}
                nth => self.durable.length = lengths[nth - 1],
            }
        }
        self.durable.trim();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    File(usize),
}

#[derive(Clone, Debug)]
enum NameChange {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl NameChange {
    fn dir(&self) -> &Path {
        let (NameChange::Create(path, _) | NameChange::Rename(path, _) | NameChange::Remove(path)) =
            self;
        path.parent().unwrap_or(Path::new(""))
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            NameChange::Create(path, inode) => {
                names.insert(path.clone(), Node::File(*inode));
            }
            NameChange::Rename(from, to) => {
                // What it renames may itself not have survived.
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
            }
            NameChange::Remove(path) => {
                names.remove(path);
            }
        }
    }
}

#[derive(Clone, Debug)]
struct Fault {
    op: Op,
    /// How many more such operations succeed.
    spare: u64,
    error: ErrorKind,
}

/// The whole machine.
#[derive(Clone, Debug)]
pub(super) struct Disk {
    random: Random,
    /// Counts crashes and kills: handles and locks of an earlier life are void.
    life: u64,
    now: Duration,
    /// By how much the wall clock was set forward, or back, in milliseconds.
    wall_offset_ms: i64,
    sync_latency: Duration,
    capacity: u64,
    inodes: Vec<Inode>,
    live_names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    name_changes: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
    faults: Vec<Fault>,
    changes: u64,
    /// After how many changes in all the power is off.
    power_until: u64,
}

impl Disk {
    pub(super) fn new(seed: u64) -> Self {
        Disk {
            random: Random(seed),
            life: 0,
            now: Duration::ZERO,
            wall_offset_ms: 0,
            sync_latency: Duration::ZERO,
            capacity: u64::MAX,
            inodes: Vec::new(),
            live_names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            name_changes: Vec::new(),
            locks: BTreeSet::new(),
            faults: Vec::new(),
            changes: 0,
            power_until: u64::MAX,
        }
    }

    pub(super) fn split_random(&mut self) -> Random {
        Random(self.random.next())
    }

    pub(super) fn crash(&mut self, choose: &mut dyn FnMut(usize) -> usize) {
        for change in std::mem::take(&mut self.name_changes) {
            if choose(2) == 1 {
                change.apply(&mut self.durable_names);
            }
        }
        for inode in &mut self.inodes {
            inode.settle(choose);
            inode.live = inode.durable.clone();
        }
        self.live_names = self.durable_names.clone();
        self.forget_processes();
        self.faults.clear();
        self.power_until = u64::MAX;
    }

    pub(super) fn forget_processes(&mut self) {
        self.life += 1;
        self.locks.clear();
    }

    pub(super) fn add_fault(&mut self, op: Op, nth: u64, error: ErrorKind) {
        self.faults.push(Fault {
            op,
            spare: nth.saturating_sub(1),
            error,
        });
    }

    pub(super) fn power_off_after(&mut self, count: u64) {
        self.power_until = self.changes.saturating_add(count);
    }

    pub(super) fn changes(&self) -> u64 {
        self.changes
    }

    pub(super) fn has_power(&self) -> bool {
        self.changes < self.power_until
    }

    pub(super) fn heal(&mut self) {
        self.faults.clear();
        if self.has_power() {
            self.power_until = u64::MAX;
        }
        self.capacity = u64::MAX;
        self.sync_latency = Duration::ZERO;
    }

    pub(super) fn set_capacity(&mut self, bytes: u64) {
        self.capacity = bytes;
    }

    pub(super) fn used_bytes(&self) -> u64 {
        let files = self.live_names.values().filter_map(|node| match node {
            Node::File(inode) => Some(self.inodes[*inode].live.length),
            Node::Dir => None,
        });
        files.sum()
    }

    pub(super) fn advance(&mut self, time: Duration) {
        self.now += time;
    }

    pub(super) fn set_sync_latency(&mut self, time: Duration) {
        self.sync_latency = time;
    }

    pub(super) fn now(&self) -> Duration {
        self.now
    }

    pub(super) fn unix_ms(&self) -> u64 {
        (EPOCH_UNIX_MS + self.now.as_millis() as u64).saturating_add_signed(self.wall_offset_ms)
    }

    pub(super) fn set_wall_clock(&mut self, by_ms: i64) {
        self.wall_offset_ms = self.wall_offset_ms.saturating_add(by_ms);
    }

    pub(super) fn fill_random(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.random.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }

    pub(super) fn files(&self) -> Vec<PathBuf> {
        let files = self
            .live_names
            .iter()
            .filter(|(_, node)| **node != Node::Dir);
        files.map(|(path, _)| path.clone()).collect()
    }

    pub(super) fn read_file(&self, path: &Path) -> Option<Vec<u8>> {
        let content = &self.inodes[self.find(path).ok()?].live;
        let mut bytes = vec![0; content.length as usize];
        content.read(&mut bytes, 0);
        Some(bytes)
    }

    pub(super) fn write_file(&mut self, path: &Path, bytes: &[u8]) {
        let inode = self.find(path).unwrap_or_else(|_| {
            self.inodes.push(Inode::default());
            let inode = self.inodes.len() - 1;
            self.live_names.insert(path.to_owned(), Node::File(inode));
            self.durable_names
                .insert(path.to_owned(), Node::File(inode));
            inode
        });
        let content = Content::of(bytes);
        self.inodes[inode] = Inode {
            durable: content.clone(),
            live: content,
            ..Inode::default()
        };
    }

    pub(super) fn check_life(&self, life: u64) -> io::Result<()> {
        if life == self.life {
            return Ok(());
        }
        Err(io::Error::other("the file was opened before the crash"))
    }

    pub(super) fn create_dir_all(&mut self, dir: &Path) -> io::Result<()> {
        for ancestor in dir.ancestors() {
            if let Some(Node::File(_)) = self.live_names.get(ancestor) {
                return Err(ErrorKind::NotADirectory.into());
            }
            self.live_names.insert(ancestor.to_owned(), Node::Dir);
            self.durable_names.insert(ancestor.to_owned(), Node::Dir);
        }
        Ok(())
    }

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        self.check_dir(dir)?;
        let inside = self
            .live_names
            .keys()
            .filter(|path| path.parent() == Some(dir));
        let names = inside.filter_map(|path| path.file_name()?.to_str().map(str::to_owned));
        Ok(names.collect())
    }

    /// Returns the file and the life it is opened in.
    pub(super) fn open(&mut self, path: &Path, access: Access) -> io::Result<(usize, u64)> {
        self.strike(Op::Open)?;
        let found = self.find(path);
        if access != Access::Create {
            return Ok((found?, self.life));
        }
        self.check_dir(path.parent().unwrap_or(Path::new("")))?;
        self.change(None)?;
        let inode = match found {
            Ok(inode) => {
                self.inodes[inode].empty();
                inode
            }
            Err(_) => {
                self.inodes.push(Inode::default());
                let inode = self.inodes.len() - 1;
                self.change_names(NameChange::Create(path.to_owned(), inode));
                inode
            }
        };
        Ok((inode, self.life))
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Some(Op::Rename))?;
        self.find(from)?;
        debug_assert_eq!(
            from.parent(),
            to.parent(),
            "one directory sync must cover a renaming"
        );
        self.change_names(NameChange::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        self.change(Some(Op::Remove))?;
        self.find(path)?;
        self.change_names(NameChange::Remove(path.to_owned()));
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, dir: &Path) -> io::Result<()> {
        self.check_dir(dir)?;
        self.check_power()?;
        let struck = self.change(Some(Op::SyncDir));
        let changes = std::mem::take(&mut self.name_changes);
        let (mut here, elsewhere): (Vec<_>, Vec<_>) =
            changes.into_iter().partition(|change| change.dir() == dir);
        // Names are kept in a journal: what was not made durable is not forgotten, but still to do.
        let done = match struck {
            Ok(()) => here.len(),
            Err(_) => self.random.next() as usize % (here.len() + 1),
        };
        for change in here.drain(..done) {
            change.apply(&mut self.durable_names);
        }
        self.name_changes = elsewhere;
        self.name_changes.append(&mut here);
        struck
    }

    /// Takes a lock; `None` if somebody has it.
    pub(super) fn lock(&mut self, path: &Path) -> io::Result<Option<u64>> {
        self.check_dir(path.parent().unwrap_or(Path::new("")))?;
        self.check_power()?;
        Ok(self.locks.insert(path.to_owned()).then_some(self.life))
    }

    pub(super) fn unlock(&mut self, path: &Path, life: u64) {
        if life == self.life {
            self.locks.remove(path);
        }
    }

    pub(super) fn read(&mut self, inode: usize, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.strike(Op::Read)?;
        Ok(self.inodes[inode].live.read(buf, offset))
    }

    pub(super) fn write(&mut self, inode: usize, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.check_power()?;
        self.check_room(inode, offset + bytes.len() as u64)?;
        let struck = self.change(Some(Op::Write));
        let written = match struck {
            Ok(()) => bytes.len(),
            Err(_) => self.random.next() as usize % (bytes.len() + 1),
        };
        if written > 0 {
            self.inodes[inode].write(&bytes[..written], offset);
        }
        struck
    }

    pub(super) fn sync(&mut self, inode: usize) -> io::Result<()> {
        self.check_power()?;
        let struck = self.change(Some(Op::Sync));
        self.now += self.sync_latency;
        if struck.is_ok() {
            self.inodes[inode].settle(&mut |choices| choices - 1);
            return Ok(());
        }
        // Whatever did not make it is not tried again, and reading shows it all the same.
        let mut random = self.split_random();
        let inode = &mut self.inodes[inode];
        inode.settle(&mut |choices| if random.coin() { choices - 1 } else { 0 });
        if inode.durable.length < inode.reserved {
            // Room is reserved by the file system's journal, which forgets nothing: this is still to do.
            inode.lengths.push(inode.reserved);
        }
        struck
    }

    pub(super) fn allocate(&mut self, inode: usize, bytes: u64) -> io::Result<()> {
        self.check_room(inode, bytes)?;
        self.change(Some(Op::Allocate))?;
        let inode = &mut self.inodes[inode];
        inode.reserved = inode.reserved.max(bytes);
        inode.grow(bytes);
        Ok(())
    }

    pub(super) fn length(&self, inode: usize) -> u64 {
        self.inodes[inode].live.length
    }

    pub(super) fn next_data(&self, inode: usize, offset: u64) -> Option<u64> {
        let live = &self.inodes[inode].live;
        let (&number, _) = live.sectors.range(offset / SECTOR_BYTES as u64..).next()?;
        Some(offset.max(number * SECTOR_BYTES as u64)).filter(|&data| data < live.length)
    }

    pub(super) fn next_hole(&self, inode: usize, offset: u64) -> u64 {
        let live = &self.inodes[inode].live;
        let mut number = offset / SECTOR_BYTES as u64;
        while live.sectors.contains_key(&number) {
            number += 1;
        }
        offset.max(number * SECTOR_BYTES as u64).min(live.length)
    }

    fn find(&self, path: &Path) -> io::Result<usize> {
        match self.live_names.get(path) {
            Some(Node::File(inode)) => Ok(*inode),
            Some(Node::Dir) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn check_dir(&self, dir: &Path) -> io::Result<()> {
        match self.live_names.get(dir) {
            Some(Node::Dir) => Ok(()),
            Some(Node::File(_)) => Err(ErrorKind::NotADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn check_room(&self, inode: usize, length: u64) -> io::Result<()> {
        let growth = length.saturating_sub(self.inodes[inode].live.length);
        if growth > 0 && self.used_bytes().saturating_add(growth) > self.capacity {
            return Err(ErrorKind::StorageFull.into());
        }
        Ok(())
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.live_names);
        self.name_changes.push(change);
    }

    /// Counts an operation that changes something, and lets it fail if it is to.
    fn change(&mut self, op: Option<Op>) -> io::Result<()> {
        self.check_power()?;
        self.changes += 1;
        op.map_or(Ok(()), |op| self.strike(op))
    }

    fn check_power(&self) -> io::Result<()> {
        if self.has_power() {
            return Ok(());
        }
        Err(io::Error::other("the power is off"))
    }

    fn strike(&mut self, op: Op) -> io::Result<()> {
        let mut struck = None;
        self.faults.retain_mut(|fault| {
            if fault.op != op {
                return true;
            }
            if fault.spare > 0 {
                fault.spare -= 1;
                return true;
            }
            struck = Some(fault.error);
            false
        });
        struck.map_or(Ok(()), |error| Err(error.into()))
    }
}

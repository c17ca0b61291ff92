//! A block device that loses what was not flushed, with a real file system on it.
//!
//! The kernel's own tools for this (`dm-flakey`, `dm-log-writes`) want the device mapper, which not every machine has. What
//! every machine has is FUSE and loop devices, and they come to the same: one file, served by this process from memory; a
//! loop device over it; ext4 on that. A flush of the block layer arrives here as an `fsync` of the file, so that what is
//! durable is known exactly, and it is the kernel's own journal that puts the file system right after a cut.
//!
//! At a *cut* every sector of 512 bytes that was written since the last flush holds any one of its versions, independently
//! of all others. From the moment of the cut on the device answers nobody, until it is told that everybody is dead: so
//! nobody acts on a flush that never was.
//!
//! All mounts are in a mount namespace of their own, which a process holds that does nothing. No trace of them is left on
//! the machine, whatever becomes of the test.
//!
//! The protocol is that of `include/uapi/linux/fuse.h`, of which one file needs very little.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::{Lines, Node, Place, Random};

const SECTOR_BYTES: usize = 512;
const DISK_BYTES: u64 = 32 << 20;
/// The longest write of one request.
const WRITE_BYTES_MAX: u32 = 128 << 10;
/// Room for a request: a write with its headers.
const REQUEST_BYTES_MAX: usize = WRITE_BYTES_MAX as usize + 4096;

/// A small disk with ext4 on it.
#[derive(Debug)]
pub(crate) struct PowerDisk {
    shared: Arc<Shared>,
    server: Option<JoinHandle<()>>,
    holder: Child,
    /// Where the device's file is.
    device: PathBuf,
    /// Where the file system is.
    inside: PathBuf,
    is_mounted: bool,
    _place: Place,
}

#[derive(Debug)]
struct Shared {
    disk: Mutex<Disk>,
    changed: Condvar,
}

impl Shared {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is on the disk, and what of it is there for good.
#[derive(Debug)]
struct Disk {
    live: Vec<u8>,
    durable: Vec<u8>,
    /// The versions of each sector since the last flush, oldest first.
    unsynced: BTreeMap<u64, Vec<[u8; SECTOR_BYTES]>>,
    random: Random,
    /// How many times the power came back: part of the file's name, so that nobody of an earlier life finds it.
    life: u64,
    power: Power,
    /// Writes and flushes until the cut.
    until_cut: Option<u64>,
    /// What cuts have come upon.
    tally: Tally,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Power {
    On,
    /// The power has failed, and nobody is answered.
    Cut,
    /// Everybody who asks is dead or on the way out: they see what they write, and none of it survives.
    Void,
}

/// What the cuts came upon; a test that came upon nothing shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) cuts: usize,
    /// Cuts at which there was something to lose.
    pub(crate) cuts_with_unsynced: usize,
    pub(crate) sectors_lost: usize,
    pub(crate) sectors_kept: usize,
}

impl Disk {
    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let start = offset as usize;
        self.live[start..start + bytes.len()].copy_from_slice(bytes);
        if self.power == Power::Void {
            return;
        }
        let first = start / SECTOR_BYTES;
        let last = (start + bytes.len()).div_ceil(SECTOR_BYTES);
        for sector in first..last {
            let version = self.live[sector * SECTOR_BYTES..].first_chunk();
            let version = version.expect("the disk is whole sectors");
            self.unsynced
                .entry(sector as u64)
                .or_default()
                .push(*version);
        }
    }

    fn flush(&mut self) {
        if self.power == Power::Void {
            return;
        }
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            let newest = versions
                .last()
                .expect("a sector is here because it was written");
            self.durable[sector as usize * SECTOR_BYTES..][..SECTOR_BYTES].copy_from_slice(newest);
        }
    }

    /// Counts a write or flush. At the last one before the cut the power fails, before it is done.
    fn count_down(&mut self) {
        if let Some(left) = &mut self.until_cut {
            if *left > 0 {
                *left -= 1;
                return;
            }
            self.until_cut = None;
            self.power = Power::Cut;
        }
    }

    /// The power comes back, and the disk holds what has survived.
    fn restore(&mut self) {
        self.tally.cuts += 1;
        self.tally.cuts_with_unsynced += usize::from(!self.unsynced.is_empty());
        // From nearly nothing to nearly everything: a cache that was just flushed, one that was nearly through.
        let kept_of_eight = self.random.below(9);
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            if self.random.below(8) < kept_of_eight {
                let version = &versions[self.random.below(versions.len() as u64) as usize];
                self.durable[sector as usize * SECTOR_BYTES..][..SECTOR_BYTES]
                    .copy_from_slice(version);
                self.tally.sectors_kept += 1;
            } else {
                self.tally.sectors_lost += 1;
            }
        }
        self.live.copy_from_slice(&self.durable);
        self.life += 1;
        self.power = Power::On;
    }
}

impl PowerDisk {
    /// A disk that was just formatted, mounted.
    ///
    /// # Errors
    /// What this machine does not have.
    pub(crate) fn new(seed: u64) -> Result<Self, String> {
        if !rustix::process::geteuid().is_root() {
            return Err("only root may make loop devices".to_owned());
        }
        let fuse = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let fuse = fuse.map_err(|error| format!("no /dev/fuse: {error}"))?;
        let place = Place::new();
        let bytes = formatted(&place)?;
        for directory in ["device", "disk"] {
            std::fs::create_dir(place.path(directory)).map_err(|error| error.to_string())?;
        }
        let shared = Arc::new(Shared {
            disk: Mutex::new(Disk {
                live: bytes.clone(),
                durable: bytes,
                unsynced: BTreeMap::new(),
                random: Random::new(seed),
                life: 0,
                power: Power::On,
                until_cut: None,
                tally: Tally::default(),
            }),
            changed: Condvar::new(),
        });
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", "echo up && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("no unshare: {error}"))?;
        let said = Lines::of("the holder", holder.stdout.take().expect("it was piped"));
        while said.so_far().is_empty() && !said.is_over() {
            std::thread::yield_now();
        }
        let mut disk = Self {
            shared: Arc::clone(&shared),
            server: None,
            holder,
            device: place.path("device"),
            inside: place.path("disk"),
            is_mounted: false,
            _place: place,
        };
        if said.so_far() != ["up"] {
            return Err("no mount namespace can be made".to_owned());
        }
        // The descriptor is handed over as standard input; there is no helper in the way.
        let mut mount = disk.enter("mount");
        mount
            .args([
                "-i",
                "-t",
                "fuse",
                "-o",
                "fd=0,rootmode=40000,user_id=0,group_id=0",
                "device",
            ])
            .arg(&disk.device)
            .stdin(Stdio::from(
                fuse.try_clone().map_err(|error| error.to_string())?,
            ));
        run(&mut mount)?;
        disk.server = Some(std::thread::spawn(move || serve(&fuse, &shared)));
        disk.mount()?;
        Ok(disk)
    }

    /// A command where the disk is mounted.
    fn enter(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "--mount",
                "--target",
                &self.holder.id().to_string(),
                "--",
                program,
            ])
            .stdin(Stdio::null());
        command
    }

    fn mount(&mut self) -> Result<(), String> {
        let file = self.device.join(file_name(self.shared.disk().life));
        let mut mount = self.enter("mount");
        mount
            .args(["-t", "ext4", "-o", "loop"])
            .arg(file)
            .arg(&self.inside);
        run(&mut mount)?;
        self.is_mounted = true;
        Ok(())
    }

    fn unmount(&mut self) -> Result<(), String> {
        let mut umount = self.enter("umount");
        umount.arg(&self.inside);
        run(&mut umount)?;
        self.is_mounted = false;
        Ok(())
    }

    /// A directory on the disk, as those see it who are where it is mounted.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.inside.join(name)
    }

    /// The same, as it is seen from outside.
    pub(crate) fn seen_from_here(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        let path = self.path(name);
        root.join(path.strip_prefix("/").expect("it is absolute"))
    }

    /// The binary with a node's config, run where the disk is mounted.
    pub(crate) fn command(&self, node: &Node, args: &[&str]) -> Command {
        let inner = node.command(args);
        let mut command = self.enter("env");
        command
            .arg("-C")
            .arg(inner.get_current_dir().unwrap_or(Path::new("/")))
            .arg(inner.get_program())
            .args(inner.get_args())
            .env_clear();
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command
    }

    /// Lets the power fail after so many more writes and flushes.
    pub(crate) fn cut_after(&self, operations: u64) {
        self.shared.disk().until_cut = Some(operations);
    }

    /// Lets the power fail now.
    pub(crate) fn cut(&self) {
        let mut disk = self.shared.disk();
        disk.until_cut = None;
        disk.power = Power::Cut;
    }

    /// Whether the power has failed.
    pub(crate) fn is_cut(&self) -> bool {
        self.shared.disk().power == Power::Cut
    }

    /// Says that everybody is dead who could take an answer for what it is not. Their last requests come back.
    pub(crate) fn everybody_is_dead(&self) {
        self.shared.disk().power = Power::Void;
        self.shared.changed.notify_all();
    }

    /// The power comes back. The file system is mounted again, as its journal says it should be.
    pub(crate) fn restore(&mut self) -> Result<(), String> {
        self.unmount()?;
        self.shared.disk().restore();
        self.mount()
    }

    pub(crate) fn tally(&self) -> Tally {
        self.shared.disk().tally
    }
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        self.everybody_is_dead();
        if self.is_mounted {
            let _ = self.unmount();
        }
        let mut umount = self.enter("umount");
        umount.args(["--lazy"]).arg(&self.device);
        let _ = run(&mut umount);
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        // With its mount the connection is over, and so is the server; without, it ends with this process.
        if let Some(server) = self.server.take_if(|_| !self.is_mounted) {
            let _ = server.join();
        }
    }
}

/// The bytes of a new file system.
fn formatted(place: &Place) -> Result<Vec<u8>, String> {
    let file = place.path("image");
    let image = File::create(&file).and_then(|image| image.set_len(DISK_BYTES));
    image.map_err(|error| error.to_string())?;
    let mut mkfs = Command::new("mkfs.ext4");
    mkfs.args([
        "-q",
        "-F",
        "-b",
        "4096",
        "-J",
        "size=4",
        "-E",
        "lazy_itable_init=0,lazy_journal_init=0",
    ])
    .arg(&file);
    run(&mut mkfs)?;
    std::fs::read(&file).map_err(|error| error.to_string())
}

fn run(command: &mut Command) -> Result<(), String> {
    let done = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    let complaint = String::from_utf8_lossy(&done.stderr);
    match done.status.success() {
        true => Ok(()),
        false => Err(format!("{command:?}: {}", complaint.trim())),
    }
}

fn file_name(life: u64) -> String {
    format!("life-{life}")
}

// --- the protocol ---

/// The inode of the directory.
const ROOT: u64 = 1;
/// The inode of the file in life 0; each life has its own.
const FILE: u64 = 2;

/// The one request of which a part may be done although it is never answered.
const WRITE: u32 = 16;

const ENOENT: i32 = 2;
const EIO: i32 = 5;
const ENOSYS: i32 = 38;
const ESTALE: i32 = 116;

/// Numbers, one after another, little endian as on every machine this runs on.
#[derive(Default)]
struct Answer(Vec<u8>);

impl Answer {
    fn u16(mut self, number: u16) -> Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    fn u32(mut self, number: u32) -> Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    fn u64(mut self, number: u64) -> Self {
        self.0.extend(number.to_ne_bytes());
        self
    }

    fn zeros(mut self, count: usize) -> Self {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    /// `struct fuse_attr`.
    fn attributes(self, inode: u64) -> Self {
        const DIRECTORY: u32 = 0o040_755;
        const REGULAR: u32 = 0o100_600;
        let (mode, size) = match inode {
            ROOT => (DIRECTORY, 0),
            _ => (REGULAR, DISK_BYTES),
        };
        let times = 3 * 8 + 3 * 4;
        self.u64(inode)
            .u64(size)
            .u64(size / SECTOR_BYTES as u64)
            .zeros(times)
            .u32(mode)
            .u32(1)
            .zeros(3 * 4)
            .u32(4096)
            .zeros(4)
    }
}

struct Request<'a> {
    opcode: u32,
    unique: u64,
    inode: u64,
    body: &'a [u8],
}

impl<'a> Request<'a> {
    /// `struct fuse_in_header` and what follows it.
    fn read(bytes: &'a [u8]) -> Self {
        Self {
            opcode: u32_at(bytes, 4),
            unique: u64_at(bytes, 8),
            inode: u64_at(bytes, 16),
            body: &bytes[40..],
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(
        *bytes[at..]
            .first_chunk()
            .expect("the kernel sends whole requests"),
    )
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_ne_bytes(
        *bytes[at..]
            .first_chunk()
            .expect("the kernel sends whole requests"),
    )
}

/// Answers the kernel until the file is unmounted.
fn serve(mut fuse: &File, shared: &Shared) {
    let mut bytes = vec![0; REQUEST_BYTES_MAX];
    loop {
        let length = match fuse.read(&mut bytes) {
            Ok(length) => length,
            // A request that was taken back before it was read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => return,
        };
        let request = Request::read(&bytes[..length]);
        let Some(answer) = answer(&request, shared) else {
            continue;
        };
        let (error, body) = match answer {
            Ok(Answer(body)) => (0, body),
            Err(error) => (-error, Vec::new()),
        };
        // `struct fuse_out_header`.
        let mut reply = Answer::default()
            .u32(16 + body.len() as u32)
            .u32(error as u32)
            .u64(request.unique);
        reply.0.extend(body);
        // Whoever asked may be gone.
        let _ = fuse.write_all(&reply.0);
    }
}

/// What to say to a request; nothing to some.
fn answer(request: &Request<'_>, shared: &Shared) -> Option<Result<Answer, i32>> {
    const LOOKUP: u32 = 1;
    const FORGET: u32 = 2;
    const GETATTR: u32 = 3;
    const SETATTR: u32 = 4;
    const OPEN: u32 = 14;
    const READ: u32 = 15;
    const STATFS: u32 = 17;
    const RELEASE: u32 = 18;
    const FSYNC: u32 = 20;
    const FLUSH: u32 = 25;
    const INIT: u32 = 26;
    const INTERRUPT: u32 = 36;
    const DESTROY: u32 = 38;
    const BATCH_FORGET: u32 = 42;
    const VALID_S: u64 = 3600;

    let done = Answer::default();
    Some(Ok(match request.opcode {
        INIT => {
            const BIG_WRITES: u32 = 1 << 5;
            let flags = u32_at(request.body, 12) & BIG_WRITES;
            let (major, minor) = (7, 31);
            done.u32(major)
                .u32(minor)
                .u32(0)
                .u32(flags)
                .u16(12)
                .u16(9)
                .u32(WRITE_BYTES_MAX)
                .u32(1)
                .zeros(36)
        }
        LOOKUP => {
            let life = shared.disk().life;
            let name = request.body.split(|&byte| byte == 0).next();
            if name != Some(file_name(life).as_bytes()) {
                return Some(Err(ENOENT));
            }
            let inode = FILE + life;
            done.u64(inode)
                .u64(0)
                .u64(VALID_S)
                .u64(VALID_S)
                .zeros(8)
                .attributes(inode)
        }
        GETATTR | SETATTR => done.u64(VALID_S).zeros(8).attributes(request.inode),
        OPEN => {
            // No cache of the kernel's between the device and us.
            const DIRECT_IO: u32 = 1;
            done.u64(0).u32(DIRECT_IO).u32(0)
        }
        READ => {
            let (offset, size) = (u64_at(request.body, 8), u32_at(request.body, 16));
            let disk = shared.disk();
            if request.inode != FILE + disk.life {
                return Some(Err(ESTALE));
            }
            let start = offset.min(DISK_BYTES) as usize;
            let end = (start + size as usize).min(disk.live.len());
            Answer(disk.live[start..end].to_vec())
        }
        WRITE => {
            let (offset, size) = (u64_at(request.body, 8), u32_at(request.body, 16));
            let bytes = &request.body[40..][..size as usize];
            if offset + u64::from(size) > DISK_BYTES {
                return Some(Err(EIO));
            }
            change(request, shared, |disk| disk.write(offset, bytes));
            done.u32(size).u32(0)
        }
        FSYNC => {
            change(request, shared, Disk::flush);
            done
        }
        STATFS => done.zeros(80),
        RELEASE | FLUSH | DESTROY => done,
        FORGET | BATCH_FORGET | INTERRUPT => return None,
        _ => return Some(Err(ENOSYS)),
    }))
}

/// Does what changes the disk, or what becomes of it around a cut.
fn change(request: &Request<'_>, shared: &Shared, change: impl FnOnce(&mut Disk)) {
    let mut disk = shared.disk();
    if request.inode != FILE + disk.life {
        return;
    }
    if disk.power == Power::On {
        disk.count_down();
    }
    match disk.power {
        Power::On | Power::Void => change(&mut disk),
        // It was under way when the power failed, so it may be among what survives; a flush is not done.
        Power::Cut => {
            if request.opcode == WRITE {
                change(&mut disk);
            }
            let held = shared
                .changed
                .wait_while(disk, |disk| disk.power == Power::Cut);
            drop(held);
        }
    }
}

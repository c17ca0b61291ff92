//! A disk that is full.
//!
//! The daemon goes on, and recovers by itself once there is space; it does not exit. It can, because nothing is lost by
//! waiting: every segment is allocated before it is written to, so a full disk is met where the next segment would be
//! made, with nothing half written and nothing acknowledged that is not on the disk. An exit with 74 is for a disk that
//! *fails* (a write or an fsync that did not do what it said), where nothing that was written since can be relied on.
//! Only a start for which there is no space at all ends, with 74 and with what to do, since then no job could be run.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use crate::support::{Daemon, Entry, Journal, Lines, Node, Place, end_of, skip};

/// A small file system of its own, in a mount namespace of its own: no trace of it is left on the machine, whatever
/// becomes of the test. A process that does nothing holds it.
struct SmallDisk {
    holder: Child,
    inside: PathBuf,
    /// What occupies space on it, and can be removed.
    ballast: PathBuf,
    is_root: bool,
    _place: Place,
}

impl SmallDisk {
    fn new(size_kib: u64) -> Result<Self, String> {
        let place = Place::new();
        let inside = place.path("disk");
        fs::create_dir(&inside).map_err(|error| error.to_string())?;
        let script = format!(
            "mount -t tmpfs -o size={size_kib}k,mode=700 tmpfs '{}' && echo mounted && exec cat",
            inside.display()
        );
        let is_root = rustix::process::geteuid().is_root();
        let mut unshare = Command::new("unshare");
        unshare.arg("--mount");
        if !is_root {
            unshare.arg("--map-root-user");
        }
        let mut holder = unshare
            .args(["sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("no unshare: {error}"))?;
        let said = Lines::of("the mount", holder.stdout.take().expect("it was piped"));
        let complaint = Lines::of("the mount", holder.stderr.take().expect("it was piped"));
        // Either it says so, or its output ends.
        while said.so_far().is_empty() && !said.is_over() {
            std::thread::yield_now();
        }
        if said.so_far() != ["mounted"] {
            return Err(format!(
                "no tmpfs can be mounted: {}",
                complaint.all().join(" ")
            ));
        }
        let root = PathBuf::from(format!("/proc/{}/root", holder.id()));
        let seen_from_here = root.join(inside.strip_prefix("/").expect("it is absolute"));
        Ok(Self {
            holder,
            ballast: seen_from_here.join("ballast"),
            inside,
            is_root,
            _place: place,
        })
    }

    /// The binary, run where the disk is mounted.
    fn command(&self, node: &Node, args: &[&str]) -> Command {
        let inner = node.command(args);
        let mut command = Command::new("nsenter");
        command.arg("--mount");
        if !self.is_root {
            command.args(["--user", "--preserve-credentials"]);
        }
        command
            .args(["--target", &self.holder.id().to_string(), "--"])
            .arg("env")
            .arg("-C")
            .arg(inner.get_current_dir().unwrap_or(Path::new("/")))
            .arg(inner.get_program())
            .args(inner.get_args())
            .env_clear()
            .stdin(Stdio::null());
        for (name, value) in inner.get_envs() {
            command.env(name, value.unwrap_or_default());
        }
        command
    }

    /// Occupies so much of it, or all that is left.
    fn occupy(&self, kib: u64) {
        use std::io::Write;
        let mut ballast = fs::File::create(&self.ballast).expect("the disk is there");
        for _ in 0..kib {
            if ballast.write_all(&[1; 1024]).is_err() {
                return;
            }
        }
    }

    fn make_room(&self) {
        fs::remove_file(&self.ballast).expect("it is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // With its last process the namespace goes, and the mount with it.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

/// A job that writes far more to the log than one segment holds, once it is let, and one that there is no place for
/// until the first is over. So at any time there is somebody who knocks at the intake.
fn jobs() -> String {
    const STEPS: usize = 40;
    let mut config = "[wal]\nblob_threshold = \"200KiB\"\n[limits]\nlive_jobs = 1\n[shutdown]\ngrace = \"500ms\"\n\
         [[job]]\nname = \"writer\"\nprogram = \"plan\"\n\
         [[job.steps]]\nid = \"s0\"\nrun.shell = \"read _ < $TINKERBELL_START_DIR/go\"\n"
        .to_owned();
    for number in 1..=STEPS {
        write!(
            config,
            "[[job.steps]]\nid = \"s{number}\"\nneeds = [\"s{}\"]\non_interrupted = \"continue\"\n\
             run.shell = \"echo {number} >> $TINKERBELL_START_DIR/effects; head -c 70000 /dev/urandom | base64 -w0\"\n",
            number - 1
        )
        .expect("text takes text");
    }
    config + "[[job]]\nname = \"late\"\nprogram = \"command\"\nargv = [\"true\"]\n"
}

#[test]
fn a_full_disk_is_waited_for_and_nothing_acknowledged_is_lost() {
    let disk = match SmallDisk::new(16 * 1024) {
        Ok(disk) => disk,
        Err(reason) => {
            let test = "a_full_disk_is_waited_for_and_nothing_acknowledged_is_lost";
            return skip(test, &reason);
        }
    };
    let node = Node::at(disk.inside.join("data"), &jobs());
    let mut go = node.place.barrier("go");
    disk.occupy(13 * 1024);

    // The log grows until there is no space for another segment: nothing more is taken in. What runs goes on, until
    // there is no space at all.
    let mut daemon = Daemon::spawn(&mut disk.command(&node, &[]));
    let refused = daemon.logged("start-up job cannot be taken in yet")["message"].to_string();
    assert!(refused.contains("as many as there may be"), "{refused}");
    go.release(1);
    daemon.logged("log waits for space");
    assert_eq!(
        daemon.has_logged("no space for another log segment").len(),
        1
    );
    let no_space = "start-up job cannot be taken in yet: no space is left for the log";
    daemon
        .stderr
        .wait_for(0, no_space, |line| line.contains(no_space));
    let is_stalled = |daemon: &Daemon| {
        let ready = daemon.get("/readyz?verbose");
        assert_eq!(ready.status, 503);
        assert!(
            ready.body.contains("[-]wal failed: waiting for space"),
            "{}",
            ready.body
        );
        assert_eq!(daemon.get("/livez").status, 200, "a restart would not help");
        assert_eq!(daemon.get("/metrics").metric("tinkerbell_wal_stalled"), 1.0);
    };
    is_stalled(&daemon);

    // Killed in that state and started again it is as before; what it had taken in is there.
    daemon.killed();
    let mut daemon = Daemon::spawn(&mut disk.command(&node, &[]));
    daemon.logged("log waits for space");
    is_stalled(&daemon);
    // Nor does it hang when it is to stop now, since there may never be space.
    daemon.signal(Signal::TERM);
    let stopped = daemon.ended();
    // Its last entry could not be written, which is what the code says.
    assert_eq!(stopped.code, 74, "{}", stopped.stderr);

    // With space it goes on by itself.
    let mut daemon = Daemon::spawn(&mut disk.command(&node, &[]));
    daemon.logged("log waits for space");
    disk.make_room();
    daemon.ready();
    let ready = daemon.get_until("/readyz?verbose", |answer| answer.status == 200);
    assert!(ready.body.contains("[+]wal ok"), "{}", ready.body);
    let live = "tinkerbell_runtime_live_jobs";
    let idle = daemon.get_until("/metrics", |metrics| metrics.metric(live) == 0.0);
    assert_eq!(idle.metric("tinkerbell_wal_stalled"), 0.0);
    daemon.signal(Signal::TERM);
    daemon.ended().with(0);

    end_of(&mut disk.command(&node, &["log", "verify"])).with(0);
    let cat = end_of(&mut disk.command(&node, &["log", "cat"])).with(0);
    let journal = Journal::of(cat.stdout.lines().map(Entry::parse).collect());
    for name in ["writer", "late"] {
        let entries = journal.entries_of(name);
        let ended = entries.iter().filter(|entry| entry.kind() == "finished");
        let endings: Vec<_> = ended.map(|entry| entry.ending()).collect();
        assert_eq!(endings, [Some("completed")], "{name}");
    }
    // No step ran twice, also none of those whose end was not durable yet when the daemon was killed.
    let effects = node.place.read("effects");
    let mut steps: Vec<&str> = effects.lines().collect();
    let all = steps.len();
    steps.dedup();
    assert_eq!(steps.len(), all, "{effects}");
}

/// The request to cancel cannot be made durable either. Insisting on it must still end the run.
#[test]
fn a_run_in_the_foreground_can_be_ended_though_the_disk_is_full() {
    let disk = match SmallDisk::new(16 * 1024) {
        Ok(disk) => disk,
        Err(reason) => {
            let test = "a_run_in_the_foreground_can_be_ended_though_the_disk_is_full";
            return skip(test, &reason);
        }
    };
    let node = Node::at(
        disk.inside.join("data"),
        "[wal]\nblob_threshold = \"200KiB\"\n",
    );
    node.place.write(
        "job.toml",
        "program = \"plan\"\nsteps = [{ id = \"a\", run.shell = \"head -c 600000 /dev/urandom | base64 -w0\" }]\n",
    );
    // Space for the log, and for nothing beside it.
    disk.occupy(14 * 1024 - 64);
    let run = ["job", "run", "job.toml"];
    let daemon = Daemon::spawn(&mut disk.command(&node, &run));
    let full = "log waits for space";
    daemon.stderr.wait_for(0, full, |line| line.contains(full));
    // Two of one kind that are sent at once may arrive as one.
    daemon.signal(Signal::INT);
    daemon.signal(Signal::TERM);
    let ended = daemon.ended();
    assert!([130, 143].contains(&ended.code), "{}", ended.said());
}

#[test]
fn without_space_for_a_log_there_is_no_start() {
    let disk = match SmallDisk::new(512) {
        Ok(disk) => disk,
        Err(reason) => return skip("without_space_for_a_log_there_is_no_start", &reason),
    };
    let node = Node::at(disk.inside.join("data"), "# the defaults\n");
    let ended = end_of(&mut disk.command(&node, &["--set", "log.filter=off"])).with(74);
    assert!(ended.stderr.contains("no space"), "{}", ended.stderr);
    assert!(
        ended
            .stderr
            .contains("help: make room on the disk of `node.data_dir`"),
        "{}",
        ended.stderr
    );
}

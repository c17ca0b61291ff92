//! Snapshots of whole trees, restored after anything happened to them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Instant;

use proptest::prelude::*;
use runtime::{EffectClass, EffectRunner};
use serde_json::json;
use support::Bench;
use tempfile::TempDir;
use tools::PROCESS_RUN;
use tools::snapshot::{Snapshot, SnapshotLimits};

/// Everything that is to be the same again.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    modified: (i64, i64),
    /// A file's bytes, a link's target.
    content: Vec<u8>,
}

fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(path) = open.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = if metadata.is_dir() {
            open.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
            Vec::new()
        } else if metadata.is_symlink() {
            fs::read_link(&path).unwrap().into_os_string().into_vec()
        } else if metadata.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        let relative = path.strip_prefix(root).unwrap().to_owned();
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        let mode = metadata.mode();
        seen.insert(
            relative,
            Seen {
                mode,
                modified,
                content,
            },
        );
    }
    seen
}

/// One thing that happens to a tree. Names are few, so that things meet.
#[derive(Clone, Debug)]
enum Change {
    Write(Vec<u8>, Vec<u8>, u32),
    MakeDirectory(Vec<u8>, u32),
    Link(Vec<u8>, Vec<u8>),
    Fifo(Vec<u8>),
    Remove(Vec<u8>),
    Rename(Vec<u8>, Vec<u8>),
    Touch(Vec<u8>),
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    const NAMES: &[&[u8]] = &[
        b"a",
        b"b",
        b"c",
        b"d e",
        b"\xff\xfe",
        b".tinkerbell-removing",
    ];
    prop::collection::vec(prop::sample::select(NAMES), 1..4).prop_map(|names| names.join(&b'/'))
}

fn change() -> impl Strategy<Value = Change> {
    const TARGETS: &[&[u8]] = &[b"a", b"../..", b"/etc", b"nowhere", b"b/c"];
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    let file_mode = prop::sample::select(&[0o644u32, 0o600, 0o755, 0o400, 0o4755][..]);
    let directory_mode = prop::sample::select(&[0o755u32, 0o700, 0o555, 0o1777][..]);
    let target = prop::sample::select(TARGETS);
    prop_oneof![
        4 => (path(), bytes, file_mode).prop_map(|(path, bytes, mode)| Change::Write(path, bytes, mode)),
        3 => (path(), directory_mode).prop_map(|(path, mode)| Change::MakeDirectory(path, mode)),
        2 => (path(), target).prop_map(|(path, target)| Change::Link(path, target.to_vec())),
        1 => path().prop_map(Change::Fifo),
        2 => path().prop_map(Change::Remove),
        2 => (path(), path()).prop_map(|(from, to)| Change::Rename(from, to)),
        1 => path().prop_map(Change::Touch),
    ]
}

/// Whether a path can be used without leaving the tree through a link on its way.
fn is_inside(root: &Path, path: &Path) -> bool {
    let mut ancestors = path.ancestors().skip(1).take_while(|at| *at != root);
    ancestors.all(|at| fs::symlink_metadata(at).map_or(true, |metadata| !metadata.is_symlink()))
}

/// Does it if it can be done; what the file system refuses is no change.
fn apply(root: &Path, change: &Change) {
    let at = |path: &[u8]| root.join(OsString::from_vec(path.to_vec()));
    let inside = |path: &[u8]| is_inside(root, &at(path));
    match change {
        Change::Write(path, bytes, mode) if inside(path) => {
            let path = at(path);
            let is_file = fs::symlink_metadata(&path).map_or(true, |metadata| metadata.is_file());
            if is_file && fs::write(&path, bytes).is_ok() {
                fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).unwrap();
            }
        }
        Change::MakeDirectory(path, mode) if inside(path) => {
            let _ = fs::DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(at(path));
            if fs::symlink_metadata(at(path)).is_ok_and(|metadata| metadata.is_dir()) {
                fs::set_permissions(at(path), fs::Permissions::from_mode(*mode)).unwrap();
            }
        }
        Change::Link(path, target) if inside(path) => {
            let _ = symlink(std::ffi::OsStr::from_bytes(target), at(path));
        }
        Change::Fifo(path) if inside(path) => {
            let (kind, mode) = (
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::from_raw_mode(0o640),
            );
            let _ = rustix::fs::mknodat(rustix::fs::CWD, at(path), kind, mode, 0);
        }
        Change::Remove(path) if inside(path) => {
            let _ = fs::remove_file(at(path)).or_else(|_| fs::remove_dir_all(at(path)));
        }
        Change::Rename(from, to) if inside(from) && inside(to) => {
            let _ = fs::rename(at(from), at(to));
        }
        Change::Touch(path) if inside(path) => {
            // Opening a FIFO would wait for a writer.
            let is_file = fs::symlink_metadata(at(path)).is_ok_and(|metadata| metadata.is_file());
            if is_file && let Ok(file) = fs::File::open(at(path)) {
                let _ = file.set_modified(std::time::SystemTime::UNIX_EPOCH);
            }
        }
        _ => {}
    }
}

fn cases() -> u32 {
    std::env::var("TINKERBELL_TEST_CASES").map_or(64, |cases| cases.parse().unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases()) })]

    /// Whatever happens to a tree, restoring gives the tree that was.
    #[test]
    fn any_tree_survives_anything(
        before in prop::collection::vec(change(), 0..30),
        after in prop::collection::vec(change(), 0..30),
    ) {
        let dir = TempDir::new().unwrap();
        let root = dir.path().join("tree");
        fs::create_dir(&root).unwrap();
        before.iter().for_each(|change| apply(&root, change));
        // The one name that is ours.
        remove_everywhere(&root, ".tinkerbell-removing");
        let expected = look(&root);
        let snapshot = dir.path().join("tree.snapshot");
        let snapshot = Snapshot::take(&root, &snapshot, SnapshotLimits::default()).unwrap();
        after.iter().for_each(|change| apply(&root, change));
        snapshot.restore(&root).unwrap();
        prop_assert_eq!(look(&root), expected);
    }
}

fn remove_everywhere(root: &Path, name: &str) {
    for path in look(root).keys() {
        if path.file_name().is_some_and(|last| last == name) {
            let _ =
                fs::remove_file(root.join(path)).or_else(|_| fs::remove_dir_all(root.join(path)));
        }
    }
}

/// A tree of one file and a snapshot of it.
fn small() -> (TempDir, PathBuf, PathBuf) {
    let dir = TempDir::new().unwrap();
    let (root, path) = (
        dir.path().join("tree"),
        dir.path().join("kept/one.snapshot"),
    );
    fs::create_dir(&root).unwrap();
    fs::write(root.join("file"), "before").unwrap();
    Snapshot::take(&root, &path, SnapshotLimits::default()).unwrap();
    (dir, root, path)
}

#[test]
fn a_tree_that_was_swapped_for_a_link_is_a_tree_again() {
    let (dir, root, path) = small();
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("precious"), "mine").unwrap();
    fs::remove_dir_all(&root).unwrap();
    symlink(&elsewhere, &root).unwrap();
    Snapshot::find(&path).unwrap().restore(&root).unwrap();
    assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "before");
    assert_eq!(
        fs::read_to_string(elsewhere.join("precious")).unwrap(),
        "mine"
    );
    assert!(!elsewhere.join("file").exists());
}

#[test]
fn nothing_is_written_or_removed_through_links_that_lead_out() {
    let (dir, root, path) = small();
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("precious"), "mine").unwrap();
    // A directory's link among what is too much, a hard link and a symlink in a restored file's place.
    symlink(&elsewhere, root.join("way out")).unwrap();
    fs::remove_file(root.join("file")).unwrap();
    fs::hard_link(elsewhere.join("precious"), root.join("file")).unwrap();
    Snapshot::find(&path).unwrap().restore(&root).unwrap();
    assert_eq!(
        fs::read_to_string(elsewhere.join("precious")).unwrap(),
        "mine"
    );
    fs::remove_file(root.join("file")).unwrap();
    symlink(elsewhere.join("precious"), root.join("file")).unwrap();
    Snapshot::find(&path).unwrap().restore(&root).unwrap();
    assert_eq!(
        fs::read_to_string(elsewhere.join("precious")).unwrap(),
        "mine"
    );
    assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
}

#[test]
fn directories_nested_deeper_than_there_are_descriptors_are_removed() {
    let (_dir, root, path) = small();
    // Made as a command would: a level at a time, each relative to the one above.
    let mut at =
        rustix::fs::open(&root, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&at, "deep", rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(
            &at,
            "deep",
            rustix::fs::OFlags::RDONLY,
            rustix::fs::Mode::empty(),
        )
        .unwrap();
    }
    drop(at);
    Snapshot::find(&path).unwrap().restore(&root).unwrap();
    assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
}

#[test]
fn a_damaged_snapshot_is_refused_before_anything_is_touched() {
    let (_dir, root, path) = small();
    fs::write(root.join("file"), "after").unwrap();
    let whole = fs::read(&path).unwrap();
    let is_refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = Snapshot::find(&path).unwrap().restore(&root).unwrap_err();
        assert!(error.to_string().contains("is damaged"), "{error}");
        assert_eq!(fs::read_to_string(root.join("file")).unwrap(), "after");
    };
    for at in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        is_refused(&flipped);
        is_refused(&whole[..at]);
    }
}

#[test]
fn a_tree_that_is_too_large_is_refused_and_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let root = dir.path().join("tree");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a"), vec![0; 1000]).unwrap();
    fs::write(root.join("b"), vec![0; 1000]).unwrap();
    let take = |bytes, entries| {
        let limits = SnapshotLimits { bytes, entries };
        Snapshot::take(&root, &dir.path().join("kept/s.snapshot"), limits)
    };
    let error = take(1999, 100).unwrap_err().to_string();
    assert!(
        error.contains("at least 2000 bytes") && error.contains("limit of 1999 bytes"),
        "{error}"
    );
    let error = take(2000, 1).unwrap_err().to_string();
    assert!(error.contains("limit of 1 entries"), "{error}");
    assert_eq!(fs::read_dir(dir.path().join("kept")).unwrap().count(), 0);
    take(2000, 2).unwrap();
}

#[test]
fn an_interrupted_command_of_class_workspace_runs_again_on_the_tree_of_before() {
    let mut bench = Bench::new();
    let workspace = bench.workspace();
    fs::write(workspace.join("input"), "one").unwrap();
    let before = look(&workspace);

    // It changes its tree, and the daemon dies: what is left is the tree of after and the snapshot.
    let mut call = bench.call(
        PROCESS_RUN,
        json!({ "shell": "cat input >> log; rm input; mkdir new" }),
    );
    call.class = EffectClass::Workspace;
    bench.start_call(call.clone()).wait().ok();
    assert_ne!(look(&workspace), before);

    // Run again, it does what it did the first time; without the snapshot `cat` would find no input.
    call.interrupted = true;
    bench.start_call(call.clone()).wait().ok();
    assert_eq!(fs::read_to_string(workspace.join("log")).unwrap(), "one");

    // Another try is another run: it sees what the one before left.
    call.interrupted = false;
    call.id.attempt = call.id.attempt.next();
    bench.start_call(call.clone()).wait().failed();
    call.interrupted = true;
    bench.start_call(call).wait().failed();
    assert_eq!(fs::read_to_string(workspace.join("log")).unwrap(), "one");
}

#[test]
fn interrupted_before_its_snapshot_was_whole_a_command_had_not_begun() {
    let mut bench = Bench::new();
    fs::write(bench.workspace().join("input"), "one").unwrap();
    let mut call = bench.call(PROCESS_RUN, json!({ "argv": ["cat", "input"] }));
    call.class = EffectClass::Workspace;
    call.interrupted = true;
    assert_eq!(bench.start_call(call).wait().ok().stdout, "one");
}

#[test]
fn commands_that_may_be_rolled_back_take_turns_in_their_workspace() {
    let mut bench = Bench::new();
    let running: Vec<_> = (0..8)
        .map(|_| {
            // Whoever finds the lock taken fails.
            let mut call = bench.call(
                PROCESS_RUN,
                json!({ "shell": "mkdir lock && sleep 0.01 && rmdir lock" }),
            );
            call.class = EffectClass::Workspace;
            bench.start_call(call)
        })
        .collect();
    for running in running {
        running.wait().ok();
    }
}

#[test]
fn a_command_of_class_workspace_works_nowhere_else() {
    let mut bench = Bench::new();
    let workspace = bench.workspace();
    let climbing = workspace.join("../..");
    for (cwd, is_allowed) in [
        (Path::new("/"), false),
        (&climbing, false),
        (&workspace, true),
    ] {
        let input = json!({ "argv": ["true"], "cwd": cwd.to_str().unwrap() });
        let mut call = bench.call(PROCESS_RUN, input);
        call.class = EffectClass::Workspace;
        let ran = bench.start_call(call).wait();
        if is_allowed {
            ran.ok();
        } else {
            assert_eq!(ran.refused().code, "invalid_input");
        }
    }
}

#[test]
fn a_settled_effect_keeps_no_snapshot() {
    let mut bench = Bench::new();
    let mut call = bench.call(PROCESS_RUN, json!({ "argv": ["true"] }));
    call.class = EffectClass::Workspace;
    let id = call.id;
    bench.start_call(call).wait().ok();
    let kept = bench.dir.path().join("snapshots");
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 1);
    bench.tools.settled(id);
    // Its removal runs beside us.
    let until = Instant::now() + support::STUCK;
    while fs::read_dir(&kept).unwrap().count() > 0 {
        assert!(Instant::now() < until, "the snapshot stays");
        std::thread::yield_now();
    }
}

#[test]
fn a_sweep_removes_the_snapshots_of_jobs_that_are_over_and_nothing_else() {
    let mut bench = Bench::new();
    assert_eq!(bench.tools.sweep_snapshots(|_| false).unwrap(), 0);
    let mut call = bench.call(PROCESS_RUN, json!({ "argv": ["true"] }));
    call.class = EffectClass::Workspace;
    bench.start_call(call).wait().ok();
    let kept = bench.dir.path().join("snapshots");
    fs::write(kept.join("somebody's notes"), "").unwrap();
    assert_eq!(
        bench
            .tools
            .sweep_snapshots(|job| job == support::job())
            .unwrap(),
        0
    );
    assert_eq!(bench.tools.sweep_snapshots(|_| false).unwrap(), 1);
    assert_eq!(fs::read_dir(&kept).unwrap().count(), 1);
}

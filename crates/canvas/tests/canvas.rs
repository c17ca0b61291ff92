//! The canvas against git itself.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use canvas::{Canvas, Error, Export, Kind, Limits, MicroCommit, RepoPath, Signature, TreeId};

/// Runs git, with nothing of this machine's settings, and gives what it printed.
#[track_caller]
fn git(directory: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_SYSTEM", "/dev/null")
        .args([
            "-c",
            "user.name=T",
            "-c",
            "user.email=t@example.org",
            "-c",
            "init.defaultBranch=main",
        ])
        .args(args)
        .output()
        .expect("git is on this machine");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {args:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn path(path: &str) -> RepoPath {
    RepoPath::new(path).expect("a path")
}

/// A repository of a few files, and a place for our store.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Self {
            dir: tempfile::tempdir().expect("a place for the test"),
        };
        let repo = place.repo();
        fs::create_dir(&repo).expect("a place for the test");
        git(&repo, &["init", "-q"]);
        fs::create_dir(repo.join("src")).expect("a place for the test");
        fs::write(repo.join("README"), "one\ntwo\nthree\n").expect("a place for the test");
        fs::write(repo.join("src/lib.rs"), "fn main() {}\n").expect("a place for the test");
        fs::write(repo.join("run.sh"), "#!/bin/sh\n").expect("a place for the test");
        fs::set_permissions(repo.join("run.sh"), fs::Permissions::from_mode(0o755))
            .expect("a place for the test");
        symlink("README", repo.join("link")).expect("a place for the test");
        git(&repo, &["add", "-A"]);
        git(&repo, &["commit", "-qm", "first"]);
        place
    }

    fn repo(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    fn canvas(&self) -> Canvas {
        Canvas::open(&self.repo(), &self.store(), "HEAD", Limits::default())
            .expect("a place for the test")
    }

    /// All that git and the user see of the repository: its objects, references, index and files.
    fn seen(&self) -> String {
        let repo = self.repo();
        let mut seen = git(&repo, &["status", "--porcelain"]);
        seen += &git(&repo, &["for-each-ref"]);
        seen += &git(&repo, &["count-objects", "-v"]);
        seen
    }
}

fn micro(branch: &str, step: &str, tree: TreeId) -> MicroCommit {
    MicroCommit {
        branch: branch.to_owned(),
        job: "01a2".to_owned(),
        step: step.to_owned(),
        message: format!("did {step}"),
        author: Signature {
            name: "Agent".to_owned(),
            email: "agent@example.org".to_owned(),
            seconds: 1_700_000_000,
        },
        tree,
    }
}

fn export(onto: &str, tree: TreeId) -> Export {
    Export {
        onto: onto.to_owned(),
        message: "all of it".to_owned(),
        author: micro("", "", tree).author,
        tree,
    }
}

#[test]
fn edits_touch_nothing_of_the_users() {
    let place = Place::new();
    let before = place.seen();
    let mut canvas = place.canvas();
    canvas
        .write(&path("README"), "one\n2\nthree\n", None)
        .unwrap();
    canvas.write(&path("new/deep/file"), "x", None).unwrap();
    canvas.remove(&path("src")).unwrap();
    canvas.rename(&path("run.sh"), &path("bin/run")).unwrap();
    assert_eq!(
        canvas.read(&path("README")).unwrap().unwrap().bytes,
        b"one\n2\nthree\n"
    );
    assert_eq!(canvas.read(&path("src/lib.rs")).unwrap(), None);
    let listed: Vec<String> = canvas
        .list(None)
        .unwrap()
        .iter()
        .map(|entry| entry.path.to_string())
        .collect();
    assert_eq!(listed, ["README", "bin/run", "link", "new/deep/file"]);
    assert_eq!(canvas.list(None).unwrap()[1].kind, Kind::Executable);
    canvas.step().unwrap();
    assert_eq!(place.seen(), before);
}

#[test]
fn what_a_step_makes_is_what_git_makes_of_the_same_files() {
    let place = Place::new();
    let repo = place.repo();
    let mut canvas = place.canvas();
    canvas.write(&path("a/b/c"), "deep\n", None).unwrap();
    canvas
        .write(&path("run.sh"), "#!/bin/sh\nexit 1\n", None)
        .unwrap();
    canvas.write(&path("link"), "src/lib.rs", None).unwrap();
    canvas.write(&path("empty"), "", None).unwrap();
    canvas
        .write(&path("bytes"), &b"\0\xff\r\n"[..], None)
        .unwrap();
    canvas.remove(&path("src/lib.rs")).unwrap();
    let tree = canvas.step().unwrap();

    fs::create_dir_all(repo.join("a/b")).unwrap();
    fs::write(repo.join("a/b/c"), "deep\n").unwrap();
    fs::write(repo.join("run.sh"), "#!/bin/sh\nexit 1\n").unwrap();
    fs::remove_file(repo.join("link")).unwrap();
    symlink("src/lib.rs", repo.join("link")).unwrap();
    fs::write(repo.join("empty"), "").unwrap();
    fs::write(repo.join("bytes"), b"\0\xff\r\n").unwrap();
    fs::remove_dir_all(repo.join("src")).unwrap();
    git(&repo, &["add", "-A"]);
    assert_eq!(git(&repo, &["write-tree"]).trim(), tree.to_string());
}

#[test]
fn a_file_becomes_a_directory_and_back() {
    let place = Place::new();
    let mut canvas = place.canvas();
    let refused = canvas.write(&path("README/inside"), "x", None);
    assert!(
        matches!(refused, Err(Error::InTheWay { .. })),
        "{refused:?}"
    );
    let refused = canvas.write(&path("src"), "x", None);
    assert!(
        matches!(refused, Err(Error::InTheWay { .. })),
        "{refused:?}"
    );
    let first = canvas.tree();
    canvas.remove(&path("README")).unwrap();
    canvas.write(&path("README/inside"), "x", None).unwrap();
    canvas.remove(&path("src")).unwrap();
    canvas.write(&path("src"), "y", None).unwrap();
    let second = canvas.step().unwrap();
    let listed: Vec<String> = canvas
        .list(None)
        .unwrap()
        .iter()
        .map(|entry| entry.path.to_string())
        .collect();
    assert_eq!(listed, ["README/inside", "link", "run.sh", "src"]);
    let back = canvas.diff(second, first).unwrap().to_patch();
    canvas.apply_patch(&back).unwrap();
    assert_eq!(canvas.step().unwrap(), first);
}

#[test]
fn a_state_brings_a_canvas_back_and_a_rollback_goes_to_any_step() {
    let place = Place::new();
    let mut canvas = place.canvas();
    canvas.write(&path("README"), "1\n", None).unwrap();
    let first = canvas.step().unwrap();
    canvas.write(&path("README"), "2\n", None).unwrap();
    let second = canvas.step().unwrap();
    let state = canvas.state();
    drop(canvas);
    let mut canvas =
        Canvas::resume(&place.repo(), &place.store(), &state, Limits::default()).unwrap();
    assert_eq!(canvas.tree(), second);
    canvas.write(&path("README"), "never\n", None).unwrap();
    canvas.rollback(first).unwrap();
    assert!(!canvas.is_dirty());
    assert_eq!(canvas.read(&path("README")).unwrap().unwrap().bytes, b"1\n");
    let nowhere = "1".repeat(40).parse().unwrap();
    canvas.rollback(nowhere).unwrap_err();
    assert_eq!(canvas.tree(), first);
}

#[test]
fn a_patch_fits_whole_or_not_at_all() {
    let place = Place::new();
    let mut canvas = place.canvas();
    let patch = b"--- a/README\n+++ b/README\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n\
                  --- a/src/lib.rs\n+++ b/src/lib.rs\n@@ -1 +1 @@\n-nothing of the kind\n+x\n";
    let refused = canvas.apply_patch(patch).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the patch does not fit `src/lib.rs`: hunk 1 (line 1) does not fit: expected `nothing of the kind` as line 1, \
         where `fn main() {}` stands; nothing of it was applied"
    );
    assert!(!canvas.is_dirty());
    for (patch, part) in [
        (
            "--- a/none\n+++ b/none\n@@ -1 +1 @@\n-a\n+b\n",
            "there is no `none`",
        ),
        (
            "--- /dev/null\n+++ b/README\n@@ -0,0 +1 @@\n+a\n",
            "there is a `README` already",
        ),
        (
            "--- /dev/null\n+++ b/../x\n@@ -0,0 +1 @@\n+a\n",
            "no path within the repository",
        ),
        (
            "--- /dev/null\n+++ b/.git/hooks/x\n@@ -0,0 +1 @@\n+a\n",
            "no path within the repository",
        ),
        (
            "--- a/README\n+++ /dev/null\n@@ -1 +0,0 @@\n-one\n",
            "leaves something of it",
        ),
    ] {
        let refused = canvas
            .apply_patch(patch.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(refused.contains(part), "{refused}");
        assert!(!canvas.is_dirty());
    }
}

#[test]
fn names_swap_and_files_are_copied_as_git_says() {
    let place = Place::new();
    let mut canvas = place.canvas();
    let patch = b"diff --git a/README b/run.sh\nsimilarity index 100%\nrename from README\nrename to run.sh\n\
                  diff --git a/run.sh b/README\nsimilarity index 100%\nrename from run.sh\nrename to README\n\
                  diff --git a/src/lib.rs b/copy\nsimilarity index 100%\ncopy from src/lib.rs\ncopy to copy\n";
    canvas.apply_patch(patch).unwrap();
    let content = |name: &str| canvas.read(&path(name)).unwrap().unwrap().bytes;
    assert_eq!(content("run.sh"), b"one\ntwo\nthree\n");
    assert_eq!(content("README"), b"#!/bin/sh\n");
    assert_eq!(content("copy"), content("src/lib.rs"));
}

#[test]
fn what_is_shown_is_what_git_applies() {
    let place = Place::new();
    let repo = place.repo();
    let mut canvas = place.canvas();
    canvas
        .write(&path("README"), "one\n2\nthree", None)
        .unwrap();
    canvas
        .write(&path("with space/ä\"\n"), "x\n", None)
        .unwrap();
    canvas
        .rename(&path("src/lib.rs"), &path("src/main.rs"))
        .unwrap();
    canvas
        .write(&path("run.sh"), "#!/bin/sh\n", Some(Kind::File))
        .unwrap();
    canvas.remove(&path("link")).unwrap();
    canvas
        .write(&path("link"), "now a file\n", Some(Kind::File))
        .unwrap();
    let tree = canvas.step().unwrap();
    let diff = canvas.preview().unwrap();
    let patch = place.dir.path().join("patch");
    fs::write(&patch, diff.to_patch()).unwrap();
    git(&repo, &["apply", "--index", patch.to_str().unwrap()]);
    assert_eq!(git(&repo, &["write-tree"]).trim(), tree.to_string());
    let renamed = diff
        .files
        .iter()
        .find(|file| file.new.as_deref() == Some(b"src/main.rs"))
        .unwrap();
    assert_eq!(renamed.old.as_deref(), Some(&b"src/lib.rs"[..]));
    let coloured = String::from_utf8_lossy(&diff.to_coloured()).into_owned();
    assert!(
        coloured.contains("\n\u{1b}[31m-two\u{1b}[m\n"),
        "{coloured}"
    );
}

#[test]
fn a_commit_is_made_once_and_names_its_job_and_step() {
    let place = Place::new();
    let repo = place.repo();
    let head = git(&repo, &["rev-parse", "HEAD"]);
    let mut canvas = place.canvas();
    let branch = "tinkerbell/01a2";
    let mut made = Vec::new();
    for step in ["1", "2"] {
        canvas.write(&path("README"), step, None).unwrap();
        let tree = canvas.step().unwrap();
        made.push(canvas.commit(&micro(branch, step, tree)).unwrap());
    }
    // As after a crash between the commit and what tells of it: both are found, and none is made.
    let again = canvas.commit(&micro(branch, "1", canvas.tree())).unwrap();
    assert_eq!(again, made[0]);
    let again = canvas.commit(&micro(branch, "2", canvas.tree())).unwrap();
    assert_eq!(again, made[1]);
    assert_eq!(
        git(&repo, &["rev-parse", branch]).trim(),
        made[1].to_string()
    );
    assert_eq!(
        git(&repo, &["rev-list", "--count", &format!("HEAD..{branch}")]).trim(),
        "2"
    );
    let format = "--format=%an <%ae> %ad|%s|%(trailers:key=Tinkerbell-Job,valueonly,separator=)|%(trailers:key=Tinkerbell-Step,valueonly,separator=)";
    let log = git(&repo, &["log", "-1", "--date=unix", format, branch]);
    assert_eq!(
        log.trim(),
        "Agent <agent@example.org> 1700000000|did 2|01a2|2"
    );
    // Nothing else moved, and the repository is whole without our store.
    assert_eq!(git(&repo, &["rev-parse", "HEAD"]), head);
    assert_eq!(git(&repo, &["status", "--porcelain"]), "");
    fs::remove_dir_all(place.store()).unwrap();
    git(&repo, &["fsck", "--full", "--strict"]);
}

#[test]
fn an_export_is_one_commit_and_merges_what_the_branch_did_meanwhile() {
    let place = Place::new();
    let repo = place.repo();
    let mut canvas = place.canvas();
    canvas
        .write(&path("README"), "one\ntwo\n3\n", None)
        .unwrap();
    canvas.write(&path("new"), "new\n", None).unwrap();
    let tree = canvas.step().unwrap();
    let made = canvas.export(&export("result", tree)).unwrap().unwrap();
    assert_eq!(
        git(&repo, &["rev-parse", "result"]).trim(),
        made.to_string()
    );
    assert_eq!(
        git(&repo, &["rev-parse", "result^{tree}"]).trim(),
        tree.to_string()
    );
    assert_eq!(
        git(&repo, &["rev-list", "--count", "HEAD..result"]).trim(),
        "1"
    );

    git(&repo, &["checkout", "-q", "-b", "moved"]);
    fs::write(repo.join("src/lib.rs"), "fn other() {}\n").unwrap();
    git(&repo, &["commit", "-qam", "elsewhere"]);
    canvas.export(&export("moved", tree)).unwrap().unwrap();
    assert_eq!(git(&repo, &["show", "moved:src/lib.rs"]), "fn other() {}\n");
    assert_eq!(git(&repo, &["show", "moved:README"]), "one\ntwo\n3\n");
    assert_eq!(
        git(&repo, &["log", "-1", "--format=%P", "moved"]).trim(),
        git(&repo, &["rev-parse", "moved~1"]).trim()
    );

    git(&repo, &["checkout", "-q", "-f", "main"]);
    git(&repo, &["checkout", "-q", "-b", "clashes"]);
    fs::write(repo.join("README"), "one\ntwo\nIII\n").unwrap();
    git(&repo, &["commit", "-qam", "the same line"]);
    let tip = git(&repo, &["rev-parse", "clashes"]);
    let conflicts = canvas
        .export(&export("clashes", tree))
        .unwrap()
        .unwrap_err();
    assert_eq!(
        conflicts
            .iter()
            .map(|conflict| conflict.path.as_str())
            .collect::<Vec<_>>(),
        ["README"]
    );
    assert_eq!(git(&repo, &["rev-parse", "clashes"]), tip);
}

#[test]
fn what_commands_do_in_a_directory_is_captured() {
    let place = Place::new();
    let work = place.dir.path().join("work");
    fs::create_dir(&work).unwrap();
    let limits = Limits {
        file_bytes: 1000,
        ..Limits::default()
    };
    let mut canvas = Canvas::open(&place.repo(), &place.store(), "HEAD", limits).unwrap();
    let first = canvas.tree();
    canvas.check_out(&work, None).unwrap();
    assert_eq!(
        fs::read_link(work.join("link")).unwrap(),
        Path::new("README")
    );
    assert_eq!(
        fs::metadata(work.join("run.sh"))
            .unwrap()
            .permissions()
            .mode()
            & 0o111,
        0o111
    );
    assert_eq!(canvas.capture(&work).unwrap(), canvas::Captured::default());

    let script = "echo more >> README; rm -r src; mkdir -p d; printf x > d/new; ln -s /etc/passwd d/out; mkfifo pipe; \
                  mkdir .git; echo bad > .git/config; head -c 2000 /dev/zero > large; chmod -x run.sh";
    assert!(
        Command::new("sh")
            .args(["-c", script])
            .current_dir(&work)
            .status()
            .unwrap()
            .success()
    );
    let captured = canvas.capture(&work).unwrap();
    let names = |paths: &[RepoPath]| paths.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(
        names(&captured.changed),
        ["README", "d/new", "d/out", "run.sh"]
    );
    assert_eq!(names(&captured.removed), ["src/lib.rs"]);
    let mut skipped: Vec<_> = captured
        .skipped
        .iter()
        .map(|skipped| skipped.path.as_str())
        .collect();
    skipped.sort_unstable();
    assert_eq!(skipped, ["large", "pipe"]);
    let second = canvas.step().unwrap();
    // A symlink is its target's name, and not what lies there.
    assert_eq!(
        canvas.read(&path("d/out")).unwrap().unwrap().bytes,
        b"/etc/passwd"
    );

    // And back again: what the tree does not have goes, what it never had stays.
    canvas.rollback(first).unwrap();
    canvas.check_out(&work, Some(second)).unwrap();
    assert_eq!(
        fs::read_to_string(work.join("README")).unwrap(),
        "one\ntwo\nthree\n"
    );
    assert_eq!(
        fs::read_to_string(work.join("src/lib.rs")).unwrap(),
        "fn main() {}\n"
    );
    assert!(!work.join("d").exists() && work.join("large").exists());

    // A tracked file that grew too large is not lost in silence.
    fs::write(work.join("README"), vec![b'x'; 2000]).unwrap();
    assert!(matches!(canvas.capture(&work), Err(Error::TooLarge { .. })));
    assert!(!canvas.is_dirty());
}

#[test]
fn a_directory_that_became_a_symlink_leads_nobody_out() {
    let place = Place::new();
    let (work, outside) = (
        place.dir.path().join("work"),
        place.dir.path().join("outside"),
    );
    fs::create_dir(&work).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("lib.rs"), "precious\n").unwrap();
    let mut canvas = place.canvas();
    canvas.check_out(&work, None).unwrap();
    fs::remove_dir_all(work.join("src")).unwrap();
    symlink(&outside, work.join("src")).unwrap();
    let captured = canvas.capture(&work).unwrap();
    assert_eq!(captured.changed, [path("src")]);
    assert_eq!(captured.removed, [path("src/lib.rs")]);
    let held = canvas.step().unwrap();
    canvas.rollback(canvas.base_tree().unwrap()).unwrap();
    canvas.check_out(&work, Some(held)).unwrap();
    assert_eq!(
        fs::read_to_string(work.join("src/lib.rs")).unwrap(),
        "fn main() {}\n"
    );
    assert_eq!(
        fs::read_to_string(outside.join("lib.rs")).unwrap(),
        "precious\n"
    );
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
}

#[test]
fn limits_are_kept() {
    let place = Place::new();
    let limits = Limits {
        file_bytes: 10,
        staged_bytes: 15,
    };
    let mut canvas = Canvas::open(&place.repo(), &place.store(), "HEAD", limits).unwrap();
    let refused = canvas.write(&path("a"), vec![0; 11], None);
    assert!(matches!(refused, Err(Error::TooLarge { .. })));
    canvas.write(&path("a"), vec![0; 10], None).unwrap();
    let refused = canvas.write(&path("b"), vec![0; 10], None);
    assert!(matches!(refused, Err(Error::TooLarge { .. })));
    // What replaces something counts once.
    canvas.write(&path("a"), vec![1; 10], None).unwrap();
    assert!(matches!(
        canvas.read(&path("README")),
        Err(Error::TooLarge { .. })
    ));
}

#[test]
fn what_is_no_repository_or_no_commit_is_said() {
    let place = Place::new();
    let empty = tempfile::tempdir().unwrap();
    let refused = Canvas::open(empty.path(), &place.store(), "HEAD", Limits::default());
    assert!(matches!(refused, Err(Error::Repository { .. })));
    let refused = Canvas::open(&place.repo(), &place.store(), "nowhere", Limits::default());
    assert!(
        refused
            .unwrap_err()
            .to_string()
            .contains("`nowhere` is no commit")
    );
}

/// Replays this project's own history, patch by patch.
#[test]
fn the_trees_of_a_real_history_come_out_as_gits() {
    const COMMITS: usize = 60;
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let listed = Command::new("git")
        .current_dir(&repository)
        .args([
            "rev-list",
            "--no-merges",
            "--parents",
            &format!("--max-count={COMMITS}"),
            "HEAD",
        ])
        .output();
    let Ok(listed) = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
    else {
        return;
    };
    let pairs: Vec<(&str, &str)> = listed
        .lines()
        .filter_map(|line| line.split_once(' '))
        .collect();
    if pairs.is_empty() {
        eprintln!("SKIPPED: this is no clone of the project with its history");
        return;
    }
    let store = tempfile::tempdir().unwrap();
    let limits = Limits::default();
    let mut canvas =
        Canvas::open(&repository, &store.path().join("store"), pairs[0].0, limits).unwrap();
    for (commit, parent) in pairs {
        let tree = |commit: &str| -> TreeId {
            git(&repository, &["rev-parse", &format!("{commit}^{{tree}}")])
                .trim()
                .parse()
                .unwrap()
        };
        let patch = Command::new("git")
            .current_dir(&repository)
            .args([
                "diff",
                "--binary",
                "--full-index",
                "-M",
                "-C",
                parent,
                commit,
            ])
            .output()
            .unwrap()
            .stdout;
        canvas.rollback(tree(parent)).unwrap();
        if !patch.is_empty() {
            let patched = canvas.apply_patch(&patch);
            let patched = patched.unwrap_or_else(|error| panic!("{commit}: {error}"));
            assert!(
                patched.iter().all(|file| file.drifts.is_empty()),
                "{commit}"
            );
        }
        assert_eq!(canvas.step().unwrap(), tree(commit), "{commit}");
        // And what we say of it does the same, where it is all text.
        let diff = canvas.diff(tree(parent), tree(commit)).unwrap();
        if !diff.files.is_empty() && diff.files.iter().all(|file| !file.is_binary) {
            canvas.rollback(tree(parent)).unwrap();
            canvas
                .apply_patch(&diff.to_patch())
                .unwrap_or_else(|error| panic!("{commit}: {error}"));
            assert_eq!(canvas.step().unwrap(), tree(commit), "{commit}");
        }
    }
}

//! Noticing that the config file has changed, however it was changed.
//!
//! A file is rarely changed in place: editors rename a new one over it, Kubernetes swaps a symbolic link two directories
//! away (`file → ..data/file`, `..data → ..2024_1/`), tools delete and create. A watch on the file itself misses all of
//! these, since it holds on to an inode that is no longer the file. So what is watched is every *directory* that has a say
//! in what the path leads to, each for the one name in it that matters, and the set is worked out anew after every event.
//!
//! Whether something really changed is decided by the content alone: events only say "look again". A burst of events is
//! waited out until it has been quiet for [`QUIET`], but no longer than [`BURST_MAX`].
//!
//! It happens on a thread of its own, because it reads files: one on a network mount that hangs must hang nobody else.
//!
//! Where the kernel reports nothing (network file systems, some overlay mounts), SIGHUP still works.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use crate::config::FILE_MAX;

/// How long it must be quiet before the file is looked at: editors write in several steps.
pub const QUIET: Duration = Duration::from_millis(100);

/// How long a burst of events can put that off.
pub const BURST_MAX: Duration = Duration::from_secs(1);

/// As many as the kernel follows before it says ELOOP (`MAXSYMLINKS`, path_resolution(7)).
const LINKS_MAX: usize = 40;

/// What has become of the file since the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It has other content.
    Written,
    /// It is gone, or cannot be read.
    Gone,
}

/// A watch on one file. The path need not lead to a file yet. Dropping it ends the watch.
#[derive(Debug)]
pub struct FileWatch {
    changes: mpsc::Receiver<io::Result<Change>>,
    ended: bool,
    /// Closing it, by dropping, wakes the thread and ends it.
    _stop: PipeWriter,
}

impl FileWatch {
    /// Begins to watch, on a thread of its own. What the file holds now is what the first change is a change from.
    ///
    /// # Errors
    /// If the system has no inotify instance left (`fs.inotify.max_user_instances`), no directory of the path can be
    /// watched, or no thread can be started.
    pub fn new(path: &Path) -> io::Result<Self> {
        let mut watcher = Watcher {
            path: std::path::absolute(path)?,
            inotify: inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?,
            names: BTreeMap::new(),
            reported: None,
        };
        watcher.follow()?;
        watcher.reported = digest(&watcher.path);
        let (stopped, stop) = io::pipe()?;
        // One: a change that has not been taken says all that a second one could.
        let (report, changes) = mpsc::channel(1);
        std::thread::Builder::new()
            .name("config-watch".to_owned())
            .spawn(move || watcher.run(&stopped, &report))?;
        Ok(Self {
            changes,
            ended: false,
            _stop: stop,
        })
    }

    /// Waits until the file has changed, and says how. Dropping the future loses nothing.
    ///
    /// # Errors
    /// Once, if the system has taken the watch away. After that it waits for ever, so that a loop around it does not spin;
    /// SIGHUP still reloads.
    pub async fn changed(&mut self) -> io::Result<Change> {
        if self.ended {
            return std::future::pending().await;
        }
        let change = self.changes.recv().await;
        let change = change.unwrap_or_else(|| Err(io::Error::other("the watch ended by itself")));
        self.ended = change.is_err();
        change
    }
}

/// The thread's side.
#[derive(Debug)]
struct Watcher {
    path: PathBuf,
    inotify: OwnedFd,
    /// What each watched directory is watched for, by watch descriptor.
    names: BTreeMap<i32, BTreeSet<OsString>>,
    /// The content that was last reported.
    reported: Option<[u8; 32]>,
}

/// Events that have not been looked into yet.
#[derive(Clone, Copy, Debug)]
struct Burst {
    first: Instant,
    last: Instant,
}

impl Burst {
    fn is_over_at(self) -> Instant {
        (self.last + QUIET).min(self.first + BURST_MAX)
    }
}

/// What ended a wait.
enum Woken {
    Events,
    Quiet,
    Stopped,
}

impl Watcher {
    fn run(mut self, stopped: &PipeReader, report: &mpsc::Sender<io::Result<Change>>) {
        loop {
            let change = match self.next_change(stopped) {
                Ok(Some(change)) => Ok(change),
                Ok(None) => return,
                Err(error) => Err(error),
            };
            let failed = change.is_err();
            if report.blocking_send(change).is_err() || failed {
                return;
            }
        }
    }

    /// Waits for a change; nothing if it is to stop.
    fn next_change(&mut self, stopped: &PipeReader) -> io::Result<Option<Change>> {
        let mut burst: Option<Burst> = None;
        loop {
            match self.wait(stopped, burst.map(Burst::is_over_at))? {
                Woken::Stopped => return Ok(None),
                Woken::Events => {
                    if drain(&self.inotify, &self.names)? {
                        let now = Instant::now();
                        let first = burst.map_or(now, |burst| burst.first);
                        burst = Some(Burst { first, last: now });
                    }
                }
                Woken::Quiet => {
                    burst = None;
                    if let Some(change) = self.look()? {
                        return Ok(Some(change));
                    }
                }
            }
        }
    }

    fn wait(&self, stopped: &PipeReader, until: Option<Instant>) -> io::Result<Woken> {
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            // The end of a burst first, or a directory that is never quiet would put it off for ever.
            if left.is_some_and(|left| left.is_zero()) {
                return Ok(Woken::Quiet);
            }
            let timeout = left.map(|left| {
                Timespec::try_from(left).expect("a burst is short, because of its limit")
            });
            let mut fds = [
                PollFd::new(stopped, PollFlags::IN),
                PollFd::new(&self.inotify, PollFlags::IN),
            ];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if !fds[0].revents().is_empty() {
                return Ok(Woken::Stopped);
            }
            if !fds[1].revents().is_empty() {
                return Ok(Woken::Events);
            }
        }
    }

    /// Looks at the file, after it has been made sure that whatever changes from here on is noticed.
    fn look(&mut self) -> io::Result<Option<Change>> {
        self.follow()?;
        let found = digest(&self.path);
        if found == self.reported {
            return Ok(None);
        }
        self.reported = found;
        Ok(Some(if found.is_some() {
            Change::Written
        } else {
            Change::Gone
        }))
    }

    /// Watches every directory that has a say in where the path leads now, and no other.
    fn follow(&mut self) -> io::Result<()> {
        // Between working out where the path leads and watching it, it may be led elsewhere, unnoticed. So it is worked out
        // again until both agree; whoever swaps links faster than this is caught by the next event.
        const TRIES: usize = 8;
        let mut route = route(&self.path);
        for _ in 0..TRIES {
            self.watch_route(&route)?;
            let again = self::route(&self.path);
            if again == route {
                break;
            }
            route = again;
        }
        Ok(())
    }

    fn watch_route(&mut self, route: &Route) -> io::Result<()> {
        let mut names: BTreeMap<i32, BTreeSet<OsString>> = BTreeMap::new();
        for (directory, watched) in route {
            let mut mask = WatchFlags::CREATE
                | WatchFlags::DELETE
                | WatchFlags::MOVED_FROM
                | WatchFlags::MOVED_TO
                | WatchFlags::DELETE_SELF
                | WatchFlags::MOVE_SELF
                | WatchFlags::ONLYDIR;
            if watched.holds_file {
                // ATTRIB: a file that could not be read may have been made readable.
                mask |= WatchFlags::MODIFY | WatchFlags::CLOSE_WRITE | WatchFlags::ATTRIB;
            }
            match inotify::add_watch(&self.inotify, directory, mask) {
                Ok(descriptor) => {
                    names
                        .entry(descriptor)
                        .or_default()
                        .extend(watched.names.iter().cloned());
                }
                // Gone meanwhile, or not ours to read: a directory further up tells when that changes.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::ACCESS | Errno::LOOP) => {}
                // Out of watches, or of memory: a watch that has silently gone blind is worse than none.
                Err(error) => return Err(error.into()),
            }
        }
        if names.is_empty() {
            return Err(Errno::NOENT.into());
        }
        for stale in self
            .names
            .keys()
            .filter(|descriptor| !names.contains_key(descriptor))
        {
            // It fails if the directory is gone, and the watch with it.
            let _ = inotify::remove_watch(&self.inotify, *stale);
        }
        self.names = names;
        Ok(())
    }
}

/// The directories that a path leads through, each without symbolic links in its own name.
type Route = BTreeMap<PathBuf, Watched>;

#[derive(Debug, Default, PartialEq, Eq)]
struct Watched {
    /// The entries of the directory that the path leads through.
    names: BTreeSet<OsString>,
    /// Whether one of them is what the path leads to in the end.
    holds_file: bool,
}

/// Follows a path by hand, one component at a time, as path_resolution(7) describes, and notes every directory entry that
/// it depends on: also those that do not exist yet.
fn route(path: &Path) -> Route {
    let mut route = Route::new();
    let mut reached = PathBuf::from("/");
    let mut rest: VecDeque<OsString> = components(path);
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            reached.pop();
            continue;
        }
        let watched = route.entry(reached.clone()).or_default();
        watched.names.insert(name.clone());
        watched.holds_file |= rest.is_empty();
        let entry = reached.join(&name);
        let Ok(target) = entry.read_link() else {
            reached = entry;
            continue;
        };
        links += 1;
        if links > LINKS_MAX {
            break;
        }
        if target.is_absolute() {
            reached = PathBuf::from("/");
        }
        for name in components(&target).into_iter().rev() {
            rest.push_front(name);
        }
    }
    route
}

fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
        .collect()
}

/// Takes all pending events, and says whether any of them is about a name that matters.
fn drain(inotify: &OwnedFd, names: &BTreeMap<i32, BTreeSet<OsString>>) -> io::Result<bool> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut events = Reader::new(inotify, &mut buffer);
    let mut relevant = false;
    loop {
        let event = match events.next() {
            Ok(event) => event,
            Err(Errno::AGAIN) => return Ok(relevant),
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        // About the directory itself, or about more than fitted the queue: anything may have happened.
        let Some(name) = event.file_name() else {
            relevant |= !event.events().contains(ReadFlags::IGNORED);
            continue;
        };
        let name = OsStr::from_bytes(name.to_bytes());
        relevant |= names
            .get(&event.wd())
            .is_some_and(|names| names.contains(name));
    }
}

/// What the file holds, as a hash; nothing if it cannot be read. What lies beyond the size that the config reader refuses
/// anyway does not count.
fn digest(path: &Path) -> Option<[u8; 32]> {
    // Asked first: to open a FIFO would wait for a writer.
    if !path.metadata().ok()?.is_file() {
        return None;
    }
    let mut content = Vec::new();
    File::open(path)
        .ok()?
        .take(FILE_MAX.as_u64() + 1)
        .read_to_end(&mut content)
        .ok()?;
    Some(Sha256::digest(&content).into())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory with a config file in it, and a watch on that.
    struct Scene {
        dir: tempfile::TempDir,
        watch: FileWatch,
    }

    impl Scene {
        fn new(set_up: impl FnOnce(&Path)) -> Self {
            let dir = tempfile::tempdir().unwrap();
            set_up(dir.path());
            let watch = FileWatch::new(&dir.path().join("conf/file")).unwrap();
            Self { dir, watch }
        }

        fn plain() -> Self {
            Self::new(|dir| {
                fs::create_dir(dir.join("conf")).unwrap();
                fs::write(dir.join("conf/file"), "one").unwrap();
            })
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        /// The change is reported, sooner or later: on a machine that stands still for a while, a step on the way to it
        /// may be seen, and reported, as well.
        async fn expect(&mut self, expected: Change) {
            let reported = async { while self.watch.changed().await.unwrap() != expected {} };
            let reported = tokio::time::timeout(Duration::from_secs(10), reported);
            reported.await.expect("the change was not noticed");
        }

        /// What was done is waited out, and nothing is reported.
        async fn expect_nothing(&mut self) {
            let settle = tokio::time::timeout(3 * QUIET, self.watch.changed());
            assert!(
                settle.await.is_err(),
                "a change was reported though the content is the same"
            );
        }
    }

    #[tokio::test]
    async fn a_write_in_place() {
        let mut scene = Scene::plain();
        fs::write(scene.path("conf/file"), "two").unwrap();
        scene.expect(Change::Written).await;
        fs::write(scene.path("conf/file"), "three").unwrap();
        scene.expect(Change::Written).await;
    }

    #[tokio::test]
    async fn a_rename_over_it_as_editors_do() {
        let mut scene = Scene::plain();
        for content in ["two", "three"] {
            fs::write(scene.path("conf/.file.swp"), content).unwrap();
            fs::rename(scene.path("conf/.file.swp"), scene.path("conf/file")).unwrap();
            scene.expect(Change::Written).await;
        }
    }

    #[tokio::test]
    async fn deleted_and_made_again() {
        let mut scene = Scene::plain();
        fs::remove_file(scene.path("conf/file")).unwrap();
        fs::write(scene.path("conf/file"), "two").unwrap();
        scene.expect(Change::Written).await;
        fs::remove_file(scene.path("conf/file")).unwrap();
        scene.expect(Change::Gone).await;
        fs::write(scene.path("conf/file"), "two").unwrap();
        scene.expect(Change::Written).await;
    }

    #[tokio::test]
    async fn a_swap_of_links_as_kubernetes_does() {
        let mut scene = Scene::new(|dir| {
            fs::create_dir_all(dir.join("conf/..1")).unwrap();
            fs::write(dir.join("conf/..1/file"), "one").unwrap();
            symlink("..1", dir.join("conf/..data")).unwrap();
            symlink("..data/file", dir.join("conf/file")).unwrap();
        });
        for (old, new) in [("..1", "..2"), ("..2", "..3")] {
            let conf = scene.path("conf");
            fs::create_dir(conf.join(new)).unwrap();
            fs::write(conf.join(new).join("file"), new).unwrap();
            symlink(new, conf.join("..data_tmp")).unwrap();
            fs::rename(conf.join("..data_tmp"), conf.join("..data")).unwrap();
            fs::remove_dir_all(conf.join(old)).unwrap();
            scene.expect(Change::Written).await;
        }
    }

    #[tokio::test]
    async fn the_target_of_a_link_elsewhere() {
        let mut scene = Scene::new(|dir| {
            fs::create_dir(dir.join("conf")).unwrap();
            fs::create_dir(dir.join("real")).unwrap();
            fs::write(dir.join("real/target"), "one").unwrap();
            symlink(dir.join("real/target"), dir.join("conf/file")).unwrap();
        });
        fs::write(scene.path("real/target"), "two").unwrap();
        scene.expect(Change::Written).await;
    }

    #[tokio::test]
    async fn the_directory_made_again() {
        let mut scene = Scene::plain();
        fs::remove_dir_all(scene.path("conf")).unwrap();
        scene.expect(Change::Gone).await;
        fs::create_dir(scene.path("conf")).unwrap();
        fs::write(scene.path("conf/file"), "two").unwrap();
        scene.expect(Change::Written).await;
        // And it is still watched.
        fs::write(scene.path("conf/file"), "three").unwrap();
        scene.expect(Change::Written).await;
    }

    #[tokio::test]
    async fn another_directory_renamed_into_its_place() {
        let mut scene = Scene::plain();
        fs::create_dir(scene.path("next")).unwrap();
        fs::write(scene.path("next/file"), "two").unwrap();
        fs::rename(scene.path("conf"), scene.path("before")).unwrap();
        fs::rename(scene.path("next"), scene.path("conf")).unwrap();
        scene.expect(Change::Written).await;
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_yet() {
        let mut scene = Scene::new(|_| {});
        fs::create_dir(scene.path("conf")).unwrap();
        fs::write(scene.path("conf/file"), "one").unwrap();
        scene.expect(Change::Written).await;
    }

    #[tokio::test]
    async fn the_same_content_is_no_change() {
        let mut scene = Scene::plain();
        fs::write(scene.path("conf/file"), "one").unwrap();
        fs::write(scene.path("conf/other"), "two").unwrap();
        scene.expect_nothing().await;
        fs::write(scene.path("conf/file"), "two").unwrap();
        scene.expect(Change::Written).await;
    }

    #[tokio::test]
    async fn a_dropped_wait_loses_nothing() {
        let mut scene = Scene::plain();
        fs::write(scene.path("conf/file"), "two").unwrap();
        for _ in 0..3 {
            let dropped = tokio::time::timeout(Duration::ZERO, scene.watch.changed()).await;
            assert!(dropped.is_err());
        }
        scene.expect(Change::Written).await;
    }

    #[test]
    fn a_circle_of_links_is_followed_to_an_end() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        let names = &route(&dir.path().join("a"))[dir.path()].names;
        assert_eq!(names.len(), 2);
    }
}

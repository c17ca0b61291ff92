//! Lines that somebody else writes: kept, and waited for.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::PATIENCE;

/// What has been read so far.
#[derive(Debug, Default)]
struct Seen {
    lines: Vec<String>,
    is_over: bool,
}

/// The lines of a stream, read by a thread of its own, so that whoever writes them never waits for the test.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    what: &'static str,
    shared: Arc<(Mutex<Seen>, Condvar)>,
}

impl Lines {
    /// Reads a stream to its end. `what` is what it is called in failures.
    pub(crate) fn of(what: &'static str, stream: impl Read + Send + 'static) -> Self {
        let lines = Self {
            what,
            shared: Arc::default(),
        };
        let writer = lines.clone();
        std::thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
                let text = String::from_utf8_lossy(&line)
                    .trim_end_matches('\n')
                    .to_owned();
                writer.change(|read| read.lines.push(text));
                line.clear();
            }
            writer.change(|read| read.is_over = true);
        });
        lines
    }

    fn change(&self, change: impl FnOnce(&mut Seen)) {
        let (read, changed) = &*self.shared;
        change(&mut read.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_all();
    }

    /// All lines so far.
    pub(crate) fn so_far(&self) -> Vec<String> {
        self.lock().lines.clone()
    }

    /// Whether the stream has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.lock().is_over
    }

    /// Waits for the end of the stream, and gives all its lines.
    pub(crate) fn all(&self) -> Vec<String> {
        self.wait("its end", |read| read.is_over.then(|| read.lines.clone()))
    }

    /// Waits for the first line, from the `from`th on, that `wanted` takes, and gives its number and the line.
    pub(crate) fn wait_for(
        &self,
        from: usize,
        what: &str,
        wanted: impl Fn(&str) -> bool,
    ) -> (usize, String) {
        self.wait(what, |read| {
            let found = read.lines.iter().enumerate().skip(from);
            found
                .map(|(number, line)| (number, line.clone()))
                .find(|(_, line)| wanted(line))
        })
    }

    /// Waits for the line of this number; `None` if the stream ends before it.
    #[cfg(feature = "ipc")]
    pub(crate) fn line(&self, number: usize) -> Option<String> {
        self.wait(&format!("line {number}"), |read| {
            let line = read.lines.get(number);
            line.cloned().map(Some).or(read.is_over.then_some(None))
        })
    }

    /// Waits until there are so many lines.
    pub(crate) fn wait_for_count(&self, count: usize) {
        self.wait(&format!("{count} lines"), |read| {
            (read.lines.len() >= count).then_some(())
        });
    }

    fn wait<T>(&self, what: &str, look: impl Fn(&Seen) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        let mut read = self.lock();
        loop {
            if let Some(found) = look(&read) {
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || read.is_over {
                let why = if read.is_over { "it ended" } else { "in vain" };
                let text = read.lines.join("\n");
                drop(read);
                panic!(
                    "waited for {what} on {}, {why}; it said:\n{text}",
                    self.what
                );
            }
            read = self
                .shared
                .1
                .wait_timeout(read, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.shared.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

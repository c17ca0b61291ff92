//! One output stream of a command: what is kept of it, and what is shown of it while it comes.
//!
//! Both are bounded whatever the command prints. Kept are the first and the last half of a limit, with the count of
//! bytes between them, since the beginning says what was tried and the end what went wrong. Shown are at most
//! [`SHOWN_EVENT_BYTES`] per [`SHOW_INTERVAL`]: of a flood the rest is left out, counted, and whoever watches neither
//! slows the command down nor is drowned by it.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::Instant;

/// The largest piece of output that is shown as one event.
pub const SHOWN_EVENT_BYTES: usize = 8 * 1024;

/// The shortest time between two events of one stream: at most 20 a second.
pub const SHOW_INTERVAL: Duration = Duration::from_millis(50);

/// How much is read at once: as much as a pipe holds by default (pipe(7)).
const READ_BYTES: usize = 64 * 1024;

/// What was kept of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// The text, with a line that says what was cut where something was.
    pub(crate) text: String,
    /// All bytes that came.
    pub(crate) total_bytes: u64,
    /// The bytes that were not kept.
    pub(crate) cut_bytes: u64,
    /// Whether bytes that are not UTF-8 were replaced (by U+FFFD).
    pub(crate) is_lossy: bool,
}

/// Keeps the first and the last bytes of a stream.
#[derive(Debug)]
pub(crate) struct Keeper {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    head_max: usize,
    tail_max: usize,
    total_bytes: u64,
}

impl Keeper {
    pub(crate) fn new(limit_bytes: usize) -> Self {
        let tail_max = limit_bytes / 2;
        Self {
            head: Vec::new(),
            tail: VecDeque::new(),
            head_max: limit_bytes - tail_max,
            tail_max,
            total_bytes: 0,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.total_bytes += bytes.len() as u64;
        let to_head = bytes.len().min(self.head_max - self.head.len());
        let (first, rest) = bytes.split_at(to_head);
        self.head.extend_from_slice(first);
        let rest = &rest[rest.len().saturating_sub(self.tail_max)..];
        let excess = (self.tail.len() + rest.len()).saturating_sub(self.tail_max);
        self.tail.drain(..excess);
        self.tail.extend(rest);
    }

    pub(crate) fn finish(self) -> Kept {
        let kept_bytes = (self.head.len() + self.tail.len()) as u64;
        let cut_bytes = self.total_bytes - kept_bytes;
        let tail = Vec::from(self.tail);
        let (text, is_lossy) = if cut_bytes == 0 {
            let mut whole = self.head;
            whole.extend(tail);
            into_text(whole)
        } else {
            // A character that the cut went through is not the command's fault.
            let head_len = whole_characters(&self.head);
            let tail_start = leading_continuation(&tail);
            let (head, head_lossy) = into_text(self.head[..head_len].to_vec());
            let (tail, tail_lossy) = into_text(tail[tail_start..].to_vec());
            let text = format!("{head}\n[… {cut_bytes} bytes cut …]\n{tail}");
            (text, head_lossy || tail_lossy)
        };
        Kept {
            text,
            total_bytes: self.total_bytes,
            cut_bytes,
            is_lossy,
        }
    }
}

fn into_text(bytes: Vec<u8>) -> (String, bool) {
    match String::from_utf8(bytes) {
        Ok(text) => (text, false),
        Err(error) => (String::from_utf8_lossy(error.as_bytes()).into_owned(), true),
    }
}

/// The length of `bytes` without a character at its end that is only begun.
fn whole_characters(bytes: &[u8]) -> usize {
    let len = bytes.len();
    // The first byte of a character says how many follow it (RFC 3629 section 3); at most three do.
    for back in 1..=len.min(3) {
        let byte = bytes[len - back];
        let announced = match byte {
            0b1100_0000..=0b1101_1111 => 2,
            0b1110_0000..=0b1110_1111 => 3,
            0b1111_0000..=0b1111_0111 => 4,
            0b1000_0000..=0b1011_1111 => continue,
            _ => 1,
        };
        return if announced > back { len - back } else { len };
    }
    len
}

/// How many bytes at the beginning continue a character whose beginning is not there.
fn leading_continuation(bytes: &[u8]) -> usize {
    let is_continuation = |byte: &&u8| (0b1000_0000..=0b1011_1111).contains(*byte);
    bytes.iter().take(3).take_while(is_continuation).count()
}

/// Gathers output until it is time to show some.
///
/// Once a piece is full, what follows is lost until it is shown: a piece never has a hole in its middle.
#[derive(Debug, Default)]
struct Shower {
    pending: Vec<u8>,
    /// Bytes that belong after what is pending.
    lost_bytes: u64,
    shown_at: Option<Instant>,
    /// The last piece ended in a loss, so the next bytes may begin within a character.
    is_after_loss: bool,
    /// All that is pending is the beginning of a character: only more output, not time, makes it worth a look.
    is_only_begun: bool,
}

impl Shower {
    fn push(&mut self, mut bytes: &[u8]) {
        self.is_only_begun = false;
        if self.is_after_loss && self.pending.is_empty() && !bytes.is_empty() {
            let torn = leading_continuation(bytes);
            bytes = &bytes[torn..];
            self.is_after_loss = bytes.is_empty();
            if self.is_after_loss {
                self.lost_bytes += torn as u64;
                return;
            }
            self.pending
                .extend_from_slice(&bytes[..bytes.len().min(SHOWN_EVENT_BYTES)]);
            self.lost_bytes += (torn + bytes.len() - self.pending.len()) as u64;
            return;
        }
        let room = match self.lost_bytes {
            0 => SHOWN_EVENT_BYTES - self.pending.len(),
            _ => 0,
        };
        let (first, rest) = bytes.split_at(bytes.len().min(room));
        self.pending.extend_from_slice(first);
        self.lost_bytes += rest.len() as u64;
    }

    /// When to show what is there; `None` if nothing is.
    fn due(&self) -> Option<Instant> {
        if self.pending.is_empty() || self.is_only_begun {
            return None;
        }
        Some(
            self.shown_at
                .map_or_else(Instant::now, |at| at + SHOW_INTERVAL),
        )
    }

    /// What to show now, and how many bytes after it are lost. A character only begun waits for its rest, unless its
    /// rest is lost or the stream is over.
    fn take(&mut self, now: Instant, is_over: bool) -> Option<(String, u64)> {
        let end = match is_over {
            true => self.pending.len(),
            false => whole_characters(&self.pending),
        };
        if end == 0 {
            self.is_only_begun = true;
            return None;
        }
        self.shown_at = Some(now);
        let text = String::from_utf8_lossy(&self.pending[..end]).into_owned();
        self.pending.drain(..end);
        let mut lost_bytes = std::mem::take(&mut self.lost_bytes);
        self.is_after_loss = lost_bytes > 0;
        if self.is_after_loss {
            lost_bytes += self.pending.len() as u64;
            self.pending.clear();
        }
        Some((text, lost_bytes))
    }
}

/// Reads a stream to its end, keeping and showing what comes.
#[derive(Debug)]
pub(crate) struct Output<F> {
    keeper: Keeper,
    shower: Shower,
    show: F,
}

impl<F: FnMut(String, u64)> Output<F> {
    /// Keeps up to `limit_bytes`; `show` is handed pieces of text, each with the count of bytes lost after it.
    pub(crate) fn new(limit_bytes: usize, show: F) -> Self {
        Self {
            keeper: Keeper::new(limit_bytes),
            shower: Shower::default(),
            show,
        }
    }

    /// Runs until the stream's end. Dropped before, it loses nothing of what was read.
    pub(crate) async fn pump(&mut self, mut stream: impl AsyncRead + Unpin) {
        let mut buffer = vec![0; READ_BYTES];
        loop {
            let due = self.shower.due();
            let read = tokio::select! {
                read = stream.read(&mut buffer) => read,
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.show(false);
                    continue;
                }
            };
            match read {
                // A pipe that cannot be read is as good as over.
                Ok(0) | Err(_) => return self.show(true),
                Ok(len) => {
                    self.keeper.push(&buffer[..len]);
                    self.shower.push(&buffer[..len]);
                }
            }
            // A flood never lets the timer have its turn.
            if self.shower.due().is_some_and(|due| due <= Instant::now()) {
                self.show(false);
            }
        }
    }

    fn show(&mut self, is_over: bool) {
        if let Some((text, lost_bytes)) = self.shower.take(Instant::now(), is_over) {
            (self.show)(text, lost_bytes);
        }
    }

    /// What was kept.
    pub(crate) fn finish(mut self) -> Kept {
        self.show(true);
        self.keeper.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keep(limit: usize, pieces: &[&[u8]]) -> Kept {
        let mut keeper = Keeper::new(limit);
        for piece in pieces {
            keeper.push(piece);
        }
        keeper.finish()
    }

    #[test]
    fn what_fits_is_kept_whole() {
        let kept = keep(10, &[b"hello", b"world"]);
        assert_eq!(kept.text, "helloworld");
        assert_eq!((kept.total_bytes, kept.cut_bytes), (10, 0));
    }

    #[test]
    fn what_does_not_fit_keeps_its_two_ends_and_says_what_is_missing() {
        let kept = keep(6, &[b"abcdefgh", b"ij"]);
        assert_eq!(kept.text, "abc\n[… 4 bytes cut …]\nhij");
        assert_eq!((kept.total_bytes, kept.cut_bytes), (10, 4));
    }

    #[test]
    fn nothing_kept_is_still_counted() {
        let kept = keep(0, &[b"abc"]);
        assert_eq!((kept.total_bytes, kept.cut_bytes), (3, 3));
    }

    #[test]
    fn a_cut_through_a_character_is_not_called_binary() {
        let kept = keep(4, &["ééééé".as_bytes()]);
        assert!(!kept.is_lossy, "{kept:?}");
        let kept = keep(5, &["ééééé".as_bytes()]);
        assert!(!kept.is_lossy, "{kept:?}");
        assert!(keep(5, &[b"\xff\xfe"]).is_lossy);
    }

    #[test]
    fn a_character_in_two_reads_is_shown_in_one_piece() {
        let mut shower = Shower::default();
        let now = Instant::now();
        let (first, second) = "aé".as_bytes().split_at(2);
        shower.push(first);
        assert_eq!(shower.take(now, false), Some(("a".to_owned(), 0)));
        assert_eq!(shower.take(now, false), None);
        shower.push(second);
        assert_eq!(shower.take(now, false), Some(("é".to_owned(), 0)));
    }

    #[test]
    fn a_flood_shows_its_beginning_and_says_how_much_is_missing() {
        let mut shower = Shower::default();
        let now = Instant::now();
        let flood = "é".repeat(SHOWN_EVENT_BYTES);
        let (first, rest) = flood.as_bytes().split_at(SHOWN_EVENT_BYTES + 1);
        shower.push(b"a");
        shower.push(first);
        let (text, lost_bytes) = shower.take(now, false).unwrap();
        assert_eq!(text.len() as u64 + lost_bytes, first.len() as u64 + 1);
        // What comes next begins within a character whose beginning is lost.
        shower.push(rest);
        let (text, more_lost_bytes) = shower.take(now, false).unwrap();
        assert!(text.chars().all(|c| c == 'é'), "{text:?}");
        assert_eq!(text.len() as u64 + more_lost_bytes, rest.len() as u64);
    }

    proptest! {
        /// However a text is cut into reads, the pieces shown are the text, as long as nothing is lost.
        #[test]
        fn pieces_shown_add_up(text in "\\PC{0,200}", cuts in prop::collection::vec(1usize..9, 1..40)) {
            let mut shower = Shower::default();
            let mut shown = String::new();
            let mut rest = text.as_bytes();
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*cut).min(rest.len()));
                rest = after;
                shower.push(piece);
                shown.extend(shower.take(Instant::now(), false).map(|(text, _)| text));
            }
            shown.extend(shower.take(Instant::now(), true).map(|(text, _)| text));
            prop_assert_eq!(shown, text);
        }

        /// The kept ends are the stream's ends, and the counts add up, whatever the reads.
        #[test]
        fn both_ends_are_kept(limit in 0usize..40, pieces in prop::collection::vec("[a-z]{0,30}", 0..8)) {
            let whole: String = pieces.concat();
            let parts: Vec<&[u8]> = pieces.iter().map(String::as_bytes).collect();
            let kept = keep(limit, &parts);
            prop_assert_eq!(kept.total_bytes, whole.len() as u64);
            prop_assert_eq!(kept.cut_bytes, whole.len().saturating_sub(limit) as u64);
            if kept.cut_bytes > 0 {
                let (head, tail) = (limit - limit / 2, limit / 2);
                prop_assert!(kept.text.starts_with(&whole[..head]));
                prop_assert!(kept.text.ends_with(&whole[whole.len() - tail..]));
            } else {
                prop_assert_eq!(kept.text, whole);
            }
        }
    }
}

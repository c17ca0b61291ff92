//! Following a job: what it prints, where it prints it, until it is over.
//!
//! Its standard output goes to ours, its standard error to ours, and what else happens to it (questions, retries) is told
//! on standard error. The output of a try at work is not in the log, so a stream of it cannot be resumed: after a restart
//! it comes from the beginning again, and [`Shown`] takes out what was shown already.

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use api::wire::{Event, LogPiece, StreamEnd};
use pal::render::{self, Style};
use pal::{EventKind, Stream};
use runtime::JobId;
use serde_json::json;

use super::feed::{Fed, Feed, read};
use super::{Failure, Interrupts, Route, Session};
use crate::cli::exit;

/// What to follow, and how.
pub(super) struct Follow {
    pub(super) job: JobId,
    /// The stream of its output.
    pub(super) logs: Route,
    /// Tell what happened since then, in Unix milliseconds.
    pub(super) told_from_ms: u64,
    pub(super) patience: Duration,
    pub(super) raw: bool,
}

/// How long the last of what happens is waited for once all output is there.
const LAST_WORDS_MAX: Duration = Duration::from_secs(2);

/// Follows a job to its end; gives its exit code.
pub(super) async fn follow(session: &Session, what: &Follow) -> Result<u8, Failure> {
    let job = what.job;
    let mut signals = Interrupts::listen()?;
    let mut logs = Feed::new(session, what.logs.clone(), what.patience).start();
    let happens = Route::new(format!("/v1/jobs/{job}/events")).with("output", "false");
    let happens = Feed::new(session, happens, what.patience).resuming(None);
    let mut happens = happens.silent().start();
    let mut happens_more = true;
    // How it ended is told after its last output.
    let mut ending: Option<Event> = None;
    let mut shown = Shown::default();
    let printer = Printer::new(what.raw);
    let end = loop {
        tokio::select! {
            number = signals.next() => {
                session.note(&format!("job {job} goes on; to end it: tinkerbell job cancel {job}"));
                return Ok(exit::forced_by(number));
            }
            fed = logs.recv() => match fed.transpose()? {
                Some(Fed::Message(message)) if message.event == "output" => {
                    let mut piece: LogPiece = read(&message)?;
                    piece.data = shown.new_part(&piece).to_owned();
                    print(session, &printer, &piece)?;
                }
                Some(Fed::Message(_)) => {}
                Some(Fed::Again) => if !shown.again() {
                    session.note("so much was printed that it is shown from the beginning again");
                },
                Some(Fed::End(end)) => break end,
                None => return Err(Failure::said(exit::INTERNAL, "the stream ended without an end")),
            },
            fed = happens.recv(), if happens_more => match fed {
                Some(Ok(Fed::Message(message))) if message.event == "event" => {
                    let event: Event = read(&message)?;
                    match event.kind {
                        EventKind::JobFinished { .. } => ending = Some(event),
                        EventKind::JobStuck { .. } => {
                            tell(session, what, &event)?;
                            return Ok(exit::FAILED);
                        }
                        _ => tell(session, what, &event)?,
                    }
                }
                Some(Ok(Fed::Message(_) | Fed::Again)) => {}
                // A daemon that gives a client one stream and no second gives it the output all the same.
                Some(Ok(Fed::End(_)) | Err(_)) | None => happens_more = false,
            }
        }
    };
    let last_words = async {
        while let Some(Ok(fed)) = happens.recv().await {
            match fed {
                Fed::Message(message) if message.event == "event" => {
                    tell(session, what, &read(&message)?)?;
                }
                Fed::Message(_) | Fed::Again => {}
                Fed::End(_) => break,
            }
        }
        Ok::<(), Failure>(())
    };
    if let Some(event) = ending {
        tell(session, what, &event)?;
    }
    if happens_more {
        // They are told for courtesy; the exit code does not wait for them for ever.
        tokio::time::timeout(LAST_WORDS_MAX, last_words)
            .await
            .unwrap_or(Ok(()))?;
    }
    if session.json {
        print_end(session, &end)?;
    }
    Ok(end.exit_code.unwrap_or(exit::FAILED))
}

fn print(session: &Session, printer: &Printer, piece: &LogPiece) -> Result<(), Failure> {
    if piece.data.is_empty() && piece.lost_bytes == 0 {
        return Ok(());
    }
    if session.json {
        return session.print_json(&tagged("output", piece));
    }
    Ok(printer.print(piece)?)
}

/// A message of a stream as a line of JSON says it.
pub(super) fn tagged(kind: &str, what: &impl serde::Serialize) -> serde_json::Value {
    let mut value = json!(what);
    value["type"] = kind.into();
    value
}

pub(super) fn print_end(session: &Session, end: &StreamEnd) -> Result<(), Failure> {
    session.print_json(&tagged("end", end))
}

/// Tells people on standard error what happens beside the output.
fn tell(session: &Session, what: &Follow, event: &Event) -> Result<(), Failure> {
    if session.json {
        // A job that is stuck has no end that could be told.
        return match event.kind {
            EventKind::JobStuck { .. } => session.print_json(event),
            _ => Ok(()),
        };
    }
    let is_news = match &event.kind {
        EventKind::Question { .. } | EventKind::StepRetrying { .. } | EventKind::Message { .. } => {
            event.at_ms >= what.told_from_ms
        }
        EventKind::JobStuck { .. } => true,
        EventKind::JobFinished { state, .. } => *state != pal::JobState::Completed,
        _ => false,
    };
    if is_news {
        let style = Style {
            without_job: true,
            ..Style::default()
        };
        let line = render::line(&as_event(event), &style);
        // Whoever closed standard error does not want to hear of it.
        let _ = writeln!(io::stderr(), "{line}");
        if let EventKind::Question { name, kind, .. } = &event.kind {
            session.note(&how_to_answer(&what.job.to_string(), name, *kind));
        }
    }
    Ok(())
}

/// What answers a question.
pub(super) fn how_to_answer(job: &str, name: &str, kind: pal::QuestionKind) -> String {
    match kind {
        pal::QuestionKind::Approval => {
            format!("to answer: tinkerbell job approve {job} {name}, or deny")
        }
        pal::QuestionKind::Answer => format!("to answer: tinkerbell job signal {job} {name} TEXT"),
    }
}

/// An event as it is rendered.
pub(super) fn as_event(event: &Event) -> pal::Event {
    pal::Event {
        seq: 0,
        at_ms: event.at_ms,
        lsn: event.lsn,
        job: event.job.map(|job| pal::JobRef {
            id: job.as_uuid(),
            seq: 0,
        }),
        kind: event.kind.clone(),
    }
}

/// Prints what steps printed: each stream to its own, and to a terminal only what is harmless there.
pub(super) struct Printer {
    out_neutral: bool,
    err_neutral: bool,
}

impl Printer {
    pub(super) fn new(raw: bool) -> Self {
        Self {
            out_neutral: !raw && io::stdout().is_terminal(),
            err_neutral: !raw && io::stderr().is_terminal(),
        }
    }

    pub(super) fn print(&self, piece: &LogPiece) -> io::Result<()> {
        match piece.stream {
            Stream::Stdout => write_text(&mut io::stdout(), &piece.data, self.out_neutral)?,
            Stream::Stderr => write_text(&mut io::stderr(), &piece.data, self.err_neutral)?,
        }
        if piece.lost_bytes > 0 {
            let (lost, stream) = (piece.lost_bytes, piece.stream);
            let _ = writeln!(io::stderr(), "… {lost} bytes of {stream} were not kept");
        }
        Ok(())
    }
}

/// Writes what others wrote.
pub(super) fn write_text(out: &mut impl Write, text: &str, neutral: bool) -> io::Result<()> {
    if neutral {
        out.write_all(pal::neutralise(text).as_bytes())?;
    } else {
        out.write_all(text.as_bytes())?;
    }
    out.flush()
}

/// Of which step, and where.
type Source = (String, &'static str);

/// What of a job's output has been shown.
///
/// When the stream begins anew, what of it is the same as was shown is left out. What differs is shown: a try that the
/// daemon's death interrupted may print something else when it is begun again.
#[derive(Debug)]
struct Shown {
    /// By source, what has come on this connection.
    came: HashMap<Source, String>,
    /// What was shown on earlier ones and has not come again yet.
    expected: HashMap<Source, String>,
    bytes: usize,
    limit_bytes: usize,
}

impl Default for Shown {
    fn default() -> Self {
        /// More than is remembered for the case of a restart; beyond it all is shown again then.
        const LIMIT_BYTES: usize = 16 << 20;
        Self {
            came: HashMap::new(),
            expected: HashMap::new(),
            bytes: 0,
            limit_bytes: LIMIT_BYTES,
        }
    }
}

impl Shown {
    /// What of a piece has not been shown yet; it counts as shown from here on.
    fn new_part<'a>(&mut self, piece: &'a LogPiece) -> &'a str {
        let data = piece.data.as_str();
        let source = (piece.step.clone(), piece.stream.as_str());
        if self.bytes <= self.limit_bytes {
            self.bytes += data.len();
            self.came.entry(source.clone()).or_default().push_str(data);
        }
        if self.bytes > self.limit_bytes {
            self.came.clear();
        }
        let Some(expected) = self.expected.get_mut(&source) else {
            return data;
        };
        if expected.starts_with(data) {
            expected.drain(..data.len());
            return "";
        }
        let expected = std::mem::take(expected);
        self.expected.remove(&source);
        data.strip_prefix(expected.as_str()).unwrap_or(data)
    }

    /// The stream begins anew. Says whether all that was shown is known still.
    fn again(&mut self) -> bool {
        // What came on this connection and was left out is the beginning of what was shown before it.
        for (source, came) in self.came.drain() {
            let rest = self.expected.remove(&source).unwrap_or_default();
            self.expected.insert(source, came + &rest);
        }
        let known = self.bytes <= self.limit_bytes;
        if !known {
            self.expected.clear();
        }
        self.bytes = 0;
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(step: &str, stream: Stream, data: &str) -> LogPiece {
        LogPiece {
            step: step.to_owned(),
            attempt: None,
            stream,
            data: data.to_owned(),
            lost_bytes: 0,
        }
    }

    /// Feeds pieces of standard output of one step, and gives what is shown of them.
    fn show(shown: &mut Shown, pieces: &[&str]) -> String {
        let pieces = pieces.iter().map(|data| piece("a", Stream::Stdout, data));
        pieces
            .map(|piece| shown.new_part(&piece).to_owned())
            .collect()
    }

    #[test]
    fn what_comes_again_is_shown_once() {
        let mut shown = Shown::default();
        assert_eq!(show(&mut shown, &["one\n", "two\n"]), "one\ntwo\n");
        assert!(shown.again());
        // In other pieces, as the log has it.
        assert_eq!(
            show(&mut shown, &["o", "ne\ntwo\nthree\n", "four\n"]),
            "three\nfour\n"
        );
        assert!(shown.again());
        // Lost again before all of it had come again.
        assert_eq!(show(&mut shown, &["one\n"]), "");
        assert!(shown.again());
        assert_eq!(
            show(&mut shown, &["one\ntwo\nthree\nfour\nfive\n"]),
            "five\n"
        );
    }

    #[test]
    fn what_a_second_try_prints_otherwise_is_shown() {
        let mut shown = Shown::default();
        show(&mut shown, &["try 1\n"]);
        assert!(shown.again());
        assert_eq!(show(&mut shown, &["try 2\n", "done\n"]), "try 2\ndone\n");
    }

    #[test]
    fn sources_are_held_apart() {
        let mut shown = Shown::default();
        assert_eq!(shown.new_part(&piece("a", Stream::Stdout, "x")), "x");
        assert!(shown.again());
        assert_eq!(shown.new_part(&piece("a", Stream::Stderr, "x")), "x");
        assert_eq!(shown.new_part(&piece("b", Stream::Stdout, "x")), "x");
        assert_eq!(shown.new_part(&piece("a", Stream::Stdout, "x")), "");
    }

    #[test]
    fn memory_is_bounded_and_what_is_forgotten_is_said() {
        let mut shown = Shown {
            limit_bytes: 4,
            ..Shown::default()
        };
        assert_eq!(show(&mut shown, &["abc", "def", "ghi"]), "abcdefghi");
        assert!(shown.came.is_empty());
        assert!(!shown.again());
        assert_eq!(show(&mut shown, &["abc"]), "abc");
    }

    #[test]
    fn what_jobs_print_reaches_a_terminal_only_harmless() {
        let written = |neutral| {
            let mut out = Vec::new();
            write_text(&mut out, "\x1b[2Jcleared\u{202e}\n", neutral).expect("memory takes it");
            String::from_utf8(out).expect("it is text")
        };
        assert_eq!(written(true), "␛[2Jcleared\\u{202e}\n");
        assert_eq!(written(false), "\x1b[2Jcleared\u{202e}\n");
    }
}

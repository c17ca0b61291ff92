//! The words and colours of each kind of event.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use super::{Style, duration};
use crate::event::{AnsweredBy, EventKind, JobState, Part, QuestionKind, StepStatus, Stream};
use crate::neutralise::neutralise;

#[derive(Clone, Copy)]
pub(super) enum Colour {
    None,
    Dim,
    Bold,
    Red,
    Green,
    Yellow,
    Cyan,
}

pub(super) struct Painted<'a> {
    pub(super) colour: Colour,
    pub(super) text: &'a str,
}

impl fmt::Display for Painted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // ECMA-48, select graphic rendition.
        let code = match self.colour {
            Colour::None => return f.write_str(self.text),
            Colour::Bold => 1,
            Colour::Dim => 2,
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Cyan => 36,
        };
        write!(f, "\x1b[{code}m{}\x1b[0m", self.text)
    }
}

/// The text of a line as it is put together. `say` is for our words, `quote` for those of others.
pub(super) struct Text {
    out: String,
    style: Style,
}

impl Text {
    pub(super) fn new(style: Style) -> Self {
        Self {
            out: String::new(),
            style,
        }
    }

    pub(super) fn finish(self) -> String {
        self.out
    }

    fn say(&mut self, text: &str) {
        self.out.push_str(text);
    }

    /// Foreign text. The end of its last line is the end of ours.
    fn quote(&mut self, text: &str) {
        self.out.push_str(&neutralise(text.trim_end_matches('\n')));
    }

    pub(super) fn paint(&mut self, colour: Colour, text: &str) {
        let colour = if self.style.colour {
            colour
        } else {
            Colour::None
        };
        write!(self.out, "{}", Painted { colour, text })
            .expect("writing to a string cannot fail because it only grows");
    }

    /// Foreign text in a colour, one line of it at a time so that no colour runs into an indent.
    fn paint_quote(&mut self, colour: Colour, text: &str) {
        let text = neutralise(text.trim_end_matches('\n'));
        for (index, line) in text.split('\n').enumerate() {
            if index > 0 {
                self.out.push('\n');
            }
            self.paint(colour, line);
        }
    }

    fn reason(&mut self, text: &str) {
        self.say(": ");
        self.quote(text);
    }

    fn error(&mut self, error: Option<&str>) {
        if let Some(error) = error {
            self.say(": ");
            self.paint_quote(Colour::Red, error);
        }
    }

    fn duration(&mut self, duration_us: u64) {
        self.say(" in ");
        self.say(&duration(duration_us));
    }

    /// `step`, and after it what follows: the common beginning of a step's events.
    fn step(&mut self, step: &str) {
        self.paint_quote(Colour::Cyan, step);
        self.say(" ");
    }

    pub(super) fn event(&mut self, kind: &EventKind) {
        match kind {
            EventKind::Phase { name, duration_us } => {
                self.quote(name);
                self.duration(*duration_us);
            }
            EventKind::Ready { duration_us } => {
                self.paint(Colour::Green, "ready");
                self.duration(*duration_us);
            }
            EventKind::Draining { reason } => {
                self.paint(Colour::Yellow, "draining");
                self.reason(reason);
            }
            EventKind::Stopped => self.say("stopped"),
            EventKind::ConfigReloaded {
                applied,
                needs_restart,
            } => {
                self.config_reloaded(applied, needs_restart);
            }
            EventKind::ConfigRejected { error } => {
                self.paint(
                    Colour::Red,
                    "config rejected, the one before stays in force",
                );
                self.error(Some(error));
            }
            EventKind::Degraded { what, detail } => {
                self.paint(Colour::Red, "degraded");
                self.say(" ");
                self.quote(what);
                self.reason(detail);
            }
            EventKind::Recovered { what } => {
                self.paint(Colour::Green, "recovered");
                self.say(" ");
                self.quote(what);
            }
            EventKind::JobSubmitted { name, program } => {
                self.say("job submitted: ");
                if let Some(name) = name {
                    self.paint_quote(Colour::Bold, name);
                    self.say(", a ");
                }
                self.quote(program);
            }
            EventKind::JobStarted => self.say("job started"),
            EventKind::JobWaiting { on } => {
                self.say("job waiting for ");
                self.quote(on);
            }
            EventKind::JobResumed => self.say("job resumed"),
            EventKind::JobRecovered { entries } => {
                let noun = if *entries == 1 { "entry" } else { "entries" };
                self.say(&format!("job recovered from {entries} journal {noun}"));
            }
            EventKind::JobFinished {
                state,
                error,
                duration_us,
            } => {
                let colour = match state {
                    JobState::Completed => Colour::Green,
                    JobState::Failed => Colour::Red,
                    JobState::Cancelled => Colour::Yellow,
                };
                self.say("job ");
                self.paint(colour, state.as_str());
                self.duration(*duration_us);
                self.error(error.as_deref());
            }
            EventKind::JobStuck { step, reason } => {
                self.say("job ");
                self.paint(Colour::Red, "stuck");
                if let Some(step) = step {
                    self.say(" at ");
                    self.quote(step);
                }
                self.error(Some(reason));
            }
            EventKind::StepStarted {
                step,
                title,
                kind,
                attempt,
                attempts,
            } => {
                self.step(step);
                self.quote(title.as_deref().unwrap_or(kind));
                if *attempt > 1 {
                    self.say(&format!(" (attempt {attempt} of {attempts})"));
                }
            }
            EventKind::StepOutput {
                step,
                stream,
                data,
                lost_bytes,
            } => {
                self.output(step, *stream, data, *lost_bytes);
            }
            EventKind::StepRetrying {
                step,
                attempt,
                error,
                next_at_ms,
            } => {
                self.step(step);
                self.paint(Colour::Yellow, &format!("attempt {attempt} failed"));
                self.error(Some(error));
                self.say(&format!("; next at {}", self.style.time.show(*next_at_ms)));
            }
            EventKind::StepFinished {
                step,
                status,
                duration_us,
                error,
            } => {
                let (colour, word) = match status {
                    StepStatus::Ok => (Colour::Green, "ok"),
                    StepStatus::Failed => (Colour::Red, "failed"),
                    StepStatus::TimedOut => (Colour::Red, "timed out"),
                    StepStatus::Cancelled => (Colour::Yellow, "cancelled"),
                    StepStatus::Interrupted => (Colour::Yellow, "interrupted"),
                    StepStatus::Skipped => (Colour::Dim, "skipped"),
                };
                self.step(step);
                self.paint(colour, word);
                match status {
                    StepStatus::Skipped => {}
                    StepStatus::Interrupted => self.say(", outcome unknown"),
                    _ => self.duration(*duration_us),
                }
                self.error(error.as_deref());
            }
            EventKind::Message { step, text } => {
                if let Some(step) = step {
                    self.step(step);
                }
                self.say("says ");
                self.paint_quote(Colour::Bold, text);
            }
            EventKind::Artifact {
                name,
                media_type,
                part,
                index,
                last,
                append: _,
            } => {
                self.artifact(name, media_type, part, *index, *last);
            }
            EventKind::Question {
                name,
                step,
                prompt,
                kind,
                deadline_ms,
                default,
            } => {
                if let Some(step) = step {
                    self.step(step);
                }
                let verb = match kind {
                    QuestionKind::Approval => "asks for approval",
                    QuestionKind::Answer => "asks",
                };
                self.paint(Colour::Yellow, verb);
                self.say(" [");
                self.quote(name);
                self.say("] ");
                self.paint_quote(Colour::Bold, prompt);
                if let Some(deadline_ms) = deadline_ms {
                    self.say(&format!(" until {}", self.style.time.show(*deadline_ms)));
                }
                if let Some(default) = default {
                    self.say(", else ");
                    self.quote(&default.to_string());
                }
            }
            EventKind::Answered { name, by } => {
                self.say("question ");
                self.quote(name);
                self.say(match by {
                    AnsweredBy::Client => " answered",
                    AnsweredBy::Default => " answered by its default",
                    AnsweredBy::Deadline => " not answered by its deadline",
                });
            }
        }
    }

    fn config_reloaded(&mut self, applied: &[String], needs_restart: &[String]) {
        self.say("config reloaded: ");
        if applied.is_empty() {
            self.say("no key changed");
        } else {
            self.quote(&applied.join(", "));
        }
        if !needs_restart.is_empty() {
            self.say("; ");
            self.paint(Colour::Yellow, "needs a restart");
            self.reason(&needs_restart.join(", "));
        }
    }

    /// Each line with the step before it: lines of steps that run at once are then told apart.
    fn output(&mut self, step: &str, stream: Stream, data: &str, lost_bytes: u64) {
        let step = neutralise(step);
        let data = if self.style.raw_output {
            Cow::Borrowed(data)
        } else {
            neutralise(data)
        };
        let bar = match stream {
            Stream::Stdout => "│",
            Stream::Stderr => "┃",
        };
        let colour = match stream {
            Stream::Stdout => Colour::Dim,
            Stream::Stderr => Colour::Yellow,
        };
        let mut lines: Vec<&str> = data
            .strip_suffix('\n')
            .unwrap_or(&data)
            .split('\n')
            .collect();
        let lost = format!("… [{lost_bytes} bytes lost]");
        if lost_bytes > 0 {
            lines.push(&lost);
        }
        for (index, line) in lines.into_iter().enumerate() {
            if index > 0 {
                self.out.push('\n');
            }
            self.paint(Colour::Cyan, &step);
            self.say(" ");
            self.paint(colour, bar);
            self.say(" ");
            self.say(line);
        }
    }

    fn artifact(&mut self, name: &str, media_type: &str, part: &Part, index: u32, last: bool) {
        self.say("artifact ");
        self.paint_quote(Colour::Bold, name);
        self.say(" (");
        self.quote(media_type);
        if index > 0 || !last {
            self.say(&format!(", piece {}", index + 1));
            if last {
                self.say(", the last");
            }
        }
        self.say("): ");
        match part {
            Part::Text { text } => self.quote(text),
            Part::Data { data } => self.quote(&data.to_string()),
            Part::File {
                name,
                size,
                blob: _,
            } => {
                self.quote(name);
                self.say(&format!(", {size} bytes"));
            }
            Part::Url { url } => self.quote(url),
            Part::Omitted { bytes } => self.say(&format!("{bytes} bytes of data, not shown")),
        }
    }
}

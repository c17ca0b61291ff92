//! An event as a line for people.
//!
//! [`line()`] turns an [`Event`] into a [`Line`]: when, which job, what. It is a pure function, so a
//! console, a log and a terminal view show the same words. All text that came from outside (output,
//! messages, titles, errors) goes through [`neutralise`](crate::neutralise()); the only escape
//! sequences in a line are the colours put there here. Text of several lines stays so, and
//! [`Line`]'s `Display` indents what follows the first.

mod text;

use std::fmt;

use uuid::Uuid;

use self::text::{Colour, Painted, Text};
use crate::event::Event;

/// How lines look. The default is plain text, UTC times, a job column, and nothing raw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Colour by ANSI sequences. For terminals only.
    pub colour: bool,
    /// How the time is told.
    pub time: TimeStyle,
    /// Leave out the job, because all lines are of one.
    pub without_job: bool,
    /// Show what steps print exactly as they printed it, escape sequences included. Only for output
    /// that does not go to a terminal, or when the user asked for it.
    pub raw_output: bool,
}

/// How a line tells the time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeStyle {
    /// The time of day in UTC: `14:03:07.250Z`.
    #[default]
    Utc,
    /// The time since a moment, in seconds: `+12.250s`.
    Since {
        /// The moment, in milliseconds since the Unix epoch.
        start_ms: u64,
    },
}

/// An event as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// When it happened.
    pub time: String,
    /// Which job it happened to ([`short_id`]); `None` for an event of the node, or by
    /// [`Style::without_job`].
    pub job: Option<String>,
    /// What happened; may have several lines.
    pub text: String,
    colour: bool,
}

impl fmt::Display for Line {
    /// The whole line, without a newline at its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut indent = self.time.chars().count() + 1;
        let dim = if self.colour {
            Colour::Dim
        } else {
            Colour::None
        };
        write!(
            f,
            "{} ",
            Painted {
                colour: dim,
                text: &self.time
            }
        )?;
        if let Some(job) = &self.job {
            indent += job.chars().count() + 1;
            write!(
                f,
                "{} ",
                Painted {
                    colour: dim,
                    text: job
                }
            )?;
        }
        for (index, text) in self.text.split('\n').enumerate() {
            if index > 0 {
                write!(f, "\n{:indent$}", "")?;
            }
            f.write_str(text)?;
        }
        Ok(())
    }
}

/// A job's id as a line shows it: its last eight hexadecimal digits. The first ones of a UUIDv7 are the
/// time (RFC 9562, section 5.7) and the same for all jobs of a minute; the last ones are random.
#[must_use]
pub fn short_id(job: Uuid) -> String {
    let mut hex = job.simple().to_string();
    hex.split_off(hex.len() - 8)
}

/// The line for an event.
///
/// ```
/// # use pal::{Event, EventKind, render};
/// let event = Event {
///     seq: 1,
///     at_ms: 1_700_000_000_250,
///     lsn: None,
///     job: None,
///     kind: EventKind::Ready { duration_us: 12_300 },
/// };
/// let line = render::line(&event, &render::Style::default());
/// assert_eq!(line.to_string(), "22:13:20.250Z ready in 12.3 ms");
/// ```
#[must_use]
pub fn line(event: &Event, style: &Style) -> Line {
    let job = match event.job {
        Some(job) if !style.without_job => Some(short_id(job.id)),
        _ => None,
    };
    let mut text = Text::new(*style);
    text.event(&event.kind);
    Line {
        time: style.time.show(event.at_ms),
        job,
        text: text.finish(),
        colour: style.colour,
    }
}

/// The line that stands in the place of events a reader missed.
#[must_use]
pub fn lagged(missed: u64, style: &Style) -> String {
    let mut text = Text::new(*style);
    let events = if missed == 1 { "event" } else { "events" };
    text.paint(
        Colour::Yellow,
        &format!("… {missed} {events} not shown: they came faster than they could be"),
    );
    text.finish()
}

impl TimeStyle {
    fn show(self, at_ms: u64) -> String {
        match self {
            Self::Utc => {
                let day_ms = at_ms % (24 * 60 * 60 * 1000);
                let (seconds, ms) = (day_ms / 1000, day_ms % 1000);
                let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
                format!("{hours:02}:{minutes:02}:{seconds:02}.{ms:03}Z")
            }
            // A clock that stepped back shows as no time passed.
            Self::Since { start_ms } => {
                let ms = at_ms.saturating_sub(start_ms);
                format!("+{}.{:03}s", ms / 1000, ms % 1000)
            }
        }
    }
}

/// A duration as people read it, with three digits that count: `850 µs`, `12.3 ms`, `4.05 s`, `3m 07s`,
/// `2h 05m`.
#[must_use]
pub fn duration(duration_us: u64) -> String {
    let us = duration_us;
    let seconds = us / 1_000_000;
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..10_000 => format!("{}.{:02} ms", us / 1000, us % 1000 / 10),
        10_000..100_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        100_000..1_000_000 => format!("{} ms", us / 1000),
        1_000_000..10_000_000 => format!("{seconds}.{:02} s", us % 1_000_000 / 10_000),
        10_000_000..60_000_000 => format!("{seconds}.{} s", us % 1_000_000 / 100_000),
        60_000_000..3_600_000_000 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h {:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

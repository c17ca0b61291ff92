//! The limit of every string on the stream.
//!
//! What agents and tools say may be of any length; what the ring holds and what every reader copies may
//! not. [`Pal::publish`](crate::Pal::publish) puts each event through [`EventKind::bounded`], so a
//! publisher cannot forget to. Text is cut at a character boundary and the cut says how much is
//! gone; nothing is shortened silently. What was cut is only gone from the *stream*: the journal has
//! limits of its own.

use std::mem::size_of;

use serde_json::Value;

use crate::event::{Event, EventKind, Part};

/// The most a step's title may hold. A title is for one line of a screen.
pub const TITLE_MAX_CHARS: usize = 120;
/// The most a name may hold: of a step, a phase, a program, an artifact, a config key.
pub const NAME_MAX_BYTES: usize = 512;
/// The most a sentence may hold: messages, prompts, errors, reasons.
pub const MESSAGE_MAX_BYTES: usize = 16 * 1024;
/// The most one piece of output or of a text artifact may hold.
pub const OUTPUT_MAX_BYTES: usize = 64 * 1024;
/// The most one JSON value may hold, as [`data_bytes`] counts.
pub const DATA_MAX_BYTES: usize = 64 * 1024;
/// The most entries a list may hold.
pub const LIST_MAX: usize = 256;

impl EventKind {
    /// The same event with every string, list and value within its limit.
    ///
    /// Text that is too long ends with `… [n bytes cut]`. Output that is too long adds what was cut to
    /// its `lost_bytes`. A value that is too large becomes [`Part::Omitted`], or, as a question's
    /// default, a string that says so.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        match &mut self {
            Self::Ready { .. }
            | Self::Stopped
            | Self::JobStarted
            | Self::JobResumed
            | Self::JobRecovered { .. } => {}
            Self::Phase {
                name,
                duration_us: _,
            }
            | Self::Recovered { what: name }
            | Self::Answered { name, by: _ } => cut_text(name, NAME_MAX_BYTES),
            Self::Draining { reason: text }
            | Self::ConfigRejected { error: text }
            | Self::JobWaiting { on: text } => cut_text(text, MESSAGE_MAX_BYTES),
            Self::ConfigReloaded {
                applied,
                needs_restart,
            } => {
                cut_list(applied);
                cut_list(needs_restart);
            }
            Self::Degraded { what, detail } => {
                cut_text(what, NAME_MAX_BYTES);
                cut_text(detail, MESSAGE_MAX_BYTES);
            }
            Self::JobSubmitted { name, program } => {
                cut_option(name, NAME_MAX_BYTES);
                cut_text(program, NAME_MAX_BYTES);
            }
            Self::StepStarted {
                step,
                title,
                kind,
                attempt: _,
                attempts: _,
            } => {
                cut_text(step, NAME_MAX_BYTES);
                if let Some(title) = title {
                    cut_title(title);
                }
                cut_text(kind, NAME_MAX_BYTES);
            }
            Self::StepOutput {
                step,
                stream: _,
                data,
                lost_bytes,
            } => {
                cut_text(step, NAME_MAX_BYTES);
                let keep = data.floor_char_boundary(OUTPUT_MAX_BYTES);
                *lost_bytes += (data.len() - keep) as u64;
                shorten(data, keep);
            }
            Self::StepRetrying {
                step,
                attempt: _,
                error,
                next_at_ms: _,
            } => {
                cut_text(step, NAME_MAX_BYTES);
                cut_text(error, MESSAGE_MAX_BYTES);
            }
            Self::StepFinished {
                step,
                status: _,
                duration_us: _,
                error,
            } => {
                cut_text(step, NAME_MAX_BYTES);
                cut_option(error, MESSAGE_MAX_BYTES);
            }
            Self::Message { step, text } | Self::JobStuck { step, reason: text } => {
                cut_option(step, NAME_MAX_BYTES);
                cut_text(text, MESSAGE_MAX_BYTES);
            }
            Self::Artifact {
                name,
                media_type,
                part,
                index: _,
                last: _,
                append: _,
            } => {
                cut_text(name, NAME_MAX_BYTES);
                cut_text(media_type, NAME_MAX_BYTES);
                cut_part(part);
            }
            Self::Question {
                name,
                step,
                prompt,
                kind: _,
                deadline_ms: _,
                default,
            } => {
                cut_text(name, NAME_MAX_BYTES);
                cut_option(step, NAME_MAX_BYTES);
                cut_text(prompt, MESSAGE_MAX_BYTES);
                if let Some(bytes) = default.as_ref().map(data_bytes)
                    && bytes > DATA_MAX_BYTES
                {
                    *default = Some(Value::String(format!("… [{bytes} bytes not shown]")));
                }
            }
            Self::JobFinished {
                state: _,
                error,
                duration_us: _,
            } => {
                cut_option(error, MESSAGE_MAX_BYTES);
            }
        }
        self
    }

    /// About how much memory an event of this kind holds, itself and on the heap, in bytes. It is what
    /// the byte limit of [`Pal::new`](crate::Pal::new) counts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let option = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let list = |list: &[String]| {
            list.iter()
                .map(|text| size_of::<String>() + text.len())
                .sum::<usize>()
        };
        let heap = match self {
            Self::Ready { .. }
            | Self::Stopped
            | Self::JobStarted
            | Self::JobResumed
            | Self::JobRecovered { .. } => 0,
            Self::Phase {
                name: text,
                duration_us: _,
            }
            | Self::Recovered { what: text }
            | Self::Answered { name: text, by: _ }
            | Self::Draining { reason: text }
            | Self::ConfigRejected { error: text }
            | Self::JobWaiting { on: text } => text.len(),
            Self::ConfigReloaded {
                applied,
                needs_restart,
            } => list(applied) + list(needs_restart),
            Self::Degraded { what, detail } => what.len() + detail.len(),
            Self::JobSubmitted { name, program } => option(name) + program.len(),
            Self::StepStarted {
                step,
                title,
                kind,
                attempt: _,
                attempts: _,
            } => step.len() + option(title) + kind.len(),
            Self::StepOutput {
                step,
                stream: _,
                data,
                lost_bytes: _,
            } => step.len() + data.len(),
            Self::StepRetrying {
                step,
                attempt: _,
                error,
                next_at_ms: _,
            } => step.len() + error.len(),
            Self::StepFinished {
                step,
                status: _,
                duration_us: _,
                error,
            } => step.len() + option(error),
            Self::Message { step, text } | Self::JobStuck { step, reason: text } => {
                option(step) + text.len()
            }
            Self::Artifact {
                name,
                media_type,
                part,
                index: _,
                last: _,
                append: _,
            } => {
                let part = match part {
                    Part::Text { text } => text.len(),
                    Part::Data { data } => data_bytes(data),
                    Part::File {
                        name,
                        size: _,
                        blob,
                    } => name.len() + blob.len(),
                    Part::Url { url } => url.len(),
                    Part::Omitted { bytes: _ } => 0,
                };
                name.len() + media_type.len() + part
            }
            Self::Question {
                name,
                step,
                prompt,
                kind: _,
                deadline_ms: _,
                default,
            } => {
                let default = default.as_ref().map_or(0, data_bytes);
                name.len() + option(step) + prompt.len() + default
            }
            Self::JobFinished {
                state: _,
                error,
                duration_us: _,
            } => option(error),
        };
        size_of::<Event>() + heap
    }
}

/// About how much memory a JSON value holds, itself and on the heap, in bytes: a [`Value`] for every
/// node of it, and the length of its strings and keys.
#[must_use]
pub fn data_bytes(value: &Value) -> usize {
    let heap = match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(data_bytes).sum(),
        Value::Object(fields) => fields
            .iter()
            .map(|(key, value)| size_of::<String>() + key.len() + data_bytes(value))
            .sum(),
    };
    size_of::<Value>() + heap
}

/// Cuts `text` so that it is no longer than `max_bytes` *with* the note of what was cut. The limit must
/// leave room for the note; all of ours do.
fn cut_text(text: &mut String, max_bytes: usize) {
    if text.len() <= max_bytes {
        return;
    }
    // The note gets no longer than with every byte cut, so room for that is room enough.
    let room = note(text.len()).len();
    let keep = text.floor_char_boundary(max_bytes.saturating_sub(room));
    let note = note(text.len() - keep);
    shorten(text, keep);
    text.push_str(&note);
}

fn note(bytes: usize) -> String {
    format!("… [{bytes} bytes cut]")
}

fn cut_option(text: &mut Option<String>, max_bytes: usize) {
    if let Some(text) = text {
        cut_text(text, max_bytes);
    }
}

/// Cuts a title to [`TITLE_MAX_CHARS`], the last of which is then an ellipsis. A line of a screen has no
/// room for a note in numbers.
fn cut_title(title: &mut String) {
    let mut ends = title.char_indices().map(|(at, _)| at);
    let keep = ends.nth(TITLE_MAX_CHARS - 1);
    let too_long = ends.next().is_some();
    if let Some(keep) = keep
        && too_long
    {
        shorten(title, keep);
        title.push('…');
    }
}

fn cut_list(list: &mut Vec<String>) {
    if list.len() > LIST_MAX {
        let gone = list.len() - (LIST_MAX - 1);
        list.truncate(LIST_MAX - 1);
        list.push(format!("… [{gone} more]"));
        list.shrink_to_fit();
    }
    for text in list {
        cut_text(text, NAME_MAX_BYTES);
    }
}

fn cut_part(part: &mut Part) {
    match part {
        Part::Text { text } => cut_text(text, OUTPUT_MAX_BYTES),
        Part::Data { data } => {
            let bytes = data_bytes(data);
            if bytes > DATA_MAX_BYTES {
                *part = Part::Omitted {
                    bytes: bytes as u64,
                };
            }
        }
        Part::File {
            name,
            size: _,
            blob,
        } => {
            cut_text(name, NAME_MAX_BYTES);
            cut_text(blob, NAME_MAX_BYTES);
        }
        Part::Url { url } => cut_text(url, MESSAGE_MAX_BYTES),
        Part::Omitted { .. } => {}
    }
}

/// Truncates and gives the memory back: the ring would hold on to it for as long as to the event.
fn shorten(text: &mut String, keep: usize) {
    text.truncate(keep);
    text.shrink_to_fit();
}

//! Log lines: to standard error, for people on a terminal and as JSON otherwise, filtered by a filter that a reload can
//! change.
//!
//! What is logged is partly written by others (tool output, job names, keys of a config file). In the human form every
//! value of a field goes through [`Neutral`], so that no text can recolour a terminal or forge a line; in JSON
//! the encoding does it.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use tracing::Subscriber;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, Layer, Registry, reload};

use crate::config::{Environment, LogFilter, LogFormat};
use crate::neutral::Neutral;

/// How to log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Which lines.
    pub filter: LogFilter,
    /// In which form.
    pub format: LogFormat,
    /// Whether the human form is coloured.
    pub colour: bool,
}

/// Whether colour is wanted on a stream: only on a terminal, and not if `NO_COLOR` is set (<https://no-color.org>),
/// the terminal is dumb, or the user said no.
#[must_use]
pub fn wants_colour(on_terminal: bool, environment: &Environment, refused: bool) -> bool {
    on_terminal
        && !refused
        && environment.variable("NO_COLOR").is_none()
        && environment
            .variable("TERM")
            .is_none_or(|term| term != "dumb")
}

/// Changes what is logged while the process runs.
#[derive(Clone, Debug)]
pub struct LogHandle {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl LogHandle {
    /// Takes another filter into use, from the next log line on.
    pub fn set_filter(&self, filter: &LogFilter) {
        // It fails only if the subscriber is gone, and then there is nobody to filter for.
        let _ = self.filter.reload(env_filter(filter));
    }
}

/// Begins to log to standard error, for the whole process.
///
/// # Errors
/// If the process logs already.
pub fn init(options: &LogOptions) -> Result<LogHandle, tracing::subscriber::SetGlobalDefaultError> {
    let (subscriber, handle) = subscriber(options, io::stderr().is_terminal(), Lines);
    tracing::subscriber::set_global_default(subscriber)?;
    Ok(handle)
}

/// Standard error, as whole lines and without complaint: a log that nobody reads any more (a closed pipe, a full
/// console) must not end the process, as `eprintln!` would.
#[derive(Clone, Copy, Debug)]
struct Lines;

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = io::stderr().lock().write_all(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        *self
    }
}

fn subscriber<W>(
    options: &LogOptions,
    on_terminal: bool,
    writer: W,
) -> (impl Subscriber + Send + Sync + use<W>, LogHandle)
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(env_filter(&options.filter));
    let human = match options.format {
        LogFormat::Human => true,
        LogFormat::Json => false,
        LogFormat::Auto => on_terminal,
    };
    let lines = if human {
        human_lines(writer, options.colour)
    } else {
        json_lines(writer)
    };
    (
        Registry::default().with(filter).with(lines),
        LogHandle { filter: handle },
    )
}

type Boxed<S> = Box<dyn Layer<S> + Send + Sync>;

fn human_lines<S, W>(writer: W, colour: bool) -> Boxed<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    use fmt::Write;
    let fields = debug_fn(|writer, field, value| {
        let mut writer = Neutral(writer);
        if field.name() == "message" {
            return write!(writer, "{value:?}");
        }
        write!(writer, "{}={value:?}", field.name())
    });
    tracing_subscriber::fmt::layer()
        .fmt_fields(fields.delimited(" "))
        .with_ansi(colour)
        .with_writer(writer)
        .boxed()
}

fn json_lines<S, W>(writer: W) -> Boxed<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_writer(writer)
        .boxed()
}

fn env_filter(filter: &LogFilter) -> EnvFilter {
    EnvFilter::builder()
        .parse(filter.as_str())
        .expect("a `LogFilter` parses, because that is how it was made")
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Keeps what was logged.
    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Kept {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn logged(format: LogFormat, filter: &str, act: impl FnOnce(&LogHandle)) -> String {
        let kept = Kept::default();
        let filter = LogFilter::parse(filter).unwrap();
        let options = LogOptions {
            filter,
            format,
            colour: false,
        };
        let (subscriber, handle) = subscriber(&options, false, kept.clone());
        tracing::subscriber::with_default(subscriber, || act(&handle));
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    const HOSTILE: &str = "\x1b[2Jgone\n2026-01-01T00:00:00Z ERROR forged\u{202e}";

    #[test]
    fn hostile_text_reaches_a_terminal_harmless() {
        let out = logged(LogFormat::Human, "info", |_| {
            let span = tracing::info_span!("job", name = %HOSTILE);
            let _in_span = span.enter();
            tracing::info!(as_str = HOSTILE, as_text = %HOSTILE, "said {HOSTILE}");
        });
        assert!(
            !out.contains('\x1b') && !out.contains('\u{202e}'),
            "{out:?}"
        );
        assert!(
            out.lines().skip(1).all(|line| line.starts_with("    ")),
            "{out}"
        );
    }

    #[test]
    fn json_is_one_object_a_line() {
        let out = logged(LogFormat::Auto, "info", |_| {
            tracing::info!(text = HOSTILE, n = 7, "hello");
        });
        let line: serde_json::Value = serde_json::from_str(out.trim_end()).unwrap();
        assert_eq!((&line["message"], &line["n"]), (&"hello".into(), &7.into()));
        assert_eq!(line["text"], HOSTILE);
        assert!(!out.contains('\x1b'), "{out:?}");
    }

    #[test]
    fn a_reload_changes_what_is_logged() {
        let out = logged(LogFormat::Json, "info", |handle| {
            tracing::debug!("before");
            handle.set_filter(&LogFilter::parse("debug").unwrap());
            tracing::debug!("after");
            handle.set_filter(&LogFilter::parse("off").unwrap());
            tracing::error!("never");
        });
        assert!(
            out.contains("after") && !out.contains("before") && !out.contains("never"),
            "{out}"
        );
    }

    #[test]
    fn colour_is_for_terminals_of_those_who_want_it() {
        let plain = Environment::of_variables([("TERM", "xterm")]);
        assert!(wants_colour(true, &plain, false));
        assert!(!wants_colour(false, &plain, false));
        assert!(!wants_colour(true, &plain, true));
        for refusal in [("NO_COLOR", "1"), ("TERM", "dumb")] {
            assert!(!wants_colour(
                true,
                &Environment::of_variables([refusal]),
                false
            ));
        }
        // An empty NO_COLOR counts as not set, by its own specification.
        assert!(wants_colour(
            true,
            &Environment::of_variables([("NO_COLOR", "")]),
            false
        ));
    }
}

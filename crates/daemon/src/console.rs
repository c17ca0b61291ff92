//! The activity on the terminal: every event as a line on standard output.
//!
//! A thread of its own reads the activity log and writes, so that a terminal that does not take its lines slows
//! nothing else; what it misses for that reason is counted and said.

use std::io::{self, Write};
use std::thread::JoinHandle;
use std::time::Duration;

use pal::render::{self, Style};
use pal::{Delivery, Event, EventKind, Filter, Pal, StartAt};
use uuid::Uuid;

/// In which form events are written.
#[derive(Clone, Copy, Debug)]
pub enum ConsoleForm {
    /// A line for people.
    Lines(Style),
    /// A JSON object a line.
    Json,
}

/// A view of the activity that is being written.
#[derive(Debug)]
pub struct Console {
    pal: Pal,
    thread: JoinHandle<()>,
}

/// How long to wait for an event before looking again whether there will be any.
const WAIT: Duration = Duration::from_secs(3600);

impl Console {
    /// Begins to write what happens from now on: everything, or what happens to one job.
    ///
    /// # Errors
    ///
    /// If the thread cannot be started.
    pub fn start(pal: &Pal, job: Option<Uuid>, form: ConsoleForm) -> io::Result<Self> {
        let filter = job.map_or_else(Filter::all, Filter::job);
        let mut events = pal.subscribe(filter, StartAt::Oldest);
        let thread = std::thread::Builder::new()
            .name("console".to_owned())
            .spawn(move || {
                // Whoever closed our output does not want to hear of it; the daemon goes on.
                let mut out = io::stdout();
                loop {
                    let written = match events.recv_blocking(WAIT) {
                        None => Ok(()),
                        Some(Delivery::Event(event)) => write_event(&mut out, &event, form),
                        Some(Delivery::Lagged { missed, .. }) => write_lag(&mut out, missed, form),
                        Some(Delivery::Closed) => return,
                    };
                    if written.is_err() {
                        return;
                    }
                }
            })?;
        Ok(Self {
            pal: pal.clone(),
            thread,
        })
    }

    /// Writes what has happened so far, and ends.
    pub fn finish(self) {
        self.pal.close();
        // It panics only if writing does, and then there is nobody to tell.
        let _ = self.thread.join();
    }
}

fn write_event(out: &mut impl Write, event: &Event, form: ConsoleForm) -> io::Result<()> {
    match form {
        ConsoleForm::Json => {
            serde_json::to_writer(&mut *out, event)?;
            writeln!(out)
        }
        ConsoleForm::Lines(style) => match &event.kind {
            // Start-up is the log's matter, not the activity's.
            EventKind::Phase { .. } => Ok(()),
            _ => writeln!(out, "{}", render::line(event, &style)),
        },
    }?;
    out.flush()
}

fn write_lag(out: &mut impl Write, missed: u64, form: ConsoleForm) -> io::Result<()> {
    match form {
        ConsoleForm::Json => writeln!(
            out,
            "{}",
            serde_json::json!({ "type": "lagged", "missed": missed })
        ),
        ConsoleForm::Lines(style) => writeln!(out, "{}", render::lagged(missed, &style)),
    }
}

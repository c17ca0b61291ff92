//! What the verbs of the command line do that ask a running daemon, over ipc.
//!
//! Data goes to standard output, messages to standard error. Each verb prints a [`table`] for people or, with `--json`, the
//! same facts for programs: one JSON value, or a line of JSON for each thing of a stream. What jobs and daemons say is
//! theirs: on its way to a terminal it is neutralised.
//!
//! - [`contexts`]: which daemon is meant.
//! - [`jobs`], [`submit`] and [`node`]: the verbs.
//! - [`feed`]: a stream that is taken up again when the daemon comes back; [`follow`]: a job's output by two of them.

mod contexts;
mod feed;
mod follow;
mod jobs;
mod node;
mod submit;
mod table;

use std::io::{self, IsTerminal, Write};

use api::ipc::Address;
use api::ipc::client::{Client, ClientError};
use api::wire::Problem;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::signal::unix::{self, SignalKind};

use crate::cli::{
    AskArgs, ContextCommand, GlobalArgs, JobCommand, NodeCommand, exit, write_errors,
};
use crate::config::{ConfigErrors, Environment};
use crate::logging::wants_colour;

/// Does what `tinkerbell job …` says, and gives the exit code.
pub(crate) fn job(global: &GlobalArgs, environment: &Environment, command: JobCommand) -> u8 {
    ended(match command {
        JobCommand::Run(_) => unreachable!("it needs no daemon and is not brought here"),
        command => jobs::run(global, environment, command),
    })
}

/// Does what `tinkerbell node …` says, and gives the exit code.
pub(crate) fn node(global: &GlobalArgs, environment: &Environment, command: NodeCommand) -> u8 {
    ended(node::run(global, environment, command))
}

/// Does what `tinkerbell context …` says, and gives the exit code.
pub(crate) fn context(
    global: &GlobalArgs,
    environment: &Environment,
    command: ContextCommand,
) -> u8 {
    ended(contexts::run(global, environment, command))
}

fn ended(done: Result<u8, Failure>) -> u8 {
    done.unwrap_or_else(|failure| match failure.0 {
        What::Write(error) => crate::cannot_write(&error),
        What::Config { errors, what, code } => {
            let _ = write_errors(&errors, what, &mut io::stderr());
            code
        }
        What::Said {
            code,
            message,
            help,
        } => {
            let help = help.as_deref().map(table::one_line);
            crate::complain(&table::one_line(&message), help.as_deref());
            code
        }
    })
}

/// Why a verb could not do what it should.
#[derive(Debug)]
struct Failure(What);

#[derive(Debug)]
enum What {
    /// To be said like this.
    Said {
        code: u8,
        message: String,
        help: Option<String>,
    },
    /// Mistakes in a file.
    Config {
        errors: ConfigErrors,
        what: &'static str,
        code: u8,
    },
    /// Nobody takes what is printed.
    Write(io::Error),
}

impl Failure {
    fn said(code: u8, message: impl Into<String>) -> Self {
        Self(What::Said {
            code,
            message: message.into(),
            help: None,
        })
    }

    fn usage(message: impl Into<String>) -> Self {
        Self::said(exit::USAGE, message)
    }

    fn config(errors: ConfigErrors, what: &'static str) -> Self {
        Self(What::Config {
            errors,
            what,
            code: exit::CONFIG,
        })
    }

    fn refused(problem: &Problem) -> Self {
        let refused = Self::said(exit::FAILED, problem.detail.clone());
        match (problem.code.as_str(), problem.retry_after_ms) {
            ("ambiguous", _) => refused.with_help("give more of the id"),
            ("not_found", _) => {
                refused.with_help("`tinkerbell job list` shows the jobs that are there")
            }
            (_, Some(after_ms)) => {
                refused.with_help(format!("try again in {} s", after_ms.div_ceil(1000)))
            }
            _ => refused,
        }
    }

    fn with_help(mut self, text: impl Into<String>) -> Self {
        if let What::Said { help, .. } = &mut self.0 {
            *help = Some(text.into());
        }
        self
    }
}

/// Only standard output is written to without saying which file it is.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self(What::Write(error))
    }
}

/// A daemon, and why that one.
#[derive(Clone, Debug)]
struct Target {
    address: Address,
    /// What named it.
    how: String,
}

impl Target {
    fn parse(address: &str, how: String) -> Result<Self, Failure> {
        let of = match how.as_str() {
            "" => String::new(),
            how => format!(" ({how})"),
        };
        match address.parse() {
            Ok(address) => Ok(Self { address, how }),
            Err(error) => Err(Failure::usage(format!("{error}{of}"))),
        }
    }
}

/// A daemon to ask, and how to print what it says.
#[derive(Clone, Debug)]
struct Session {
    client: Client,
    how: String,
    json: bool,
    /// Whether standard output takes colour.
    colour: bool,
}

impl Session {
    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let answer = self.client.get(path).await;
        answer.map_err(|error| self.failed(error))
    }

    async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let answer = self.client.post(path, body).await;
        answer.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: ClientError) -> Failure {
        let how = &self.how;
        match error {
            ClientError::Unreachable { address, source } => {
                let help = match source.kind() {
                    io::ErrorKind::PermissionDenied => {
                        "the socket is for the daemon's own user, and for those of `ipc.allowed_uids` that may open it"
                    }
                    _ => {
                        "start one there with `tinkerbell`, or name another: --socket, --context, TINKERBELL_SOCKET"
                    }
                };
                let message = format!("cannot reach a daemon at {address} (from: {how}): {source}");
                Failure::said(exit::UNAVAILABLE, message).with_help(help)
            }
            ClientError::Refused(problem) => Failure::refused(&problem),
            ClientError::Broken(what) => {
                let address = self.client.address();
                let message = format!("{what}, at {address} (from: {how})");
                Failure::said(exit::UNAVAILABLE, message)
            }
        }
    }

    /// Prints a JSON value on a line of its own.
    fn print_json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        let line = serde_json::to_string(value)
            .expect("what is printed serialises because it has string keys only");
        writeln!(out, "{line}")?;
        out.flush()?;
        Ok(())
    }

    /// Prints the one row of a table: for people a line for each column.
    fn print_one(&self, table: &table::Table) -> Result<(), Failure> {
        if self.json {
            return self.print_json(&table.first_to_json());
        }
        Ok(table.write_down(&mut io::stdout().lock(), self.colour)?)
    }

    /// Says something to people.
    fn note(&self, text: &str) {
        // Whoever closed standard error does not want to hear of it.
        let _ = writeln!(io::stderr(), "{}", table::one_line(text));
    }
}

/// Asks the daemon that is meant.
fn ask(
    global: &GlobalArgs,
    environment: &Environment,
    args: &AskArgs,
    verb: impl AsyncFnOnce(Session) -> Result<u8, Failure>,
) -> Result<u8, Failure> {
    let target = contexts::target(global, environment, &args.daemon)?;
    let session = Session {
        client: Client::new(target.address),
        how: target.how,
        json: args.json,
        colour: wants_colour(io::stdout().is_terminal(), environment, global.no_color),
    };
    let io_runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::said(
                exit::INTERNAL,
                format!("cannot start the I/O runtime: {error}"),
            )
        })?;
    let done = io_runtime.block_on(verb(session));
    io_runtime.shutdown_background();
    done
}

/// A part of a path or a value of a parameter, encoded so that it is that and nothing else (RFC 3986, section 2.1).
fn encoded(text: &str) -> String {
    use std::fmt::Write;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            other => write!(encoded, "%{other:02X}")
                .expect("writing to a string cannot fail because it only grows"),
        }
    }
    encoded
}

/// A path with parameters.
#[derive(Clone, Debug)]
struct Route {
    path: String,
    has_parameters: bool,
}

impl Route {
    fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            has_parameters: false,
        }
    }

    fn with(mut self, name: &str, value: &str) -> Self {
        let sign = if self.has_parameters { '&' } else { '?' };
        self.path.push(sign);
        self.path.push_str(&format!("{name}={}", encoded(value)));
        self.has_parameters = true;
        self
    }

    fn with_all<'a>(self, name: &str, values: impl IntoIterator<Item = &'a str>) -> Self {
        let values = values.into_iter();
        values.fold(self, |route, value| route.with(name, value))
    }
}

/// The signals that end a verb that goes on by itself.
struct Interrupts {
    interrupt: unix::Signal,
    terminate: unix::Signal,
}

impl Interrupts {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            unix::signal(kind).map_err(|error| {
                Failure::said(
                    exit::INTERNAL,
                    format!("cannot listen for signals: {error}"),
                )
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// The number of the next. Dropping the future loses nothing.
    async fn next(&mut self) -> i32 {
        let kind = tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
        };
        kind.as_raw_value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_cannot_lead_elsewhere() {
        assert_eq!(encoded("../a b?c#d%ü"), "..%2Fa%20b%3Fc%23d%25%C3%BC");
        let route = Route::new("/v1/jobs")
            .with_all("label", ["a=b&c", "x=y"])
            .with("limit", "3");
        assert_eq!(route.path, "/v1/jobs?label=a%3Db%26c&label=x%3Dy&limit=3");
    }
}

//! Programs: the code that runs a kind of job.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::context::Context;
use crate::json::Json;

/// How a program ends when it does not give a result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// A stable word for what went wrong.
    pub code: String,
    /// What went wrong, for people.
    pub message: String,
    /// What the program gave all the same.
    pub output: Option<Json>,
}

impl Failure {
    /// A failure without output.
    #[must_use]
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            output: None,
        }
    }

    /// Adds what the program gave all the same.
    #[must_use]
    pub fn with_output(mut self, output: Json) -> Self {
        self.output = Some(output);
        self
    }
}

/// What is wrong with an input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InputError {
    /// The value that is wrong, as a JSON pointer (RFC 6901) into the input; empty for the input as a whole.
    pub pointer: String,
    /// What is wrong with it, and how to mend it. Names the place in words as well.
    pub message: String,
}

impl InputError {
    /// An error at a place of the input.
    #[must_use]
    pub fn at(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            pointer: pointer.into(),
            message: message.into(),
        }
    }
}

/// What a program comes to.
pub type ProgramResult = Result<Json, Failure>;

/// A running program.
pub type ProgramFuture = Pin<Box<dyn Future<Output = ProgramResult>>>;

/// A kind of job.
///
/// # What a program may do
///
/// It sees the world only through its [`Context`]: no clock, no randomness, no I/O, no threads, no maps whose order
/// depends on addresses or a random seed. The same journal must give the same requests in the same order, on any
/// machine. A change of behaviour goes behind [`Context::version`].
pub trait Program: Send + Sync {
    /// The name that specifications use.
    fn name(&self) -> &str;

    /// The version that new jobs begin with. Raised with every change of behaviour.
    fn version(&self) -> u32;

    /// Looks an input over before a job is made of it, on the submitter's thread.
    ///
    /// # Errors
    ///
    /// What is wrong with the input, where, and how to mend it.
    fn check(&self, input: &Json) -> Result<(), InputError>;

    /// Begins the program. `input` has passed [`check`](Self::check), perhaps that of an earlier version.
    fn start(&self, context: Context, input: Json) -> ProgramFuture;
}

/// The programs that a runtime knows, by name.
#[derive(Clone, Default)]
pub struct Programs(BTreeMap<String, Arc<dyn Program>>);

impl Programs {
    /// No programs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a program; one of the same name is replaced.
    #[must_use]
    pub fn with(mut self, program: impl Program + 'static) -> Self {
        self.0.insert(program.name().to_owned(), Arc::new(program));
        self
    }

    /// The program of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Program>> {
        self.0.get(name)
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl std::fmt::Debug for Programs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.names()).finish()
    }
}

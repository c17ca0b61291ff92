//! Programs: what a job of each kind does.
//!
//! - [`Command`] runs one command.
//! - [`Plan`] runs steps that depend on each other, concurrently where the dependencies allow.
//!
//! A program is an ordinary `async fn` over a [`runtime::Context`] and knows nothing of how an effect is carried out, of
//! threads or of clocks. What it asks for by name (`process.run`, `file.read`) is in crate `tools`.

mod command;
mod duration;
mod plan;
mod retry;
mod template;

pub use command::Command;
pub use plan::Plan;

use runtime::{InputError, Programs};

/// All programs of this crate. No plan may have more than `steps_max` steps.
#[must_use]
pub fn programs(steps_max: usize) -> Programs {
    Programs::new().with(Command).with(Plan::new(steps_max))
}

/// Reads a program's input, naming the place of what does not fit.
fn read_input<T: serde::de::DeserializeOwned>(input: &runtime::Json) -> Result<T, InputError> {
    let mut deserializer = serde_json::Deserializer::from_str(input.as_str());
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        // The position counts within a text that the submitter never saw in this form; the path is what helps.
        let what = error.inner().to_string();
        let what = what.split(" at line ").next().unwrap_or(&what);
        if path == "." {
            InputError::at("", what)
        } else {
            InputError::at(pointer_to(error.path()), format!("{path}: {what}"))
        }
    })
}

/// A path as a JSON pointer (RFC 6901).
fn pointer_to(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter().fold(String::new(), |mut pointer, segment| {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } | Segment::Enum { variant: key } => {
                pointer.push('/');
                pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
            }
            Segment::Unknown => {}
        }
        pointer
    })
}

//! What the metrics promise, through the door their users take.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests are tests, which clippy does not see"
)]

mod concurrent;
mod family;
mod parser;
mod process;
mod registry;
mod text;

//! What the activity log promises, through the door its users take.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests are tests, which clippy does not see"
)]

mod bound;
mod json;
mod render;
mod samples;
mod stream;
mod wake;

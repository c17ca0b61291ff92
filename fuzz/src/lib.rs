//! What the fuzz targets do with their bytes, one function each.
//!
//! Bytes that somebody else wrote are read in six places: the log, the records in it, config files, job files, requests, and
//! requests of Agent2Agent. Each function here takes any bytes, gives them to one of those readers by the door that everybody
//! uses, and panics if the reader does, or if what it says does not agree with itself. `fuzz_targets` hands these functions to
//! libFuzzer; `crates/daemon/tests/corpus.rs` runs them over the committed corpus with the stable toolchain.

#[cfg(feature = "a2a")]
pub mod a2a;
pub mod config;
pub mod job;
pub mod journal;
pub mod log;
mod machine;
#[cfg(feature = "ipc")]
pub mod request;
mod scratch;

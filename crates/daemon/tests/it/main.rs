//! The daemon as its users meet it: the real binary, its signals, its files, its exit codes.
//!
//! One test binary, so that it is linked once. Every test makes a [`support::Node`] (a directory with a config and the
//! daemon's data), starts daemons or commands in it, and looks at what they say: lines on standard error, answers over
//! HTTP, `tinkerbell log cat`. Nothing here waits by sleeping: what is waited for is a line, an end of a process, or a
//! byte from a tool, each with a deadline.

#[cfg(feature = "a2a")]
mod a2a;
#[cfg(feature = "ipc")]
mod client;
mod commands;
mod foreground;
#[cfg(feature = "grpc")]
mod grpc;
mod io_error;
#[cfg(feature = "ipc")]
mod ipc;
mod kill;
mod power;
mod probes;
mod refusals;
mod reload;
mod replay;
#[cfg(feature = "ipc")]
mod scenarios;
mod service_manager;
mod shutdown;
mod space;
mod startup;
mod support;

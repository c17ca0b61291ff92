//! Transports over the `Jobs` handle.
//!
//! One [`Service`] says what clients can ask for and what they get; every transport is a thin adapter that puts its
//! protocol's words to it. So what one can do, all can, and none has job logic of its own:
//!
//! - [`service`]: jobs, signals, results, and the node itself.
//! - [`watch`] and [`logs`]: what happened since, from the log, and what happens now, without a gap between the two.
//! - [`limits`]: how much clients may ask at once; [`fault`]: every refusal, with what it means and how to mend it.
//! - `listen`: Unix domain sockets and vsock, for the transports that are served there.
//! - [`node`]: what is asked of the process as a whole, which is the daemon's to do.
//! - `tls` and `token`: what transports that are served over TCP know their clients by.
//! - `grpc` (feature `grpc`): gRPC over TCP, TLS, a Unix domain socket or vsock.
//! - `ipc` (feature `ipc`): HTTP/1.1 and JSON over a Unix domain socket or vsock, and its client.
//! - `a2a` (feature `a2a`): the Agent2Agent protocol over TCP, with or without TLS. Its tasks are jobs.
//!
//! This crate knows nothing of how a job runs.

#[cfg(feature = "a2a")]
pub mod a2a;
pub mod artifacts;
pub mod fault;
#[cfg(feature = "grpc")]
pub mod grpc;
mod instruments;
#[cfg(feature = "ipc")]
pub mod ipc;
pub mod limits;
#[cfg(feature = "_sockets")]
pub mod listen;
mod live;
pub mod logs;
pub mod node;
#[cfg(feature = "_server")]
mod paced;
#[cfg(feature = "_server")]
pub mod server;
pub mod service;
#[cfg(feature = "_tls")]
pub mod tls;
#[cfg(feature = "_tls")]
pub mod token;
pub mod watch;
pub mod wire;

pub use fault::{Fault, FaultCode};
pub use instruments::Instruments;
pub use limits::{ClientId, Limits};
pub use node::{NodeControl, NodeRequest};
pub use service::{Options, Service};

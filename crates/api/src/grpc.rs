//! gRPC: over TCP with or without TLS, over a Unix domain socket, and over vsock for the host of a microVM.
//!
//! `proto/tinkerbell/v1/*.proto` says what there is, in the words of the other transports; the Rust code of it is committed
//! (`cargo xtask proto` writes it, a test holds it against the files), so that building takes neither `protoc` nor what
//! stands in for it. Beside it there are `grpc.health.v1` and reflection (`v1`, and `v1alpha` for clients that know no
//! other).
//!
//! Framing and status codes are tonic's; connections are hyper's and ours. So limits, deadlines and the end of the daemon
//! are decided in one place, before anything of a call is looked at, and no open stream can hold a shutdown up.
//!
//! - `serve`: connections, how many, whose, and how they end.
//! - `calls`: whether the answers of a connection are taken.
//! - `call`: what stands before every call: who asks, a place, its deadline, its message; and how it is counted.
//! - `jobs`, `node`, `health`: the services, each method a few lines over [`Service`](crate::Service).
//! - `words`: from our types to those of the protocol and back; `status`: refusals.

mod address;
mod call;
mod calls;
mod health;
mod jobs;
mod node;
mod serve;
mod status;
mod stream;
mod words;

pub use crate::server::Server;
pub use crate::token::TokenCheck;
pub use address::{Address, BindError, Bound, bind};
pub use serve::{Access, KeepAlive, serve};

/// The versions of HTTP that gRPC is spoken over, for TLS.
pub const PROTOCOLS: &[&str] = &["h2"];

/// The protocol's types and traits, generated from `proto/`.
#[allow(
    unreachable_pub,
    rustdoc::all,
    clippy::all,
    clippy::pedantic,
    reason = "it is generated, and documented where it is written: in the .proto files"
)]
mod pb {
    include!("grpc/gen/tinkerbell.v1.rs");
}

/// The descriptors of `proto/`, for reflection.
const DESCRIPTORS: &[u8] = include_bytes!("grpc/gen/tinkerbell.v1.bin");

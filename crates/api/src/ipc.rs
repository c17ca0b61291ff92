//! HTTP/1.1 and JSON over a Unix domain socket, so that `curl --unix-socket` is a client, or over vsock for the host of a
//! microVM.
//!
//! Routes, parameters and answers are those of `openapi.json` beside this crate's manifest, which is served at
//! `/openapi.json` and held against the routes by a test. Events come as server-sent events whose ids are entries of the log,
//! so that `Last-Event-ID` resumes a stream across restarts of the daemon; errors are problem documents (RFC 9457).
//!
//! Who may speak to a Unix socket is decided twice: by the file (0600, in a directory of the owner's), and by the
//! user id that the kernel says the other side has.

mod answer;
mod body;
pub mod client;
#[doc(hidden)]
pub mod fuzz;
mod query;
mod routes;
mod serve;

pub use crate::listen::{Address, BindError, Bound, ParseAddressError, bind};
pub use crate::server::Server;
pub use routes::{OPENAPI, operations};
pub use serve::{Access, serve};

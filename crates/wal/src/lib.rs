//! An append-only, segmented, checksummed write-ahead log of byte records.
//!
//! The one idea: **a batch is a frame**. What is handed to the log together is written by one
//! system call, covered by one checksum, made durable by one sync, and after a crash there as a whole
//! or not at all. Group commit, atomicity and recovery are the same thing seen from three sides.
//!
//! What is promised:
//! - **Durable**: with [`SyncPolicy::Always`], what [`Log::append`] has returned or
//!   [`WriterEvent::Durable`] has reported survives the loss of power.
//! - **Torn is not corrupt**: a frame that a crash has cut off is dropped, for nobody was told that it
//!   was there. Any other change of the bytes stops the opening with file, offset and [`Lsn`]; nothing is
//!   ever skipped. How the two are told apart, and what cannot be told, is argued in `tail.rs`;
//!   the bytes are described in `format.rs`.
//! - **Fail-stop**: after a failed write or sync nothing is accepted and nothing acknowledged. No
//!   sync is tried twice.
//! - **Full is not failed**: a disk without space is seen one segment early ([`Log::space_low`]),
//!   refuses cleanly ([`AppendError::NoSpace`]), and is fine again once there is space.
//!
//! The way of a record: [`Batch`] → [`Writer`] (a thread that turns all that waits into one frame) →
//! [`Log`] (frames into segments) → [`Storage`] (files). Back again: [`Log::open`] hands every record
//! to a visitor at boot; a [`Reader`] reads beside the writer; [`verify`] checks a whole log. Payloads
//! too large for a record go into a [`BlobStore`] first, and the record names them.
//!
//! Invariants of the crate: it knows nothing of what is in a record; it has one writer per directory;
//! everything that touches the machine goes through [`Storage`], so that [`sim::MemStorage`] can
//! stand in for it and take the power away at any moment.

mod batch;
mod blob;
mod cursor;
mod error;
mod first_format;
mod format;
mod frame;
mod log;
mod lsn;
mod options;
#[cfg(planted)]
pub mod planted;
mod queue;
mod reader;
mod recovery;
mod segment;
pub mod sim;
mod stats;
pub mod storage;
mod sync;
mod tail;
mod writer;

pub use batch::Batch;
pub use blob::{BlobError, BlobId, BlobStore, ParseBlobIdError};
pub use error::{AppendError, Damage, DamageKind, Failure, OpenError, ReadError};
pub use format::{FORMAT_VERSION, LogId};
pub use log::{Log, Released, ignore};
pub use lsn::Lsn;
pub use options::{Options, SyncPolicy};
pub use reader::{Reader, Verified, verify};
pub use recovery::{Recovered, Torn};
pub use stats::{SYNC_BUCKET_BOUNDS, Stats};
pub use storage::{OsStorage, Storage};
pub use writer::{StatsHandle, StopError, Submission, SubmitError, Writer, WriterEvent};

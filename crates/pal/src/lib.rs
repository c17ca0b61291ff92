//! The process activity log: live event types and a bounded broadcast of them.
//!
//! Everything the daemon does shows here while it does it. Whoever changes a state
//! [publishes](Pal::publish) one [`Event`]; transports, the console and a live page
//! [subscribe](Pal::subscribe). The stream is *ephemeral*: the truth is in the write-ahead log, and an
//! event that shows a durable entry carries its log sequence number. So the stream may forget, and
//! from that comes its one rule: **a reader never costs the publisher**. Events live in a ring of
//! bounded count and bytes; a reader too slow for it is told exactly how many events of its it missed,
//! and goes on with the oldest still kept.
//!
//! - [`event`]: the events and their JSON.
//! - [`bound`]: the limit of every string in them.
//! - [`broadcast`]: [`Pal`] and [`Subscription`].
//! - [`render`]: an event as a line for people, with hostile output made harmless.
//!
//! This crate knows nothing of who listens, of transports, or of the log: it needs no executor, and
//! a subscription works from async code of any runtime and from plain threads alike.

pub mod bound;
pub mod broadcast;
pub mod event;
mod neutralise;
pub mod render;
mod ring;

pub use broadcast::{Delivery, Pal, Stats, Subscription};
pub use event::{
    AnsweredBy, Event, EventKind, JobRef, JobState, Part, QuestionKind, StepStatus, Stream,
};
pub use neutralise::neutralise;
pub use ring::{Filter, StartAt};

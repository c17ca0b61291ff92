//! How much clients may ask at once.
//!
//! A request takes a place when it comes and gives it back when it is answered; a stream takes one more, for as long as it
//! lasts, from its client's own share. Beyond a limit the answer is a clear refusal, at once: nothing waits in line.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::fault::{Fault, FaultCode};

/// The limits, of all transports together but for those on connections, of which each has as many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The longest message of a client, in bytes.
    pub message_bytes: usize,
    /// Connections of one transport.
    pub connections: usize,
    /// Requests that are not answered yet.
    pub requests: usize,
    /// Streams of one client.
    pub streams_per_client: usize,
    /// Streams in all.
    pub streams: usize,
    /// A client that takes nothing of what is sent to it for so long is disconnected.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes: 2 << 20,
            connections: 4096,
            requests: 1024,
            streams_per_client: 1024,
            streams: 4096,
            stall: Duration::from_secs(30),
        }
    }
}

/// Who asks, as far as a transport can tell: what limits on one client count by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientId {
    /// A process of this machine, by its id.
    Process(i32),
    /// Another machine of the same host, by its vsock context id.
    Context(u32),
    /// Another machine.
    Address(IpAddr),
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(pid) => write!(f, "pid {pid}"),
            Self::Context(cid) => write!(f, "cid {cid}"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// The places there are, and who has them.
#[derive(Clone, Debug)]
pub(crate) struct Places(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    requests: AtomicUsize,
    streams: Mutex<Streams>,
}

#[derive(Debug, Default)]
struct Streams {
    all: usize,
    by_client: HashMap<ClientId, usize>,
}

/// The place of a request, given back when it is dropped.
#[derive(Debug)]
pub struct RequestPlace(Arc<Inner>);

impl Drop for RequestPlace {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The place of a stream, given back when it is dropped.
#[derive(Debug)]
pub struct StreamPlace(Arc<Inner>, ClientId);

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut streams = self.0.streams();
        streams.all -= 1;
        if let Some(count) = streams.by_client.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                streams.by_client.remove(&self.1);
            }
        }
    }
}

impl Inner {
    fn streams(&self) -> std::sync::MutexGuard<'_, Streams> {
        // Nothing under the lock can panic half way.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    pub(crate) fn new(limits: Limits) -> Self {
        Self(Arc::new(Inner {
            limits,
            requests: AtomicUsize::new(0),
            streams: Mutex::default(),
        }))
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(crate) fn requests(&self) -> usize {
        self.0.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn streams(&self) -> usize {
        self.0.streams().all
    }

    pub(crate) fn request(&self) -> Result<RequestPlace, Fault> {
        // Counted first and looked at after: so the bound holds for any number of threads.
        let place = RequestPlace(Arc::clone(&self.0));
        let before = self.0.requests.fetch_add(1, Ordering::Relaxed);
        let limit = self.0.limits.requests;
        if before >= limit {
            return Err(Fault::new(
                FaultCode::Exhausted,
                format!("{limit} requests are being served (`api.requests`); try again later"),
            ));
        }
        Ok(place)
    }

    pub(crate) fn stream(&self, client: ClientId) -> Result<StreamPlace, Fault> {
        let limits = &self.0.limits;
        let mut streams = self.0.streams();
        if streams.all >= limits.streams {
            return Err(Fault::new(
                FaultCode::Exhausted,
                format!(
                    "there are {} streams, as many as there may be (`api.streams`); try again later",
                    limits.streams
                ),
            ));
        }
        let count = streams.by_client.entry(client).or_default();
        if *count >= limits.streams_per_client {
            return Err(Fault::new(
                FaultCode::Exhausted,
                format!(
                    "{client} has {} streams, as many as one client may have (`api.streams_per_client`)",
                    limits.streams_per_client
                ),
            ));
        }
        *count += 1;
        streams.all += 1;
        drop(streams);
        Ok(StreamPlace(Arc::clone(&self.0), client))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(requests: usize, streams: usize, streams_per_client: usize) -> Places {
        Places::new(Limits {
            requests,
            streams,
            streams_per_client,
            ..Limits::default()
        })
    }

    #[test]
    fn a_place_is_refused_beyond_the_limit_and_free_again_once_given_back() {
        let places = places(2, 1, 1);
        let first = places.request().unwrap();
        let _second = places.request().unwrap();
        assert_eq!(places.request().unwrap_err().code, FaultCode::Exhausted);
        assert_eq!(places.requests(), 2);
        drop(first);
        places.request().unwrap();
    }

    #[test]
    fn one_client_cannot_take_all_streams() {
        let places = places(1, 3, 2);
        let (greedy, modest) = (ClientId::Process(1), ClientId::Process(2));
        let taken = [
            places.stream(greedy).unwrap(),
            places.stream(greedy).unwrap(),
        ];
        let refused = places.stream(greedy).unwrap_err();
        assert!(refused.message.contains("pid 1"), "{refused}");
        let _other = places.stream(modest).unwrap();
        let refused = places.stream(modest).unwrap_err();
        assert!(refused.message.contains("`api.streams`"), "{refused}");
        drop(taken);
        assert_eq!(places.streams(), 1);
        places.stream(greedy).unwrap();
    }
}

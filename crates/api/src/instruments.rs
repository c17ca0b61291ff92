//! What the transports count.

use std::time::Duration;

use metrics::{Counter, DURATION_BUCKETS_SECONDS, Family, Gauge, Histogram, Registry};

/// The transports' metrics, registered once.
#[derive(Clone, Debug)]
pub struct Instruments {
    requests: Family<Counter>,
    seconds: Family<Histogram>,
    connections: Family<Gauge>,
    connections_refused: Family<Counter>,
    #[cfg(feature = "a2a")]
    notifications: Family<Counter>,
    pub(crate) streams_lagged: Counter,
    pub(crate) streams: Gauge,
}

/// The methods, codes and transports there are, multiplied, with room to grow.
const SERIES_MAX: usize = 1024;

impl Instruments {
    /// Registers all of them.
    ///
    /// # Panics
    ///
    /// If they are registered in this registry already.
    #[must_use]
    pub fn new(registry: &Registry) -> Self {
        Self {
            requests: registry.counter_family(
                "tinkerbell_api_requests_total",
                "Requests answered, by transport, method and code",
                &["transport", "method", "code"],
                SERIES_MAX,
            ),
            seconds: registry.histogram_family(
                "tinkerbell_api_request_duration_seconds",
                "How long it took to answer a request; for a stream, until it began",
                &["transport", "method"],
                SERIES_MAX,
                &DURATION_BUCKETS_SECONDS,
            ),
            connections: registry.gauge_family(
                "tinkerbell_api_connections",
                "Open connections, by transport",
                &["transport"],
                SERIES_MAX,
            ),
            connections_refused: registry.counter_family(
                "tinkerbell_api_connections_refused_total",
                "Connections refused, by transport and reason",
                &["transport", "reason"],
                SERIES_MAX,
            ),
            #[cfg(feature = "a2a")]
            notifications: registry.counter_family(
                "tinkerbell_api_push_notifications_total",
                "Push notifications tried, by what came of it: taken, put_off or refused",
                &["result"],
                SERIES_MAX,
            ),
            streams: registry.gauge("tinkerbell_api_streams", "Open streams of events and logs"),
            streams_lagged: registry.counter(
                "tinkerbell_api_streams_lagged_total",
                "Streams that ended because their reader was too slow",
            ),
        }
    }

    /// Counts a request that was answered.
    pub fn answered(&self, transport: &str, method: &str, code: &str, took: Duration) {
        self.requests.with(&[transport, method, code]).inc();
        self.seconds.with(&[transport, method]).observe(took);
    }

    /// The open connections of a transport.
    #[must_use]
    pub fn connections(&self, transport: &str) -> Gauge {
        self.connections.with(&[transport])
    }

    /// Counts a push notification that was tried.
    #[cfg(feature = "a2a")]
    pub(crate) fn pushed(&self, result: &str) {
        self.notifications.with(&[result]).inc();
    }

    /// Counts a connection that was refused.
    pub fn refused(&self, transport: &str, reason: &str) {
        self.connections_refused.with(&[transport, reason]).inc();
    }
}

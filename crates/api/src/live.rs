//! The live half of a stream: what happens from now on, until nothing will happen any more.

use pal::{Delivery, Filter, StartAt, Subscription};
use tokio::sync::watch;

use crate::limits::StreamPlace;
use crate::service::{Service, Stage, over};

/// A place among the streams, and what comes on it. It is counted for as long as it is held.
pub(crate) struct Live {
    events: Subscription,
    stage: watch::Receiver<Stage>,
    service: Service,
    _place: StreamPlace,
}

impl Live {
    pub(crate) fn begin(
        service: &Service,
        place: StreamPlace,
        filter: Filter,
        start: StartAt,
    ) -> Self {
        service.instruments().streams.inc();
        Self {
            events: service.pal().subscribe(filter, start),
            stage: service.stage(),
            service: service.clone(),
            _place: place,
        }
    }

    /// The next delivery; [`Delivery::Closed`] too once the node is over and everything was delivered. Dropping the
    /// future loses nothing.
    pub(crate) async fn next(&mut self) -> Delivery {
        let delivery = tokio::select! {
            biased;
            delivery = self.events.recv() => delivery,
            () = over(&mut self.stage) => Delivery::Closed,
        };
        if let Delivery::Lagged { .. } = delivery {
            self.service.instruments().streams_lagged.inc();
        }
        delivery
    }

    /// The service that it belongs to.
    pub(crate) fn service(&self) -> &Service {
        &self.service
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.service.instruments().streams.dec();
    }
}

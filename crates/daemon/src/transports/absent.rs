//! A build without transports.

use std::convert::Infallible;

use metrics::Registry;
use pal::Pal;
use runtime::Runtime;

use super::Asked;
use crate::boot::{BootError, OpenedLog};
use crate::config::{Config, Environment};

/// What transports would be made from.
pub struct Site;

impl Site {
    /// Nothing is kept.
    #[must_use]
    pub fn of(_: &Config, _: &OpenedLog) -> Self {
        Self
    }
}

/// There are none.
pub struct Transports(Infallible);

/// Serves nothing, and says so to whoever expects it.
///
/// # Errors
///
/// None.
pub async fn serve(
    config: &Config,
    _: &Environment,
    _: Site,
    _: &Runtime,
    _: &Pal,
    _: &Registry,
) -> Result<Option<Transports>, BootError> {
    if !config.ipc.listen.is_empty() {
        tracing::warn!(
            "`ipc.listen` is set, but this build has no feature `ipc`: nothing listens there"
        );
    }
    if !config.grpc.listen.is_empty() {
        tracing::warn!(
            "`grpc.listen` is set, but this build has no feature `grpc`: nothing listens there"
        );
    }
    Ok(None)
}

impl Transports {
    /// What a client asks of the process.
    pub async fn asked(&mut self) -> Asked {
        match self.0 {}
    }

    /// Takes in no more jobs.
    pub fn drain(&self) {
        match self.0 {}
    }

    /// Takes in nothing more.
    pub fn stop(&self) {
        match self.0 {}
    }

    /// Ends all streams and connections.
    pub async fn end(self) {
        match self.0 {}
    }
}

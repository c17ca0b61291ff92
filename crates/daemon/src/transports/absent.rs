//! A build without transports.

use std::convert::Infallible;

use metrics::Registry;
use pal::Pal;
use runtime::Runtime;
use tools::ToolBox;

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

    /// The tools as they are.
    #[must_use]
    pub fn add_to(&self, tools: ToolBox) -> ToolBox {
        tools
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
    super::warn_of_absent_features(config);
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

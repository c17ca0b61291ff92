//! The transports through which clients bring work, as far as this build has any: what they are made from, what they ask of
//! the process, and how they end with it.
//!
//! Which features are on decides what is behind this and not who uses it: without any there is never a [`Transports`].

#[cfg_attr(feature = "_api", path = "transports/built.rs")]
#[cfg_attr(not(feature = "_api"), path = "transports/absent.rs")]
mod these;

#[cfg(feature = "a2a")]
mod a2a;

#[cfg(feature = "ipc")]
pub use these::ipc_addresses;
pub use these::{Site, Transports, serve};

use crate::running::Reloaded;

/// Says it to whoever has written skills for a build that cannot serve them.
#[cfg(not(feature = "a2a"))]
fn say_a2a_is_absent(config: &crate::config::Config, _: &crate::config::Environment) {
    if config.a2a.enabled && !config.a2a_skills.is_empty() {
        tracing::warn!(
            "there are skills (`a2a.skill`), but this build has no feature `a2a`: nobody can ask for them"
        );
    }
}

/// What a client asks of the process.
pub enum Asked {
    /// Read the config again.
    Reload {
        /// Takes how it went.
        answer: Box<dyn FnOnce(Reloaded) + Send>,
    },
    /// Take in nothing more.
    Drain {
        /// Who asks.
        by: String,
        /// Whether to stop as soon as nothing is left to do.
        stop: bool,
        /// To be called once it has begun.
        answer: Box<dyn FnOnce() + Send>,
    },
    /// Stop.
    Shutdown {
        /// Who asks.
        by: String,
        /// To be called before it begins.
        answer: Box<dyn FnOnce() + Send>,
    },
}

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

use crate::config::Config;
use crate::running::Reloaded;

/// Says where nothing will listen although the config says so: this build lacks the feature.
fn warn_of_absent_features(config: &Config) {
    let (ipc, grpc) = (&config.ipc.listen, &config.grpc.listen);
    let has_skills = config.a2a.enabled && !config.a2a_skills.is_empty();
    for (feature, is_there, key, is_set) in [
        ("ipc", cfg!(feature = "ipc"), "ipc.listen", !ipc.is_empty()),
        (
            "grpc",
            cfg!(feature = "grpc"),
            "grpc.listen",
            !grpc.is_empty(),
        ),
        ("a2a", cfg!(feature = "a2a"), "a2a.skill", has_skills),
    ] {
        if is_set && !is_there {
            tracing::warn!(
                "`{key}` is set, but this build has no feature `{feature}`: nothing listens there"
            );
        }
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

//! Faults that are planted on purpose, one at a time, to see whether the simulation finds them.
//!
//! All of this is compiled in with `--cfg planted` only. That is no Cargo feature, so that neither `--all-features` nor a
//! dependent crate can bring it into a build. The fault is chosen by thread, since a simulated run is one thread.

use std::cell::Cell;

thread_local! {
    static CHOSEN: Cell<&'static str> = const { Cell::new("") };
}

/// Plants a fault on this thread, in the place of the one before; `""` plants none.
pub fn plant(name: &'static str) {
    CHOSEN.set(name);
}

/// Whether this fault is planted.
#[must_use]
pub fn is(name: &str) -> bool {
    CHOSEN.get() == name
}

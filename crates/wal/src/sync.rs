//! Locks and threads: the standard library's, or with `--cfg shuttle` those of
//! [shuttle](https://github.com/awslabs/shuttle), which runs a test under many orders of its threads.

#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard},
    thread,
};
#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard},
    thread,
};

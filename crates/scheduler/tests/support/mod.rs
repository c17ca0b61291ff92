//! What the tests share.

#![allow(
    dead_code,
    unused_imports,
    reason = "not every test file uses everything"
)]

mod combinators;
mod world;

pub(crate) use combinators::{Foreign, JoinAll};
pub(crate) use world::{Log, OnDrop, SECOND, World};

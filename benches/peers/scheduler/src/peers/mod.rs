//! Each runtime behind the same door, for those that run futures; [`may`] has stacks and has its own.

pub(crate) mod bare;
pub(crate) mod futures;
pub(crate) mod least;
pub(crate) mod may;
pub(crate) mod monoio;
pub(crate) mod ours;
pub(crate) mod smol;
pub(crate) mod tokio;

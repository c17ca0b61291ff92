//! `LocalPool` of the crate `futures`.

use futures_executor::{LocalPool, LocalSpawner};
use futures_util::task::LocalSpawnExt;

use crate::peer::Executor;

/// The way to the pool.
#[derive(Clone)]
pub(crate) struct Futures(LocalSpawner);

impl Executor for Futures {
    fn run<F>(main: impl FnOnce(Self) -> F + 'static) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let mut pool = LocalPool::new();
        let futures = Self(pool.spawner());
        let main = futures.spawn(main(futures.clone()));
        pool.run_until(main)
    }

    fn spawn<F>(&self, future: F) -> impl Future<Output = F::Output> + 'static
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.0
            .spawn_local_with_handle(future)
            .expect("a pool that is there")
    }

    fn detach(&self, future: impl Future<Output = ()> + 'static) {
        self.0.spawn_local(future).expect("a pool that is there");
    }
}

//! smol's `LocalExecutor` (the crate `async-executor`).

use std::rc::Rc;

use async_executor::LocalExecutor;

use crate::peer::Executor;

/// The way to the executor.
#[derive(Clone)]
pub(crate) struct Smol(Rc<LocalExecutor<'static>>);

impl Executor for Smol {
    fn run<F>(main: impl FnOnce(Self) -> F + 'static) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let smol = Self(Rc::new(LocalExecutor::new()));
        let main = smol.0.spawn(main(smol.clone()));
        futures_executor::block_on(smol.0.run(main))
    }

    fn spawn<F>(&self, future: F) -> impl Future<Output = F::Output> + 'static
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.0.spawn(future)
    }

    fn detach(&self, future: impl Future<Output = ()> + 'static) {
        self.0.spawn(future).detach();
    }
}

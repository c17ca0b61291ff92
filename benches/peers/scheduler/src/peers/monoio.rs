//! monoio, on io_uring where the kernel allows it and else on epoll.

use monoio::{FusionDriver, RuntimeBuilder};

use crate::peer::Executor;

/// `monoio::spawn`.
#[derive(Clone)]
pub(crate) struct Monoio;

impl Executor for Monoio {
    fn run<F>(main: impl FnOnce(Self) -> F + 'static) -> F::Output
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        let runtime = RuntimeBuilder::<FusionDriver>::new().build();
        let mut runtime = runtime.expect("a driver that this kernel has");
        runtime.block_on(async { monoio::spawn(main(Self)).await })
    }

    fn spawn<F>(&self, future: F) -> impl Future<Output = F::Output> + 'static
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        monoio::spawn(future)
    }

    fn detach(&self, future: impl Future<Output = ()> + 'static) {
        drop(monoio::spawn(future));
    }
}

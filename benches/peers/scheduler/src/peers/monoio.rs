//! monoio, on io_uring where the kernel allows it and else on epoll.

use monoio::{FusionDriver, RuntimeBuilder};

use crate::peer::{Peer, SharedFlag, park_on_waker, yield_by_waking};

/// `monoio::spawn`.
#[derive(Clone)]
pub(crate) struct Monoio;

impl Peer for Monoio {
    type Event = SharedFlag;

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

    fn yield_now(&self) -> impl Future<Output = ()> {
        yield_by_waking()
    }

    fn event(&self) -> SharedFlag {
        SharedFlag::default()
    }

    fn notify(&self, event: &SharedFlag) {
        event.notify();
    }

    fn wait(&self, event: &SharedFlag) -> impl Future<Output = ()> {
        event.wait()
    }

    fn park(&self) -> impl Future<Output = ()> + 'static {
        park_on_waker()
    }
}

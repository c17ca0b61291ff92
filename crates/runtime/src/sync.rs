//! Locks, channels and threads: the standard library's, or with `--cfg shuttle` those of
//! [shuttle](https://github.com/awslabs/shuttle), which runs a test under many orders of its threads.

#[cfg(shuttle)]
pub(crate) use shuttle::{
    sync::{Mutex, MutexGuard},
    thread,
};
#[cfg(not(shuttle))]
pub(crate) use std::{
    sync::{Mutex, MutexGuard, mpsc},
    thread,
};

/// Shuttle's channel, but that the messages left in it go with its receiver, as the standard library's do: it is how
/// whoever asked too late is told so.
#[cfg(shuttle)]
pub(crate) mod mpsc {
    use std::time::Duration;

    pub(crate) use shuttle::sync::mpsc::{RecvError, RecvTimeoutError, Sender, TryRecvError};

    pub(crate) struct Receiver<T>(shuttle::sync::mpsc::Receiver<T>);

    pub(crate) fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = shuttle::sync::mpsc::channel();
        (sender, Receiver(receiver))
    }

    impl<T> Receiver<T> {
        pub(crate) fn recv(&self) -> Result<T, RecvError> {
            self.0.recv()
        }

        pub(crate) fn recv_timeout(&self, timeout: Duration) -> Result<T, RecvTimeoutError> {
            self.0.recv_timeout(timeout)
        }

        pub(crate) fn try_recv(&self) -> Result<T, TryRecvError> {
            self.0.try_recv()
        }

        pub(crate) fn try_iter(&self) -> impl Iterator<Item = T> {
            self.0.try_iter()
        }
    }

    impl<T> Drop for Receiver<T> {
        fn drop(&mut self) {
            // No other thread gets in between the last look and the end of the receiver.
            self.try_iter().for_each(drop);
        }
    }
}

//! The signals the daemon listens to, as a stream of intentions.
//!
//! Signals coalesce: the kernel keeps one pending signal of a kind, and so does tokio, so two SIGHUPs in quick
//! succession may arrive as one. That is right for all of ours: each means "look at how things are now". Only for
//! termination does the count matter (a second one ends at once), and there a person or a supervisor leaves time
//! between the two.
//!
//! Invariant: a signal that arrives after [`Signals::listen`] has returned is not lost, whatever the daemon is doing,
//! and never has its default action.

use std::io;

use tokio::signal::unix::{self, SignalKind};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGTERM or SIGINT: shut down. Keeps the number: the exit code of a forced end is 128 plus that.
    Terminate {
        /// The signal's number.
        number: i32,
    },
    /// SIGHUP: read the config again.
    Reload,
    /// SIGUSR1: write the state of scheduler, jobs and log to the log.
    Dump,
    /// SIGUSR2: restart in place.
    Restart,
}

/// The stream of signals. There should be one: each has its own idea of what it has seen.
#[derive(Debug)]
pub struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
    dump: unix::Signal,
    restart: unix::Signal,
}

impl Signals {
    /// Begins to listen. From here on none of these signals ends the process by itself.
    ///
    /// # Errors
    /// If the system refuses a handler.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O enabled.
    pub fn listen() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            hangup: unix::signal(SignalKind::hangup())?,
            dump: unix::signal(SignalKind::user_defined1())?,
            restart: unix::signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next signal. Of several that are pending, one that ends the process comes first. Dropping the
    /// future loses nothing.
    pub async fn next(&mut self) -> Signal {
        let terminate = |kind: SignalKind| Signal::Terminate {
            number: kind.as_raw_value(),
        };
        tokio::select! {
            biased;
            _ = self.terminate.recv() => terminate(SignalKind::terminate()),
            _ = self.interrupt.recv() => terminate(SignalKind::interrupt()),
            _ = self.hangup.recv() => Signal::Reload,
            _ = self.dump.recv() => Signal::Dump,
            _ = self.restart.recv() => Signal::Restart,
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::process::{Signal as Number, getpid, kill_process};

    use super::*;

    /// One test for all: signals go to the whole process, and so to every test that runs in it.
    #[tokio::test]
    async fn each_signal_says_what_it_asks_for() {
        let mut signals = Signals::listen().unwrap();
        for (number, meaning) in [
            (Number::HUP, Signal::Reload),
            (Number::USR1, Signal::Dump),
            (Number::USR2, Signal::Restart),
            (Number::TERM, Signal::Terminate { number: 15 }),
            (Number::INT, Signal::Terminate { number: 2 }),
        ] {
            kill_process(getpid(), number).unwrap();
            assert_eq!(signals.next().await, meaning);
        }
    }
}

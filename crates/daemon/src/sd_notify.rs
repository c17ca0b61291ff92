//! Telling the service manager how things are: the `sd_notify(3)` protocol.
//!
//! One datagram of `KEY=value` lines to the socket that `NOTIFY_SOCKET` names. systemd speaks it, and so do other
//! supervisors and some container runtimes. The protocol is small and stable, so it is written out here.
//!
//! Invariants: without `NOTIFY_SOCKET` everything is a no-op; telling never blocks and never fails the daemon, since
//! a supervisor that does not listen must not stop the work.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::config::Environment;
use crate::neutral::one_line;

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct Notifier {
    manager: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// From `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    ///
    /// # Errors
    /// If there is a `NOTIFY_SOCKET` that cannot be understood or no socket can be made. The caller logs it and goes
    /// on with [`Notifier::default`], which tells nobody.
    pub fn from_environment(environment: &Environment) -> io::Result<Self> {
        let Some(name) = environment.variable("NOTIFY_SOCKET") else {
            return Ok(Self::default());
        };
        let manager = address(name)?;
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not stop us; a lost status line is nothing next to a hung daemon.
        socket.set_nonblocking(true)?;
        Ok(Self {
            manager: Some((socket, manager)),
            watchdog: watchdog(environment, std::process::id()),
        })
    }

    /// How often [`watchdog`](Self::watchdog) is to be called: half of what the manager allows, as
    /// `sd_watchdog_enabled(3)` recommends. Nothing if it does not watch us.
    #[must_use]
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// The daemon has booted, or has finished reloading.
    pub fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// The daemon reads its config again; [`ready`](Self::ready) follows. The time stamp is what `Type=notify-reload`
    /// asks for.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// The daemon is shutting down.
    pub fn stopping(&self, status: &str) {
        self.send(&format!("STOPPING=1\nSTATUS={}", one_line(status)));
    }

    /// A line for people, shown by `systemctl status`.
    pub fn status(&self, status: &str) {
        self.send(&format!("STATUS={}", one_line(status)));
    }

    /// The daemon is alive.
    pub fn watchdog(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        let Some((socket, manager)) = &self.manager else {
            return;
        };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), manager) {
            tracing::debug!(%error, "cannot tell the service manager");
        }
    }
}

/// A path, or `@name` for a socket in the abstract namespace.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!(
                "NOTIFY_SOCKET is neither a path nor an abstract socket: {}",
                name.display()
            ),
        )),
    }
}

/// The manager's limit, if it is meant for this process and not for one that we were started by.
fn watchdog(environment: &Environment, own_pid: u32) -> Option<Duration> {
    let number = |name| environment.variable(name)?.to_str()?.parse::<u64>().ok();
    if environment.variable("WATCHDOG_PID").is_some()
        && number("WATCHDOG_PID") != Some(own_pid.into())
    {
        return None;
    }
    number("WATCHDOG_USEC")
        .filter(|micros| *micros > 0)
        .map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(manager: &UnixDatagram) -> String {
        manager
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let mut buffer = [0; 4096];
        let len = manager.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    fn notifier(socket: &str) -> Notifier {
        Notifier::from_environment(&Environment::of_variables([("NOTIFY_SOCKET", socket)])).unwrap()
    }

    #[test]
    fn the_manager_hears_the_whole_life() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = notifier(path.to_str().unwrap());

        notifier.ready("3 jobs\nREADY=0");
        assert_eq!(received(&manager), "READY=1\nSTATUS=3 jobs\\nREADY=0");
        notifier.status("busy");
        assert_eq!(received(&manager), "STATUS=busy");
        notifier.watchdog();
        assert_eq!(received(&manager), "WATCHDOG=1");
        notifier.reloading();
        let reloading = received(&manager);
        let micros = reloading
            .strip_prefix("RELOADING=1\nMONOTONIC_USEC=")
            .unwrap();
        assert!(micros.parse::<u64>().unwrap() > 0);
        notifier.stopping("SIGTERM");
        assert_eq!(received(&manager), "STOPPING=1\nSTATUS=SIGTERM");
    }

    #[test]
    fn abstract_sockets_are_reached() {
        let name = format!("tinkerbell-test-{}", std::process::id());
        let manager =
            UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        notifier(&format!("@{name}")).ready("up");
        assert_eq!(received(&manager), "READY=1\nSTATUS=up");
    }

    #[test]
    fn a_manager_that_is_gone_or_does_not_read_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = notifier(path.to_str().unwrap());
        // More than any socket buffer takes: a blocking send would hang here.
        for _ in 0..10_000 {
            notifier.status(&"x".repeat(1000));
        }
        drop(manager);
        notifier.status("nobody is there");
        Notifier::default().ready("nobody ever was");
    }

    #[test]
    fn the_watchdog_is_for_the_process_it_names() {
        let interval = |variables: &[(&str, &str)]| {
            watchdog(&Environment::of_variables(variables.iter().copied()), 42)
        };
        let second = ("WATCHDOG_USEC", "1000000");
        assert_eq!(interval(&[second]), Some(Duration::from_secs(1)));
        assert_eq!(
            interval(&[second, ("WATCHDOG_PID", "42")]),
            Some(Duration::from_secs(1))
        );
        assert_eq!(interval(&[second, ("WATCHDOG_PID", "43")]), None);
        assert_eq!(interval(&[second, ("WATCHDOG_PID", "x")]), None);
        assert_eq!(interval(&[("WATCHDOG_USEC", "0")]), None);
    }

    #[test]
    fn a_socket_of_an_unknown_kind_is_refused() {
        let environment = Environment::of_variables([("NOTIFY_SOCKET", "vsock:2:1234")]);
        assert!(Notifier::from_environment(&environment).is_err());
    }
}

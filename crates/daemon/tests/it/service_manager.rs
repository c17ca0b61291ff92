//! What a service manager hears: `sd_notify(3)` over a real socket.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Daemon, Node, PATIENCE};

struct Manager {
    socket: UnixDatagram,
    node: Node,
}

impl Manager {
    fn new() -> Self {
        let node = Node::new("[watch]\nconfig = false\n");
        let socket = UnixDatagram::bind(node.place.path("notify")).expect("it can be bound");
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        Self { socket, node }
    }

    fn start(&self, variables: &[(&str, &str)]) -> Daemon {
        let mut command = self.node.command(&[]);
        command
            .env("NOTIFY_SOCKET", self.node.place.path("notify"))
            .envs(variables.iter().copied());
        Daemon::spawn(&mut command)
    }

    /// The next thing it hears.
    fn hears(&self) -> String {
        let mut message = [0; 4096];
        let len = self.socket.recv(&mut message).expect("something is told");
        String::from_utf8_lossy(&message[..len]).into_owned()
    }
}

#[test]
fn the_service_manager_hears_of_every_turn_of_the_life() {
    let manager = Manager::new();
    let mut daemon = manager.start(&[]);
    assert!(manager.hears().starts_with("READY=1\n"));
    // Told only when it is true.
    assert_eq!(daemon.get("/readyz").status, 200);

    for config in ["[watch]\nconfig = false\n", "[watch\n"] {
        manager.node.configure(config);
        daemon.signal(Signal::HUP);
        let reloading = manager.hears();
        let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=");
        assert!(
            since.is_some_and(|since| since.parse::<u64>().is_ok()),
            "{reloading}"
        );
        assert!(
            manager.hears().starts_with("READY=1\n"),
            "also when the file was bad"
        );
    }
    daemon.logged("config not reloaded");

    daemon.signal(Signal::TERM);
    assert_eq!(manager.hears(), "STOPPING=1\nSTATUS=signal 15");
    daemon.ended().with(0);
}

#[test]
fn the_watchdog_is_fed_twice_as_often_as_it_must_be() {
    const LIMIT: Duration = Duration::from_secs(1);
    const FEEDS: u32 = 4;
    let manager = Manager::new();
    let usec = LIMIT.as_micros().to_string();
    let _daemon = manager.start(&[("WATCHDOG_USEC", &usec)]);
    let heard = |wanted: &str| while manager.hears() != wanted {};
    heard("WATCHDOG=1");
    let first = Instant::now();
    for _ in 0..FEEDS {
        let last = Instant::now();
        heard("WATCHDOG=1");
        assert!(last.elapsed() < LIMIT, "{:?}", last.elapsed());
    }
    // Neither is it fed without end, which would prove nothing.
    assert!(
        first.elapsed() > LIMIT / 2 * (FEEDS - 1),
        "{:?}",
        first.elapsed()
    );
}

#[test]
fn a_watchdog_that_is_meant_for_another_process_is_not_fed() {
    let manager = Manager::new();
    let daemon = manager.start(&[("WATCHDOG_USEC", "20000"), ("WATCHDOG_PID", "1")]);
    assert!(manager.hears().starts_with("READY=1\n"));
    daemon.signal(Signal::TERM);
    assert!(
        manager.hears().starts_with("STOPPING=1\n"),
        "with nothing in between"
    );
    daemon.ended().with(0);
}

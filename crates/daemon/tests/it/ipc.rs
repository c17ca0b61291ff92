//! The transport `ipc` against the real binary: with curl where a client of another make should be heard, and with bare
//! sockets where what is said must be exact.

mod description;
mod hostile;
mod jobs;
mod limits;
mod node;
mod sockets;
mod streams;

use serde_json::{Value, json};

use crate::support::{Daemon, Ipc, Node};

/// A config that says nothing.
const DEFAULTS: &str = "# the defaults\n";

/// A node that is up, and its socket.
fn up(config: &str) -> (Node, Daemon, Ipc) {
    let node = Node::new(config);
    let daemon = node.start();
    let ipc = Ipc::of(&node);
    (node, daemon, ipc)
}

/// A command of `sh -c` as a specification.
fn shell(shell: &str) -> Value {
    json!({"program": "command", "input": {"shell": shell}})
}

/// A plan that asks for an approval, and so waits for as long as is wanted.
fn asking() -> Value {
    json!([{"id": "ask", "ask": {"prompt": "Go on?", "approval": true}}])
}

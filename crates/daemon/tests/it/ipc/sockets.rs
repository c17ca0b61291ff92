//! The socket: whose it is, what is there before it, and who may speak to it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use super::{DEFAULTS, up};
use crate::support::{Ipc, Node, end_of, skip};

fn mode(path: &Path) -> u32 {
    let found = fs::symlink_metadata(path).expect("it is there");
    found.permissions().mode() & 0o7777
}

fn listening(path: &Path) -> String {
    format!("[ipc]\nlisten = [\"{}\"]\n", path.display())
}

#[test]
fn socket_and_directory_are_for_their_owner_only() {
    let (node, daemon, ipc) = up(DEFAULTS);
    assert_eq!((mode(ipc.path()), mode(node.data_dir())), (0o600, 0o700));
    daemon.signal(rustix::process::Signal::TERM);
    daemon.ended().with(0);
    assert!(!ipc.path().exists());

    let elsewhere = node.place.path("run/deep/socket");
    node.configure(&listening(&elsewhere));
    let daemon = node.start();
    assert_eq!(
        (mode(&elsewhere), mode(&node.place.path("run/deep"))),
        (0o600, 0o700)
    );
    Ipc::at(elsewhere.clone()).get("/v1/node").with(200);
    // A name of our own on the way to its own leaves nothing behind.
    let beside = fs::read_dir(node.place.path("run/deep"))
        .expect("it can be read")
        .count();
    assert_eq!(beside, 1);
    drop(daemon);
}

#[test]
fn a_socket_that_a_killed_daemon_left_is_replaced() {
    let (node, daemon, ipc) = up(DEFAULTS);
    daemon.killed();
    assert!(ipc.path().exists(), "a kill leaves it behind");
    let _daemon = node.start();
    ipc.get("/v1/node").with(200);
}

#[test]
fn a_socket_that_somebody_listens_on_is_left_to_them() {
    let (node, _daemon, ipc) = up(DEFAULTS);
    let other = Node::new(&listening(ipc.path()));
    let refused = other.run(&[]).with(78).said();
    for part in [
        "cannot listen on",
        &ipc.path().display().to_string(),
        "another process listens there",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
    ipc.get("/v1/node").with(200);
    drop(node);
}

#[test]
fn what_is_no_socket_is_neither_replaced_nor_removed() {
    let node = Node::new(DEFAULTS);
    let file = node.place.write("notes.txt", "mine");
    node.configure(&listening(&file));
    let refused = node.run(&[]).with(78).said();
    assert!(
        refused.contains("a file of that name that is no socket"),
        "{refused}"
    );
    assert_eq!(node.place.read("notes.txt"), "mine");
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let node = Node::new(DEFAULTS);
    let open = node.place.path("open");
    fs::create_dir(&open).expect("a directory can be made");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).expect("it is ours");
    node.configure(&listening(&open.join("socket")));
    let refused = node.run(&[]).with(78).said();
    assert!(
        refused.contains("can be written to by others (mode 777)"),
        "{refused}"
    );
    // With the sticky bit others cannot take what is ours away.
    fs::set_permissions(&open, fs::Permissions::from_mode(0o1777)).expect("it is ours");
    let _daemon = node.start();
    Ipc::at(open.join("socket")).get("/v1/node").with(200);
}

#[test]
fn a_socket_that_was_taken_over_is_not_removed_at_the_end() {
    let (_node, daemon, ipc) = up(DEFAULTS);
    fs::remove_file(ipc.path()).expect("it is ours");
    let theirs = UnixListener::bind(ipc.path()).expect("the name is free");
    daemon.signal(rustix::process::Signal::TERM);
    daemon.ended().with(0);
    assert!(ipc.path().exists());
    drop(theirs);
}

#[test]
fn another_user_is_refused_even_where_the_file_lets_them_in() {
    const OTHER: u32 = 12_345;
    let test = "another_user_is_refused";
    if !rustix::process::geteuid().is_root() {
        return skip(test, "only root can run a client as somebody else");
    }
    if ["curl", "setpriv"]
        .iter()
        .any(|program| Command::new(program).arg("--version").output().is_err())
    {
        return skip(test, "curl or setpriv is missing");
    }
    let open = |node: &Node, ipc: &Ipc| {
        for (path, mode) in [
            (ipc.path(), 0o666),
            (node.data_dir(), 0o711),
            (&node.place.path(""), 0o711),
        ] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
        }
    };
    let ask = |ipc: &Ipc| {
        let mut client = Command::new("setpriv");
        client.args([
            "--reuid",
            &OTHER.to_string(),
            "--regid",
            &OTHER.to_string(),
            "--clear-groups",
        ]);
        client.args([
            "curl",
            "--silent",
            "--show-error",
            "--max-time",
            "60",
            "--unix-socket",
        ]);
        client
            .arg(ipc.path())
            .args(["-d", "{}", "http://x/v1/node/shutdown"]);
        end_of(&mut client).with(0).stdout
    };
    let (node, daemon, ipc) = up(DEFAULTS);
    open(&node, &ipc);
    let refused = ask(&ipc);
    for part in [
        "\"status\":403",
        "user 12345 may not speak to this daemon",
        "ipc.allowed_uids",
    ] {
        assert!(refused.contains(part), "{refused}");
    }
    ipc.get("/v1/node").with(200);
    drop(daemon);

    node.configure(&format!("[ipc]\nallowed_uids = [{OTHER}]\n"));
    let daemon = node.start();
    open(&node, &ipc);
    assert_eq!(ask(&ipc).trim(), "{}");
    daemon.ended().with(0);
}

/// What is listened on there only the host, or the machine itself where its kernel has a loopback for it, can reach; so this
/// sees that a port is taken and given back, and that somebody else's is refused in words.
#[test]
fn a_port_of_vsock_is_taken_where_the_kernel_has_them() {
    use rustix::net::{AddressFamily, SocketType, socket};

    // One of this test's own: no process has the id of another.
    let port = 0x4000_0000 + std::process::id();
    let socket_and_port = |node: &Node| {
        let path = node.place.path("a.sock");
        node.configure(&format!(
            "[ipc]\nlisten = [\"{}\", \"vsock:{port}\"]\n",
            path.display()
        ));
        Ipc::at(path)
    };
    let node = Node::new("");
    let ipc = socket_and_port(&node);
    if socket(AddressFamily::VSOCK, SocketType::STREAM, None).is_err() {
        let refused = node.run(&[]).with(78).said();
        assert!(refused.contains(&format!("vsock:{port}")), "{refused}");
        return;
    }
    let daemon = node.start();
    ipc.get("/v1/node").with(200);
    let other = Node::new("");
    socket_and_port(&other);
    let refused = other.run(&[]).with(78).said();
    assert!(refused.contains(&format!("vsock:{port}")), "{refused}");
    daemon.signal(rustix::process::Signal::TERM);
    daemon.ended().with(0);
    let _daemon = other.start();
}

//! Reloading the config: a bad file changes nothing but what is said about it, a good one is applied as far as it can be.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::process::Signal;

use crate::support::{Daemon, Node, request};

const REJECTED: &str = "tinkerbell_daemon_config_reloads_total{outcome=\"rejected\"}";
const APPLIED: &str = "tinkerbell_daemon_config_reloads_total{outcome=\"applied\"}";

/// What a request under this name is answered: the visible effect of `http.allowed_hosts`.
fn status_as(daemon: &Daemon, host: &str) -> u16 {
    request(
        daemon.address(),
        "GET",
        "/livez",
        &format!("Host: {host}\r\n"),
    )
    .status
}

fn allowing(host: &str) -> String {
    format!("[http]\nallowed_hosts = [\"{host}\"]\n")
}

#[test]
fn a_broken_file_changes_nothing_and_is_reported_everywhere() {
    let node = Node::new(&format!(
        "[watch]\nconfig = false\n{}",
        allowing("one.example")
    ));
    let mut daemon = node.start();
    node.configure("[watch]\nconfig = false\n[http]\nallowed_hosts = [\"two.example\"]\n[wal]\nsnyc = \"always\"\n");
    daemon.signal(Signal::HUP);
    let line = daemon.logged("config not reloaded (SIGHUP)");
    let message = line["message"].as_str().unwrap_or_default();
    assert_eq!(line["level"], "ERROR");
    for part in ["tinkerbell.toml:6:1", "`wal.snyc`", "`sync`"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(
        status_as(&daemon, "one.example"),
        200,
        "the old config is still in force"
    );
    assert_eq!(
        status_as(&daemon, "two.example"),
        403,
        "and nothing of the new one"
    );

    let metrics = daemon.get("/metrics");
    assert_eq!(
        (metrics.metric(REJECTED), metrics.metric(APPLIED)),
        (1.0, 0.0)
    );
    assert_eq!(
        metrics.metric("tinkerbell_daemon_config_last_reload_successful"),
        0.0
    );
    let health = daemon.get("/readyz?verbose");
    assert_eq!(health.status, 200, "what needs attention still works");
    assert!(
        health
            .body
            .contains("[!]config degraded: the last reload was rejected"),
        "{}",
        health.body
    );
    assert!(
        health.body.contains("tinkerbell.toml:6:1"),
        "{}",
        health.body
    );

    node.configure(&format!(
        "[watch]\nconfig = false\n{}",
        allowing("two.example")
    ));
    daemon.signal(Signal::HUP);
    daemon.logged("config reloaded (SIGHUP)");
    let health = daemon.get("/readyz?verbose").body;
    assert!(health.contains("[+]config ok"), "{health}");
    let metrics = daemon.get("/metrics");
    assert_eq!(
        (metrics.metric(REJECTED), metrics.metric(APPLIED)),
        (1.0, 1.0)
    );
    assert_eq!(
        metrics.metric("tinkerbell_daemon_config_last_reload_successful"),
        1.0
    );
}

#[test]
fn hot_keys_are_applied_and_cold_ones_are_named() {
    let node = Node::new("[log]\nfilter = \"info\"\n[watch]\nconfig = false\n");
    let mut daemon = node.start();
    node.configure(
        "[log]\nfilter = \"info,daemon::running=debug\"\n[watch]\nconfig = false\n[http]\nallowed_hosts = [\"a.example\"]\n\
         [limits]\nlive_jobs = 7\n[shutdown]\ngrace = \"3s\"\n",
    );
    daemon.signal(Signal::HUP);
    let line = daemon.logged("config reloaded (SIGHUP)");
    assert_eq!(
        line["applied"],
        "log.filter, http.allowed_hosts, shutdown.grace"
    );
    assert_eq!(line["needs_restart"], "limits.live_jobs");
    let warning = daemon.logged("changed, but only a restart applies it");
    assert!(
        warning["message"]
            .as_str()
            .is_some_and(|text| text.contains("limits.live_jobs"))
    );
    assert_eq!(status_as(&daemon, "a.example"), 200);

    // A filter that silences what was said a moment ago.
    node.configure("[log]\nfilter = \"error\"\n[watch]\nconfig = false\n");
    daemon.signal(Signal::HUP);
    daemon.get_until("/metrics", |metrics| metrics.metric(APPLIED) == 2.0);
    node.configure("[log]\nfilter = \"error\"\n[watch]\nconfig = no\n");
    daemon.signal(Signal::HUP);
    daemon.logged("config not reloaded");
    assert_eq!(daemon.has_logged("config reloaded").len(), 1);
    assert_eq!(
        status_as(&daemon, "a.example"),
        403,
        "what is no longer allowed is refused again"
    );
}

#[test]
fn a_change_of_the_file_is_noticed_however_it_is_made() {
    let node = Node::new(&allowing("first.example"));
    let mut daemon = node.start();
    let expect = |daemon: &mut Daemon, host: &str| {
        daemon.logged("config reloaded (the config file has changed)");
        assert_eq!(status_as(daemon, host), 200, "{host}");
    };

    node.configure(&allowing("in-place.example"));
    expect(&mut daemon, "in-place.example");
    assert_eq!(status_as(&daemon, "first.example"), 403);

    // As editors do.
    let new = node
        .place
        .write("tinkerbell.toml.new", allowing("renamed.example"));
    fs::rename(new, node.place.path("tinkerbell.toml")).expect("it can be renamed");
    expect(&mut daemon, "renamed.example");

    // The file is another inode now; the watch must be on that one.
    node.configure(&allowing("in-place-again.example"));
    expect(&mut daemon, "in-place-again.example");

    fs::remove_file(node.place.path("tinkerbell.toml")).expect("it can be removed");
    daemon.logged("the config file is gone; the config in force stays");
    assert_eq!(status_as(&daemon, "in-place-again.example"), 200);
    node.configure(&allowing("back.example"));
    expect(&mut daemon, "back.example");

    node.configure("[http\n");
    daemon.logged("config not reloaded (the config file has changed)");
    assert_eq!(status_as(&daemon, "back.example"), 200);
}

/// A config map as the kubelet mounts it: the file is a link to `..data/`, and `..data` a link to a directory that is
/// replaced as a whole, by renaming a new link over it.
#[test]
fn a_change_of_a_mounted_config_map_is_noticed() {
    let node = Node::new("# another file is used\n");
    let mount = node.place.path("mount");
    let publish = |version: &str, host: &str| {
        let directory = mount.join(version);
        fs::create_dir_all(&directory).expect("it can be made");
        fs::write(directory.join("tinkerbell.toml"), allowing(host)).expect("it can be written");
        symlink(version, mount.join("..data_tmp")).expect("it can be linked");
        fs::rename(mount.join("..data_tmp"), mount.join("..data")).expect("it can be renamed");
    };
    publish("..2024_1", "first.example");
    symlink(
        Path::new("..data/tinkerbell.toml"),
        mount.join("tinkerbell.toml"),
    )
    .expect("it can be linked");
    let path = mount.join("tinkerbell.toml");
    let mut daemon = Daemon::spawn(&mut node.command(&["--config", &path.display().to_string()]));
    daemon.ready();
    assert_eq!(status_as(&daemon, "first.example"), 200);
    for (version, host) in [
        ("..2024_2", "second.example"),
        ("..2024_3", "third.example"),
    ] {
        publish(version, host);
        daemon.logged("config reloaded (the config file has changed)");
        assert_eq!(status_as(&daemon, host), 200, "{host}");
    }
}

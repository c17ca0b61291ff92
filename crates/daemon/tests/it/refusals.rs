//! What the daemon refuses to start with, and how it says so: what, where, and how to mend it.
//!
//! Each case starts the real binary. All of what it says is one snapshot a group, so that a change of words is looked at
//! where it is read.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::FileExt;

use crate::support::{Node, Place, end_of};

/// What a run said, without what differs from run to run.
fn told(place: &Place, name: &str, code: i32, stderr: &str) -> String {
    let mut text = place.strip(stderr);
    let number = std::process::id().to_string();
    text = text.replace(&format!("process {number}"), "process [PID]");
    // Log lines have times; what is asserted is what is said to the user.
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('{')).collect();
    format!("## {name}: exit {code}\n{}\n", lines.join("\n").trim_end())
}

/// Runs the daemon with a config file of this name and content.
fn with_file(name: &str, file: &str, content: &[u8]) -> String {
    let place = Place::new();
    let path = place.write(file, content);
    let mut command = place.binary();
    command
        .arg("--config")
        .arg(path)
        .args([
            "--set",
            "http.listen=127.0.0.1:0",
            "--set",
            "node.data_dir=data",
        ])
        .args(["--set", "node.exit_when_idle=true"]);
    let ended = end_of(&mut command);
    told(&place, name, ended.code, &ended.stderr)
}

/// Runs the binary with these arguments.
fn with_args(name: &str, args: &[&str]) -> String {
    let place = Place::new();
    let ended = end_of(place.binary().args(args));
    told(&place, name, ended.code, &ended.stderr)
}

#[test]
fn files_that_make_no_sense() {
    let toml: &[(&str, &str)] = &[
        ("unknown key", "[wal]\nsegmnt_size = \"1MiB\"\n"),
        ("unknown section", "[wall]\nsync = \"always\"\n"),
        ("key at the top", "data_dir = \"x\"\n"),
        ("section that is a value", "wal = 3\n"),
        (
            "wrong type: text for a switch",
            "[http]\nenabled = \"yes\"\n",
        ),
        ("wrong type: number for a text", "[node]\nname = 7\n"),
        (
            "wrong type: list for a number",
            "[limits]\nlive_jobs = [1]\n",
        ),
        ("negative number", "[limits]\nlive_jobs = -1\n"),
        ("number too small", "[limits]\nrunning_effects = 0\n"),
        ("number too large", "[http]\nmax_connections = 1000000\n"),
        ("bad unit of size", "[wal]\nsegment_size = \"64 parsecs\"\n"),
        ("size without sense", "[limits]\nspec_size = \"large\"\n"),
        ("size out of range", "[wal]\nsegment_size = \"1KiB\"\n"),
        (
            "bad unit of duration",
            "[shutdown]\ngrace = \"10 parsecs\"\n",
        ),
        ("duration without unit", "[shutdown]\ngrace = \"10\"\n"),
        ("unknown word", "[wal]\nsync = \"sometimes\"\n"),
        (
            "bad log filter",
            "[log]\nfilter = \"loud=everything=now\"\n",
        ),
        ("bad address", "[http]\nlisten = \"localhost\"\n"),
        (
            "token that is not there",
            "[http]\ntoken_file = \"missing\"\n",
        ),
        (
            "two tokens",
            "[http]\ntoken_env = \"A\"\ntoken_file = \"b\"\n",
        ),
        (
            "grace shorter than the kill",
            "[shutdown]\ngrace = \"1s\"\n[process]\nkill_grace = \"5s\"\n",
        ),
        (
            "blobs larger than the log",
            "[wal]\nsegment_size = \"1MiB\"\nblob_threshold = \"1MiB\"\n",
        ),
        (
            "the same key twice",
            "[wal]\nsync = \"always\"\nsync = \"never\"\n",
        ),
        ("syntax error", "[wal\nsync = \"always\"\n"),
        ("text without end", "[node]\nname = \"agent\n"),
        (
            "job without a name",
            "[[job]]\nprogram = \"command\"\nargv = [\"true\"]\n",
        ),
        (
            "job without a program",
            "[[job]]\nname = \"a\"\nargv = [\"true\"]\n",
        ),
        (
            "job of an unknown program",
            "[[job]]\nname = \"a\"\nprogram = \"plam\"\n",
        ),
        (
            "two jobs of one name",
            "[[job]]\nname = \"a\"\nprogram = \"command\"\nargv = [\"true\"]\n[[job]]\nname = \"a\"\nprogram = \"command\"\nargv = [\"false\"]\n",
        ),
        (
            "command without a command",
            "[[job]]\nname = \"a\"\nprogram = \"command\"\ntimeout = \"5s\"\n",
        ),
        (
            "command with a typo",
            "[[job]]\nname = \"a\"\nprogram = \"command\"\nargv = [\"true\"]\ntimout = \"5s\"\n",
        ),
        (
            "plan without steps",
            "[[job]]\nname = \"a\"\nprogram = \"plan\"\nsteps = []\n",
        ),
        (
            "plan that goes in a circle",
            "[[job]]\nname = \"a\"\nprogram = \"plan\"\n[[job.steps]]\nid = \"x\"\nneeds = [\"y\"]\nsay = \"x\"\n[[job.steps]]\nid = \"y\"\nneeds = [\"x\"]\nsay = \"y\"\n",
        ),
        (
            "plan with a template that sees nothing",
            "[[job]]\nname = \"a\"\nprogram = \"plan\"\n[[job.steps]]\nid = \"x\"\nsay = \"{{ steps.y.stdout }}\"\n",
        ),
        (
            "plan with a condition that is none",
            "[[job]]\nname = \"a\"\nprogram = \"plan\"\n[[job.steps]]\nid = \"x\"\nwhen = \"1 +\"\nsay = \"x\"\n",
        ),
        (
            "step that does nothing",
            "[[job]]\nname = \"a\"\nprogram = \"plan\"\n[[job.steps]]\nid = \"x\"\n",
        ),
        (
            "job file that is missing",
            "[[job]]\nname = \"a\"\nfile = \"missing.toml\"\n",
        ),
        (
            "several mistakes at once",
            "[wal]\nsync = 3\nsegmnt_size = \"1MiB\"\n[http]\nenabled = \"no\"\n",
        ),
    ];
    let mut all: Vec<_> = toml
        .iter()
        .map(|(name, text)| with_file(name, "tinkerbell.toml", text.as_bytes()))
        .collect();
    all.push(with_file("empty file", "tinkerbell.toml", b""));
    all.push(with_file(
        "not UTF-8",
        "tinkerbell.toml",
        b"[node]\nname = \"\xff\xfe\"\n",
    ));
    all.push(with_file(
        "broken JSON",
        "tinkerbell.json",
        b"{\"wal\": {\"sync\": \"always\",}}",
    ));
    all.push(with_file(
        "JSON with an unknown key",
        "tinkerbell.json",
        b"{\"wal\": {\"synk\": \"always\"}}",
    ));
    all.push(with_file(
        "YAML with a wrong indent",
        "tinkerbell.yaml",
        b"wal:\n  sync: always\n   retention: 7d\n",
    ));
    all.push(with_file("unknown extension", "tinkerbell.ini", b"[wal]\n"));
    // Far more than a config can be; junk, so that reading it as text would be of no use either.
    let junk: Vec<u8> = (0..10_000_000_u32)
        .map(|number| (number.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    all.push(with_file("10 MB of junk", "tinkerbell.toml", &junk));
    insta::assert_snapshot!(all.join("\n"));
}

#[test]
fn files_and_flags_that_are_not_there() {
    let place = Place::new();
    fs::create_dir(place.path("directory.toml")).expect("a directory can be made");
    let mut command = place.binary();
    command.args(["--config", "directory.toml"]);
    let ended = end_of(&mut command);
    let unreadable = told(
        &place,
        "file that cannot be read",
        ended.code,
        &ended.stderr,
    );
    let all = [
        with_args("missing file", &["--config", "missing.toml"]),
        unreadable,
        with_args("flag that sets nothing", &["--set", "wal.sync"]),
        with_args("flag with an unknown key", &["--set", "wal.synk=always"]),
        with_args("flag with a bad value", &["--set", "wal.sync=sometimes"]),
        with_args(
            "address for others without a token",
            &["--set", "http.listen=0.0.0.0:3000"],
        ),
        with_args("unknown flag", &["--confg", "x"]),
        with_args("unknown command", &["confg"]),
        with_args("flags against each other", &["-v", "-q"]),
        with_args("command without its argument", &["replay"]),
        with_args(
            "log that is not there",
            &["log", "cat", "--data-dir", "nowhere"],
        ),
        with_args(
            "job file that is not there",
            &["job", "run", "nowhere.toml"],
        ),
    ];
    let place = Place::new();
    let mut command = place.binary();
    command.env("TINKERBELL_WAL__SYNC", "sometimes");
    let ended = end_of(&mut command);
    let environment = told(
        &place,
        "variable with a bad value",
        ended.code,
        &ended.stderr,
    );
    insta::assert_snapshot!(format!("{}\n{environment}", all.join("\n")));
}

#[test]
fn a_port_in_use_names_its_holder_and_the_key() {
    let holder = TcpListener::bind("127.0.0.1:0").expect("a port can be had");
    let port = holder.local_addr().expect("it is bound").port();
    let node = Node::new("# the defaults\n");
    let ended = node
        .run(&["--set", &format!("http.listen=127.0.0.1:{port}")])
        .with(78);
    for part in [
        format!("127.0.0.1:{port}"),
        std::process::id().to_string(),
        "http.listen".to_owned(),
    ] {
        assert!(ended.stderr.contains(&part), "{part}: {}", ended.stderr);
    }
}

#[test]
fn a_data_directory_that_is_none_is_an_io_error() {
    let node = Node::new("# the defaults\n");
    let file = node.place.write("file", "");
    let set = format!("node.data_dir={}", file.display());
    let ended = node.run(&["--set", &set]).with(74);
    assert!(ended.stderr.contains("node.data_dir"), "{}", ended.stderr);
    // A directory in which nobody may make anything, also not root.
    let ended = node
        .run(&["--set", "node.data_dir=/proc/tinkerbell"])
        .with(74);
    assert!(ended.stderr.contains("/proc"), "{}", ended.stderr);
}

#[test]
fn one_data_directory_serves_one_daemon() {
    let node = Node::new("# the defaults\n");
    let first = node.start();
    let ended = node.run(&[]).with(75);
    let holder = format!("process {}", first.pid());
    assert!(ended.stderr.contains(&holder), "{}", ended.stderr);
    assert!(ended.stderr.contains("node.data_dir"), "{}", ended.stderr);
}

#[test]
fn a_log_of_a_later_version_is_left_alone() {
    let node = Node::new("[node]\nexit_when_idle = true\n");
    node.run(&[]).with(0);
    let (path, segment) = node.segment();
    // The header of a segment is the same in all formats: the version after the magic, and at its end the checksum of
    // what stands before it, so that a flipped bit in the version is told from another version.
    let mut header = [0; 64];
    segment
        .read_exact_at(&mut header, 0)
        .expect("the segment can be read");
    header[8..12].copy_from_slice(&99_u32.to_le_bytes());
    let checksum = crc32c::crc32c(&header[..60]);
    header[60..].copy_from_slice(&checksum.to_le_bytes());
    segment
        .write_all_at(&header, 0)
        .expect("the segment can be written");
    let before = fs::read(&path).expect("the segment can be read");
    let ended = node.run(&[]).with(65);
    assert!(ended.stderr.contains("log format 99"), "{}", ended.stderr);
    assert_eq!(fs::read(&path).expect("the segment can be read"), before);
}

#[test]
fn a_damaged_log_stops_the_boot_with_its_place() {
    let node = Node::new(
        "[node]\nexit_when_idle = true\n\
         [[job]]\nname = \"a\"\nprogram = \"command\"\nargv = [\"true\"]\n",
    );
    node.run(&[]).with(0);
    node.run(&[]).with(0);
    let (path, segment) = node.segment();
    let mut byte = [0];
    let offset = 150;
    segment
        .read_exact_at(&mut byte, offset)
        .expect("the segment can be read");
    segment
        .write_all_at(&[byte[0] ^ 4], offset)
        .expect("the segment can be written");
    for args in [&[][..], &["log", "verify"], &["log", "cat"]] {
        let ended = node.run(args).with(65);
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .expect("the name is text");
        assert!(ended.stderr.contains(name), "{}", ended.stderr);
    }
}

//! Reading files as artifacts.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests")]

mod support;

use std::fs;
use std::os::unix::fs::symlink;

use runtime::Json;
use serde_json::json;
use sha2::Digest;
use support::{Bench, Ran};
use tools::{FILE_READ, FileContent};

fn read(bench: &mut Bench, input: serde_json::Value) -> Ran {
    let call = bench.call(FILE_READ, input);
    bench.start_call(call).wait()
}

fn content(ran: Ran) -> FileContent {
    ran.0.as_ref().map(Json::read).unwrap().unwrap()
}

/// What `sha256sum` says of some bytes.
fn sha256(bytes: &[u8]) -> String {
    let hash: [u8; 32] = sha2::Sha256::digest(bytes).into();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_file_is_named_measured_and_kept_by_its_hash() {
    let mut bench = Bench::new();
    let workspace = bench.workspace();
    fs::create_dir(workspace.join("out")).unwrap();
    let files: [(&str, &[u8], &str); 3] = [
        ("out/report.MD", "# é\n".as_bytes(), "text/markdown"),
        (
            "out/../blob",
            &[0xff, 0x00, 0x01],
            "application/octet-stream",
        ),
        ("empty", b"", "text/plain"),
    ];
    for (path, bytes, media_type) in files {
        fs::write(workspace.join(path), bytes).unwrap();
        let content = content(read(&mut bench, json!({ "path": path })));
        assert_eq!(content.name, path.rsplit('/').next().unwrap());
        assert_eq!(
            (content.size, content.length),
            (bytes.len() as u64, bytes.len() as u64)
        );
        assert_eq!(content.media_type, media_type);
        assert_eq!(content.blob, sha256(bytes));
    }
    let path = workspace.join("empty");
    let empty = content(read(&mut bench, json!({ "path": path.to_str().unwrap() })));
    assert_eq!(empty.size, 0);
}

#[test]
fn chunks_of_a_file_are_its_bytes_in_order() {
    let mut bench = Bench::new();
    fs::write(bench.workspace().join("ten"), "0123456789").unwrap();
    for (offset, length, expected) in [(0, 4, "0123"), (4, 4, "4567"), (8, 4, "89"), (10, 4, "")] {
        let input = json!({ "path": "ten", "offset": offset, "length": length });
        let content = content(read(&mut bench, input));
        assert_eq!((content.size, content.length), (10, expected.len() as u64));
        assert_eq!(content.blob, sha256(expected.as_bytes()));
    }
}

#[test]
fn size_is_bounded_also_where_the_file_system_does_not_tell_it() {
    let mut bench = Bench::with(|options| options.file_limit_bytes = 8);
    fs::write(bench.workspace().join("nine"), "123456789").unwrap();
    fs::write(bench.workspace().join("eight"), "12345678").unwrap();
    assert_eq!(
        content(read(&mut bench, json!({ "path": "eight" }))).size,
        8
    );
    let cases = [
        json!({ "path": "nine" }),
        json!({ "path": "nine", "length": 9 }),
        json!({ "path": "/proc/self/status" }),
    ];
    for input in cases {
        let error = read(&mut bench, input.clone()).refused();
        assert_eq!(
            (error.code.as_str(), error.retryable),
            ("too_large", false),
            "{input}"
        );
    }
}

#[test]
fn a_relative_path_does_not_leave_the_workspace() {
    let mut bench = Bench::new();
    let workspace = bench.workspace();
    symlink("/etc", workspace.join("absolute")).unwrap();
    symlink("../../..", workspace.join("climbing")).unwrap();
    fs::write(workspace.join("file"), "inside").unwrap();
    symlink("file", workspace.join("alias")).unwrap();
    let alias = content(read(&mut bench, json!({ "path": "alias" })));
    assert_eq!(alias.blob, sha256(b"inside"));
    for path in ["absolute/hostname", "climbing/x", "../x", "file/../../x"] {
        let error = read(&mut bench, json!({ "path": path })).refused();
        assert_eq!(error.code, "invalid_input", "{path}: {error}");
    }
}

#[test]
fn what_is_no_file_is_told_at_once() {
    let mut bench = Bench::new();
    let workspace = bench.workspace();
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
    rustix::fs::mknodat(rustix::fs::CWD, workspace.join("fifo"), kind, mode, 0).unwrap();
    let cases = [
        ("fifo", "invalid_input"),
        (".", "invalid_input"),
        ("missing", "not_found"),
        ("a\0b", "invalid_input"),
    ];
    for (path, code) in cases {
        assert_eq!(
            read(&mut bench, json!({ "path": path })).refused().code,
            code,
            "{path:?}"
        );
    }
}

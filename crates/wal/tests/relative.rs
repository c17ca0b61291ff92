//! A log beside the working directory's other files. Alone in its program, since the working directory is that of all threads.

use std::sync::Arc;

use wal::{Log, Options, OsStorage};

#[test]
fn a_log_may_lie_in_a_directory_with_a_relative_name() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    std::env::set_current_dir(dir.path()).expect("a directory to work in");
    for name in ["log", "a/new/one", "./log", "a/new/../two"] {
        let options = Options {
            segment_bytes: 4096,
            ..Options::new(name)
        };
        let storage = Arc::new(OsStorage::new());
        Log::open(options, storage, wal::ignore).expect("a log");
        assert!(dir.path().join(name).join("LOCK").is_file(), "{name}");
    }
}

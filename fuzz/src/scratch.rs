//! A file for readers that want a path.

use std::path::{Path, PathBuf};

/// A file in a directory of its own, in memory where the machine has a place for that; gone when it is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    dir: tempfile::TempDir,
    name: &'static str,
}

impl Scratch {
    /// A file of this name and content.
    pub(crate) fn new(name: &'static str, content: &[u8]) -> Self {
        let memory = Path::new("/dev/shm");
        let dir = match memory.is_dir() {
            true => tempfile::tempdir_in(memory),
            false => tempfile::tempdir(),
        };
        let dir = dir.expect("a directory can be made");
        std::fs::write(dir.path().join(name), content).expect("a file can be written");
        Self { dir, name }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join(self.name)
    }
}

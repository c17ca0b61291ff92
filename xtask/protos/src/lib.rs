//! From `proto/` to Rust, without `protoc`.
//!
//! What is generated is committed, so that building the daemon takes none of this; a test generates it again and compares.
//! `cargo xtask proto` writes it.

use std::io;
use std::path::{Path, PathBuf};

use prost::Message;
use prost_types::FileDescriptorSet;

/// The files that make up the interface, below `proto/`.
pub const FILES: [&str; 4] = [
    "tinkerbell/v1/event.proto",
    "tinkerbell/v1/job.proto",
    "tinkerbell/v1/job_service.proto",
    "tinkerbell/v1/node_service.proto",
];

/// Where the generated files are, below the repository's root.
pub const GENERATED: &str = "crates/api/src/grpc/gen";

/// The Rust code.
pub const RUST: &str = "tinkerbell.v1.rs";

/// The descriptors of all files, encoded, which reflection hands to clients.
pub const DESCRIPTORS: &str = "tinkerbell.v1.bin";

/// The repository's root.
#[must_use]
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What is in the files, with all comments.
///
/// # Errors
///
/// What is wrong with the files, and where.
pub fn described(root: &Path) -> io::Result<FileDescriptorSet> {
    compile(root, true)
}

fn compile(root: &Path, with_comments: bool) -> io::Result<FileDescriptorSet> {
    let mut compiler = protox::Compiler::new([root.join("proto")]).map_err(|error| told(&error))?;
    compiler
        .include_source_info(with_comments)
        .open_files(FILES)
        .map_err(|error| told(&error))?;
    Ok(compiler.file_descriptor_set())
}

fn told(error: &protox::Error) -> io::Error {
    io::Error::other(format!("{error:?}"))
}

/// Writes the generated files into a directory.
///
/// # Errors
///
/// If the `.proto` files are wrong, or nothing can be written there.
pub fn generate(root: &Path, into: &Path) -> io::Result<()> {
    tonic_prost_build::configure()
        .build_client(false)
        .build_transport(false)
        .emit_rerun_if_changed(false)
        .btree_map(".")
        .bytes(".")
        .out_dir(into)
        .compile_fds(described(root)?)?;
    let descriptors = compile(root, false)?.encode_to_vec();
    std::fs::write(into.join(DESCRIPTORS), descriptors)
}

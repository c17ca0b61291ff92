//! The effect `file.read`: the bytes of a file, as an artifact to show or hand on.

use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};

use runtime::{EffectCall, EffectError, Json};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::toolbox::Shared;
use crate::workspace;

/// The kind of effect that reads a file.
pub const FILE_READ: &str = "file.read";

/// The input of `file.read`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileReadInput {
    /// The file: absolute, or within the job's workspace, which a relative path and its symlinks cannot leave.
    pub path: String,
    /// Where to begin, in bytes.
    #[serde(default)]
    pub offset: u64,
    /// How many bytes to read at the most; all if absent. Not more than the daemon allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length: Option<u64>,
}

/// The result of `file.read`. The bytes themselves are kept beside it, as a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileContent {
    /// The file's own name, without directories.
    pub name: String,
    /// The size of the whole file in bytes.
    pub size: u64,
    /// How many bytes were read.
    pub length: u64,
    /// What it probably is, judged by its name, then by whether what was read is text.
    pub media_type: String,
    /// The SHA-256 of what was read, in hexadecimal: the name of its blob.
    pub blob: String,
}

/// Carries one call out. Gives the result, and the bytes that it names.
pub(crate) async fn run(
    shared: &Shared,
    call: &EffectCall,
) -> Result<(Json, Vec<u8>), EffectError> {
    let input: FileReadInput = call.input()?;
    let workspace = shared.workspaces.path(call.id.job);
    let limit = shared.options.file_limit_bytes;
    let path = input.path.clone();
    let read = tokio::task::spawn_blocking(move || read(&workspace, &input, limit)).await;
    let (content, bytes) =
        read.map_err(|error| Error::io("read", path)(io::Error::other(error)))??;
    Ok((Json::of(&content), bytes))
}

fn read(
    workspace: &Path,
    input: &FileReadInput,
    limit: u64,
) -> Result<(FileContent, Vec<u8>), Error> {
    if input.path.contains('\0') {
        return Err(Error::InvalidInput("`path` holds a NUL byte".to_owned()));
    }
    let (mut file, path) = open(workspace, &input.path)?;
    let io = |error| Error::io("read", &path)(error);
    if !file.metadata().map_err(io)?.is_file() {
        let text = format!("{} is not a regular file", path.display());
        return Err(Error::InvalidInput(text));
    }
    file.seek(io::SeekFrom::Start(input.offset)).map_err(io)?;
    // One byte more than allowed tells a file that is too large, also one that grows, or whose size says 0 (/proc).
    let most = input
        .length
        .unwrap_or(u64::MAX)
        .min(limit.saturating_add(1));
    let mut bytes = Vec::new();
    let length = (&mut file).take(most).read_to_end(&mut bytes).map_err(io)? as u64;
    if length > limit {
        return Err(Error::TooLarge {
            what: "file",
            path,
            found: format!("at least {length} bytes from byte {}", input.offset),
            limit: format!("{limit} bytes; read it in chunks"),
        });
    }
    let end = input.offset.saturating_add(length);
    let size = file.metadata().map_err(io)?.len().max(end);
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let media_type = media_type(&name, std::str::from_utf8(&bytes).is_ok()).to_owned();
    let hash: [u8; 32] = Sha256::digest(&bytes).into();
    let blob = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let content = FileContent {
        name,
        size,
        length,
        media_type,
        blob,
    };
    Ok((content, bytes))
}

/// Opens a file without waiting, should it be a FIFO. A relative path is resolved by the kernel within the workspace.
fn open(workspace: &Path, path: &str) -> Result<(File, PathBuf), Error> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    if Path::new(path).is_absolute() {
        let opened = openat(CWD, path, flags, Mode::empty());
        let file = opened.map_err(|errno| Error::io("open", path)(errno.into()))?;
        return Ok((File::from(file), PathBuf::from(path)));
    }
    let full = workspace::join_inside(workspace, path)?;
    let root_flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, workspace, root_flags, Mode::empty())
        .map_err(|errno| Error::io("open workspace", workspace)(errno.into()))?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    match openat2(&root, path, flags, Mode::empty(), resolve) {
        Ok(file) => Ok((File::from(file), full)),
        Err(Errno::XDEV) => Err(leads_out(path)),
        // Kernels before 5.6, and sandboxes that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => open_checked(workspace, path, full, flags),
        Err(errno) => Err(Error::io("open", full)(errno.into())),
    }
}

/// The same without the kernel's help. Whoever swaps a directory for a link between the check and the opening gets
/// to read what the job's commands can read anyway.
fn open_checked(
    workspace: &Path,
    path: &str,
    full: PathBuf,
    flags: OFlags,
) -> Result<(File, PathBuf), Error> {
    let io = |error| Error::io("open", &full)(error);
    let root = workspace.canonicalize().map_err(io)?;
    let real = full.canonicalize().map_err(io)?;
    if !real.starts_with(&root) {
        return Err(leads_out(path));
    }
    let file = openat(CWD, &real, flags | OFlags::NOFOLLOW, Mode::empty())
        .map_err(|errno| io(errno.into()))?;
    Ok((File::from(file), full))
}

fn leads_out(path: &str) -> Error {
    Error::InvalidInput(format!("path `{path}` leads out of the job's workspace"))
}

/// A guess by the name's extension (types as registered with IANA), else by whether the content is text.
fn media_type(name: &str, is_text: bool) -> &'static str {
    let extension = name
        .rsplit_once('.')
        .map(|(_, extension)| extension.to_ascii_lowercase());
    match extension.as_deref() {
        Some("css") => "text/css",
        Some("csv") => "text/csv",
        Some("gif") => "image/gif",
        Some("gz" | "tgz") => "application/gzip",
        Some("htm" | "html") => "text/html",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("js" | "mjs") => "text/javascript",
        Some("json") => "application/json",
        Some("md") => "text/markdown",
        Some("mp3") => "audio/mpeg",
        Some("mp4") => "video/mp4",
        Some("pdf") => "application/pdf",
        Some("png") => "image/png",
        Some("svg") => "image/svg+xml",
        Some("tar") => "application/x-tar",
        Some("toml") => "application/toml",
        Some("wasm") => "application/wasm",
        Some("webp") => "image/webp",
        Some("xml") => "application/xml",
        Some("yaml" | "yml") => "application/yaml",
        Some("zip") => "application/zip",
        _ if is_text => "text/plain",
        _ => "application/octet-stream",
    }
}

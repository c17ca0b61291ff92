//! The file a snapshot is: a magic, nodes with their contents, an end mark, and a CRC-32C over all of it.
//!
//! A directory is a node, then its entries, then a node that closes it. So a tree is written and restored in one pass,
//! whatever its size. All numbers are little-endian.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// First bytes of a snapshot; the last one is the format's version.
const MAGIC: &[u8; 8] = b"tkbsnap\x01";

/// Longest name of an entry (NAME_MAX is 255 on Linux) or target of a link (PATH_MAX is 4096).
const NAME_MAX_BYTES: usize = 4096;

/// The kinds of nodes there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    File = b'f',
    Directory = b'd',
    /// Closes a directory, and says what it is like itself. Without a directory to close, it closes the tree.
    DirectoryEnd = b'e',
    Symlink = b'l',
    Fifo = b'p',
    Socket = b's',
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        [
            Self::File,
            Self::Directory,
            Self::DirectoryEnd,
            Self::Symlink,
            Self::Fifo,
            Self::Socket,
        ]
        .into_iter()
        .find(|kind| *kind as u8 == byte)
    }
}

/// One node; `len` bytes follow it: a file's content or a link's target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) kind: Kind,
    pub(super) permissions: u32,
    pub(super) modified_s: i64,
    pub(super) modified_ns: u32,
    pub(super) name: Vec<u8>,
    pub(super) len: u64,
}

pub(super) fn as_path(name: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(name))
}

/// Writes a snapshot.
pub(super) struct Writer {
    path: PathBuf,
    file: BufWriter<File>,
    crc: u32,
}

impl Writer {
    pub(super) fn create(path: &Path) -> Result<Self, Error> {
        let file = File::create(path).map_err(Error::io("create", path))?;
        let mut writer = Self {
            path: path.to_owned(),
            file: BufWriter::with_capacity(128 * 1024, file),
            crc: 0,
        };
        writer.bytes(MAGIC).map_err(Error::io("write", path))?;
        Ok(writer)
    }

    pub(super) fn node(&mut self, node: &Node) -> io::Result<()> {
        let name_len = u16::try_from(node.name.len()).map_err(io::Error::other)?;
        self.bytes(&[node.kind as u8])?;
        self.bytes(&node.permissions.to_le_bytes())?;
        self.bytes(&node.modified_s.to_le_bytes())?;
        self.bytes(&node.modified_ns.to_le_bytes())?;
        self.bytes(&name_len.to_le_bytes())?;
        self.bytes(&node.name)?;
        self.bytes(&node.len.to_le_bytes())
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.crc = crc32c::crc32c_append(self.crc, bytes);
        self.file.write_all(bytes)
    }

    /// Copies exactly `len` bytes: a file that changes its size meanwhile is not the tree of before.
    pub(super) fn copy(&mut self, mut file: File, len: u64) -> io::Result<()> {
        let mut buffer = vec![0; 64 * 1024];
        let mut left = len;
        while left > 0 {
            let want = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
            let got = file.read(&mut buffer[..want])?;
            if got == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the file became shorter meanwhile",
                ));
            }
            self.bytes(&buffer[..got])?;
            left -= got as u64;
        }
        Ok(())
    }

    /// Ends the file and makes it durable.
    pub(super) fn finish(mut self) -> Result<(), Error> {
        let crc = self.crc.to_le_bytes();
        let synced = self
            .file
            .write_all(&crc)
            .and_then(|()| self.file.flush())
            .and_then(|()| self.file.get_ref().sync_all());
        synced.map_err(Error::io("write", self.path))
    }
}

/// Checks that a snapshot holds what was written.
pub(super) fn verify(path: &Path) -> Result<(), Error> {
    let damaged = |what: &str| Error::DamagedSnapshot {
        path: path.to_owned(),
        what: what.to_owned(),
    };
    let io = |error| Error::io("read", path)(error);
    let file = File::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    let Some(body_len) = len
        .checked_sub(4)
        .filter(|&body| body >= MAGIC.len() as u64)
    else {
        return Err(damaged("it is too short"));
    };
    let mut body = file.take(body_len);
    let mut magic = [0u8; MAGIC.len()];
    body.read_exact(&mut magic).map_err(io)?;
    if magic != *MAGIC {
        return Err(damaged("it begins with another magic or version"));
    }
    let mut crc = crc32c::crc32c(&magic);
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match body.read(&mut buffer).map_err(io)? {
            0 => break,
            got => crc = crc32c::crc32c_append(crc, &buffer[..got]),
        }
    }
    let mut stored = [0u8; 4];
    body.into_inner().read_exact(&mut stored).map_err(io)?;
    if u32::from_le_bytes(stored) != crc {
        return Err(damaged("its checksum does not match"));
    }
    Ok(())
}

/// Reads a snapshot that was verified.
pub(super) struct Reader {
    path: PathBuf,
    file: BufReader<File>,
}

impl Reader {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::io("open", path))?;
        let mut reader = Self {
            path: path.to_owned(),
            file: BufReader::with_capacity(128 * 1024, file),
        };
        reader.array::<8>()?;
        Ok(reader)
    }

    /// The next node. Its `len` bytes must be read before the one after it.
    pub(super) fn node(&mut self) -> Result<Node, Error> {
        let [kind] = self.array()?;
        let kind = Kind::from_byte(kind)
            .ok_or_else(|| self.damaged(format!("it holds a node of unknown kind {kind:#04x}")))?;
        let permissions = u32::from_le_bytes(self.array()?);
        let modified_s = i64::from_le_bytes(self.array()?);
        let modified_ns = u32::from_le_bytes(self.array()?);
        let name_len = usize::from(u16::from_le_bytes(self.array()?));
        let name = self.short(name_len)?;
        // A name leads to an entry of its directory, nowhere else, whoever wrote the file.
        if name.contains(&b'/') || name == b".." || name == b"." {
            return Err(self.damaged("it holds a name that leads elsewhere".to_owned()));
        }
        let len = u64::from_le_bytes(self.array()?);
        Ok(Node {
            kind,
            permissions,
            modified_s,
            modified_ns,
            name,
            len,
        })
    }

    /// A link's target.
    pub(super) fn target(&mut self, len: u64) -> Result<Vec<u8>, Error> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.short(len)
    }

    /// A file's content.
    pub(super) fn copy_to(&mut self, file: &mut File, len: u64) -> io::Result<()> {
        let copied = io::copy(&mut (&mut self.file).take(len), file)?;
        if copied == len {
            Ok(())
        } else {
            Err(io::ErrorKind::UnexpectedEof.into())
        }
    }

    fn short(&mut self, len: usize) -> Result<Vec<u8>, Error> {
        if len > NAME_MAX_BYTES {
            return Err(self.damaged(format!("it holds a name of {len} bytes")));
        }
        let mut bytes = vec![0; len];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), Error> {
        self.file
            .read_exact(bytes)
            .map_err(|error| Error::io("read", &self.path)(error))
    }

    pub(super) fn damaged(&self, what: String) -> Error {
        Error::DamagedSnapshot {
            path: self.path.clone(),
            what,
        }
    }
}

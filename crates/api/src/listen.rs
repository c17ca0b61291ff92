//! Where to listen: taking a socket, and leaving it to whoever has it.

use std::fmt;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio::net::{UnixListener, UnixStream};
use tokio_vsock::{VMADDR_CID_ANY, VsockAddr, VsockListener};

use crate::fault::{Fault, FaultCode};
use crate::limits::ClientId;
use crate::server::Duplex;

/// An address to listen on, or to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix domain socket of this path.
    Unix(PathBuf),
    /// A port of vsock: every context id of this machine to listen on, and the host's to connect to, unless one is named.
    Vsock {
        /// The context id, if one is named.
        cid: Option<u32>,
        /// The port.
        port: u32,
    },
}

/// A text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no address: expected the path of a Unix socket, `vsock:PORT` or `vsock:CID:PORT`"
)]
pub struct ParseAddressError(String);

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseAddressError(text.to_owned());
        if let Some(rest) = text.strip_prefix("vsock:") {
            let (cid, port) = match rest.split_once(':') {
                Some((cid, port)) => (Some(cid.parse().map_err(|_| wrong())?), port),
                None => (None, rest),
            };
            let port = port.parse().map_err(|_| wrong())?;
            return Ok(Self::Vsock { cid, port });
        }
        let path = text.strip_prefix("unix:").unwrap_or(text);
        if path.is_empty() || path.contains('\0') {
            return Err(wrong());
        }
        Ok(Self::Unix(path.into()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Vsock { cid: None, port } => write!(f, "vsock:{port}"),
            Self::Vsock {
                cid: Some(cid),
                port,
            } => write!(f, "vsock:{cid}:{port}"),
        }
    }
}

/// Why an address cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another process listens there.
    #[error("cannot listen on {address}: another process listens there")]
    InUse {
        /// Where.
        address: Address,
    },
    /// The directory of the socket is open to others.
    #[error(
        "cannot listen on {address}: {directory} can be written to by others (mode {mode:03o}), who could put another socket in \
         its place"
    )]
    OpenDirectory {
        /// Where.
        address: Address,
        /// The directory.
        directory: String,
        /// Its permissions.
        mode: u32,
    },
    /// Something that is no socket has that name.
    #[error("cannot listen on {address}: there is a file of that name that is no socket")]
    NoSocket {
        /// Where.
        address: Address,
    },
    /// Another reason.
    #[error("cannot listen on {address}: cannot {what}: {source}")]
    Io {
        /// Where.
        address: Address,
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// A socket that is listened on.
#[derive(Debug)]
pub enum Bound {
    /// A Unix domain socket, whose file is removed when this is dropped, if it is still ours.
    Unix(UnixListener, SocketFile),
    /// A port of vsock.
    Vsock(VsockListener),
}

/// A client of this machine or of its host: who it is, and whether it may ask.
pub(crate) struct Local {
    pub(crate) stream: Box<dyn Duplex>,
    pub(crate) client: ClientId,
    pub(crate) refused: Option<Fault>,
}

impl Bound {
    /// Waits for the next client. Of those on a Unix socket our own user and root may ask, and the users `uids`, which are
    /// those of the config key `key`. Dropping the future loses nothing.
    pub(crate) async fn accept(&self, uids: &[u32], key: &str) -> io::Result<Local> {
        match self {
            Bound::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let credentials = stream.peer_cred()?;
                let uid = credentials.uid();
                let is_admitted =
                    uid == 0 || uid == rustix::process::geteuid().as_raw() || uids.contains(&uid);
                let refused = (!is_admitted).then(|| {
                    let text = format!("user {uid} may not speak to this daemon (`{key}`)");
                    Fault::new(FaultCode::Denied, text)
                });
                Ok(Local {
                    stream: Box::new(stream),
                    client: ClientId::Process(credentials.pid().unwrap_or_default()),
                    refused,
                })
            }
            Bound::Vsock(listener) => {
                let (stream, address) = listener.accept().await?;
                Ok(Local {
                    stream: Box::new(stream),
                    client: ClientId::Context(address.cid()),
                    refused: None,
                })
            }
        }
    }
}

/// The file of a socket of ours.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    inode: Option<u64>,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another daemon may have taken the name over; its socket is none of our business.
        let inode = std::fs::symlink_metadata(&self.path).map(|found| found.ino());
        if self.inode.is_some() && inode.ok() == self.inode {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Takes an address. The directory of a Unix socket is made if it is missing, for its owner only; a socket that nobody
/// listens on any more is replaced, one that somebody does is left alone.
///
/// # Errors
///
/// Why it cannot be had.
///
/// # Panics
///
/// Outside a tokio runtime with I/O enabled.
pub async fn bind(address: &Address) -> Result<Bound, BindError> {
    let failed = |what| {
        move |source| BindError::Io {
            address: address.clone(),
            what,
            source,
        }
    };
    match address {
        Address::Unix(path) => bind_unix(address, path).await,
        Address::Vsock { cid, port } => {
            let cid = cid.unwrap_or(VMADDR_CID_ANY);
            VsockListener::bind(VsockAddr::new(cid, *port))
                .map(Bound::Vsock)
                .map_err(|source| match source.kind() {
                    io::ErrorKind::AddrInUse => BindError::InUse {
                        address: address.clone(),
                    },
                    _ => failed("bind the port")(source),
                })
        }
    }
}

async fn bind_unix(address: &Address, path: &Path) -> Result<Bound, BindError> {
    let failed = |what| {
        move |source| BindError::Io {
            address: address.clone(),
            what,
            source,
        }
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(failed("make its directory"))?;
    let mode = std::fs::metadata(directory)
        .map_err(failed("look at its directory"))?
        .permissions()
        .mode();
    // Others may not put a socket of theirs in our place. A sticky directory (`/tmp`) keeps them from it.
    let (writable_by_others, sticky) = (mode & 0o022 != 0, mode & 0o1000 != 0);
    if writable_by_others && !sticky {
        return Err(BindError::OpenDirectory {
            address: address.clone(),
            directory: directory.display().to_string(),
            mode: mode & 0o777,
        });
    }
    remove_stale(address, path).await?;
    // Made under another name, and given its own only with its permissions: it is never open to others.
    // Hardly ever longer than `ipc.sock`, since a socket's path has 107 bytes at the most (unix(7)).
    let made = path.with_file_name(format!(".{}", std::process::id()));
    let _ = std::fs::remove_file(&made);
    let listener = UnixListener::bind(&made).map_err(failed("bind the socket"))?;
    let closed = std::fs::set_permissions(&made, std::fs::Permissions::from_mode(0o600))
        .map_err(failed("set its permissions"))
        .and_then(|()| std::fs::rename(&made, path).map_err(failed("give it its name")));
    if let Err(error) = closed {
        let _ = std::fs::remove_file(&made);
        return Err(error);
    }
    let inode = std::fs::symlink_metadata(path)
        .map(|found| found.ino())
        .ok();
    let path = path.to_owned();
    Ok(Bound::Unix(listener, SocketFile { path, inode }))
}

/// Removes a socket that an earlier life left behind.
async fn remove_stale(address: &Address, path: &Path) -> Result<(), BindError> {
    let failed = |what| {
        move |source| BindError::Io {
            address: address.clone(),
            what,
            source,
        }
    };
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at it")(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(BindError::NoSocket {
                address: address.clone(),
            });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed("remove what an earlier life left"))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("ask whether anybody listens")(error)),
        Ok(_) => Err(BindError::InUse {
            address: address.clone(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_they_are_written() {
        for text in ["/run/tinkerbell/ipc.sock", "vsock:1024", "vsock:3:1024"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert_eq!(
            "unix:/a".parse::<Address>().unwrap(),
            Address::Unix("/a".into())
        );
        for wrong in ["", "vsock:", "vsock:x", "vsock:1:2:3", "vsock:-1", "unix:"] {
            let error = wrong.parse::<Address>().unwrap_err();
            assert!(error.to_string().contains("vsock:CID:PORT"), "{error}");
        }
    }
}

//! Where to listen.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;

use tokio::net::TcpListener;

use crate::listen;

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// An address and port of TCP.
    Tcp(SocketAddr),
    /// A Unix domain socket or a port of vsock.
    Local(listen::Address),
}

impl FromStr for Address {
    type Err = listen::ParseAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse() {
            Ok(address) => Ok(Self::Tcp(address)),
            Err(_) => text.parse().map(Self::Local),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Local(address) => write!(f, "{address}"),
        }
    }
}

/// Why an address cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// One of TCP.
    #[error("cannot listen on {address}: {source}")]
    Tcp {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A Unix socket or a port of vsock.
    #[error(transparent)]
    Local(#[from] listen::BindError),
}

/// A socket that is listened on.
#[derive(Debug)]
pub enum Bound {
    /// A port of TCP.
    Tcp(TcpListener),
    /// A Unix socket or a port of vsock.
    Local(listen::Bound),
}

/// Takes an address, and says which it is: port 0 is a free one.
///
/// # Errors
///
/// Why it cannot be had.
///
/// # Panics
///
/// Outside a tokio runtime with I/O enabled.
pub async fn bind(address: &Address) -> Result<(Bound, Address), BindError> {
    match address {
        Address::Tcp(wanted) => {
            let failed = |source| BindError::Tcp {
                address: *wanted,
                source,
            };
            let listener = TcpListener::bind(wanted).await.map_err(failed)?;
            let taken = listener.local_addr().map_err(failed)?;
            Ok((Bound::Tcp(listener), Address::Tcp(taken)))
        }
        Address::Local(local) => {
            let bound = listen::bind(local).await?;
            Ok((Bound::Local(bound), address.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_they_are_written() {
        for text in [
            "127.0.0.1:50051",
            "[::1]:50051",
            "/run/tinkerbell/grpc.sock",
            "vsock:1024",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        assert!(matches!("127.0.0.1:1".parse(), Ok(Address::Tcp(_))));
        assert!(matches!("unix:/a".parse(), Ok(Address::Local(_))));
    }
}

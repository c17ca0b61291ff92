//! Taking the port, and saying who has it if we cannot.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::Path;

use crate::neutral::one_line;

/// Why the port cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("cannot listen on {address} (`http.listen`): the port is in use{}", held_by(.holder.as_ref()))]
    InUse {
        /// The address that was asked for.
        address: SocketAddr,
        /// Who has it, where that can be known.
        holder: Option<Holder>,
    },
    /// Another reason.
    #[error("cannot listen on {address} (`http.listen`): {source}")]
    Refused {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

impl BindError {
    /// How to mend it.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::InUse { address, .. } => format!(
                "set `http.listen` to another port, such as `{}`, or to port 0 for a free one",
                SocketAddr::new(address.ip(), address.port().checked_add(1).unwrap_or(3000))
            ),
            Self::Refused { source, .. } => match source.kind() {
                io::ErrorKind::PermissionDenied => {
                    "ports below 1024 take a privilege: set `http.listen` to a higher one"
                        .to_owned()
                }
                io::ErrorKind::AddrNotAvailable => {
                    "this machine has no such address: set `http.listen` to one that it has"
                        .to_owned()
                }
                _ => "set `http.listen`, or `http.enabled` to false".to_owned(),
            },
        }
    }
}

/// The process that has a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id.
    pub pid: u32,
    /// What it is called, by `/proc/PID/comm`.
    pub name: String,
}

pub(crate) fn held_by(holder: Option<&Holder>) -> String {
    holder.map_or_else(String::new, |holder| {
        format!(" by `{}` (pid {})", holder.name, holder.pid)
    })
}

/// Listens on an address, for [`serve`](super::serve). Done early at boot, before anything is recovered, since it is
/// what fails most often.
///
/// # Errors
/// If the address cannot be had; with the holder's name if the kernel tells.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let listen = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => BindError::InUse {
            address,
            holder: holder(address),
        },
        _ => BindError::Refused { address, source },
    })
}

/// Who listens on the port. Another user's processes cannot be looked into, so this may find nobody.
pub(crate) fn holder(address: SocketAddr) -> Option<Holder> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        inodes.extend(listeners(
            &fs::read_to_string(table).unwrap_or_default(),
            address,
        ));
    }
    let links: Vec<String> = inodes
        .iter()
        .map(|inode| format!("socket:[{inode}]"))
        .collect();
    let pids = fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let pid = pids.into_iter().find(|pid| holds_any(*pid, &links))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(Holder {
        pid,
        name: one_line(name.trim_end()).into_owned(),
    })
}

fn holds_any(pid: u32, links: &[String]) -> bool {
    let Ok(descriptors) = fs::read_dir(Path::new("/proc").join(pid.to_string()).join("fd")) else {
        return false;
    };
    descriptors
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .any(|target| links.iter().any(|link| target.as_os_str() == link.as_str()))
}

/// The inodes of the sockets in a table of `/proc/net` (proc_net_tcp, in the kernel's documentation) that listen where
/// `address` would.
fn listeners(table: &str, address: SocketAddr) -> Vec<u64> {
    const LISTEN: &str = "0A";
    let inode = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
        let (ip, port) = local.split_once(':')?;
        let ip = hex_ip(ip)?;
        let same_port = u16::from_str_radix(port, 16).ok()? == address.port();
        let same_ip = ip == address.ip() || ip.is_unspecified() || address.ip().is_unspecified();
        (*state == LISTEN && same_port && same_ip).then(|| inode.parse().ok())?
    };
    table.lines().skip(1).filter_map(inode).collect()
}

/// An address as the kernel prints it: words of 32 bits in the machine's byte order.
fn hex_ip(text: &str) -> Option<IpAddr> {
    let word = |at: usize| {
        u32::from_str_radix(text.get(at..at + 8)?, 16)
            .ok()
            .map(u32::to_ne_bytes)
    };
    match text.len() {
        8 => Some(IpAddr::V4(Ipv4Addr::from(word(0)?))),
        32 => {
            let mut octets = [0; 16];
            for (index, part) in octets.chunks_exact_mut(4).enumerate() {
                part.copy_from_slice(&word(index * 8)?);
            }
            Some(IpAddr::V6(Ipv6Addr::from(octets)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_names_its_holder_and_the_key() {
        let first = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = first.local_addr().unwrap();
        let error = bind(address).unwrap_err();
        let BindError::InUse {
            holder: Some(holder),
            ..
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!(holder.pid, std::process::id());
        let text = error.to_string();
        assert!(
            text.contains("`http.listen`") && text.contains(&holder.name),
            "{text}"
        );
        assert!(error.help().contains(&(address.port() + 1).to_string()));
    }

    #[test]
    fn an_address_of_another_machine_is_refused_with_advice() {
        // TEST-NET-1 (RFC 5737) is no machine's own.
        let error = bind(SocketAddr::from(([192, 0, 2, 1], 0))).unwrap_err();
        assert!(error.help().contains("no such address"), "{}", error.help());
    }

    #[test]
    fn the_kernels_table_is_understood() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 17 1\n\
             1: 0100007F:0BB8 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 18 1\n\
             2: 00000000:0BB9 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 19 1\n\
             garbage\n";
        let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        if cfg!(target_endian = "little") {
            assert_eq!(listeners(table, at(3000)), [17]);
            assert_eq!(listeners(table, at(3001)), [19]);
            assert!(listeners(table, at(3002)).is_empty());
        }
    }
}

//! Where notifications may go.
//!
//! A client names an address and we send there what we know: so an address of ours, of our network, or of the cloud's
//! metadata service is a way in (OWASP, "Server-Side Request Forgery"). What counts is the address that is connected to, not
//! the name: a name is resolved by us, and the connection goes to an address that was looked at, so that a name that leads
//! somewhere else the second time gains nothing.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// The longest URL, in bytes.
const URL_MAX_BYTES: usize = 2048;

/// Where notifications may go.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// Whether to this machine: where all clients are on it.
    pub with_loopback: bool,
    /// Hosts that are trusted whatever their address is, also without TLS; in lower case, and IPv6 addresses in brackets.
    pub hosts: Vec<String>,
}

/// A host leads to addresses that notifications may not go to, and to no other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is an address of this machine, of its network, or of nobody, and notifications may not go there; `a2a.push_hosts` names hosts that are trusted"
)]
pub(super) struct Forbidden(String);

impl Targets {
    /// Reads a URL, and holds it against what may be.
    pub(super) fn check(&self, text: &str) -> Result<Url, String> {
        if text.len() > URL_MAX_BYTES {
            return Err(format!("is longer than {URL_MAX_BYTES} bytes"));
        }
        let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(format!(
                "begins with `{}:` and not with `https:`",
                url.scheme()
            ));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("has a user or a password in it; use `authentication`".to_owned());
        }
        let host = url.host().ok_or("names no host")?;
        if self.trusts(&name_of(&host)) {
            return Ok(url);
        }
        let is_here = match host {
            Host::Domain(name) => is_localhost(name),
            Host::Ipv4(address) => address.is_loopback(),
            Host::Ipv6(address) => address.is_loopback(),
        };
        let address = match host {
            Host::Domain(_) => None,
            Host::Ipv4(address) => Some(IpAddr::V4(address)),
            Host::Ipv6(address) => Some(IpAddr::V6(address)),
        };
        if address.is_some_and(|address| !self.admits(address)) {
            return Err(Forbidden(name_of(&host)).to_string());
        }
        if url.scheme() == "http" && !(is_here && self.with_loopback) {
            return Err(format!(
                "goes to `{}` without TLS; only hosts in `a2a.push_hosts` are trusted so far",
                name_of(&host)
            ));
        }
        Ok(url)
    }

    /// The addresses of a host that may be connected to.
    pub(super) async fn resolve(&self, name: &str) -> Result<Vec<SocketAddr>, ResolveError> {
        let found: Vec<SocketAddr> = tokio::net::lookup_host((name, 0))
            .await
            .map_err(ResolveError::Unknown)?
            .collect();
        let is_trusted = self.trusts(&plain(name));
        let admitted: Vec<SocketAddr> = found
            .into_iter()
            .filter(|address| is_trusted || self.admits(address.ip()))
            .collect();
        match admitted.is_empty() {
            true => Err(ResolveError::Forbidden(Forbidden(name.to_owned()))),
            false => Ok(admitted),
        }
    }

    fn trusts(&self, host: &str) -> bool {
        self.hosts.iter().any(|trusted| trusted == host)
    }

    fn admits(&self, address: IpAddr) -> bool {
        let address = embedded(address);
        is_public(address) || (self.with_loopback && address.is_loopback())
    }
}

/// Why a host has no address.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResolveError {
    #[error("its host is not known: {0}")]
    Unknown(std::io::Error),
    #[error(transparent)]
    Forbidden(Forbidden),
}

/// Resolves for the client that connects.
pub(super) struct Resolver(pub(super) Arc<Targets>);

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let targets = Arc::clone(&self.0);
        Box::pin(async move {
            let admitted = targets.resolve(name.as_str()).await?;
            Ok(Box::new(admitted.into_iter()) as Addrs)
        })
    }
}

/// A host as the config writes it.
fn name_of(host: &Host<&str>) -> String {
    plain(&host.to_string())
}

/// The root's dot says nothing.
fn plain(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn is_localhost(name: &str) -> bool {
    let name = plain(name);
    name == "localhost" || name.ends_with(".localhost")
}

/// The IPv4 address that an IPv6 address stands for: a mapped one, one behind NAT64 (RFC 6052), one of 6to4 (RFC 3056).
fn embedded(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else {
        return address;
    };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return IpAddr::V4(v4);
    }
    let from = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => from(high, low),
        _ => address,
    }
}

/// Whether an address is one of the internet at large: by the registries of special-purpose addresses (RFC 6890), in which
/// those of clouds' metadata services are link-local, shared or private, but for the one that is named.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Where Azure answers its machines: a public address by its looks.
const AZURE_WIRE_SERVER: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);

fn is_public_v4(address: Ipv4Addr) -> bool {
    let is_special = matches!(
        address.octets(),
        // This network; shared by carriers; protocol assignments, documentation and the relays of 6to4.
        [0, ..] | [100, 64..=127, ..] | [192, 0, 0 | 2, _] | [192, 88, 99, _]
        // Benchmarks; documentation; multicast, and what is kept for later, broadcast with it.
        | [198, 18 | 19, ..] | [198, 51, 100, _] | [203, 0, 113, _] | [224..=255, ..]
    );
    !(is_special
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address == AZURE_WIRE_SERVER)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    // What is given out to the internet begins with the bits 001; of that, protocol assignments (2001::/23) and
    // documentation are special.
    let [first, second, ..] = address.segments();
    let is_special = first == 0x2001 && (second < 0x200 || second == 0xdb8)
        || (first, second & 0xf000) == (0x3fff, 0);
    first & 0xe000 == 0x2000 && !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets(with_loopback: bool, hosts: &[&str]) -> Targets {
        Targets {
            with_loopback,
            hosts: hosts.iter().map(|&host| host.to_owned()).collect(),
        }
    }

    #[test]
    fn only_addresses_of_the_internet_at_large_are_public() {
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "198.17.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00::1",
            "64:ff9b::101:101",
        ] {
            let address: IpAddr = public.parse().unwrap();
            assert!(targets(false, &[]).admits(address), "{public}");
        }
        for special in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.255.0.1",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::127.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            let address: IpAddr = special.parse().unwrap();
            assert!(!targets(false, &[]).admits(address), "{special}");
        }
    }

    #[test]
    fn the_loopback_is_reached_only_where_all_clients_are_on_it() {
        for url in [
            "http://127.0.0.1:8080/x",
            "http://localhost/x",
            "http://LOCALHOST./x",
            "http://a.localhost/x",
            "http://[::1]/x",
            "http://127.1/x",
            "http://2130706433/x",
            "http://0x7f.0.0.1/x",
            "https://127.0.0.1/x",
        ] {
            assert!(targets(true, &[]).check(url).is_ok(), "{url}");
            let remote = targets(false, &[]).check(url);
            // A name is looked at again when it is resolved.
            let is_resolved = url.starts_with("https://") && url.contains("localhost");
            assert!(remote.is_err() || is_resolved, "{url}");
        }
    }

    #[test]
    fn what_is_no_public_https_is_refused_unless_its_host_is_trusted() {
        for (url, why) in [
            ("ftp://example.org/x", "begins with `ftp:`"),
            ("file:///etc/passwd", "begins with `file:`"),
            ("example.org", "is no URL"),
            ("", "is no URL"),
            ("https://", "is no URL"),
            ("https://user@example.org/", "has a user"),
            ("https://user:word@example.org/", "has a user"),
            ("http://example.org/x", "without TLS"),
            ("https://10.1.2.3/x", "`10.1.2.3` is an address"),
            ("https://169.254.169.254/latest", "is an address"),
            ("http://169.254.169.254/latest", "is an address"),
            ("https://[fd00::1]/x", "`[fd00::1]` is an address"),
            ("https://[::ffff:169.254.169.254]/x", "is an address"),
            ("https://0/x", "is an address"),
        ] {
            for targets in [targets(false, &[]), targets(true, &[])] {
                let said = targets.check(url).unwrap_err();
                assert!(said.contains(why), "{url}: {said}");
            }
        }
        assert!(targets(false, &[]).check("https://example.org/x").is_ok());
        let trusted = targets(false, &["hooks.internal", "10.1.2.3", "[fd00::1]"]);
        for url in [
            "http://hooks.internal:9000/x",
            "http://HOOKS.internal./x",
            "https://10.1.2.3/x",
            "http://[fd00::1]/x",
        ] {
            assert!(trusted.check(url).is_ok(), "{url}");
        }
        assert!(trusted.check("http://10.1.2.4/x").is_err());
    }

    #[tokio::test]
    async fn a_name_leads_only_to_addresses_that_were_looked_at() {
        let refused = targets(false, &[]).resolve("localhost").await.unwrap_err();
        assert!(matches!(refused, ResolveError::Forbidden(_)), "{refused}");
        for targets in [targets(true, &[]), targets(false, &["localhost"])] {
            let found = targets.resolve("localhost").await.unwrap();
            assert!(found.iter().all(|found| found.ip().is_loopback()));
        }
    }
}

//! Asking a running daemon how it is: the other end of the probes, for `tinkerbell health`.
//!
//! It exists because an image without a shell has no `curl`, and an exec probe is the one that works with a server that
//! listens on loopback only. One request, one answer, over blocking sockets with a deadline; no HTTP client is linked
//! in for that.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// The most of an answer that is read, in bytes.
const ANSWER_MAX: u64 = 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The URL is not one that a probe can have.
    #[error("cannot ask `{url}`: expected a URL such as `http://127.0.0.1:3000/readyz`")]
    Url {
        /// What was given.
        url: String,
    },
    /// Nobody answers there, or not in time.
    #[error("cannot reach the daemon at {authority}: {source}")]
    Unreachable {
        /// Host and port.
        authority: String,
        /// What the system said.
        source: io::Error,
    },
    /// What answered does not speak HTTP.
    #[error("what listens at {authority} does not answer as HTTP does")]
    NotHttp {
        /// Host and port.
        authority: String,
    },
}

/// What the daemon said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// The HTTP status: 200 for yes, 503 for no.
    pub status: u16,
    /// The text.
    pub body: String,
}

impl ProbeReport {
    /// Whether the answer is yes.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.status == 200
    }
}

/// Asks one URL, and waits no longer than `timeout` for the answer.
///
/// # Errors
/// If there is no answer. An answer that says no is none.
pub fn probe(url: &str, timeout: Duration) -> Result<ProbeReport, ProbeError> {
    let (authority, path) = split_url(url).ok_or_else(|| ProbeError::Url {
        url: url.to_owned(),
    })?;
    let unreachable = |source| ProbeError::Unreachable {
        authority: authority.to_owned(),
        source,
    };
    let answer = exchange(authority, path, timeout).map_err(unreachable)?;
    let not_http = || ProbeError::NotHttp {
        authority: authority.to_owned(),
    };
    parse(&String::from_utf8_lossy(&answer)).ok_or_else(not_http)
}

fn split_url(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("http://")?;
    // What would end the request line or begin a header of its own.
    if rest.contains(|c: char| c.is_ascii_control() || c == ' ' || c == '@') {
        return None;
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let named = authority
        .rsplit_once(':')
        .is_some_and(|(host, _)| !host.is_empty());
    named.then_some((authority, if path.is_empty() { "/" } else { path }))
}

fn exchange(authority: &str, path: &str, timeout: Duration) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + timeout;
    let left = || {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            Err(io::Error::from(io::ErrorKind::TimedOut))
        } else {
            Ok(left)
        }
    };
    let mut stream = connect(authority, &left)?;
    stream.set_write_timeout(Some(left()?))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        // Set anew for every read, so that a server which sends a byte now and then cannot stretch the whole.
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut part) {
            Ok(0) => return Ok(answer),
            Ok(len) => answer.extend_from_slice(&part[..len]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if answer.len() as u64 > ANSWER_MAX {
            return Err(io::Error::other("the answer is too long"));
        }
    }
}

/// Connects to the first of a name's addresses that takes the connection.
fn connect(authority: &str, left: &impl Fn() -> io::Result<Duration>) -> io::Result<TcpStream> {
    let mut refused = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in authority.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left()?) {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

fn parse(answer: &str) -> Option<ProbeReport> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut status_line = head.lines().next()?.split(' ');
    if !status_line.next()?.starts_with("HTTP/1.") {
        return None;
    }
    let status = status_line.next()?.parse().ok()?;
    Some(ProbeReport {
        status,
        body: body.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_urls_with_a_port_are_asked() {
        for (url, parts) in [
            (
                "http://127.0.0.1:3000/readyz?verbose",
                Some(("127.0.0.1:3000", "/readyz?verbose")),
            ),
            ("http://[::1]:3000", Some(("[::1]:3000", "/"))),
            ("https://127.0.0.1:3000/", None),
            ("http://127.0.0.1/", None),
            ("http://127.0.0.1:3000/ HTTP/1.1\r\nX: y", None),
            ("127.0.0.1:3000", None),
        ] {
            assert_eq!(split_url(url), parts, "{url}");
        }
    }

    #[test]
    fn a_server_that_never_answers_is_given_up() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap());
        let error = probe(&url, Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, ProbeError::Unreachable { .. }), "{error}");
    }

    #[test]
    fn something_else_on_the_port_is_told_from_a_daemon() {
        assert_eq!(parse("SSH-2.0-OpenSSH_9.2\r\n\r\n"), None);
        let report = ProbeReport {
            status: 503,
            body: "not ready\n".to_owned(),
        };
        assert_eq!(
            parse("HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nnot ready\n"),
            Some(report)
        );
    }
}

//! The smallest HTTP client: one request, one answer, the connection closed.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

/// An answer.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The value of a metric, by its name and labels as they are written.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let value = self
            .body
            .lines()
            .find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
        value.unwrap_or_else(|| panic!("no metric {series} in:\n{}", self.body))
    }
}

/// Asks for a path, by the name that everybody uses.
pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, "GET", path, &format!("Host: {address}\r\n"))
}

/// Sends a request with these headers, each with its line's end.
pub(crate) fn request(address: SocketAddr, method: &str, path: &str, headers: &str) -> Answer {
    exchange(
        address,
        &format!("{method} {path} HTTP/1.1\r\n{headers}Connection: close\r\n\r\n"),
    )
}

/// Sends a request as it is, which must ask for the connection to be closed.
pub(crate) fn exchange(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).expect("the daemon listens");
    for set in [TcpStream::set_read_timeout, TcpStream::set_write_timeout] {
        set(&stream, Some(PATIENCE)).expect("a timeout can be set");
    }
    stream
        .write_all(request.as_bytes())
        .expect("the request can be sent");
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .expect("the answer comes, and is text");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let mut lines = head.lines();
    let status = lines
        .next()
        .and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(": "));
    Answer {
        status: status.expect("an answer has a status"),
        headers: headers
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect(),
        body: body.to_owned(),
    }
}

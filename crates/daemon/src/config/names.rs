//! Names that a config gives: of hosts, variables, the node, and what a log filter names. Each is a type of its own, so that
//! one that exists is known to be well formed.

use std::fmt;
use std::net::SocketAddr;

use serde_json::Value;

use super::error::nearest;
use super::value::{Field, Mismatch, Raw};

/// A host name or address that requests may name, without scheme and port, in lower case.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName(String);

impl HostName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Field for HostName {
    fn expected() -> String {
        "a host name such as `agents.example.org`".to_owned()
    }

    fn read(raw: Raw<'_>) -> Result<Self, Mismatch> {
        let text = raw.text().ok_or_else(Mismatch::plain)?;
        if text.contains("://") || text.contains('/') {
            return Err(Mismatch::with_help(
                "write the host alone, without scheme and path",
            ));
        }
        if text.contains('*') {
            return Err(Mismatch::with_help(
                "patterns are not supported: name each host",
            ));
        }
        if text == "0.0.0.0" || text == "[::]" || text == "::" {
            return Err(Mismatch::with_help(
                "that address is for listening: no honest request names it",
            ));
        }
        if text.parse::<std::net::Ipv6Addr>().is_ok() {
            return Ok(Self(format!("[{}]", text.to_ascii_lowercase())));
        }
        let bracketed = text
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
            .is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok());
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if bracketed || (!text.is_empty() && text.chars().all(letters)) {
            return Ok(Self(text.to_ascii_lowercase()));
        }
        if text.contains(':') {
            return Err(Mismatch::with_help(
                "write the host without the port: any port is allowed",
            ));
        }
        Err(Mismatch::plain())
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// The name of an environment variable that holds a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VariableName(String);

impl VariableName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Field for VariableName {
    fn expected() -> String {
        "the name of an environment variable, in capitals".to_owned()
    }

    fn read(raw: Raw<'_>) -> Result<Self, Mismatch> {
        let text = raw.text().ok_or_else(Mismatch::plain)?;
        let word = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
        if text.starts_with(|c: char| c.is_ascii_uppercase() || c == '_') && text.chars().all(word)
        {
            return Ok(Self(text.to_owned()));
        }
        // What was found is not repeated: somebody may have written the secret itself here.
        Err(Mismatch {
            found: Some("something else (not shown: it may be a secret)".to_owned()),
            help: Some(
                "put the secret into a variable of the environment, and name that here".to_owned(),
            ),
        })
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// Where a transport listens: the path of a Unix socket, or a port of vsock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenAddress(String);

impl ListenAddress {
    /// The longest path of a socket, in bytes: what fits into the kernel's `sockaddr_un` with its closing zero.
    const PATH_MAX_BYTES: usize = 107;

    /// The address as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Field for ListenAddress {
    fn expected() -> String {
        "the path of a Unix socket such as `/run/tinkerbell/ipc.sock`, or `vsock:PORT`".to_owned()
    }

    fn read(raw: Raw<'_>) -> Result<Self, Mismatch> {
        let text = raw.text().ok_or_else(Mismatch::plain)?;
        if let Some(port) = text.strip_prefix("vsock:") {
            return match port.parse::<u32>() {
                Ok(_) => Ok(Self(text.to_owned())),
                Err(_) => Err(Mismatch::with_help("after `vsock:` comes a port, a number")),
            };
        }
        if text.contains("://") {
            return Err(Mismatch::with_help(
                "write the path alone, without a scheme",
            ));
        }
        if text.len() > Self::PATH_MAX_BYTES {
            return Err(Mismatch::with_help(format!(
                "the path of a socket has at most {} bytes, this one has {}",
                Self::PATH_MAX_BYTES,
                text.len()
            )));
        }
        if text.is_empty() || text.ends_with('/') {
            return Err(Mismatch::plain());
        }
        Ok(Self(text.to_owned()))
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// Where gRPC listens: an address and port of TCP, or what a [`ListenAddress`] can be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GrpcAddress {
    /// An address and port of TCP.
    Tcp(SocketAddr),
    /// A Unix socket or a port of vsock.
    Local(ListenAddress),
}

impl fmt::Display for GrpcAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Local(address) => f.write_str(address.as_str()),
        }
    }
}

impl Field for GrpcAddress {
    fn expected() -> String {
        "an address and port such as `127.0.0.1:50051`, the path of a Unix socket, or `vsock:PORT`"
            .to_owned()
    }

    fn read(raw: Raw<'_>) -> Result<Self, Mismatch> {
        let text = raw.text().ok_or_else(Mismatch::plain)?;
        if let Ok(address) = text.parse() {
            return Ok(Self::Tcp(address));
        }
        let host_and_port = text.rsplit_once(':').filter(|(host, port)| {
            let is_path = host.contains('/') || *host == "vsock" || *host == "unix";
            !is_path && port.bytes().all(|byte| byte.is_ascii_digit())
        });
        if let Some((host, port)) = host_and_port {
            return Err(Mismatch::with_help(format!(
                "write the address itself and not a name, with its port: `127.0.0.1:{}` for `{host}`, say",
                if port.is_empty() { "50051" } else { port }
            )));
        }
        ListenAddress::read(raw).map(Self::Local)
    }

    fn to_value(&self) -> Value {
        Value::String(self.to_string())
    }
}

/// A media type such as `text/plain`, or a range of them such as `text/*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType(String);

impl MediaType {
    /// The media type as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn list(types: &[&str]) -> Vec<Self> {
        types.iter().map(|text| Self((*text).to_owned())).collect()
    }
}

impl Field for MediaType {
    fn expected() -> String {
        "a media type such as `text/plain`".to_owned()
    }

    fn read(raw: Raw<'_>) -> Result<Self, Mismatch> {
        let text = raw.text().ok_or_else(Mismatch::plain)?;
        let word =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
        match text.split_once('/') {
            Some((kind, rest)) if word(kind) && word(rest) => Ok(Self(text.to_owned())),
            _ => Err(Mismatch::plain()),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// The address of a page or a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// The address, without a slash at its end.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The host in it, without its port.
    #[must_use]
    pub fn host(&self) -> &str {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        match authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => authority,
        }
    }
}

impl Field for Url {
    fn expected() -> String {
        "an address such as `https://example.org`".to_owned()
    }

    fn read(raw: Raw<'_>) -> Result<Self, Mismatch> {
        let text = raw.text().ok_or_else(Mismatch::plain)?;
        let has_scheme = text.starts_with("https://") || text.starts_with("http://");
        if !has_scheme {
            return Err(Mismatch::with_help("begin it with `https://` or `http://`"));
        }
        let url = Self(text.trim_end_matches('/').to_owned());
        if url.host().is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Mismatch::plain());
        }
        Ok(url)
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// The name of this node: what its log lines and metrics are told apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName(String);

impl NodeName {
    pub(crate) const LEN_MAX: usize = 63;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name, if it can be one.
    pub(crate) fn new(text: &str) -> Option<Self> {
        let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let fits = !text.is_empty() && text.len() <= Self::LEN_MAX && text.chars().all(word);
        fits.then(|| Self(text.to_owned()))
    }
}

impl Field for NodeName {
    fn expected() -> String {
        format!(
            "a name of 1 to {} letters, digits, `-`, `_` and `.`",
            Self::LEN_MAX
        )
    }

    fn read(raw: Raw<'_>) -> Result<Self, Mismatch> {
        raw.text().and_then(Self::new).ok_or_else(Mismatch::plain)
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// Which log lines are written, in the notation of `tracing`'s `EnvFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];

    /// The filter as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks a filter.
    ///
    /// # Errors
    /// With what is wrong with it, if it would not be understood, or would be understood as something that nobody
    /// means: a bare word such as `inof` is, to `EnvFilter`, the name of a module.
    pub fn parse(text: &str) -> Result<Self, String> {
        for directive in text.split(',').map(str::trim) {
            let level = directive
                .rsplit_once('=')
                .map_or(directive, |(_, level)| level);
            let known = Self::LEVELS
                .iter()
                .any(|known| known.eq_ignore_ascii_case(level));
            if !known
                && level.parse::<u8>().is_err()
                && let Some(meant) = nearest(level, Self::LEVELS)
            {
                return Err(format!("`{level}` is no level; did you mean `{meant}`?"));
            }
        }
        tracing_subscriber::EnvFilter::builder()
            .parse(text)
            .map_err(|error| error.to_string())?;
        Ok(Self(text.trim().to_owned()))
    }

    pub(crate) fn info() -> Self {
        Self("info".to_owned())
    }
}

impl Field for LogFilter {
    fn expected() -> String {
        "a log filter such as `info` or `info,runtime=debug`".to_owned()
    }

    fn read(raw: Raw<'_>) -> Result<Self, Mismatch> {
        Self::parse(raw.text().ok_or_else(Mismatch::plain)?).map_err(Mismatch::with_help)
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

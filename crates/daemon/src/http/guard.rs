//! Who may ask: the checks that stand before every path.
//!
//! A port on the loopback interface is not private. Every page that a browser on this machine shows can send requests to
//! it, and by DNS rebinding (a name of the attacker's that resolves to 127.0.0.1) even read the answers as if they were
//! its own. What tells such a request apart is what browsers do not let pages forge: `Host`, `Origin` and `Sec-Fetch-*`.
//!
//! Invariants: `Host` is compared with a list, never with `Origin` alone (in a rebound page both are the attacker's);
//! nothing is routed before all of this has passed; no answer ever carries an `Access-Control-*` header.
//!
//! The order of the checks on cross-site requests follows Fetch Metadata's resource isolation policy
//! (<https://web.dev/articles/fetch-metadata>).

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use hyper::header::{HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;
use hyper::{StatusCode, Version};

use crate::config::HostName;

/// The names of this machine that need not be configured.
const LOOPBACK_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The host names by which this server may be addressed. Clones share one list, which a reload can change.
#[derive(Clone, Debug, Default)]
pub struct AllowedHosts(Arc<RwLock<BTreeSet<String>>>);

impl AllowedHosts {
    /// The loopback names and these.
    #[must_use]
    pub fn new(names: &[HostName]) -> Self {
        let hosts = Self::default();
        hosts.set(names);
        hosts
    }

    /// Takes another list into use. The loopback names are always allowed.
    pub fn set(&self, names: &[HostName]) {
        let names = names.iter().map(|name| name.as_str().to_owned()).collect();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = names;
    }

    fn allows(&self, authority: &Authority) -> bool {
        // `user@host` is how a link is made to look like one to somewhere else; no honest `Host` has it.
        if authority.as_str().contains('@') {
            return false;
        }
        let host = authority.host().to_ascii_lowercase();
        LOOPBACK_NAMES.contains(&host.as_str())
            || self
                .0
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .contains(&host)
    }
}

/// Why a request is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) reason: &'static str,
}

const fn refusal(status: StatusCode, reason: &'static str) -> Refusal {
    Refusal { status, reason }
}

/// Lets a request through, or says why not.
pub(super) fn admit(request: &Parts, hosts: &AllowedHosts) -> Result<(), Refusal> {
    let host = addressed_host(request)?;
    if let Some(host) = &host
        && !hosts.allows(host)
    {
        return Err(refusal(
            StatusCode::FORBIDDEN,
            "this host name is not allowed; add it to `http.allowed_hosts` if it is yours",
        ));
    }
    // The target of a request to a proxy has a host of its own. We are none.
    if let Some(target) = request.uri.authority()
        && !hosts.allows(target)
    {
        return Err(refusal(StatusCode::FORBIDDEN, "this is not a proxy"));
    }
    if !is_own_origin(&request.headers, host.as_ref()) {
        return Err(refusal(
            StatusCode::FORBIDDEN,
            "requests from other origins are not answered",
        ));
    }
    if is_cross_site(request) {
        return Err(refusal(
            StatusCode::FORBIDDEN,
            "requests from other sites are not answered",
        ));
    }
    Ok(())
}

/// The one `Host` of the request. HTTP/1.0 has none; no browser speaks that.
fn addressed_host(request: &Parts) -> Result<Option<Authority>, Refusal> {
    let mut hosts = request.headers.get_all(HOST).iter();
    let Some(host) = hosts.next() else {
        if request.version == Version::HTTP_10 {
            return Ok(None);
        }
        return Err(refusal(
            StatusCode::BAD_REQUEST,
            "the request has no Host header",
        ));
    };
    if hosts.next().is_some() {
        return Err(refusal(
            StatusCode::BAD_REQUEST,
            "the request has more than one Host header",
        ));
    }
    let host = host.to_str().ok().and_then(|host| host.parse().ok());
    host.map(Some).ok_or(refusal(
        StatusCode::BAD_REQUEST,
        "the Host header is not a host",
    ))
}

/// Whether the request names no origin, or the very host and port it is addressed to. That host has been found on the
/// list before; without that, the two being equal would mean nothing.
fn is_own_origin(headers: &HeaderMap, host: Option<&Authority>) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    let Some(origin) = origins.next() else {
        return true;
    };
    if origins.next().is_some() {
        return false;
    }
    let Ok(origin) = origin.to_str() else {
        return false;
    };
    let authority = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"));
    match (authority, host) {
        (Some(authority), Some(host)) => authority.eq_ignore_ascii_case(host.as_str()),
        _ => false,
    }
}

/// Whether a browser says that another site made the request. A person who follows a link to `/` is let in: that shows the
/// page to the person and nothing to the site.
fn is_cross_site(request: &Parts) -> bool {
    let value = |name| {
        request
            .headers
            .get(HeaderName::from_static(name))
            .map(HeaderValue::as_bytes)
    };
    match value("sec-fetch-site") {
        None | Some(b"none" | b"same-origin") => false,
        Some(_) => {
            let navigation = value("sec-fetch-mode") == Some(b"navigate".as_slice());
            // A frame is a navigation too, but not of the person's own window.
            let own_window = matches!(value("sec-fetch-dest"), None | Some(b"document"));
            !(navigation && own_window && request.uri.path() == "/")
        }
    }
}

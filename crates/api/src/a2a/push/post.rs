//! Sending one notification.
//!
//! What it comes to is one of three: it was taken, it is to be tried again, or it never will be taken. What is said about it
//! names the host at the most: the rest of the URL, the token and the credentials are secrets.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use a2a_types::TaskPushNotificationConfig;
use chrono::{DateTime, Utc};
use reqwest::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use reqwest::{Client, Response, StatusCode, redirect};
use rustls_platform_verifier::BuilderVerifierExt;
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::target::{Forbidden, ResolveError, Resolver, Targets};

/// How long a receiver may take. The protocol recommends 10 to 30 s (section 4.3.3); something large is given more.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a receiver is expected to take at the least, in bytes in a second.
const PACE_MIN_BYTES: usize = 64 << 10;

/// How long it may take to be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How much of an answer is read, so that its connection can be used again. What it says is of no interest.
const ANSWER_MAX_BYTES: usize = 16 << 10;

/// The longest time that a receiver may ask for before it is tried again.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// The longest token or credentials, in bytes.
const SECRET_MAX_BYTES: usize = 8 << 10;

/// The protocol's media type, on which Section 4.3 insists for notifications too.
const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/a2a+json");

/// The header with the token. The protocol names none; its official SDKs send and read this one.
const TOKEN: HeaderName = HeaderName::from_static("x-a2a-notification-token");

/// The header that tells a repetition from something new, as Standard Webhooks has it
/// (<https://github.com/standard-webhooks/standard-webhooks>).
const ID: HeaderName = HeaderName::from_static("webhook-id");

/// Where notifications go, and how we show who we are.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Receiver {
    pub(super) url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) authentication: Option<Authentication>,
}

/// What the header `Authorization` is made of.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Authentication {
    pub(super) scheme: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) credentials: Option<String>,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Receiver")
    }
}

/// Why a notification was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unsent {
    pub(super) code: &'static str,
    pub(super) message: String,
    /// Whether it may be taken later.
    pub(super) is_temporary: bool,
    pub(super) retry_after: Option<Duration>,
}

impl Unsent {
    /// The code where the receiver says that it is gone for good.
    pub(super) const GONE: &'static str = "gone";

    fn never(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            is_temporary: false,
            retry_after: None,
        }
    }

    fn yet(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            is_temporary: true,
            ..Self::never(code, message)
        }
    }
}

impl Receiver {
    /// The receiver that a client's config names.
    pub(super) fn of(config: &TaskPushNotificationConfig) -> Self {
        let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        Self {
            url: config.url.clone(),
            token: text(&config.token),
            authentication: config.authentication.as_ref().map(|given| Authentication {
                scheme: given.scheme.clone(),
                credentials: text(&given.credentials),
            }),
        }
    }

    /// The headers by which the receiver knows us.
    pub(super) fn headers(&self) -> Result<HeaderMap, String> {
        let secret = |what: &str, text: &str| {
            let fits = text.len() <= SECRET_MAX_BYTES;
            let value = HeaderValue::from_str(text).ok().filter(|_| fits);
            let mut value = value.ok_or_else(|| {
                format!("{what} is too long, or holds what cannot stand in a header")
            })?;
            value.set_sensitive(true);
            Ok::<_, String>(value)
        };
        let mut headers = HeaderMap::new();
        if let Some(token) = &self.token {
            headers.insert(TOKEN, secret("token", token)?);
        }
        if let Some(Authentication {
            scheme,
            credentials,
        }) = &self.authentication
        {
            // RFC 9110, section 11.1: a scheme is a token.
            let is_token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if scheme.is_empty() || !scheme.bytes().all(is_token) {
                return Err("authentication.scheme is no scheme such as `Bearer`".to_owned());
            }
            if let Some(credentials) = credentials {
                let both = format!("{scheme} {credentials}");
                headers.insert(AUTHORIZATION, secret("authentication.credentials", &both)?);
            }
        }
        Ok(headers)
    }
}

/// Sends notifications.
pub(super) struct Post {
    targets: Arc<Targets>,
    /// Made when it is first needed: the roots of trust are many, and many a node never sends anything.
    client: OnceLock<Client>,
}

impl Post {
    pub(super) fn new(targets: Targets) -> Self {
        Self {
            targets: Arc::new(targets),
            client: OnceLock::new(),
        }
    }

    pub(super) fn targets(&self) -> &Targets {
        &self.targets
    }

    async fn client(self: &Arc<Self>) -> Client {
        if let Some(client) = self.client.get() {
            return client.clone();
        }
        let post = Arc::clone(self);
        let made = tokio::task::spawn_blocking(move || {
            let client = post.client.get_or_init(|| client(&post.targets));
            client.clone()
        });
        made.await
            .expect("because a client is made of constants, and roots that cannot be read are none")
    }

    /// Sends one.
    pub(super) async fn send(
        self: &Arc<Self>,
        to: &Receiver,
        id: &str,
        body: String,
    ) -> Result<(), Unsent> {
        // Looked at again: what may be may have changed since it was taken in.
        let url = self.targets.check(&to.url);
        let url = url.map_err(|why| Unsent::never("forbidden", format!("the url {why}")))?;
        let headers = to.headers();
        let headers = headers.map_err(|why| Unsent::never("invalid", why))?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let answer = self
            .client()
            .await
            .post(url)
            .headers(headers)
            .header(CONTENT_TYPE, MEDIA_TYPE)
            .header(ID, id)
            .timeout(TIMEOUT + Duration::from_secs((body.len() / PACE_MIN_BYTES) as u64))
            .body(body)
            .send()
            .await;
        match answer {
            Ok(answer) => take(answer, &host).await,
            Err(error) => Err(unreached(&error, &host)),
        }
    }
}

fn client(targets: &Arc<Targets>) -> Client {
    Client::builder()
        .tls_backend_preconfigured(tls())
        .dns_resolver(Arc::new(Resolver(Arc::clone(targets))))
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .pool_max_idle_per_host(2)
        .user_agent("tinkerbell")
        .build()
        .expect("because nothing in it comes from outside")
}

/// TLS with the roots that this machine trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` say others).
fn tls() -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("because ring has the ciphers of TLS 1.2 and 1.3");
    match builder.clone().with_platform_verifier() {
        Ok(builder) => builder.with_no_client_auth(),
        Err(error) => {
            tracing::warn!(
                "this machine has no roots of trust, so no notification goes out over TLS: {error}"
            );
            builder
                .with_root_certificates(RootCertStore::empty())
                .with_no_client_auth()
        }
    }
}

/// Takes an answer, and lets its connection go.
async fn take(mut answer: Response, host: &str) -> Result<(), Unsent> {
    let status = answer.status();
    let retry_after = retry_after(answer.headers(), Utc::now());
    let mut read = 0;
    while let Ok(Some(chunk)) = answer.chunk().await {
        read += chunk.len();
        if read > ANSWER_MAX_BYTES {
            break;
        }
    }
    judge(status, retry_after, host)
}

fn judge(status: StatusCode, retry_after: Option<Duration>, host: &str) -> Result<(), Unsent> {
    let message = format!("{host} answers with {}", status.as_u16());
    match status {
        status if status.is_success() => Ok(()),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Err(Unsent {
                retry_after,
                ..Unsent::yet("busy", message)
            })
        }
        status if status.is_server_error() => Err(Unsent {
            retry_after,
            ..Unsent::yet("failed", message)
        }),
        StatusCode::GONE => Err(Unsent::never(Unsent::GONE, message)),
        _ => Err(Unsent::never("refused", message)),
    }
}

/// What a receiver asks for, in seconds or as a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = DateTime::parse_from_rfc2822(text).ok()?;
            at.signed_duration_since(now).to_std().unwrap_or_default()
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

fn unreached(error: &reqwest::Error, host: &str) -> Unsent {
    let chain = std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |error| {
        error.source()
    });
    let is_forbidden = |error: &(dyn std::error::Error + 'static)| {
        error.is::<Forbidden>() || matches!(error.downcast_ref(), Some(ResolveError::Forbidden(_)))
    };
    let mut last = None;
    for error in chain {
        if is_forbidden(error) {
            return Unsent::never("forbidden", error.to_string());
        }
        last = Some(error);
    }
    if error.is_timeout() {
        return Unsent::yet("timed_out", format!("{host} takes too long"));
    }
    // The outermost error names the URL.
    let why = last.map(ToString::to_string).unwrap_or_default();
    Unsent::yet("unreachable", format!("{host} cannot be reached: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_whether_to_try_again() {
        let judged = |status: u16| judge(StatusCode::from_u16(status).unwrap(), None, "h");
        for taken in [200, 202, 204] {
            assert_eq!(judged(taken), Ok(()));
        }
        for later in [408, 425, 429, 500, 502, 503, 504] {
            assert!(judged(later).unwrap_err().is_temporary, "{later}");
        }
        for never in [301, 302, 307, 400, 401, 403, 404, 422] {
            let unsent = judged(never).unwrap_err();
            assert_eq!((unsent.is_temporary, unsent.code), (false, "refused"));
        }
        assert_eq!(judged(410).unwrap_err().code, Unsent::GONE);
    }

    #[test]
    fn a_receiver_may_ask_for_time_in_seconds_or_by_a_date() {
        let now = DateTime::parse_from_rfc3339("2015-10-21T07:28:00Z")
            .unwrap()
            .to_utc();
        for (text, seconds) in [
            ("120", Some(120)),
            ("0", Some(0)),
            ("999999999", Some(3600)),
            ("Wed, 21 Oct 2015 07:28:30 GMT", Some(30)),
            ("Wed, 21 Oct 2015 07:27:30 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
            let wait = retry_after(&headers, now);
            assert_eq!(wait, seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn what_cannot_stand_in_a_header_is_refused_and_not_repeated() {
        let receiver = |token: Option<&str>, scheme: &str, credentials: Option<&str>| Receiver {
            url: "https://example.org".to_owned(),
            token: token.map(str::to_owned),
            authentication: Some(Authentication {
                scheme: scheme.to_owned(),
                credentials: credentials.map(str::to_owned),
            }),
        };
        let headers = receiver(Some("t-1"), "Basic", Some("dTpw"))
            .headers()
            .unwrap();
        assert_eq!(headers[TOKEN], "t-1");
        assert_eq!(headers[AUTHORIZATION], "Basic dTpw");
        assert!(headers.values().all(HeaderValue::is_sensitive));
        for refused in [
            receiver(Some("a\r\nX: y"), "Bearer", None),
            receiver(None, "Bearer", Some("a\nb")),
            receiver(None, "Bea rer", Some("a")),
            receiver(None, "", Some("a")),
        ] {
            let said = refused.headers().unwrap_err();
            assert!(!said.contains('\n') && !said.contains("X: y"), "{said}");
        }
    }
}

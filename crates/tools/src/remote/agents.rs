//! Which agents there are, and connections to them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use a2a_client::agent_card::AgentCardResolver;
use a2a_client::jsonrpc::JsonRpcTransportFactory;
use a2a_client::rest::RestTransportFactory;
use a2a_client::{A2AClient, A2AClientFactory, Transport};
use a2a_types::{A2AError, AgentCard};
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, Url, redirect};
use runtime::EffectError;

use super::words;

/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// How long an agent may say nothing, on a stream too: then the task is asked for, and its stream taken up again.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// An agent that may be spoken to.
#[derive(Clone)]
pub struct RemoteAgent {
    /// Where its card is, but for the well-known path.
    pub url: String,
    /// The bearer token that it asks for.
    pub token: Option<String>,
    /// Certificates (PEM) that its own may lead to, beside those that this machine trusts.
    pub ca_pem: Option<Vec<u8>>,
}

impl fmt::Debug for RemoteAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteAgent")
            .field("url", &self.url)
            .field("has_token", &self.token.is_some())
            .field("has_ca", &self.ca_pem.is_some())
            .finish()
    }
}

/// Why an agent cannot be spoken to, whatever it says.
#[derive(Debug, thiserror::Error)]
#[error("agent `{name}`: {what}")]
pub struct RemoteAgentError {
    name: String,
    what: String,
}

impl RemoteAgentError {
    /// The agent, as the config calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is wrong.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }
}

/// The agents of the config, by name.
#[derive(Clone, Debug, Default)]
pub struct Agents {
    by_name: BTreeMap<String, Arc<Agent>>,
}

pub(super) type Connection = A2AClient<Box<dyn Transport>>;

pub(super) struct Agent {
    name: String,
    url: Url,
    token: Option<HeaderValue>,
    /// What its own certificate may lead to, beside what this machine trusts.
    roots: Vec<Certificate>,
    /// Made when it is first spoken to: the machine's roots take a while to be read, and no start should wait for that.
    http: OnceLock<Client>,
    /// What its card led to. Thrown away when something went wrong with it, since cards change.
    connection: Mutex<Option<Arc<Connection>>>,
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent")
            .field("name", &self.name)
            .field("url", &self.url.as_str())
            .finish_non_exhaustive()
    }
}

impl Agents {
    /// Makes them ready to be spoken to. Nothing is sent.
    ///
    /// # Errors
    ///
    /// If an address, a token or a certificate of one is none.
    pub fn new(
        agents: impl IntoIterator<Item = (String, RemoteAgent)>,
    ) -> Result<Self, RemoteAgentError> {
        let mut by_name = BTreeMap::new();
        for (name, agent) in agents {
            let failed = |what: String| RemoteAgentError {
                name: name.clone(),
                what,
            };
            let url =
                Url::parse(&agent.url).map_err(|error| failed(format!("its address: {error}")))?;
            let token = agent.token.as_deref().map(bearer).transpose();
            let roots = agent.ca_pem.as_deref().map(Certificate::from_pem_bundle);
            let roots = roots
                .transpose()
                .map_err(|error| failed(format!("its certificates: {error}")))?;
            let agent = Agent {
                name: name.clone(),
                url,
                token: token.map_err(failed)?,
                roots: roots.unwrap_or_default(),
                http: OnceLock::new(),
                connection: Mutex::default(),
            };
            by_name.insert(name, Arc::new(agent));
        }
        Ok(Self { by_name })
    }

    pub(super) fn get(&self, name: &str) -> Result<&Arc<Agent>, EffectError> {
        self.by_name.get(name).ok_or_else(|| {
            let known: Vec<_> = self
                .by_name
                .keys()
                .map(|name| format!("`{name}`"))
                .collect();
            let known = match known.is_empty() {
                true => "there is none (`[[a2a.agent]]` in the config names them)".to_owned(),
                false => format!("there are {}", known.join(", ")),
            };
            EffectError::permanent("unknown_agent", format!("no agent `{name}`: {known}"))
        })
    }
}

fn bearer(token: &str) -> Result<HeaderValue, String> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| "its token holds characters that no header can".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

/// An error with all that led to it: the last is what tells the reason.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text = format!("{text}: {error}");
        next = error.source();
    }
    text
}

impl Agent {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    fn http(&self) -> Result<&Client, EffectError> {
        if let Some(http) = self.http.get() {
            return Ok(http);
        }
        // The first to come decides for the process; whoever else has chosen this same provider.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let headers = self
            .token
            .iter()
            .map(|token| (AUTHORIZATION, token.clone()));
        let mut builder = Client::builder()
            .connect_timeout(CONNECT_MAX)
            .read_timeout(SILENCE_MAX)
            // Where an agent is, the config says; a token must not follow it elsewhere.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .default_headers(HeaderMap::from_iter(headers));
        if !self.roots.is_empty() {
            builder = builder.tls_certs_merge(self.roots.iter().cloned());
        }
        let client = builder.build().map_err(|error| {
            let text = format!("agent `{}`: {}", self.name, chain(&error));
            EffectError::permanent("no_client", text)
        })?;
        Ok(self.http.get_or_init(|| client))
    }

    /// A connection of the best binding that its card names.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>, EffectError> {
        let kept = self.lock().clone();
        if let Some(kept) = kept {
            return Ok(kept);
        }
        let http = self.http()?;
        let resolver = AgentCardResolver::new(Some(http.clone()));
        let mut card = resolver
            .resolve(self.url.as_str())
            .await
            .map_err(|error| self.unreachable(&error))?;
        self.keep_to_its_own(&mut card)?;
        let factory = A2AClientFactory::builder()
            .no_defaults()
            .register(Arc::new(JsonRpcTransportFactory::new(Some(http.clone()))))
            .register(Arc::new(RestTransportFactory::new(Some(http.clone()))))
            .build();
        let connection = factory
            .create_from_card(&card)
            .await
            .map_err(|error| self.refused(&error))?;
        let connection = Arc::new(connection);
        *self.lock() = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// Strikes out where the token must not go: a card is what somebody else wrote.
    fn keep_to_its_own(&self, card: &mut AgentCard) -> Result<(), EffectError> {
        if self.token.is_none() {
            return Ok(());
        }
        let named: Vec<String> = card
            .supported_interfaces
            .iter()
            .map(|interface| interface.url.clone())
            .collect();
        card.supported_interfaces.retain(|interface| {
            Url::parse(&interface.url).is_ok_and(|url| url.origin() == self.url.origin())
        });
        if !card.supported_interfaces.is_empty() || named.is_empty() {
            return Ok(());
        }
        Err(EffectError::permanent(
            "foreign_interface",
            format!(
                "the card of agent `{}` names {}, and its token goes to {} only; set `url` of its `[[a2a.agent]]` to where it is",
                self.name,
                named.join(", "),
                self.url.origin().ascii_serialization(),
            ),
        ))
    }

    /// What a failed call means. Something may be wrong with the connection, so the next call makes a new one.
    pub(super) fn failed(&self, error: &A2AError) -> EffectError {
        if words::is_of_the_way(error) {
            *self.lock() = None;
            return self.unreachable(error);
        }
        self.refused(error)
    }

    fn unreachable(&self, error: &A2AError) -> EffectError {
        EffectError::transient("unreachable", format!("agent `{}`: {error}", self.name))
    }

    fn refused(&self, error: &A2AError) -> EffectError {
        let code = words::code_of(error);
        EffectError::permanent(code, format!("agent `{}`: {error}", self.name))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Connection>>> {
        // Nothing that can panic happens under this lock.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

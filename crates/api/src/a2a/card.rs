//! What the agent says of itself.

use std::collections::HashMap;

use a2a_types::{
    AgentCapabilities, AgentCard, AgentInterface, AgentProvider, AgentSkill,
    HttpAuthSecurityScheme, MutualTlsSecurityScheme, SecurityScheme, TRANSPORT_PROTOCOL_GRPC,
    TRANSPORT_PROTOCOL_HTTP_JSON, TRANSPORT_PROTOCOL_JSONRPC,
};

use super::skill::Skill;

/// An agent: what its card says, and what it can do.
#[derive(Clone, Debug)]
pub struct Agent {
    /// What it is called.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// Its own version, not the protocol's.
    pub version: String,
    /// Where clients reach it, scheme and all; without a slash at the end.
    pub public_url: String,
    /// Who runs it.
    pub provider: Option<Provider>,
    /// Where it is documented.
    pub documentation_url: Option<String>,
    /// A picture of it.
    pub icon_url: Option<String>,
    /// The media types it takes, where a skill does not say.
    pub input_modes: Vec<String>,
    /// The media types it gives, where a skill does not say.
    pub output_modes: Vec<String>,
    /// Whether a message that is sent twice makes one task.
    pub is_idempotent: bool,
    /// What it can do, in the order in which skills are asked for a message.
    pub skills: Vec<Skill>,
}

/// Who runs an agent.
#[derive(Clone, Debug)]
pub struct Provider {
    /// The organisation.
    pub organization: String,
    /// Its page.
    pub url: String,
}

/// The names of the security schemes.
const BEARER: &str = "bearer";
const CERTIFICATE: &str = "certificate";

/// What is asked of clients. Both, where both are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asks {
    /// The bearer token.
    pub(super) token: bool,
    /// A certificate.
    pub(super) certificate: bool,
}

impl Asks {
    /// Whether clients are known, so that there can be something that not everybody is told.
    pub(super) fn anything(self) -> bool {
        self.token || self.certificate
    }

    fn schemes(self) -> HashMap<String, SecurityScheme> {
        let bearer = SecurityScheme::HttpAuth(HttpAuthSecurityScheme {
            scheme: "Bearer".to_owned(),
            description: None,
            bearer_format: None,
        });
        let certificate = SecurityScheme::MutualTls(MutualTlsSecurityScheme { description: None });
        let all = [
            (self.token, BEARER, bearer),
            (self.certificate, CERTIFICATE, certificate),
        ];
        all.into_iter()
            .filter(|(is_asked, ..)| *is_asked)
            .map(|(_, name, scheme)| (name.to_owned(), scheme))
            .collect()
    }
}

impl Agent {
    /// The card that everybody sees, or the extended one. `pushes` says whether there are push notifications.
    pub(super) fn card(&self, asks: Asks, pushes: bool, is_extended: bool) -> AgentCard {
        let schemes = asks.schemes();
        let interface = |binding: &str| AgentInterface::new(&self.public_url, binding);
        let shown = self
            .skills
            .iter()
            .filter(|skill| is_extended || !skill.is_extended);
        let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
        AgentCard {
            name: self.name.clone(),
            description: self.description.clone(),
            version: self.version.clone(),
            supported_interfaces: vec![
                interface(TRANSPORT_PROTOCOL_JSONRPC),
                interface(TRANSPORT_PROTOCOL_HTTP_JSON),
                interface(TRANSPORT_PROTOCOL_GRPC),
            ],
            capabilities: AgentCapabilities {
                streaming: Some(true),
                push_notifications: Some(pushes),
                extensions: None,
                extended_agent_card: Some(asks.anything()),
            },
            default_input_modes: self.input_modes.clone(),
            default_output_modes: self.output_modes.clone(),
            skills: shown
                .map(|skill| AgentSkill {
                    id: skill.id.clone(),
                    name: skill.name.clone(),
                    description: skill.description.clone(),
                    tags: skill.tags.clone(),
                    examples: some(&skill.examples),
                    input_modes: some(&skill.input_modes),
                    output_modes: some(&skill.output_modes),
                    security_requirements: None,
                })
                .collect(),
            provider: self.provider.as_ref().map(|provider| AgentProvider {
                organization: provider.organization.clone(),
                url: provider.url.clone(),
            }),
            documentation_url: self.documentation_url.clone(),
            icon_url: self.icon_url.clone(),
            security_requirements: asks.anything().then(|| {
                let all = schemes.keys().map(|name| (name.clone(), Vec::new()));
                vec![all.collect()]
            }),
            security_schemes: asks.anything().then_some(schemes),
            signatures: None,
        }
    }
}

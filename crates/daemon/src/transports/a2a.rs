//! The a2a transport, made from the config.

use std::net::{IpAddr, TcpListener};

use api::Service;
use api::a2a::push::{DELIVER, Pusher, Targets};
use api::a2a::{
    Access, Agent, AnswerKind, Provider, Pushes, Rule, Server, Skill, Template, TokenCheck,
};
use regex::Regex;
use runtime::EffectCall;
use tools::{Handler, Performing, ToolBox};

use crate::boot::{self, BootError};
use crate::config::{A2aSkill, Config, Environment, MediaType, SkillAnswer, SkillRule};
use crate::startup::job_spec;

/// Who sends push notifications, and where to.
pub(super) fn pusher(config: &Config) -> Pusher {
    let a2a = &config.a2a;
    let is_named_so = a2a.public_url.as_ref().is_none_or(|url| {
        let host = url.host();
        let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        host == "localhost" || address.is_some_and(|address| address.is_loopback())
    });
    Pusher::new(Targets {
        with_loopback: a2a.listen.ip().is_loopback() && is_named_so,
        hosts: a2a
            .push_hosts
            .iter()
            .map(|host| host.as_str().to_owned())
            .collect(),
    })
}

/// Adds the effect that sends push notifications.
pub(super) fn add_to(tools: ToolBox, pusher: &Pusher) -> ToolBox {
    struct Deliver(Pusher);

    impl Handler for Deliver {
        fn perform(&self, call: EffectCall) -> Performing {
            let pusher = self.0.clone();
            Box::pin(async move { pusher.deliver(call).await })
        }
    }

    tools.with(DELIVER, Deliver(pusher.clone()))
}

/// Begins to serve the agent that the config describes, if it has a skill.
///
/// # Errors
///
/// If the address or the token cannot be had.
pub(super) fn serve(
    config: &Config,
    environment: &Environment,
    pusher: &Pusher,
    service: &Service,
) -> Result<Option<Server>, BootError> {
    let a2a = &config.a2a;
    if !a2a.enabled || config.a2a_skills.is_empty() {
        return Ok(None);
    }
    let token = boot::read_token("a2a", a2a.token(), environment)?;
    let tls = boot::read_tls("a2a", a2a.tls(), api::a2a::PROTOCOLS)?;
    let failed = |source| BootError::A2a {
        address: a2a.listen,
        holder: boot::holder_of(a2a.listen, &source),
        source,
    };
    let listener = TcpListener::bind(a2a.listen).map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let public_url = match &a2a.public_url {
        Some(url) => url.as_str().to_owned(),
        None if tls.is_some() => format!("https://{address}"),
        None => format!("http://{address}"),
    };
    let access = Access {
        token: token.map(|token| TokenCheck::new(move |given| token.matches(given))),
        tls,
        hosts: a2a
            .public_url
            .iter()
            .map(|url| url.host().to_owned())
            .chain([address.ip().to_string()])
            .collect(),
    };
    let agent = agent(config, public_url);
    tracing::info!(%address, skills = agent.skills.len(), "serving a2a");
    let pushes = Pushes {
        pusher: pusher.clone(),
        configs: a2a.push_configs,
    };
    let server = api::a2a::serve(listener, access, agent, pushes, service.clone());
    Ok(Some(server.map_err(failed)?))
}

fn agent(config: &Config, public_url: String) -> Agent {
    let a2a = &config.a2a;
    let modes = |modes: &[MediaType]| modes.iter().map(|mode| mode.as_str().to_owned()).collect();
    let node = config.node.name.as_str();
    Agent {
        name: a2a.name.clone().unwrap_or_else(|| node.to_owned()),
        description: a2a.description.clone(),
        version: a2a.version.clone(),
        public_url,
        provider: match (&a2a.provider, &a2a.provider_url) {
            (Some(organization), Some(url)) => Some(Provider {
                organization: organization.clone(),
                url: url.as_str().to_owned(),
            }),
            _ => None,
        },
        documentation_url: a2a
            .documentation_url
            .as_ref()
            .map(|url| url.as_str().to_owned()),
        icon_url: a2a.icon_url.as_ref().map(|url| url.as_str().to_owned()),
        input_modes: modes(&a2a.input_modes),
        output_modes: modes(&a2a.output_modes),
        is_idempotent: a2a.idempotent,
        skills: config.a2a_skills.iter().map(skill).collect(),
    }
}

fn skill(skill: &A2aSkill) -> Skill {
    let job = job_spec(&skill.job);
    Skill {
        id: skill.id.clone(),
        name: skill.name.clone(),
        description: skill.description.clone(),
        tags: skill.tags.clone(),
        examples: skill.examples.clone(),
        input_modes: skill.input_modes.clone(),
        output_modes: skill.output_modes.clone(),
        is_extended: skill.is_extended,
        is_default: skill.is_default,
        answer: match skill.answer {
            SkillAnswer::Task => AnswerKind::Task,
            SkillAnswer::Message => AnswerKind::Message,
        },
        rules: skill.rules.iter().map(rule).collect(),
        template: Template {
            program: job.program,
            body: skill.job.body.clone(),
            labels: job.labels,
            priority: job.priority,
        },
    }
}

fn rule(rule: &SkillRule) -> Rule {
    Rule {
        metadata: rule.metadata.clone(),
        text: rule
            .text
            .as_deref()
            .map(|text| Regex::new(text).expect("the config's check has read it")),
        message_id: rule.message_id.clone(),
        after: rule.after.clone(),
    }
}

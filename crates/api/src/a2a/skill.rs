//! Skills: job templates that take messages.
//!
//! Skills are asked in their order; one takes a message if any of its rules holds. A message that none asks for goes to the
//! skill that its context was with before, and else to the default one.

use std::collections::BTreeMap;

use a2a_types::{Message, PartContent};
use regex::Regex;
use runtime::{JobPriority, JobSpec, Json};
use serde_json::{Map, Value, json};

use super::message;

/// A skill: what the card says of it, which messages it takes, and what job it makes of one.
#[derive(Clone, Debug)]
pub struct Skill {
    /// What it is known by, unique.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// What it does.
    pub description: String,
    /// Words to find it by.
    pub tags: Vec<String>,
    /// Prompts that it is good for.
    pub examples: Vec<String>,
    /// The media types it takes; those of the agent if there are none.
    pub input_modes: Vec<String>,
    /// The media types it gives; those of the agent if there are none.
    pub output_modes: Vec<String>,
    /// Whether only the extended card shows it.
    pub is_extended: bool,
    /// Whether it takes what no other does.
    pub is_default: bool,
    /// What it answers with.
    pub answer: AnswerKind,
    /// Which messages it takes.
    pub rules: Vec<Rule>,
    /// The job it makes of one.
    pub template: Template,
}

/// What a skill answers a message with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnswerKind {
    /// The task.
    #[default]
    Task,
    /// What the job gave, once it is completed, as a message without a task.
    Message,
}

/// A rule holds for a message if all that it says does.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Metadata of the message, or of the request, that must have these values.
    pub metadata: BTreeMap<String, Value>,
    /// What the text of the message must match.
    pub text: Option<Regex>,
    /// What the id of the message must begin with.
    pub message_id: Option<String>,
    /// The skill that took the message before this one in the same context.
    pub after: Option<String>,
}

impl Rule {
    fn holds(&self, message: &Message, metadata: &Metadata<'_>, earlier: Option<&str>) -> bool {
        self.metadata
            .iter()
            .all(|(key, value)| metadata.get(key) == Some(value))
            && self
                .text
                .as_ref()
                .is_none_or(|text| text.is_match(&message::text_of(message)))
            && self
                .message_id
                .as_ref()
                .is_none_or(|prefix| message.message_id.starts_with(prefix))
            && self
                .after
                .as_deref()
                .is_none_or(|after| earlier == Some(after))
    }
}

/// The metadata of a message, and of the request it came with.
pub(super) struct Metadata<'a> {
    pub(super) message: Option<&'a std::collections::HashMap<String, Value>>,
    pub(super) request: Option<&'a std::collections::HashMap<String, Value>>,
}

impl Metadata<'_> {
    fn get(&self, key: &str) -> Option<&Value> {
        let in_message = self.message.and_then(|metadata| metadata.get(key));
        in_message.or_else(|| self.request.and_then(|metadata| metadata.get(key)))
    }
}

/// A job without what a message adds to it.
#[derive(Clone, Debug)]
pub struct Template {
    /// The program.
    pub program: String,
    /// Its input, an object.
    pub body: Value,
    /// Words to find the job by, beside those that say which task it is.
    pub labels: BTreeMap<String, String>,
    /// How urgent it is.
    pub priority: JobPriority,
}

/// The program whose input has no place for a message: it is given as commands are given things.
const COMMAND: &str = "command";
/// The longest variable that a command is given, in bytes: the kernel takes no single one above 128 KiB.
const VARIABLE_MAX_BYTES: usize = 96 << 10;

impl Template {
    /// The job's input for a message. A command reads the text on its standard input, and finds the whole message in
    /// `A2A_MESSAGE`; every other program finds it as `input.message`.
    pub(super) fn input(&self, message: &Message) -> Value {
        let told = message::to_input(message);
        let mut body = self.body.clone();
        let Some(fields) = body.as_object_mut() else {
            return body;
        };
        if self.program == COMMAND {
            let text = told["text"].clone();
            fields.entry("stdin").or_insert(text);
            let environment = fields.entry("env").or_insert_with(|| json!({}));
            if let Some(environment) = environment.as_object_mut() {
                let whole = told.to_string();
                if whole.len() <= VARIABLE_MAX_BYTES {
                    environment.insert(message::VARIABLE.to_owned(), whole.into());
                }
            }
            return body;
        }
        let input = fields
            .entry("input")
            .or_insert_with(|| Value::Object(Map::new()));
        if let Some(input) = input.as_object_mut() {
            input.insert("message".to_owned(), told);
        }
        body
    }

    pub(super) fn job(&self, message: &Message) -> JobSpec {
        let mut spec = JobSpec::new(&self.program, Json::of(&self.input(message)));
        spec.labels = self.labels.clone();
        spec.priority = self.priority;
        spec
    }
}

/// The skill that takes a message.
pub(super) fn choose<'a>(
    skills: &'a [Skill],
    message: &Message,
    metadata: &Metadata<'_>,
    earlier: Option<&str>,
) -> Option<&'a Skill> {
    let asked_for = skills.iter().find(|skill| {
        let mut rules = skill.rules.iter();
        rules.any(|rule| rule.holds(message, metadata, earlier))
    });
    let same = || {
        skills
            .iter()
            .find(|skill| Some(skill.id.as_str()) == earlier)
    };
    let default = || skills.iter().find(|skill| skill.is_default);
    asked_for.or_else(same).or_else(default)
}

/// The first media type of a message that is none of `modes`.
pub(super) fn unsupported(message: &Message, modes: &[String]) -> Option<String> {
    message.parts.iter().find_map(|part| {
        let given = part.media_type.as_deref().filter(|given| !given.is_empty());
        let media_type = match (given, &part.content) {
            (Some(given), _) => given,
            (None, PartContent::Text(_)) => "text/plain",
            (None, PartContent::Data(_)) => "application/json",
            (None, PartContent::Raw(_)) => "application/octet-stream",
            // It is known to whoever fetches it.
            (None, PartContent::Url(_)) => return None,
        };
        let taken = modes.iter().any(|mode| covers(mode, media_type));
        (!taken).then(|| media_type.to_owned())
    })
}

/// Whether a mode such as `text/*` covers a media type; parameters do not count, nor does case.
fn covers(mode: &str, media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    match mode.split_once('/') {
        Some(("*", "*")) => true,
        Some((kind, "*")) => essence
            .split_once('/')
            .is_some_and(|(given, _)| given.eq_ignore_ascii_case(kind)),
        _ => mode.eq_ignore_ascii_case(essence),
    }
}

#[cfg(test)]
mod tests {
    use a2a_types::{Part, Role};

    use super::*;

    fn skill(id: &str, rules: Vec<Rule>) -> Skill {
        Skill {
            id: id.to_owned(),
            name: id.to_owned(),
            description: String::new(),
            tags: Vec::new(),
            examples: Vec::new(),
            input_modes: Vec::new(),
            output_modes: Vec::new(),
            is_extended: false,
            is_default: id == "default",
            answer: AnswerKind::Task,
            rules,
            template: Template {
                program: "plan".to_owned(),
                body: json!({"steps": []}),
                labels: BTreeMap::new(),
                priority: JobPriority::Normal,
            },
        }
    }

    fn message(id: &str, text: &str) -> Message {
        let mut message = Message::new(Role::User, vec![Part::text(text)]);
        message.message_id = id.to_owned();
        message
    }

    #[test]
    fn skills_are_asked_in_their_order_then_the_context_then_the_default() {
        let skills = [
            skill(
                "by-metadata",
                vec![Rule {
                    metadata: BTreeMap::from([("skill".to_owned(), json!("x"))]),
                    ..Rule::default()
                }],
            ),
            skill(
                "by-text",
                vec![Rule {
                    text: Some(Regex::new("(?i)^convert").unwrap()),
                    ..Rule::default()
                }],
            ),
            skill(
                "by-id",
                vec![Rule {
                    message_id: Some("test-".to_owned()),
                    ..Rule::default()
                }],
            ),
            skill(
                "after",
                vec![Rule {
                    after: Some("by-id".to_owned()),
                    text: Some(Regex::new("again").unwrap()),
                    ..Rule::default()
                }],
            ),
            skill("default", Vec::new()),
        ];
        let with_skill = std::collections::HashMap::from([("skill".to_owned(), json!("x"))]);
        for (id, text, in_message, in_request, earlier, expected) in [
            ("m", "Convert 3", None, None, None, "by-text"),
            (
                "m",
                "Convert 3",
                Some(&with_skill),
                None,
                None,
                "by-metadata",
            ),
            ("m", "hello", None, Some(&with_skill), None, "by-metadata"),
            ("test-1", "hello", None, None, None, "by-id"),
            ("m", "again", None, None, Some("by-id"), "after"),
            ("m", "hello", None, None, Some("by-id"), "by-id"),
            ("m", "hello", None, None, Some("no longer there"), "default"),
            ("m", "hello", None, None, None, "default"),
        ] {
            let metadata = Metadata {
                message: in_message,
                request: in_request,
            };
            let chosen = choose(&skills, &message(id, text), &metadata, earlier).unwrap();
            assert_eq!(chosen.id, expected, "{id} {text} {earlier:?}");
        }
    }

    #[test]
    fn a_command_reads_the_text_and_any_other_program_finds_the_message_in_its_input() {
        let mut template = skill("s", Vec::new()).template;
        let message = message("m-1", "hello");
        let input = template.input(&message);
        assert_eq!(input["input"]["message"]["text"], "hello");
        template.program = COMMAND.to_owned();
        template.body = json!({"argv": ["cat"]});
        let input = template.input(&message);
        assert_eq!(input["stdin"], "hello");
        let whole: Value =
            serde_json::from_str(input["env"]["A2A_MESSAGE"].as_str().unwrap()).unwrap();
        assert_eq!(whole["message_id"], "m-1");
        template.body = json!({"argv": ["cat"], "stdin": "mine"});
        assert_eq!(template.input(&message)["stdin"], "mine");
    }

    #[test]
    fn media_types_are_held_against_modes() {
        let modes = ["text/*".to_owned(), "application/json".to_owned()];
        let with = |part: Part| unsupported(&Message::new(Role::User, vec![part]), &modes);
        assert_eq!(with(Part::text("x")), None);
        assert_eq!(
            with(Part::text("x").with_media_type("text/HTML; charset=utf-8")),
            None
        );
        assert_eq!(with(Part::data(json!(1))), None);
        assert_eq!(with(Part::url("file:///x")), None);
        assert_eq!(
            with(Part::raw(vec![1]).with_media_type("image/png")),
            Some("image/png".to_owned())
        );
        assert_eq!(
            with(Part::raw(vec![1])),
            Some("application/octet-stream".to_owned())
        );
    }
}

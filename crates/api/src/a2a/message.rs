//! Messages: as plans see them, as the journal keeps them, and as answers to questions.

use a2a_types::{Message, Part, PartContent, Role};
use pal::QuestionKind;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The variable in which a command finds its message.
pub(super) const VARIABLE: &str = "A2A_MESSAGE";

/// The signal that keeps a message whole in the journal of the task that it answers. No step of a plan can be called so.
pub(super) const SIGNAL: &str = "a2a.message";

/// All texts of a message, a line each.
pub(super) fn text_of(message: &Message) -> String {
    let texts: Vec<&str> = message.parts.iter().filter_map(Part::as_text).collect();
    texts.join("\n")
}

/// A message as the templates of a plan see it: its texts joined as `text`, its first data as `data`, and all of it.
pub(super) fn to_input(message: &Message) -> Value {
    let data = message.parts.iter().find_map(|part| match &part.content {
        PartContent::Data(data) => Some(data),
        _ => None,
    });
    let mut told = json!({
        "text": text_of(message),
        "role": message.role,
        "message_id": message.message_id,
        "context_id": message.context_id,
        "parts": message.parts,
        "metadata": message.metadata.clone().unwrap_or_default(),
    });
    let fields = told
        .as_object_mut()
        .expect("it was made an object a line above");
    if let Some(data) = data {
        fields.insert("data".to_owned(), data.clone());
    }
    if let Some(extensions) = &message.extensions {
        fields.insert("extensions".to_owned(), json!(extensions));
    }
    if let Some(ids) = &message.reference_task_ids {
        fields.insert("reference_task_ids".to_owned(), json!(ids));
    }
    told
}

/// The message that [`to_input`] was made from.
fn from_input(told: &Value) -> Option<Message> {
    let field = |name: &str| told.get(name).cloned().unwrap_or_default();
    Some(Message {
        message_id: told.get("message_id")?.as_str()?.to_owned(),
        context_id: told
            .get("context_id")
            .and_then(Value::as_str)
            .map(str::to_owned),
        task_id: None,
        role: serde_json::from_value(field("role")).unwrap_or(Role::User),
        parts: serde_json::from_value(field("parts")).unwrap_or_default(),
        metadata: serde_json::from_value(field("metadata"))
            .ok()
            .filter(|metadata: &std::collections::HashMap<_, _>| !metadata.is_empty()),
        extensions: serde_json::from_value(field("extensions")).ok(),
        reference_task_ids: serde_json::from_value(field("reference_task_ids")).ok(),
    })
}

/// The message that a job was submitted with, by its input.
pub(super) fn submitted(input: &Value) -> Option<Message> {
    if let Some(told) = input.pointer("/input/message") {
        return from_input(told);
    }
    let variable = input.get("env")?.get(VARIABLE)?.as_str()?;
    from_input(&serde_json::from_str(variable).ok()?)
}

/// A message as a [`SIGNAL`] keeps it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Kept {
    /// The question that it answers, by the signal that delivers the answer.
    pub(super) question: String,
    /// The message.
    pub(super) message: Message,
}

/// What somebody answered by other means, as a message.
pub(super) fn answered(id: String, value: Value) -> Message {
    let part = match value {
        Value::String(text) => Part::text(text),
        other => Part::data(other),
    };
    let mut message = Message::new(Role::User, vec![part]);
    message.message_id = id;
    message
}

/// Words for yes and no, in which people approve of something or do not.
const YES: [&str; 8] = [
    "yes", "y", "true", "approve", "approved", "ok", "allow", "accept",
];
const NO: [&str; 8] = [
    "no", "n", "false", "deny", "denied", "reject", "refuse", "decline",
];

/// What a message answers to a question.
///
/// # Errors
///
/// If a yes or no is asked for and the message is neither; with what would do.
pub(super) fn answer(message: &Message, kind: QuestionKind) -> Result<Value, String> {
    let text = text_of(message);
    let data = message.parts.iter().find_map(|part| match &part.content {
        PartContent::Data(data) => Some(data.clone()),
        _ => None,
    });
    match kind {
        QuestionKind::Answer => Ok(match data {
            Some(data) => data,
            None if message.parts.iter().all(|part| part.as_text().is_some()) => text.into(),
            // Files and addresses go as they came.
            None => {
                let mut told = Map::new();
                told.insert("text".to_owned(), text.into());
                told.insert("parts".to_owned(), json!(message.parts));
                Value::Object(told)
            }
        }),
        QuestionKind::Approval => {
            if let Some(data) = data {
                let approved = data.get("approved").cloned().unwrap_or(data);
                if approved.is_boolean() {
                    return Ok(approved);
                }
            }
            let word = text.trim().trim_end_matches(['.', '!']).to_lowercase();
            if YES.contains(&word.as_str()) {
                return Ok(Value::Bool(true));
            }
            if NO.contains(&word.as_str()) {
                return Ok(Value::Bool(false));
            }
            Err("the task asks for an approval: answer `yes` or `no`, or with the data `true` or `false`".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back_whole_from_a_jobs_input() {
        let mut message = Message::new(
            Role::User,
            vec![
                Part::text("a").with_media_type("text/plain"),
                Part::raw(vec![0, 255]).with_filename("f"),
                Part::data(json!({"x": 1})),
                Part::url("https://example.org/y"),
                Part::text("b"),
            ],
        );
        message.context_id = Some("c".to_owned());
        message.metadata = Some([("k".to_owned(), json!([1]))].into());
        message.reference_task_ids = Some(vec!["t".to_owned()]);
        let told = to_input(&message);
        assert_eq!(told["text"], "a\nb");
        assert_eq!(told["data"]["x"], 1);
        let input = json!({"steps": [], "input": {"message": told}});
        assert_eq!(submitted(&input), Some(message.clone()));
        let input = json!({"argv": [], "env": {"A2A_MESSAGE": to_input(&message).to_string()}});
        assert_eq!(submitted(&input), Some(message));
        assert_eq!(submitted(&json!({"argv": []})), None);
    }

    #[test]
    fn an_approval_is_a_yes_or_a_no_and_an_answer_anything() {
        let says = |text: &str| Message::new(Role::User, vec![Part::text(text)]);
        for (message, expected) in [
            (says("Yes."), Some(true)),
            (says(" deny "), Some(false)),
            (says("perhaps"), None),
            (
                Message::new(Role::User, vec![Part::data(json!(true))]),
                Some(true),
            ),
            (
                Message::new(Role::User, vec![Part::data(json!({"approved": false}))]),
                Some(false),
            ),
            (Message::new(Role::User, vec![Part::data(json!(3))]), None),
        ] {
            let answer = answer(&message, QuestionKind::Approval).ok();
            assert_eq!(answer, expected.map(Value::Bool), "{message:?}");
        }
        assert_eq!(
            answer(&says("blue"), QuestionKind::Answer),
            Ok(json!("blue"))
        );
        let data = Message::new(Role::User, vec![Part::text("x"), Part::data(json!([1]))]);
        assert_eq!(answer(&data, QuestionKind::Answer), Ok(json!([1])));
        let file = Message::new(Role::User, vec![Part::raw(vec![1])]);
        assert_eq!(
            answer(&file, QuestionKind::Answer).unwrap()["parts"][0]["raw"],
            "AQ=="
        );
    }
}

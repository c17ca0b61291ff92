//! What reads a client's bytes, for fuzzing: from a request's JSON or protocol buffers to what would be asked of the jobs.

use a2a_pb::protojson_conv::{self, ProtoJsonPayload};
use a2a_types::{
    CancelTaskRequest, DeleteTaskPushNotificationConfigRequest,
    GetTaskPushNotificationConfigRequest, GetTaskRequest, ListTaskPushNotificationConfigsRequest,
    ListTasksRequest, SendMessageRequest, SubscribeToTaskRequest, TaskPushNotificationConfig,
};
use pal::QuestionKind;
use prost::Message as _;
use regex::Regex;
use runtime::JobPriority;
use serde_json::{Value, json};

use super::handler::{check_message, length};
use super::message;
use super::push;
use super::skill::{self, AnswerKind, Metadata, Rule, Skill, Template};

/// The operations, as JSON-RPC calls them.
pub const OPERATIONS: [&str; 9] = [
    "SendMessage",
    "GetTask",
    "ListTasks",
    "CancelTask",
    "SubscribeToTask",
    "CreateTaskPushNotificationConfig",
    "GetTaskPushNotificationConfig",
    "ListTaskPushNotificationConfigs",
    "DeleteTaskPushNotificationConfig",
];

/// Reads the parameters of a request, as JSON or as protocol buffers; gives what it asks for as text. `None` for what is no
/// such request.
///
/// # Panics
///
/// If what was read cannot be written and read again, or is not what comes back from a job's input.
#[must_use]
pub fn read(operation: &str, is_json: bool, body: &[u8]) -> Option<String> {
    match operation {
        "SendMessage" => decode(is_json, body).map(|request| send(&request)),
        "GetTask" => decode(is_json, body)
            .map(|request: GetTaskRequest| format!("{:?}", length(request.history_length))),
        "ListTasks" => {
            decode::<ListTasksRequest>(is_json, body).map(|request| format!("{request:?}"))
        }
        "CancelTask" => decode::<CancelTaskRequest>(is_json, body).map(|request| request.id),
        "SubscribeToTask" => {
            decode::<SubscribeToTaskRequest>(is_json, body).map(|request| request.id)
        }
        "CreateTaskPushNotificationConfig" => {
            decode::<TaskPushNotificationConfig>(is_json, body).map(push::look_over)
        }
        "GetTaskPushNotificationConfig" => {
            decode::<GetTaskPushNotificationConfigRequest>(is_json, body).map(|request| request.id)
        }
        "ListTaskPushNotificationConfigs" => {
            decode::<ListTaskPushNotificationConfigsRequest>(is_json, body)
                .map(|request| request.task_id)
        }
        "DeleteTaskPushNotificationConfig" => {
            decode::<DeleteTaskPushNotificationConfigRequest>(is_json, body)
                .map(|request| request.id)
        }
        _ => None,
    }
}

/// What is read can be written and read again, both ways.
fn decode<T: ProtoJsonPayload>(is_json: bool, body: &[u8]) -> Option<T> {
    let value = if is_json {
        let json: Value = serde_json::from_slice(body).ok()?;
        protojson_conv::from_value(json).ok()?
    } else {
        T::try_from_proto(&T::Proto::decode(body).ok()?).ok()?
    };
    let bytes = T::to_proto(&value).encode_to_vec();
    let again = T::Proto::decode(bytes.as_slice()).expect("what was written can be read");
    T::try_from_proto(&again).expect("what was taken once is taken again");
    Some(value)
}

/// What becomes of a message: the skill that takes it, its job, and what it would answer.
fn send(request: &SendMessageRequest) -> String {
    let message = &request.message;
    let checked = check_message(message);
    if checked.is_err() {
        return "refused".to_owned();
    }
    let metadata = Metadata {
        message: message.metadata.as_ref(),
        request: request.metadata.as_ref(),
    };
    let skills = skills();
    let skill = skill::choose(&skills, message, &metadata, Some("second"));
    let skill = skill.expect("one of them takes any message");
    let refused = skill::unsupported(message, &["text/*".to_owned()]);
    for skill in &skills {
        let input = skill.template.job(message).input;
        let text = input.as_str();
        let again: Value = serde_json::from_str(text).expect("a job's input is JSON");
        if let Some(submitted) = message::submitted(&again) {
            assert_eq!(submitted.message_id, message.message_id);
            assert_eq!(submitted.parts, message.parts);
        } else {
            assert_eq!(skill.template.program, "command", "a message is lost");
        }
    }
    let answers = [QuestionKind::Approval, QuestionKind::Answer]
        .map(|kind| message::answer(message, kind).is_ok());
    let push = request.configuration.clone();
    let push = push.and_then(|configuration| configuration.task_push_notification_config);
    let push = push.map(push::look_over);
    format!("{} {refused:?} {answers:?} {push:?}", skill.id)
}

fn skills() -> [Skill; 2] {
    let skill = |id: &str, rules: Vec<Rule>, program: &str, body: Value| Skill {
        id: id.to_owned(),
        name: id.to_owned(),
        description: id.to_owned(),
        tags: Vec::new(),
        examples: Vec::new(),
        input_modes: Vec::new(),
        output_modes: Vec::new(),
        is_extended: false,
        is_default: rules.is_empty(),
        answer: AnswerKind::Task,
        rules,
        template: Template {
            program: program.to_owned(),
            body,
            labels: std::collections::BTreeMap::new(),
            priority: JobPriority::Normal,
        },
    };
    let rule = Rule {
        metadata: std::collections::BTreeMap::from([("skill".to_owned(), json!("first"))]),
        text: Regex::new("(?i)^first\\b").ok(),
        message_id: Some("first-".to_owned()),
        after: None,
    };
    [
        skill("first", vec![rule], "plan", json!({"steps": []})),
        skill("second", Vec::new(), "command", json!({"argv": ["true"]})),
    ]
}

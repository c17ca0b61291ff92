//! From the protocol's words to those of a job.

use a2a_types::errors::error_code;
use a2a_types::{A2AError, Artifact, Message, Part, PartContent, Task, TaskState};
use runtime::EffectError;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Delegated, RemoteArtifact, RemoteContent, RemotePart, RemoteState};
use crate::toolbox::Attachments;

/// Whether a call failed on its way, so that another may not. The client has one code for all of that.
pub(super) fn is_of_the_way(error: &A2AError) -> bool {
    error.code == error_code::INTERNAL_ERROR
}

/// Whether the other side does not know what is asked for at all.
pub(super) fn is_unsupported(error: &A2AError) -> bool {
    [
        error_code::UNSUPPORTED_OPERATION,
        error_code::METHOD_NOT_FOUND,
    ]
    .contains(&error.code)
}

/// The stable word for what an agent refused.
pub(super) fn code_of(error: &A2AError) -> &'static str {
    match error.code {
        error_code::TASK_NOT_FOUND => "task_not_found",
        error_code::CONTENT_TYPE_NOT_SUPPORTED => "content_type_not_supported",
        error_code::INVALID_REQUEST | error_code::INVALID_PARAMS => "invalid_request",
        error_code::VERSION_NOT_SUPPORTED => "version_not_supported",
        _ if is_unsupported(error) => "unsupported",
        _ => "refused",
    }
}

pub(super) fn state_of(state: &TaskState) -> RemoteState {
    match state {
        TaskState::Completed => RemoteState::Completed,
        TaskState::Failed => RemoteState::Failed,
        TaskState::Canceled => RemoteState::Canceled,
        TaskState::Rejected => RemoteState::Rejected,
        TaskState::InputRequired => RemoteState::InputRequired,
        TaskState::AuthRequired => RemoteState::AuthRequired,
        TaskState::Submitted | TaskState::Working | TaskState::Unspecified => RemoteState::Working,
    }
}

/// All texts of a list of parts, a line each.
pub(super) fn text_of(parts: &[Part]) -> String {
    let texts: Vec<&str> = parts.iter().filter_map(Part::as_text).collect();
    texts.join("\n")
}

fn data_of(parts: &[Part]) -> Option<Value> {
    parts.iter().find_map(|part| match &part.content {
        PartContent::Data(data) => Some(whole(data.clone())),
        _ => None,
    })
}

/// Data with whole numbers as such. The protocol's are all of one kind, so that a 5 comes as 5.0.
fn whole(data: Value) -> Value {
    /// Up to here every whole number is a double of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match data {
        Value::Number(number) => match number.as_f64() {
            Some(double) if number.is_f64() && double.fract() == 0.0 && double.abs() < EXACT => {
                (double as i64).into()
            }
            _ => Value::Number(number),
        },
        Value::Array(items) => items.into_iter().map(whole).collect(),
        Value::Object(fields) => {
            let fields = fields.into_iter();
            fields.map(|(key, value)| (key, whole(value))).collect()
        }
        other => other,
    }
}

/// What an agent answered without a task.
pub(super) fn answered(message: &Message) -> (Delegated, Attachments) {
    let mut attachments = Attachments::new();
    let files: Vec<RemotePart> = message
        .parts
        .iter()
        .filter(|part| matches!(part.content, PartContent::Raw(_) | PartContent::Url(_)))
        .map(|part| part_of(part, &mut attachments))
        .collect();
    let delegated = Delegated {
        task: None,
        context: message.context_id.clone(),
        state: RemoteState::Completed,
        text: text_of(&message.parts),
        data: data_of(&message.parts),
        artifacts: match files.is_empty() {
            true => Vec::new(),
            false => vec![RemoteArtifact {
                name: "message".to_owned(),
                parts: files,
            }],
        },
    };
    (delegated, attachments)
}

/// A task as a job sees it, and the bytes that it names.
///
/// # Errors
///
/// If it is larger than `limit` bytes.
pub(super) fn told(task: &Task, limit: u64) -> Result<(Delegated, Attachments), EffectError> {
    let artifacts = task.artifacts.as_deref().unwrap_or_default();
    let said = task.status.message.as_ref();
    let all = artifacts
        .iter()
        .flat_map(|artifact| &artifact.parts)
        .chain(said.into_iter().flat_map(|message| &message.parts));
    let size: u64 = all.map(size_of).sum();
    if size > limit {
        let text = format!(
            "task {} gave {size} bytes, more than the limit of {limit} bytes",
            task.id
        );
        return Err(EffectError::permanent("too_large", text));
    }
    let mut attachments = Attachments::new();
    let state = state_of(&task.status.state);
    let said = said.map_or(&[][..], |message| &message.parts);
    let given = || artifacts.iter().map(|artifact| &artifact.parts[..]);
    // Of a task that is done the artifacts are what counts, as the protocol has it, and of others what was said of it.
    let in_order: Vec<&[Part]> = match state {
        RemoteState::Completed => given().chain([said]).collect(),
        _ => [said].into_iter().chain(given()).collect(),
    };
    let texts: Vec<String> = match state {
        RemoteState::Completed => given()
            .map(text_of)
            .filter(|text| !text.is_empty())
            .collect(),
        _ => Vec::new(),
    };
    let text = match texts.is_empty() {
        true => text_of(said),
        false => texts.join("\n"),
    };
    let data = in_order.into_iter().find_map(data_of);
    let delegated = Delegated {
        task: Some(task.id.clone()),
        context: Some(task.context_id.clone()),
        state,
        text,
        data,
        artifacts: artifacts
            .iter()
            .map(|artifact| artifact_of(artifact, &mut attachments))
            .collect(),
    };
    Ok((delegated, attachments))
}

fn artifact_of(artifact: &Artifact, attachments: &mut Attachments) -> RemoteArtifact {
    let name = artifact.name.clone().filter(|name| !name.is_empty());
    RemoteArtifact {
        name: name.unwrap_or_else(|| artifact.artifact_id.clone()),
        parts: artifact
            .parts
            .iter()
            .map(|part| part_of(part, attachments))
            .collect(),
    }
}

fn part_of(part: &Part, attachments: &mut Attachments) -> RemotePart {
    let (guess, content) = match &part.content {
        PartContent::Text(text) => ("text/plain", RemoteContent::Text(text.clone())),
        PartContent::Data(data) => ("application/json", RemoteContent::Data(whole(data.clone()))),
        PartContent::Url(url) => ("text/uri-list", RemoteContent::Url(url.clone())),
        PartContent::Raw(bytes) => {
            let hash: [u8; 32] = Sha256::digest(bytes).into();
            attachments.push(bytes.clone());
            let file = RemoteContent::File {
                name: part.filename.clone().unwrap_or_else(|| "file".to_owned()),
                size: bytes.len() as u64,
                blob: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
            };
            ("application/octet-stream", file)
        }
    };
    RemotePart {
        media_type: part.media_type.clone().unwrap_or_else(|| guess.to_owned()),
        content,
    }
}

fn size_of(part: &Part) -> u64 {
    let size = match &part.content {
        PartContent::Text(text) | PartContent::Url(text) => text.len(),
        PartContent::Raw(bytes) => bytes.len(),
        PartContent::Data(data) => data.to_string().len(),
    };
    size as u64
}

#[cfg(test)]
mod tests {
    use a2a_types::{Role, TaskStatus};
    use serde_json::json;

    use super::*;

    fn task(artifacts: Vec<Artifact>, said: Option<Message>) -> Task {
        Task {
            id: "t".to_owned(),
            context_id: "c".to_owned(),
            status: TaskStatus {
                state: TaskState::Completed,
                message: said,
                timestamp: None,
            },
            artifacts: Some(artifacts),
            history: None,
            metadata: None,
        }
    }

    fn artifact(parts: Vec<Part>) -> Artifact {
        Artifact {
            artifact_id: "a".to_owned(),
            name: None,
            description: None,
            parts,
            metadata: None,
            extensions: None,
        }
    }

    #[test]
    fn of_a_task_that_is_done_counts_what_it_gave_and_of_others_what_was_said() {
        let said = || Some(Message::new(Role::Agent, vec![Part::text("said")]));
        let parts = vec![
            Part::text("given"),
            Part::data(json!({"n": 1.0, "half": 0.5})),
        ];
        let done = task(vec![artifact(parts.clone())], said());
        let seen = told(&done, 100).unwrap().0;
        assert_eq!(seen.text, "given");
        assert_eq!(seen.data.unwrap(), json!({"half": 0.5, "n": 1}));
        assert_eq!(told(&task(Vec::new(), said()), 100).unwrap().0.text, "said");
        let mut asks = task(vec![artifact(parts)], said());
        asks.status.state = TaskState::InputRequired;
        assert_eq!(told(&asks, 100).unwrap().0.text, "said");
    }

    #[test]
    fn a_file_is_kept_beside_the_result_and_named_by_its_hash() {
        let file = Part::raw(b"abc".to_vec()).with_filename("x.bin");
        let (delegated, attachments) = told(&task(vec![artifact(vec![file])], None), 3).unwrap();
        assert_eq!(attachments, [b"abc".to_vec()]);
        let [given] = &delegated.artifacts[..] else {
            panic!("one artifact was given")
        };
        let content = serde_json::to_value(&given.parts[0]).unwrap();
        // The SHA-256 of "abc": FIPS 180-2, appendix B.1.
        let blob = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(
            content,
            json!({
                "media_type": "application/octet-stream",
                "file": {"name": "x.bin", "size": 3, "blob": blob},
            })
        );
    }

    #[test]
    fn more_than_the_limit_is_refused() {
        let file = Part::raw(vec![0; 4]);
        let error = told(&task(vec![artifact(vec![file])], None), 3).unwrap_err();
        assert_eq!((error.code.as_str(), error.retryable), ("too_large", false));
    }
}

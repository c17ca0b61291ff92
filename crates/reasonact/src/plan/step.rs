//! What the kinds of step do.

use std::collections::BTreeMap;

use pal::{EventKind, Part, QuestionKind, StepStatus};
use runtime::{EffectClass, EffectError, EffectPolicy, EffectRequest, Json, Question};
use serde_json::{Value, json};

use super::spec::{ArtifactSpec, AskSpec, StepSpec};
use super::{Run, Status, StepEnd};
use crate::command::{self, RUN_EFFECT, run_through};
use crate::template::{self, Scope};

/// The effect that reads a file.
const READ_EFFECT: &str = "file.read";

impl Run {
    /// Decides whether a step runs, and runs it.
    pub(super) async fn run_step(&self, spec: &StepSpec) -> StepEnd {
        let scope = template::scope_of(&self.scope());
        let environment = template::environment();
        let skip = match &spec.when {
            Some(when) => match template::holds(&environment, when, &scope) {
                Ok(true) => None,
                Ok(false) => Some(format!("its condition does not hold: {when}")),
                Err(why) => return self.show(spec, StepEnd::failed(format!("when: {why}"))),
            },
            None => self.failed_need(spec),
        };
        if let Some(why) = skip {
            let mut end = StepEnd::skipped(why);
            if spec.when.is_none() {
                // Those that need this one cannot run either.
                end.output
                    .insert("failed_need".to_owned(), Value::Bool(true));
            }
            return self.show(spec, end);
        }
        let fill = |text: &str| self.fill(&environment, text, &scope);
        if let Some(run) = &spec.run {
            return match fill_run(run, &fill) {
                Ok(run) => self.command(spec, &run).await,
                Err(why) => self.show(spec, StepEnd::failed(why)),
            };
        }
        let begun_ms = self.context.now_ms();
        let kind = match (&spec.sleep, &spec.call) {
            (Some(_), _) => Some("sleep"),
            (_, Some(_)) => Some("call"),
            _ => None,
        };
        if let Some(kind) = kind {
            self.context.emit(EventKind::StepStarted {
                step: spec.id.clone(),
                title: spec.title.clone(),
                kind: kind.to_owned(),
                attempt: 1,
                attempts: 1,
            });
        }
        if let Some(call) = &spec.call {
            let end = self.call(spec, call, &scope).await;
            return self.show_since(spec, end, begun_ms);
        }
        let end = self.quiet_step(spec, &scope).await;
        let reads_file = spec
            .artifact
            .as_ref()
            .is_some_and(|artifact| artifact.file.is_some());
        if reads_file && end.status == Status::Ok {
            // The effect that read the file has been shown.
            return end;
        }
        self.show_since(spec, end, begun_ms)
    }

    /// The steps that are no effect of their own: their beginning and end are shown by hand.
    async fn quiet_step(&self, spec: &StepSpec, scope: &Scope) -> StepEnd {
        let environment = template::environment();
        let fill = |text: &str| self.fill(&environment, text, scope);
        let done = if let Some(duration) = spec.sleep {
            self.context.sleep(duration.0).await;
            Ok(BTreeMap::new())
        } else if let Some(text) = &spec.say {
            fill(text).map(|text| {
                self.context.emit(EventKind::Message {
                    step: Some(spec.id.clone()),
                    text: text.clone(),
                });
                BTreeMap::from([("text".to_owned(), text.into())])
            })
        } else if let Some(ask) = &spec.ask {
            match fill(&ask.prompt) {
                Ok(prompt) => self.ask(spec, ask, prompt).await,
                Err(why) => Err(why),
            }
        } else if let Some(artifact) = &spec.artifact {
            self.artifact(spec, artifact, scope).await
        } else if let Some(fail) = &spec.fail {
            fill(&fail.message).and_then(Err)
        } else {
            Err("step does nothing".to_owned())
        };
        match done {
            Ok(output) => StepEnd::ok(output),
            Err(why) => StepEnd::failed(why),
        }
    }

    fn failed_need(&self, spec: &StepSpec) -> Option<String> {
        let ends = self.ends.borrow();
        spec.needs.iter().find_map(|need| {
            let failed = ends
                .get(need)
                .is_some_and(|end| end.status == Status::Failed);
            let shrugged_off = self
                .plan
                .steps
                .iter()
                .any(|step| step.id == *need && step.may_fail);
            let skipped_for_failure = ends.get(need).is_some_and(|end| {
                end.status == Status::Skipped && end.output.contains_key("failed_need")
            });
            ((failed && !shrugged_off) || skipped_for_failure)
                .then(|| format!("step `{need}`, which it needs, failed"))
        })
    }

    /// Shows the end of a step that took no time.
    fn show(&self, spec: &StepSpec, end: StepEnd) -> StepEnd {
        self.show_since(spec, end, self.context.now_ms())
    }

    /// Shows the end of a step that is no effect of its own and began at `begun_ms`.
    fn show_since(&self, spec: &StepSpec, end: StepEnd, begun_ms: u64) -> StepEnd {
        let (status, error) = match end.status {
            Status::Ok => (StepStatus::Ok, None),
            Status::Failed => (StepStatus::Failed, Some(end.error().to_owned())),
            Status::Interrupted => (StepStatus::Interrupted, None),
            Status::Skipped => (
                StepStatus::Skipped,
                end.output
                    .get("reason")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
            ),
        };
        self.context.emit(EventKind::StepFinished {
            step: spec.id.clone(),
            status,
            duration_us: self.context.now_ms().saturating_sub(begun_ms) * 1_000,
            error,
        });
        end
    }

    async fn command(&self, spec: &StepSpec, run: &command::Run) -> StepEnd {
        let request = EffectRequest::new(RUN_EFFECT, Json::of(run))
            .label(&spec.id)
            .title(spec.title.clone())
            .policy(spec.retry.policy(spec.class, spec.timeout));
        match run_through(&self.context, request, spec.on_interrupted).await {
            Ok(Some(output)) => StepEnd::ok(fields(Some(&output))),
            Ok(None) => StepEnd {
                status: Status::Interrupted,
                output: BTreeMap::from([("outcome".to_owned(), "unknown".into())]),
            },
            Err(error) => {
                let mut output = fields(error.output.as_ref());
                output.insert("error".to_owned(), error.message.into());
                output.insert("code".to_owned(), error.code.into());
                StepEnd {
                    status: Status::Failed,
                    output,
                }
            }
        }
    }

    async fn ask(
        &self,
        spec: &StepSpec,
        ask: &AskSpec,
        prompt: String,
    ) -> Result<BTreeMap<String, Value>, String> {
        let answer = self
            .context
            .ask(Question {
                name: spec.id.clone(),
                step: spec.id.clone(),
                prompt,
                kind: if ask.approval {
                    QuestionKind::Approval
                } else {
                    QuestionKind::Answer
                },
                deadline: match (ask.deadline, &ask.default) {
                    (Some(within), Some(default)) => Some((within.0, Json::of(default))),
                    _ => None,
                },
            })
            .await;
        let value = answer.value.value();
        let by = if answer.by_client {
            "client"
        } else {
            "deadline"
        };
        if ask.approval && value != Value::Bool(true) {
            return Err(format!("not approved ({by} answered {value})"));
        }
        Ok(BTreeMap::from([
            ("answer".to_owned(), value),
            ("by".to_owned(), by.into()),
        ]))
    }

    async fn artifact(
        &self,
        spec: &StepSpec,
        artifact: &ArtifactSpec,
        scope: &Scope,
    ) -> Result<BTreeMap<String, Value>, String> {
        let environment = template::environment();
        let fill = |text: &str| self.fill(&environment, text, scope);
        let name = fill(&artifact.name)?;
        let media_type = |guess: &str| {
            artifact
                .media_type
                .clone()
                .unwrap_or_else(|| guess.to_owned())
        };
        let parts = if let Some(text) = &artifact.text {
            let text = fill(text)?;
            chunks_of(&text, artifact.chunk_bytes)
                .map(|chunk| {
                    let text = chunk.to_owned();
                    (media_type("text/plain"), Part::Text { text })
                })
                .collect()
        } else if let Some(data) = &artifact.data {
            let data = self.fill_value(data, scope)?;
            vec![(media_type("application/json"), Part::Data { data })]
        } else if let Some(url) = &artifact.url {
            let url = fill(url)?;
            vec![(media_type("text/uri-list"), Part::Url { url })]
        } else if let Some(file) = &artifact.file {
            self.read_file(spec, &fill(file)?, artifact).await?
        } else {
            Vec::new()
        };
        let count = parts.len();
        for (index, (media_type, part)) in parts.into_iter().enumerate() {
            self.context.emit(EventKind::Artifact {
                name: name.clone(),
                media_type,
                part,
                index: u32::try_from(index).unwrap_or(u32::MAX),
                last: index + 1 == count,
                append: index > 0,
            });
        }
        Ok(BTreeMap::from([
            ("artifact".to_owned(), name.into()),
            ("parts".to_owned(), count.into()),
        ]))
    }

    /// Reads a file into blobs, one a chunk.
    async fn read_file(
        &self,
        spec: &StepSpec,
        path: &str,
        artifact: &ArtifactSpec,
    ) -> Result<Vec<(String, Part)>, String> {
        let mut parts = Vec::new();
        let mut offset = 0;
        loop {
            let mut input = json!({ "path": path, "offset": offset });
            if let Some(chunk_bytes) = artifact.chunk_bytes {
                input["length"] = chunk_bytes.into();
            }
            let policy = EffectPolicy {
                timeout: spec.timeout.map(|timeout| timeout.0),
                ..EffectPolicy::of_class(EffectClass::Read)
            };
            // The step is over when its last chunk is; each chunk has a name of its own until then.
            let request = EffectRequest::new(READ_EFFECT, Json::of(&input))
                .label(format!("{}.{}", spec.id, parts.len()))
                .title(spec.title.clone())
                .policy(policy);
            let output = self
                .context
                .effect(request)
                .await
                .map_err(|error: EffectError| error.message)?;
            let read: FileRead = crate::read_input(&output).map_err(|error| error.message)?;
            offset += read.length;
            let media_type = artifact.media_type.clone().unwrap_or(read.media_type);
            let part = Part::File {
                name: read.name,
                size: read.length,
                blob: read.blob,
            };
            parts.push((media_type, part));
            if offset >= read.size || read.length == 0 {
                return Ok(parts);
            }
        }
    }
}

/// What `file.read` gives.
#[derive(serde::Deserialize)]
struct FileRead {
    name: String,
    media_type: String,
    /// Length of the whole file in bytes.
    size: u64,
    /// How many of them were read.
    length: u64,
    /// The blob that holds them.
    blob: String,
}

fn fill_run(
    run: &command::Run,
    fill: &impl Fn(&str) -> Result<String, String>,
) -> Result<command::Run, String> {
    let at = |part: &'static str| move |why: String| format!("run.{part}: {why}");
    Ok(command::Run {
        argv: run
            .argv
            .iter()
            .map(|text| fill(text))
            .collect::<Result<_, _>>()
            .map_err(at("argv"))?,
        shell: run
            .shell
            .as_deref()
            .map(fill)
            .transpose()
            .map_err(at("shell"))?,
        env: run
            .env
            .iter()
            .map(|(name, text)| Ok((name.clone(), fill(text)?)))
            .collect::<Result<_, String>>()
            .map_err(at("env"))?,
        cwd: run
            .cwd
            .as_deref()
            .map(fill)
            .transpose()
            .map_err(at("cwd"))?,
        stdin: run
            .stdin
            .as_deref()
            .map(fill)
            .transpose()
            .map_err(at("stdin"))?,
        output_limit_bytes: run.output_limit_bytes,
    })
}

/// The fields of a JSON object, for later steps.
pub(super) fn fields(output: Option<&Json>) -> BTreeMap<String, Value> {
    match output.map(Json::value) {
        Some(Value::Object(fields)) => fields.into_iter().collect(),
        Some(other) => BTreeMap::from([("output".to_owned(), other)]),
        None => BTreeMap::new(),
    }
}

/// A text in pieces of at most so many bytes, cut between characters; the empty text is one piece.
fn chunks_of(text: &str, chunk_bytes: Option<u64>) -> impl Iterator<Item = &str> {
    let most = chunk_bytes.map_or(usize::MAX, |bytes| {
        usize::try_from(bytes).unwrap_or(usize::MAX)
    });
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let mut cut = most.min(text.len());
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        if cut == 0 {
            // One character is longer than a chunk: it goes whole.
            cut = text.chars().next().map_or(0, char::len_utf8);
        }
        let (piece, left) = text.split_at(cut);
        rest = (!left.is_empty()).then_some(left);
        Some(piece)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_cut_between_characters_and_nothing_is_lost() {
        let text = "añb€c𝄞d";
        for bytes in 1..12 {
            let chunks: Vec<_> = chunks_of(text, Some(bytes)).collect();
            assert_eq!(chunks.concat(), text);
            assert!(chunks.iter().all(|chunk| !chunk.is_empty()));
        }
        assert_eq!(chunks_of("", Some(4)).collect::<Vec<_>>(), [""]);
        assert_eq!(chunks_of(text, None).collect::<Vec<_>>(), [text]);
    }
}

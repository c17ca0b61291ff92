//! The program `command`: runs one command.

use std::collections::BTreeMap;

use runtime::{
    Context, EffectClass, EffectError, EffectRequest, Failure, InputError, Json, Program,
    ProgramFuture,
};
use serde::{Deserialize, Serialize};

use crate::duration::HumanDuration;
use crate::read_input;
use crate::retry::{OnInterrupted, Retry};

/// The effect that runs a command.
pub(crate) const RUN_EFFECT: &str = "process.run";

/// What command to run, and how: the input of the effect.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Run {
    /// The program and its arguments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) argv: Vec<String>,
    /// A line for `sh -c`, instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shell: Option<String>,
    /// Variables beside the clean environment.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) env: BTreeMap<String, String>,
    /// Where it runs; the job's own workspace if nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cwd: Option<String>,
    /// What it reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stdin: Option<String>,
    /// How much of each stream is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) output_limit_bytes: Option<u64>,
}

impl Run {
    /// Says what cannot be meant.
    pub(crate) fn check(&self) -> Result<(), String> {
        match (self.argv.is_empty(), &self.shell) {
            (true, None) => {
                Err("either `argv` or `shell` says what to run; there is neither".to_owned())
            }
            (false, Some(_)) => {
                Err("either `argv` or `shell` says what to run, not both".to_owned())
            }
            (false, None) if self.argv[0].is_empty() => {
                Err("argv[0]: the program's name is empty".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// The input of the program: what to run, and how to try it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommandInput {
    #[serde(default)]
    argv: Vec<String>,
    #[serde(default)]
    shell: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    cwd: Option<String>,
    #[serde(default)]
    stdin: Option<String>,
    #[serde(default)]
    output_limit_bytes: Option<u64>,
    #[serde(default)]
    timeout: Option<HumanDuration>,
    #[serde(default)]
    class: EffectClass,
    #[serde(default)]
    retry: Retry,
    #[serde(default)]
    on_interrupted: OnInterrupted,
}

impl CommandInput {
    fn read(input: &Json) -> Result<(Self, Run), InputError> {
        let mut read: Self = read_input(input)?;
        let run = Run {
            argv: std::mem::take(&mut read.argv),
            shell: read.shell.take(),
            env: std::mem::take(&mut read.env),
            cwd: read.cwd.take(),
            stdin: read.stdin.take(),
            output_limit_bytes: read.output_limit_bytes,
        };
        run.check().map_err(|why| InputError::at("", why))?;
        read.retry
            .check()
            .map_err(|why| InputError::at("/retry", why))?;
        Ok((read, run))
    }
}

/// Runs one command. Its result is what the command gave: exit code, output, and how much of that was kept.
#[derive(Clone, Copy, Debug)]
pub struct Command;

impl Program for Command {
    fn name(&self) -> &str {
        "command"
    }

    fn version(&self) -> u32 {
        1
    }

    fn check(&self, input: &Json) -> Result<(), InputError> {
        CommandInput::read(input).map(|_| ())
    }

    fn start(&self, context: Context, input: Json) -> ProgramFuture {
        Box::pin(async move {
            let (input, run) = CommandInput::read(&input)
                .map_err(|error| Failure::new("invalid_input", error.message))?;
            let label = run
                .argv
                .first()
                .map_or("sh", |program| {
                    program.rsplit('/').next().unwrap_or(program)
                })
                .to_owned();
            let request = EffectRequest::new(RUN_EFFECT, Json::of(&run))
                .label(label)
                .policy(input.retry.policy(input.class, input.timeout));
            match run_through(&context, request, input.on_interrupted).await {
                Ok(Some(output)) => Ok(output),
                Ok(None) => Ok(Json::of(&serde_json::json!({ "outcome": "unknown" }))),
                Err(error) => Err(failure(error)),
            }
        })
    }
}

/// Has an effect carried out, and does what is to be done when its outcome is not known. `None` is "unknown, go on".
pub(crate) async fn run_through(
    context: &Context,
    request: EffectRequest,
    on_interrupted: OnInterrupted,
) -> Result<Option<Json>, EffectError> {
    loop {
        return match context.effect(request.clone()).await {
            Ok(output) => Ok(Some(output)),
            Err(error) if error.is_interrupted() => match on_interrupted {
                OnInterrupted::Fail => Err(error),
                OnInterrupted::Continue => Ok(None),
                OnInterrupted::Rerun => continue,
            },
            Err(error) => Err(error),
        };
    }
}

fn failure(error: EffectError) -> Failure {
    Failure {
        code: error.code,
        message: error.message,
        output: error.output,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(input: &str) -> String {
        Command
            .check(&Json::parse_text(input).unwrap())
            .unwrap_err()
            .message
    }

    #[test]
    fn takes_what_makes_sense() {
        for input in [
            r#"{"argv":["true"]}"#,
            r#"{"shell":"exit 0","timeout":"5s","class":"read"}"#,
            r#"{"argv":["cat"],"stdin":"x","env":{"A":"b"},"cwd":"/","retry":{"attempts":3,"backoff":"1s"}}"#,
        ] {
            Command.check(&Json::parse_text(input).unwrap()).unwrap();
        }
    }

    #[test]
    fn refuses_the_rest_and_says_why() {
        for (input, part) in [
            ("{}", "there is neither"),
            (r#"{"argv":["a"],"shell":"b"}"#, "not both"),
            (r#"{"argv":[""]}"#, "argv[0]"),
            (r#"{"argv":"ls"}"#, "argv: invalid type"),
            (r#"{"argv":["a"],"timout":"5s"}"#, "unknown field `timout`"),
            (r#"{"argv":["a"],"timeout":5}"#, "with its unit"),
            (r#"{"argv":["a"],"timeout":"5 parsecs"}"#, "with its unit"),
            (
                r#"{"argv":["a"],"class":"harmless"}"#,
                "unknown variant `harmless`",
            ),
            (r#"{"argv":["a"],"retry":{"attempts":0}}"#, "between 1 and"),
        ] {
            let refusal = refusal(input);
            assert!(refusal.contains(part), "{input}: {refusal}");
        }
    }
}

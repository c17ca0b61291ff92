//! Programs for tests.

use std::future::Future;

use runtime::{
    Context, EffectClass, EffectError, EffectPolicy, EffectRequest, Failure, InputError, Json,
    Program, ProgramFuture, ProgramResult,
};

/// A program made of a closure.
pub struct FnProgram<F> {
    name: &'static str,
    version: u32,
    start: F,
}

/// A program of version 1 that takes any input.
pub fn program<F, P>(
    name: &'static str,
    start: F,
) -> FnProgram<impl Fn(Context, Json) -> ProgramFuture + Send + Sync + 'static>
where
    F: Fn(Context, Json) -> P + Send + Sync + 'static,
    P: Future<Output = ProgramResult> + 'static,
{
    FnProgram {
        name,
        version: 1,
        start: move |context, input| -> ProgramFuture { Box::pin(start(context, input)) },
    }
}

impl<F> FnProgram<F> {
    /// The same program with another version.
    pub fn version(self, version: u32) -> Self {
        Self { version, ..self }
    }
}

impl<F> Program for FnProgram<F>
where
    F: Fn(Context, Json) -> ProgramFuture + Send + Sync + 'static,
{
    fn name(&self) -> &str {
        self.name
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn check(&self, _input: &Json) -> Result<(), InputError> {
        Ok(())
    }

    fn start(&self, context: Context, input: Json) -> ProgramFuture {
        (self.start)(context, input)
    }
}

/// A step of kind `work`.
pub async fn step(context: &Context, label: &str, class: EffectClass) -> Result<Json, EffectError> {
    tried(context, label, EffectPolicy::of_class(class)).await
}

/// A step of kind `work` that is tried as the policy says.
pub async fn tried(
    context: &Context,
    label: &str,
    policy: EffectPolicy,
) -> Result<Json, EffectError> {
    let request = EffectRequest::new("work", Json::of(label));
    context.effect(request.label(label).policy(policy)).await
}

/// A failed effect as the failure of its program.
pub fn failed(error: EffectError) -> Failure {
    Failure {
        code: error.code,
        message: error.message,
        output: error.output,
    }
}

/// The result of a program that has nothing to say.
pub fn done() -> ProgramResult {
    Ok(Json::null())
}

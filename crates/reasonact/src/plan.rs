//! The program `plan`: steps that depend on each other, run concurrently where the dependencies allow.
//!
//! Every step is a task. It waits for those it needs, decides whether it runs, fills its templates from what they gave,
//! and does its one thing. What all steps gave is one map, which templates see as `steps`.

mod call;
mod spec;
mod step;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use runtime::{Context, Failure, InputError, Json, Latch, Program, ProgramFuture, ProgramResult};
use serde_json::{Value, json};

use self::spec::{OnFailure, PlanSpec};
use crate::template::{self, Environment, Scope};

/// Runs a plan. Its result is what every step gave, and the plan's own output if it states one.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    steps_max: usize,
}

impl Plan {
    /// Plans of at most `steps_max` steps.
    #[must_use]
    pub fn new(steps_max: usize) -> Self {
        Self { steps_max }
    }
}

impl Program for Plan {
    fn name(&self) -> &str {
        "plan"
    }

    fn version(&self) -> u32 {
        1
    }

    fn check(&self, input: &Json) -> Result<(), InputError> {
        let plan = PlanSpec::read(input)?;
        let steps = plan.steps.len();
        if steps > self.steps_max {
            return Err(InputError::at(
                "/steps",
                format!(
                    "steps: {steps} are more than the {} that a plan may have (`limits.steps_per_plan`)",
                    self.steps_max
                ),
            ));
        }
        Ok(())
    }

    fn start(&self, context: Context, input: Json) -> ProgramFuture {
        Box::pin(async move {
            let plan = PlanSpec::read(&input)
                .map_err(|error| Failure::new("invalid_input", error.message))?;
            Run::new(context, plan).go().await
        })
    }
}

/// How many bytes the templates of one plan may give, all together. Each is bounded by the work it may do, which is worth
/// some dozens of megabytes; a plan of many such would fill the memory from a specification of a few lines.
const RENDERED_BYTES_MAX: usize = 16 << 20;
/// The change that brought this limit: a job that began before it goes on without.
const RENDERED_LIMIT: &str = "rendered-limit";

/// How a step ended.
#[derive(Clone, Debug, PartialEq)]
struct StepEnd {
    status: Status,
    /// What later steps see of it, beside the status.
    output: BTreeMap<String, Value>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Ok,
    Failed,
    /// Its outcome is not known, and the plan goes on.
    Interrupted,
    Skipped,
}

impl Status {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Interrupted => "interrupted",
            Self::Skipped => "skipped",
        }
    }
}

/// A plan under way, shared by its steps.
struct Run {
    context: Context,
    plan: PlanSpec,
    over: BTreeMap<String, Latch>,
    ends: RefCell<BTreeMap<String, StepEnd>>,
    /// Set by the first failure that the plan does not shrug off.
    failed: Latch,
    /// How many bytes templates have given so far.
    rendered_bytes: Cell<usize>,
}

impl Run {
    fn new(context: Context, plan: PlanSpec) -> Rc<Self> {
        let over = plan
            .steps
            .iter()
            .map(|step| (step.id.clone(), context.latch()))
            .collect();
        Rc::new(Self {
            over,
            ends: RefCell::new(BTreeMap::new()),
            failed: context.latch(),
            rendered_bytes: Cell::new(0),
            plan,
            context,
        })
    }

    async fn go(self: Rc<Self>) -> ProgramResult {
        for index in 0..self.plan.steps.len() {
            let run = Rc::clone(&self);
            self.context
                .spawn(self.plan.steps[index].id.clone(), async move {
                    run.step(index).await;
                })
                .detach();
        }
        let all_over = async {
            for over in self.over.values() {
                over.wait().await;
            }
        };
        match self.plan.on_failure {
            OnFailure::Finish => all_over.await,
            // Returning ends the steps that still run: they are this task's children.
            OnFailure::Stop => {
                self.context.select(all_over, self.failed.wait()).await;
            }
        }
        self.result()
    }

    async fn step(&self, index: usize) {
        let spec = &self.plan.steps[index];
        for need in &spec.needs {
            self.over[need.as_str()].wait().await;
        }
        let end = self.run_step(spec).await;
        if end.status == Status::Failed && !spec.may_fail {
            self.failed.set();
        }
        self.ends.borrow_mut().insert(spec.id.clone(), end);
        self.over[spec.id.as_str()].set();
    }

    /// What templates see.
    fn scope(&self) -> Value {
        let steps: serde_json::Map<_, _> = self
            .ends
            .borrow()
            .iter()
            .map(|(id, end)| (id.clone(), end.to_value()))
            .collect();
        json!({
            "input": self.plan.input,
            "steps": steps,
            "job": { "id": self.context.job().to_string() },
        })
    }

    /// Fills a text.
    fn fill(
        &self,
        environment: &Environment<'_>,
        text: &str,
        scope: &Scope,
    ) -> Result<String, String> {
        let text = template::render(environment, text, scope)?;
        self.account(text.len())?;
        Ok(text)
    }

    /// Fills all texts inside a value.
    fn fill_value(&self, value: &Value, scope: &Scope) -> Result<Value, String> {
        let value = template::render_value(&template::environment(), value, scope)?;
        self.account(value.to_string().len())?;
        Ok(value)
    }

    /// Counts what a template has given, and refuses it if it is too much.
    fn account(&self, bytes: usize) -> Result<(), String> {
        let rendered_bytes = self.rendered_bytes.get().saturating_add(bytes);
        self.rendered_bytes.set(rendered_bytes);
        if rendered_bytes <= RENDERED_BYTES_MAX || self.context.version(RENDERED_LIMIT, 1) == 0 {
            return Ok(());
        }
        Err(format!(
            "the templates of this plan have given more than {} MiB",
            RENDERED_BYTES_MAX >> 20
        ))
    }

    fn result(&self) -> ProgramResult {
        let scope = self.scope();
        let mut result = json!({ "steps": scope["steps"] });
        let ends = self.ends.borrow();
        let failed: Vec<_> = self
            .plan
            .steps
            .iter()
            .filter(|step| !step.may_fail)
            .filter_map(|step| Some((step, ends.get(&step.id)?)))
            .filter(|(_, end)| end.status == Status::Failed)
            .map(|(step, end)| (step.id.clone(), end.error()))
            .collect();
        if failed.is_empty() {
            if let Some(output) = &self.plan.output {
                result["output"] = self
                    .fill_value(output, &template::scope_of(&scope))
                    .map_err(|why| Failure::new("template", format!("output: {why}")))?;
            }
            return Ok(Json::of(&result));
        }
        // A plan that fails by a step that says with which code fails with that.
        let coded = self.plan.steps.iter().find_map(|step| {
            let code = step.fail.as_ref()?.code.as_ref()?;
            let (_, error) = failed.iter().find(|(id, _)| *id == step.id)?;
            Some((code, error))
        });
        if let Some((code, error)) = coded {
            return Err(Failure::new(code, *error).with_output(Json::of(&result)));
        }
        let message = failed
            .iter()
            .map(|(id, error)| format!("step `{id}` failed: {error}"))
            .collect::<Vec<_>>()
            .join("; ");
        Err(Failure::new("step_failed", message).with_output(Json::of(&result)))
    }
}

impl StepEnd {
    fn ok(output: BTreeMap<String, Value>) -> Self {
        Self {
            status: Status::Ok,
            output,
        }
    }

    fn skipped(why: impl Into<String>) -> Self {
        Self {
            status: Status::Skipped,
            output: BTreeMap::from([("reason".to_owned(), Value::String(why.into()))]),
        }
    }

    fn failed(error: impl Into<String>) -> Self {
        Self {
            status: Status::Failed,
            output: BTreeMap::from([("error".to_owned(), Value::String(error.into()))]),
        }
    }

    fn error(&self) -> &str {
        self.output
            .get("error")
            .and_then(Value::as_str)
            .unwrap_or("of unknown cause")
    }

    fn to_value(&self) -> Value {
        let mut fields: serde_json::Map<_, _> = self
            .output
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        fields.insert("status".to_owned(), self.status.name().into());
        Value::Object(fields)
    }
}

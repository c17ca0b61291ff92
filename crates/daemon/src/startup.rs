//! Start-up jobs: submitted at every boot, run once.
//!
//! A start-up job's name is its idempotency key, so that the next boot finds it instead of making it again.

use std::time::Duration;

use runtime::{JobId, JobPriority, JobSpec, Jobs, Json, SubmitError};
use tokio::time::sleep;

use crate::config::{Job, OnChange, Priority, StartupJob};

/// What became of one start-up job at this boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartedJob {
    /// Its name.
    pub name: String,
    /// What became of it.
    pub outcome: StartOutcome,
}

/// What became of a start-up job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartOutcome {
    /// It was taken in now.
    New(JobId),
    /// An earlier boot had taken it in.
    Known(JobId),
    /// An earlier boot had taken in another job of its name.
    Changed {
        /// That job.
        earlier: JobId,
        /// Whether that was left at it silently, as the config asks.
        kept: bool,
    },
    /// It was refused.
    Refused(SubmitError),
}

impl StartOutcome {
    /// The job that stands for it, if there is one.
    #[must_use]
    pub fn job(&self) -> Option<JobId> {
        match self {
            Self::New(job) | Self::Known(job) | Self::Changed { earlier: job, .. } => Some(*job),
            Self::Refused(_) => None,
        }
    }
}

/// How long to wait before a start-up job is submitted again that could not be taken in yet.
const AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Submits all start-up jobs, in order. Those that cannot be taken in yet, because the disk is full for example, are
/// submitted again until they are: the daemon is not ready before.
pub async fn submit_all(jobs: &Jobs, startup_jobs: &[StartupJob]) -> Vec<StartedJob> {
    let mut started = Vec::new();
    for startup in startup_jobs {
        let outcome = submit(jobs, startup).await;
        match &outcome {
            StartOutcome::New(job) => {
                tracing::info!(%job, name = startup.name.as_str(), "start-up job taken in");
            }
            StartOutcome::Known(job) => {
                tracing::info!(%job, name = startup.name.as_str(), "start-up job is known already");
            }
            StartOutcome::Changed {
                earlier,
                kept: true,
            } => {
                tracing::info!(%earlier, name = startup.name.as_str(), "start-up job is kept as it was");
            }
            StartOutcome::Changed {
                earlier,
                kept: false,
            } => tracing::error!(
                %earlier,
                name = startup.name.as_str(),
                "start-up job has changed since it was taken in and is not run again: give it a new name, or say \
                 with `on_change` what to do"
            ),
            StartOutcome::Refused(error) => {
                tracing::error!(
                    name = startup.name.as_str(),
                    "start-up job was refused: {error}"
                );
            }
        }
        started.push(StartedJob {
            name: startup.name.as_str().to_owned(),
            outcome,
        });
    }
    started
}

async fn submit(jobs: &Jobs, startup: &StartupJob) -> StartOutcome {
    let spec = job_spec(&startup.job)
        .named(startup.name.as_str())
        .keyed(startup.name.as_str());
    match submit_patiently(jobs, &spec).await {
        Ok(submitted) if submitted.is_new => StartOutcome::New(submitted.job),
        Ok(submitted) => StartOutcome::Known(submitted.job),
        Err(SubmitError::Conflict { job: earlier, .. }) => match startup.job.on_change {
            OnChange::Refuse => StartOutcome::Changed {
                earlier,
                kept: false,
            },
            OnChange::Keep => StartOutcome::Changed {
                earlier,
                kept: true,
            },
            OnChange::Rerun => {
                let key = format!("{}#{}", startup.name.as_str(), spec.fingerprint());
                match submit_patiently(jobs, &spec.keyed(key)).await {
                    Ok(submitted) if submitted.is_new => StartOutcome::New(submitted.job),
                    Ok(submitted) => StartOutcome::Known(submitted.job),
                    Err(error) => StartOutcome::Refused(error),
                }
            }
        },
        Err(error) => StartOutcome::Refused(error),
    }
}

async fn submit_patiently(jobs: &Jobs, spec: &JobSpec) -> Result<runtime::Submitted, SubmitError> {
    // Said once for each reason, not every time.
    let mut said = None;
    loop {
        match jobs.submit(spec.clone()).await {
            Err(error) if error.is_temporary() && error != SubmitError::Stopping => {
                if said.as_ref() != Some(&error) {
                    tracing::warn!(
                        name = spec.name,
                        "start-up job cannot be taken in yet: {error}"
                    );
                }
                said = Some(error);
                sleep(AGAIN_AFTER).await;
            }
            other => return other,
        }
    }
}

/// A job from a file, as the runtime takes it.
#[must_use]
pub fn job_spec(job: &Job) -> JobSpec {
    let mut spec = JobSpec::new(job.program.as_str(), Json::of(&job.body));
    spec.name = job.name.as_ref().map(|name| name.as_str().to_owned());
    spec.labels = job.labels.clone();
    if let Some(title) = &job.title {
        spec.labels.insert("title".to_owned(), title.clone());
    }
    spec.priority = match job.priority {
        Priority::Background => JobPriority::Background,
        Priority::Low => JobPriority::Low,
        Priority::Normal => JobPriority::Normal,
        Priority::High => JobPriority::High,
    };
    spec
}

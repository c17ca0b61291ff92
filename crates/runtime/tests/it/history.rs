//! History: what is told from the log is what was shown when it happened.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pal::{Delivery, EventKind, Part};
use runtime::EffectClass::{External, Keyed};
use runtime::{
    EffectError, EffectPolicy, Failure, Follower, History, JobId, JobSpec, JobState, Json, Limits,
    Programs,
};
use wal::Lsn;

use crate::support::node::LOG_DIR;
use crate::support::{Behaviour, Node, Setup, World, failed, program, step, tried};

/// An event without when and for how long: of the two, the journal says less.
type Fact = (u64, JobId, EventKind);

fn fact(lsn: u64, job: JobId, mut kind: EventKind) -> Fact {
    match &mut kind {
        EventKind::StepFinished { duration_us, .. }
        | EventKind::JobFinished { duration_us, .. } => *duration_us = 0,
        _ => {}
    }
    (lsn, job, kind)
}

/// What was shown live that stands in the log.
fn shown(node: &mut Node) -> Vec<Fact> {
    let mut shown = Vec::new();
    while let Some(delivery) = node.events.try_recv() {
        let Delivery::Event(event) = delivery else {
            panic!("the ring of the test is large enough");
        };
        if let (Some(lsn), Some(job)) = (event.lsn, event.job) {
            shown.push(fact(lsn, job.id.into(), event.kind.clone()));
        }
    }
    shown
}

fn all(mut follower: Follower, page: usize) -> Vec<Fact> {
    let mut told = Vec::new();
    loop {
        let page = follower.next_page(page).unwrap();
        if page.is_empty() {
            return told;
        }
        told.extend(
            page.into_iter()
                .map(|told| fact(told.lsn.0, told.job, told.kind)),
        );
    }
}

/// Programs that do all that leaves something to tell.
fn programs() -> Programs {
    let retried = program("retried", |context, _| async move {
        let policy = EffectPolicy {
            attempts: 3,
            ..EffectPolicy::of_class(Keyed)
        };
        tried(&context, "twice", policy.clone())
            .await
            .map_err(failed)?;
        tried(&context, "never", policy).await.map_err(failed)
    });
    let plain = program("plain", |context, input| async move {
        step(
            &context,
            input.value().as_str().unwrap_or("plain"),
            External,
        )
        .await
        .map_err(failed)
    });
    let talkative = program("talkative", |context, _| async move {
        context.emit(EventKind::Message {
            step: None,
            text: "hello".to_owned(),
        });
        context.emit(EventKind::Artifact {
            name: "large".to_owned(),
            media_type: "application/json".to_owned(),
            // More than an event may carry, and than an entry holds: a blob in the log, and cut where it is shown.
            part: Part::Data {
                data: "x".repeat(2 << 20).into(),
            },
            index: 0,
            last: true,
            append: false,
        });
        context.sleep(Duration::from_secs(1)).await;
        let answer = context.signal("go").await;
        context.emit(EventKind::Message {
            step: Some("s".to_owned()),
            text: answer.to_string(),
        });
        Err(Failure::new("on_purpose", "it fails by itself"))
    });
    Programs::new().with(retried).with(plain).with(talkative)
}

fn named(program: &str, name: &str) -> JobSpec {
    JobSpec::new(program, Json::of(name)).named(name)
}

/// A node with one place for effects, over which everything has happened that can, a kill included.
fn lived() -> (Node, Vec<JobId>, Vec<Fact>) {
    let setup = Setup {
        limits: Limits {
            running_effects: 1,
            ..Limits::default()
        },
        ..Setup::default()
    };
    let world = World::new({
        let mut twice = 0;
        move |call| match &*call.label {
            "twice" => {
                twice += 1;
                Behaviour::Answer(if twice == 2 {
                    Ok(Json::null())
                } else {
                    Err(EffectError::transient("busy", "not yet"))
                })
            }
            "never" => Behaviour::Answer(Err(EffectError::transient("busy", "never"))),
            "hangs" | "is ended" => Behaviour::Hang,
            _ => Behaviour::Answer(Ok(Json::null())),
        }
    });
    let mut node = Node::with(setup, programs(), world);
    let mut jobs = Vec::new();
    jobs.push(node.run_spec(named("retried", "retried")));
    while node.state(jobs[0]) != JobState::Failed {
        node.advance_to_deadline();
        node.settle();
    }
    jobs.push(node.run_spec(named("talkative", "talkative")));
    // One is at work, and so others are queued: of these, one is cancelled before it began.
    let ended = node.run_spec(named("plain", "is ended"));
    let queued = node.run_spec(named("plain", "goes on"));
    let never_began = node.run_spec(named("plain", "never began"));
    jobs.extend([ended, queued, never_began]);
    for job in [never_began, ended] {
        let _answer = node.cancel(job);
        node.settle();
    }
    let interrupted = node.run_spec(named("plain", "hangs"));
    let waits = node.run_spec(named("plain", "waits for the next life"));
    jobs.extend([interrupted, waits]);
    let mut seen = shown(&mut node);
    node.restart();
    node.advance(Duration::from_secs(2));
    node.settle();
    let _answer = node.signal(jobs[1], "go", "{\"a\":1}");
    node.settle();
    for (job, state) in jobs.iter().zip([
        JobState::Failed,
        JobState::Failed,
        JobState::Cancelled,
        JobState::Completed,
        JobState::Cancelled,
        JobState::Failed,
        JobState::Completed,
    ]) {
        assert_eq!(
            node.state(*job),
            state,
            "{}",
            node.view(*job).name.unwrap_or_default()
        );
    }
    seen.extend(shown(&mut node));
    (node, jobs, seen)
}

fn history(node: &mut Node) -> History {
    let payloads = Arc::clone(node.payloads());
    History::new(LOG_DIR.into(), Arc::new(node.disk.clone()), payloads)
}

#[test]
fn what_is_told_of_each_job_is_what_was_shown() {
    let (mut node, jobs, seen) = lived();
    for (name, wanted) in [
        (
            "retries",
            seen.iter()
                .any(|(_, _, kind)| matches!(kind, EventKind::StepRetrying { .. })),
        ),
        (
            "interruptions",
            seen.iter().any(|(_, _, kind)| {
                matches!(
                    kind,
                    EventKind::StepFinished {
                        status: pal::StepStatus::Interrupted,
                        ..
                    }
                )
            }),
        ),
        (
            "cut events",
            seen.iter().any(|(_, _, kind)| {
                matches!(
                    kind,
                    EventKind::Artifact {
                        part: Part::Omitted { .. },
                        ..
                    }
                )
            }),
        ),
    ] {
        assert!(wanted, "there should be {name} in {seen:?}");
    }
    let history = history(&mut node);
    let mut count = 0;
    for &job in &jobs {
        let view = node.view(job);
        let (first, last) = (view.first_lsn.unwrap(), view.last_lsn.unwrap());
        let of_job: Vec<_> = seen
            .iter()
            .filter(|(_, owner, _)| *owner == job)
            .cloned()
            .collect();
        count += of_job.len();
        for page in [1, 3, 1000] {
            let told = all(history.follow(job, first, Lsn::ZERO, last).unwrap(), page);
            assert_eq!(told, of_job, "{}", view.name.clone().unwrap_or_default());
        }
        for from in 0..of_job.len() {
            let after = Lsn(of_job[from].0);
            let told = all(history.follow(job, first, after, last).unwrap(), 2);
            assert_eq!(told, of_job[from + 1..]);
        }
    }
    assert_eq!(count, seen.len());
}

#[test]
fn what_is_told_of_all_jobs_is_what_was_shown_from_any_entry_on() {
    let (mut node, jobs, seen) = lived();
    let history = history(&mut node);
    let first: BTreeMap<_, _> = jobs
        .iter()
        .map(|&job| (job, node.view(job).first_lsn.unwrap()))
        .collect();
    let through = jobs
        .iter()
        .filter_map(|&job| node.view(job).last_lsn)
        .max()
        .unwrap();
    assert!(
        seen.windows(2).all(|two| two[0].0 < two[1].0),
        "one entry shows once, in order"
    );
    for after in 0..=through.0 {
        let first = first.clone();
        let follower = history
            .follow_all(Lsn(after), through, move |job| first.get(&job).copied())
            .unwrap();
        let expected: Vec<_> = seen
            .iter()
            .filter(|(lsn, ..)| *lsn > after)
            .cloned()
            .collect();
        assert_eq!(all(follower, 7), expected, "after {after}");
    }
    // A page that ends anywhere, and goes on from what it had last, gives the same.
    let mut told = Vec::new();
    loop {
        let after = told.last().map_or(0, |(lsn, ..): &Fact| *lsn);
        let first = first.clone();
        let mut follower = history
            .follow_all(Lsn(after), through, move |job| first.get(&job).copied())
            .unwrap();
        let page = follower.next_page(3).unwrap();
        if page.is_empty() {
            break;
        }
        told.extend(
            page.into_iter()
                .map(|told| fact(told.lsn.0, told.job, told.kind)),
        );
    }
    assert_eq!(told, seen);
}

#[test]
fn an_artifact_is_kept_whole_and_shown_cut() {
    const BYTES: usize = 200_000;
    let text = |kind: &EventKind| match kind {
        EventKind::Artifact {
            part: Part::Text { text },
            ..
        } => Some(text.len()),
        _ => None,
    };
    let programs = Programs::new().with(program("large", |context, _| async move {
        context.emit(EventKind::Artifact {
            name: "report".to_owned(),
            media_type: "text/plain".to_owned(),
            part: Part::Text {
                text: "x".repeat(BYTES),
            },
            index: 0,
            last: true,
            append: false,
        });
        Ok(Json::null())
    }));
    let mut node = Node::new(programs, World::by_hand());
    let job = node.run("large");
    let live = shown(&mut node);
    let shown_bytes = live.iter().find_map(|(_, _, kind)| text(kind)).unwrap();
    assert!(shown_bytes < BYTES, "the activity log keeps {shown_bytes}");
    let history = history(&mut node);
    let kept = history.emitted(job, Lsn::FIRST, Lsn(u64::MAX)).unwrap();
    assert_eq!(kept.iter().find_map(text), Some(BYTES));
    let follower = history
        .follow(job, Lsn::FIRST, Lsn::ZERO, Lsn(u64::MAX))
        .unwrap();
    assert_eq!(all(follower, 10), live);
}

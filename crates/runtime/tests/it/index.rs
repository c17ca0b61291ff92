//! What is known of jobs: views, lists, and what is forgotten in the end.

use std::time::Duration;

use runtime::EffectClass::Keyed;
use runtime::{JobFilter, JobId, JobSpec, JobState, Json, Limits, Programs};

use crate::support::node::now_or_never;
use crate::support::{Behaviour, Node, Setup, World, failed, program, step};

fn programs() -> Programs {
    Programs::new()
        .with(program("echo", |_, input| async move { Ok(input) }))
        .with(program("work", |context, _| async move {
            step(&context, "work", Keyed).await.map_err(failed)
        }))
}

#[test]
fn lists_are_newest_first_filtered_and_in_pages() {
    let mut node = Node::new(programs(), World::by_hand());
    let mut jobs = Vec::new();
    for number in 0..10 {
        node.advance(Duration::from_millis(1));
        let name = if number % 2 == 0 { "echo" } else { "work" };
        let mut spec = JobSpec::new(name, Json::null()).named(format!("n{}", number % 3));
        spec.labels.insert("parity".to_owned(), name.to_owned());
        jobs.push(node.run_spec(spec));
    }
    jobs.reverse();
    let ids = |page: runtime::Page| page.jobs.iter().map(|view| view.id).collect::<Vec<_>>();
    for _ in 0..2 {
        assert_eq!(ids(node.list(JobFilter::default())), jobs);
        let mut paged: Vec<JobId> = Vec::new();
        loop {
            let page = node.list(JobFilter {
                before: paged.last().copied(),
                limit: 3,
                ..JobFilter::default()
            });
            let more = page.more;
            paged.extend(ids(page));
            if !more {
                break;
            }
        }
        assert_eq!(paged, jobs);
        let running = node.list(JobFilter {
            states: vec![JobState::Running, JobState::Stuck],
            ..JobFilter::default()
        });
        assert_eq!(running.jobs.len(), 5);
        let named = node.list(JobFilter {
            name: Some("n1".to_owned()),
            labels: [("parity".to_owned(), "echo".to_owned())].into(),
            ..JobFilter::default()
        });
        assert_eq!(ids(named), [jobs[5]]);
        node.restart();
    }
}

#[test]
fn a_view_shows_what_a_job_is_at() {
    let mut node = Node::new(programs(), World::by_hand());
    let job = node.run("work");
    let view = node.view(job);
    assert_eq!(view.state, JobState::Running);
    assert_eq!(view.steps.len(), 1);
    assert_eq!(
        (view.steps[0].label.as_str(), view.steps[0].status.as_str()),
        ("work", "running")
    );
    assert_eq!(node.find(JobId::from_parts(1, 1)), None);
    let dump = node.dump().to_string();
    for part in [
        "epoch 1",
        "1 live jobs",
        "step 0 `work` work running, attempt 1 of 1",
    ] {
        assert!(dump.contains(part), "{dump}");
    }
}

#[test]
fn the_jobs_that_ended_first_are_forgotten_beyond_the_limit() {
    let setup = Setup {
        limits: Limits {
            finished_jobs: 3,
            ..Limits::default()
        },
        ..Setup::default()
    };
    let mut node = Node::with(setup, programs(), World::by_hand());
    let jobs: Vec<_> = (0..5).map(|_| node.run("echo")).collect();
    for _ in 0..2 {
        assert_eq!(node.find(jobs[1]), None);
        assert!(node.find(jobs[2]).is_some());
        assert_eq!(node.list(JobFilter::default()).jobs.len(), 3);
        node.restart();
    }
}

fn small_segments(retention: Duration) -> Setup {
    Setup {
        segment_bytes: 8 << 10,
        retention,
        threshold_bytes: 512,
        ..Setup::default()
    }
}

/// Fills some segments.
fn fill(node: &mut Node) {
    for _ in 0..30 {
        for _ in 0..20 {
            let _answer = node.submit(JobSpec::new("echo", Json::of(&"x".repeat(100))));
        }
        node.settle();
    }
}

/// Lets the engine look after its log: what may go goes with the second look.
fn keep_house(node: &mut Node) {
    for _ in 0..2 {
        node.advance(Duration::from_secs(30));
    }
}

#[test]
fn finished_jobs_go_with_their_segments_once_their_time_is_over_and_not_before() {
    let retention = Duration::from_secs(600);
    let mut node = Node::with(small_segments(retention), programs(), World::by_hand());
    let large = Json::of(&"blob".repeat(500));
    let job = node.run_spec(JobSpec::new("echo", large).keyed("k"));
    let files = || node_files(&node);
    let before = files();
    assert!(before.iter().any(|file| file.starts_with("/blobs")));
    fill(&mut node);
    node.advance(Duration::from_secs(400));
    keep_house(&mut node);
    assert!(node.find(job).is_some());
    assert!(node_files(&node).is_superset(&before));
    node.advance(Duration::from_secs(100));
    keep_house(&mut node);
    assert!(
        !node_files(&node)
            .iter()
            .any(|file| file.starts_with("/blobs")),
        "its blob is gone with it"
    );
    for _ in 0..2 {
        assert_eq!(node.find(job), None);
        node.restart();
    }
    // Its key is free again.
    let again = node.submit(JobSpec::new("work", Json::null()).keyed("k"));
    node.settle();
    assert!(now_or_never(again).unwrap().unwrap().is_new);
}

fn node_files(node: &Node) -> std::collections::BTreeSet<String> {
    node.disk
        .files()
        .into_iter()
        .map(|path| path.display().to_string())
        .filter(|path| !path.contains("LOCK") && !path.contains("spare"))
        .collect()
}

#[test]
fn a_live_job_keeps_the_log_from_its_beginning() {
    let mut node = Node::with(
        small_segments(Duration::from_secs(1)),
        programs(),
        World::by_hand(),
    );
    let job = node.run("work");
    fill(&mut node);
    node.advance(Duration::from_secs(1000));
    keep_house(&mut node);
    assert_eq!(node.records()[0].0.0, 1);
    node.restart();
    node.world.complete("work", Ok(Json::null()));
    node.settle();
    node.assert_replays(job);
    node.advance(Duration::from_secs(1000));
    keep_house(&mut node);
    assert!(node.records()[0].0.0 > 1, "now it may go");
}

#[test]
fn a_job_is_whole_as_long_as_it_is_known_however_long_it_took() {
    let retention = Duration::from_secs(600);
    let mut node = Node::with(small_segments(retention), programs(), World::by_hand());
    let job = node.run_spec(JobSpec::new("work", Json::null()).keyed("k"));
    // It begins in a segment that is old by the time it ends.
    fill(&mut node);
    node.advance(Duration::from_secs(10_000));
    node.world.complete("work", Ok(Json::null()));
    node.settle();
    fill(&mut node);
    node.advance(Duration::from_secs(300));
    keep_house(&mut node);
    for _ in 0..2 {
        node.assert_replays(job);
        let again = node.submit(JobSpec::new("work", Json::null()).keyed("k"));
        node.settle();
        assert_eq!(now_or_never(again).unwrap().unwrap().job, job);
        node.restart();
    }
}

#[test]
fn a_log_whose_oldest_segments_are_gone_is_recovered_from() {
    let mut node = Node::with(small_segments(Duration::ZERO), programs(), World::by_hand());
    let world = node.world.clone();
    world.behave(|_| Behaviour::Answer(Ok(Json::null())));
    for _ in 0..3 {
        fill(&mut node);
        node.run("work");
        keep_house(&mut node);
        assert!(
            !node.node_story()[0].contains("Started"),
            "that one is gone"
        );
        node.restart();
    }
    assert_eq!(node.dump().epoch, 4);
}

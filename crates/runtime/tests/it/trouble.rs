//! Trouble with the disk: no space, a failed sync, blobs that are gone, logs that are not what they should be.

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use runtime::EffectClass::Keyed;
use runtime::entry::{Entry, NodeEntry, Record, SCHEMA};
use runtime::{
    JobSpec, JobState, Json, LogState, Programs, RecoverError, Stopped, Stored, SubmitError,
};
use wal::sim::Op;
use wal::{AppendError, Batch, Log, OpenError, Options, WriterEvent};

use crate::support::node::now_or_never;
use crate::support::{Behaviour, Node, Setup, World, failed, program, step};

fn programs() -> Programs {
    Programs::new().with(program("two", |context, input| async move {
        let first = step(&context, "first", Keyed).await.map_err(failed)?;
        step(&context, "second", Keyed).await.map_err(failed)?;
        Ok(Json::of(&(input, first)))
    }))
}

fn failure() -> wal::Failure {
    wal::Failure {
        action: "write to",
        path: "/log/1".into(),
        source: Arc::new(ErrorKind::StorageFull.into()),
    }
}

#[test]
fn without_space_nothing_new_is_taken_in_and_what_runs_goes_on() {
    for event in [
        WriterEvent::SpaceLow(true),
        WriterEvent::Stalled { reason: failure() },
    ] {
        let is_stalled = matches!(event, WriterEvent::Stalled { .. });
        let mut node = Node::new(programs(), World::by_hand());
        let job = node.run_spec(JobSpec::new("two", Json::null()).keyed("k"));
        node.log_says(event);
        let refused = node.submit(JobSpec::new("two", Json::null()));
        let known = node.submit(JobSpec::new("two", Json::null()).keyed("k"));
        node.settle();
        assert_eq!(now_or_never(refused).unwrap(), Err(SubmitError::NoSpace));
        assert!(now_or_never(known).unwrap().is_ok());
        match node.log_state() {
            LogState::Stalled { reason } => assert!(is_stalled && reason.contains("/log/1")),
            LogState::SpaceLow => assert!(!is_stalled),
            other => panic!("{other:?}"),
        }
        node.world.complete("first", Ok(Json::null()));
        node.settle();
        assert_eq!(node.world.running(), ["second"]);
        node.log_says(if is_stalled {
            WriterEvent::Resumed
        } else {
            WriterEvent::SpaceLow(false)
        });
        node.settle();
        assert_eq!(node.log_state(), LogState::Ok);
        node.run("two");
        assert_eq!(node.state(job), JobState::Running);
    }
}

#[test]
fn a_node_without_space_stops_when_its_time_is_over() {
    let mut node = Node::new(programs(), World::by_hand());
    node.settle();
    node.log_says(WriterEvent::Stalled { reason: failure() });
    node.shutdown(Duration::from_secs(1), Duration::from_secs(2));
    node.turn();
    node.turn();
    assert!(node.stopped().is_none());
    node.disk.advance(Duration::from_secs(2));
    node.turn();
    assert!(
        matches!(node.stopped(), Some(Stopped::OutOfSpace(_))),
        "there may never be space for its last entry, and without it this is no clean end"
    );
}

#[test]
fn after_a_failed_sync_nothing_is_acknowledged_and_nothing_starts() {
    let mut node = Node::new(programs(), World::by_hand());
    node.run("two");
    node.world.complete("first", Ok(Json::null()));
    node.turn();
    let answer = node.submit(JobSpec::new("two", Json::null()));
    let events = node.take_events().len();
    node.disk.fail(Op::Sync, 1, ErrorKind::Other);
    let Err(AppendError::Failed(failure)) = node.write() else {
        panic!("the sync fails");
    };
    node.log_says(WriterEvent::Failed(failure));
    let later = node.submit(JobSpec::new("two", Json::null()));
    node.turn();
    assert!(matches!(node.stopped(), Some(Stopped::LogFailed(_))));
    assert!(matches!(node.log_state(), LogState::Failed { .. }));
    assert_eq!(now_or_never(later).unwrap(), Err(SubmitError::Stopping));
    node.crash();
    assert!(now_or_never(answer).is_none());
    assert_eq!(node.world.starts_of("second").len(), 0);
    assert_eq!(
        node.take_events().len(),
        0,
        "nothing was shown after {events}"
    );
    node.start();
    node.settle();
    assert_eq!(node.list(Default::default()).jobs.len(), 1);
}

/// Larger than the threshold of blobs.
fn large(text: &str) -> Json {
    Json::of(&text.repeat(1_000))
}

#[test]
fn large_payloads_are_blobs_and_are_there_before_the_entry_that_names_them() {
    let world = World::new(|_| Behaviour::Answer(Ok(large("output"))));
    let mut node = Node::new(programs(), world);
    let job = node.run_spec(JobSpec::new("two", large("input")));
    node.restart();
    assert_eq!(node.state(job), JobState::Completed);
    node.assert_replays(job);
    let mut named = 0;
    for entry in node.journal(job) {
        entry.visit_blobs(|id| {
            named += 1;
            let path = wal::BlobStore::open("/blobs", Arc::new(node.disk.clone()))
                .unwrap()
                .path_of(wal::BlobId(id));
            assert!(node.disk.read_file(path).is_some());
        });
    }
    // The input, two results, and the output made of the first two.
    assert_eq!(named, 4);
    let bytes: usize = node.records().iter().map(|(_, record)| record.len()).sum();
    assert!(bytes < 2_000, "the log stays small: {bytes} bytes");
}

#[test]
fn how_large_is_large_may_change_between_two_lives() {
    for thresholds in [[10, 10_000], [10_000, 10]] {
        let medium = || Json::of(&"medium ".repeat(50));
        let programs = Programs::new().with(program("p", move |context, _| async move {
            let request = runtime::EffectRequest::new("work", medium());
            let policy = runtime::EffectPolicy::of_class(Keyed);
            let _ = context.effect(request.policy(policy)).await;
            context.emit(pal::EventKind::Message {
                step: None,
                text: "medium ".repeat(50),
            });
            step(&context, "last", Keyed).await.map_err(failed)?;
            Ok(medium())
        }));
        let setup = |threshold_bytes| Setup {
            threshold_bytes,
            ..Setup::default()
        };
        let mut node = Node::with(setup(thresholds[0]), programs, World::by_hand());
        let job = node.run("p");
        node.world.complete("work", Ok(medium()));
        node.settle();
        node.setup = setup(thresholds[1]);
        node.restart();
        assert_eq!(node.state(job), JobState::Running);
        node.world.complete("last", Ok(medium()));
        node.settle();
        for threshold in thresholds {
            node.setup = setup(threshold);
            node.assert_replays(job);
        }
    }
}

#[test]
fn blobs_that_a_crash_left_without_a_name_are_removed_and_no_others() {
    let mut node = Node::new(programs(), World::by_hand());
    let job = node.run_spec(JobSpec::new("two", large("input")));
    let mut lost = node.world.steal("first");
    lost.attach(b"beside a result that never was").unwrap();
    node.kill();
    drop(lost);
    node.start();
    node.settle();
    let blobs = wal::BlobStore::open("/blobs", Arc::new(node.disk.clone())).unwrap();
    assert_eq!(blobs.list().unwrap().len(), 2);
    node.send(runtime::engine::Input::StoredBlobs(blobs.list().unwrap()));
    node.settle();
    assert_eq!(blobs.list().unwrap().len(), 1);
    node.world.complete("first", Ok(Json::null()));
    node.settle();
    node.world.complete("second", Ok(Json::null()));
    node.settle();
    node.assert_replays(job);
}

#[test]
fn endless_words_are_cut_before_they_are_entries() {
    let endless = "e".repeat(10 << 20);
    let error = runtime::EffectError::permanent("broken", endless.clone());
    let world = World::new(move |_| Behaviour::Answer(Err(error.clone())));
    let programs = programs().with(program("talker", move |_, _| {
        let words = endless.clone();
        async move { Err(runtime::Failure::new("too_much", words)) }
    }));
    let mut node = Node::new(programs, world);
    for name in ["two", "talker"] {
        let job = node.run(name);
        let error = node.view(job).error.unwrap();
        assert!(
            error.len() < 70_000 && error.contains("bytes cut]"),
            "{}",
            error.len()
        );
        node.assert_replays(job);
    }
}

fn blob_of(
    node: &Node,
    job: runtime::JobId,
    of: impl Fn(&Entry) -> Option<Stored>,
) -> std::path::PathBuf {
    let stored = node.journal(job).iter().find_map(of).unwrap();
    wal::BlobStore::open("/blobs", Arc::new(node.disk.clone()))
        .unwrap()
        .path_of(stored.blob().expect("it is large"))
}

#[test]
fn a_job_whose_blob_is_gone_or_damaged_is_stuck_until_it_is_back() {
    let input = |entry: &Entry| match entry {
        Entry::Submitted { spec, .. } => Some(spec.input.clone()),
        _ => None,
    };
    let output = |entry: &Entry| match entry {
        Entry::Completed {
            outcome: runtime::entry::Outcome::Ok { output, .. },
            ..
        } => Some(output.clone()),
        _ => None,
    };
    for (number, which) in [&input as &dyn Fn(&Entry) -> Option<Stored>, &output]
        .into_iter()
        .enumerate()
    {
        let mut node = Node::new(programs(), World::by_hand());
        let job = node.run_spec(JobSpec::new("two", large("input")));
        node.world.complete("first", Ok(large("output")));
        node.settle();
        let path = blob_of(&node, job, which);
        let bytes = node.disk.read_file(&path).unwrap();
        node.crash();
        node.disk.flip_bit(&path, 8);
        node.start();
        node.settle();
        let view = node.view(job);
        assert_eq!(view.state, JobState::Stuck, "{number}");
        assert!(view.error.unwrap().contains("damaged"));
        assert!(
            node.replay(job)
                .unwrap_err()
                .to_string()
                .contains("damaged")
        );
        node.crash();
        wal::Storage::remove(&node.disk, &path).unwrap();
        node.start();
        node.settle();
        assert!(node.view(job).error.unwrap().contains("there is no blob"));
        node.crash();
        node.disk.write_file(&path, &bytes);
        node.start();
        node.settle();
        assert_eq!(node.state(job), JobState::Running);
        node.world.complete("second", Ok(Json::null()));
        node.settle();
        node.assert_replays(job);
    }
}

fn log_of(records: &[Vec<u8>]) -> Node {
    let mut node = Node::new(programs(), World::by_hand());
    node.settle();
    node.kill();
    let options = Options {
        segment_bytes: Setup::default().segment_bytes,
        ..Options::new("/log")
    };
    let (mut log, _) = Log::open(options, Arc::new(node.disk.clone()), wal::ignore).unwrap();
    let mut batch = Batch::new();
    for record in records {
        batch.push(record);
    }
    log.append(&[&batch]).unwrap();
    node
}

#[test]
fn a_record_of_a_later_schema_stops_the_boot_and_names_its_place() {
    let mut node = log_of(&[vec![SCHEMA + 1, 0, 0]]);
    match node.try_start() {
        Err(OpenError::Visitor { lsn, source }) => {
            assert_eq!(lsn.0, 2);
            assert!(source.to_string().contains("LSN 2"));
            let RecoverError::Decode { source, .. } = source else {
                panic!("{source}");
            };
            assert_eq!(
                source.to_string(),
                "record has schema version 2, and this build reads up to 1"
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_entry_of_a_job_that_was_never_submitted_stops_the_boot() {
    let job = runtime::JobId::from_parts(1, 2);
    let entry = Entry::Queued {
        step: runtime::StepIndex(0),
    };
    let mut node = log_of(&[
        Record::Node(NodeEntry::Stopped { at_ms: 1 }).encode(),
        Record::Job(job, entry).encode(),
    ]);
    let Err(OpenError::Visitor { source, .. }) = node.try_start() else {
        panic!("the boot stops");
    };
    assert!(
        source.to_string().contains("step 0: queued")
            && source.to_string().contains("no beginning"),
        "{source}"
    );
}

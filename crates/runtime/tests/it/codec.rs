//! The encoding of entries: everything comes back as it was written, and what schema 1 wrote stays readable.
//!
//! `golden/entries-v1.txt` has one record of each kind, as name and bytes. `TINKERBELL_WRITE_GOLDEN=1` writes it anew, which
//! is right only before a release has written logs of this schema.

use std::time::Duration;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use runtime::entry::{
    Checkpoint, DecodeError, Ending, Entry, JournalHash, NodeEntry, Outcome, Record, StoredSpec,
};
use runtime::{
    Attempt, EffectClass, EffectError, EffectPolicy, JobId, JobPriority, JobSpec, Json, StepIndex,
    Stored,
};

use crate::support::world::{from_hex, hex};

fn stored() -> impl Strategy<Value = Stored> {
    prop_oneof![
        "\\PC{0,40}".prop_map(Stored::Inline),
        (any::<[u8; 32]>(), any::<u64>()).prop_map(|(id, len)| Stored::Blob { id, len }),
    ]
}

fn error() -> impl Strategy<Value = EffectError> {
    (
        "[a-z_]{1,12}",
        "\\PC{0,40}",
        any::<bool>(),
        option::of(any::<u32>()),
    )
        .prop_map(|(code, message, retryable, wait)| EffectError {
            retryable,
            retry_after: wait.map(|ms| Duration::from_millis(ms.into())),
            ..EffectError::permanent(code, message)
        })
}

fn policy() -> impl Strategy<Value = EffectPolicy> {
    let class = prop_oneof![
        Just(EffectClass::Read),
        Just(EffectClass::Workspace),
        Just(EffectClass::Keyed),
        Just(EffectClass::External),
    ];
    let wait = any::<u32>().prop_map(|ms| Duration::from_millis(ms.into()));
    (
        class,
        any::<u32>(),
        wait.clone(),
        any::<u32>(),
        option::of(wait),
        vec("[a-z]{1,9}", 0..3),
    )
        .prop_map(
            |(class, attempts, backoff, growth, timeout, retry_on)| EffectPolicy {
                class,
                attempts,
                backoff,
                backoff_growth_percent: growth,
                backoff_max: backoff,
                timeout,
                retry_on,
            },
        )
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        (stored(), vec(any::<[u8; 32]>(), 0..3)).prop_map(|(output, attachments)| Outcome::Ok {
            output,
            attachments
        }),
        (error(), option::of(stored()), vec(any::<[u8; 32]>(), 0..3)).prop_map(
            |(error, output, attachments)| Outcome::Failed {
                error,
                output,
                attachments
            }
        ),
        Just(Outcome::Interrupted),
    ]
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        stored().prop_map(|output| Ending::Completed { output }),
        ("[a-z]{1,9}", "\\PC{0,40}", option::of(stored())).prop_map(|(code, message, output)| {
            Ending::Failed {
                code,
                message,
                output,
            }
        }),
        "\\PC{0,40}".prop_map(|reason| Ending::Cancelled { reason }),
    ]
}

fn spec() -> impl Strategy<Value = StoredSpec> {
    let words = || option::of("\\PC{0,20}");
    (
        "[a-z]{1,9}",
        any::<u32>(),
        stored(),
        words(),
        words(),
        vec(("[a-z]{1,9}", "\\PC{0,9}"), 0..3),
    )
        .prop_map(
            |(program, program_version, input, name, key, labels)| StoredSpec {
                fingerprint: JobSpec::new(&program, Json::null()).fingerprint(),
                program,
                program_version,
                input,
                name,
                key,
                labels,
                priority: JobPriority::Low,
            },
        )
}

fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    (
        stored(),
        any::<u32>(),
        any::<u64>(),
        vec(("[a-z]{1,9}", any::<u32>()), 0..3),
        vec(("[a-z]{1,9}", stored()), 0..3),
        any::<u64>(),
    )
        .prop_map(
            |(state, step, random_drawn, versions, signals, now_ms)| Checkpoint {
                state,
                next_step: StepIndex(step),
                random_drawn,
                versions,
                signals,
                now_ms,
            },
        )
}

fn entry() -> impl Strategy<Value = Entry> {
    let step = || any::<u32>().prop_map(StepIndex);
    let attempt = || any::<u32>().prop_map(Attempt);
    let ms = any::<u64>;
    prop_oneof![
        (ms(), spec()).prop_map(|(at_ms, spec)| Entry::Submitted { at_ms, spec }),
        (
            step(),
            "\\PC{0,9}",
            "\\PC{0,9}",
            option::of("\\PC{0,9}"),
            policy(),
            stored()
        )
            .prop_map(
                |(step, kind, label, title, policy, input)| Entry::Requested {
                    step,
                    kind,
                    label,
                    title,
                    policy,
                    input
                }
            ),
        step().prop_map(|step| Entry::Queued { step }),
        (step(), attempt()).prop_map(|(step, attempt)| Entry::Starting { step, attempt }),
        (step(), attempt(), ms(), error(), option::of(stored()), ms()).prop_map(
            |(step, attempt, at_ms, error, output, next_at_ms)| Entry::AttemptFailed {
                step,
                attempt,
                at_ms,
                error,
                output,
                next_at_ms
            }
        ),
        (step(), attempt(), ms(), outcome()).prop_map(|(step, attempt, at_ms, outcome)| {
            Entry::Completed {
                step,
                attempt,
                at_ms,
                outcome,
            }
        }),
        step().prop_map(|step| Entry::Abandoned { step }),
        (step(), ms()).prop_map(|(step, at_ms)| Entry::TimerFired { step, at_ms }),
        ("\\PC{0,9}", ms(), stored()).prop_map(|(name, at_ms, payload)| Entry::Signalled {
            name,
            at_ms,
            payload
        }),
        ("\\PC{0,9}", any::<u32>())
            .prop_map(|(change, version)| Entry::Version { change, version }),
        stored().prop_map(|event| Entry::Emitted { event }),
        checkpoint().prop_map(|checkpoint| Entry::Checkpoint(Box::new(checkpoint))),
        (ms(), "\\PC{0,40}").prop_map(|(at_ms, reason)| Entry::CancelRequested { at_ms, reason }),
        (ms(), ending(), vec(any::<u8>(), 0..9)).prop_map(|(at_ms, ending, bytes)| {
            Entry::Finished {
                at_ms,
                ending,
                journal: JournalHash::default().then(&bytes),
            }
        }),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    let node = prop_oneof![
        (any::<u64>(), any::<u64>(), "\\PC{0,20}").prop_map(|(epoch, at_ms, version)| {
            NodeEntry::Started {
                epoch,
                at_ms,
                version,
            }
        }),
        any::<u64>().prop_map(|at_ms| NodeEntry::Stopped { at_ms }),
        any::<u64>().prop_map(|epoch| NodeEntry::Continued { epoch }),
    ];
    prop_oneof![
        1 => node.prop_map(Record::Node),
        9 => (any::<u64>(), any::<u128>(), entry())
            .prop_map(|(ms, entropy, entry)| Record::Job(JobId::from_parts(ms, entropy), entry)),
    ]
}

proptest! {
    #[test]
    fn every_record_comes_back_as_it_was_written(record in record()) {
        let bytes = record.encode();
        prop_assert_eq!(Record::decode(&bytes).unwrap(), record);
    }

    #[test]
    fn a_record_that_is_cut_off_or_goes_on_is_refused(record in record(), cut in any::<prop::sample::Index>()) {
        let mut bytes = record.encode();
        let kept = cut.index(bytes.len());
        prop_assert!(Record::decode(&bytes[..kept]).is_err());
        bytes.push(0);
        prop_assert!(Record::decode(&bytes).is_err());
    }

    #[test]
    fn bytes_that_are_no_record_are_refused_and_break_nothing(bytes in vec(any::<u8>(), 0..200)) {
        let _ = Record::decode(&bytes);
    }
}

#[test]
fn what_cannot_be_read_says_why() {
    assert_eq!(Record::decode(&[]), Err(DecodeError::Empty));
    assert_eq!(
        Record::decode(&[9, 0]),
        Err(DecodeError::NewerSchema { found: 9 })
    );
    assert_eq!(
        Record::decode(&[1, 200])
            .unwrap_err()
            .to_string()
            .split(':')
            .next(),
        Some("record is no entry of schema version 1")
    );
}

/// A name for each kind of record. Without a wildcard, so that a new kind asks for its golden bytes.
fn name_of(record: &Record) -> &'static str {
    match record {
        Record::Node(NodeEntry::Started { .. }) => "node-started",
        Record::Node(NodeEntry::Stopped { .. }) => "node-stopped",
        Record::Node(NodeEntry::Continued { .. }) => "node-continued",
        Record::Job(_, entry) => match entry {
            Entry::Submitted { .. } => "submitted",
            Entry::Requested { .. } => "requested",
            Entry::Queued { .. } => "queued",
            Entry::Starting { .. } => "starting",
            Entry::AttemptFailed { .. } => "attempt-failed",
            Entry::Completed { outcome, .. } => match outcome {
                Outcome::Ok { .. } => "completed-ok",
                Outcome::Failed { .. } => "completed-failed",
                Outcome::Interrupted => "completed-interrupted",
            },
            Entry::Abandoned { .. } => "abandoned",
            Entry::TimerFired { .. } => "timer-fired",
            Entry::Signalled { .. } => "signalled",
            Entry::Version { .. } => "version",
            Entry::Emitted { .. } => "emitted",
            Entry::Checkpoint(_) => "checkpoint",
            Entry::CancelRequested { .. } => "cancel-requested",
            Entry::Finished { ending, .. } => match ending {
                Ending::Completed { .. } => "finished-completed",
                Ending::Failed { .. } => "finished-failed",
                Ending::Cancelled { .. } => "finished-cancelled",
            },
        },
    }
}

fn one_of_each() -> Vec<Record> {
    let at_ms = 1_735_689_600_000;
    let step = StepIndex(7);
    let attempt = Attempt(2);
    let text = |text: &str| Stored::Inline(text.to_owned());
    let blob = Stored::Blob {
        id: std::array::from_fn(|byte| byte as u8),
        len: 100_000,
    };
    let error = EffectError {
        retry_after: Some(Duration::from_millis(1_500)),
        ..EffectError::transient("exit_status", "exited with 1")
    };
    let policy = EffectPolicy {
        class: EffectClass::Workspace,
        attempts: 3,
        backoff: Duration::from_millis(250),
        backoff_growth_percent: 150,
        backoff_max: Duration::from_secs(30),
        timeout: Some(Duration::from_secs(60)),
        retry_on: vec!["exit_status".to_owned()],
    };
    let spec = StoredSpec {
        program: "plan".to_owned(),
        program_version: 1,
        input: text("{\"steps\":[]}"),
        name: Some("nightly".to_owned()),
        key: Some("nightly-1".to_owned()),
        labels: vec![("team".to_owned(), "tea".to_owned())],
        priority: JobPriority::High,
        fingerprint: JobSpec::new("plan", Json::null()).fingerprint(),
    };
    let finished = |ending| Entry::Finished {
        at_ms,
        ending,
        journal: JournalHash::default().then(b"journal"),
    };
    let completed = |outcome| Entry::Completed {
        step,
        attempt,
        at_ms,
        outcome,
    };
    let job = JobId::from_parts(at_ms, 0x0123_4567_89ab_cdef);
    let entries = [
        Entry::Submitted { at_ms, spec },
        Entry::Requested {
            step,
            kind: "process.run".to_owned(),
            label: "build".to_owned(),
            title: Some("Builds it".to_owned()),
            policy,
            input: blob.clone(),
        },
        Entry::Queued { step },
        Entry::Starting { step, attempt },
        Entry::AttemptFailed {
            step,
            attempt,
            at_ms,
            error: error.clone(),
            output: Some(text("null")),
            next_at_ms: at_ms + 250,
        },
        completed(Outcome::Ok {
            output: text("{\"exit_code\":0}"),
            attachments: vec![[7; 32]],
        }),
        completed(Outcome::Failed {
            error,
            output: Some(blob.clone()),
            attachments: vec![],
        }),
        completed(Outcome::Interrupted),
        Entry::Abandoned { step },
        Entry::TimerFired { step, at_ms },
        Entry::Signalled {
            name: "approve".to_owned(),
            at_ms,
            payload: text("true"),
        },
        Entry::Version {
            change: "polite".to_owned(),
            version: 2,
        },
        Entry::Emitted {
            event: text("{\"type\":\"job_started\"}"),
        },
        Entry::Checkpoint(Box::new(Checkpoint {
            state: text("{\"round\":3}"),
            next_step: step,
            random_drawn: 5,
            versions: vec![("polite".to_owned(), 2)],
            signals: vec![("stop".to_owned(), text("1"))],
            now_ms: at_ms,
        })),
        Entry::CancelRequested {
            at_ms,
            reason: "not wanted".to_owned(),
        },
        finished(Ending::Completed { output: blob }),
        finished(Ending::Failed {
            code: "step_failed".to_owned(),
            message: "step `build` failed".to_owned(),
            output: Some(text("null")),
        }),
        finished(Ending::Cancelled {
            reason: "not wanted".to_owned(),
        }),
    ];
    let node = [
        NodeEntry::Started {
            epoch: 3,
            at_ms,
            version: "0.1.0".to_owned(),
        },
        NodeEntry::Stopped { at_ms },
        NodeEntry::Continued { epoch: 3 },
    ];
    let node = node.into_iter().map(Record::Node);
    node.chain(entries.into_iter().map(|entry| Record::Job(job, entry)))
        .collect()
}

#[test]
fn what_schema_1_wrote_is_read_and_written_the_same() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/entries-v1.txt");
    let records = one_of_each();
    if std::env::var_os("TINKERBELL_WRITE_GOLDEN").is_some() {
        let lines = records
            .iter()
            .map(|record| format!("{} {}\n", name_of(record), hex(&record.encode())));
        std::fs::write(path, lines.collect::<String>()).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    let golden: Vec<_> = golden
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .collect();
    assert_eq!(golden.len(), records.len());
    for ((name, bytes), record) in golden.into_iter().zip(records) {
        assert_eq!(name, name_of(&record));
        let bytes = from_hex(bytes);
        assert_eq!(Record::decode(&bytes).as_ref(), Ok(&record), "{name}");
        assert_eq!(record.encode(), bytes, "{name}");
    }
}

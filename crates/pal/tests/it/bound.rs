//! Nothing on the stream is longer than its limit, whatever the publisher hands in.

use pal::bound::{
    DATA_MAX_BYTES, LIST_MAX, MESSAGE_MAX_BYTES, NAME_MAX_BYTES, OUTPUT_MAX_BYTES, TITLE_MAX_CHARS,
};
use pal::{EventKind, Filter, Pal, Part, QuestionKind, StartAt, Stream};
use serde_json::{Value, json};

use crate::samples;

/// A character of three bytes, so that most limits fall inside one.
fn long() -> String {
    "€".repeat(100_000)
}

/// What comes out for what goes in.
fn published(kind: EventKind) -> EventKind {
    let pal = Pal::new(4, usize::MAX);
    let mut reader = pal.subscribe(Filter::all(), StartAt::Now);
    pal.publish(kind, None, 0, None);
    match reader.try_recv() {
        Some(pal::Delivery::Event(event)) => event.kind.clone(),
        other => panic!("an event was published and {other:?} came"),
    }
}

#[test]
fn what_is_within_its_limits_is_not_touched() {
    for event in samples::events() {
        assert_eq!(published(event.kind.clone()), event.kind);
    }
    let text = "x".repeat(MESSAGE_MAX_BYTES);
    let kind = EventKind::Message {
        step: Some("x".repeat(NAME_MAX_BYTES)),
        text,
    };
    assert_eq!(published(kind.clone()), kind);
}

#[test]
fn long_text_is_cut_at_a_character_and_says_how_much_is_gone() {
    let EventKind::Message { text, .. } = published(EventKind::Message {
        step: None,
        text: long(),
    }) else {
        panic!("another kind of event came out");
    };
    let (kept, note) = text.split_once('…').unwrap();
    assert!(text.len() <= MESSAGE_MAX_BYTES && text.len() > MESSAGE_MAX_BYTES - 40);
    assert!(kept.chars().all(|c| c == '€'));
    assert_eq!(note, format!(" [{} bytes cut]", 300_000 - kept.len()));
}

#[test]
fn long_output_counts_as_lost_and_is_not_written_into() {
    let kind = EventKind::StepOutput {
        step: "s".into(),
        stream: Stream::Stdout,
        data: long(),
        lost_bytes: 5,
    };
    let EventKind::StepOutput {
        data, lost_bytes, ..
    } = published(kind)
    else {
        panic!("another kind of event came out");
    };
    assert!(data.len() <= OUTPUT_MAX_BYTES && data.chars().all(|c| c == '€'));
    assert_eq!(lost_bytes, (300_000 - data.len() + 5) as u64);
}

#[test]
fn a_long_title_ends_in_an_ellipsis() {
    let title = |chars: usize| {
        let kind = EventKind::StepStarted {
            step: "s".into(),
            title: Some("é".repeat(chars)),
            kind: "run".into(),
            attempt: 1,
            attempts: 1,
        };
        match published(kind) {
            EventKind::StepStarted {
                title: Some(title), ..
            } => title,
            other => panic!("{other:?} came out"),
        }
    };
    assert_eq!(title(TITLE_MAX_CHARS), "é".repeat(TITLE_MAX_CHARS));
    assert_eq!(
        title(TITLE_MAX_CHARS + 1),
        "é".repeat(TITLE_MAX_CHARS - 1) + "…"
    );
}

#[test]
fn a_long_list_says_how_many_are_gone() {
    let keys = (0..LIST_MAX + 10).map(|n| format!("key.{n}")).collect();
    let kind = EventKind::ConfigReloaded {
        applied: vec![],
        needs_restart: keys,
    };
    let EventKind::ConfigReloaded { needs_restart, .. } = published(kind) else {
        panic!("another kind of event came out");
    };
    assert_eq!(needs_restart.len(), LIST_MAX);
    assert_eq!(needs_restart.last().unwrap(), "… [11 more]");
}

#[test]
fn large_values_are_left_out_and_said_to_be() {
    let large: Value = json!(vec![long()]);
    let kind = EventKind::Artifact {
        name: "a".into(),
        media_type: "application/json".into(),
        part: Part::Data {
            data: large.clone(),
        },
        index: 0,
        last: true,
        append: false,
    };
    assert!(matches!(
        published(kind),
        EventKind::Artifact {
            part: Part::Omitted { bytes: 300_000.. },
            ..
        }
    ));
    let kind = EventKind::Question {
        name: "q".into(),
        step: None,
        prompt: "?".into(),
        kind: QuestionKind::Answer,
        deadline_ms: None,
        default: Some(large),
    };
    let EventKind::Question {
        default: Some(Value::String(text)),
        ..
    } = published(kind)
    else {
        panic!("another kind of event came out");
    };
    assert!(text.ends_with("bytes not shown]"), "{text}");
}

/// Every field of every kind, so that one added later without a limit is found.
#[test]
fn no_field_is_without_a_limit() {
    let most = 2 * (LIST_MAX * (NAME_MAX_BYTES + 24)) + OUTPUT_MAX_BYTES.max(DATA_MAX_BYTES);
    for event in samples::events() {
        let mut json = serde_json::to_value(&event.kind).unwrap();
        lengthen(&mut json);
        let Ok(kind) = serde_json::from_value::<EventKind>(json) else {
            panic!("{} was lengthened where it may not be", event.kind.bytes());
        };
        let bytes = published(kind).bytes();
        assert!(bytes < most, "{bytes} bytes of {:?}", event.kind);
    }
}

/// Makes every free text and list of an event longer than any limit.
fn lengthen(value: &mut Value) {
    const FIXED: [&str; 6] = ["type", "stream", "status", "state", "by", "kind"];
    match value {
        Value::Object(fields) => {
            let free = |key: &str| !FIXED.contains(&key);
            fields
                .iter_mut()
                .filter(|(key, _)| free(key))
                .for_each(|(_, value)| lengthen(value));
        }
        Value::Array(items) => *items = vec![json!("x".repeat(1000)); 10_000],
        Value::String(text) => *text = "x".repeat(1_000_000),
        _ => {}
    }
}

#[test]
fn the_ring_keeps_within_its_bytes() {
    let pal = Pal::new(1_000_000, 1_000_000);
    for _ in 0..100 {
        pal.publish(
            EventKind::Message {
                step: None,
                text: long(),
            },
            None,
            0,
            None,
        );
        assert!(pal.stats().kept_bytes <= 1_000_000);
    }
    assert!(pal.stats().kept_events > 50);

    let tiny = Pal::new(1_000_000, 1);
    for _ in 0..3 {
        tiny.publish(EventKind::Stopped, None, 0, None);
        assert_eq!(tiny.stats().kept_events, 1, "the latest is always kept");
    }
}

//! Events as people see them.

use std::fmt::Write as _;

use pal::render::{self, Style, TimeStyle};
use pal::{Event, EventKind, Stream, neutralise};
use proptest::prelude::*;

use crate::samples;

fn shown(style: &Style) -> String {
    samples::events()
        .iter()
        .fold(String::new(), |mut out, event| {
            writeln!(out, "{}", render::line(event, style)).unwrap();
            out
        })
}

#[test]
fn every_event_has_its_words() {
    insta::assert_snapshot!(shown(&Style::default()));
}

#[test]
fn colours_are_only_added() {
    let style = Style {
        colour: true,
        ..Style::default()
    };
    let coloured = shown(&style);
    insta::assert_snapshot!(coloured.replace('\u{1b}', "^"));

    let mut plain = String::new();
    for (index, rest) in coloured.split('\u{1b}').enumerate() {
        let rest = if index == 0 {
            rest
        } else {
            rest.split_once('m').unwrap().1
        };
        plain.push_str(rest);
    }
    assert_eq!(plain, shown(&Style::default()));
}

#[test]
fn a_console_of_one_job_needs_no_job_column_and_no_time_of_day() {
    let event = &samples::events()[12];
    let style = Style {
        without_job: true,
        time: TimeStyle::Since {
            start_ms: 1_700_000_000_000,
        },
        ..Style::default()
    };
    let line = render::line(event, &style);
    assert_eq!(
        line.to_string(),
        "+3.250s job recovered from 17 journal entries"
    );
    assert_eq!(line.job, None);

    let before = Style {
        time: TimeStyle::Since { start_ms: u64::MAX },
        ..style
    };
    assert_eq!(render::line(event, &before).time, "+0.000s");
}

#[test]
fn missed_events_have_a_line_too() {
    insta::assert_snapshot!(render::lagged(1, &Style::default()), @"… 1 event not shown: they came faster than they could be");
    insta::assert_snapshot!(render::lagged(20, &Style::default()), @"… 20 events not shown: they came faster than they could be");
}

fn output(data: &str) -> Event {
    let kind = EventKind::StepOutput {
        step: "s".into(),
        stream: Stream::Stdout,
        data: data.into(),
        lost_bytes: 0,
    };
    Event {
        seq: 1,
        at_ms: 0,
        lsn: None,
        job: None,
        kind,
    }
}

#[test]
fn raw_output_is_left_alone_when_asked_for() {
    let event = output("\u{1b}[1mbold\u{1b}[0m\n");
    let raw = Style {
        raw_output: true,
        ..Style::default()
    };
    assert_eq!(
        render::line(&event, &raw).text,
        "s │ \u{1b}[1mbold\u{1b}[0m"
    );
    assert_eq!(
        render::line(&event, &Style::default()).text,
        "s │ ␛[1mbold␛[0m"
    );
}

/// Nobody can print a line that looks like one of ours: what follows a newline is indented.
#[test]
fn foreign_text_cannot_forge_a_line() {
    let kind = EventKind::Message {
        step: None,
        text: "hi\n00:00:00.000Z stopped".into(),
    };
    let event = Event {
        seq: 1,
        at_ms: 0,
        lsn: None,
        job: None,
        kind,
    };
    let line = render::line(&event, &Style::default()).to_string();
    assert_eq!(
        line,
        "00:00:00.000Z says hi\n              00:00:00.000Z stopped"
    );
}

#[test]
fn durations_have_three_digits_that_count() {
    let shown = [
        0, 999, 1_000, 9_999, 10_000, 99_999, 123_456, 1_000_000, 9_999_999, 59_999_999,
    ]
    .map(render::duration)
    .join(", ");
    assert_eq!(
        shown,
        "0 µs, 999 µs, 1.00 ms, 9.99 ms, 10.0 ms, 99.9 ms, 123 ms, 1.00 s, 9.99 s, 59.9 s"
    );
    let long = [60_000_000, 3_599_999_999, 3_600_000_000, 360_000_000_000].map(render::duration);
    assert_eq!(long.join(", "), "1m 00s, 59m 59s, 1h 00m, 100h 00m");
}

#[test]
fn what_is_harmless_stays_as_it_is() {
    for text in [
        "",
        "plain",
        "tab\tand\nnewline",
        "naïve 日本語 🧑‍🚀 می‌خواهم",
        "~\u{a0}¡",
    ] {
        assert!(
            matches!(neutralise(text), std::borrow::Cow::Borrowed(same) if same == text),
            "{text}"
        );
    }
}

#[test]
fn what_acts_or_misleads_is_shown() {
    let cases = [
        ("\u{1b}[2J", "␛[2J"),
        ("a\rb", "a␍b"),
        ("\u{7f}\0", "␡␀"),
        ("\u{9b}31m", "\\u{9b}31m"),
        ("\u{202e}evil\u{2066}", "\\u{202e}evil\\u{2066}"),
        ("zero\u{200b}width\u{feff}", "zero\\u{200b}width\\u{feff}"),
        ("line\u{2028}", "line\\u{2028}"),
        ("\u{e0041}", "\\u{e0041}"),
    ];
    for (text, shown) in cases {
        assert_eq!(neutralise(text), shown);
    }
}

/// Text that is likely to have what matters in it.
fn hostile_text() -> impl Strategy<Value = String> {
    let c = prop_oneof![
        any::<char>(),
        prop::char::range('\0', '\u{a0}'),
        prop::char::range('\u{2000}', '\u{206f}'),
        prop::char::range('\u{e0000}', '\u{e007f}'),
    ];
    prop::collection::vec(c, 0..40).prop_map(String::from_iter)
}

proptest! {
    #[test]
    fn no_control_character_survives(text in hostile_text()) {
        let shown = neutralise(&text);
        prop_assert!(shown.chars().all(|c| matches!(c, '\n' | '\t') || !c.is_control()));
        let directional = ['\u{61c}', '\u{200f}', '\u{202a}', '\u{202e}', '\u{2066}', '\u{2069}'];
        prop_assert!(!shown.contains(directional), "{shown:?}");
        prop_assert_eq!(neutralise(&shown).into_owned(), shown.clone().into_owned());
        // What is not touched keeps its order: nothing is dropped.
        let kept: String = text.chars().filter(char::is_ascii_graphic).collect();
        let mut rest = shown.chars();
        prop_assert!(kept.chars().all(|c| rest.any(|other| other == c)));
    }

    /// Through every field that can hold text of others, not only output.
    #[test]
    fn no_line_has_a_control_character(text in hostile_text(), index in 0usize..100) {
        let events = samples::events();
        let event = &events[index % events.len()];
        let mut json = serde_json::to_value(event).unwrap();
        spoil(&mut json, &text);
        let event: Event = serde_json::from_value(json).unwrap();
        let line = render::line(&event, &Style::default()).to_string();
        prop_assert!(line.chars().all(|c| matches!(c, '\n' | '\t') || !c.is_control()), "{:?}", line);
    }
}

/// Puts `text` in every string of an event that is free text.
fn spoil(value: &mut serde_json::Value, text: &str) {
    const FIXED: [&str; 7] = ["type", "stream", "status", "state", "by", "id", "kind"];
    match value {
        serde_json::Value::Object(fields) => {
            let step = fields
                .get("type")
                .is_some_and(|kind| kind == "step_started");
            for (key, value) in fields {
                if !FIXED.contains(&key.as_str()) || (step && key == "kind") {
                    spoil(value, text);
                }
            }
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(|item| spoil(item, text)),
        serde_json::Value::String(string) => string.push_str(text),
        _ => {}
    }
}

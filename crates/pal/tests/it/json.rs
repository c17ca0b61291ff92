//! The JSON of events is an interface: it is written down here, and read back.

use pal::Event;

use crate::samples;

#[test]
fn every_event_is_one_flat_object_that_clients_can_rely_on() {
    let lines: Vec<String> = samples::events()
        .iter()
        .map(|event| serde_json::to_string(event).unwrap())
        .collect();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn what_is_written_is_read_back() {
    for event in samples::events() {
        let text = serde_json::to_string(&event).unwrap();
        assert_eq!(
            serde_json::from_str::<Event>(&text).unwrap(),
            event,
            "{text}"
        );
    }
}

/// A field of a type with the name of an envelope field would be written twice.
#[test]
fn no_object_has_a_key_twice() {
    for event in samples::events() {
        let text = serde_json::to_string(&event).unwrap();
        let keys = serde_json::from_str::<serde_json::Map<_, _>>(&text)
            .unwrap()
            .len();
        // Counted in the text, outside strings and nested values.
        let (mut depth, mut in_string, mut escaped, mut colons) = (0, false, false, 0);
        for c in text.chars() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => in_string = !in_string,
                '{' | '[' if !in_string => depth += 1,
                '}' | ']' if !in_string => depth -= 1,
                ':' if !in_string && depth == 1 => colons += 1,
                _ => {}
            }
        }
        assert_eq!(colons, keys, "{text}");
    }
}

/// A client of an older version must get along with what a newer one adds to an event it knows.
#[test]
fn unknown_fields_are_passed_over() {
    let text = r#"{"seq":1,"at_ms":2,"node":"a","type":"stopped","why":"because"}"#;
    assert_eq!(
        serde_json::from_str::<Event>(text).unwrap().kind,
        pal::EventKind::Stopped
    );
}

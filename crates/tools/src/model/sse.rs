//! Server-sent events, as far as model servers send them (WHATWG HTML, "Server-sent events", section 9.2.6).

/// The largest event, in bytes: more than any server sends, and less than it takes to fill the memory.
const EVENT_MAX: usize = 32 << 20;

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its name; empty if it has none.
    pub name: String,
    /// Its data: the `data` lines, with a line feed between them.
    pub data: String,
}

/// An event that is larger than any that is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sends an event of more than {EVENT_MAX} bytes")]
pub struct TooLarge;

/// Reads events from pieces of a stream, wherever it was cut.
#[derive(Debug, Default)]
pub struct Events {
    /// The line that has not ended.
    line: Vec<u8>,
    /// Whether the last byte was a CR, whose LF may still come.
    after_cr: bool,
    has_begun: bool,
    name: String,
    data: String,
    has_data: bool,
}

impl Events {
    /// Takes in a piece, and gives the events that it completes. What is no UTF-8 is replaced by U+FFFD.
    ///
    /// # Errors
    ///
    /// If an event is too large.
    pub fn push(&mut self, piece: &[u8]) -> Result<Vec<Event>, TooLarge> {
        let mut events = Vec::new();
        for &byte in piece {
            let is_second = std::mem::take(&mut self.after_cr) && byte == b'\n';
            if is_second {
                continue;
            }
            match byte {
                b'\n' | b'\r' => {
                    self.after_cr = byte == b'\r';
                    events.extend(self.end_line());
                }
                _ => self.line.push(byte),
            }
            if self.line.len() + self.data.len() > EVENT_MAX {
                return Err(TooLarge);
            }
        }
        Ok(events)
    }

    /// The event that the stream ends within, if it ends without the empty line that servers leave out there.
    pub fn finish(&mut self) -> Option<Event> {
        if !self.line.is_empty() {
            self.end_line();
        }
        self.end_event()
    }

    fn end_line(&mut self) -> Option<Event> {
        let line = std::mem::take(&mut self.line);
        let mut line = String::from_utf8_lossy(&line).into_owned();
        if !std::mem::replace(&mut self.has_begun, true) && line.starts_with('\u{feff}') {
            line.remove(0);
        }
        if line.is_empty() {
            return self.end_event();
        }
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // A comment, or what only browsers need.
            _ => {}
        }
        None
    }

    fn end_event(&mut self) -> Option<Event> {
        let name = std::mem::take(&mut self.name);
        let data = std::mem::take(&mut self.data);
        std::mem::take(&mut self.has_data).then_some(Event { name, data })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(text: &[u8]) -> Vec<Event> {
        let mut events = Events::default();
        let mut all = events.push(text).unwrap();
        all.extend(events.finish());
        all
    }

    fn event(name: &str, data: &str) -> Event {
        Event {
            name: name.to_owned(),
            data: data.to_owned(),
        }
    }

    #[test]
    fn events_are_read_as_browsers_do() {
        let text = "\u{feff}: hello\ndata: one\ndata:two\n\nevent: ping\ndata\n\nevent: nothing\n\r\nid: 7\r\ndata: {\"a\": 1}\r\n\r\n";
        assert_eq!(
            all(text.as_bytes()),
            [
                event("", "one\ntwo"),
                event("ping", ""),
                event("", "{\"a\": 1}")
            ]
        );
    }

    #[test]
    fn the_last_event_needs_no_empty_line() {
        assert_eq!(all(b"data: [DONE]"), [event("", "[DONE]")]);
        assert_eq!(all(b"data: a\n\n"), [event("", "a")]);
    }

    #[test]
    fn an_event_without_end_is_given_up() {
        let mut events = Events::default();
        let piece = vec![b'x'; 1 << 20];
        let refused = (0..40).find_map(|_| events.push(&piece).err());
        assert_eq!(refused, Some(TooLarge));
    }

    proptest! {
        #[test]
        fn it_makes_no_difference_where_a_stream_is_cut(
            lines in proptest::collection::vec("(data|event|:|id|x)(: ?[aä\u{1F600}]{0,3})?(\r\n|\n|\r)|\n|\r|\r\n", 0..20),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let text = lines.concat().into_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
            at.sort_unstable();
            let mut events = Events::default();
            let mut found = Vec::new();
            let mut begin = 0;
            for end in at.into_iter().chain([text.len()]) {
                found.extend(events.push(&text[begin..end]).unwrap());
                begin = end;
            }
            found.extend(events.finish());
            prop_assert_eq!(found, all(&text));
        }
    }
}

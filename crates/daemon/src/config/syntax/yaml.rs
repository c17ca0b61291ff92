//! YAML into the tree: one document, the core schema of YAML 1.2, and nothing that surprises.
//!
//! Plain scalars are resolved as section 10.3.2 of the YAML 1.2.2 specification says, so `no` and `on` are strings.
//! Anchors, aliases, merge keys and tags are refused rather
//! than half supported: an alias can blow nine lines up into gigabytes, and a tag names types we do not have.

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};

use super::{DEPTH_MAX, Data, Node, SyntaxError, TableBuilder};
use crate::config::origin::{Position, saturate};

pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let mut reader = Reader {
        events: Parser::new_from_str(text),
    };
    let mut root = None;
    loop {
        let (event, at) = reader.next()?;
        match event {
            Event::StreamEnd => break,
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            _ if root.is_some() => {
                return Err(SyntaxError::new(
                    at,
                    "expected one YAML document, found a second",
                ));
            }
            content => root = Some(reader.node(content, at, 0)?),
        }
    }
    Ok(root.unwrap_or(Node {
        at: Position::START,
        value: Data::Null,
    }))
}

struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Position), SyntaxError> {
        match self.events.next_event() {
            Some(Ok((event, span))) => Ok((event, start(span))),
            Some(Err(error)) => Err(scan_error(&error)),
            None => Ok((Event::StreamEnd, Position::START)),
        }
    }

    fn node(&mut self, event: Event<'a>, at: Position, depth: usize) -> Result<Node, SyntaxError> {
        if depth > DEPTH_MAX {
            return Err(SyntaxError::too_deep(at));
        }
        let value = match event {
            Event::Scalar(text, style, anchor, tag) => {
                refuse_anchor(anchor, at)?;
                match (tag.as_deref(), style) {
                    (None, ScalarStyle::Plain) => resolve(&text, at)?,
                    (None, _) => Data::Text(text.into_owned()),
                    (Some(tag), _) if is_string_tag(tag) => Data::Text(text.into_owned()),
                    (Some(_), _) => return Err(tag_refused(at)),
                }
            }
            Event::SequenceStart(anchor, tag) => {
                refuse_anchor(anchor, at)?;
                if tag.is_some() {
                    return Err(tag_refused(at));
                }
                self.list(depth)?
            }
            Event::MappingStart(anchor, tag) => {
                refuse_anchor(anchor, at)?;
                if tag.is_some() {
                    return Err(tag_refused(at));
                }
                self.table(depth)?
            }
            Event::Alias(_) => return Err(alias_refused(at)),
            other => {
                return Err(SyntaxError::new(
                    at,
                    format!("expected a value, found {other:?}"),
                ));
            }
        };
        Ok(Node { at, value })
    }

    fn list(&mut self, depth: usize) -> Result<Data, SyntaxError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Data::List(items)),
                (event, at) => items.push(self.node(event, at, depth + 1)?),
            }
        }
    }

    fn table(&mut self, depth: usize) -> Result<Data, SyntaxError> {
        let mut builder = TableBuilder::default();
        loop {
            let (key, key_at) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(builder.finish()),
                (Event::Scalar(text, _, 0, None), at) => (text.into_owned(), at),
                (Event::Alias(_), at) => return Err(alias_refused(at)),
                (_, at) => return Err(SyntaxError::new(at, "expected a plain word as a key")),
            };
            if key == "<<" {
                return Err(alias_refused(key_at));
            }
            let (event, at) = self.next()?;
            builder.insert(key, key_at, self.node(event, at, depth + 1)?)?;
        }
    }
}

/// The core schema's reading of a plain scalar.
fn resolve(text: &str, at: Position) -> Result<Data, SyntaxError> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let radix = |digits: &str, radix| {
        i128::from_str_radix(digits, radix)
            .ok()
            .and_then(Data::integer)
            .ok_or_else(|| SyntaxError::new(at, format!("`{text}` is no number, or is too large")))
    };
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Data::Null),
        "true" | "True" | "TRUE" => return Ok(Data::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Data::Bool(false)),
        _ => {}
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return radix(text, 10);
    }
    let looks_like_float = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && unsigned
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    if looks_like_float
        && let Ok(number) = text.parse::<f64>()
        && number.is_finite()
    {
        return Ok(Data::Float(number));
    }
    Ok(Data::Text(text.to_owned()))
}

fn is_string_tag(tag: &Tag) -> bool {
    tag.is_yaml_core_schema() && tag.suffix == "str"
}

fn refuse_anchor(anchor: usize, at: Position) -> Result<(), SyntaxError> {
    // The parser numbers anchors from 1; 0 is none.
    if anchor == 0 {
        Ok(())
    } else {
        Err(alias_refused(at))
    }
}

fn alias_refused(at: Position) -> SyntaxError {
    let mut error = SyntaxError::new(at, "YAML anchors, aliases and merge keys are not supported");
    error.help = Some("write the value out where it is used".to_owned());
    error
}

fn tag_refused(at: Position) -> SyntaxError {
    let mut error = SyntaxError::new(at, "YAML tags other than `!!str` are not supported");
    error.help = Some("put a string in quotes; numbers and truth values need no tag".to_owned());
    error
}

fn scan_error(error: &ScanError) -> SyntaxError {
    let marker = error.marker();
    let at = Position {
        line: saturate(marker.line().max(1)),
        column: saturate(marker.col() + 1),
    };
    SyntaxError::new(at, error.info())
}

fn start(span: Span) -> Position {
    Position {
        line: saturate(span.start.line().max(1)),
        column: saturate(span.start.col() + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let error = parse(text).unwrap_err();
        format!("{}:{} {}", error.at.line, error.at.column, error.message)
    }

    #[test]
    fn plain_scalars_follow_the_core_schema() {
        let read = |text: &str| resolve(text, Position::START).unwrap().describe();
        for (text, meaning) in [
            ("no", "the string `no`"),
            ("on", "the string `on`"),
            ("true", "`true`"),
            ("~", "nothing"),
            ("0x10", "the number `16`"),
            ("-7", "the number `-7`"),
            ("1e3", "the number `1000`"),
            ("1.2.3", "the string `1.2.3`"),
            ("64MiB", "the string `64MiB`"),
            ("127.0.0.1:3000", "the string `127.0.0.1:3000`"),
            ("-", "the string `-`"),
        ] {
            assert_eq!(read(text), meaning, "{text}");
        }
    }

    #[test]
    fn what_would_surprise_is_refused_with_its_place() {
        insta::assert_snapshot!(
            [
                error("a: &x 1\nb: 2"), error("a: 1\nb: *x"), error("a: 1\na: 2"), error("a: !!binary x"),
                error("a: 1\n---\nb: 2"), error("? [a]\n: 1"), error("<<: {}"), error("a: [1, 2"),
            ].join("\n"),
            @r"
        1:4 YAML anchors, aliases and merge keys are not supported
        2:4 while parsing node, found unknown anchor
        2:1 the key `a` is given twice
        1:4 YAML tags other than `!!str` are not supported
        3:1 expected one YAML document, found a second
        1:3 expected a plain word as a key
        1:1 YAML anchors, aliases and merge keys are not supported
        2:1 while parsing a flow sequence, expected ',' or ']'
        "
        );
    }

    #[test]
    fn a_file_of_comments_is_an_empty_document() {
        assert!(matches!(
            parse("# nothing here\n").unwrap().value,
            Data::Null
        ));
    }
}

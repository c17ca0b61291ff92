//! JSON into the tree, with places, by means of serde_json.
//!
//! serde_json tells no positions of values. But a borrowed [`RawValue`] is a slice of the text it was read from,
//! so its address is its position: each level of the document is read as a map or list of raw values, and those
//! are descended into. Every level is scanned again by its parents, which the depth limit keeps to a constant.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{DEPTH_MAX, Data, Node, SyntaxError, TableBuilder};
use crate::config::origin::{Lines, Position};

pub(super) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let lines = Lines::of(text);
    let root: &RawValue = serde_json::from_str(text).map_err(|error| {
        // serde_json counts bytes.
        let at = lines.position_of_byte(error.line(), error.column());
        // serde_json ends its texts with the position, which is said already.
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        SyntaxError::new(at, message)
    })?;
    Reader {
        text,
        lines: &lines,
    }
    .node(root, 0)
}

struct Reader<'a> {
    text: &'a str,
    lines: &'a Lines<'a>,
}

impl<'a> Reader<'a> {
    fn position(&self, part: &'a RawValue) -> Position {
        let offset = part.get().as_ptr().addr() - self.text.as_ptr().addr();
        self.lines.position(offset)
    }

    fn node(&self, raw: &'a RawValue, depth: usize) -> Result<Node, SyntaxError> {
        let at = self.position(raw);
        if depth > DEPTH_MAX {
            return Err(SyntaxError::too_deep(at));
        }
        let json = raw.get();
        let invalid = |error: serde_json::Error| SyntaxError::new(at, error.to_string());
        let value = match json.as_bytes().first() {
            Some(b'{') => {
                let mut builder = TableBuilder::default();
                for (key, value) in serde_json::Deserializer::from_str(json)
                    .deserialize_map(Pairs)
                    .map_err(invalid)?
                {
                    let name = serde_json::from_str(key.get()).map_err(invalid)?;
                    builder.insert(name, self.position(key), self.node(value, depth + 1)?)?;
                }
                builder.finish()
            }
            Some(b'[') => {
                let items = serde_json::Deserializer::from_str(json)
                    .deserialize_seq(Items)
                    .map_err(invalid)?;
                let nodes = items.into_iter().map(|item| self.node(item, depth + 1));
                Data::List(nodes.collect::<Result<_, _>>()?)
            }
            Some(b'"') => Data::Text(serde_json::from_str(json).map_err(invalid)?),
            Some(b't') => Data::Bool(true),
            Some(b'f') => Data::Bool(false),
            Some(b'n') | None => Data::Null,
            Some(_) => number(json)
                .ok_or_else(|| SyntaxError::new(at, format!("the number `{json}` is too large")))?,
        };
        Ok(Node { at, value })
    }
}

fn number(json: &str) -> Option<Data> {
    if json
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'-')
    {
        return json.parse().ok().and_then(Data::integer);
    }
    json.parse()
        .ok()
        .filter(|float: &f64| float.is_finite())
        .map(Data::Float)
}

struct Pairs;

impl<'de> Visitor<'de> for Pairs {
    type Value = Vec<(&'de RawValue, &'de RawValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(pairs)
    }
}

struct Items;

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(items)
    }
}

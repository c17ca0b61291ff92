//! JSON text that is known to be valid: what programs, effects and clients hand each other.
//!
//! The text itself is kept, not a parsed tree, because a journal's hashes are over bytes: what was written is what
//! is compared, and what one program does not look into costs it nothing.

use std::fmt;
use std::sync::Arc;

use serde::de::{DeserializeOwned, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An immutable JSON text, cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Json(Arc<str>);

impl Json {
    /// The JSON `null`.
    #[must_use]
    pub fn null() -> Self {
        Self("null".into())
    }

    /// The JSON text of a value.
    ///
    /// # Panics
    ///
    /// If the value has no JSON form: a map whose keys are not strings, or a `Serialize` that fails by itself. Both
    /// are errors of the program that calls, not of its input.
    #[must_use]
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Self {
        let text = serde_json::to_string(value)
            .expect("because only values with a JSON form are handed to Json::of");
        Self(text.into())
    }

    /// Takes a text in, if it is valid JSON.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, and where.
    pub fn parse_text(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<Valid>(text)?;
        Ok(Self(text.into()))
    }

    /// Reads the text as a `T`.
    ///
    /// # Errors
    ///
    /// What does not fit, and where.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.0)
    }

    /// The text as a tree.
    #[must_use]
    pub fn value(&self) -> serde_json::Value {
        self.read()
            .expect("because a Json holds valid JSON, and every JSON text is a Value")
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The length of the text in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// How deep its arrays and objects are nested: 0 for a plain value.
    #[must_use]
    pub fn depth(&self) -> usize {
        let (mut depth, mut deepest, mut in_text, mut is_escaped) = (0_usize, 0, false, false);
        for byte in self.0.bytes() {
            match byte {
                _ if is_escaped => is_escaped = false,
                b'\\' => is_escaped = true,
                b'"' => in_text = !in_text,
                _ if in_text => {}
                b'[' | b'{' => {
                    depth += 1;
                    deepest = deepest.max(depth);
                }
                b']' | b'}' => depth -= 1,
                _ => {}
            }
        }
        deepest
    }

    /// Never: the shortest JSON text has one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Reads what a `Value` would read, refuses what a `Value` would refuse, and keeps nothing. An `IgnoredAny` is not enough: it
/// passes over numbers that no float can hold, escapes that are half a character, and any depth.
struct Valid;

impl<'de> Deserialize<'de> for Valid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for Valid {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self, A::Error> {
        while items.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Self, A::Error> {
        while fields.next_entry::<Self, Self>()?.is_some() {}
        Ok(self)
    }
}

impl Default for Json {
    fn default() -> Self {
        Self::null()
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&serde_json::Value> for Json {
    fn from(value: &serde_json::Value) -> Self {
        Self::of(value)
    }
}

/// In JSON a `Json` stands as itself, not as a string that holds it.
impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_json::Value::deserialize(deserializer).map(|value| Self::of(&value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_text_as_it_came() {
        let json = Json::parse_text(r#"{"b": 1,  "a": 2}"#).unwrap();
        assert_eq!(json.as_str(), r#"{"b": 1,  "a": 2}"#);
        assert_eq!(json.value()["a"], 2);
    }

    #[test]
    fn no_json_is_empty() {
        assert!(!Json::null().is_empty());
        assert_eq!(Json::null().len(), 4);
    }

    #[test]
    fn depth_is_counted_outside_of_texts() {
        for (text, depth) in [
            ("1", 0),
            ("[]", 1),
            (r#"{"a":[{}],"b":[]}"#, 3),
            (r#"["[[\"[", "]\\"]"#, 1),
        ] {
            assert_eq!(Json::parse_text(text).unwrap().depth(), depth, "{text}");
        }
    }

    #[test]
    fn refuses_what_cannot_be_read_as_a_tree() {
        let deep = |depth| "[".repeat(depth) + &"]".repeat(depth);
        for text in [
            r#""\ud800""#,
            "1e999",
            r#"{"\udc00":1}"#,
            deep(1_000).as_str(),
        ] {
            assert!(
                serde_json::from_str::<serde_json::Value>(text).is_err(),
                "{text:.40}"
            );
            assert!(Json::parse_text(text).is_err(), "{text:.40}");
        }
        for text in [
            r#""\ud83d\ude00""#,
            "1e99",
            "-0",
            "null",
            r#"{"a":[true,1,-2,0.5,"x",{}]}"#,
            deep(100).as_str(),
        ] {
            assert_eq!(
                Json::parse_text(text).unwrap().value(),
                serde_json::from_str::<serde_json::Value>(text).unwrap()
            );
        }
    }

    #[test]
    fn refuses_what_is_not_json() {
        assert!(Json::parse_text("{").is_err());
        assert!(Json::parse_text("1 2").is_err());
    }
}

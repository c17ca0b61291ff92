//! From what is written to what is meant: the types a key can have.
//!
//! A value is read once, here, into a type that can hold nothing wrong; a key's type says all there is to know
//! about its form. Values come typed from a file and as bare text from the environment and `--set`; each type
//! reads both.

use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::Value;

use super::syntax::{Data, Node, describe_text};
use super::units::{Duration, Size};

/// A value as it was written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Raw<'a> {
    /// In a file, with the type that its notation gave it.
    Node(&'a Node),
    /// In an environment variable or a flag.
    Text(&'a str),
}

impl<'a> Raw<'a> {
    /// The string, where one is written.
    pub(crate) fn text(self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Node(Node {
                value: Data::Text(text),
                ..
            }) => Some(text),
            Self::Node(_) => None,
        }
    }

    pub(crate) fn describe(self) -> String {
        match self {
            Self::Text(text) => describe_text(text),
            Self::Node(node) => node.value.describe(),
        }
    }
}

/// Why a value does not fit its key.
#[derive(Debug)]
pub(crate) struct Mismatch {
    /// What was found, in place of a description of the value itself.
    pub(crate) found: Option<String>,
    /// How to mend it.
    pub(crate) help: Option<String>,
}

impl Mismatch {
    pub(crate) fn plain() -> Self {
        Self {
            found: None,
            help: None,
        }
    }

    pub(crate) fn with_help(help: impl Display) -> Self {
        Self {
            found: None,
            help: Some(help.to_string()),
        }
    }
}

/// A type that a key can have.
pub(crate) trait Field: Clone + PartialEq {
    /// What is expected, in a sentence: "a size such as `64MiB`".
    fn expected() -> String;

    /// Reads what is written.
    fn read(raw: Raw<'_>) -> Result<Self, Mismatch>;

    /// The value as it would be written; null for one that is not set.
    fn to_value(&self) -> Value;
}

impl Field for bool {
    fn expected() -> String {
        "`true` or `false`".to_owned()
    }

    fn read(raw: Raw<'_>) -> Result<Self, Mismatch> {
        match raw {
            Raw::Node(Node {
                value: Data::Bool(value),
                ..
            }) => Ok(*value),
            Raw::Text("true") => Ok(true),
            Raw::Text("false") => Ok(false),
            other => Err(match other.text().map(str::to_ascii_lowercase).as_deref() {
                Some("true" | "false") => {
                    Mismatch::with_help("write it in lower case and without quotes")
                }
                Some("yes" | "on" | "1") => Mismatch::with_help("write `true`"),
                Some("no" | "off" | "0") => Mismatch::with_help("write `false`"),
                _ => Mismatch::plain(),
            }),
        }
    }

    fn to_value(&self) -> Value {
        Value::Bool(*self)
    }
}

impl Field for usize {
    fn expected() -> String {
        "a whole number".to_owned()
    }

    fn read(raw: Raw<'_>) -> Result<Self, Mismatch> {
        match raw {
            Raw::Node(Node {
                value: Data::Integer(number),
                ..
            }) => Self::try_from(*number).map_err(|_| {
                Mismatch::with_help(if *number < 0 {
                    "it cannot be negative"
                } else {
                    "the number is too large"
                })
            }),
            Raw::Node(Node {
                value: Data::Text(text),
                ..
            }) if text.parse::<Self>().is_ok() => {
                Err(Mismatch::with_help("write it without quotes"))
            }
            Raw::Text(text) => text
                .trim()
                .replace('_', "")
                .parse()
                .map_err(|_| Mismatch::plain()),
            Raw::Node(_) => Err(Mismatch::plain()),
        }
    }

    fn to_value(&self) -> Value {
        Value::from(*self)
    }
}

impl Field for u32 {
    fn expected() -> String {
        usize::expected()
    }

    fn read(raw: Raw<'_>) -> Result<Self, Mismatch> {
        Self::try_from(usize::read(raw)?)
            .map_err(|_| Mismatch::with_help("the number is too large"))
    }

    fn to_value(&self) -> Value {
        Value::from(*self)
    }
}

impl Field for Size {
    fn expected() -> String {
        "a size such as `64MiB`".to_owned()
    }

    fn read(raw: Raw<'_>) -> Result<Self, Mismatch> {
        match raw {
            Raw::Node(Node {
                value: Data::Integer(bytes),
                ..
            }) => u64::try_from(*bytes)
                .map(Self::bytes)
                .map_err(|_| Mismatch::plain()),
            other => parse(other),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.to_string())
    }
}

impl Field for Duration {
    fn expected() -> String {
        "a duration such as `30s`".to_owned()
    }

    fn read(raw: Raw<'_>) -> Result<Self, Mismatch> {
        match raw {
            Raw::Node(Node {
                value: Data::Integer(number),
                ..
            }) => match number.to_string().parse() {
                Ok(zero) => Ok(zero),
                Err(error) => Err(Mismatch::with_help(error)),
            },
            other => parse(other),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.to_string())
    }
}

impl Field for SocketAddr {
    fn expected() -> String {
        "an address and a port such as `127.0.0.1:3000`".to_owned()
    }

    fn read(raw: Raw<'_>) -> Result<Self, Mismatch> {
        let text = match raw {
            Raw::Node(Node {
                value: Data::Integer(port),
                ..
            }) => {
                return Err(Mismatch::with_help(format!(
                    "write `127.0.0.1:{port}`, in quotes"
                )));
            }
            other => other.text().ok_or_else(Mismatch::plain)?,
        };
        text.parse().map_err(|_| {
            let (host, port) = text.rsplit_once(':').unwrap_or((text, "3000"));
            match host {
                "" | "localhost" => Mismatch::with_help(format!("write `127.0.0.1:{port}`")),
                "*" => Mismatch::with_help(format!("write `0.0.0.0:{port}` for every interface")),
                _ if text.parse::<std::net::IpAddr>().is_ok() => {
                    Mismatch::with_help("add the port")
                }
                _ if port.parse::<u32>().is_ok_and(|port| port > u16::MAX.into()) => {
                    Mismatch::with_help("the highest port is 65535")
                }
                _ => Mismatch::with_help("names are not looked up here: write the address itself"),
            }
        })
    }

    fn to_value(&self) -> Value {
        Value::String(self.to_string())
    }
}

/// Paths are made absolute when they are read, so that a later change of the working directory changes nothing
/// and `config show` says where things really are.
impl Field for PathBuf {
    fn expected() -> String {
        "a path".to_owned()
    }

    fn read(raw: Raw<'_>) -> Result<Self, Mismatch> {
        let text = raw.text().ok_or_else(Mismatch::plain)?;
        if text.is_empty() || text.contains('\0') {
            return Err(Mismatch::plain());
        }
        if text.starts_with("~/") {
            return Err(Mismatch::with_help(
                "`~` is not expanded here: write the whole path",
            ));
        }
        std::path::absolute(text).map_err(Mismatch::with_help)
    }

    fn to_value(&self) -> Value {
        Value::String(self.display().to_string())
    }
}

impl<T: Field> Field for Option<T> {
    fn expected() -> String {
        T::expected()
    }

    fn read(raw: Raw<'_>) -> Result<Self, Mismatch> {
        T::read(raw).map(Some)
    }

    fn to_value(&self) -> Value {
        self.as_ref().map_or(Value::Null, Field::to_value)
    }
}

/// A list in a file; in text, its items parted by commas.
impl<T: Field> Field for Vec<T> {
    fn expected() -> String {
        format!("a list, each item {}", T::expected())
    }

    fn read(raw: Raw<'_>) -> Result<Self, Mismatch> {
        let each = |item: Raw<'_>| {
            T::read(item).map_err(|mismatch| Mismatch {
                found: Some(mismatch.found.unwrap_or_else(|| item.describe())),
                help: mismatch.help,
            })
        };
        match raw {
            Raw::Node(Node {
                value: Data::List(items),
                ..
            }) => items.iter().map(|item| each(Raw::Node(item))).collect(),
            Raw::Node(_) => Err(Mismatch::with_help("put it in brackets: `[…]`")),
            Raw::Text(text) => {
                let items = text
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty());
                items.map(|item| each(Raw::Text(item))).collect()
            }
        }
    }

    fn to_value(&self) -> Value {
        self.iter().map(Field::to_value).collect()
    }
}

fn parse<T: FromStr<Err: Display>>(raw: Raw<'_>) -> Result<T, Mismatch> {
    raw.text()
        .ok_or_else(Mismatch::plain)?
        .parse()
        .map_err(Mismatch::with_help)
}

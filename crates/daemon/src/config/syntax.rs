//! One tree for three notations: every value of a TOML, JSON or YAML file with its place.
//!
//! What comes after this module does not know which notation a value was written in. The tree is kept rather than
//! deserialised into a struct, because only so can one pass report every mistake with its line and column, and a
//! later check (of a job's body, say) still find the place.
//!
//! Invariants: the text is at most [`FILE_MAX`] and nested at most [`DEPTH_MAX`] deep, so no file exhausts memory
//! or stack; no table holds a key twice.

mod json;
mod toml;
#[cfg(feature = "yaml")]
mod yaml;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use super::error::{ConfigError, ErrorKind};
use super::origin::{Lines, Origin, Position};
use super::units::Size;

/// The largest file that is read, in bytes: a hundred times what a large config needs, and small enough that
/// a wrong path (a disk image, `/dev/zero`) is refused at once.
pub const FILE_MAX: Size = Size::mib(1);

/// How deep tables and lists may be nested.
pub const DEPTH_MAX: usize = 64;

/// A value and where it begins.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Position,
    pub(crate) value: Data,
}

/// What all three notations can say.
#[derive(Clone, Debug)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Table(Vec<Entry>),
}

/// A key of a table, where the key is written, and its value.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) at: Position,
    pub(crate) node: Node,
}

impl Data {
    /// An integer, if it is one that JSON readers agree on: it fits 64 bits, signed or unsigned.
    fn integer(number: i128) -> Option<Self> {
        (i128::from(i64::MIN)..=i128::from(u64::MAX))
            .contains(&number)
            .then_some(Self::Integer(number))
    }

    /// What it is, in a sentence: ``the string `abc` ``.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Integer(value) => format!("the number `{value}`"),
            Self::Float(value) => format!("the number `{value}`"),
            Self::Text(value) => describe_text(value),
            Self::List(_) => "a list".to_owned(),
            Self::Table(_) => "a table".to_owned(),
        }
    }
}

/// A string in a sentence. A long one is cut: it is there to be recognised, not to be read.
pub(crate) fn describe_text(text: &str) -> String {
    const SHOWN_CHARS: usize = 40;
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((cut, _)) => format!("the string `{}…`", &text[..cut]),
        None => format!("the string `{text}`"),
    }
}

/// What can go wrong inside one text; the caller knows which file it is.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    at: Position,
    message: String,
    help: Option<String>,
}

impl SyntaxError {
    fn new(at: Position, message: impl Into<String>) -> Self {
        Self {
            at,
            message: message.into(),
            help: None,
        }
    }

    fn too_deep(at: Position) -> Self {
        Self::new(
            at,
            format!("tables and lists are nested more than {DEPTH_MAX} deep"),
        )
    }
}

/// A way to write a config file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// TOML 1.0.
    Toml,
    /// JSON, RFC 8259.
    Json,
    /// YAML 1.2, its core schema, without anchors and tags.
    Yaml,
}

impl Format {
    /// The format that a file's extension names.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "toml" => Some(Self::Toml),
            "json" => Some(Self::Json),
            "yaml" | "yml" => Some(Self::Yaml),
            _ => None,
        }
    }
}

/// Reads a file into its tree. The root is a table.
///
/// # Errors
/// If the file cannot be read, is no text, is too large or empty, or is not well formed.
pub(crate) fn read(path: &Arc<Path>) -> Result<Vec<Entry>, Vec<ConfigError>> {
    let text = read_text(path).map_err(|error| vec![error])?;
    let file_error = |kind, message: String| ConfigError::new(kind, message, file(path));
    let Some(format) = Format::of(path) else {
        let message = "cannot tell the format of the file by its name".to_owned();
        let help = "name it `.toml`, `.json`, `.yaml` or `.yml`";
        return Err(vec![file_error(ErrorKind::File, message).with_help(help)]);
    };
    read_str(path, &text, format)
}

/// Reads a text into its tree, as if it were the file `path`. The root is a table.
///
/// # Errors
/// If it is empty, or is not well formed.
pub(crate) fn read_str(
    path: &Arc<Path>,
    text: &str,
    format: Format,
) -> Result<Vec<Entry>, Vec<ConfigError>> {
    let file_error = |kind, message: String| ConfigError::new(kind, message, file(path));
    if text.trim().is_empty() {
        // Most often a write that was cut off, or one that is still going on: taking it for "all defaults"
        // would silently undo a config that was in force.
        let help = match format {
            Format::Toml | Format::Yaml => {
                "a comment line is enough to say that all defaults are wanted"
            }
            Format::Json => "`{}` is enough to say that all defaults are wanted",
        };
        return Err(vec![
            file_error(ErrorKind::File, "the file is empty".into()).with_help(help),
        ]);
    }
    let tree = parse(text, format).map_err(|errors| {
        errors
            .into_iter()
            .map(|error| {
                ConfigError::new(ErrorKind::Syntax, error.message, place(path, error.at))
                    .with_help_if(error.help)
            })
            .collect::<Vec<_>>()
    })?;
    match tree.value {
        Data::Table(entries) => Ok(entries),
        // A YAML file of comments only.
        Data::Null => Ok(Vec::new()),
        other => {
            let message = format!(
                "expected a table at the top of the file, found {}",
                other.describe()
            );
            Err(vec![ConfigError::new(
                ErrorKind::Value,
                message,
                place(path, tree.at),
            )])
        }
    }
}

pub(crate) fn file(path: &Arc<Path>) -> Origin {
    Origin::File(Arc::clone(path))
}

pub(crate) fn place(path: &Arc<Path>, at: Position) -> Origin {
    Origin::Place(Arc::clone(path), at)
}

fn parse(text: &str, format: Format) -> Result<Node, Vec<SyntaxError>> {
    match format {
        Format::Toml => toml::parse(text),
        Format::Json => json::parse(text).map_err(|error| vec![error]),
        #[cfg(feature = "yaml")]
        Format::Yaml => yaml::parse(text).map_err(|error| vec![error]),
        #[cfg(not(feature = "yaml"))]
        Format::Yaml => {
            let message = "this build reads no YAML (it was made without the feature `yaml`)";
            Err(vec![SyntaxError::new(Position::START, message)])
        }
    }
}

fn read_text(path: &Arc<Path>) -> Result<String, ConfigError> {
    let error = |message: String| ConfigError::new(ErrorKind::File, message, file(path));
    let cannot_read = |source: std::io::Error| {
        let help = match source.kind() {
            std::io::ErrorKind::NotFound => "check the path",
            std::io::ErrorKind::PermissionDenied => {
                "the user that runs tinkerbell must be allowed to read it"
            }
            _ => return error(format!("cannot read the file: {source}")),
        };
        error(format!("cannot read the file: {source}")).with_help(help)
    };
    // Asked before opening: opening a FIFO would wait for a writer, for ever perhaps.
    let metadata = path.metadata().map_err(cannot_read)?;
    if !metadata.is_file() {
        return Err(error(
            "the path leads to something that is not a regular file".to_owned(),
        ));
    }
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(FILE_MAX.as_u64() + 1).read_to_end(&mut bytes))
        .map_err(cannot_read)?;
    if bytes.len() as u64 > FILE_MAX.as_u64() {
        return Err(error(format!("the file is larger than {FILE_MAX}")));
    }
    let text = String::from_utf8(bytes).map_err(|error| not_utf8(path, &error))?;
    Ok(text
        .strip_prefix('\u{feff}')
        .map(str::to_owned)
        .unwrap_or(text))
}

fn not_utf8(path: &Arc<Path>, error: &std::string::FromUtf8Error) -> ConfigError {
    let valid = error.utf8_error().valid_up_to();
    let byte = error.as_bytes()[valid];
    let before = String::from_utf8_lossy(&error.as_bytes()[..valid]);
    let at = Lines::of(&before).position(valid);
    ConfigError::new(
        ErrorKind::File,
        format!("the file is not UTF-8 text: found the byte 0x{byte:02x}"),
        place(path, at),
    )
    .with_help("save it as UTF-8")
}

/// Builds a table, refusing a key that is already there.
#[derive(Default)]
struct TableBuilder {
    entries: Vec<Entry>,
    seen: std::collections::HashSet<String>,
}

impl TableBuilder {
    fn insert(&mut self, key: String, at: Position, node: Node) -> Result<(), SyntaxError> {
        if !self.seen.insert(key.clone()) {
            return Err(SyntaxError::new(
                at,
                format!("the key `{key}` is given twice"),
            ));
        }
        self.entries.push(Entry { key, at, node });
        Ok(())
    }

    fn finish(self) -> Data {
        Data::Table(self.entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tree without places, as JSON text, so that the three notations can be compared.
    fn plain(node: &Node) -> String {
        crate::config::job::to_json(node).to_string()
    }

    fn tree(text: &str, format: Format) -> Node {
        parse(text, format).unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    #[test]
    fn three_notations_give_one_tree() {
        let toml = "[wal]\nsync = \"always\"\nsize = 64\n[[job]]\nname = \"a\"\nsteps = [{ run = [\"true\"] }]\nx = 1.5\nok = true\n";
        let json = r#"{"wal":{"sync":"always","size":64},"job":[{"name":"a","steps":[{"run":["true"]}],"x":1.5,"ok":true}]}"#;
        let yaml = "wal:\n  sync: always\n  size: 64\njob:\n- name: a\n  steps:\n  - run: ['true']\n  x: 1.5\n  ok: true\n";
        let expected = plain(&tree(toml, Format::Toml));
        assert_eq!(plain(&tree(json, Format::Json)), expected);
        #[cfg(feature = "yaml")]
        assert_eq!(plain(&tree(yaml, Format::Yaml)), expected);
        #[cfg(not(feature = "yaml"))]
        let _ = yaml;
    }

    #[test]
    fn every_notation_knows_the_place_of_keys_and_values() {
        for (text, format, key, value) in [
            ("# c\n[wal]\n  sync = \"x\"", Format::Toml, (3, 3), (3, 10)),
            (
                "{ \"wal\":\n { \"sync\": \"x\" } }",
                Format::Json,
                (2, 4),
                (2, 12),
            ),
            #[cfg(feature = "yaml")]
            ("# c\nwal:\n  sync: x", Format::Yaml, (3, 3), (3, 9)),
        ] {
            let Data::Table(root) = tree(text, format).value else {
                panic!("{text}")
            };
            let Data::Table(wal) = &root[0].node.value else {
                panic!("{text}")
            };
            let found = (wal[0].at, wal[0].node.at);
            let position = |(line, column)| Position { line, column };
            assert_eq!(found, (position(key), position(value)), "{format:?}");
        }
    }

    #[test]
    fn depth_is_limited_in_every_notation() {
        let deep =
            |open: &str, close: &str| format!("{}{}", open.repeat(20_000), close.repeat(20_000));
        for (text, format) in [
            (format!("a = {}", deep("[", "]")), Format::Toml),
            (deep("[", "]"), Format::Json),
            (deep("{\"a\":", "}"), Format::Json),
            #[cfg(feature = "yaml")]
            (deep("[", "]"), Format::Yaml),
            #[cfg(feature = "yaml")]
            ("- ".repeat(20_000), Format::Yaml),
        ] {
            assert!(parse(&text, format).is_err(), "{format:?}");
        }
    }
}

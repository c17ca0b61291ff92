//! Where a value came from: every value of the config can say so, and every error does.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A place in a text file. Lines and columns count from 1; columns count characters, as editors do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line, from 1.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
}

impl Position {
    /// Where a file begins.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// Where a value, or a mistake, is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody set it: the built-in default.
    Default,
    /// A file as a whole.
    File(Arc<Path>),
    /// A place in a file.
    Place(Arc<Path>, Position),
    /// The environment variable of this name.
    Env(String),
    /// A flag of the command line, as it was written.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(file) => write!(f, "{}", file.display()),
            Self::Place(file, at) => write!(f, "{}:{}:{}", file.display(), at.line, at.column),
            Self::Env(name) => write!(f, "env {name}"),
            Self::Flag(text) => f.write_str(text),
        }
    }
}

/// Turns byte offsets of a text into positions. Building it costs one pass over the text, a look-up one binary
/// search and one line.
pub(crate) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(crate) fn of(text: &'a str) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0)
            .chain(newlines.map(|(at, _)| at + 1))
            .collect();
        Self { text, starts }
    }

    /// The position of the character that begins at or holds the byte `offset`; past the end, that of the end.
    pub(crate) fn position(&self, offset: usize) -> Position {
        let offset = self.text.floor_char_boundary(offset.min(self.text.len()));
        let line = self.starts.partition_point(|start| *start <= offset);
        let column = self.text[self.starts[line - 1]..offset].chars().count() + 1;
        Position {
            line: saturate(line),
            column: saturate(column),
        }
    }

    /// The position of the character at a column that was counted in bytes. Both numbers count from 1.
    pub(crate) fn position_of_byte(&self, line: usize, column: usize) -> Position {
        let start = self.starts.get(line.saturating_sub(1));
        let start = start.copied().unwrap_or(self.text.len());
        self.position(start + column.saturating_sub(1))
    }
}

/// A count as a line or column number. Files are limited to far less than `u32::MAX` bytes.
pub(crate) fn saturate(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// Where every value of a config came from, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provenance {
    /// In the order of the layers: the last one won. No entry: the default.
    origins: BTreeMap<String, Vec<Origin>>,
}

impl Provenance {
    /// Where the value in force came from. `key` is `section.name`.
    #[must_use]
    pub fn of(&self, key: &str) -> Origin {
        self.origins
            .get(key)
            .and_then(|origins| origins.last())
            .cloned()
            .unwrap_or(Origin::Default)
    }

    /// The layers that also set the key and lost, weakest first.
    #[must_use]
    pub fn overridden(&self, key: &str) -> &[Origin] {
        self.origins
            .get(key)
            .and_then(|origins| origins.split_last())
            .map_or(&[], |(_, lost)| lost)
    }

    pub(crate) fn add(&mut self, key: &str, origin: Origin) {
        self.origins.entry(key.to_owned()).or_default().push(origin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_the_end_is_a_place_too() {
        let lines = Lines::of("a = 1\nß = 2\n");
        assert_eq!(lines.position(0), Position::START);
        assert_eq!(lines.position(6), Position { line: 2, column: 1 });
        assert_eq!(lines.position(8), Position { line: 2, column: 2 });
        assert_eq!(lines.position(usize::MAX), Position { line: 3, column: 1 });
        let second = |column| Position { line: 2, column };
        assert_eq!(lines.position_of_byte(2, 0), second(1));
        assert_eq!(lines.position_of_byte(2, 3), second(2));
        assert_eq!(lines.position_of_byte(2, 7), second(6));
        assert_eq!(
            lines.position_of_byte(9, 9),
            Position { line: 3, column: 1 }
        );
    }
}

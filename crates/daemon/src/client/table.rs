//! [`Table`]: the same facts as aligned columns for people and as JSON for programs.
//!
//! A cell is made with both, so a column cannot be in one form and not in the other: the JSON of a row has, for every
//! column, the heading in lower case with `_` for spaces ([`key`]). All text is neutralised where a cell is made.

use std::io::{self, Write};

use serde_json::{Map, Value};

/// How a cell is coloured, if there is colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Paint {
    #[default]
    Plain,
    Dim,
    Good,
    Bad,
    Attention,
}

impl Paint {
    /// The ANSI colour (ECMA-48, SGR).
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Dim => "2",
            Self::Good => "32",
            Self::Bad => "31",
            Self::Attention => "33",
        }
    }
}

/// One fact.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    text: String,
    value: Value,
    paint: Paint,
}

/// What stands where there is nothing.
const NOTHING: &str = "-";

impl Cell {
    /// A fact that programs see as `value` and people as `text`.
    pub(super) fn new(text: &str, value: impl Into<Value>) -> Self {
        let text = if text.is_empty() {
            NOTHING.to_owned()
        } else {
            one_line(text)
        };
        Self {
            text,
            value: value.into(),
            paint: Paint::Plain,
        }
    }

    /// A text that is the same to both.
    pub(super) fn text(text: &str) -> Self {
        Self::new(text, text)
    }

    /// A number that is the same to both.
    pub(super) fn number(number: impl Into<Value>) -> Self {
        let value = number.into();
        Self::new(&value.to_string(), value)
    }

    /// Yes or no.
    pub(super) fn yes(is: bool) -> Self {
        Self::new(if is { "yes" } else { "no" }, is)
    }

    /// Nothing.
    pub(super) fn none() -> Self {
        Self::new("", Value::Null)
    }

    /// A fact if there is one.
    pub(super) fn or_none<T>(fact: Option<T>, cell: impl FnOnce(T) -> Self) -> Self {
        fact.map_or_else(Self::none, cell)
    }

    /// The same in colour.
    pub(super) fn painted(mut self, paint: Paint) -> Self {
        self.paint = paint;
        self
    }

    /// The same, for people not longer than so many characters.
    pub(super) fn cut(mut self, chars: usize) -> Self {
        if let Some((at, _)) = self.text.char_indices().nth(chars) {
            let before = self.text[..at].char_indices().next_back();
            self.text.truncate(before.map_or(0, |(at, _)| at));
            self.text.push('…');
        }
        self
    }
}

/// A text from anywhere as one harmless line.
pub(super) fn one_line(text: &str) -> String {
    let text = pal::neutralise(text);
    text.trim_end().replace('\n', "⏎").replace('\t', " ")
}

/// The key of a column in JSON.
pub(super) fn key(heading: &str) -> String {
    heading.to_ascii_lowercase().replace(' ', "_")
}

/// Rows with the same columns.
#[derive(Clone, Debug)]
pub(super) struct Table {
    headings: &'static [&'static str],
    rows: Vec<Row>,
}

#[derive(Clone, Debug)]
struct Row {
    cells: Vec<Cell>,
    /// What only programs see.
    more: Map<String, Value>,
}

impl Table {
    pub(super) fn new(headings: &'static [&'static str]) -> Self {
        Self {
            headings,
            rows: Vec::new(),
        }
    }

    /// Adds a row, with what only programs see of it: an object, whose members give way to the columns.
    pub(super) fn push(&mut self, cells: Vec<Cell>, more: Value) {
        assert_eq!(
            cells.len(),
            self.headings.len(),
            "a row has a cell for each column, or the columns would be mixed up"
        );
        let more = match more {
            Value::Object(more) => more,
            _ => Map::new(),
        };
        self.rows.push(Row { cells, more });
    }

    /// A table of one row.
    pub(super) fn of_one(headings: &'static [&'static str], cells: Vec<Cell>, more: Value) -> Self {
        let mut table = Self::new(headings);
        table.push(cells, more);
        table
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Every row as an object.
    pub(super) fn to_json(&self) -> Vec<Value> {
        let rows = self.rows.iter().map(|row| {
            let mut object = row.more.clone();
            for (heading, cell) in self.headings.iter().zip(&row.cells) {
                object.insert(key(heading), cell.value.clone());
            }
            Value::Object(object)
        });
        rows.collect()
    }

    /// The first row as an object.
    pub(super) fn first_to_json(&self) -> Value {
        self.to_json().into_iter().next().unwrap_or_default()
    }

    /// Rows below headings, each line indented.
    pub(super) fn write(&self, out: &mut impl Write, indent: &str, colour: bool) -> io::Result<()> {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row.cells[column].text.as_str());
            let texts = cells.chain([self.headings[column]]);
            texts.map(|text| text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.headings.len()).map(width).collect();
        let headings = self
            .headings
            .iter()
            .map(|heading| Cell::text(heading).painted(Paint::Dim))
            .collect();
        let headings = Row {
            cells: headings,
            more: Map::new(),
        };
        for row in [&headings].into_iter().chain(&self.rows) {
            write!(out, "{indent}")?;
            let last = row.cells.len() - 1;
            for (column, cell) in row.cells.iter().enumerate() {
                write_cell(out, cell, colour)?;
                // Nothing at a line's end: what is not seen should not be there.
                if column < last {
                    let pad = widths[column] - cell.text.chars().count() + 2;
                    write!(out, "{:pad$}", "")?;
                }
            }
            writeln!(out)?;
        }
        Ok(())
    }

    /// The first row as a line for each column.
    pub(super) fn write_down(&self, out: &mut impl Write, colour: bool) -> io::Result<()> {
        let widths = self.headings.iter().map(|heading| heading.chars().count());
        let width = widths.max().unwrap_or(0) + 2;
        for row in self.rows.iter().take(1) {
            for (heading, cell) in self.headings.iter().zip(&row.cells) {
                let pad = width - heading.chars().count();
                write_cell(out, &Cell::text(heading).painted(Paint::Dim), colour)?;
                write!(out, "{:pad$}", "")?;
                write_cell(out, cell, colour)?;
                writeln!(out)?;
            }
        }
        Ok(())
    }
}

fn write_cell(out: &mut impl Write, cell: &Cell, colour: bool) -> io::Result<()> {
    match cell.paint.code() {
        code if colour && !code.is_empty() => write!(out, "\x1b[{code}m{}\x1b[0m", cell.text),
        _ => write!(out, "{}", cell.text),
    }
}

/// How long ago something was: `3m ago`.
pub(super) fn ago(now_ms: u64, then_ms: u64) -> String {
    match now_ms.checked_sub(then_ms) {
        Some(since_ms) => format!("{} ago", roughly(since_ms)),
        // Clocks step back.
        None => "now".to_owned(),
    }
}

/// How soon something will be: `in 3m`.
pub(super) fn until(now_ms: u64, then_ms: u64) -> String {
    match then_ms.checked_sub(now_ms) {
        Some(until_ms) => format!("in {}", roughly(until_ms)),
        None => "now".to_owned(),
    }
}

/// A time for people and for programs.
pub(super) fn instant(text: &str, at_ms: u64) -> Cell {
    Cell::new(text, runtime::rfc3339(at_ms))
}

fn roughly(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..100 => format!("{seconds}s"),
        100..6_000 => format!("{}m", seconds / 60),
        6_000..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A number of bytes: `17 KiB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut unit = None;
    let mut amount = bytes;
    for next in UNITS {
        if amount < 1024 {
            break;
        }
        (amount, unit) = (amount / 1024, Some(next));
    }
    format!("{amount} {}", unit.unwrap_or("B"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(table: &Table, colour: bool) -> String {
        let mut out = Vec::new();
        table.write(&mut out, "", colour).expect("memory takes it");
        String::from_utf8(out).expect("it is text")
    }

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "NEXT RETRY", "STATE"]);
        table.push(
            vec![
                Cell::text("grüße 世界"),
                Cell::none(),
                Cell::text("failed").painted(Paint::Bad),
            ],
            serde_json::json!({ "labels": {}, "state": "gives way" }),
        );
        table.push(
            vec![
                Cell::text("x\x1b[2J\nSTATE"),
                instant(&until(1_000, 4_000), 4_000),
                Cell::text("waiting"),
            ],
            Value::Null,
        );
        table
    }

    #[test]
    fn columns_are_aligned_by_characters_and_text_is_harmless() {
        assert_eq!(
            written(&table(), false),
            "NAME         NEXT RETRY  STATE\n\
             grüße 世界     -           failed\n\
             x␛[2J⏎STATE  in 3s       waiting\n"
        );
        assert!(written(&table(), true).contains("-           \x1b[31mfailed\x1b[0m\n"));
    }

    #[test]
    fn the_json_of_a_row_has_every_column() {
        let rows = table().to_json();
        assert_eq!(
            rows[0],
            serde_json::json!({
                "name": "grüße 世界", "next_retry": null, "state": "failed", "labels": {},
            })
        );
        assert_eq!(rows[1]["next_retry"], "1970-01-01T00:00:04.000Z");
        assert_eq!(rows[1]["name"], "x\x1b[2J\nSTATE");
    }

    #[test]
    fn a_long_text_is_cut_for_people_only() {
        let cell = Cell::text("äöüß").cut(3);
        assert_eq!((cell.text.as_str(), cell.value), ("äö…", "äöüß".into()));
        assert_eq!(Cell::text("äöü").cut(3).text, "äöü");
    }

    #[test]
    fn times_and_sizes_are_rough() {
        for (ms, text) in [
            (20, "20ms ago"),
            (59_000, "59s ago"),
            (150_000, "2m ago"),
            (7_200_000, "2h ago"),
            (259_200_000, "3d ago"),
        ] {
            assert_eq!(ago(1_000_000_000, 1_000_000_000 - ms), text);
        }
        assert_eq!(ago(1, 2), "now");
        assert_eq!(until(2, 1), "now");
        assert_eq!(
            [0, 1023, 1024, 5 << 30].map(bytes),
            ["0 B", "1023 B", "1 KiB", "5 GiB"]
        );
    }
}

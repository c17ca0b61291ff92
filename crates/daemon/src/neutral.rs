//! Hostile text made harmless before it reaches a terminal or a log file.
//!
//! Job names, tool output and keys of a config file are written by others. A terminal obeys control
//! characters in what it is told to show: an escape sequence can retitle the window, recolour what follows or
//! fake a line of ours, and a bidirectional override can make a path read backwards. The one idea: such
//! characters are *shown* (`\u{1b}`), never *sent*.
//!
//! Invariant: what leaves [`Neutral`] holds no control character but tab and newline, and after every newline
//! come four spaces, so that no text from outside can begin a line.

use std::borrow::Cow;
use std::fmt::{self, Write};

/// What follows a newline in neutralised text. Nothing of ours that starts a record starts with a space.
const CONTINUATION: &str = "\n    ";

/// A [`fmt::Write`] that passes text on with its control characters spelled out.
pub struct Neutral<W>(pub W);

impl<W: Write> Write for Neutral<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut clean_from = 0;
        for (at, character) in text.char_indices() {
            if character != '\n' && !is_hostile(character) {
                continue;
            }
            self.0.write_str(&text[clean_from..at])?;
            clean_from = at + character.len_utf8();
            if character == '\n' {
                self.0.write_str(CONTINUATION)?;
            } else {
                write!(self.0, "{}", character.escape_unicode())?;
            }
        }
        self.0.write_str(&text[clean_from..])
    }
}

/// One line of harmless text: as [`Neutral`], and newlines are spelled out as well.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(|c| c == '\n' || is_hostile(c)) {
        return Cow::Borrowed(text);
    }
    let mut harmless = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\n' => harmless.push_str("\\n"),
            hostile if is_hostile(hostile) => harmless.extend(hostile.escape_unicode()),
            other => harmless.push(other),
        }
    }
    Cow::Owned(harmless)
}

/// Whether a terminal or a reader's eye could be led astray by the character: C0 (but tab and newline), DEL and
/// C1 controls, the bidirectional controls of Unicode Standard Annex 9, the invisible marks, and the two
/// separators that some viewers take for a new line.
fn is_hostile(character: char) -> bool {
    match character {
        '\t' | '\n' => false,
        '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' => true,
        '\u{2060}'..='\u{2069}' | '\u{feff}' => true,
        other => other.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn neutral(text: &str) -> String {
        let mut out = String::new();
        Neutral(&mut out).write_str(text).unwrap();
        out
    }

    #[test]
    fn escape_sequences_are_shown_and_not_sent() {
        assert_eq!(neutral("a\x1b[31mred\x07"), "a\\u{1b}[31mred\\u{7}");
        // C1: a terminal in 8-bit mode takes U+009B for ESC [.
        assert_eq!(neutral("\u{9b}2J"), "\\u{9b}2J");
        assert_eq!(neutral("photo\u{202e}gpj.exe"), "photo\\u{202e}gpj.exe");
        assert_eq!(neutral("over\rwritten"), "over\\u{d}written");
    }

    #[test]
    fn a_newline_cannot_begin_a_line_of_ours() {
        assert_eq!(neutral("ok\nERROR forged"), "ok\n    ERROR forged");
        assert_eq!(one_line("ok\nERROR forged"), "ok\\nERROR forged");
    }

    #[test]
    fn ordinary_text_is_passed_as_it_is() {
        let text = "grüße\t世界 🧚";
        assert_eq!(neutral(text), text);
        assert!(matches!(one_line(text), Cow::Borrowed(_)));
    }
}

//! Making text that others wrote harmless to a terminal.
//!
//! What agents and tools print may hold escape sequences: they retitle the window, rewrite lines already
//! read, or on some terminals answer back as if typed (CVE-2003-0063 and many since). Bidirectional
//! controls and invisible characters make text read other than it is ("Trojan Source", CVE-2021-42574).
//! [`neutralise`] does not remove them, for then nobody would see that they were there: it shows them.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The same text with every control, directional and invisible character made visible; borrowed when
/// there is none. Newline and tab stay what they are.
///
/// C0 controls and delete become their Unicode control pictures (`␛` for escape), the others an
/// escape in the manner of Rust (`\u{202e}`). Joiners (U+200C, U+200D) stay: Persian and emoji need them.
///
/// ```
/// assert_eq!(pal::neutralise("all \x1b[31mred\u{202e}"), "all ␛[31mred\\u{202e}");
/// ```
#[must_use]
pub fn neutralise(text: &str) -> Cow<'_, str> {
    let Some(first) = text.find(is_hostile) else {
        return Cow::Borrowed(text);
    };
    let mut out = String::with_capacity(text.len() + 16);
    out.push_str(&text[..first]);
    for c in text[first..].chars() {
        match c {
            _ if !is_hostile(c) => out.push(c),
            '\0'..='\x1f' => {
                out.push(
                    char::from_u32(0x2400 + u32::from(c))
                        .expect("U+2400..=U+241F are characters because none is a surrogate"),
                );
            }
            '\x7f' => out.push('\u{2421}'),
            _ => write!(out, "\\u{{{:x}}}", u32::from(c))
                .expect("writing to a string cannot fail because it only grows"),
        }
    }
    Cow::Owned(out)
}

/// Whether a character could act on a terminal or mislead a reader. (Unicode 16: categories Cc, Zl, Zp,
/// and of Cf those that are invisible or change direction.)
fn is_hostile(c: char) -> bool {
    match c {
        '\n' | '\t' => false,
        _ if c.is_control() => true,
        // The common case, decided early.
        _ if c < '\u{ad}' => false,
        // Direction: Arabic letter mark, marks, embeddings, overrides, isolates.
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
            true
        }
        // Line and paragraph separators: a new line to some, nothing to others.
        '\u{2028}' | '\u{2029}' => true,
        // Invisible: soft hyphen, zero-width space, word joiner and operators, deprecated format
        // characters, byte order mark, interlinear annotation.
        '\u{ad}'
        | '\u{180e}'
        | '\u{200b}'
        | '\u{2060}'..='\u{2065}'
        | '\u{206a}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}' => true,
        // Tags: a whole invisible alphabet.
        '\u{e0000}'..='\u{e007f}' => true,
        _ => false,
    }
}

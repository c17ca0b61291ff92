//! What is wrong with a config, said so that it can be mended: what, where, what was expected, what to do.
//!
//! Errors are collected, not thrown at the first: who mends a file wants to see all of it. No excerpt of the
//! source line is printed, although compilers do: a line of a config may hold a secret that somebody put there by
//! mistake, and these texts go to logs.

use std::fmt::{self, Write};

use super::origin::Origin;
use crate::neutral::{Neutral, one_line};

/// What sort of mistake it is, for callers that count or sort them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A file cannot be read, or is not text.
    File,
    /// The file is not well-formed TOML, JSON or YAML.
    Syntax,
    /// There is no such key.
    UnknownKey,
    /// A key that must be given is not.
    MissingKey,
    /// The value is of the wrong type or form.
    Value,
    /// The value is outside the range.
    Range,
    /// Two values contradict each other.
    Conflict,
    /// A value refers to something the machine does not have: a variable, a secret's file.
    Environment,
}

/// One mistake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    kind: ErrorKind,
    message: String,
    origin: Origin,
    related: Vec<(String, Origin)>,
    help: Option<String>,
}

impl ConfigError {
    /// A mistake of a kind, at a place. The message is lower case and has no full stop.
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<String>, origin: Origin) -> Self {
        Self {
            kind,
            message: message.into(),
            origin,
            related: Vec::new(),
            help: None,
        }
    }

    /// Adds how to mend it.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds how to mend it, if that is known.
    #[must_use]
    pub(crate) fn with_help_if(mut self, help: Option<String>) -> Self {
        self.help = help.or(self.help);
        self
    }

    /// Adds another place that has to do with it.
    #[must_use]
    pub fn with_related(mut self, what: impl Into<String>, origin: Origin) -> Self {
        self.related.push((what.into(), origin));
        self
    }

    /// What sort of mistake it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What is wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Where.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// How to mend it, where that is known.
    #[must_use]
    pub fn help(&self) -> Option<&str> {
        self.help.as_deref()
    }

    /// The mistake on one line, for logs and events: `tinkerbell.toml:3:1: unknown key … (did you mean …?)`.
    #[must_use]
    pub fn one_line(&self) -> String {
        let mut line = format!("{}: {}", self.origin, self.message);
        if let Some(help) = &self.help {
            line.push_str(&format!(" ({help})"));
        }
        one_line(&line).into_owned()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys and values in the message are as hostile as the file they come from.
        let mut f = Neutral(f);
        write!(f, "error: {}", self.message)?;
        self.write_place(&mut f)?;
        for (what, origin) in &self.related {
            write!(f.0, "\n  note: ")?;
            write!(f, "{what}: {origin}")?;
        }
        if let Some(help) = &self.help {
            write!(f.0, "\n  help: ")?;
            write!(f, "{help}")?;
        }
        Ok(())
    }
}

impl ConfigError {
    fn write_place(&self, f: &mut Neutral<&mut fmt::Formatter<'_>>) -> fmt::Result {
        if self.origin == Origin::Default {
            return Ok(());
        }
        write!(f.0, "\n  --> ")?;
        write!(f, "{}", self.origin)
    }
}

impl std::error::Error for ConfigError {}

/// All mistakes of a config; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// The mistakes, if there is any.
    pub(crate) fn check(errors: Vec<ConfigError>) -> Result<(), Self> {
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Self(errors))
        }
    }

    /// The mistakes, in the order in which they were found: by file position first.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }

    /// All of them on one line, for the log and the event of a refused reload.
    #[must_use]
    pub fn one_line(&self) -> String {
        self.0
            .iter()
            .map(ConfigError::one_line)
            .collect::<Vec<_>>()
            .join("; ")
    }
}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// The name that was probably meant: the one with the smallest edit distance, if it is near enough.
///
/// The distance is optimal string alignment (Damerau-Levenshtein without overlapping edits), so that two swapped
/// letters count as one slip. Near enough is a third of the word's length and at least one, as rustc takes it for
/// misspelt identifiers.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody misspells this much; and the cost below is the product of the two lengths.
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    let name = name.to_lowercase().replace('-', "_");
    let limit = (name.chars().count() / 3).max(1);
    known
        .into_iter()
        .map(|candidate| (distance(&name, &candidate.to_lowercase()), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut a_before = None;
    for (row, a_char) in a.chars().enumerate() {
        let mut this = vec![row + 1; b.len() + 1];
        for (column, b_char) in b.iter().enumerate() {
            let replaced = last[column] + usize::from(a_char != *b_char);
            this[column + 1] = replaced.min(last[column + 1] + 1).min(this[column] + 1);
            let swapped = column > 0 && a_before == Some(*b_char) && b[column - 1] == a_char;
            if swapped {
                this[column + 1] = this[column + 1].min(before_last[column - 1] + 1);
            }
        }
        a_before = Some(a_char);
        before_last = std::mem::replace(&mut last, this);
    }
    last[b.len()]
}

/// Names as a sentence lists them: `` `a`, `b` or `c` ``.
pub(crate) fn one_of(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_finger_find_their_word() {
        let known = ["segment_size", "sync", "sync_interval", "retention"];
        for (slip, meant) in [
            ("segmnt_size", Some("segment_size")),
            ("segment-size", Some("segment_size")),
            ("snyc", Some("sync")),
            ("SYNC", Some("sync")),
            ("retenttion", Some("retention")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(slip, known), meant, "{slip}");
        }
        assert_eq!(nearest(&"x".repeat(1 << 20), known), None);
    }

    #[test]
    fn an_error_cannot_forge_a_line_or_an_escape() {
        let hostile = "a\u{1b}[2J\nerror: forged";
        let error = ConfigError::new(ErrorKind::UnknownKey, hostile, Origin::Env("X".into()));
        insta::assert_snapshot!(error.to_string(), @r"
        error: a\u{1b}[2J
            error: forged
          --> env X
        ");
        assert!(!error.one_line().contains('\n'));
    }
}

//! Config files, with variables and flags beside them.
//!
//! The input is text in parts that zeros divide: the file, whose first byte says its format (`t`, `j` or `y`), then any
//! number of `NAME=value` for the environment and `section.key=value` for flags. Whatever the parts say:
//! - every mistake has a place, and the place is in the file; its words cannot forge a line;
//! - a config that is accepted and printed as TOML is the same config when it is read again.

use std::path::Path;

use daemon::config::{
    Config, ConfigErrors, Environment, ErrorKind, LoadOptions, Loaded, Origin, Position, SetFlag,
    diff, show_json, show_toml,
};

use super::scratch::Scratch;

/// Reads a config, and reads what it was printed as again.
pub fn run(data: &[u8]) {
    let mut parts = data.split(|&byte| byte == 0);
    let (name, text) = named(parts.next().unwrap_or_default());
    let words: Vec<&str> = parts
        .filter_map(|part| std::str::from_utf8(part).ok())
        .collect();
    let is_variable = |word: &&&str| word.starts_with("TINKERBELL_");
    let variables = words
        .iter()
        .filter(is_variable)
        .filter_map(|word| word.split_once('='));
    let sets = words.iter().filter(|word| !is_variable(word));

    let file = Scratch::new(name, text);
    let options = LoadOptions {
        path: Some(file.path()),
        environment: Environment::of_variables(variables),
        sets: sets.map(|word| SetFlag::new(word)).collect(),
        offline: true,
    };
    match Config::load(&options) {
        Ok(loaded) => reads_back(loaded),
        Err(errors) => check_errors(&errors, &file.path(), text),
    }
}

/// The name of a file in the format that the first byte asks for, and the rest.
pub(crate) fn named(text: &[u8]) -> (&'static str, &[u8]) {
    match text.split_first() {
        Some((b'j', rest)) => ("f.json", rest),
        Some((b'y', rest)) => ("f.yaml", rest),
        Some((_, rest)) => ("f.toml", rest),
        None => ("f.toml", text),
    }
}

/// Mistakes are where they can be mended, and say so on lines of their own.
pub(crate) fn check_errors(errors: &ConfigErrors, path: &Path, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    // YAML ends a line at a lone carriage return, the others do not.
    let by_newline: Vec<usize> = lengths(text.split('\n'));
    let text = text.replace("\r\n", "\n");
    let by_either: Vec<usize> = lengths(text.split(['\n', '\r']));
    let is_inside = |at: &Position| {
        let (line, column) = (at.line as usize, at.column as usize);
        // Just past an end is where something is missing.
        [&by_newline, &by_either].into_iter().any(|lengths| {
            let length = lengths.get(line.wrapping_sub(1));
            (line == lengths.len() + 1 && column == 1)
                || length.is_some_and(|length| (1..=length + 1).contains(&column))
        })
    };
    assert!(errors.iter().len() > 0, "no config and no reason");
    for error in errors {
        let shown = error.to_string();
        assert!(shown.starts_with("error: "), "{shown}");
        assert!(!shown.contains(is_control), "{shown:?}");
        let line = error.one_line();
        assert!(
            !line.contains('\n') && !line.contains(is_control),
            "{line:?}"
        );
        match error.origin() {
            Origin::Place(file, at) if **file == *path => {
                assert!(is_inside(at), "{at:?} is not in the file: {line}");
            }
            Origin::Default => panic!("nobody has made this mistake: {line}"),
            origin => assert!(
                error.kind() != ErrorKind::Syntax || *origin != Origin::File(path.into()),
                "a mistake of form has no place: {line}"
            ),
        }
    }
    assert!(!errors.one_line().contains('\n'));
}

/// How many characters each line has.
fn lengths<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<usize> {
    lines.map(|line| line.chars().count()).collect()
}

/// Whether a terminal would do something at this character other than move on.
fn is_control(character: char) -> bool {
    character.is_control() && !matches!(character, '\n' | '\t')
}

/// What is accepted can be printed and read again.
fn reads_back(mut loaded: Loaded) {
    let json = show_json(&loaded).to_string();
    serde_json::from_str::<serde_json::Value>(&json).expect("what is printed as JSON is JSON");
    for warning in &loaded.warnings {
        assert!(!warning.to_string().is_empty());
    }
    // Of jobs only the head is printed: what is in them may be a secret.
    loaded.config.jobs.clear();
    let printed = show_toml(&loaded);
    let file = Scratch::new("f.toml", printed.as_bytes());
    let options = LoadOptions {
        path: Some(file.path()),
        offline: true,
        ..LoadOptions::default()
    };
    match Config::load(&options) {
        Ok(again) => {
            let changes = diff(&loaded.config, &again.config);
            assert!(changes.is_empty(), "{changes:?}\n{printed}");
        }
        Err(errors) => panic!("what was printed is refused:\n{errors}\n{printed}"),
    }
}

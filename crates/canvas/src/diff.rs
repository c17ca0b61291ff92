//! What is different between two trees, as `git diff` says it.
//!
//! The text is a patch that [`patch`](crate::patch) and git both take: with the modes, `new file`, `deleted file` and renames of
//! git's header, and `\ No newline at end of file`. What is no text (it holds a NUL within its first 8,000 bytes, git's own
//! rule) is named, and its content left out.

use std::fmt::Write as _;

use gix::ObjectId;
use gix::bstr::ByteSlice;
use gix::diff::blob::unified_diff::{ConsumeHunk, ContextSize, DiffLineKind, HunkHeader};
use gix::diff::blob::{Algorithm, Diff as LineDiff, InternedInput, UnifiedDiff};
use gix::objs::tree::EntryMode;

use crate::canvas::Canvas;
use crate::error::Error;

/// Lines of context around a change: git's default.
const CONTEXT_LINES: u32 = 3;

/// How much of a file is looked at for a NUL (`buffer_is_binary` in git's `xdiff-interface.c`).
const LOOKED_AT_BYTES: usize = 8000;

/// Differences, file by file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diff {
    /// In the order of their paths.
    pub files: Vec<FileDiff>,
}

/// What is different in one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileDiff {
    /// What it is called before; none if it is new.
    pub old: Option<Vec<u8>>,
    /// What it is called afterwards; none if it is gone.
    pub new: Option<Vec<u8>>,
    /// Lines that came.
    pub added: usize,
    /// Lines that went.
    pub removed: usize,
    /// Whether it is no text.
    pub is_binary: bool,
    /// Its part of the patch.
    pub patch: Vec<u8>,
}

impl Diff {
    /// All of it as one patch.
    #[must_use]
    pub fn to_patch(&self) -> Vec<u8> {
        self.files
            .iter()
            .flat_map(|file| file.patch.clone())
            .collect()
    }

    /// The same with the colours of a terminal: green for what came, red for what went, as git has them. What would act on the
    /// terminal is for whoever shows it to take out.
    #[must_use]
    pub fn to_coloured(&self) -> Vec<u8> {
        const RESET: &[u8] = b"\x1b[m";
        let patch = self.to_patch();
        let mut coloured = Vec::with_capacity(patch.len());
        let mut is_header = true;
        for line in patch.split_inclusive(|byte| *byte == b'\n') {
            is_header = match line {
                _ if line.starts_with(b"diff --git ") => true,
                [b'@', ..] => false,
                _ => is_header,
            };
            let colour: &[u8] = match line {
                _ if is_header => b"\x1b[1m",
                [b'@', ..] => b"\x1b[36m",
                [b'+', ..] => b"\x1b[32m",
                [b'-', ..] => b"\x1b[31m",
                _ => b"",
            };
            if colour.is_empty() {
                coloured.extend_from_slice(line);
                continue;
            }
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            coloured.extend_from_slice(colour);
            coloured.extend_from_slice(text);
            coloured.extend_from_slice(RESET);
            coloured.extend_from_slice(&line[text.len()..]);
        }
        coloured
    }
}

/// One side of a file.
struct Side {
    path: Vec<u8>,
    mode: EntryMode,
    id: ObjectId,
}

pub(crate) fn between(canvas: &Canvas, from: ObjectId, to: ObjectId) -> Result<Diff, Error> {
    use gix::object::tree::diff::ChangeDetached;

    let (from, to) = (canvas.find_tree(from)?, canvas.find_tree(to)?);
    let options = gix::diff::Options::default().with_rewrites(Some(gix::diff::Rewrites::default()));
    let changes = canvas.store.diff_tree_to_tree(&from, &to, options);
    let mut sides = Vec::new();
    for change in changes.map_err(Error::git("compare trees"))? {
        let side = |path: gix::bstr::BString, mode: EntryMode, id: ObjectId| {
            (!mode.is_tree()).then(|| Side {
                path: path.into(),
                mode,
                id,
            })
        };
        match change {
            ChangeDetached::Addition {
                location,
                entry_mode,
                id,
                ..
            } => sides.push((None, side(location, entry_mode, id))),
            ChangeDetached::Deletion {
                location,
                entry_mode,
                id,
                ..
            } => sides.push((side(location, entry_mode, id), None)),
            ChangeDetached::Modification {
                location,
                previous_entry_mode,
                previous_id,
                entry_mode,
                id,
            } => {
                let old = side(location.clone(), previous_entry_mode, previous_id);
                let new = side(location, entry_mode, id);
                let is_same_kind = |a: &Side, b: &Side| a.mode.is_link() == b.mode.is_link();
                match (old, new) {
                    // A file that became a symlink is two things to git: one that went, and one that came.
                    (Some(old), Some(new)) if !is_same_kind(&old, &new) => {
                        sides.push((Some(old), None));
                        sides.push((None, Some(new)));
                    }
                    both => sides.push(both),
                }
            }
            ChangeDetached::Rewrite {
                source_location,
                source_entry_mode,
                source_id,
                entry_mode,
                id,
                location,
                ..
            } => sides.push((
                side(source_location, source_entry_mode, source_id),
                side(location, entry_mode, id),
            )),
        }
    }
    let path = |(old, new): &(Option<Side>, Option<Side>)| {
        let side = new.as_ref().or(old.as_ref());
        side.map(|side| side.path.clone())
    };
    sides.sort_by_key(path);
    let mut diff = Diff::default();
    for (old, new) in sides {
        if old.is_some() || new.is_some() {
            diff.files.push(file(canvas, old.as_ref(), new.as_ref())?);
        }
    }
    Ok(diff)
}

fn file(canvas: &Canvas, old: Option<&Side>, new: Option<&Side>) -> Result<FileDiff, Error> {
    let content = |side: Option<&Side>| match side {
        None => Ok(Vec::new()),
        Some(side) if side.mode.is_commit() => {
            Ok(format!("Subproject commit {}\n", side.id).into_bytes())
        }
        Some(side) => canvas.read_blob(side.id, &String::from_utf8_lossy(&side.path)),
    };
    let (before, after) = (content(old)?, content(new)?);
    let mut patch = header(old, new);
    let is_binary = [&before, &after]
        .iter()
        .any(|text| text[..text.len().min(LOOKED_AT_BYTES)].contains(&0));
    let (mut added, mut removed) = (0, 0);
    let name = |side: Option<&Side>, prefix: &str| match side {
        None => b"/dev/null".to_vec(),
        Some(side) => quoted(prefix, &side.path),
    };
    if before != after {
        if is_binary {
            patch.extend_from_slice(b"Binary files ");
            patch.extend(name(old, "a/"));
            patch.extend_from_slice(b" and ");
            patch.extend(name(new, "b/"));
            patch.extend_from_slice(b" differ\n");
        } else {
            for (sign, side, prefix) in [("--- ", old, "a/"), ("+++ ", new, "b/")] {
                let name = name(side, prefix);
                patch.extend_from_slice(sign.as_bytes());
                patch.extend_from_slice(&name);
                // A tab says where a name with a space in it ends, for `patch`.
                if name.contains(&b' ') {
                    patch.push(b'\t');
                }
                patch.push(b'\n');
            }
            let input = InternedInput::new(&*before, &*after);
            let mut lines = LineDiff::compute(Algorithm::Histogram, &input);
            lines.postprocess_lines(&input);
            added = lines.count_additions() as usize;
            removed = lines.count_removals() as usize;
            let hunks = UnifiedDiff::new(
                &lines,
                &input,
                Hunks(Vec::new()),
                ContextSize::symmetrical(CONTEXT_LINES),
            );
            let hunks = hunks.consume().map_err(Error::io("write", "a patch"))?;
            patch.extend(hunks);
        }
    }
    Ok(FileDiff {
        old: old.map(|side| side.path.clone()),
        new: new.map(|side| side.path.clone()),
        added,
        removed,
        is_binary,
        patch,
    })
}

/// Git's own header.
fn header(old: Option<&Side>, new: Option<&Side>) -> Vec<u8> {
    let either = |side: Option<&Side>, other: Option<&Side>| {
        let side = side.or(other);
        side.map(|side| side.path.clone()).unwrap_or_default()
    };
    let mut text = b"diff --git ".to_vec();
    text.extend(quoted("a/", &either(old, new)));
    text.push(b' ');
    text.extend(quoted("b/", &either(new, old)));
    text.push(b'\n');
    let mut line = |words: String| text.extend_from_slice(words.as_bytes());
    let mode = |side: &Side| format!("{:06o}", side.mode.value());
    match (old, new) {
        (None, Some(new)) => line(format!("new file mode {}\n", mode(new))),
        (Some(old), None) => line(format!("deleted file mode {}\n", mode(old))),
        (Some(old), Some(new)) => {
            if old.mode != new.mode {
                line(format!("old mode {}\nnew mode {}\n", mode(old), mode(new)));
            }
            if old.path != new.path {
                let names = [("rename from ", &old.path), ("rename to ", &new.path)];
                for (words, path) in names {
                    text.extend_from_slice(words.as_bytes());
                    text.extend(quoted("", path));
                    text.push(b'\n');
                }
            }
        }
        (None, None) => {}
    }
    text
}

/// A name as git writes it: in quotes, with escapes as in C, if it holds anything that needs them.
fn quoted(prefix: &str, path: &[u8]) -> Vec<u8> {
    let needs_quotes = |byte: &u8| *byte < 0x20 || *byte >= 0x7f || matches!(byte, b'"' | b'\\');
    let mut name = prefix.as_bytes().to_vec();
    if !path.iter().any(needs_quotes) {
        name.extend_from_slice(path);
        return name;
    }
    let mut text = String::from("\"");
    text.push_str(prefix);
    for byte in path {
        match byte {
            b'\n' => text.push_str("\\n"),
            b'\t' => text.push_str("\\t"),
            b'\r' => text.push_str("\\r"),
            b'"' => text.push_str("\\\""),
            b'\\' => text.push_str("\\\\"),
            byte if needs_quotes(byte) => {
                let _ = write!(text, "\\{byte:03o}");
            }
            byte => text.push(char::from(*byte)),
        }
    }
    text.push('"');
    text.into_bytes()
}

struct Hunks(Vec<u8>);

impl ConsumeHunk for Hunks {
    type Out = Vec<u8>;

    fn consume_hunk(
        &mut self,
        header: HunkHeader,
        lines: &[(DiffLineKind, &[u8])],
    ) -> std::io::Result<()> {
        let range = |start: u32, length: u32| {
            // A side of no lines is named by the line before it (diff(1)).
            let start = if length == 0 {
                start.saturating_sub(1)
            } else {
                start
            };
            match length {
                1 => start.to_string(),
                _ => format!("{start},{length}"),
            }
        };
        let old = range(header.before_hunk_start, header.before_hunk_len);
        let new = range(header.after_hunk_start, header.after_hunk_len);
        self.0
            .extend_from_slice(format!("@@ -{old} +{new} @@\n").as_bytes());
        for (kind, line) in lines {
            self.0.push(match kind {
                DiffLineKind::Context => b' ',
                DiffLineKind::Add => b'+',
                DiffLineKind::Remove => b'-',
            });
            self.0.extend_from_slice(line);
            if !line.ends_with_str("\n") {
                self.0
                    .extend_from_slice(b"\n\\ No newline at end of file\n");
            }
        }
        Ok(())
    }

    fn finish(self) -> Vec<u8> {
        self.0
    }
}

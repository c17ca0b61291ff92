//! Patches: unified diffs, as `git diff` and `diff -u` write them and as people and models write them from memory.
//!
//! [`parse`] reads one, [`place`] finds where its hunks belong. A hunk is taken where its lines are, and not where its numbers
//! say: first at the place that they name, then at the nearest place above or below, as `git apply` does; then the same with one
//! and with two lines of context left out at either end, as `patch` does (its "fuzz"). Lines that end in CR LF are matched by
//! lines that end in LF. Nothing is guessed beyond that: a hunk whose lines are nowhere is refused, with what was looked for
//! and what stands there.

mod binary;
mod parse;

pub use parse::{ParseError, parse};

/// How many lines of context at either end of a hunk may differ from the file, as in GNU `patch`.
const FUZZ_MAX: usize = 2;

/// A whole patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patch {
    /// What it does, file by file, in its own order.
    pub files: Vec<FilePatch>,
}

/// What a patch does to one file. Paths are those in the repository, as bytes, without `a/` and `b/`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilePatch {
    /// What it is called before; none if it is new.
    pub old: Option<Vec<u8>>,
    /// What it is called afterwards; none if it goes.
    pub new: Option<Vec<u8>>,
    /// Its mode afterwards, if the patch says: `0o100644`, `0o100755` or `0o120000`.
    pub mode: Option<u32>,
    /// Whether the old one stays.
    pub is_copy: bool,
    /// What becomes of its content.
    pub body: Body,
}

impl FilePatch {
    /// What to call it in a message.
    #[must_use]
    pub fn name(&self) -> String {
        let path = self.new.as_ref().or(self.old.as_ref());
        path.map_or_else(String::new, |path| {
            String::from_utf8_lossy(path).into_owned()
        })
    }
}

/// What becomes of a file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Lines go and come.
    Hunks(Vec<Hunk>),
    /// It is replaced by these bytes.
    Replaced(Vec<u8>),
    /// It is made from the old one by a delta of git's.
    Delta(Vec<u8>),
}

impl Default for Body {
    fn default() -> Self {
        Self::Hunks(Vec::new())
    }
}

/// A piece of a patch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hunk {
    /// The line that it begins at before, counted from 1; 0 where there are none.
    pub old_start: usize,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// A line of a hunk, with its end, if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// It stays.
    Context(Vec<u8>),
    /// It goes.
    Removed(Vec<u8>),
    /// It comes.
    Added(Vec<u8>),
}

impl Hunk {
    fn before(&self) -> impl Iterator<Item = &[u8]> {
        self.lines.iter().filter_map(|line| match line {
            Line::Context(text) | Line::Removed(text) => Some(text.as_slice()),
            Line::Added(_) => None,
        })
    }

    fn context_at_start(&self) -> usize {
        let is_context = |line: &&Line| matches!(line, Line::Context(_));
        self.lines.iter().take_while(is_context).count()
    }

    fn context_at_end(&self) -> usize {
        let is_context = |line: &&Line| matches!(line, Line::Context(_));
        self.lines.iter().rev().take_while(is_context).count()
    }
}

/// How a patch fitted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placed {
    /// The file's content afterwards.
    pub content: Vec<u8>,
    /// Hunks that were not where they said, or not quite as they said.
    pub drifts: Vec<Drift>,
}

/// A hunk that was not where it said, or not quite as it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drift {
    /// Which of the file's hunks, from 1.
    pub hunk: usize,
    /// By how many lines it was moved.
    pub offset: isize,
    /// How many lines of context at either end were left out of account.
    pub fuzz: usize,
}

/// A hunk that fits nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("hunk {hunk} (line {line}) does not fit: {why}")]
pub struct Misfit {
    /// Which of the file's hunks, from 1.
    pub hunk: usize,
    /// The line that it says it begins at.
    pub line: usize,
    /// What was looked for, and what is there.
    pub why: String,
}

/// Applies the hunks to a file's content.
///
/// # Errors
///
/// The first hunk that fits nowhere.
pub fn place(content: &[u8], hunks: &[Hunk]) -> Result<Placed, Misfit> {
    let lines = lines_of(content);
    let mut placed = Placed::default();
    // How far the file has been copied, and by how much the hunk before was off.
    let (mut done, mut drift) = (0, 0_isize);
    for (index, hunk) in hunks.iter().enumerate() {
        let before: Vec<&[u8]> = hunk.before().collect();
        // A hunk of no lines stands behind the line that it names, and others begin at theirs.
        let says = match before.is_empty() {
            true => hunk.old_start,
            false => hunk.old_start.saturating_sub(1),
        };
        let wanted = says.saturating_add_signed(drift);
        let Some(fit) = fit(&lines, hunk, &before, wanted, done) else {
            return Err(misfit(&lines, &before, index, says, done));
        };
        for line in &lines[done..fit.start] {
            placed.content.extend_from_slice(line);
        }
        done = write(&mut placed.content, &lines, hunk, &fit);
        drift = signed(fit.start - fit.fuzz_at_start) - signed(says);
        if drift != 0 || fit.fuzz > 0 {
            placed.drifts.push(Drift {
                hunk: index + 1,
                offset: drift,
                fuzz: fit.fuzz,
            });
        }
    }
    for line in &lines[done..] {
        placed.content.extend_from_slice(line);
    }
    Ok(placed)
}

/// Where a hunk belongs: its first line that is looked at, and how many were not.
struct Fit {
    start: usize,
    fuzz: usize,
    fuzz_at_start: usize,
    fuzz_at_end: usize,
    /// Whether the file's lines end in CR LF where the hunk's do not.
    has_cr: bool,
}

fn fit(lines: &[&[u8]], hunk: &Hunk, before: &[&[u8]], wanted: usize, done: usize) -> Option<Fit> {
    let (at_start, at_end) = (hunk.context_at_start(), hunk.context_at_end());
    for has_cr in [false, true] {
        for fuzz in 0..=FUZZ_MAX {
            if fuzz > 0 && fuzz > at_start.max(at_end) {
                break;
            }
            let (skip_start, skip_end) = (fuzz.min(at_start), fuzz.min(at_end));
            // A hunk of nothing but context that is all left out would fit everywhere.
            let Some(looked_at) = before.get(skip_start..before.len().saturating_sub(skip_end))
            else {
                continue;
            };
            if looked_at.is_empty() && !before.is_empty() {
                continue;
            }
            let found = find(
                lines,
                looked_at,
                wanted + skip_start,
                done,
                |start| {
                    // What begins at the first line, or has no context behind it, belongs at that end of the file, unless
                    // context was left out of account already.
                    let is_anchored = fuzz == 0;
                    let begins = hunk.old_start <= 1 && at_start == 0 && !before.is_empty();
                    let ends = at_end == 0 && at_start > 0;
                    let at_first = !begins || start == 0;
                    let at_last = !ends || start + looked_at.len() == lines.len();
                    !is_anchored || (at_first && at_last)
                },
                has_cr,
            )
            .or_else(|| {
                find(
                    lines,
                    looked_at,
                    wanted + skip_start,
                    done,
                    |_| true,
                    has_cr,
                )
            });
            if let Some(start) = found {
                return Some(Fit {
                    start,
                    fuzz,
                    fuzz_at_start: skip_start,
                    fuzz_at_end: skip_end,
                    has_cr,
                });
            }
        }
    }
    None
}

/// The place nearest to `wanted`, not before `done`, where all of `looked_at` stands and that `may_be` it.
fn find(
    lines: &[&[u8]],
    looked_at: &[&[u8]],
    wanted: usize,
    done: usize,
    may_be: impl Fn(usize) -> bool,
    has_cr: bool,
) -> Option<usize> {
    let last = lines.len().checked_sub(looked_at.len())?;
    if last < done {
        return None;
    }
    let stands = |start: usize| {
        (done..=last).contains(&start)
            && may_be(start)
            && looked_at
                .iter()
                .zip(&lines[start..])
                .all(|(wanted, there)| is_same(wanted, there, has_cr))
    };
    let wanted = wanted.clamp(done, last);
    (0..=last - done + 1).find_map(|distance| {
        let above = wanted.checked_sub(distance).filter(|start| stands(*start));
        above.or_else(|| Some(wanted + distance).filter(|start| stands(*start)))
    })
}

fn is_same(wanted: &[u8], there: &[u8], has_cr: bool) -> bool {
    wanted == there || has_cr && bare(wanted) == bare(there) && is_ended(wanted) == is_ended(there)
}

/// A line without its end.
fn bare(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn is_ended(line: &[u8]) -> bool {
    line.ends_with(b"\n")
}

/// Writes what a hunk makes of the lines that it was found at. Context stays as it stands in the file. Gives the first line
/// behind it.
fn write(content: &mut Vec<u8>, lines: &[&[u8]], hunk: &Hunk, fit: &Fit) -> usize {
    let looked_at = fit.fuzz_at_start..hunk.lines.len() - fit.fuzz_at_end;
    let mut at = fit.start;
    for line in &hunk.lines[looked_at] {
        match line {
            Line::Context(_) => {
                content.extend_from_slice(lines[at]);
                at += 1;
            }
            Line::Removed(_) => at += 1,
            Line::Added(text) if fit.has_cr && is_ended(text) && !text.ends_with(b"\r\n") => {
                content.extend_from_slice(bare(text));
                content.extend_from_slice(b"\r\n");
            }
            Line::Added(text) => content.extend_from_slice(text),
        }
    }
    at
}

fn misfit(lines: &[&[u8]], before: &[&[u8]], index: usize, says: usize, done: usize) -> Misfit {
    // The place where most of it stands tells best what is different.
    let last = lines.len().saturating_sub(1);
    let score = |start: usize| {
        let here = lines.get(start..).unwrap_or_default();
        before
            .iter()
            .zip(here)
            .filter(|(a, b)| is_same(a, b, true))
            .count()
    };
    let best = (done..=last.max(done)).max_by_key(|start| {
        let distance = start.abs_diff(says);
        (score(*start), std::cmp::Reverse(distance))
    });
    let start = best.unwrap_or(says);
    let differs = before.iter().enumerate().find(|(offset, wanted)| {
        lines
            .get(start + offset)
            .is_none_or(|there| !is_same(wanted, there, true))
    });
    let why = match differs {
        Some((offset, wanted)) => {
            let wanted = shown(wanted);
            match lines.get(start + offset) {
                Some(there) => format!(
                    "expected `{wanted}` as line {}, where `{}` stands",
                    start + offset + 1,
                    shown(there)
                ),
                None => format!("expected `{wanted}`, and the file ends before that"),
            }
        }
        None => "its lines stand before those of the hunk before it".to_owned(),
    };
    Misfit {
        hunk: index + 1,
        line: says + 1,
        why,
    }
}

/// A line as a message shows it.
fn shown(line: &[u8]) -> String {
    const SHOWN_MAX: usize = 80;
    let text = String::from_utf8_lossy(bare(line));
    let shown: String = text.chars().take(SHOWN_MAX).collect();
    match shown.len() < text.len() {
        true => format!("{shown}…"),
        false => shown,
    }
}

/// Lines with their ends. The empty file has none.
pub(crate) fn lines_of(content: &[u8]) -> Vec<&[u8]> {
    content.split_inclusive(|byte| *byte == b'\n').collect()
}

fn signed(index: usize) -> isize {
    isize::try_from(index).unwrap_or(isize::MAX)
}

/// Makes the new content from a delta of git's and the old content.
///
/// # Errors
///
/// If the delta is not whole, or made from something else.
pub fn apply_delta(old: &[u8], delta: &[u8]) -> Result<Vec<u8>, ParseError> {
    binary::apply_delta(old, delta)
}

#[cfg(test)]
mod tests;

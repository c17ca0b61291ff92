//! Reading patches: the format of `diff -u`, and what git adds to it (git-diff(1), "Generating patch text with -p").

use super::{Body, FilePatch, Hunk, Line, Patch, binary, lines_of};

/// A text that is no patch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the patch: {why}")]
pub struct ParseError {
    /// Which line, from 1; of a delta, 0.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

/// Reads a patch. Text around and between its parts, such as a mail has, is passed over.
///
/// # Errors
///
/// What is wrong, and where. A text without anything to do is an error too.
pub fn parse(text: &[u8]) -> Result<Patch, ParseError> {
    let mut reader = Reader {
        lines: lines_of(text),
        at: 0,
    };
    let mut patch = Patch::default();
    while let Some(line) = reader.peek() {
        if let Some(rest) = line.strip_prefix(b"diff --git ") {
            reader.at += 1;
            let file = reader.git_file(trimmed(rest))?;
            patch.files.push(file);
        } else if line.starts_with(b"--- ") && reader.is_header() {
            let file = reader.plain_file()?;
            patch.files.push(file);
        } else if line.starts_with(b"@@ -") {
            return Err(reader
                .error("a hunk stands before any name of a file (`--- a/FILE`, `+++ b/FILE`)"));
        } else {
            reader.at += 1;
        }
    }
    match patch.files.is_empty() {
        true => Err(ParseError {
            line: 1,
            why: "there is no patch in it: expected `--- a/FILE`, `+++ b/FILE` and hunks that begin with `@@`".to_owned(),
        }),
        false => Ok(patch),
    }
}

struct Reader<'a> {
    lines: Vec<&'a [u8]>,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<&'a [u8]> {
        self.lines.get(self.at).copied()
    }

    fn error(&self, why: impl Into<String>) -> ParseError {
        ParseError {
            line: self.at + 1,
            why: why.into(),
        }
    }

    /// Whether a line of `--- ` is one of a header, and not one that a hunk takes away.
    fn is_header(&self) -> bool {
        let next = self.lines.get(self.at + 1);
        next.is_some_and(|line| line.starts_with(b"+++ "))
    }

    /// A file of `diff -u`.
    fn plain_file(&mut self) -> Result<FilePatch, ParseError> {
        let mut file = FilePatch::default();
        self.names(&mut file)?;
        if file.old.is_none() && file.new.is_none() {
            return Err(self.error("both names are /dev/null"));
        }
        file.body = Body::Hunks(self.hunks()?);
        Ok(file)
    }

    /// The lines `--- a/FILE` and `+++ b/FILE`.
    fn names(&mut self, file: &mut FilePatch) -> Result<(), ParseError> {
        let Some(old) = self.peek().and_then(|line| line.strip_prefix(b"--- ")) else {
            return Ok(());
        };
        file.old = self.name(old)?;
        self.at += 1;
        let Some(new) = self.peek().and_then(|line| line.strip_prefix(b"+++ ")) else {
            return Err(self.error("expected `+++ b/FILE` after `--- a/FILE`"));
        };
        file.new = self.name(new)?;
        self.at += 1;
        // Without git's own header nothing says that a file is renamed: `diff -u x.orig x` means x.
        Ok(())
    }

    /// A name in a header. A tab ends it: a date may follow.
    fn name(&self, text: &[u8]) -> Result<Option<Vec<u8>>, ParseError> {
        let text = trimmed(text);
        let name = if text.starts_with(b"\"") {
            let (name, _) =
                unquoted(text).ok_or_else(|| self.error("the quoted name does not end"))?;
            name
        } else {
            let end = text.iter().position(|byte| *byte == b'\t');
            text[..end.unwrap_or(text.len())].to_vec()
        };
        if name == b"/dev/null" {
            return Ok(None);
        }
        match without_prefix(&name) {
            [] => Err(self.error("the name of the file is empty")),
            name => Ok(Some(name.to_vec())),
        }
    }

    /// A file of `git diff`, behind the words `diff --git`.
    fn git_file(&mut self, names: &[u8]) -> Result<FilePatch, ParseError> {
        let mut file = FilePatch::default();
        let both = names_of(names);
        let (mut is_new, mut is_deleted) = (false, false);
        while let Some(line) = self.peek() {
            let line = trimmed(line);
            let value = |key: &str| line.strip_prefix(key.as_bytes());
            if let Some(mode) = value("new file mode ") {
                is_new = true;
                file.mode = Some(self.mode(mode)?);
            } else if let Some(mode) = value("new mode ") {
                file.mode = Some(self.mode(mode)?);
            } else if value("deleted file mode ").is_some() {
                is_deleted = true;
            } else if let Some(name) = value("rename from ").or_else(|| value("copy from ")) {
                file.is_copy = line.starts_with(b"copy");
                file.old = Some(self.bare_name(name)?);
            } else if let Some(name) = value("rename to ").or_else(|| value("copy to ")) {
                file.new = Some(self.bare_name(name)?);
            } else if ![
                "old mode ",
                "similarity index ",
                "dissimilarity index ",
                "index ",
            ]
            .iter()
            .any(|key| value(key).is_some())
            {
                break;
            }
            self.at += 1;
        }
        let is_renamed = file.old.is_some() && file.new.is_some();
        if !is_renamed {
            let Some((old, new)) = both else {
                // The two names cannot be told apart on that line: the others must tell.
                return self.git_body(file, is_new, is_deleted);
            };
            file.old = (!is_new).then_some(old);
            file.new = (!is_deleted).then_some(new);
        }
        self.git_body(file, is_new, is_deleted)
    }

    fn git_body(
        &mut self,
        mut file: FilePatch,
        is_new: bool,
        is_deleted: bool,
    ) -> Result<FilePatch, ParseError> {
        if self.peek().is_some_and(|line| line.starts_with(b"--- ")) && self.is_header() {
            let (old, new) = (file.old.take(), file.new.take());
            self.names(&mut file)?;
            // git's own header says it exactly; these lines may say it with a tab at the end.
            file.old = old.or(file.old);
            file.new = new.or(file.new);
        }
        if is_new {
            file.old = None;
        }
        if is_deleted {
            file.new = None;
        }
        if file.old.is_none() && file.new.is_none() {
            return Err(self.error("nothing says which file is meant"));
        }
        if self
            .peek()
            .is_some_and(|line| line.starts_with(b"GIT binary patch"))
        {
            self.at += 1;
            file.body = self.binary()?;
        } else if self
            .peek()
            .is_some_and(|line| line.starts_with(b"Binary files "))
        {
            return Err(self.error("a binary file is only named and not given: make the patch with `git diff --binary`"));
        } else {
            file.body = Body::Hunks(self.hunks()?);
        }
        Ok(file)
    }

    fn mode(&self, text: &[u8]) -> Result<u32, ParseError> {
        let text = String::from_utf8_lossy(text);
        match u32::from_str_radix(text.trim(), 8) {
            Ok(mode @ (0o100_644 | 0o100_755 | 0o120_000)) => Ok(mode),
            Ok(0o160_000) => Err(self.error("it changes a submodule, which is not supported")),
            _ => Err(self.error(format!(
                "`{}` is no mode that git knows: 100644, 100755 or 120000",
                text.trim()
            ))),
        }
    }

    fn bare_name(&self, text: &[u8]) -> Result<Vec<u8>, ParseError> {
        match text.starts_with(b"\"") {
            true => match unquoted(text) {
                Some((name, _)) => Ok(name),
                None => Err(self.error("the quoted name does not end")),
            },
            false => Ok(text.to_vec()),
        }
    }

    fn hunks(&mut self) -> Result<Vec<Hunk>, ParseError> {
        let mut hunks = Vec::new();
        while let Some(line) = self.peek().filter(|line| line.starts_with(b"@@")) {
            let (old_start, counts) = self.hunk_header(line)?;
            self.at += 1;
            let lines = self.hunk_lines(counts)?;
            hunks.push(Hunk { old_start, lines });
        }
        Ok(hunks)
    }

    /// Reads `@@ -1,2 +1,3 @@`: where the hunk begins, and how many lines it has before and after. A model may leave the
    /// numbers out; then they are none.
    fn hunk_header(&self, line: &[u8]) -> Result<(usize, Option<(usize, usize)>), ParseError> {
        let wrong = || self.error("expected `@@ -LINE,COUNT +LINE,COUNT @@`");
        let text = String::from_utf8_lossy(trimmed(line)).into_owned();
        if text.trim() == "@@" || text.starts_with("@@ ...") {
            return Ok((0, None));
        }
        let mut words = text.split(' ').skip(1);
        let mut range = |sign: char| -> Option<(usize, usize)> {
            let word = words.next()?.strip_prefix(sign)?;
            let (start, count) = match word.split_once(',') {
                Some((start, count)) => (start, count.parse().ok()?),
                None => (word, 1),
            };
            Some((start.parse().ok()?, count))
        };
        let (old, new) = (range('-').ok_or_else(wrong)?, range('+').ok_or_else(wrong)?);
        Ok((old.0, Some((old.1, new.1))))
    }

    fn hunk_lines(&mut self, counts: Option<(usize, usize)>) -> Result<Vec<Line>, ParseError> {
        let mut lines: Vec<Line> = Vec::new();
        let (mut old, mut new) = counts.unwrap_or((usize::MAX, usize::MAX));
        while let Some(line) = self.peek() {
            if line.starts_with(b"\\") {
                // `\ No newline at end of file`, in whatever language.
                if let Some(last) = lines.last_mut() {
                    let (Line::Context(text) | Line::Removed(text) | Line::Added(text)) = last;
                    if text.ends_with(b"\n") {
                        text.pop();
                    }
                }
                self.at += 1;
                continue;
            }
            if old == 0 && new == 0 {
                break;
            }
            let ended = |text: &[u8]| {
                let mut text = text.to_vec();
                if !text.ends_with(b"\n") {
                    // The patch itself lacks its last end of line.
                    text.push(b'\n');
                }
                text
            };
            let is_next_file = |line: &[u8]| {
                line.starts_with(b"diff --git ")
                    || line.starts_with(b"@@")
                    || (line.starts_with(b"--- ") && self.is_header())
            };
            match line {
                [b' ', text @ ..] if old > 0 && new > 0 => {
                    lines.push(Line::Context(ended(text)));
                    (old, new) = (old - 1, new - 1);
                }
                // An editor that takes spaces off the ends of lines leaves nothing of an empty line of context.
                [] | [b'\n'] | [b'\r', b'\n'] if old > 0 && new > 0 && counts.is_some() => {
                    lines.push(Line::Context(ended(line)));
                    (old, new) = (old - 1, new - 1);
                }
                _ if counts.is_none() && is_next_file(line) => break,
                [b'-', text @ ..] if old > 0 => {
                    lines.push(Line::Removed(ended(text)));
                    old -= 1;
                }
                [b'+', text @ ..] if new > 0 => {
                    lines.push(Line::Added(ended(text)));
                    new -= 1;
                }
                _ if counts.is_none() => break,
                _ => {
                    return Err(self.error(format!(
                        "the hunk ends here, and by its own numbers {old} lines of before and {new} of after are missing; begin each of its lines with a space, `-` or `+`"
                    )));
                }
            }
            self.at += 1;
        }
        match counts {
            Some(_) if old > 0 || new > 0 => Err(self.error(format!(
                "the patch ends within a hunk, of which {old} lines of before and {new} of after are missing"
            ))),
            _ => Ok(lines),
        }
    }

    /// What follows `GIT binary patch`: the way forward, and the way back, which is passed over.
    fn binary(&mut self) -> Result<Body, ParseError> {
        let forward = self.binary_part()?;
        let forward =
            forward.ok_or_else(|| self.error("expected `literal SIZE` or `delta SIZE`"))?;
        self.binary_part()?;
        Ok(forward)
    }

    fn binary_part(&mut self) -> Result<Option<Body>, ParseError> {
        let Some(line) = self.peek() else {
            return Ok(None);
        };
        let line = trimmed(line);
        let (size, is_delta) = match (line.strip_prefix(b"literal "), line.strip_prefix(b"delta "))
        {
            (Some(size), _) => (size, false),
            (_, Some(size)) => (size, true),
            _ => return Ok(None),
        };
        let size = String::from_utf8_lossy(size).parse();
        let size = size.map_err(|_| self.error("the size is no number"))?;
        self.at += 1;
        let mut encoded = Vec::new();
        while let Some(line) = self.peek() {
            self.at += 1;
            if trimmed(line).is_empty() {
                break;
            }
            let line = binary::decode_line(trimmed(line));
            let decoded = line.ok_or_else(|| ParseError {
                line: self.at,
                why: "this is no line of base 85".to_owned(),
            })?;
            encoded.extend(decoded);
        }
        let bytes =
            binary::inflate(&encoded, size).map_err(|why| ParseError { line: self.at, why })?;
        Ok(Some(match is_delta {
            true => Body::Delta(bytes),
            false => Body::Replaced(bytes),
        }))
    }
}

/// A line without its end.
fn trimmed(line: &[u8]) -> &[u8] {
    super::bare(line)
}

/// A path without its first component `a/` or `b/`.
fn without_prefix(name: &[u8]) -> &[u8] {
    let stripped = name
        .strip_prefix(b"a/")
        .or_else(|| name.strip_prefix(b"b/"));
    stripped.unwrap_or(name)
}

/// The two names behind `diff --git`. They are not quoted if they only have spaces in them; then they can be told apart only
/// because they are the same but for `a/` and `b/`.
fn names_of(text: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    if text.starts_with(b"\"") {
        let (old, rest) = unquoted(text)?;
        let rest = rest.strip_prefix(b" ")?;
        let new = match rest.starts_with(b"\"") {
            true => unquoted(rest)?.0,
            false => rest.to_vec(),
        };
        return Some((without_prefix(&old).to_vec(), without_prefix(&new).to_vec()));
    }
    if let Some(at) = text.windows(2).position(|pair| pair == b" \"") {
        let (new, _) = unquoted(&text[at + 1..])?;
        return Some((
            without_prefix(&text[..at]).to_vec(),
            without_prefix(&new).to_vec(),
        ));
    }
    let middle = text.len() / 2;
    let (old, new) = (text.get(..middle)?, text.get(middle + 1..)?);
    let is_split = text.get(middle) == Some(&b' ') && without_prefix(old) == without_prefix(new);
    if is_split {
        return Some((without_prefix(old).to_vec(), without_prefix(new).to_vec()));
    }
    let mut words = text.split(|byte| *byte == b' ');
    match (words.next(), words.next(), words.next()) {
        (Some(old), Some(new), None) => {
            Some((without_prefix(old).to_vec(), without_prefix(new).to_vec()))
        }
        _ => None,
    }
}

/// A name in quotes as C has them (git-config(1), `core.quotePath`), and what follows it.
fn unquoted(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = text.strip_prefix(b"\"")?;
    let mut name = Vec::new();
    loop {
        match rest {
            [b'"', after @ ..] => return Some((name, after)),
            [
                b'\\',
                a @ b'0'..=b'3',
                b @ b'0'..=b'7',
                c @ b'0'..=b'7',
                after @ ..,
            ] => {
                let digit = |byte: &u8| byte - b'0';
                name.push(digit(a) << 6 | digit(b) << 3 | digit(c));
                rest = after;
            }
            [b'\\', escaped, after @ ..] => {
                name.push(match escaped {
                    b'a' => 0x07,
                    b'b' => 0x08,
                    b't' => b'\t',
                    b'n' => b'\n',
                    b'v' => 0x0b,
                    b'f' => 0x0c,
                    b'r' => b'\r',
                    other => *other,
                });
                rest = after;
            }
            [byte, after @ ..] => {
                name.push(*byte);
                rest = after;
            }
            [] => return None,
        }
    }
}

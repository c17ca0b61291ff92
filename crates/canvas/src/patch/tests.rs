use proptest::prelude::*;

use super::*;

fn hunks(patch: &str) -> Vec<Hunk> {
    match parse(patch.as_bytes()).unwrap().files.remove(0).body {
        Body::Hunks(hunks) => hunks,
        other => panic!("hunks are expected: {other:?}"),
    }
}

fn applied(old: &str, patch: &str) -> Result<(String, Vec<Drift>), Misfit> {
    let placed = place(old.as_bytes(), &hunks(patch))?;
    Ok((String::from_utf8(placed.content).unwrap(), placed.drifts))
}

const PATCH: &str = "--- a/x\n+++ b/x\n@@ -2,3 +2,3 @@\n b\n-c\n+C\n d\n";

#[test]
fn lines_go_and_come_where_the_numbers_say() {
    let (text, drifts) = applied("a\nb\nc\nd\ne\n", PATCH).unwrap();
    assert_eq!(text, "a\nb\nC\nd\ne\n");
    assert!(drifts.is_empty());
}

#[test]
fn a_hunk_is_taken_where_its_lines_are() {
    let (text, drifts) = applied("1\n2\n3\na\nb\nc\nd\ne\n", PATCH).unwrap();
    assert_eq!(text, "1\n2\n3\na\nb\nC\nd\ne\n");
    assert_eq!(
        drifts,
        [Drift {
            hunk: 1,
            offset: 3,
            fuzz: 0
        }]
    );
    let (text, drifts) = applied("b\nc\nd\n", PATCH).unwrap();
    assert_eq!(text, "b\nC\nd\n");
    assert_eq!(drifts[0].offset, -1);
}

#[test]
fn of_two_places_the_nearer_one_is_taken() {
    let old = "b\nc\nd\nx\nx\nx\nx\nb\nc\nd\n";
    assert_eq!(
        applied(old, PATCH).unwrap().0,
        "b\nC\nd\nx\nx\nx\nx\nb\nc\nd\n"
    );
    let late = PATCH.replace("@@ -2,3 +2,3 @@", "@@ -7,3 +7,3 @@");
    assert_eq!(
        applied(old, &late).unwrap().0,
        "b\nc\nd\nx\nx\nx\nx\nb\nC\nd\n"
    );
}

#[test]
fn the_outermost_lines_of_context_may_differ_and_stay_as_they_are() {
    let (text, drifts) = applied("a\nother\nc\nd\ne\n", PATCH).unwrap();
    assert_eq!(text, "a\nother\nC\nd\ne\n");
    assert_eq!(drifts[0].fuzz, 1);
    applied("a\nb\nother\nd\ne\n", PATCH).unwrap_err();
}

#[test]
fn a_misfit_says_what_was_looked_for_and_what_is_there() {
    let misfit = applied("a\nb\nx\nd\ne\n", PATCH).unwrap_err();
    assert_eq!(
        misfit.to_string(),
        "hunk 1 (line 2) does not fit: expected `c` as line 3, where `x` stands"
    );
    let misfit = applied("", PATCH).unwrap_err();
    assert!(misfit.why.contains("the file ends before that"), "{misfit}");
}

#[test]
fn lines_that_end_in_cr_lf_stay_so() {
    let (text, _) = applied("a\r\nb\r\nc\r\nd\r\n", PATCH).unwrap();
    assert_eq!(text, "a\r\nb\r\nC\r\nd\r\n");
}

#[test]
fn the_end_of_the_file_needs_no_end_of_line() {
    let patch = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n";
    assert_eq!(applied("a", patch).unwrap().0, "b\n");
    applied("a\n", patch).unwrap_err();
    let patch = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n\\ No newline at end of file\n";
    assert_eq!(applied("a\n", patch).unwrap().0, "b");
}

#[test]
fn what_models_write_is_taken() {
    // No numbers, and an empty line of context without its space.
    let patch = "Here is the change:\n```diff\n--- a/x\n+++ b/x\n@@\n b\n-c\n+C\n```\n";
    assert_eq!(applied("a\nb\nc\nd\n", patch).unwrap().0, "a\nb\nC\nd\n");
    let patch = "--- x\n+++ x\n@@ -1,3 +1,3 @@\n a\n\n-c\n+C\n";
    assert_eq!(applied("a\n\nc\n", patch).unwrap().0, "a\n\nC\n");
}

#[test]
fn what_is_no_patch_is_refused_with_the_line() {
    for (text, line, part) in [
        ("", 1, "there is no patch in it"),
        ("@@ -1 +1 @@\n-a\n+b\n", 1, "before any name of a file"),
        (
            "--- a/x\n+++ b/x\n@@ -1,2 +1 @@\n-a\n",
            5,
            "ends within a hunk",
        ),
        (
            "--- a/x\n+++ b/x\n@@ -1,2 +1 @@\n-a\nwhat\n",
            5,
            "begin each of its lines",
        ),
        ("--- a/x\n+++ b/x\n@@ -a +b @@\n", 3, "expected `@@"),
        (
            "--- /dev/null\n+++ /dev/null\n@@ -1 +1 @@\n",
            3,
            "both names",
        ),
        (
            "diff --git a/x b/x\nold mode 100644\nnew mode 160000\n",
            3,
            "submodule",
        ),
        (
            "diff --git a/x b/x\nindex 1..2\nBinary files a/x and b/x differ\n",
            3,
            "git diff --binary",
        ),
        (
            "diff --git a/x b/x\nGIT binary patch\nliteral 1\n!!!\n\n",
            4,
            "base 85",
        ),
    ] {
        let error = parse(text.as_bytes()).unwrap_err();
        assert_eq!(error.line, line, "{text}: {error}");
        assert!(error.why.contains(part), "{text}: {error}");
    }
}

#[test]
fn names_are_read_as_git_writes_them() {
    let patch = "diff --git \"a/\\303\\244\" \"b/\\303\\244\"\nnew file mode 100755\n\
                 diff --git a/with space b/with space\ndeleted file mode 100644\n\
                 diff --git a/old b/new\nsimilarity index 100%\nrename from old\nrename to new\n\
                 diff --git a/from b/to\nsimilarity index 100%\ncopy from from\ncopy to to\n";
    let files = parse(patch.as_bytes()).unwrap().files;
    let names: Vec<_> = files
        .iter()
        .map(|file| {
            let text = |name: &Option<Vec<u8>>| {
                name.as_deref()
                    .map(|name| String::from_utf8_lossy(name).into_owned())
            };
            (text(&file.old), text(&file.new), file.is_copy, file.mode)
        })
        .collect();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(
        names,
        [
            (None, some("ä"), false, Some(0o100_755)),
            (some("with space"), None, false, None),
            (some("old"), some("new"), false, None),
            (some("from"), some("to"), true, None),
        ]
    );
}

#[test]
fn a_hunk_that_takes_away_what_looks_like_a_header_is_one_hunk() {
    let patch = "--- a/x\n+++ b/x\n@@ -1,2 +1,1 @@\n--- a\n+++ b\n";
    // The first line goes, `-- a`; the second comes, `++ b`; so there is one line too few.
    assert!(parse(patch.as_bytes()).is_err());
    let patch = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n--- a\n+++ b\n";
    assert_eq!(applied("-- a\n", patch).unwrap().0, "++ b\n");
}

proptest! {
    #[test]
    fn whatever_is_read_nothing_breaks(text in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&text);
    }

    #[test]
    fn whatever_looks_like_a_patch_nothing_breaks(
        lines in proptest::collection::vec(
            proptest::sample::select(vec![
                "diff --git a/x b/x", "--- a/x", "+++ b/x", "@@ -1,2 +1,2 @@", "@@ -1 +1 @@", "@@", " a", "-a", "+b", "",
                "\\ No newline at end of file", "new file mode 100644", "rename from x", "rename to y",
                "GIT binary patch", "literal 3", "delta 9", "zcmV", "index 1..2",
            ]),
            0..30,
        ),
        old in "[ab\n]{0,12}",
    ) {
        if let Ok(patch) = parse(lines.join("\n").as_bytes()) {
            for file in patch.files {
                match file.body {
                    Body::Hunks(hunks) => drop(place(old.as_bytes(), &hunks)),
                    Body::Delta(delta) => drop(apply_delta(old.as_bytes(), &delta)),
                    Body::Replaced(_) => {}
                }
            }
        }
    }

    #[test]
    fn whatever_a_delta_says_nothing_breaks(old in any::<Vec<u8>>(), delta in any::<Vec<u8>>()) {
        let _ = apply_delta(&old, &delta);
    }
}

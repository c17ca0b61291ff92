//! The fuzz targets over their corpus: whatever fuzzing has found stays found, on any toolchain.
//!
//! `fuzz/` is a workspace of its own, which wants a nightly compiler. What its targets do is plain code, included here.

use std::path::Path;

#[path = "../../../fuzz/src/lib.rs"]
#[allow(
    unreachable_pub,
    reason = "in `fuzz` itself this is the root of a crate"
)]
mod targets;

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let files = std::fs::read_dir(corpus.join(target)).expect("the corpus is in the repository");
    let mut files: Vec<_> = files
        .map(|file| file.expect("a directory can be read").path())
        .collect();
    files.sort();
    assert!(files.len() > 5, "the corpus of `{target}` is lost");
    for file in files {
        let bytes = std::fs::read(&file).expect("a file of the corpus can be read");
        let name = file.file_name().unwrap_or_default().display();
        // The harness shows this only if the input below panics.
        println!("fuzz/corpus/{target}/{name}");
        run(&bytes);
    }
}

#[test]
fn logs_of_the_corpus_are_read_or_refused() {
    replay("log", targets::log::run);
}

#[test]
fn records_of_the_corpus_are_taken_in_or_refused() {
    replay("journal", targets::journal::run);
}

#[test]
fn configs_of_the_corpus_are_read_or_refused() {
    replay("config", targets::config::run);
}

#[test]
fn jobs_of_the_corpus_are_run_or_refused() {
    replay("job", targets::job::run);
}

#[cfg(feature = "ipc")]
#[test]
fn requests_of_the_corpus_are_read_or_refused() {
    replay("request", targets::request::run);
}

#[cfg(feature = "a2a")]
#[test]
fn requests_of_agents_of_the_corpus_are_read_or_refused() {
    replay("a2a", targets::a2a::run);
}

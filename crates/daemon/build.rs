//! Tells the binary which commit it was built from, and with which features.
//!
//! For the commit it asks `git`, and only of the repository that this crate is part of: a source archive that was unpacked inside some other
//! repository must not claim that one's commit. Where there is no git, no repository or no commit: `unknown`.

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let manifest = PathBuf::from(
        std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it for every build script"),
    );
    let workspace = manifest.join("../..");
    let commit = commit(&workspace).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=TINKERBELL_COMMIT={commit}");
    println!("cargo::rustc-env=TINKERBELL_FEATURES={}", features());
    for path in depends_on(&workspace) {
        // A path that does not exist would count as changed in every build.
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
}

/// The commit in twelve digits, with a mark if tracked files differ from it.
fn commit(workspace: &Path) -> Option<String> {
    let root = PathBuf::from(git(workspace, &["rev-parse", "--show-toplevel"])?);
    if root.canonicalize().ok()? != workspace.canonicalize().ok()? {
        return None;
    }
    let commit = git(workspace, &["rev-parse", "--verify", "--short=12", "HEAD"])?;
    let changed = git(
        workspace,
        &["status", "--porcelain", "--untracked-files=no"],
    )?;
    Some(if changed.is_empty() {
        commit
    } else {
        format!("{commit}-dirty")
    })
}

/// The features that are on, as cargo says them: `CARGO_FEATURE_YAML=1`. That way no list is there to be forgotten.
fn features() -> String {
    let mut names: Vec<String> = std::env::vars()
        .filter_map(|(name, _)| {
            Some(
                name.strip_prefix("CARGO_FEATURE_")?
                    .to_lowercase()
                    .replace('_', "-"),
            )
        })
        // What begins with an underscore is only there for other features to share.
        .filter(|name| name != "default" && !name.starts_with('-'))
        .collect();
    names.sort();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(" ")
    }
}

/// What the answer depends on: where HEAD points, what it points at, and the sources that can differ from it. Directories
/// are watched with all that is in them.
fn depends_on(workspace: &Path) -> Vec<PathBuf> {
    let mut paths = vec![
        PathBuf::from("build.rs"),
        workspace.join("Cargo.toml"),
        workspace.join("Cargo.lock"),
    ];
    let git_path = |name: &str| git(workspace, &["rev-parse", "--git-path", name]);
    let branch = git(workspace, &["symbolic-ref", "--quiet", "HEAD"]);
    let git_files = ["HEAD", "packed-refs"].into_iter().chain(branch.as_deref());
    paths.extend(
        git_files
            .filter_map(git_path)
            .map(|path| workspace.join(path)),
    );
    let crates = std::fs::read_dir(workspace.join("crates"))
        .into_iter()
        .flatten()
        .flatten();
    for crate_dir in crates.map(|entry| entry.path()) {
        paths.extend(["Cargo.toml", "src", "bin"].map(|name| crate_dir.join(name)));
    }
    paths
}

fn git(directory: &Path, arguments: &[&str]) -> Option<String> {
    // Without locks: a build must not get in the way of a person's own git command.
    let output = Command::new("git")
        .args(["--no-optional-locks", "-C"])
        .arg(directory)
        .args(arguments)
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

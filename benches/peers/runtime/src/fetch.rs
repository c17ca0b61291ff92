//! What is measured beside ours, fetched by name if it is not there yet, and our own binary, built.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

/// The version measured; another one may be something else.
const RESTATE: &str = "1.7.12";
/// The same of DBOS.
const DBOS: &str = "3.4.0";

/// The server of Restate, from its package of the Node world.
pub(crate) fn restate(dir: &Path) -> Result<PathBuf> {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        other => bail!("there is no restate-server for {other}"),
    };
    let binary = dir.join(format!(
        "node_modules/@restatedev/restate-server-linux-{architecture}/bin/restate-server"
    ));
    if !binary.exists() {
        run(Command::new("npm")
            .args([
                "install",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--prefix",
            ])
            .arg(dir)
            .arg(format!("@restatedev/restate-server@{RESTATE}")))?;
    }
    Ok(binary)
}

/// A Python that has DBOS.
pub(crate) fn dbos(dir: &Path) -> Result<PathBuf> {
    let python = dir.join("bin/python");
    if !dir.join("bin/dbos").exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(dir))?;
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet"])
            .arg(format!("dbos=={DBOS}")))?;
    }
    Ok(python)
}

/// Our binary, as users get it.
pub(crate) fn tinkerbell(root: &Path) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    run(Command::new(cargo)
        .args([
            "build",
            "--release",
            "-p",
            "daemon",
            "--bin",
            "tinkerbell",
            "--target-dir",
        ])
        .arg(root.join("target"))
        .current_dir(root))?;
    Ok(root.join("target/release/tinkerbell"))
}

fn run(command: &mut Command) -> Result<()> {
    eprintln!("{command:?}");
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("starting {command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

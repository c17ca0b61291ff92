//! Go and Erlang: programs of their own, built once and run for every cell, if their tools are there.

use std::path::Path;
use std::process::Command;

use crate::cell::Row;

/// A runtime that is a language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Foreign {
    Go,
    Erlang,
}

impl Foreign {
    /// Builds the program into a directory; what is missing, if something is.
    pub(crate) fn build(self, dir: &Path) -> Result<(), String> {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("other");
        let mut build = match self {
            Self::Go => {
                let mut build = Command::new("go");
                build
                    .args(["build", "-o"])
                    .arg(dir.join("bench_peer.go"))
                    .arg(sources.join("bench_peer.go"));
                build
            }
            Self::Erlang => {
                let mut build = Command::new("erlc");
                build.arg("-o").arg(dir).arg(sources.join("bench_peer.erl"));
                build
            }
        };
        let output = build
            .output()
            .map_err(|error| format!("{}: {error}", build.get_program().display()))?;
        if output.status.success() {
            Ok(())
        } else {
            let said = [output.stdout, output.stderr].concat();
            Err(format!(
                "does not build: {}",
                String::from_utf8_lossy(&said)
            ))
        }
    }

    /// The program for one cell. With one thread that runs tasks, as all the others have.
    pub(crate) fn program(self, dir: &Path, row: &str) -> Command {
        match self {
            Self::Go => {
                let mut program = Command::new(dir.join("bench_peer.go"));
                program.env("GOMAXPROCS", "1").arg(row);
                program
            }
            Self::Erlang => {
                let mut program = Command::new("erl");
                let options = ["+S", "1:1", "+P", "2000000", "-noshell", "-pa"];
                program
                    .args(options)
                    .arg(dir)
                    .args(["-run", "bench_peer", "main", row]);
                program
            }
        }
    }

    /// The program for one row of the table.
    pub(crate) fn cell(self, dir: &Path, row: Row) -> Command {
        self.program(dir, &row.to_string())
    }
}

//! The tinkerbell process.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The same binary supervises the commands that it runs; before anything else, since that is to cost nothing.
    tools::supervisor::main_if_requested();
    ExitCode::from(daemon::main(std::env::args_os()))
}

//! Writes the generated code anew: `cargo xtask proto`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let root = protos::root();
    match protos::generate(&root, &root.join(protos::GENERATED)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot generate {}: {error}", protos::GENERATED);
            ExitCode::FAILURE
        }
    }
}

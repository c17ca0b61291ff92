//! The one door for the habits of this repository: `cargo xtask test`, `cargo xtask sim`, `cargo xtask ci`, `cargo xtask
//! bench`.
//!
//! Plain standard library, so that the door opens fast. Whatever the tests need beside Rust and a C compiler is fetched
//! here by package name and kept under `target/tools`; nothing on the machine is changed.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

const USAGE: &str = "\
cargo xtask COMMAND

  test [ARGS]   fetch what the tests need, then run them all; ARGS go to `cargo test`
  sim [--seed N] [--seeds N] [--planted [FAULT]]
                runs of the simulation: so many, from this seed on; with planted faults, each until it is found
  ci            everything that must pass before a change is taken in
  shuttle       the channels between threads, under many orders of the threads
  bench         the figures of benches/README.md, in one run
  fuzz [TARGET] [SECONDS]
                the fuzz targets, or one of them, for half an hour each or as long as said (docs/fuzzing.md)
  proto         the Rust code of proto/, written anew
  sanitize      the tests of everything with threads or `unsafe`, under the address sanitizer and the thread sanitizer
";

fn main() -> ExitCode {
    let mut args = env::args().skip(1);
    let done = match args.next().as_deref() {
        Some("test") => test(&args.collect::<Vec<_>>()),
        Some("sim") => sim(&mut args),
        Some("ci") => ci(),
        Some("shuttle") => shuttle(),
        Some("bench") => bench(),
        Some("fuzz") => fuzz(args.next().as_deref(), args.next().as_deref()),
        Some("proto") => proto(),
        Some("sanitize") => sanitize(),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::FAILURE
        }
    }
}

type Done = Result<(), String>;

/// What a test needs that Cargo cannot bring: a program, and the Debian package that has it.
struct Tool {
    program: &'static str,
    package: &'static str,
    /// What is not tested without it.
    purpose: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool {
        program: "promtool",
        package: "prometheus",
        purpose: "that Prometheus accepts /metrics",
    },
    Tool {
        program: "curl",
        package: "curl",
        purpose: "the probes with a client that is not ours",
    },
    Tool {
        program: "git",
        package: "git",
        purpose: "the canvas against git itself",
    },
    Tool {
        program: "openssl",
        package: "openssl",
        purpose: "TLS with certificates that are made for the test",
    },
];

/// Packages of Python that a test needs, in an environment of their own below `target/tools`.
struct PythonPackages {
    environment: &'static str,
    packages: &'static [&'static str],
    /// What is not tested without them.
    purpose: &'static str,
}

const PYTHON: &[PythonPackages] = &[
    PythonPackages {
        environment: "python",
        packages: &["jsonschema==4.26.0", "schemathesis==4.32.5"],
        purpose: "that answers are as openapi.json describes them",
    },
    PythonPackages {
        environment: "python-grpc",
        packages: &[
            "grpcio==1.85.3",
            "grpcio-health-checking==1.85.1",
            "grpcio-reflection==1.85.1",
            "grpcio-status==1.85.3",
            "protobuf==7.36.2",
        ],
        purpose: "gRPC with clients that are not ours",
    },
    PythonPackages {
        environment: "a2a-sdk",
        packages: &["a2a-sdk[grpc]==1.3.0"],
        purpose: "a2a with the protocol's official client",
    },
];

/// Packages of JavaScript that a test needs, in a directory of their own below `target/tools`.
struct NodePackages {
    directory: &'static str,
    packages: &'static [&'static str],
    /// What is not tested without them.
    purpose: &'static str,
}

const NODE: &[NodePackages] = &[NodePackages {
    directory: "a2a-js",
    // The last two are what the first asks for if it is to speak gRPC.
    packages: &[
        "@a2a-js/sdk@1.3.0",
        "@grpc/grpc-js@1.14.7",
        "@bufbuild/protobuf@2.17.0",
    ],
    purpose: "a2a with the protocol's official client for JavaScript",
}];

/// A program from the registry of crates that a test needs, below `target/tools`.
struct CratesProgram {
    directory: &'static str,
    package: &'static str,
    version: &'static str,
    /// What is not tested without it.
    purpose: &'static str,
}

const CRATES: &[CratesProgram] = &[CratesProgram {
    directory: "a2a-cli",
    package: "a2a-cli",
    version: "0.4.5",
    purpose: "a2a with the protocol's official command line",
}];

fn test(args: &[String]) -> Done {
    let root = root();
    let tools = root.join("target/tools");
    let skips = root.join("target/skipped-tests.txt");
    let is_ci = env::var("CI").is_ok_and(|ci| ci == "true");
    fs::create_dir_all(&tools)
        .map_err(|error| format!("cannot make {}: {error}", tools.display()))?;
    let mut missing = Vec::new();
    for tool in TOOLS {
        if let Err(why) = provide(tool, &tools) {
            missing.push(format!(
                "{} (Debian package `{}`): {why}; not tested: {}",
                tool.program, tool.package, tool.purpose
            ));
        }
    }
    for wanted in PYTHON {
        if let Err(why) = provide_python(wanted, &tools) {
            missing.push(format!(
                "packages of Python for {}: {why}; not tested: {}",
                wanted.environment, wanted.purpose
            ));
        }
    }
    for wanted in NODE {
        if let Err(why) = provide_node(wanted, &tools) {
            missing.push(format!(
                "packages of JavaScript for {}: {why}; not tested: {}",
                wanted.directory, wanted.purpose
            ));
        }
    }
    for wanted in CRATES {
        if let Err(why) = provide_crate(wanted, &tools) {
            missing.push(format!(
                "{} {}: {why}; not tested: {}",
                wanted.package, wanted.version, wanted.purpose
            ));
        }
    }
    let _ = fs::remove_file(&skips);
    let tested = run(Command::new(cargo())
        .args(["test", "--workspace", "--all-features"])
        .args(args)
        .current_dir(&root)
        .env("PATH", path_with(&tools.join("bin")))
        .env("TINKERBELL_SKIPPED_TESTS", &skips));
    let skipped = fs::read_to_string(&skips).unwrap_or_default();
    let skipped: Vec<_> = skipped.lines().collect();
    for line in &missing {
        eprintln!("MISSING: {line}");
    }
    for line in &skipped {
        eprintln!("SKIPPED: {line}");
    }
    eprintln!(
        "{} tests skipped, {} tools missing",
        skipped.len(),
        missing.len()
    );
    tested?;
    if is_ci && !(missing.is_empty() && skipped.is_empty()) {
        return Err("under CI nothing may be skipped".to_owned());
    }
    Ok(())
}

/// The simulation, as its tests run it; `docs/simulation.md` has what it checks.
fn sim(args: &mut dyn Iterator<Item = String>) -> Done {
    let mut variables = Vec::new();
    let mut planted = false;
    let mut args = args.peekable();
    while let Some(arg) = args.next() {
        let variable = match arg.as_str() {
            "--seed" => "TINKERBELL_SEED",
            "--seeds" => "TINKERBELL_CASES",
            "--planted" => {
                planted = true;
                if args.peek().is_none_or(|next| next.starts_with("--")) {
                    continue;
                }
                "TINKERBELL_PLANTED"
            }
            _ => return Err(USAGE.to_owned()),
        };
        let value = args.next().ok_or(USAGE)?;
        variables.push((variable, value));
    }
    let step = if planted { &PLANTED } else { &SIM };
    run(Command::new(cargo())
        .args(step.args)
        .envs(step.variables.iter().copied())
        .envs(variables)
        .current_dir(root()))
}

/// The generated code of the `grpc` transport, from `proto/`.
fn proto() -> Done {
    run(Command::new(cargo())
        .args(["run", "--quiet", "--package", "protos"])
        .current_dir(root()))
}

/// Makes sure that a program can be found: on the machine, or unpacked from its package below `tools`.
fn provide(tool: &Tool, tools: &Path) -> Done {
    let bin = tools.join("bin");
    if bin.join(tool.program).exists() || is_on_path(tool.program) {
        return Ok(());
    }
    for needed in ["apt-get", "dpkg"] {
        if !is_on_path(needed) {
            return Err(format!(
                "is not installed, and there is no `{needed}` to get it with"
            ));
        }
    }
    let unpacked = tools.join(tool.package);
    fs::create_dir_all(&unpacked).map_err(|error| error.to_string())?;
    let download = || {
        run(Command::new("apt-get")
            .args(["download", "--quiet", tool.package])
            .current_dir(&unpacked))
    };
    if download().is_err() {
        // A machine that never looked has no list of packages.
        run(Command::new("apt-get").args(["update", "--quiet"]))?;
        download()?;
    }
    let package = fs::read_dir(&unpacked)
        .map_err(|error| error.to_string())?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or("package was downloaded and is not there")?;
    run(Command::new("dpkg").arg("-x").arg(&package).arg(&unpacked))?;
    let program = unpacked.join("usr/bin").join(tool.program);
    if !program.exists() {
        return Err(format!("package has no usr/bin/{}", tool.program));
    }
    fs::create_dir_all(&bin).map_err(|error| error.to_string())?;
    std::os::unix::fs::symlink(&program, bin.join(tool.program)).map_err(|error| error.to_string())
}

/// Makes sure that an environment of Python has its packages. It is whole when the list of them is beside it.
fn provide_python(wanted: &PythonPackages, tools: &Path) -> Done {
    let environment = tools.join(wanted.environment);
    let list = environment.join("packages.txt");
    let packages = wanted.packages.join("\n");
    if fs::read_to_string(&list).is_ok_and(|there| there == packages) {
        return Ok(());
    }
    if !is_on_path("python3") {
        return Err("there is no `python3`".to_owned());
    }
    run(Command::new("python3")
        .args(["-m", "venv"])
        .arg(&environment))?;
    run(Command::new(environment.join("bin/pip"))
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .args(wanted.packages))?;
    fs::write(&list, packages).map_err(|error| error.to_string())
}

/// Makes sure that a directory has its packages of JavaScript. It is whole when the list of them is beside it.
fn provide_node(wanted: &NodePackages, tools: &Path) -> Done {
    let directory = tools.join(wanted.directory);
    let list = directory.join("packages.txt");
    let packages = wanted.packages.join("\n");
    if fs::read_to_string(&list).is_ok_and(|there| there == packages) {
        return Ok(());
    }
    if !is_on_path("node") || !is_on_path("npm") {
        return Err(
            "there is no `node`, or no `npm` (Debian packages `nodejs` and `npm`)".to_owned(),
        );
    }
    fs::create_dir_all(&directory).map_err(|error| error.to_string())?;
    run(Command::new("npm")
        .args([
            "install",
            "--silent",
            "--no-audit",
            "--no-fund",
            "--ignore-scripts",
        ])
        .arg("--prefix")
        .arg(&directory)
        .args(wanted.packages))?;
    fs::write(&list, packages).map_err(|error| error.to_string())
}

/// Makes sure that a program is there in its version. Without TLS, which tests on one machine do not ask for, and which
/// takes the longest to build.
fn provide_crate(wanted: &CratesProgram, tools: &Path) -> Done {
    let directory = tools.join(wanted.directory);
    let list = directory.join("packages.txt");
    let package = format!("{} {}", wanted.package, wanted.version);
    if fs::read_to_string(&list).is_ok_and(|there| there == package) {
        return Ok(());
    }
    run(Command::new(cargo())
        .args([
            "install",
            "--quiet",
            "--locked",
            "--debug",
            "--no-default-features",
            "--force",
        ])
        .args([wanted.package, "--version", wanted.version, "--root"])
        .arg(&directory)
        .env("CARGO_PROFILE_DEV_DEBUG", "0"))?;
    fs::write(&list, package).map_err(|error| error.to_string())
}

/// One thing that must pass: a `cargo` command line and the variables it runs with.
struct Step {
    name: &'static str,
    args: &'static [&'static str],
    variables: &'static [(&'static str, &'static str)],
}

impl Step {
    const fn new(name: &'static str, args: &'static [&'static str]) -> Self {
        Self {
            name,
            args,
            variables: &[],
        }
    }
}

const SIM: Step = Step::new(
    "simulation",
    &[
        "test",
        "-p",
        "sim",
        "--test",
        "simulation",
        "--",
        "--nocapture",
        "--exact",
        "every_promise_is_kept_whatever_goes_wrong",
    ],
);

/// Faults are compiled in by a `cfg` that no feature can set, and so in a place of their own.
const PLANTED: Step = Step {
    name: "planted faults",
    args: &[
        "test",
        "-p",
        "sim",
        "-p",
        "wal",
        "--test",
        "planted",
        "--test",
        "model",
        "--target-dir",
        "target/planted",
        "--",
        "--nocapture",
        "--test-threads",
        "1",
    ],
    variables: &[("RUSTFLAGS", "--cfg planted")],
};

const CI_STEPS: &[Step] = &[
    Step::new("format", &["fmt", "--all", "--check"]),
    Step::new(
        "lint",
        &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "-D",
            "warnings",
        ],
    ),
    Step::new("test", &["xtask", "test"]),
    Step::new("orders of threads", &["xtask", "shuttle"]),
    PLANTED,
    Step::new("default features", &["build", "-p", "daemon"]),
    Step::new(
        "no features",
        &["build", "-p", "daemon", "--no-default-features"],
    ),
    Step::new("feature yaml", &feature("yaml")),
    Step::new("feature ipc", &feature("ipc")),
    Step::new("feature grpc", &feature("grpc")),
    Step::new("feature a2a", &feature("a2a")),
    Step {
        name: "documentation",
        args: &["doc", "--workspace", "--no-deps", "--all-features"],
        variables: &[("RUSTDOCFLAGS", "-D warnings")],
    },
];

/// Builds the daemon with one feature alone.
const fn feature(name: &'static str) -> [&'static str; 6] {
    [
        "build",
        "-p",
        "daemon",
        "--no-default-features",
        "--features",
        name,
    ]
}

fn ci() -> Done {
    let root = root();
    let mut times = Vec::new();
    for step in CI_STEPS {
        times.push(timed(step.name, || {
            run(Command::new(cargo())
                .args(step.args)
                .envs(step.variables.iter().copied())
                .current_dir(&root))
        })?);
    }
    times.push(timed("smoke run", || smoke_run(&root))?);
    for (name, seconds) in times {
        eprintln!("{seconds:>6} s  {name}");
    }
    Ok(())
}

/// The README's first command, twice: the second time nothing is repeated.
fn smoke_run(root: &Path) -> Done {
    let data_dir = root.join("target/smoke-run");
    if data_dir.exists() {
        fs::remove_dir_all(&data_dir).map_err(|error| error.to_string())?;
    }
    for _ in 0..2 {
        run(Command::new(cargo())
            .args([
                "run",
                "-p",
                "daemon",
                "--",
                "--config",
                "examples/first-run.toml",
            ])
            .args(["--set", "http.listen=127.0.0.1:0", "--set"])
            .arg(format!("node.data_dir={}", data_dir.display()))
            .current_dir(root))?;
    }
    Ok(())
}

/// Builds with shuttle's locks and channels in place of the standard library's, so in a directory of its own.
fn shuttle() -> Done {
    let root = root();
    run(Command::new(cargo())
        .args(["test", "-p", "wal", "-p", "runtime", "--test", "shuttle"])
        .current_dir(&root)
        .env("RUSTFLAGS", "--cfg shuttle")
        .env("CARGO_TARGET_DIR", root.join("target/shuttle")))
}

fn bench() -> Done {
    let root = root();
    for (package, bench, features) in [
        ("scheduler", "yields", ""),
        ("wal", "append", ""),
        ("daemon", "boot", ""),
        ("daemon", "load", "ipc,grpc"),
    ] {
        run(Command::new(cargo())
            .args(["bench", "-p", package, "--bench", bench])
            .args(["--features", features])
            .current_dir(&root))?;
    }
    Ok(())
}

fn timed(name: &str, step: impl FnOnce() -> Done) -> Result<(String, u64), String> {
    eprintln!("== {name}");
    let started = Instant::now();
    step().map_err(|why| format!("{name}: {why}"))?;
    Ok((name.to_owned(), started.elapsed().as_secs()))
}

const FUZZ_TARGETS: [&str; 6] = ["log", "journal", "config", "job", "request", "a2a"];
/// How long a target runs, in seconds.
const FUZZ_SECONDS: &str = "1800";

/// Runs fuzz targets one after another. What they find on the way is kept under `fuzz/target`; the committed corpus is
/// only read.
fn fuzz(target: Option<&str>, seconds: Option<&str>) -> Done {
    let fuzz = root().join("fuzz");
    let targets = match target {
        Some(target) => vec![target],
        None => FUZZ_TARGETS.to_vec(),
    };
    for target in targets {
        let found = fuzz.join("target/corpus").join(target);
        fs::create_dir_all(&found)
            .map_err(|error| format!("cannot make {}: {error}", found.display()))?;
        let dictionary = fuzz.join(format!("dict/{target}.dict"));
        let mut command = nightly("fuzz");
        command
            .args(["run", target])
            .arg(found)
            .arg(fuzz.join("corpus").join(target))
            .arg("--")
            .arg(format!(
                "-max_total_time={}",
                seconds.unwrap_or(FUZZ_SECONDS)
            ))
            .args([
                "-rss_limit_mb=2048",
                "-timeout=20",
                "-max_len=16384",
                "-print_final_stats=1",
            ])
            .current_dir(&fuzz);
        if dictionary.exists() {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        run(&mut command)?;
    }
    Ok(())
}

/// What the thread sanitizer looks at: threads of our own that share memory.
const WITH_THREADS: [&str; 5] = ["metrics", "pal", "scheduler", "wal", "runtime"];
/// What has `unsafe` code. Its threads are tokio's, whose hand-over of readiness by way of the kernel the thread sanitizer
/// takes for a race.
const WITH_UNSAFE: &str = "tools";

fn sanitize() -> Done {
    let root = root();
    for sanitizer in ["address", "thread"] {
        let mut command = nightly("test");
        command
            .args(["--tests", "--target", "x86_64-unknown-linux-gnu"])
            .args(WITH_THREADS.iter().flat_map(|name| ["-p", name]))
            .env("RUSTFLAGS", format!("-Zsanitizer={sanitizer}"))
            .env("LSAN_OPTIONS", format!("suppressions={}", root.join("xtask/leaks.txt").display()))
            // Beside the ordinary build, not instead of it.
            .env("CARGO_TARGET_DIR", root.join("target/sanitize"))
            // Some tests panic on purpose, and a trace takes half a minute here.
            .env("RUST_BACKTRACE", "0")
            .current_dir(&root);
        if sanitizer == "thread" {
            // What the standard library does between threads has to be seen, or all of it looks like a race. It is built
            // from the toolchain's component `rust-src`.
            command.arg("-Zbuild-std");
        } else {
            command.args(["-p", WITH_UNSAFE]);
        }
        run(&mut command)?;
    }
    Ok(())
}

/// A command of Cargo on the nightly toolchain.
fn nightly(command: &str) -> Command {
    // Not `cargo()`: that is the toolchain this runs on.
    let mut cargo = Command::new("cargo");
    cargo.args(["+nightly", command]);
    cargo
}

/// Runs a command and says what it was if it fails.
fn run(command: &mut Command) -> Done {
    let shown = format!("{command:?}");
    let status = command
        .status()
        .map_err(|error| format!("{shown}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{shown}: {status}"))
    }
}

fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// The search path with a directory of ours behind what the machine has.
fn path_with(directory: &Path) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let all = env::split_paths(&path).chain([directory.to_owned()]);
    env::join_paths(all).unwrap_or(path)
}

fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("because xtask lies in the root of the repository")
        .to_owned()
}

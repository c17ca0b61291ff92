//! Named daemons, and which daemon is meant.
//!
//! Names are kept in `contexts.toml` in the user's config directory. The file is replaced whole, by a rename, so nobody
//! ever reads half of one.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use api::ipc::Address;
use serde::Deserialize;
use toml::Spanned;

use super::{Failure, Target};
use crate::boot::absolute;
use crate::cli::{AskArgs, ContextCommand, DaemonArgs, GlobalArgs, exit};
use crate::client::table::{Cell, Table};
use crate::config::{Config, Environment};

const SOCKET: &str = "TINKERBELL_SOCKET";
const CONTEXT: &str = "TINKERBELL_CONTEXT";

const HEAD: &str = "\
# Names for daemons, written by `tinkerbell context`; comments are not kept.
";

/// The daemon that is meant: the first that is said of the flags, the environment, the context in use, and the config.
pub(super) fn target(
    global: &GlobalArgs,
    environment: &Environment,
    args: &DaemonArgs,
) -> Result<Target, Failure> {
    let variable = |name: &str| -> Result<Option<String>, Failure> {
        let Some(value) = environment.variable(name) else {
            return Ok(None);
        };
        let value = value.to_str().map(str::to_owned);
        value
            .map(Some)
            .ok_or_else(|| Failure::usage(format!("{name} is not UTF-8")))
    };
    if let Some(address) = &args.socket {
        return Target::parse(address, "--socket".to_owned());
    }
    if let Some(name) = &args.context {
        return Contexts::load(environment)?.target(name, "--context");
    }
    if let Some(address) = variable(SOCKET)? {
        return Target::parse(&address, SOCKET.to_owned());
    }
    if let Some(name) = variable(CONTEXT)? {
        return Contexts::load(environment)?.target(&name, CONTEXT);
    }
    let contexts = Contexts::load(environment)?;
    if let Some(name) = &contexts.current {
        return contexts.target(name, "in use");
    }
    let loaded = Config::load(&global.load_options(environment.clone(), true))
        .map_err(|errors| Failure::config(errors, "the config"))?;
    let how = match loaded.config.ipc.listen.is_empty() {
        true => "`node.data_dir` of the config",
        false => "`ipc.listen` of the config",
    };
    let mut addresses = crate::transports::ipc_addresses(&loaded.config).into_iter();
    match addresses.next() {
        Some(address) => Ok(Target {
            address,
            how: how.to_owned(),
        }),
        None => Err(Failure::usage("the config names no address of a daemon")),
    }
}

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    current: Option<Spanned<String>>,
    #[serde(default)]
    contexts: BTreeMap<Spanned<String>, Spanned<String>>,
}

/// All names.
#[derive(Debug)]
struct Contexts {
    path: PathBuf,
    current: Option<String>,
    named: BTreeMap<String, Address>,
}

impl Contexts {
    /// Reads them; there are none where there is no file.
    fn load(environment: &Environment) -> Result<Self, Failure> {
        let mut contexts = Self {
            path: place(environment).unwrap_or_default(),
            current: None,
            named: BTreeMap::new(),
        };
        let text = match fs::read_to_string(&contexts.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(contexts),
            Err(error) => {
                let path = contexts.path.display();
                return Err(Failure::said(
                    exit::CONFIG,
                    format!("cannot read {path}: {error}"),
                ));
            }
        };
        contexts.take(&text)?;
        Ok(contexts)
    }

    fn take(&mut self, text: &str) -> Result<(), Failure> {
        let path = self.path.clone();
        let wrong = |at: Option<usize>, what: &str| wrong(&path, text, at, what);
        let written: Written = toml::from_str(text)
            .map_err(|error| wrong(error.span().map(|span| span.start), error.message()))?;
        for (name, address) in written.contexts {
            check_name(name.get_ref()).map_err(|what| wrong(Some(name.span().start), &what))?;
            let parsed = address.get_ref().parse::<Address>();
            let parsed =
                parsed.map_err(|error| wrong(Some(address.span().start), &error.to_string()))?;
            self.named.insert(name.into_inner(), parsed);
        }
        if let Some(current) = written.current {
            if !self.named.contains_key(current.get_ref()) {
                let what = format!("there is no context `{}`", current.get_ref());
                return Err(wrong(Some(current.span().start), &what));
            }
            self.current = Some(current.into_inner());
        }
        Ok(())
    }

    fn known(&self, name: &str) -> Result<&Address, Failure> {
        self.named.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.named.keys().map(String::as_str).collect();
            let help = match names.as_slice() {
                [] => "there are none; `tinkerbell context add NAME ADDRESS` makes one".to_owned(),
                names => format!("there are: {}", names.join(", ")),
            };
            Failure::usage(format!("there is no context `{name}`")).with_help(help)
        })
    }

    fn target(&self, name: &str, why: &str) -> Result<Target, Failure> {
        Ok(Target {
            address: self.known(name)?.clone(),
            how: format!("context `{name}`, {why}"),
        })
    }

    /// Writes them, all or nothing.
    fn save(&self) -> Result<(), Failure> {
        if self.path.as_os_str().is_empty() {
            return Err(Failure::said(
                exit::CONFIG,
                "there is no place for contexts: neither XDG_CONFIG_HOME nor HOME is set",
            ));
        }
        self.write().map_err(|error| {
            let path = self.path.display();
            Failure::said(exit::IO, format!("cannot write {path}: {error}"))
        })
    }

    fn write(&self) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new(""));
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)?;
        // A name of this process' own, so that two that write at once do not write into one file.
        let draft = directory.join(format!(".contexts.toml.{}", std::process::id()));
        let written = File::create(&draft).and_then(|mut file| {
            file.write_all(self.to_toml().as_bytes())?;
            file.sync_all()?;
            fs::rename(&draft, &self.path)
        });
        if written.is_err() {
            // What is left of it is of no use to anybody.
            let _ = fs::remove_file(&draft);
        }
        written
    }

    fn to_toml(&self) -> String {
        let mut file = toml::Table::new();
        if let Some(current) = &self.current {
            file.insert("current".to_owned(), current.clone().into());
        }
        let contexts = self
            .named
            .iter()
            .map(|(name, address)| (name.clone(), address.to_string().into()));
        file.insert(
            "contexts".to_owned(),
            contexts.collect::<toml::Table>().into(),
        );
        format!("{HEAD}\n{file}")
    }
}

fn place(environment: &Environment) -> Option<PathBuf> {
    // A relative path is to be ignored, says the XDG Base Directory Specification.
    let base = environment.variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let base = base.filter(|base| base.is_absolute());
    let home = || Some(PathBuf::from(environment.variable("HOME")?).join(".config"));
    Some(base.or_else(home)?.join("tinkerbell/contexts.toml"))
}

fn wrong(path: &Path, text: &str, at: Option<usize>, what: &str) -> Failure {
    let before = &text[..at.unwrap_or(0).min(text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before
        .rsplit('\n')
        .next()
        .map_or(1, |start| start.chars().count() + 1);
    let place = format!("{}:{line}:{column}", path.display());
    Failure::said(exit::CONFIG, format!("{what}, at {place}"))
        .with_help("mend the file, or remove it to begin anew")
}

fn check_name(name: &str) -> Result<(), String> {
    const LEN_MAX: usize = 64;
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match !name.is_empty() && name.len() <= LEN_MAX && name.chars().all(word) {
        true => Ok(()),
        false => Err(format!(
            "`{name}` cannot be a context's name: expected 1 to {LEN_MAX} letters, digits and `-`, `_`, `.`"
        )),
    }
}

/// Does what `tinkerbell context …` says.
pub(super) fn run(
    global: &GlobalArgs,
    environment: &Environment,
    command: ContextCommand,
) -> Result<u8, Failure> {
    match command {
        ContextCommand::List { json } => list(&Contexts::load(environment)?, json)?,
        ContextCommand::Show(ask) => show(global, environment, &ask)?,
        ContextCommand::Add { name, address } => {
            check_name(&name).map_err(Failure::usage)?;
            let mut address = Target::parse(&address, String::new())?.address;
            if let Address::Unix(path) = &mut address {
                *path = absolute(path);
            }
            let mut contexts = Contexts::load(environment)?;
            contexts.named.insert(name, address);
            contexts.save()?;
        }
        ContextCommand::Use { name } => {
            let mut contexts = Contexts::load(environment)?;
            contexts.known(&name)?;
            contexts.current = Some(name);
            contexts.save()?;
        }
        ContextCommand::Remove { name } => {
            let mut contexts = Contexts::load(environment)?;
            contexts.known(&name)?;
            contexts.named.remove(&name);
            contexts.current.take_if(|current| *current == name);
            contexts.save()?;
        }
    }
    Ok(exit::OK)
}

fn list(contexts: &Contexts, json: bool) -> Result<(), Failure> {
    let mut table = Table::new(&["NAME", "ADDRESS", "IN USE"]);
    for (name, address) in &contexts.named {
        let in_use = contexts.current.as_ref() == Some(name);
        table.push(
            vec![
                Cell::text(name),
                Cell::text(&address.to_string()),
                Cell::yes(in_use),
            ],
            serde_json::Value::Null,
        );
    }
    let mut out = io::stdout().lock();
    if json {
        writeln!(
            out,
            "{}",
            serde_json::json!({ "contexts": table.to_json() })
        )?;
    } else {
        table.write(&mut out, "", false)?;
    }
    Ok(())
}

fn show(global: &GlobalArgs, environment: &Environment, ask: &AskArgs) -> Result<(), Failure> {
    let target = target(global, environment, &ask.daemon)?;
    let table = Table::of_one(
        &["ADDRESS", "FROM", "CONTEXTS"],
        vec![
            Cell::text(&target.address.to_string()),
            Cell::text(&target.how),
            Cell::or_none(place(environment), |path| {
                Cell::text(&path.display().to_string())
            }),
        ],
        serde_json::Value::Null,
    );
    let mut out = io::stdout().lock();
    if ask.json {
        writeln!(out, "{}", table.first_to_json())?;
    } else {
        table.write_down(&mut out, false)?;
    }
    Ok(())
}

//! The one table of all keys. Everything that knows the keys is made from it: the typed [`Config`], its reading
//! and its printing, what changed between two of them, and `config.example.toml`.
//!
//! To add a key, add a row. The row's doc comment is what users read in the example file; `HOT` keys are applied
//! by a reload, `COLD` ones at the next start.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde_json::Value;

use super::agent::A2aAgent;
use super::environment::Environment;
use super::error::ConfigError;
use super::job::StartupJob;
use super::layers::Settings;
use super::names::{
    GrpcAddress, HostName, ListenAddress, LogFilter, MediaType, NodeName, Url, VariableName,
};
use super::skill::A2aSkill;
use super::units::{Duration, Size};
use super::value::Field;
use super::words::{LogFormat, ShowActivity, Sync};

/// When a change of a key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temperature {
    /// At the next reload.
    Hot,
    /// At the next start.
    Cold,
}

/// What is known of one key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// `section.name`.
    pub path: &'static str,
    /// The section.
    pub section: &'static str,
    /// The name within the section.
    pub name: &'static str,
    /// What it is for, line by line.
    pub docs: &'static [&'static str],
    /// When a change takes effect.
    pub temperature: Temperature,
    /// What a value must look like, in words.
    pub(crate) expected: fn() -> String,
    /// The range, in words.
    pub(crate) range: fn() -> Option<String>,
    /// The default; null where there is none.
    pub(crate) default: fn(&Environment) -> Value,
    /// What the default is called where it depends on the machine, and what to write in an example.
    pub(crate) machine_default: Option<(&'static str, &'static str)>,
}

/// What is known of a section.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its name.
    pub name: &'static str,
    /// What it is about, line by line.
    pub docs: &'static [&'static str],
}

macro_rules! schema {
    ($(
        $(#[doc = $section_doc:literal])*
        $section:ident: $Section:ident {
            $(
                $(#[doc = $doc:literal])*
                $temperature:ident $name:ident: $Type:ty
                    = $default:expr
                    $(, shown $shown:literal example $example:literal)?
                    $(, in $min:expr => $max:expr)?
                    ;
            )*
        }
    )*) => {
        /// The config: every value is of its type and in its range, and no two contradict each other.
        #[derive(Clone, Debug)]
        pub struct Config {
            $(
                $(#[doc = $section_doc])*
                pub $section: $Section,
            )*
            /// The jobs that are submitted at boot, in the order of the file.
            pub jobs: Vec<StartupJob>,
            /// The skills of the a2a transport, in the order of the file.
            pub a2a_skills: Vec<A2aSkill>,
            /// The agents that work can be handed to, in the order of the file.
            pub a2a_agents: Vec<A2aAgent>,
        }

        $(
            $(#[doc = $section_doc])*
            #[derive(Clone, Debug, PartialEq)]
            pub struct $Section {
                $(
                    $(#[doc = $doc])*
                    #[doc = schema!(@temperature_doc $temperature)]
                    pub $name: $Type,
                )*
            }
        )*

        /// Every key, in the order of the example file.
        pub const KEYS: &[Key] = &[$($(Key {
            path: concat!(stringify!($section), ".", stringify!($name)),
            section: stringify!($section),
            name: stringify!($name),
            docs: &[$($doc),*],
            temperature: schema!(@temperature $temperature),
            expected: <$Type as Field>::expected,
            range: || schema!(@range $($min => $max)?),
            default: |environment| {
                let default: fn(&Environment) -> $Type = $default;
                default(environment).to_value()
            },
            machine_default: schema!(@machine $($shown, $example)?),
        },)*)*];

        /// Every section but `[[job]]`, in the order of the example file.
        pub const SECTIONS: &[Section] = &[$(Section {
            name: stringify!($section),
            docs: &[$($section_doc),*],
        },)*];

        impl Config {
            /// Reads every key from the layers; what is wrong is added to `errors`, and the default stands in.
            pub(crate) fn read(
                settings: &Settings,
                environment: &Environment,
                (jobs, a2a_skills, a2a_agents): (Vec<StartupJob>, Vec<A2aSkill>, Vec<A2aAgent>),
                errors: &mut Vec<ConfigError>,
            ) -> Self {
                Self {
                    $($section: $Section {
                        $($name: {
                            let key = concat!(stringify!($section), ".", stringify!($name));
                            let default: fn(&Environment) -> $Type = $default;
                            settings
                                .read::<$Type>(key, schema!(@bounds $($min => $max)?), errors)
                                .unwrap_or_else(|| default(environment))
                        },)*
                    },)*
                    jobs,
                    a2a_skills,
                    a2a_agents,
                }
            }

            /// Every key with its value as it would be written, in the order of [`KEYS`].
            #[must_use]
            pub fn values(&self) -> Vec<(&'static Key, Value)> {
                let values = [$($(self.$section.$name.to_value(),)*)*];
                KEYS.iter().zip(values).collect()
            }
        }
    };

    (@temperature HOT) => { Temperature::Hot };
    (@temperature COLD) => { Temperature::Cold };
    (@temperature_doc HOT) => { "\n\nHOT: a reload applies it." };
    (@temperature_doc COLD) => { "\n\nCOLD: it takes a restart." };
    (@bounds) => { |_| true };
    (@bounds $min:expr => $max:expr) => { |value| ($min..=$max).contains(value) };
    (@range) => { None };
    (@range $min:expr => $max:expr) => { Some(format!("{} to {}", $min, $max)) };
    (@machine) => { None };
    (@machine $shown:literal, $example:literal) => { Some(($shown, $example)) };
}

schema! {
    /// The node: this process and where it keeps what it keeps.
    node: Node {
        /// What this node is called in its logs and metrics.
        COLD name: NodeName = Environment::node_name, shown "the host name" example "agent-7";
        /// The directory of the write-ahead log and of everything else that must outlive the process. It is made
        /// if it is missing, and locked while the daemon runs. A relative path is relative to the working directory.
        COLD data_dir: PathBuf = Environment::data_dir,
            shown "$STATE_DIRECTORY; as root /var/lib/tinkerbell; else $XDG_STATE_HOME/tinkerbell or ~/.local/state/tinkerbell"
            example "/var/lib/tinkerbell";
        /// Whether to exit with code 0 as soon as no job is left to run: the one-shot microVM.
        COLD exit_when_idle: bool = |_| false;
    }

    /// What is logged, and how. Logs go to standard error.
    log: Log {
        /// Which lines are written, as `tracing` filters say it: a level, and levels for single modules
        /// (`info,runtime=debug`). The environment variable `RUST_LOG` wins over every other layer.
        HOT filter: LogFilter = |_| LogFilter::info();
        /// `auto` is `human` on a terminal and `json` otherwise.
        COLD format: LogFormat = |_| LogFormat::Auto;
    }

    /// The write-ahead log: the one durable thing.
    wal: Wal {
        /// The size of one segment file. Segments are allocated whole, and deleted whole.
        COLD segment_size: Size = |_| Size::mib(64), in Size::mib(1) => Size::gib(4);
        /// When the log is flushed to the disk. Only with `always` is what was acknowledged safe from a crash of the
        /// machine; `interval` may lose the last `sync_interval`, `never` is for tests.
        COLD sync: Sync = |_| Sync::Always;
        /// How often the log is flushed with `sync = "interval"`.
        COLD sync_interval: Duration = |_| Duration::millis(10), in Duration::millis(1) => Duration::seconds(60);
        /// How long segments are kept after the last job that needs them has finished.
        HOT retention: Duration = |_| Duration::days(7), in Duration::millis(0) => Duration::days(3650);
        /// Payloads larger than this are kept as files beside the log, named by their hash. At most a quarter of
        /// `segment_size`.
        COLD blob_threshold: Size = |_| Size::kib(16), in Size::kib(1) => Size::gib(1);
    }

    /// Probes and metrics over HTTP: read-only, for this machine only unless a token is set.
    http: Http {
        /// Whether to serve HTTP at all.
        COLD enabled: bool = |_| true;
        /// The address and port to listen on. Port 0 takes a free one. An address that other machines can reach is
        /// refused unless `token_env` or `token_file` is set; then every path but `/livez`, `/readyz` and `/health`
        /// asks for `Authorization: Bearer`.
        COLD listen: SocketAddr = |_| SocketAddr::from((Ipv4Addr::LOCALHOST, 3000));
        /// The environment variable that holds the bearer token.
        COLD token_env: Option<VariableName> = |_| None, shown "none" example "TINKERBELL_HTTP_TOKEN";
        /// The file that holds the bearer token. A relative path is relative to the working directory.
        COLD token_file: Option<PathBuf> = |_| None, shown "none" example "/run/secrets/tinkerbell-http-token";
        /// Host names by which requests may address this server, beside `localhost`, `127.0.0.1` and `[::1]`; any
        /// port. All others are refused, since a browser can be tricked into asking for a page of an attacker under
        /// our address (DNS rebinding). A kubelet's probes name the pod's address, unless told otherwise.
        HOT allowed_hosts: Vec<HostName> = |_| Vec::new();
        /// How many connections may be open at once. One more is answered 503.
        COLD max_connections: usize = |_| 64, in 1 => 10_000;
    }

    /// Limits. What would pass one is refused, clearly; nothing grows without bound.
    limits: Limits {
        /// Jobs that are not finished.
        COLD live_jobs: usize = |_| 100_000, in 1 => 10_000_000;
        /// Submissions that wait to be written to the log.
        COLD intake_queue: usize = |_| 1024, in 1 => 1_000_000;
        /// Effects that run at once, over all jobs: tool processes above all.
        HOT running_effects: usize = |_| 256, in 1 => 100_000;
        /// The size of one job's specification.
        COLD spec_size: Size = |_| Size::mib(1), in Size::kib(1) => Size::mib(64);
        /// How much of one tool's output is kept. What was cut is said.
        COLD output_size: Size = |_| Size::mib(1), in Size::kib(1) => Size::mib(256);
        /// Finished jobs that stay listed; the oldest are forgotten first.
        COLD finished_jobs_kept: usize = |_| 100_000, in 0 => 10_000_000;
        /// Steps of one plan.
        COLD steps_per_plan: usize = |_| 1000, in 1 => 100_000;
    }

    /// What clients may ask of this node at once, over all transports together.
    api: Api {
        /// The longest message of a client. A job's specification has a limit of its own (`limits.spec_size`).
        COLD message_size: Size = |_| Size::mib(2), in Size::kib(1) => Size::mib(256);
        /// Connections of each transport. One more is turned away.
        COLD connections: usize = |_| 4096, in 1 => 1_000_000;
        /// Requests that are not answered yet. One more is refused.
        COLD requests: usize = |_| 1024, in 1 => 1_000_000;
        /// Streams of events and logs. One more is refused.
        COLD streams: usize = |_| 4096, in 1 => 1_000_000;
        /// Streams of one client: a process, a virtual machine, or an address.
        COLD streams_per_client: usize = |_| 1024, in 1 => 1_000_000;
        /// A client that takes nothing of what is sent to it for so long is disconnected.
        COLD stall: Duration = |_| Duration::seconds(30), in Duration::millis(100) => Duration::seconds(3600);
    }

    /// Work over HTTP/1.1 and JSON on a Unix domain socket or vsock, in builds with the feature `ipc`.
    ipc: Ipc {
        /// Whether to serve it.
        COLD enabled: bool = |_| true;
        /// Where to listen: paths of Unix sockets, and `vsock:PORT` for the host of a microVM. Without any, `ipc.sock` in
        /// `node.data_dir`. A socket is for its owner only, and so must its directory be.
        COLD listen: Vec<ListenAddress> = |_| Vec::new();
        /// User ids that may speak to a Unix socket, beside the daemon's own and root. They also need the permission to
        /// open its file.
        COLD allowed_uids: Vec<u32> = |_| Vec::new();
    }

    /// Work over gRPC, in builds with the feature `grpc`. `proto/tinkerbell/v1` says what there is.
    grpc: Grpc {
        /// Where to listen: `127.0.0.1:50051` and the like, paths of Unix sockets, and `vsock:PORT` for the host of a microVM.
        /// Without any it is not served. An address that other machines can reach is refused unless a token is set, or
        /// `tls_client_ca_file`. Every user of this machine can reach a port of 127.0.0.1; a Unix socket is for its owner only.
        COLD listen: Vec<GrpcAddress> = |_| Vec::new();
        /// User ids that may speak to a Unix socket, beside the daemon's own and root. They also need the permission to
        /// open its file.
        COLD allowed_uids: Vec<u32> = |_| Vec::new();
        /// The environment variable that holds the bearer token. With one, clients that do not come through a Unix socket
        /// must send `authorization: Bearer TOKEN`, but for health checks.
        COLD token_env: Option<VariableName> = |_| None, shown "none" example "TINKERBELL_GRPC_TOKEN";
        /// The file that holds the bearer token. A relative path is relative to the working directory.
        COLD token_file: Option<PathBuf> = |_| None, shown "none" example "/run/secrets/tinkerbell-grpc-token";
        /// The file (PEM) with the certificate for TLS on TCP, followed by those that lead to a root.
        COLD tls_cert_file: Option<PathBuf> = |_| None, shown "none" example "/etc/tinkerbell/grpc.crt";
        /// The file (PEM) with the certificate's private key.
        COLD tls_key_file: Option<PathBuf> = |_| None, shown "none" example "/run/secrets/tinkerbell-grpc.key";
        /// The file (PEM) with the certificates that clients' certificates must lead to. With it, a client without one is
        /// turned away.
        COLD tls_client_ca_file: Option<PathBuf> = |_| None, shown "none" example "/etc/tinkerbell/clients-ca.crt";
        /// How often a connection on which nothing happens is asked for a sign of life.
        COLD keepalive_interval: Duration = |_| Duration::seconds(60), in Duration::seconds(1) => Duration::seconds(3600);
        /// How long it may take to give one, before it is closed.
        COLD keepalive_timeout: Duration = |_| Duration::seconds(20), in Duration::seconds(1) => Duration::seconds(3600);
    }

    /// Work over the Agent2Agent protocol, in builds with the feature `a2a`: JSON-RPC, HTTP+JSON and gRPC on one port. It is
    /// served if there is a skill (`[[a2a.skill]]`) that takes messages.
    a2a: A2a {
        /// Whether to serve it.
        COLD enabled: bool = |_| true;
        /// The address and port to listen on. Port 0 takes a free one. An address that other machines can reach is
        /// refused unless a token is set, or `tls_client_ca_file`.
        COLD listen: SocketAddr = |_| SocketAddr::from((Ipv4Addr::LOCALHOST, 3003));
        /// Where clients reach it, as the agent's card says.
        COLD public_url: Option<Url> = |_| None, shown "the address that it listens on" example "https://agents.example.org/converter";
        /// The environment variable that holds the bearer token that clients are asked for.
        COLD token_env: Option<VariableName> = |_| None, shown "none" example "TINKERBELL_A2A_TOKEN";
        /// The file that holds it. A relative path is relative to the working directory.
        COLD token_file: Option<PathBuf> = |_| None, shown "none" example "/run/secrets/tinkerbell-a2a-token";
        /// The file (PEM) with the certificate for TLS, followed by those that lead to a root.
        COLD tls_cert_file: Option<PathBuf> = |_| None, shown "none" example "/etc/tinkerbell/a2a.crt";
        /// The file (PEM) with the certificate's private key.
        COLD tls_key_file: Option<PathBuf> = |_| None, shown "none" example "/run/secrets/tinkerbell-a2a.key";
        /// The file (PEM) with the certificates that clients' certificates must lead to. With it, a client without one is
        /// turned away.
        COLD tls_client_ca_file: Option<PathBuf> = |_| None, shown "none" example "/etc/tinkerbell/clients-ca.crt";
        /// What the agent is called.
        COLD name: Option<String> = |_| None, shown "node.name" example "Converter";
        /// What it is for.
        COLD description: String = |_| "An agent of tinkerbell".to_owned();
        /// Its version, which says nothing of the protocol's.
        COLD version: String = |_| "1.0.0".to_owned();
        /// Who runs it.
        COLD provider: Option<String> = |_| None, shown "none" example "Example Ltd";
        /// The page of who runs it.
        COLD provider_url: Option<Url> = |_| None, shown "none" example "https://example.org";
        /// Where it is documented.
        COLD documentation_url: Option<Url> = |_| None, shown "none" example "https://example.org/converter";
        /// A picture of it.
        COLD icon_url: Option<Url> = |_| None, shown "none" example "https://example.org/converter.png";
        /// The media types it takes, where a skill says nothing; `text/*` stands for many. A message with another part is
        /// refused.
        COLD input_modes: Vec<MediaType> = |_| MediaType::list(&["text/plain", "application/json", "application/octet-stream"]);
        /// The media types it gives, where a skill says nothing.
        COLD output_modes: Vec<MediaType> = |_| MediaType::list(&["text/plain", "application/json"]);
        /// Whether a message that is sent twice, as its id says, makes one task, so that a client may send again what it has
        /// no answer to. `false` is for clients that use the id of a message for another.
        COLD idempotent: bool = |_| true;
        /// How many push notification configs a task may have. With 0 there are no push notifications.
        COLD push_configs: usize = |_| 8, in 0 => 1000;
        /// Hosts that push notifications may go to whatever their address is, also without TLS. To all others they go over
        /// TLS, and only to addresses of the internet; where all clients are on this machine, since `listen` is its loopback
        /// and `public_url` names nothing else, to the loopback too.
        COLD push_hosts: Vec<HostName> = |_| Vec::new();
    }

    /// The scheduler, which runs all jobs on one thread.
    scheduler: Scheduler {
        /// A task that holds the thread longer than this is reported with its name.
        COLD long_poll: Duration = |_| Duration::millis(50), in Duration::millis(1) => Duration::seconds(60);
        /// How many tasks are polled in one turn before the log and the outside world get theirs.
        COLD turn_polls: usize = |_| 10_000, in 1 => 10_000_000;
    }

    /// Stopping.
    shutdown: Shutdown {
        /// How long running effects are given between the signal and the exit.
        HOT grace: Duration = |_| Duration::seconds(10), in Duration::millis(0) => Duration::seconds(3600);
    }

    /// Tool processes.
    process: Process {
        /// How long a process group is given between SIGTERM and SIGKILL. At most `shutdown.grace`; the default is
        /// shortened to that if need be.
        COLD kill_grace: Duration = |_| Duration::seconds(2), in Duration::millis(0) => Duration::seconds(3600);
        /// The largest workspace that is saved before an effect changes it, so that it can be put back.
        COLD snapshot_size: Size = |_| Size::mib(256), in Size::bytes(0) => Size::gib(64);
    }

    /// The live stream of what happens.
    activity: Activity {
        /// Whether activity is printed to standard output: `true`, `false`, or `"auto"` (on a terminal only).
        COLD show: ShowActivity = |_| ShowActivity::Auto;
        /// How many events are kept for listeners that fall behind.
        COLD capacity: usize = |_| 65_536, in 16 => 16_777_216;
        /// How much memory these events may take.
        COLD capacity_size: Size = |_| Size::mib(16), in Size::kib(64) => Size::gib(4);
    }

    /// Watching this file.
    watch: Watch {
        /// Whether a change of the config file reloads it, as SIGHUP does. A file that is wrong changes nothing, and
        /// is reported.
        COLD config: bool = |_| true;
    }
}

/// The key of this path.
pub(crate) fn key(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

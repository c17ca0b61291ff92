//! One cell of the table: a peer, a row, a process of its own to measure it in.
//!
//! A process for each measurement, so that no peer finds the memory that another warmed up or fragmented, and so that Go
//! and Erlang, which cannot be had otherwise, are on the same footing.

use std::fmt;
use std::process::Command;
use std::str::FromStr;

use crate::foreign::Foreign;
use crate::peer::Peer;
use crate::peers::bare::Bare;
use crate::peers::futures::Futures;
use crate::peers::least::Least;
use crate::peers::may;
use crate::peers::monoio::Monoio;
use crate::peers::ours::{Ours, Watched};
use crate::peers::smol::Smol;
use crate::peers::tokio::{CurrentThread, Local};
use crate::workloads;

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Row {
    /// A yield among that many tasks.
    Yield(u64),
    /// Spawning a task and joining it, one after the other.
    SpawnJoin,
    /// The same with a million at once.
    SpawnAll,
    /// There and back between two tasks, each with what its runtime's users would take.
    PingPong,
    /// The same on the least flag there can be.
    PingPongFlag,
    /// Bytes of a task that waits for an event of its own.
    Parked(u64),
    /// Bytes of a task that waits for nothing.
    ParkedBare(u64),
    /// Spawn, sleep and fire, a million on a virtual clock.
    Timers,
}

impl Row {
    /// In the order of the table.
    pub(crate) const ALL: [Self; 12] = [
        Self::Yield(1),
        Self::Yield(1_000),
        Self::Yield(100_000),
        Self::SpawnJoin,
        Self::SpawnAll,
        Self::PingPong,
        Self::PingPongFlag,
        Self::Timers,
        Self::Parked(100_000),
        Self::Parked(1_000_000),
        Self::ParkedBare(100_000),
        Self::ParkedBare(1_000_000),
    ];

    /// How the table calls it.
    pub(crate) fn title(self) -> String {
        match self {
            Self::Yield(tasks) => format!("yield, {tasks} tasks, ns"),
            Self::SpawnJoin => "spawn and join, one by one, ns".to_owned(),
            Self::SpawnAll => "spawn and join, a million at once, ns".to_owned(),
            Self::PingPong => "ping-pong, round trip, ns".to_owned(),
            Self::PingPongFlag => "the same, all but ours on the least flag, ns".to_owned(),
            Self::Parked(tasks) => format!("task that waits for an event, {tasks}, bytes"),
            Self::ParkedBare(tasks) => format!("task that waits for nothing, {tasks}, bytes"),
            Self::Timers => "virtual timer: spawn, sleep, fire, a million, ns".to_owned(),
        }
    }

    /// Memory does not vary from run to run as time does.
    pub(crate) const fn is_memory(self) -> bool {
        matches!(self, Self::Parked(_) | Self::ParkedBare(_))
    }
}

/// As on the command line of a cell's process.
impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yield(tasks) => write!(f, "yield-{tasks}"),
            Self::SpawnJoin => f.write_str("spawn-join"),
            Self::SpawnAll => f.write_str("spawn-all"),
            Self::PingPong => f.write_str("ping-pong"),
            Self::PingPongFlag => f.write_str("ping-pong-flag"),
            Self::Parked(tasks) => write!(f, "parked-{tasks}"),
            Self::ParkedBare(tasks) => write!(f, "parked-bare-{tasks}"),
            Self::Timers => f.write_str("timers"),
        }
    }
}

impl FromStr for Row {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|row| row.to_string() == name);
        known.ok_or_else(|| format!("no row is called {name}"))
    }
}

/// How a column is measured.
#[derive(Clone, Copy)]
pub(crate) enum How {
    /// By this program.
    Here(fn(Row) -> Option<f64>),
    /// By a program in another language, if its tools are there.
    Foreign(Foreign),
}

/// What the comparison takes a column for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Ours,
    /// Shown, and part of no ratio.
    Shown,
    Limit,
    Peer,
}

/// A column of the table.
#[derive(Clone, Copy)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) role: Role,
    pub(crate) how: How,
}

const fn here(name: &'static str, role: Role, measure: fn(Row) -> Option<f64>) -> Column {
    Column {
        name,
        role,
        how: How::Here(measure),
    }
}

/// In the order of the table.
pub(crate) const COLUMNS: [Column; 12] = [
    here("ours", Role::Ours, ours::<Ours>),
    here("watched", Role::Shown, ours::<Watched>),
    here("limit", Role::Limit, workloads::measure::<Bare>),
    here("least", Role::Shown, workloads::measure::<Least>),
    here("tokio", Role::Peer, workloads::measure::<CurrentThread>),
    here("LocalSet", Role::Peer, workloads::measure::<Local>),
    here("smol", Role::Peer, workloads::measure::<Smol>),
    here("futures", Role::Peer, workloads::measure::<Futures>),
    here("monoio", Role::Peer, workloads::measure::<Monoio>),
    here("may", Role::Peer, may::measure),
    Column {
        name: "Go",
        role: Role::Peer,
        how: How::Foreign(Foreign::Go),
    },
    Column {
        name: "Erlang",
        role: Role::Peer,
        how: How::Foreign(Foreign::Erlang),
    },
];

/// Our tasks wait for keys, and their wakers do nothing: there is no ping-pong on another flag.
fn ours<P: Peer>(row: Row) -> Option<f64> {
    workloads::measure::<P>(if row == Row::PingPongFlag {
        Row::PingPong
    } else {
        row
    })
}

/// Measures a cell in this process.
pub(crate) fn measure_here(column: &str, row: Row) -> Option<f64> {
    let column = COLUMNS.iter().find(|known| known.name == column)?;
    match column.how {
        How::Here(measure) => measure(row),
        How::Foreign(_) => None,
    }
}

/// Runs a program that prints what it measured: nothing, if it has no such thing.
pub(crate) fn measure_with(command: &mut Command) -> Option<f64> {
    let output = command.output().expect("a program that starts");
    let (said, complaint) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{command:?} failed: {said}{complaint}"
    );
    let said = said.trim();
    (!said.is_empty()).then(|| {
        said.parse()
            .unwrap_or_else(|_| panic!("{command:?} said {said}"))
    })
}

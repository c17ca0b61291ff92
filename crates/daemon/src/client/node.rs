//! `tinkerbell node …`.

use std::io::{self, Write};

use api::node::Reload;
use api::wire::{DrainRequest, Node, NodeDump};
use serde_json::{Value, json};

use super::table::{Cell, Paint, Table, ago, instant};
use super::{Failure, Session, ask};
use crate::boot::unix_ms;
use crate::cli::{GlobalArgs, NodeCommand, exit};
use crate::config::Environment;

pub(super) fn run(
    global: &GlobalArgs,
    environment: &Environment,
    command: NodeCommand,
) -> Result<u8, Failure> {
    let args = match &command {
        NodeCommand::Show(ask)
        | NodeCommand::Dump(ask)
        | NodeCommand::Reload(ask)
        | NodeCommand::Drain { ask, .. }
        | NodeCommand::Shutdown(ask) => ask.clone(),
    };
    ask(
        global,
        environment,
        &args,
        async move |session| match command {
            NodeCommand::Show(_) => show(&session).await,
            NodeCommand::Dump(_) => dump(&session).await,
            NodeCommand::Reload(_) => reload(&session).await,
            NodeCommand::Drain { no_stop, .. } => {
                let request = DrainRequest { stop: !no_stop };
                let _: Value = session.post("/v1/node/drain", &request).await?;
                begun(&session, "draining", !no_stop)
            }
            NodeCommand::Shutdown(_) => {
                let _: Value = session.post("/v1/node/shutdown", &json!({})).await?;
                begun(&session, "stopping", true)
            }
        },
    )
}

async fn show(session: &Session) -> Result<u8, Failure> {
    let node: Node = session.get("/v1/node").await?;
    let state = match node.state.as_str() {
        "serving" => Paint::Good,
        _ => Paint::Attention,
    };
    let table = Table::of_one(
        &[
            "NAME",
            "STATE",
            "VERSION",
            "COMMIT",
            "FEATURES",
            "STARTED",
            "LOG ID",
            "EPOCH",
            "LIVE JOBS",
            "FINISHED JOBS",
            "RUNNING EFFECTS",
            "QUEUED EFFECTS",
            "SPACE LOW",
            "REQUESTS",
            "STREAMS",
        ],
        vec![
            Cell::text(&node.identity.name),
            Cell::text(&node.state).painted(state),
            Cell::text(&node.identity.version),
            Cell::text(&node.identity.commit),
            Cell::new(
                &node.identity.features.join(" "),
                node.identity.features.clone(),
            ),
            instant(
                &format!(
                    "{} ({})",
                    runtime::rfc3339(node.identity.started_ms),
                    ago(unix_ms(), node.identity.started_ms)
                ),
                node.identity.started_ms,
            ),
            Cell::text(&node.identity.log_id),
            Cell::number(node.epoch),
            Cell::number(node.live_jobs),
            Cell::number(node.finished_jobs),
            Cell::number(node.running_effects),
            Cell::number(node.queued_effects),
            Cell::yes(node.space_low),
            Cell::number(node.requests),
            Cell::number(node.streams),
        ],
        json!(node),
    );
    session.print_one(&table)?;
    Ok(exit::OK)
}

async fn dump(session: &Session) -> Result<u8, Failure> {
    let dump: NodeDump = session.get("/v1/node/dump").await?;
    if session.json {
        session.print_json(&dump)?;
    } else {
        let mut out = io::stdout().lock();
        writeln!(out, "{}", pal::neutralise(dump.text.trim_end()))?;
    }
    Ok(exit::OK)
}

async fn reload(session: &Session) -> Result<u8, Failure> {
    let reload: Reload = session.post("/v1/node/reload", &json!({})).await?;
    let keys = |keys: &[String]| Cell::new(&keys.join(" "), keys.to_vec());
    let table = Table::of_one(
        &["ACCEPTED", "APPLIED", "NEEDS RESTART", "ERROR"],
        vec![
            Cell::yes(reload.accepted),
            keys(&reload.applied),
            keys(&reload.needs_restart),
            Cell::or_none(reload.error.as_deref(), Cell::text),
        ],
        Value::Null,
    );
    session.print_one(&table)?;
    Ok(match (reload.accepted, reload.needs_restart.is_empty()) {
        (false, _) => exit::RELOAD_REFUSED,
        (true, false) => exit::RELOAD_NEEDS_RESTART,
        (true, true) => exit::OK,
    })
}

/// Says what the node has begun to do.
fn begun(session: &Session, state: &str, stops: bool) -> Result<u8, Failure> {
    let table = Table::of_one(
        &["STATE", "STOPS"],
        vec![
            Cell::text(state).painted(Paint::Attention),
            Cell::yes(stops),
        ],
        Value::Null,
    );
    session.print_one(&table)?;
    Ok(exit::OK)
}

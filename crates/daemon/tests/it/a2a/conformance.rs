//! What the protocol's specification requires, held against the agent of `kit.toml` over each binding by `conformance.py`: by
//! bare HTTP and bare gRPC, since clients hide what is said. Which requirements there are, and what is asked of an agent by the
//! beginning of a message's id, is what the protocol's official test kit has.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::{address, python, start};
use crate::support::Node;

#[test]
fn what_the_specification_requires_holds_over_every_binding() {
    let Some(sdk) = python("what_the_specification_requires_holds_over_every_binding") else {
        return;
    };
    let node = Node::new(include_str!("kit.toml"));
    let daemon = start(&node, "127.0.0.1:0");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/a2a/conformance.py");
    // Each request of the script has its deadline.
    let told = Command::new(sdk.program)
        .args([script, &address(&daemon)])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .expect("python can be started");
    assert!(told.status.success(), "{}", told.status);

    let mut held = std::collections::BTreeMap::<String, usize>::new();
    for line in String::from_utf8_lossy(&told.stdout).lines() {
        let told: Value = serde_json::from_str(line).expect("it tells in JSON");
        let binding = told["binding"].as_str().unwrap_or_default();
        assert!(told.get("why").is_none(), "{}\n{told}", told["why"]);
        if told.get("not_asked").is_none() {
            *held.entry(binding.to_owned()).or_default() += 1;
        }
    }
    // None was lost on the way, as one of a list that the script does not come to would be.
    for (binding, least) in [
        ("JSONRPC", 50),
        ("HTTP+JSON", 50),
        ("GRPC", 45),
        ("card", 3),
    ] {
        let held = held.get(binding).copied().unwrap_or_default();
        assert!(held >= least, "{binding}: {held}");
    }
}

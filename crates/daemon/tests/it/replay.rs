//! Looking into a log: what it holds, whether it is whole, and whether a job's program still does what it did.

use std::fs;
use std::sync::Arc;

use runtime::entry::{Ending, Entry as JobEntry, Outcome, Record};
use runtime::{Json, Stored};
use serde_json::{Value, json};
use wal::{Batch, Log, Lsn, OsStorage, Reader, Storage};

use crate::support::{Entry, Node};

const JOBS: &str = "\
[node]
exit_when_idle = true
[[job]]
name = \"good\"
program = \"plan\"
[[job.steps]]
id = \"first\"
run.shell = \"echo one | tee -a $TINKERBELL_START_DIR/effects\"
[[job.steps]]
id = \"second\"
needs = [\"first\"]
run.argv = [\"echo\", \"{{ steps.first.stdout | trim }} and two\"]
[[job.steps]]
id = \"rest\"
needs = [\"second\"]
sleep = \"5ms\"
[[job]]
name = \"bad\"
program = \"command\"
shell = \"exit 3\"
[[job]]
name = \"large\"
program = \"command\"
shell = \"head -c 100000 /dev/zero | tr '\\\\0' x\"
";

/// A node all of whose jobs are over.
fn done() -> Node {
    let node = Node::new(JOBS);
    node.run(&[]).with(0);
    node
}

#[test]
fn a_replay_comes_to_the_recorded_hash_and_executes_nothing() {
    let node = done();
    let journal = node.journal();
    for (name, ending) in [
        ("good", "completed"),
        ("bad", "failed"),
        ("large", "completed"),
    ] {
        let recorded =
            journal.entries_of(name).last().expect("it has entries").0["journal"].clone();
        let job = journal.job(name).to_owned();
        // By name, by id, by the beginning of an id, by its end.
        for given in [name, &job, &job[..job.len() - 1], &job[24..]] {
            let replayed = node.run(&["replay", given, "--json"]).with(0).stdout;
            let replayed: Value = serde_json::from_str(&replayed).expect("it is JSON");
            assert_eq!(replayed["hash"], recorded);
            assert_eq!(
                (&replayed["ending"], &replayed["job"]),
                (&json!(ending), &json!(job))
            );
        }
    }
    assert_eq!(
        node.place.read("effects"),
        "one\n",
        "nothing was executed again"
    );
    assert_eq!(
        node.journal().entries.len(),
        journal.entries.len(),
        "nothing was written"
    );
    let missing = node.run(&["replay", "nobody"]).with(1);
    assert!(missing.stderr.contains("`nobody`"), "{}", missing.stderr);
}

#[test]
fn the_log_can_be_read_beside_the_daemon_that_writes_it() {
    let node = Node::new(
        "[[job]]\nname = \"held\"\nprogram = \"command\"\nshell = \"cd $TINKERBELL_START_DIR; echo up > up; read _ < go\"\n",
    );
    let up = node.place.fifo("up");
    let _go = node.place.barrier("go");
    let daemon = node.start();
    up.wait_for_count(1);
    let kinds: Vec<_> = node
        .journal()
        .entries
        .iter()
        .map(|entry| entry.kind().to_owned())
        .collect();
    assert_eq!(kinds, ["started", "submitted", "requested"]);
    node.run(&["log", "verify"]).with(0);
    let replayed = node.run(&["replay", "held"]).with(0).stdout;
    assert!(
        replayed.contains("3 entries, live") || replayed.contains("2 entries, live"),
        "{replayed}"
    );
    assert_eq!(daemon.get("/readyz").status, 200);
}

#[test]
fn log_cat_shows_all_or_what_is_asked_for() {
    let node = done();
    let journal = node.journal();
    let lsns: Vec<u64> = journal.entries.iter().map(Entry::lsn).collect();
    assert_eq!(
        lsns,
        (1..=lsns.len() as u64).collect::<Vec<_>>(),
        "nothing is left out"
    );
    let cat = |args: &[&str]| {
        let cat = node.run(&[&["log", "cat"], args].concat()).with(0).stdout;
        cat.lines().map(Entry::parse).collect::<Vec<_>>()
    };
    assert!(cat(&["--from", "5"]).iter().all(|entry| entry.lsn() >= 5));
    let of_job = cat(&["--job", "bad"]);
    let kinds: Vec<_> = of_job.iter().map(Entry::kind).collect();
    assert_eq!(kinds, ["submitted", "requested", "completed", "finished"]);
    // What is too large for the log is beside it.
    let completed = journal.entries_of("large");
    let output = &completed
        .iter()
        .find(|entry| entry.kind() == "completed")
        .expect("it ran")
        .0["outcome"]["output"];
    let blob = output["blob"]["id"]
        .as_str()
        .unwrap_or_else(|| panic!("no blob in {output}"));
    assert_eq!(blob.len(), 64);
}

#[test]
fn verify_names_what_is_damaged_and_where() {
    let node = done();
    let whole = node.run(&["log", "verify", "--json"]).with(0).stdout;
    let whole: Value = serde_json::from_str(&whole).expect("it is JSON");
    assert_eq!(
        (&whole["jobs_submitted"], &whole["jobs_finished"]),
        (&json!(3), &json!(3))
    );
    assert!(whole["blobs"].as_u64().is_some_and(|blobs| blobs >= 1));

    let journal = node.journal();
    let named = |entry: &&Entry| entry.0["outcome"]["output"]["blob"]["id"].is_string();
    let entries = journal.entries_of("large");
    let entry = entries
        .into_iter()
        .find(named)
        .expect("the large output is a blob");
    let hash = entry.0["outcome"]["output"]["blob"]["id"]
        .as_str()
        .unwrap_or_default();
    let blob = node.data_dir().join("blobs").join(&hash[..2]).join(hash);
    let content = fs::read(&blob).expect("it can be read");
    let mut changed = content.clone();
    changed[7] ^= 1;
    fs::write(&blob, &changed).expect("it can be written");
    let damaged = node.run(&["log", "verify"]);
    assert_ne!(damaged.code, 0);
    assert!(damaged.stderr.contains(hash), "{}", damaged.stderr);
    fs::write(&blob, &content).expect("it can be written");
    node.run(&["log", "verify"]).with(0);

    let (path, _) = node.segment();
    let mut bytes = fs::read(&path).expect("it can be read");
    bytes[300] ^= 4;
    fs::write(&path, &bytes).expect("it can be written");
    let damaged = node.run(&["log", "verify"]).with(65);
    assert!(
        damaged
            .stderr
            .contains("0000000000000001.wal is damaged at byte "),
        "{}",
        damaged.stderr
    );
}

/// Writes a node's log anew, each record as `change` makes it. No checksum tells: only the program can.
fn rewrite(node: &Node, mut change: impl FnMut(&mut Record) -> bool) {
    let storage: Arc<dyn Storage> = Arc::new(OsStorage::new());
    let dir = node.data_dir().join("wal");
    let mut records = Vec::new();
    let mut reader = Reader::open(&dir, Arc::clone(&storage), Lsn::FIRST).expect("there is a log");
    let mut changed = false;
    while let Some((_, bytes)) = reader.next_record().expect("the log is whole") {
        let mut record = Record::decode(bytes).expect("it is a record of this build");
        changed |= change(&mut record);
        records.push(record.encode());
    }
    assert!(changed, "nothing was changed");
    fs::remove_dir_all(&dir).expect("it can be removed");
    let options = wal::Options {
        segment_bytes: 1 << 20,
        ..wal::Options::new(dir)
    };
    let (mut log, _) = Log::open(options, storage, wal::ignore).expect("a log can be made");
    for record in records {
        let mut batch = Batch::new();
        batch.push(&record);
        log.append(&[&batch]).expect("it can be written");
    }
    log.close().expect("it can be closed");
}

fn stored(value: &Value) -> Stored {
    runtime::Payload::inline(Json::of(value)).stored()
}

/// The output of the first step, as if the command had printed something else.
fn change_first_output(record: &mut Record) -> bool {
    let Record::Job(_, JobEntry::Completed { step, outcome, .. }) = record else {
        return false;
    };
    let Outcome::Ok { output, .. } = outcome else {
        return false;
    };
    let is_first = step.to_string() == "0" && format!("{output:?}").contains("one");
    if is_first {
        *output = stored(&json!({ "stdout": "seven\n" }));
    }
    is_first
}

#[test]
fn a_replay_names_the_first_difference() {
    // What came from the world is another: what the program does with it is, too.
    let node = done();
    rewrite(&node, change_first_output);
    let replayed = node.run(&["replay", "good"]).with(1).stderr;
    for part in [
        "at step 1",
        "LSN ",
        "`second`",
        "one and two",
        "seven and two",
    ] {
        assert!(replayed.contains(part), "{part}: {replayed}");
    }
    node.run(&["replay", "bad"]).with(0);

    // What the program asked for is another.
    let node = done();
    rewrite(&node, |record| match record {
        Record::Job(_, JobEntry::Requested { label, title, .. }) if label == "second" => {
            *title = Some("another title".to_owned());
            true
        }
        _ => false,
    });
    let replayed = node.run(&["replay", "good"]).with(1).stderr;
    assert!(replayed.contains("at step 1"), "{replayed}");

    // What came of it all is another.
    let node = done();
    rewrite(&node, |record| match record {
        Record::Job(
            _,
            JobEntry::Finished {
                ending: Ending::Failed { message, .. },
                ..
            },
        ) => {
            *message = "something else".to_owned();
            true
        }
        _ => false,
    });
    let replayed = node.run(&["replay", "bad"]).with(1).stderr;
    assert!(replayed.contains("something else"), "{replayed}");
    node.run(&["replay", "good"]).with(0);
}

#[test]
fn a_job_whose_journal_cannot_be_followed_is_stuck_and_the_others_go_on() {
    let node = Node::new(
        "[node]\nexit_when_idle = true\n[[job]]\nname = \"changed\"\nprogram = \"plan\"\n[[job.steps]]\nid = \"first\"\n\
         run.shell = \"echo one\"\n[[job.steps]]\nid = \"second\"\nneeds = [\"first\"]\n\
         run.shell = \"cd $TINKERBELL_START_DIR; echo {{ steps.first.stdout | trim }} >> effects; echo up > up; read _ < go\"\n\
         [[job]]\nname = \"other\"\nprogram = \"command\"\nclass = \"read\"\n\
         shell = \"cd $TINKERBELL_START_DIR; echo up > up; test -e enough || sleep 1000\"\n",
    );
    let up = node.place.fifo("up");
    let _go = node.place.barrier("go");
    let daemon = node.start();
    up.wait_for_count(2);
    daemon.killed();
    crate::support::are_over(&node.processes());
    rewrite(&node, change_first_output);
    node.place.write("enough", "");

    let ended = node.run(&[]).with(0);
    assert!(ended.stderr.contains("stuck"), "{}", ended.stderr);
    let journal = node.journal();
    let last = |name| {
        journal
            .entries_of(name)
            .last()
            .map(|entry| entry.kind().to_owned())
    };
    assert_eq!(last("other").as_deref(), Some("finished"));
    assert_eq!(
        last("changed").as_deref(),
        Some("requested"),
        "it is left as it was"
    );
    assert_eq!(
        node.place.read("effects"),
        "one\n",
        "and nothing of it was executed"
    );
}

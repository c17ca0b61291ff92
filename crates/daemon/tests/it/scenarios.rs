//! The same scenarios through every door of the daemon: each transport, and the command line.
//!
//! A scenario is written once, in the words that all have ([`Ask`]). What comes back through a [`Door`] is brought into
//! one neutral form ([`Answer`], that of ipc) and written down; ids and times are masked. What the first door told is
//! held against a snapshot, and what the others told against the first: a transport that says something else fails.
//!
//! A new transport is an `impl Door` and a row in [`DOORS`], with the scenarios that it has words for.

mod cli;
mod doors;
#[cfg(feature = "grpc")]
mod grpc;
mod ipc;

use serde_json::{Value, json};

use doors::{Answer, Ask, Door, Events, Filter, Refusal};

use crate::support::{Daemon, Ipc, Node, skip};

/// Opens a door of a daemon, or says what is missing for it.
type Open = fn(&Node, &Daemon) -> Result<Box<dyn Door>, String>;

/// Every door: its name, its part of the config, how it is opened, and its scenarios, if those are not all.
const DOORS: &[(&str, &str, Open, Option<&[&str]>)] = &[
    ("ipc", "", ipc::open, None),
    ("command line", "", cli::open, None),
    #[cfg(feature = "grpc")]
    (
        "grpc",
        "[grpc]\nlisten = [\"127.0.0.1:0\"]\n",
        grpc::open,
        None,
    ),
];

/// Runs a scenario through all doors, each of a daemon of its own, and compares what they tell.
#[track_caller]
fn through_all_doors(scenario: &str, run: impl Fn(&mut Talk<'_>)) {
    through_all_doors_of("", scenario, |talk, _| run(talk));
}

/// The same, of daemons with something more in their config.
#[track_caller]
fn through_all_doors_of(more: &str, scenario: &str, run: impl Fn(&mut Talk<'_>, &Daemon)) {
    let mut first: Option<Vec<(String, Answer)>> = None;
    for (name, config, open, scenarios) in DOORS {
        if scenarios.is_some_and(|some| !some.contains(&scenario)) {
            continue;
        }
        let node = Node::new(&format!("[node]\nname = \"tink\"\n{config}{more}"));
        let daemon = node.start();
        let door = match open(&node, &daemon) {
            Ok(door) => door,
            Err(reason) => {
                skip(&format!("{scenario}, through {name}"), &reason);
                continue;
            }
        };
        eprintln!("through {name}:");
        let mut talk = Talk {
            door,
            ipc: Ipc::of(&node),
            node: &node,
            jobs: Vec::new(),
            said: Vec::new(),
        };
        run(&mut talk, &daemon);
        let said = talk.said;
        let Some(expected) = &first else {
            insta::assert_snapshot!(scenario, transcript(&said));
            first = Some(said);
            continue;
        };
        assert_eq!(said.len(), expected.len());
        for ((asked, answer), (first_asked, expected)) in said.iter().zip(expected) {
            assert_eq!(asked, first_asked, "the scenario is the same");
            doors::assert_agrees(name, asked, answer, expected);
        }
    }
}

/// What was said, for people: a line for each question and each answer.
fn transcript(said: &[(String, Answer)]) -> String {
    let mut lines = Vec::new();
    for (asked, answer) in said {
        lines.push(format!("> {asked}"));
        match answer {
            Ok(Value::Array(several)) => lines.extend(several.iter().map(|one| format!("< {one}"))),
            Ok(one) => lines.push(format!("< {one}")),
            Err(refusal) => lines.push(format!("! {refusal}")),
        }
    }
    lines.join("\n")
}

/// A client that talks to a daemon through one door; all of it is written down.
struct Talk<'a> {
    door: Box<dyn Door>,
    /// To see where the daemon stands without asking through the door.
    ipc: Ipc,
    node: &'a Node,
    /// The ids of the jobs, in the order in which they were submitted.
    jobs: Vec<String>,
    said: Vec<(String, Answer)>,
}

impl Talk<'_> {
    /// Asks something.
    fn say(&mut self, ask: &Ask) -> Answer {
        let answer = self.door.ask(ask);
        if let (Ask::Submit(_), Ok(submitted)) = (ask, &answer) {
            let job = submitted["job"].as_str().expect("an id").to_owned();
            if !self.jobs.contains(&job) {
                self.jobs.push(job);
            }
        }
        self.note(&ask.to_string(), answer.clone());
        answer
    }

    /// Asks something that must be granted.
    #[track_caller]
    fn ask(&mut self, ask: &Ask) -> Value {
        self.say(ask)
            .unwrap_or_else(|refusal| panic!("{ask}: {refusal}"))
    }

    /// Asks something that must be refused.
    #[track_caller]
    fn refused(&mut self, ask: &Ask) -> Refusal {
        match self.say(ask) {
            Err(refusal) => refusal,
            Ok(answer) => panic!("{ask} is not refused: {answer}"),
        }
    }

    /// Submits a job, and gives its id.
    #[track_caller]
    fn submit(&mut self, spec: Value) -> String {
        let submitted = self.ask(&Ask::Submit(spec));
        submitted["job"].as_str().expect("an id").to_owned()
    }

    /// Watches a job from an entry on to its end, and gives what is in the log of it.
    #[track_caller]
    fn watch(&mut self, job: &str, after: Option<u64>) -> Vec<Value> {
        let events = self.door.watch(job, after);
        self.watch_on(
            &format!("watch {job}{}", after.map_or("", |_| ", from a place on")),
            events,
        )
    }

    /// The rest of a stream that was begun.
    #[track_caller]
    fn watch_on(&mut self, asked: &str, events: Events) -> Vec<Value> {
        let events: Result<Vec<Value>, Refusal> = events.collect();
        let mut events = events.unwrap_or_else(|refusal| panic!("{asked}: {refusal}"));
        // What is in no log is only ever live, so who comes later does not see it.
        events.retain(|event| lsn(event).is_some() || event["type"] == "end");
        assert!(
            events
                .windows(2)
                .all(|two| lsn(&two[1]).is_none() || lsn(&two[0]) < lsn(&two[1])),
            "{events:?}"
        );
        self.note(asked, Ok(events.clone().into()));
        events
    }

    fn note(&mut self, asked: &str, answer: Answer) {
        let masked = |text: &str| {
            let jobs = self.jobs.iter().enumerate();
            jobs.fold(text.to_owned(), |text, (number, job)| {
                let name = format!("job-{}", number + 1);
                text.replace(job, &name)
                    .replace(beginning(job), &format!("{name}…"))
            })
        };
        let asked = masked(asked);
        let answer = match answer {
            Ok(value) => Ok(doors::masked(value, &masked)),
            Err(refusal) => Err(refusal.masked(&masked)),
        };
        self.said.push((asked, answer));
    }
}

/// The part of an id that says when the job was submitted.
fn beginning(job: &str) -> &str {
    &job[..13]
}

fn lsn(event: &Value) -> Option<u64> {
    event["lsn"].as_u64()
}

fn shell(shell: &str) -> Value {
    json!({"program": "command", "input": {"shell": shell}})
}

fn plan(steps: &Value) -> Value {
    json!({"program": "plan", "input": {"steps": steps}})
}

/// A job that waits for as long as is wanted.
fn asking() -> Value {
    plan(&json!([{"id": "ask", "ask": {"prompt": "Go on?", "approval": true}}]))
}

fn with(mut spec: Value, fields: Value) -> Value {
    let Value::Object(fields) = fields else {
        panic!("fields have names: {fields}");
    };
    spec.as_object_mut().expect("an object").extend(fields);
    spec
}

#[test]
fn a_job_is_submitted_found_and_read() {
    through_all_doors("a_job_is_submitted_found_and_read", |talk| {
        let spec = with(
            shell("echo out; echo err >&2"),
            json!({"name": "speaks", "key": "once", "labels": {"team": "red", "n": "1"}, "priority": "high"}),
        );
        let job = talk.submit(spec.clone());
        // To its end, so that what follows is the same whoever asks.
        let events = talk.watch(&job, None);
        let failing = talk.submit(with(shell("echo no; exit 3"), json!({"name": "fails"})));
        talk.watch(&failing, None);
        assert_eq!(talk.submit(spec.clone()), job);
        talk.refused(&Ask::Submit(with(spec, json!({"priority": "low"}))));

        // From any place on.
        for at in 0..events.len() - 1 {
            let rest = talk.watch("speaks", lsn(&events[at]));
            assert_eq!(doors::facts(&rest), doors::facts(&events[at + 1..]));
        }
        for job in [&job, beginning(&job), "speaks", &failing] {
            talk.ask(&Ask::Get(job.to_owned()));
            talk.ask(&Ask::Result(job.to_owned()));
            talk.ask(&Ask::Logs(job.to_owned(), None));
        }
        talk.ask(&Ask::Logs(job, Some("stderr")));
        let label = |value: &str| Filter {
            labels: vec![("team".to_owned(), value.to_owned())],
            ..Filter::default()
        };
        let states = |state: &str| Filter {
            states: vec![state.to_owned()],
            ..Filter::default()
        };
        for filter in [
            Filter::default(),
            label("red"),
            label("blue"),
            states("completed"),
            states("failed"),
            states("waiting"),
            Filter {
                name: Some("speaks".to_owned()),
                ..Filter::default()
            },
            Filter {
                limit: Some(1),
                ..Filter::default()
            },
        ] {
            talk.ask(&Ask::List(filter));
        }
    });
}

#[test]
fn a_question_is_answered_while_it_is_watched() {
    through_all_doors("a_question_is_answered_while_it_is_watched", |talk| {
        let steps = json!([
            {"id": "first", "say": "hello"},
            {"id": "may", "needs": ["first"], "ask": {"prompt": "Go on?", "approval": true}},
            {"id": "who", "needs": ["may"], "ask": {"prompt": "Who?"}},
            {"id": "last", "needs": ["who"], "say": "bye {{ steps.who.answer.name }}"},
        ]);
        let job = talk.submit(with(plan(&steps), json!({"name": "asks"})));
        let mut events = talk.door.watch(&job, None);
        let mut seen = Vec::new();
        for answer in [json!(true), json!({"name": "Wendy", "n": [1, null, 2.5]})] {
            let question = loop {
                let event = events.next().expect("the job is not over");
                seen.push(event.clone());
                let event = event.expect("it is watched");
                if event["type"] == "question" {
                    break event["name"].as_str().expect("a name").to_owned();
                }
            };
            talk.ipc.until_waiting(&job);
            talk.ask(&Ask::Get(job.clone()));
            talk.refused(&Ask::Result("asks".to_owned()));
            talk.ask(&Ask::Signal("asks".to_owned(), question, answer));
        }
        let live = talk.watch_on("watch", Box::new(seen.into_iter().chain(events)));
        assert_eq!(
            doors::facts(&talk.watch(&job, None)),
            doors::facts(&live),
            "as it was shown live, so the log has it"
        );
        talk.refused(&Ask::Signal(job.clone(), "may".to_owned(), json!(true)));
        talk.ask(&Ask::Get(job.clone()));
        talk.ask(&Ask::Result(job));
    });
}

#[test]
fn an_approval_that_is_denied_fails_the_job() {
    through_all_doors("an_approval_that_is_denied_fails_the_job", |talk| {
        let job = talk.submit(asking());
        talk.ipc.until_waiting(&job);
        talk.ask(&Ask::Signal(job.clone(), "ask".to_owned(), json!(false)));
        talk.watch(&job, None);
        talk.ask(&Ask::Result(job));
    });
}

#[test]
fn one_job_is_cancelled_or_many() {
    through_all_doors("one_job_is_cancelled_or_many", |talk| {
        let group = |n: &str| with(asking(), json!({"labels": {"group": n}, "name": n}));
        let jobs = ["a", "b", "b", "c"].map(|n| talk.submit(group(n)));
        for job in &jobs {
            talk.ipc.until_waiting(job);
        }
        let reason = Some("no longer needed".to_owned());
        talk.ask(&Ask::Cancel(jobs[0].clone(), reason));
        talk.watch(&jobs[0], None);
        talk.ask(&Ask::Result(jobs[0].clone()));
        talk.refused(&Ask::Cancel(jobs[0].clone(), None));
        let filter = Filter {
            labels: vec![("group".to_owned(), "b".to_owned())],
            ..Filter::default()
        };
        talk.ask(&Ask::CancelMany(filter.clone(), true));
        talk.ask(&Ask::Get(jobs[1].clone()));
        talk.ask(&Ask::CancelMany(filter, false));
        for job in &jobs[1..3] {
            talk.watch(job, None);
            talk.ask(&Ask::Result(job.clone()));
        }
        talk.ask(&Ask::Cancel("c".to_owned(), None));
        talk.watch("c", None);
        talk.ask(&Ask::List(Filter::default()));
    });
}

#[test]
fn artifacts_are_handed_out() {
    through_all_doors("artifacts_are_handed_out", |talk| {
        let job = talk.submit(plan(&json!([
            {"id": "text", "artifact": {"name": "a/../text", "text": "äöü in pieces of five", "chunk_bytes": 5}},
            {"id": "data", "needs": ["text"], "artifact": {"name": "data", "data": {"n": [1, null]}}},
            {"id": "url", "needs": ["data"],
             "artifact": {"name": "url", "url": "https://example.org/x", "media_type": "text/html"}},
        ])));
        talk.watch(&job, None);
        talk.ask(&Ask::Artifacts(job.clone()));
        for name in ["a/../text", "data", "url"] {
            talk.ask(&Ask::Artifact(job.clone(), name.to_owned()));
        }
        talk.refused(&Ask::Artifact(job, "nothing".to_owned()));
    });
}

#[test]
fn what_is_not_there_is_not_found() {
    through_all_doors("what_is_not_there_is_not_found", |talk| {
        for nobody in ["nobody", "../node", "00000000-0000-0000-0000-000000000000"] {
            let nobody = || nobody.to_owned();
            for ask in [
                Ask::Get(nobody()),
                Ask::Result(nobody()),
                Ask::Cancel(nobody(), None),
                Ask::Signal(nobody(), "x".to_owned(), json!(1)),
                Ask::Logs(nobody(), None),
                Ask::Artifacts(nobody()),
                Ask::Artifact(nobody(), "x".to_owned()),
            ] {
                talk.refused(&ask);
            }
            let mut events = talk.door.watch(&nobody(), None);
            let first = events.next().expect("an answer");
            talk.note(&format!("watch {}", nobody()), first);
        }
    });
}

#[test]
fn what_makes_no_sense_is_named_where_it_stands() {
    through_all_doors("what_makes_no_sense_is_named_where_it_stands", |talk| {
        for spec in [
            json!({"program": "command", "input": {"argv": []}}),
            json!({"program": "command", "input": {"argv": ["true"], "timeout": "soon"}}),
            plan(&json!([{"id": "a"}])),
            plan(&json!([{"id": "a", "say": "x"}, {"id": "a", "say": "x"}])),
            plan(&json!([{"id": "a", "sayy": "x"}])),
            plan(&json!([{"id": "a", "say": "x", "needs": ["b"]}])),
        ] {
            talk.refused(&Ask::Submit(spec));
        }
        talk.ask(&Ask::List(Filter::default()));
    });
}

/// Tasks of Agent2Agent are made by messages, so they begin at that door; from there on each is a job like any other, and what
/// is done with it through another door shows through that one.
#[cfg(feature = "a2a")]
#[test]
fn a_task_is_a_job_through_every_door() {
    const AGENT: &str = r#"
[a2a]
listen = "127.0.0.1:0"
[[a2a.skill]]
id = "paint"
description = "Paints"
default = true
program = "plan"
output = "{{ steps.colour.answer }} paint"
steps = [
    { id = "colour", ask = { prompt = "Which colour?" } },
    { id = "sample", needs = ["colour"], artifact = { name = "sample", text = "{{ steps.colour.answer }}" } },
]
"#;
    through_all_doors_of(
        AGENT,
        "a_task_is_a_job_through_every_door",
        |talk, daemon| {
            let agent = crate::a2a::Agent::of(daemon);
            let mut begin = |id: &str| {
                let task = agent.send(id, "paint the wall");
                assert_eq!(task["status"]["state"], "TASK_STATE_INPUT_REQUIRED");
                let job = task["id"].as_str().expect("an id").to_owned();
                talk.jobs.push(job.clone());
                job
            };
            let (painted, given_up) = (begin("m-1"), begin("m-2"));
            let tasks = Filter {
                labels: vec![("a2a.skill".to_owned(), "paint".to_owned())],
                ..Filter::default()
            };
            talk.ask(&Ask::List(tasks));
            talk.ask(&Ask::Get(painted.clone()));
            let answer = json!("blue");
            talk.ask(&Ask::Signal(painted.clone(), "colour".to_owned(), answer));
            talk.watch(&painted, None);
            let task = agent.task(&painted);
            assert_eq!(task["status"]["state"], "TASK_STATE_COMPLETED", "{task}");
            let given: Vec<_> = task["artifacts"].as_array().into_iter().flatten().collect();
            let text = |index: usize| given[index]["parts"][0]["text"].clone();
            assert_eq!([text(0), text(1)], [json!("blue"), json!("blue paint")]);
            talk.ask(&Ask::Artifact(painted.clone(), "sample".to_owned()));
            talk.ask(&Ask::Result(painted));

            talk.ask(&Ask::Cancel(given_up.clone(), None));
            talk.watch(&given_up, None);
            let state = agent.task(&given_up)["status"]["state"].clone();
            assert_eq!(state, "TASK_STATE_CANCELED");
        },
    );
}

#[test]
fn a_draining_node_takes_nothing_in_and_goes_on() {
    through_all_doors("a_draining_node_takes_nothing_in_and_goes_on", |talk| {
        let job = talk.submit(asking());
        talk.ipc.until_waiting(&job);
        talk.ask(&Ask::Node);
        talk.ask(&Ask::Drain { stop: false });
        talk.refused(&Ask::Submit(shell("true")));
        talk.ask(&Ask::Node);
        talk.ask(&Ask::Signal(job.clone(), "ask".to_owned(), json!(true)));
        talk.watch(&job, None);
        talk.ask(&Ask::Result(job));
        assert!(talk.node.data_dir().exists());
    });
}

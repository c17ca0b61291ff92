//! Jobs: submitted, found, listed, answered, cancelled, and what they leave behind.

use std::process::Command;

use serde_json::{Value, json};

use super::{DEFAULTS, asking, shell, up};
use crate::support::{Ipc, end_of, skip};

fn ids(list: &Value) -> Vec<String> {
    let jobs = list["jobs"].as_array().expect("a list of jobs");
    let id = |job: &Value| {
        let id = job.as_str().or_else(|| job["id"].as_str());
        id.expect("an id").to_owned()
    };
    jobs.iter().map(id).collect()
}

#[test]
fn curl_submits_a_job_and_reads_what_came_of_it() {
    let (_node, _daemon, ipc) = up(DEFAULTS);
    if Command::new("curl").arg("--version").output().is_err() {
        return skip("curl_submits_a_job", "there is no curl");
    }
    let curl = |args: &[&str]| {
        let socket = ipc.path().to_str().expect("a path of text");
        let common = [
            "--silent",
            "--show-error",
            "--fail",
            "--max-time",
            "60",
            "--unix-socket",
            socket,
        ];
        end_of(Command::new("curl").args(common).args(args))
            .with(0)
            .stdout
    };
    let spec = shell("echo out; echo err >&2").to_string();
    // Without a word of what it sends: curl says that it is a form.
    let submitted: Value =
        serde_json::from_str(&curl(&["http://x/v1/jobs", "-d", &spec])).expect("JSON");
    let job = submitted["job"].as_str().expect("an id");
    let events = curl(&["-N", &format!("http://x/v1/jobs/{job}/events")]);
    assert!(events.starts_with("retry: 1000\nid: 0\n\nid: "), "{events}");
    assert!(
        events.contains(r#""type":"job_finished","state":"completed""#),
        "{events}"
    );
    assert!(
        events.ends_with("event: end\ndata: {\"reason\":\"job_over\",\"state\":\"completed\"}\n\n"),
        "{events}"
    );
    let printed = curl(&[
        "-H",
        "Accept: text/plain",
        &format!("http://x/v1/jobs/{job}/logs"),
    ]);
    assert_eq!(printed, "out\nerr\n");
    let head = curl(&["-I", "http://x/v1/node"]);
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
}

#[test]
fn an_idempotency_key_gives_the_same_job_again_and_refuses_another() {
    let (_node, _daemon, ipc) = up(DEFAULTS);
    let keyed = |key: &str, line: &str| {
        let mut spec = shell(line);
        spec["key"] = key.into();
        spec
    };
    let first = ipc.post("/v1/jobs", &keyed("k", "true")).with(201);
    let job = first.json()["job"].as_str().expect("an id").to_owned();
    assert_eq!(
        first.header("location"),
        Some(format!("/v1/jobs/{job}").as_str())
    );
    assert_eq!(first.json()["is_new"], true);

    let again = ipc.post("/v1/jobs", &keyed("k", "true")).with(200).json();
    assert_eq!(
        (&again["job"], &again["is_new"]),
        (&job.as_str().into(), &false.into())
    );
    let by_header = ipc.post_with("/v1/jobs", "Idempotency-Key: k\r\n", &shell("true"));
    assert_eq!(by_header.with(200).json()["job"], job.as_str());

    let other = ipc
        .post("/v1/jobs", &keyed("k", "false"))
        .problem(409, "conflict");
    assert!(other.contains("key `k`") && other.contains(&job), "{other}");
    let both = ipc.post_with(
        "/v1/jobs",
        "Idempotency-Key: other\r\n",
        &keyed("k", "true"),
    );
    assert!(both.problem(400, "invalid").contains("another key"));
    let empty = ipc.post_with("/v1/jobs", "Idempotency-Key: \r\n", &shell("true"));
    assert!(empty.problem(400, "invalid").contains("visible characters"));
    assert_eq!(ids(&ipc.get("/v1/jobs").json()), [job]);
}

#[test]
fn what_is_wrong_with_a_job_is_named_where_it_stands() {
    let (_node, _daemon, ipc) = up(DEFAULTS);
    for (spec, pointer, part) in [
        (
            json!({"program": "comand", "input": {}}),
            "/program",
            "`command`",
        ),
        (
            json!({"program": "command", "input": {}}),
            "/input",
            "`argv`",
        ),
        (
            json!({"program": "plan", "input": {"steps": [{"id": "a"}]}}),
            "/input/steps/0",
            "exactly one of",
        ),
    ] {
        let refused = ipc.post("/v1/jobs", &spec).with(400).json();
        let error = &refused["errors"][0];
        assert_eq!(error["pointer"], pointer, "{refused}");
        assert!(
            refused["detail"]
                .as_str()
                .is_some_and(|detail| !detail.is_empty()),
            "{refused}"
        );
        assert!(
            error["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains(part) || part == "exactly one of"),
            "{refused}"
        );
    }
    let mut unknown = shell("true");
    unknown["nmae"] = "x".into();
    assert!(
        ipc.post("/v1/jobs", &unknown)
            .problem(400, "invalid")
            .contains("`nmae`")
    );
}

#[test]
fn lists_are_filtered_and_come_in_pages() {
    let (_node, _daemon, ipc) = up(DEFAULTS);
    let mut submitted = Vec::new();
    for number in 0..5 {
        let mut spec = shell("true");
        spec["name"] = if number % 2 == 0 { "even" } else { "odd" }.into();
        spec["labels"] = json!({"number": number.to_string(), "team": "a=b"});
        submitted.push(ipc.submit(&spec));
    }
    let waiting = ipc.submit_plan(&asking());
    for job in &submitted {
        ipc.all_of(job);
    }
    ipc.until_waiting(&waiting);
    let newest_first: Vec<_> = submitted.iter().rev().cloned().collect();

    let listed = |query: &str| ids(&ipc.get(&format!("/v1/jobs?{query}")).with(200).json());
    assert_eq!(listed("state=completed"), newest_first);
    assert_eq!(
        listed("state=waiting,stuck"),
        std::slice::from_ref(&waiting)
    );
    assert_eq!(
        listed("state=waiting&state=completed&name=odd"),
        [submitted[3].clone(), submitted[1].clone()]
    );
    assert_eq!(
        listed("label=team%3Da%3Db&label=number%3D2"),
        [submitted[2].clone()]
    );
    assert!(listed("label=team%3Da").is_empty());
    assert!(listed("name=eve").is_empty(), "a name is a whole name");

    let (mut pages, mut query) = (Vec::new(), "state=completed&limit=2".to_owned());
    loop {
        let page = ipc.get(&format!("/v1/jobs?{query}")).with(200).json();
        pages.push(ids(&page));
        let Some(next) = page["next"].as_str() else {
            break;
        };
        query = format!("state=completed&limit=2&before={next}");
    }
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    assert_eq!(pages.concat(), newest_first);

    for (query, part) in [
        ("limit=0", "between 1 and 1000"),
        ("limit=1001", "between 1 and 1000"),
        ("limit=many", "`many`"),
        ("state=asleep", "`asleep`"),
        ("before=x", "the id of a job"),
        ("label=x", "LABEL=VALUE"),
        ("name=a&name=b", "more than once"),
        ("stat=running", "`stat`"),
    ] {
        let refused = ipc
            .get(&format!("/v1/jobs?{query}"))
            .problem(400, "invalid");
        assert!(refused.contains(part), "{query}: {refused}");
    }
}

#[test]
fn a_job_is_found_by_its_name_and_by_parts_of_its_id() {
    let (_node, _daemon, ipc) = up(DEFAULTS);
    let mut named = shell("true");
    named["name"] = "a/b c".into();
    let older = ipc.submit(&named);
    let newer = ipc.submit(&named);
    let found = |word: &str| {
        let job = ipc.get(&format!("/v1/jobs/{word}")).with(200).json();
        job["id"].as_str().expect("an id").to_owned()
    };
    assert_eq!(
        found("a%2Fb%20c"),
        newer,
        "of one name, the newest is meant"
    );
    for job in [&older, &newer] {
        assert_eq!(&found(job), job);
        assert_eq!(&found(&job.to_uppercase()), job);
        assert_eq!(&found(&job[job.len() - 12..]), job);
    }
    // Ids of one moment begin alike.
    let ambiguous = ipc
        .get(&format!("/v1/jobs/{}", &older[..6]))
        .problem(409, "ambiguous");
    assert!(
        ambiguous.contains(&older) && ambiguous.contains(&newer),
        "{ambiguous}"
    );
    for nobody in [
        "nobody",
        &newer[newer.len() - 3..],
        "00000000-0000-0000-0000-000000000000",
        "*",
        "%25",
    ] {
        let path = format!("/v1/jobs/{nobody}");
        ipc.get(&path).problem(404, "not_found");
        ipc.post(&format!("{path}/cancel"), &json!({}))
            .problem(404, "not_found");
    }
}

fn state(ipc: &Ipc, job: &str) -> Value {
    ipc.get(&format!("/v1/jobs/{job}")).with(200).json()["state"].clone()
}

#[test]
fn one_is_cancelled_or_many_or_none_in_a_dry_run() {
    let (_node, _daemon, ipc) = up(DEFAULTS);
    let job = |label: &str| {
        let input = json!({"steps": asking()});
        ipc.submit(&json!({"program": "plan", "input": input, "labels": {"group": label}}))
    };
    let (one, two, three, other) = (job("a"), job("b"), job("b"), job("c"));
    let accepted = ipc.post(
        &format!("/v1/jobs/{one}/cancel"),
        &json!({"reason": "no longer needed"}),
    );
    assert_eq!(accepted.with(202).json()["job"], one.as_str());
    let end = ipc.all_of(&one);
    let finished = &end[end.len() - 2].data;
    assert_eq!(
        (&finished["state"], &finished["error"]),
        (&"cancelled".into(), &"no longer needed".into())
    );
    let over = ipc.request("POST", &format!("/v1/jobs/{one}/cancel"), "", b"");
    assert!(
        over.problem(409, "failed_precondition")
            .contains("cancelled")
    );

    let many = |body: Value| ipc.post("/v1/jobs/cancel", &body).with(200).json();
    let would = many(json!({"labels": {"group": "b"}, "dry_run": true}));
    assert_eq!(
        (ids(&would), &would["dry_run"]),
        (vec![three.clone(), two.clone()], &true.into())
    );
    assert_ne!(state(&ipc, &two), "cancelled");
    let done = many(json!({"labels": {"group": "b"}, "reason": "the group is closed"}));
    assert_eq!(
        (ids(&done), &done["failed"]),
        (vec![three.clone(), two.clone()], &json!([]))
    );
    for job in [&two, &three] {
        let end = ipc.all_of(job);
        assert_eq!(end.last().expect("an end").data["state"], "cancelled");
    }
    assert!(ids(&many(json!({"name": "nobody"}))).is_empty());
    for (body, part) in [
        (json!({}), "say `all`"),
        (json!({"states": ["completed"]}), "are over"),
        (json!({"sates": []}), "`sates`"),
    ] {
        let refused = ipc.post("/v1/jobs/cancel", &body).problem(400, "invalid");
        assert!(refused.contains(part), "{refused}");
    }
    assert_ne!(state(&ipc, &other), "cancelled");
    assert_eq!(
        ids(&many(json!({"all": true}))),
        std::slice::from_ref(&other)
    );
    ipc.all_of(&other);
    assert_eq!(state(&ipc, &other), "cancelled");
}

#[test]
fn a_question_is_shown_and_the_first_answer_counts() {
    let (_node, _daemon, ipc) = up(DEFAULTS);
    let job = ipc.submit_plan(&asking());
    let mut events = ipc.stream(&format!("/v1/jobs/{job}/events"), "");
    let asked = events.until("question").data;
    assert_eq!(
        (&asked["prompt"], &asked["kind"]),
        (&"Go on?".into(), &"approval".into())
    );
    ipc.until_waiting(&job);
    let shown = ipc.get(&format!("/v1/jobs/{job}")).with(200).json();
    assert_eq!(shown["state"], "waiting");
    assert_eq!(
        shown["questions"],
        json!([{"name": asked["name"], "prompt": "Go on?", "kind": "approval"}])
    );
    assert_eq!(shown["input"]["steps"], asking());
    assert!(
        ipc.get(&format!("/v1/jobs/{job}/result"))
            .problem(409, "failed_precondition")
            .contains("waiting")
    );

    let name = asked["name"].as_str().expect("a name");
    let answer = |body: &Value| ipc.post(&format!("/v1/jobs/{job}/signals/{name}"), body);
    assert_eq!(answer(&true.into()).with(202).json()["job"], job.as_str());
    assert_eq!(events.until("answered").data["by"], "client");
    assert!(["settled", "is over"].iter().any(|why| {
        answer(&false.into())
            .problem(409, "failed_precondition")
            .contains(why)
    }));
    assert_eq!(events.until("end").data["state"], "completed");
    let over = ipc.get(&format!("/v1/jobs/{job}")).with(200).json();
    assert_eq!(
        (&over["state"], over.get("questions")),
        (&"completed".into(), None)
    );
    let result = ipc.get(&format!("/v1/jobs/{job}/result")).with(200).json();
    assert_eq!(
        (&result["state"], &result),
        (&"completed".into(), &over["result"])
    );
}

#[test]
fn artifacts_are_put_together_from_their_parts() {
    let (_node, _daemon, ipc) = up(DEFAULTS);
    let text = "äöü and so on, in pieces of five bytes or fewer";
    let job = ipc.submit_plan(&json!([
        {"id": "text", "artifact": {"name": "a text", "text": text, "chunk_bytes": 5}},
        {"id": "data", "artifact": {"name": "data", "data": {"n": [1, null]}}},
        {"id": "url", "artifact": {"name": "url", "url": "https://example.org/x", "media_type": "text/html"}},
        {"id": "make", "class": "workspace", "run": {"shell": "printf 'a\\0b' > made.bin"}},
        {"id": "file", "needs": ["make"], "artifact": {"name": "dir/made.bin", "file": "made.bin", "media_type": "no media\ttype"}},
    ]));
    let end = ipc.all_of(&job);
    assert_eq!(
        end.last().expect("an end").data["state"],
        "completed",
        "{end:?}"
    );
    let listed = ipc
        .get(&format!("/v1/jobs/{job}/artifacts"))
        .with(200)
        .json();
    let of = |name: &str| {
        let found = listed["artifacts"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|found| found["name"] == name);
        found
            .unwrap_or_else(|| panic!("no {name} in {listed}"))
            .clone()
    };
    assert_eq!(
        (&of("a text")["size_bytes"], &of("a text")["complete"]),
        (&text.len().into(), &true.into())
    );
    assert!(of("a text")["parts"].as_u64() >= Some(9), "{listed}");
    assert_eq!(of("url")["url"], "https://example.org/x");
    let get = |name: &str| {
        ipc.get(&format!("/v1/jobs/{job}/artifacts/{name}"))
            .with(200)
    };
    let whole = get("a%20text");
    assert_eq!(
        (whole.body.as_str(), whole.header("x-content-type-options")),
        (text, Some("nosniff"))
    );
    assert!(
        whole
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/plain")),
        "{whole:?}"
    );
    assert_eq!(get("data").json(), json!({"n": [1, null]}));
    assert_eq!(get("url").body, "https://example.org/x");
    assert_eq!(get("dir%2Fmade.bin").body, "a\0b");
    assert!(
        ipc.get(&format!("/v1/jobs/{job}/artifacts/nothing"))
            .problem(404, "not_found")
            .contains("`nothing`")
    );
}

#[test]
fn logs_are_given_as_json_as_text_and_as_they_are_printed() {
    let (node, _daemon, ipc) = up(DEFAULTS);
    let mut barrier = node.place.barrier("go");
    let job = ipc.submit_plan(&json!([
        {"id": "one", "run": {"shell": "printf 'one\\n'; printf 'err\\377' >&2"}},
        {"id": "two", "needs": ["one"], "run": {"shell": "echo begun; cd $TINKERBELL_START_DIR; read _ < go; echo done; exit 3"}, "class": "read"},
    ]));
    let logs = format!("/v1/jobs/{job}/logs");
    let mut follow = ipc.stream(&logs, "Accept: text/event-stream\r\n");
    loop {
        let piece = follow.until("output").data;
        if piece["step"] == "two" {
            assert_eq!(piece["data"], "begun\n");
            break;
        }
    }
    // What is at work shows in no log of what is over.
    let pieces = ipc.get(&logs).with(200).json();
    assert_eq!(
        pieces["pieces"],
        json!([{"step": "one", "attempt": 1, "stream": "stdout", "data": "one\n"},
               {"step": "one", "attempt": 1, "stream": "stderr", "data": "err\u{fffd}"}])
    );
    barrier.release(1);
    assert_eq!(follow.until("output").data["data"], "done\n");
    let end = follow.until("end").data;
    assert_eq!(
        (&end["reason"], &end["state"]),
        (&"job_over".into(), &"failed".into())
    );
    assert!(follow.next().is_none());

    let get = |query: &str, accept: &str| {
        let answer = ipc.request(
            "GET",
            &format!("{logs}{query}"),
            &format!("Accept: {accept}\r\n"),
            b"",
        );
        answer.with(200).body
    };
    assert_eq!(get("", "text/plain"), "one\nerr\u{fffd}begun\ndone\n");
    assert_eq!(get("?stream=stdout&step=two", "text/*"), "begun\ndone\n");
    // Followed once it is over, it is told from the journal, and ends.
    let late = ipc
        .stream(&format!("{logs}?step=two"), "Accept: text/event-stream\r\n")
        .rest();
    assert_eq!(late.len(), 2, "{late:?}");
    assert_eq!(
        (&late[0].data["data"], &late[1].event),
        (&"begun\ndone\n".into(), &"end".to_owned())
    );
    let refused = ipc
        .request("GET", &logs, "Accept: image/png\r\n", b"")
        .problem(406, "unsupported");
    assert!(refused.contains("text/event-stream"), "{refused}");

    let command = ipc.submit(&shell("exit 7"));
    let end = ipc
        .stream(
            &format!("/v1/jobs/{command}/logs"),
            "Accept: text/event-stream\r\n",
        )
        .rest();
    assert_eq!(end.last().expect("an end").data["exit_code"], 7);
}

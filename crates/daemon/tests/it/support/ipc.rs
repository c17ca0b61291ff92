//! The transport `ipc` as its clients see it: requests over a Unix socket, and streams of server-sent events.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::Value;

use super::{Answer, Node, PATIENCE};

/// A daemon's socket.
#[derive(Clone, Debug)]
pub(crate) struct Ipc(PathBuf);

impl Ipc {
    /// The socket of a node that says nothing of where it is.
    pub(crate) fn of(node: &Node) -> Self {
        Self(node.data_dir().join("ipc.sock"))
    }

    pub(crate) fn at(path: PathBuf) -> Self {
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A connection on which nothing was said yet.
    #[track_caller]
    pub(crate) fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(&self.0).expect("the daemon listens");
        for set in [UnixStream::set_read_timeout, UnixStream::set_write_timeout] {
            set(&stream, Some(PATIENCE)).expect("a timeout can be set");
        }
        stream
    }

    /// Sends these bytes, and reads what comes until the connection ends.
    #[track_caller]
    pub(crate) fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        // Who is refused half way reads no further; what it is told is there to be read all the same.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            Ok(_) => {}
            // What the other side did not read when it closed shows as this, after all that it said.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
            Err(error) => panic!("the connection should end: {error}"),
        }
        answer
    }

    /// Sends a request with these headers, each with its line's end.
    #[track_caller]
    pub(crate) fn request(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let mut request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        let answer = self.raw(&request);
        parse(&mut BufReader::new(answer.as_slice()))
            .unwrap_or_else(|| panic!("{method} {path}: no answer: {answer:?}"))
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.request("GET", path, "", b"")
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_with(path, "", body)
    }

    #[track_caller]
    pub(crate) fn post_with(&self, path: &str, headers: &str, body: &Value) -> Answer {
        let headers = format!("{headers}Content-Type: application/json\r\n");
        self.request("POST", path, &headers, body.to_string().as_bytes())
    }

    /// Submits a job, and gives its id.
    #[track_caller]
    pub(crate) fn submit(&self, spec: &Value) -> String {
        let answer = self.post("/v1/jobs", spec).with(201);
        let id = answer.json()["job"].as_str().map(str::to_owned);
        id.expect("an id")
    }

    /// Submits a command for `sh -c`.
    #[track_caller]
    pub(crate) fn submit_shell(&self, shell: &str) -> String {
        self.submit(&serde_json::json!({"program": "command", "input": {"shell": shell}}))
    }

    /// Submits a plan of these steps.
    #[track_caller]
    pub(crate) fn submit_plan(&self, steps: &Value) -> String {
        self.submit(&serde_json::json!({"program": "plan", "input": {"steps": steps}}))
    }

    /// Begins to read a stream.
    #[track_caller]
    pub(crate) fn stream(&self, path: &str, headers: &str) -> Stream {
        let refused = |answer| panic!("{path}: {answer:?}");
        self.try_stream(path, headers).unwrap_or_else(refused)
    }

    /// Begins to read a stream, or gives the answer that is none.
    #[track_caller]
    pub(crate) fn try_stream(&self, path: &str, headers: &str) -> Result<Stream, Answer> {
        let mut stream = self.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n")
            .expect("a request can be sent");
        let mut stream = BufReader::new(stream);
        let (status, headers) = head(&mut stream).expect("an answer has a head");
        if status != 200 {
            let body = body(&mut stream, &headers).expect("a refusal is whole");
            return Err(Answer {
                status,
                headers,
                body,
            });
        }
        Ok(Stream {
            pieces: BufReader::new(Chunks {
                stream,
                left: 0,
                is_over: false,
            }),
        })
    }

    /// Waits until a job waits for somebody. That is in no log, so whoever watches only now does not see it.
    #[track_caller]
    pub(crate) fn until_waiting(&self, job: &str) {
        let until = Instant::now() + PATIENCE;
        while self.get(&format!("/v1/jobs/{job}")).with(200).json()["state"] != "waiting" {
            assert!(Instant::now() < until, "job {job} does not come to wait");
            std::thread::yield_now();
        }
    }

    /// Waits for the end of a job, and gives all its events.
    #[track_caller]
    pub(crate) fn all_of(&self, job: &str) -> Vec<Message> {
        self.stream(&format!("/v1/jobs/{job}/events?output=false"), "")
            .rest()
    }
}

impl Answer {
    /// Makes sure of the status.
    #[track_caller]
    pub(crate) fn with(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }

    /// Makes sure that this is a problem document of a kind, and gives what it says.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, code: &str) -> String {
        let answer = self.with(status);
        assert_eq!(
            answer.header("content-type"),
            Some("application/problem+json")
        );
        let problem = answer.json();
        assert_eq!(
            (&problem["status"], &problem["code"]),
            (&status.into(), &code.into())
        );
        problem["detail"].as_str().expect("a detail").to_owned()
    }
}

/// Status and headers, the names in lower case; `None` if there is nothing.
fn head(stream: &mut impl BufRead) -> Option<(u16, Vec<(String, String)>)> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else {
            return Some((status, headers));
        };
        headers.push((name.to_lowercase(), value.to_owned()));
    }
}

/// The next answer of a connection: with its length, in chunks, or to the end.
pub(crate) fn parse(stream: &mut impl BufRead) -> Option<Answer> {
    let (status, headers) = head(stream)?;
    let body = body(stream, &headers)?;
    Some(Answer {
        status,
        headers,
        body,
    })
}

/// The body that follows these headers.
fn body(stream: &mut impl BufRead, headers: &[(String, String)]) -> Option<String> {
    let header = |wanted: &str| {
        headers
            .iter()
            .find(|(name, _)| name == wanted)
            .map(|(_, value)| value.as_str())
    };
    let mut body = Vec::new();
    if let Some(length) = header("content-length") {
        body.resize(length.parse().ok()?, 0);
        stream.read_exact(&mut body).ok()?;
    } else if header("transfer-encoding") == Some("chunked") {
        Chunks {
            stream,
            left: 0,
            is_over: false,
        }
        .read_to_end(&mut body)
        .ok()?;
    } else {
        stream.read_to_end(&mut body).ok()?;
    }
    Some(String::from_utf8_lossy(&body).into_owned())
}

/// A body in chunks (RFC 9112, section 7.1).
#[derive(Debug)]
struct Chunks<T> {
    stream: T,
    left: usize,
    is_over: bool,
}

impl<T: BufRead> Read for Chunks<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let invalid = || io::Error::new(io::ErrorKind::UnexpectedEof, "the stream was cut off");
        let mut line = String::new();
        if self.is_over {
            return Ok(0);
        }
        if self.left == 0 {
            self.stream.read_line(&mut line)?;
            self.left = usize::from_str_radix(line.trim_end(), 16).map_err(|_| invalid())?;
            if self.left == 0 {
                self.stream.read_line(&mut line)?;
                self.is_over = true;
                return Ok(0);
            }
        }
        let wanted = self.left.min(buffer.len());
        let read = self.stream.read(&mut buffer[..wanted])?;
        if read == 0 {
            return Err(invalid());
        }
        self.left -= read;
        if self.left == 0 {
            line.clear();
            self.stream.read_line(&mut line)?;
        }
        Ok(read)
    }
}

/// A server-sent event.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Message {
    pub(crate) id: Option<u64>,
    pub(crate) event: String,
    pub(crate) data: Value,
}

impl Message {
    /// What kind of event it shows; empty for what is none.
    pub(crate) fn kind(&self) -> &str {
        self.data["type"].as_str().unwrap_or_default()
    }
}

/// A stream of server-sent events.
#[derive(Debug)]
pub(crate) struct Stream {
    pieces: BufReader<Chunks<BufReader<UnixStream>>>,
}

impl Stream {
    /// The next event; `None` where the stream has ended, or its connection has.
    pub(crate) fn next(&mut self) -> Option<Message> {
        self.try_next().ok().flatten()
    }

    /// The next event; `None` where the daemon has ended the stream as it should, an error where it was cut off.
    pub(crate) fn try_next(&mut self) -> io::Result<Option<Message>> {
        let (mut id, mut event, mut data) = (None, String::new(), None);
        let mut line = String::new();
        loop {
            line.clear();
            if self.pieces.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            match line.trim_end().split_once(": ") {
                Some(("id", value)) => id = value.parse().ok(),
                Some(("event", value)) => value.clone_into(&mut event),
                Some(("data", value)) => data = serde_json::from_str(value).ok(),
                Some(_) => {}
                None => {
                    if let Some(data) = data.take() {
                        return Ok(Some(Message { id, event, data }));
                    }
                    // A block without data is no message: the first says where the stream begins.
                    (id, event) = (None, String::new());
                }
            }
        }
    }

    /// The next event of a kind.
    #[track_caller]
    pub(crate) fn until(&mut self, kind: &str) -> Message {
        loop {
            let Some(message) = self.next() else {
                panic!("the stream ended without `{kind}`");
            };
            if message.kind() == kind || message.event == kind {
                return message;
            }
        }
    }

    /// All there is to come.
    pub(crate) fn rest(mut self) -> Vec<Message> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

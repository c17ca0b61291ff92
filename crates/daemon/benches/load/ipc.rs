//! A client of ipc, as small as can be.

use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::{Told, count};

pub(crate) struct Connection(BufReader<UnixStream>);

impl Connection {
    pub(crate) async fn open(socket: &Path) -> Self {
        Self(BufReader::new(UnixStream::connect(socket).await.unwrap()))
    }

    pub(crate) async fn submit(
        &mut self,
        (program, input): (&str, &str),
        name: Option<&str>,
    ) -> Result<String, String> {
        let name = name.map_or_else(String::new, |name| format!(r#""name":"{name}","#));
        let spec = format!(r#"{{{name}"program":"{program}","input":{input}}}"#);
        let request = format!(
            "POST /v1/jobs HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{spec}",
            spec.len()
        );
        let stream = self.0.get_mut();
        stream.write_all(request.as_bytes()).await.unwrap();
        let (mut status, mut length) = (0_u16, 0);
        loop {
            let mut line = String::new();
            assert!(
                self.0.read_line(&mut line).await.unwrap() > 0,
                "the daemon closed a connection"
            );
            let line = line.trim_end().to_ascii_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap();
        let text = |name: &str| body[name].as_str().unwrap_or_default().to_owned();
        match status {
            201 => Ok(text("job")),
            _ => Err(format!("{status} {}", text("code"))),
        }
    }
}

/// Watches for as long as the daemon lives.
pub(crate) async fn watch(socket: &Path, job: Option<&str>, told: &Told) {
    let path = job.map_or_else(
        || "/v1/events".to_owned(),
        |job| format!("/v1/jobs/{job}/events"),
    );
    let mut last = String::new();
    let mut is_first = true;
    loop {
        let Ok(stream) = UnixStream::connect(socket).await else {
            return;
        };
        let mut stream = BufReader::new(stream);
        let request = match last.as_str() {
            "" => format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"),
            last => format!("GET {path} HTTP/1.1\r\nHost: x\r\nLast-Event-ID: {last}\r\n\r\n"),
        };
        if stream
            .get_mut()
            .write_all(request.as_bytes())
            .await
            .is_err()
        {
            return;
        }
        let mut line = Vec::new();
        let mut is_lagged = false;
        while stream
            .read_until(b'\n', &mut line)
            .await
            .is_ok_and(|read| read > 0)
        {
            if line.starts_with(b"HTTP/1.1 ") {
                assert!(line.starts_with(b"HTTP/1.1 200"), "{}", line.escape_ascii());
                if std::mem::take(&mut is_first) {
                    count(&told.open);
                }
            } else if line.starts_with(b"id: ") {
                last.clear();
                last.push_str(String::from_utf8_lossy(&line[4..]).trim_end());
            } else if line.starts_with(b"event: event") {
                count(&told.events);
            } else if line.starts_with(b"event: end") {
                is_lagged = true;
                break;
            }
            line.clear();
        }
        if !is_lagged {
            return;
        }
        count(&told.lagged);
    }
}

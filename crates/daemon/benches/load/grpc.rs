//! A client of grpc, as small as can be: hyper's HTTP/2, and the few messages by hand, as protocol buffers write them
//! (<https://protobuf.dev/programming-guides/encoding>).

use std::path::Path;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;

use crate::{Told, count};

pub(crate) struct Connection(SendRequest<Full<Bytes>>);

/// A field of text, or of a message.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    varint(&mut field, content.len() as u64);
    field.extend_from_slice(content);
    field
}

fn varint(into: &mut Vec<u8>, mut value: u64) {
    while value > 0x7f {
        into.push(value as u8 | 0x80);
        value >>= 7;
    }
    into.push(value as u8);
}

/// Takes a number from the beginning.
fn take_varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= u64::from(byte & 0x7f) << shift;
        if byte <= 0x7f {
            break;
        }
    }
    value
}

impl Connection {
    /// A connection; `None` if nobody listens.
    async fn try_open(socket: &Path) -> Option<Self> {
        let stream = UnixStream::connect(socket).await.ok()?;
        let opened = handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (send, connection) = opened.ok()?;
        // It ends with the daemon.
        tokio::spawn(connection);
        Some(Self(send))
    }

    pub(crate) async fn open(socket: &Path) -> Self {
        Self::try_open(socket).await.expect("the daemon listens")
    }

    async fn call(&mut self, method: &str, message: &[u8]) -> hyper::Result<Response<Incoming>> {
        let mut framed = vec![0];
        framed.extend_from_slice(&(message.len() as u32).to_be_bytes());
        framed.extend_from_slice(message);
        let request = Request::post(format!("http://x/tinkerbell.v1.JobService/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(framed.into()))
            .unwrap();
        self.0.ready().await?;
        self.0.send_request(request).await
    }

    pub(crate) async fn submit(
        &mut self,
        (program, input): (&str, &str),
        name: Option<&str>,
    ) -> Result<String, String> {
        let mut spec = field(1, program.as_bytes());
        spec.extend(field(2, input.as_bytes()));
        spec.extend(name.into_iter().flat_map(|name| field(3, name.as_bytes())));
        let answer = self.call("Submit", &field(1, &spec)).await.unwrap();
        let headers = answer.headers().clone();
        let body = answer.into_body().collect().await.unwrap();
        let trailers = body.trailers().unwrap_or(&headers).clone();
        let text = |name: &str| {
            let value = trailers.get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        if text("grpc-status") != "0" {
            return Err(format!(
                "{} {}",
                text("grpc-status"),
                text("tinkerbell-reason")
            ));
        }
        let message = body.to_bytes();
        let mut id = &message[6..];
        let length = take_varint(&mut id) as usize;
        Ok(String::from_utf8(id[..length].to_vec()).unwrap())
    }
}

/// Watches for as long as the daemon lives.
pub(crate) async fn watch(socket: &Path, job: Option<&str>, told: &Told) {
    let mut last = None;
    let mut is_first = true;
    loop {
        let Some(mut connection) = Connection::try_open(socket).await else {
            return;
        };
        let mut request = job.map_or_else(Vec::new, |job| field(1, job.as_bytes()));
        if let Some(last) = last {
            request.push(2 << 3);
            varint(&mut request, last);
        }
        let Ok(answer) = connection.call("Watch", &request).await else {
            return;
        };
        let status = answer.headers().get("grpc-status");
        assert!(status.is_none(), "{status:?}");
        if std::mem::take(&mut is_first) {
            count(&told.open);
        }
        let (mut body, mut unread, mut is_lagged) = (answer.into_body(), Vec::new(), false);
        while let Some(Ok(frame)) = body.frame().await {
            let Some(data) = frame.data_ref() else {
                break;
            };
            unread.extend_from_slice(data);
            let mut rest = unread.as_slice();
            while let Some((message, after)) = take_message(rest) {
                rest = after;
                match message[0] >> 3 {
                    1 => {
                        count(&told.events);
                        last = lsn(&message[1..]).or(last);
                    }
                    3 => is_lagged = true,
                    _ => {}
                }
            }
            unread = rest.to_vec();
        }
        if !is_lagged {
            return;
        }
        count(&told.lagged);
    }
}

/// The first message, if it is whole, and what follows it.
fn take_message(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length: [u8; 4] = bytes.get(1..5)?.try_into().ok()?;
    bytes[5..].split_at_checked(u32::from_be_bytes(length) as usize)
}

/// The number of an event's entry, which is its first field if it has one.
fn lsn(mut event: &[u8]) -> Option<u64> {
    take_varint(&mut event);
    (event.first() == Some(&(1 << 3))).then(|| take_varint(&mut &event[1..]))
}

//! A client of this transport: one connection for each request.

use std::io;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio_vsock::{VMADDR_CID_HOST, VsockAddr, VsockStream};

use super::answer::{EVENTS, JSON};
use crate::listen::Address;
use crate::server::Duplex;
use crate::wire::Problem;

/// Why a request has no good answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error("cannot reach a daemon at {address}: {source}")]
    Unreachable {
        /// Where.
        address: Address,
        /// Why not.
        source: io::Error,
    },
    /// The daemon says no.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// The connection broke, or what came over it is not understood.
    #[error("{0}")]
    Broken(String),
}

/// How long a daemon may take to accept a connection.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// A daemon at an address.
#[derive(Clone, Debug)]
pub struct Client {
    address: Address,
}

impl Client {
    /// The daemon at an address. Nothing is connected yet.
    #[must_use]
    pub fn new(address: Address) -> Self {
        Self { address }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Asks for something.
    ///
    /// # Errors
    ///
    /// If nobody is there, or the answer is no.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        let answer = self.send(Method::GET, path, JSON, None).await?;
        read(answer).await
    }

    /// Asks for something as it is, whatever its kind.
    ///
    /// # Errors
    ///
    /// If nobody is there, or the answer is no.
    pub async fn get_bytes(&self, path: &str, accept: &str) -> Result<Bytes, ClientError> {
        let answer = self.send(Method::GET, path, accept, None).await?;
        Ok(collect(answer).await?.1)
    }

    /// Asks for something to be done.
    ///
    /// # Errors
    ///
    /// If nobody is there, or the answer is no.
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| ClientError::Broken(format!("cannot write the request: {error}")))?;
        let answer = self
            .send(Method::POST, path, JSON, Some(body.into()))
            .await?;
        read(answer).await
    }

    /// Asks for a stream of server-sent events.
    ///
    /// # Errors
    ///
    /// If nobody is there, or the answer is no.
    pub async fn events(&self, path: &str) -> Result<Events, ClientError> {
        let answer = self.send(Method::GET, path, EVENTS, None).await?;
        if !answer.status().is_success() {
            return Err(refused(answer).await);
        }
        Ok(Events {
            body: answer.into_body(),
            read: Vec::new(),
            next: ServerEvent::default(),
            last_id: None,
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<Bytes>,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = self.connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        // Ends with the answer's body, or with the connection.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "the connection to the daemon broke");
            }
        });
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::ACCEPT, accept)
            .header(header::CONNECTION, "close");
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, HeaderValue::from_static(JSON));
        }
        let request = request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| ClientError::Broken(format!("cannot make the request: {error}")))?;
        sender
            .send_request(request)
            .await
            .map_err(|error| broken(&error))
    }

    async fn connect(&self) -> Result<Box<dyn Duplex>, ClientError> {
        let connecting = async {
            Ok::<Box<dyn Duplex>, io::Error>(match &self.address {
                Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
                Address::Vsock { cid, port } => {
                    let cid = cid.unwrap_or(VMADDR_CID_HOST);
                    Box::new(VsockStream::connect(VsockAddr::new(cid, *port)).await?)
                }
            })
        };
        let connected = tokio::time::timeout(CONNECT_MAX, connecting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        connected.map_err(|source| ClientError::Unreachable {
            address: self.address.clone(),
            source,
        })
    }
}

fn broken(error: &hyper::Error) -> ClientError {
    ClientError::Broken(format!("the connection to the daemon broke: {error}"))
}

async fn collect(answer: Response<Incoming>) -> Result<(Option<HeaderValue>, Bytes), ClientError> {
    if !answer.status().is_success() {
        return Err(refused(answer).await);
    }
    let content_type = answer.headers().get(header::CONTENT_TYPE).cloned();
    let body = answer.into_body().collect().await;
    let body = body.map_err(|error| broken(&error))?;
    Ok((content_type, body.to_bytes()))
}

async fn read<T: DeserializeOwned>(answer: Response<Incoming>) -> Result<T, ClientError> {
    let (_, bytes) = collect(answer).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ClientError::Broken(format!("the answer is not understood: {error}")))
}

async fn refused(answer: Response<Incoming>) -> ClientError {
    let status = answer.status();
    let body = match answer.into_body().collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return broken(&error),
    };
    match serde_json::from_slice(&body) {
        Ok(problem) => ClientError::Refused(Box::new(problem)),
        Err(_) => ClientError::Broken(format!("the daemon answered {status}")),
    }
}

/// A server-sent event, as it came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerEvent {
    /// Its id, if it has one.
    pub id: Option<String>,
    /// Its kind.
    pub event: String,
    /// What it says.
    pub data: String,
}

/// A stream of server-sent events.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    /// What was read and is not a whole line yet.
    read: Vec<u8>,
    next: ServerEvent,
    last_id: Option<String>,
}

impl Events {
    /// The id of the last event that had one, or where the stream began: what to come back with.
    #[must_use]
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// The next event; `None` where the daemon has ended the stream.
    ///
    /// # Errors
    ///
    /// If the connection broke.
    pub async fn next(&mut self) -> Result<Option<ServerEvent>, ClientError> {
        loop {
            while let Some(end) = self.read.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                if let Some(event) = self.take_line(line.trim_end_matches(['\r', '\n'])) {
                    return Ok(Some(event));
                }
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(&error)),
                Some(Ok(frame)) => {
                    if let Ok(bytes) = frame.into_data() {
                        self.read.extend_from_slice(&bytes);
                    }
                }
            }
        }
    }

    /// The event that is whole with this line, if one is.
    fn take_line(&mut self, line: &str) -> Option<ServerEvent> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.next);
            if event.id.is_some() {
                self.last_id.clone_from(&event.id);
            }
            return (!event.data.is_empty()).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.next.id = Some(value.to_owned()),
            "event" => value.clone_into(&mut self.next.event),
            "data" => {
                if !self.next.data.is_empty() {
                    self.next.data.push('\n');
                }
                self.next.data.push_str(value);
            }
            // Comments, and what a client of this kind has no use for.
            _ => {}
        }
        None
    }
}

//! Bodies of answers: whole, or as they come; and bodies of requests, within limits.

use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::fault::{Fault, FaultCode};
use crate::logs::{LogItem, LogStream};
use crate::watch::{EventStream, Item};

/// How long a client may take to send a request's body.
const BODY_MAX: Duration = Duration::from_secs(30);

/// How often something is sent on a stream on which nothing happens, so that either side notices when the other is
/// gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How many pieces of a stream wait for a client.
const PIECES_WAITING: usize = 16;

/// A piece takes in what is ready until it is as long as this, in bytes: what comes in a burst costs one write, and not
/// one for each event.
const PIECE_FULL_BYTES: usize = 8 * 1024;

/// How many bytes most events have, or fewer.
const EVENT_BYTES: usize = 256;

/// The body of an answer.
pub(super) enum AnswerBody {
    Whole(Option<Bytes>),
    Stream(mpsc::Receiver<Bytes>),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(pieces) => pieces
                .poll_recv(cx)
                .map(|piece| piece.map(|bytes| Ok(Frame::data(bytes)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// Reads a request's body, up to a limit of size and time.
pub(super) async fn read(body: Incoming, limit_bytes: usize) -> Result<Bytes, Fault> {
    let too_large = || {
        Fault::new(
            FaultCode::TooLarge,
            format!("the body has more than {limit_bytes} bytes (`api.message_size`)"),
        )
    };
    // What announces itself as too large is not waited for.
    if body.size_hint().lower() > limit_bytes as u64 {
        return Err(too_large());
    }
    let read = tokio::time::timeout(BODY_MAX, Limited::new(body, limit_bytes).collect());
    match read.await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Fault::invalid(format!("the body cannot be read: {error}"))),
        Err(_) => Err(Fault::new(
            FaultCode::TimedOut,
            format!("the body took longer than {} s", BODY_MAX.as_secs()),
        )),
    }
}

/// A stream that can be sent as server-sent events.
pub(super) trait Source: Send + 'static {
    /// After which entry the stream begins, if it is one that can be resumed.
    fn after(&self) -> Option<u64>;

    /// Adds the next message; false after the last one. Dropping the future loses nothing.
    fn next(&mut self, piece: &mut Piece) -> impl Future<Output = bool> + Send;
}

/// A piece of a stream: server-sent events, one after the other.
#[derive(Default)]
pub(super) struct Piece(Vec<u8>);

impl Piece {
    fn push<T: Serialize>(&mut self, id: Option<u64>, event: &str, data: &T) {
        // Most events fit, so that the piece is not moved as they grow.
        self.0.reserve(EVENT_BYTES);
        let written = match id {
            Some(id) => write!(self.0, "id: {id}\nevent: {event}\ndata: "),
            None => write!(self.0, "event: {event}\ndata: "),
        };
        written.expect("a vector takes what is written to it");
        // What is sent is ours: strings, numbers and maps with string keys. JSON has no line ends of its own.
        serde_json::to_writer(&mut self.0, data)
            .expect("a message serialises because it has string keys only");
        self.0.extend_from_slice(b"\n\n");
    }

    fn push_fault(&mut self, fault: &Fault) {
        self.push(None, "error", &super::answer::problem(fault));
    }
}

impl Source for EventStream {
    fn after(&self) -> Option<u64> {
        Some(EventStream::after(self))
    }

    async fn next(&mut self, piece: &mut Piece) -> bool {
        match EventStream::next(self).await {
            Ok(Some(Item::Event(event))) => piece.push(event.lsn, "event", &event),
            Ok(Some(Item::Gap(gap))) => piece.push(None, "gap", &gap),
            Ok(Some(Item::End(end))) => piece.push(None, "end", &end),
            Ok(None) => return false,
            Err(fault) => piece.push_fault(&fault),
        }
        true
    }
}

impl Source for LogStream {
    fn after(&self) -> Option<u64> {
        None
    }

    async fn next(&mut self, piece: &mut Piece) -> bool {
        match LogStream::next(self).await {
            Ok(Some(LogItem::Piece(printed))) => piece.push(None, "output", &printed),
            Ok(Some(LogItem::End(end))) => piece.push(None, "end", &end),
            Ok(None) => return false,
            Err(fault) => piece.push_fault(&fault),
        }
        true
    }
}

/// Sends a stream for as long as it lasts and its client takes it.
pub(super) fn events(mut source: impl Source, stall: Duration) -> AnswerBody {
    let (pieces, body) = mpsc::channel(PIECES_WAITING);
    tokio::spawn(async move {
        let send = async |bytes: Bytes| {
            // A client that takes nothing loses its connection; its stream ends with it, or here if that is sooner.
            matches!(
                tokio::time::timeout(stall, pieces.send(bytes)).await,
                Ok(Ok(()))
            )
        };
        // An id without data is no event, but what a client comes back with that has seen none (HTML, section 9.2.6).
        let after = source.after();
        let after = after.map_or_else(String::new, |after| format!("id: {after}\n"));
        let mut alive = send(format!("retry: 1000\n{after}\n").into()).await;
        while alive {
            let mut piece = Piece::default();
            let mut more = tokio::select! {
                more = source.next(&mut piece) => more,
                () = tokio::time::sleep(KEEP_ALIVE) => {
                    piece.0.extend_from_slice(b": nothing happens\n\n");
                    true
                }
                () = pieces.closed() => return,
            };
            // And what else is there already.
            while more && piece.0.len() < PIECE_FULL_BYTES {
                more = tokio::select! {
                    biased;
                    more = source.next(&mut piece) => more,
                    () = std::future::ready(()) => break,
                };
            }
            alive = (piece.0.is_empty() || send(piece.0.into()).await) && more;
        }
    });
    AnswerBody::Stream(body)
}

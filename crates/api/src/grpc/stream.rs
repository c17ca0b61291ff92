//! Streams to a client, for as long as they last and it takes them.
//!
//! A task of its own reads the source and hands on few messages in advance. So a client that takes nothing on one of its
//! streams loses that stream, its place and what it would keep in memory, and not the others of its connection; and
//! a client that goes away ends the source at once.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::mpsc;
use tonic::Status;
use tonic::codegen::BoxStream;
use tonic::codegen::tokio_stream::Stream;

use crate::fault::{Fault, FaultCode};

/// How many messages of a stream wait for a client.
const MESSAGES_WAITING: usize = 16;

/// What can be sent as a stream.
pub(super) trait Source: Send + 'static {
    /// What is sent.
    type Message: Send + 'static;

    /// The next message; `None` after the last one. Dropping the future loses nothing.
    fn next(&mut self) -> impl Future<Output = Result<Option<Self::Message>, Fault>> + Send;
}

/// Sends a source for as long as it lasts.
pub(super) fn sent<S: Source>(mut source: S, stall: Duration) -> BoxStream<S::Message> {
    let (sender, messages) = mpsc::channel(MESSAGES_WAITING);
    let stalled = Arc::new(AtomicBool::new(false));
    let sent = Sent {
        messages,
        stalled: Arc::clone(&stalled),
        stall,
    };
    tokio::spawn(async move {
        loop {
            let message = tokio::select! {
                message = source.next() => message.map_err(Status::from).transpose(),
                () = sender.closed() => return,
            };
            let Some(message) = message else { return };
            let is_last = message.is_err();
            match tokio::time::timeout(stall, sender.send(message)).await {
                Ok(Ok(())) if !is_last => {}
                Ok(_) => return,
                Err(_) => {
                    stalled.store(true, Ordering::Release);
                    return;
                }
            }
        }
    });
    Box::pin(sent)
}

struct Sent<M> {
    messages: mpsc::Receiver<Result<M, Status>>,
    stalled: Arc<AtomicBool>,
    stall: Duration,
}

impl<M> Stream for Sent<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.poll_recv(cx).map(|message| {
            // Without the message that says so, an end would look like that of the source.
            message.or_else(|| {
                let stalled = self.stalled.swap(false, Ordering::Acquire);
                stalled.then(|| Err(too_slow(self.stall).into()))
            })
        })
    }
}

fn too_slow(stall: Duration) -> Fault {
    Fault::new(
        FaultCode::Exhausted,
        format!(
            "nothing of the stream was taken for {stall:?} (`api.stall`); come back after the last event you have"
        ),
    )
}

/// Messages that are all there.
pub(super) fn all<M: Send + 'static>(messages: Vec<M>) -> BoxStream<M> {
    Box::pin(tonic::codegen::tokio_stream::iter(
        messages.into_iter().map(Ok),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::codegen::tokio_stream::StreamExt;

    struct Numbers(u32);

    impl Source for Numbers {
        type Message = u32;

        async fn next(&mut self) -> Result<Option<u32>, Fault> {
            self.0 += 1;
            Ok(Some(self.0))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_takes_nothing_is_told_so_and_holds_nothing() {
        let mut stream = sent(Numbers(0), Duration::from_secs(30));
        // The clock is the runtime's, and moves when nothing else does.
        tokio::time::sleep(Duration::from_secs(31)).await;
        let mut got = Vec::new();
        let refused = loop {
            match stream.next().await.expect("it does not end without a word") {
                Ok(number) => got.push(number),
                Err(status) => break status,
            }
        };
        assert_eq!(got.len(), MESSAGES_WAITING);
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
        assert!(stream.next().await.is_none());
    }
}

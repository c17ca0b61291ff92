//! The calls of one connection: whether there are any, and whether their answers are taken.
//!
//! An answer of HTTP/2 waits for room that its client gives, for each call apart. A client that gives none would have the answer
//! kept for ever, and as many as it can ask for; so a connection with an answer that is stuck is cut off. That an answer
//! is waited for shows in that nobody asks its body for more.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body as HttpBody, Bytes, Frame, SizeHint};
use tokio::time::Instant;
use tonic::Status;
use tonic::body::Body;

/// A connection on which no call is open for so long, or none comes after it was made, is closed. Clients connect again when
/// they need to.
const IDLE_MAX: Duration = Duration::from_secs(120);

/// The calls of a connection.
#[derive(Debug, Default)]
pub(super) struct Calls(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// How many there have been; the newest has this number.
    begun: u64,
    open: usize,
    /// Those with a part of their answer on its way, and since when.
    sending: HashMap<u64, Instant>,
}

impl Calls {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Nothing under the lock can panic half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin(calls: &Arc<Self>) -> OpenCall {
        let mut inner = calls.inner();
        inner.begun += 1;
        inner.open += 1;
        OpenCall {
            number: inner.begun,
            calls: Arc::clone(calls),
        }
    }

    /// Waits until no call was open for [`IDLE_MAX`].
    pub(super) async fn idle(&self) {
        let mut before = None;
        loop {
            let (begun, open) = {
                let inner = self.inner();
                (inner.begun, inner.open)
            };
            if open == 0 && before == Some(begun) {
                return;
            }
            before = Some(begun);
            tokio::time::sleep(IDLE_MAX).await;
        }
    }

    /// Waits until a part of an answer has not been taken for so long.
    pub(super) async fn stuck(&self, limit: Duration) {
        loop {
            tokio::time::sleep(limit / 4).await;
            let oldest = self.inner().sending.values().min().copied();
            if oldest.is_some_and(|since| since.elapsed() >= limit) {
                return;
            }
        }
    }
}

/// A call that is not over, to its answer's last byte.
#[derive(Debug)]
pub(super) struct OpenCall {
    number: u64,
    calls: Arc<Calls>,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        let mut inner = self.calls.inner();
        inner.open -= 1;
        inner.sending.remove(&self.number);
    }
}

/// The body of an answer, as it is taken.
pub(super) struct Answer {
    body: Body,
    call: OpenCall,
}

impl Answer {
    pub(super) fn new(body: Body, call: OpenCall) -> Self {
        let answer = Self { body, call };
        // Without any room it is never asked for its first part.
        answer.is_on_its_way(true);
        answer
    }

    fn is_on_its_way(&self, is: bool) {
        let mut inner = self.call.calls.inner();
        if is {
            inner.sending.insert(self.call.number, Instant::now());
        } else {
            inner.sending.remove(&self.call.number);
        }
    }
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        self.is_on_its_way(matches!(polled, Poll::Ready(Some(_))));
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full};

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_is_not_taken_is_noticed_and_one_that_is_taken_is_not() {
        const LIMIT: Duration = Duration::from_secs(60);
        let calls = Arc::new(Calls::default());
        let answer = |text: &'static str| {
            let body = Body::new(Full::new(Bytes::from_static(text.as_bytes())));
            Answer::new(body, Calls::begin(&calls))
        };
        let mut taken = answer("all of it");
        while taken.frame().await.is_some() {}
        assert!(
            tokio::time::timeout(3 * LIMIT, calls.stuck(LIMIT))
                .await
                .is_err()
        );
        let mut stuck = answer("a part");
        stuck.frame().await.unwrap().unwrap();
        assert!(
            tokio::time::timeout(3 * LIMIT, calls.stuck(LIMIT))
                .await
                .is_ok()
        );
        drop(stuck);
        assert!(
            tokio::time::timeout(3 * LIMIT, calls.stuck(LIMIT))
                .await
                .is_err()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_without_calls_and_not_with_one() {
        let calls = Arc::new(Calls::default());
        calls.idle().await;
        let open = Calls::begin(&calls);
        assert!(
            tokio::time::timeout(10 * IDLE_MAX, calls.idle())
                .await
                .is_err()
        );
        drop(open);
        calls.idle().await;
    }
}

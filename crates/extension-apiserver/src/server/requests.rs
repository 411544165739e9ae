//! The open requests of one connection: whether there are any, and by when each answer must be gone.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::handle::Slot;
use crate::body::Body;
use crate::status::Status;

/// The open requests of one connection.
#[derive(Debug)]
pub(super) struct Requests {
    state: Mutex<State>,
    /// An answer is being sent where none was.
    sending: Notify,
    /// There has been a request.
    first: CancellationToken,
}

#[derive(Debug)]
struct State {
    open: usize,
    since: Instant,
    next: u64,
    answers: BTreeMap<Key, Arc<Mutex<Option<Answer>>>>,
}

/// When an answer has to be sent, and its number.
type Key = (Instant, u64);

/// What an answer takes up until it is sent.
struct Answer {
    body: Body,
    _slot: Slot,
    _open: OpenRequest,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

impl Requests {
    pub(super) fn new() -> Arc<Self> {
        let state = State {
            open: 0,
            since: Instant::now(),
            next: 0,
            answers: BTreeMap::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            sending: Notify::new(),
            first: CancellationToken::new(),
        })
    }

    /// A request has come.
    pub(super) fn open(self: &Arc<Self>) -> OpenRequest {
        self.change(|open| open + 1);
        self.first.cancel();
        OpenRequest(Arc::clone(self))
    }

    fn change(&self, change: impl FnOnce(usize) -> usize) {
        let mut state = self.lock();
        state.open = change(state.open);
        state.since = Instant::now();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there has been a request.
    pub(super) fn any(&self) -> bool {
        self.first.is_cancelled()
    }

    /// Completes when there has been a request.
    pub(super) async fn first(&self) {
        self.first.cancelled().await;
    }

    /// Completes when no request has been open for `idle`.
    pub(super) async fn idle(&self, idle: Duration) {
        loop {
            let (open, since) = {
                let state = self.lock();
                (state.open, state.since)
            };
            let now = Instant::now();
            let until = if open == 0 { since + idle } else { now + idle };
            if until <= now {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// The body of an answer that must be sent by `deadline`.
    pub(super) fn answer(
        self: &Arc<Self>,
        open: OpenRequest,
        (body, slot): (Body, Slot),
        deadline: Instant,
    ) -> Kept {
        let answer = Arc::new(Mutex::new(Some(Answer {
            body,
            _slot: slot,
            _open: open,
        })));
        let mut state = self.lock();
        let key = (deadline, state.next);
        state.next += 1;
        if state.answers.is_empty() {
            self.sending.notify_one();
        }
        state.answers.insert(key, Arc::clone(&answer));
        drop(state);
        Kept {
            answer,
            requests: Arc::clone(self),
            key,
        }
    }

    /// Completes when an answer was not sent by its deadline. What was left of it is dropped then, whether or not the
    /// connection ever asks for more of it: a client that does not read holds no memory and no place in the limits.
    pub(super) async fn overdue(&self) {
        loop {
            let first = self.lock().answers.keys().next().map(|(deadline, _)| *deadline);
            let Some(deadline) = first else {
                self.sending.notified().await;
                continue;
            };
            tokio::time::sleep_until(deadline).await;
            let overdue = {
                let mut state = self.lock();
                let later = state.answers.split_off(&(Instant::now(), u64::MAX));
                std::mem::replace(&mut state.answers, later)
            };
            if !overdue.is_empty() {
                // Outside the lock, for the end of a request takes it.
                for answer in overdue.values() {
                    drop(take(answer));
                }
                return;
            }
        }
    }
}

fn take(answer: &Mutex<Option<Answer>>) -> Option<Answer> {
    answer.lock().unwrap_or_else(PoisonError::into_inner).take()
}

/// A request that is not answered yet, or whose answer is being sent.
#[derive(Debug)]
pub(super) struct OpenRequest(Arc<Requests>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.change(|open| open.saturating_sub(1));
    }
}

/// A body that keeps its request's place in the limits until it is sent or overdue.
#[derive(Debug)]
pub(super) struct Kept {
    answer: Arc<Mutex<Option<Answer>>>,
    requests: Arc<Requests>,
    key: Key,
}

impl Kept {
    fn with<T>(&self, then: impl FnOnce(&mut Body) -> T) -> Option<T> {
        let mut answer = self.answer.lock().unwrap_or_else(PoisonError::into_inner);
        answer.as_mut().map(|answer| then(&mut answer.body))
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let forgotten = self.requests.lock().answers.remove(&self.key);
        drop(forgotten);
        drop(take(&self.answer));
    }
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.with(|body| Pin::new(body).poll_frame(context))
            .unwrap_or_else(|| Poll::Ready(Some(Err(Status::timeout("the answer was not read in time")))))
    }

    fn is_end_stream(&self) -> bool {
        self.with(|body| body.is_end_stream()).unwrap_or(false)
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|body| body.size_hint()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    const IDLE: Duration = Duration::from_secs(90);

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_when_its_last_request_is_long_over() {
        let (requests, begun) = (Requests::new(), Instant::now());
        assert!(!requests.any());
        let open = requests.open();
        assert!(requests.any());
        assert!(tokio::time::timeout(IDLE * 3, requests.idle(IDLE)).await.is_err());
        drop(open);
        let ended = Instant::now();
        requests.idle(IDLE).await;
        assert!(ended >= begun + IDLE * 3 && ended.elapsed() >= IDLE);
        assert!(ended.elapsed() < IDLE * 2);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_nobody_reads_is_dropped_at_its_deadline() {
        let (requests, begun) = (Requests::new(), Instant::now());
        let answer = |text: &'static str, after: u64| {
            let deadline = begun + Duration::from_secs(after);
            requests.answer(requests.open(), (Body::full(text), None), deadline)
        };
        let (unread, later, read) = (answer("unread", 60), answer("later", 61), answer("read", 59));
        assert_eq!(read.collect().await.unwrap().to_bytes(), "read");
        assert_eq!(requests.lock().open, 2);

        requests.overdue().await;
        assert_eq!(begun.elapsed().as_secs(), 60);
        assert_eq!(
            requests.lock().open,
            1,
            "its place is free though nobody polled it"
        );
        assert!(!unread.is_end_stream());
        assert_eq!(unread.collect().await.unwrap_err().code, 504);
        assert_eq!(later.collect().await.unwrap().to_bytes(), "later");
        assert_eq!(requests.lock().open, 0);
        let nothing = tokio::time::timeout(Duration::from_hours(1), requests.overdue()).await;
        assert!(nothing.is_err());
    }
}

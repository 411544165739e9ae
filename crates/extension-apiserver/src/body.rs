//! What is sent after the headers.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::Stream;
use hyper::body::{Frame, SizeHint};

use crate::status::Status;

/// What is given to a client at once.
const PIECE: usize = 128 * 1024;

/// The body of an answer: there as a whole, or made while the client reads it.
pub(crate) struct Body {
    ready: Option<Bytes>,
    rest: Option<Rest>,
}

/// What makes the parts that are not there yet.
enum Rest {
    Chunks(Box<dyn Chunks>),
    Events(Events),
}

type Events = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// Makes the parts of a body, each when it is wanted. The error breaks the connection off, so that the client does
/// not take what it has for all there is.
pub(crate) trait Chunks: Send {
    /// The next part, or `None` after the last. An empty part says that there is more, but not without a pause: others
    /// have their turn then.
    fn next(&mut self) -> Result<Option<Bytes>, Status>;
}

/// A part that is there, and those that come after it.
pub(crate) struct After<C> {
    first: Option<Bytes>,
    rest: C,
}

impl<C> After<C> {
    /// `first`, and then what `rest` makes.
    pub(crate) fn new(first: Bytes, rest: C) -> Self {
        let first = Some(first).filter(|first| !first.is_empty());
        Self { first, rest }
    }
}

impl<C: Chunks> Chunks for After<C> {
    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => self.rest.next(),
        }
    }
}

impl Chunks for Box<dyn Chunks> {
    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        self.as_mut().next()
    }
}

impl Body {
    /// A body that is there as a whole.
    pub(crate) fn full(bytes: impl Into<Bytes>) -> Self {
        let ready = Some(bytes.into()).filter(|bytes: &Bytes| !bytes.is_empty());
        Self { ready, rest: None }
    }

    /// A body that begins with `first`; what follows is asked of `rest`.
    pub(crate) fn streamed(first: Bytes, rest: Box<dyn Chunks>) -> Self {
        Self {
            ready: Some(first).filter(|first| !first.is_empty()),
            rest: Some(Rest::Chunks(rest)),
        }
    }
}

impl Body {
    /// A body whose parts come when something happens.
    pub(crate) fn events(events: impl Stream<Item = Result<Bytes, Status>> + Send + 'static) -> Self {
        Self {
            ready: None,
            rest: Some(Rest::Events(Box::pin(events))),
        }
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if let Some(ready) = &mut self.ready {
            // In pieces, so that no more than one is in the hands of a client that does not read.
            let piece = ready.split_to(ready.len().min(PIECE));
            if ready.is_empty() {
                self.ready = None;
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let next = match &mut self.rest {
            Some(Rest::Chunks(rest)) => rest.next(),
            Some(Rest::Events(events)) => {
                let next = std::task::ready!(events.as_mut().poll_next(context));
                if !matches!(next, Some(Ok(_))) {
                    self.rest = None;
                }
                return Poll::Ready(next.map(|part| part.map(Frame::data)));
            }
            None => Ok(None),
        };
        match &next {
            Ok(Some(part)) if part.is_empty() => {
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            Ok(Some(_)) => {}
            Ok(None) | Err(_) => self.rest = None,
        }
        Poll::Ready(next.transpose().map(|chunk| chunk.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        self.ready.is_none() && self.rest.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let ready = self.ready.as_ref().map_or(0, |bytes| bytes.len() as u64);
        if self.rest.is_none() {
            return SizeHint::with_exact(ready);
        }
        let mut hint = SizeHint::new();
        hint.set_lower(ready);
        hint
    }
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use http_body_util::BodyExt as _;

    use super::*;

    #[test]
    fn a_large_body_is_handed_out_in_pieces() {
        for length in [0, 1, PIECE, PIECE + 1, 3 * PIECE] {
            let whole: Vec<_> = (0..=250).cycle().take(length).collect();
            let mut body = Body::full(whole.clone());
            let mut pieces = Vec::new();
            while let Some(frame) = block_on(body.frame()) {
                pieces.push(frame.unwrap().into_data().unwrap());
            }
            assert_eq!(pieces.len(), length.div_ceil(PIECE));
            assert_eq!(pieces.concat(), whole);
        }
    }
}

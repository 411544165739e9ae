//! The answer of a kubelet, read within bounds: each by itself, and all of them together.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use contract::report::{ErrorClass, NodeError};
use http::{HeaderValue, Response, header};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use jiff::fmt::rfc2822;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{connection::broken, error};
use crate::{decode::MAX_BODY, time::UnixMillis};

/// Room for a first answer; the next ones have that of the last.
const BODY: usize = 16 * 1024;
/// What each body may take up for itself; the largest supported node's answer is about that.
const OWN_ROOM: usize = 64 * 1024;
/// What the bodies of all answers that are being read may take up beyond that. With the bound on scrapes at once it
/// is what kubelets can make this process hold.
pub const SHARED_ROOM: usize = 128 * 1024 * 1024;
/// Unit of [`SHARED_ROOM`] in permits.
const ROOM_UNIT: usize = 1024;
/// What a kubelet answered.
#[derive(Default)]
pub struct Answer {
    /// The body.
    pub body: Vec<u8>,
    /// The header `Date`.
    pub date: Option<UnixMillis>,
    /// What the body takes up of the room that all bodies share.
    room: Option<OwnedSemaphorePermit>,
}

impl From<Vec<u8>> for Answer {
    fn from(body: Vec<u8>) -> Self {
        Self {
            body,
            ..Self::default()
        }
    }
}

/// Room for the bodies of all answers together.
#[derive(Clone, Debug)]
pub(super) struct Room(Arc<Semaphore>);

impl Room {
    /// So many bytes, beside a little for each.
    pub(super) fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes / ROOM_UNIT)))
    }

    /// Reads a body of at most [`MAX_BODY`] bytes.
    pub(super) async fn read(
        &self,
        response: Response<Incoming>,
        expected: usize,
    ) -> Result<Answer, NodeError> {
        let date = response.headers().get(header::DATE).and_then(date);
        let mut body = response.into_body();
        let too_large = || {
            let limit = MAX_BODY / (1024 * 1024);
            error(
                ErrorClass::TooLarge,
                format!("the answer is larger than {limit} MiB"),
            )
        };
        if body.size_hint().lower() > MAX_BODY as u64 {
            return Err(too_large());
        }
        // A little more than last time, so that a pod more does not double the buffer.
        let expected = (expected + expected / 16).clamp(BODY, OWN_ROOM);
        let mut answer = Answer {
            body: Vec::with_capacity(expected),
            date,
            room: None,
        };
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|cause| broken(&cause))?;
            let Ok(chunk) = frame.into_data() else { continue };
            let length = answer.body.len() + chunk.len();
            if length > MAX_BODY {
                return Err(too_large());
            }
            self.make_room(&mut answer, length)?;
            answer.body.extend_from_slice(&chunk);
        }
        Ok(answer)
    }

    /// Sees to it that the answer may be that long. What is taken doubles with it, as its buffer does.
    fn make_room(&self, answer: &mut Answer, length: usize) -> Result<(), NodeError> {
        let taken = answer.room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits) * ROOM_UNIT;
        if length <= OWN_ROOM + taken {
            return Ok(());
        }
        let more = (length - OWN_ROOM - taken).max(taken).div_ceil(ROOM_UNIT);
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.0).try_acquire_many_owned(more).map_err(|_| {
            let limit = SHARED_ROOM / (1024 * 1024);
            error(
                ErrorClass::TooLarge,
                format!(
                    "there is no room for the answer: large ones of many nodes are being read, of {limit} MiB"
                ),
            )
        })?;
        match &mut answer.room {
            Some(room) => room.merge(permit),
            room @ None => *room = Some(permit),
        }
        answer
            .body
            .reserve_exact(length.max(answer.body.capacity() * 2).min(MAX_BODY) - answer.body.len());
        Ok(())
    }
}

/// Reads the short body of a refusal to its end, so that the connection can be used again.
pub(super) async fn discard(mut body: Incoming) -> Result<(), ()> {
    let mut left = BODY;
    while let Some(frame) = body.frame().await {
        let length = frame.map_err(|_| ())?.data_ref().map_or(0, Bytes::len);
        left = left.checked_sub(length).ok_or(())?;
    }
    Ok(())
}

/// The time of a header `Date`.
fn date(header: &HeaderValue) -> Option<UnixMillis> {
    const PARSER: rfc2822::DateTimeParser = rfc2822::DateTimeParser::new();
    let time = PARSER.parse_timestamp(header.as_bytes()).ok()?;
    Some(time.into())
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("bytes", &self.body.len())
            .field("date", &self.date)
            .finish_non_exhaustive()
    }
}

//! Connections: accepted within limits, served by HTTP/1.1 or HTTP/2, ended when idle, old or no longer wanted.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::handle::{Handler, Slot};
use crate::authn::peer::Peer;
use crate::body::Body;
use crate::options::Limits;
use crate::tls;

/// Pause after a failed accept: usually the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long a connection may be without a request.
const IDLE: Duration = Duration::from_secs(90);
/// Age at which a connection is asked to end, so that clients spread over replicas that came later.
const AGE: Duration = Duration::from_mins(5);
/// Added to the age by the client's port, up to this many seconds: connections that began together end apart.
const AGE_SPREAD_SECONDS: u64 = 60;
/// Time that a connection then has for its open requests.
const LAST_REQUESTS: Duration = Duration::from_mins(1);
/// How often HTTP/2 clients are asked whether they are still there, and the time they have to answer.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// Bytes of answers kept for one HTTP/2 stream whose client does not read.
const SEND_BUFFER: usize = 64 * 1024;
/// The least that hyper takes as a buffer for headers.
const LEAST_HEADER_BUFFER: usize = 8 * 1024;

/// Accepts connections until `stop`; then waits until the last one has ended, which [`Limits::drain`] bounds.
pub(super) async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handler: Arc<Handler>,
    stop: CancellationToken,
) {
    let (slots, tasks) = (
        Arc::new(Semaphore::new(handler.limits.connections)),
        TaskTracker::new(),
    );
    loop {
        // Both arms are cancel-safe: a connection is either taken or still in the listen queue. The slot is taken
        // first, so that connections above the limit wait there.
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = async {
                let slot = Arc::clone(&slots).acquire_owned().await;
                (slot, listener.accept().await)
            } => accepted,
        };
        match accepted {
            (Ok(slot), Ok((stream, peer))) => {
                let (acceptor, handler, stop) = (acceptor.clone(), Arc::clone(&handler), stop.clone());
                tasks.spawn(connection(stream, peer, acceptor, handler, stop, slot));
            }
            (Err(_closed), _) => break,
            (_, Err(error)) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    handler: Arc<Handler>,
    stop: CancellationToken,
    _slot: OwnedSemaphorePermit,
) {
    let _counted = handler.metrics.connection();
    // Answers are written whole; without it the last part of each would wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(handler.limits.handshake_timeout, acceptor.accept(stream));
    let tls = tokio::select! {
        () = stop.cancelled() => return,
        tls = handshake => tls,
    };
    let refused = match tls {
        Ok(Ok(tls)) => {
            serve(tls, peer, handler, stop).await;
            return;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "timed out".to_owned(),
    };
    handler.metrics.handshake_error();
    tracing::debug!(%peer, error = refused, "a TLS handshake failed");
}

async fn serve(tls: TlsStream<TcpStream>, peer: SocketAddr, handler: Arc<Handler>, stop: CancellationToken) {
    let session = tls.get_ref().1;
    // The negotiated protocol decides, not the first bytes: a client that sends none cannot stay undecided.
    let http2 = session.alpn_protocol() == Some(tls::HTTP_2);
    let chain = session.peer_certificates().unwrap_or_default();
    let shown = Arc::new(Peer::new(
        chain
            .iter()
            .map(|certificate| certificate.clone().into_owned())
            .collect(),
    ));
    let (activity, another) = (Arc::<Activity>::default(), CancellationToken::new());
    let drain = handler.limits.drain;
    let builder = builder(&handler.limits, http2);
    let service = service_fn(|request| {
        let (handler, shown, another) = (Arc::clone(&handler), Arc::clone(&shown), another.clone());
        let open = Activity::open(&activity);
        async move {
            let (response, slot) = handler.answer(&shown, request).await;
            if response.status() == StatusCode::UNAUTHORIZED {
                // The client may have a better certificate by now, which takes a new connection.
                another.cancel();
            }
            let kept = (slot, open);
            Ok::<_, std::convert::Infallible>(response.map(|body| Kept { body, _kept: kept }))
        }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(tls), service));
    let age = AGE + Duration::from_secs(u64::from(peer.port()) % AGE_SPREAD_SECONDS);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stop.cancelled() => None,
        () = another.cancelled() => None,
        () = activity.idle() => None,
        () = tokio::time::sleep(age) => None,
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = connection => ended,
            () = tokio::time::sleep(LAST_REQUESTS) => return,
            () = async { stop.cancelled().await; tokio::time::sleep(drain).await } => return,
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

fn builder(limits: &Limits, http2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let header_bytes = usize::try_from(limits.header_bytes).unwrap_or(usize::MAX);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_buf_size(header_bytes.max(LEAST_HEADER_BUFFER));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(limits.header_bytes)
        .max_concurrent_streams(limits.streams_per_connection)
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .max_send_buf_size(SEND_BUFFER);
    if http2 {
        builder.http2_only()
    } else {
        builder.http1_only()
    }
}

/// Which requests of a connection are open.
#[derive(Debug)]
struct Activity(Mutex<(usize, Instant)>);

impl Default for Activity {
    fn default() -> Self {
        Self(Mutex::new((0, Instant::now())))
    }
}

impl Activity {
    fn open(activity: &Arc<Self>) -> OpenRequest {
        activity.change(|open| open + 1);
        OpenRequest(Arc::clone(activity))
    }

    fn change(&self, change: impl FnOnce(usize) -> usize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (change(state.0), Instant::now());
    }

    /// Completes when no request has been open for [`IDLE`].
    async fn idle(&self) {
        loop {
            let (open, since) = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            let until = if open == 0 { since + IDLE } else { now + IDLE };
            if until <= now {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }
}

#[derive(Debug)]
struct OpenRequest(Arc<Activity>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.change(|open| open.saturating_sub(1));
    }
}

/// A body that keeps its request's place in the limits until it is sent.
struct Kept {
    body: Body,
    _kept: (Slot, OpenRequest),
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
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

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_when_its_last_request_is_long_over() {
        let (activity, begun) = (Arc::<Activity>::default(), Instant::now());
        let open = Activity::open(&activity);
        assert!(tokio::time::timeout(IDLE * 3, activity.idle()).await.is_err());
        drop(open);
        let ended = Instant::now();
        activity.idle().await;
        assert!(ended >= begun + IDLE * 3 && ended.elapsed() >= IDLE);
        assert!(ended.elapsed() < IDLE * 2);
    }
}

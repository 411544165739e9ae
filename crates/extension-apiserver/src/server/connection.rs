//! Connections: accepted within limits, served by HTTP/1.1 or HTTP/2, ended when idle, old or no longer wanted.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::{Admission, Place};
use super::handle::{Answered, Handler};
use super::requests::{Kept, Requests};
use crate::answer::watch::LONGEST;
use crate::authn::peer::Peer;
use crate::options::Limits;
use crate::tls;

/// Pause after an accept that failed for want of something, usually of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// How long a connection may be without a request. One of HTTP/1.1 ends earlier, by [`Limits::header_timeout`].
const IDLE: Duration = Duration::from_secs(90);
/// Time that a connection without open requests has to end once it is asked to.
const LAST_REQUESTS: Duration = Duration::from_mins(1);
/// Time that a handshake has to end when the server stops.
const LAST_HANDSHAKE: Duration = Duration::from_secs(3);
/// Time that a new HTTP/1.1 connection has for its first request when the server stops. Clients in Go try again on
/// another connection if an old one is closed under their request, but not if a new one is
/// (`shouldRetryRequest` of net/http).
const FIRST_REQUEST: Duration = Duration::from_secs(2);
/// How often HTTP/2 clients are asked whether they are still there, and the time they have to answer.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// Bytes of answers kept for one HTTP/2 stream whose client does not read.
const SEND_BUFFER: usize = 64 * 1024;
/// Bytes that a client may send unasked on one HTTP/2 stream, and on all of a connection: nothing here reads bodies.
const RECEIVE_WINDOWS: (u32, u32) = (64 * 1024, 256 * 1024);
/// Headers of one HTTP/1.1 request: one for each group of a user, and some users have thousands.
const MOST_HEADERS: usize = 4096;
/// The least that hyper takes as a buffer for headers.
const LEAST_HEADER_BUFFER: usize = 8 * 1024;

/// Accepts connections until `stop`; then waits until the last one has ended, which [`Limits::drain`] bounds.
pub(super) async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    handler: Arc<Handler>,
    stop: CancellationToken,
) {
    let (admission, tasks) = (Admission::new(&handler.limits), TaskTracker::new());
    let begin = |stream, peer| {
        let (place, dropped_another) = admission.enter();
        if dropped_another {
            handler.metrics.connection_dropped();
        }
        let (acceptor, handler, stop) = (acceptor.clone(), Arc::clone(&handler), stop.clone());
        tasks.spawn(connection(stream, peer, acceptor, handler, stop, place));
    };
    loop {
        // Both arms are cancel-safe: a connection is either taken or still in the listen queue.
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => begin(stream, peer),
            Err(error) if is_of_one_connection(&error) => {
                tracing::debug!(%error, "a connection ended before it was accepted");
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    // Who is in the listen queue believes to be connected: closing it now would cut them off.
    while let Some(Ok((stream, peer))) = listener.accept().now_or_never() {
        begin(stream, peer);
    }
    drop(listener);
    tasks.close();
    tasks.wait().await;
}

/// Whether only the connection is lost that would have been accepted: accept(2) passes its errors on.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted
            | Kind::ConnectionReset
            | Kind::ConnectionRefused
            | Kind::HostUnreachable
            | Kind::NetworkUnreachable
            | Kind::NetworkDown
            | Kind::TimedOut
            | Kind::Interrupted
    )
}

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    handler: Arc<Handler>,
    stop: CancellationToken,
    place: Place,
) {
    let _counted = handler.metrics.connection();
    // Answers are written whole; without it the last part of each would wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    // A handshake that has begun is let end, also while the server stops: who shakes hands believes to be welcome.
    let handshake = tokio::time::timeout(handler.limits.handshake_timeout, acceptor.accept(stream));
    let left = handler.limits.drain.min(LAST_HANDSHAKE);
    let tls = tokio::select! {
        tls = handshake => tls,
        () = place.evicted() => return,
        () = async { stop.cancelled().await; tokio::time::sleep(left).await } => return,
    };
    let refused = match tls {
        Ok(Ok(tls)) => {
            serve(tls, peer, handler, stop, place).await;
            return;
        }
        Ok(Err(error)) => error.to_string(),
        Err(_) => "timed out".to_owned(),
    };
    handler.metrics.handshake_error();
    tracing::debug!(%peer, error = refused, "a TLS handshake failed");
}

async fn serve(
    tls: TlsStream<TcpStream>,
    peer: SocketAddr,
    handler: Arc<Handler>,
    stop: CancellationToken,
    place: Place,
) {
    let begun = Instant::now();
    let session = tls.get_ref().1;
    // The negotiated protocol decides, not the first bytes: a client that sends none cannot stay undecided.
    let http2 = session.alpn_protocol() == Some(tls::HTTP_2);
    let shown = Arc::new(Peer::new(session.peer_certificates().unwrap_or_default()));
    let (place, requests, another) = (Arc::new(place), Requests::new(), CancellationToken::new());
    let builder = builder(&handler.limits, http2);
    let service = service_fn(|request| {
        let (handler, shown, place) = (Arc::clone(&handler), Arc::clone(&shown), Arc::clone(&place));
        let (requests, another) = (Arc::clone(&requests), another.clone());
        async move {
            let answer = answer(&handler, &shown, &place, &requests, request, http2).await;
            if answer.1 {
                another.cancel();
            }
            Ok::<_, std::convert::Infallible>(answer.0)
        }
    });
    let mut connection = pin!(builder.serve_connection(TokioIo::new(tls), service));
    let mut old = pin!(tokio::time::sleep(handler.limits.age_of(peer)));
    let mut distrusted = pin!(shown.distrusted(handler.config.subscribe()));
    let ended = loop {
        tokio::select! {
            ended = connection.as_mut() => break Some(ended),
            () = stop.cancelled() => break None,
            () = another.cancelled() => break None,
            () = requests.idle(IDLE) => break None,
            () = old.as_mut() => break None,
            // A front proxy that has a newer certificate shows it on its next connection. Each request that comes on
            // this one all the same is refused.
            () = distrusted.as_mut() => break None,
            () = place.evicted() => return,
            () = requests.overdue() => {
                // Over HTTP/2 the front proxy's connection carries other clients' requests, which go on.
                if !(http2 && shown.is_front_proxy()) {
                    tracing::debug!(%peer, "a client did not read its answer in time");
                    return;
                }
            }
        }
    };
    let ended = if let Some(ended) = ended {
        ended
    } else {
        let fresh = begun + FIRST_REQUEST;
        if !http2 && !requests.any() && Instant::now() < fresh {
            tokio::select! {
                _ = connection.as_mut() => return,
                () = requests.first() => {}
                () = tokio::time::sleep_until(fresh) => {}
            }
        }
        connection.as_mut().graceful_shutdown();
        let drained = async {
            stop.cancelled().await;
            tokio::time::sleep(handler.limits.drain).await;
        };
        let mut drained = pin!(drained);
        loop {
            tokio::select! {
                ended = connection.as_mut() => break ended,
                // Each open request has its own deadline; without one there is nothing to wait for.
                () = requests.idle(LAST_REQUESTS) => return,
                () = requests.overdue() => {}
                () = place.evicted() => return,
                () = drained.as_mut() => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}

/// Answers one request. Says whether it is to be the connection's last.
async fn answer(
    handler: &Handler,
    shown: &Peer,
    place: &Place,
    requests: &Arc<Requests>,
    request: Request<Incoming>,
    http2: bool,
) -> (Response<Kept>, bool) {
    let (open, mut deadline) = (requests.open(), Instant::now() + handler.limits.request_timeout);
    let (parts, body) = request.into_parts();
    let Answered {
        mut response,
        slot,
        lasting,
        last,
    } = handler.answer(shown, &parts, body).await;
    if lasting {
        deadline += LONGEST;
    }
    if shown.is_recognized() {
        place.prove(shown.is_front_proxy());
    }
    if last && !http2 {
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let response = response.map(|body| requests.answer(open, (body, slot), deadline));
    (response, last)
}

fn builder(limits: &Limits, http2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    let header_bytes = usize::try_from(limits.header_bytes).unwrap_or(usize::MAX);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_timeout)
        .max_headers(MOST_HEADERS)
        .max_buf_size(header_bytes.max(LEAST_HEADER_BUFFER));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(limits.header_bytes)
        .max_concurrent_streams(limits.streams_per_connection)
        .initial_stream_window_size(RECEIVE_WINDOWS.0)
        .initial_connection_window_size(RECEIVE_WINDOWS.1)
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .max_send_buf_size(SEND_BUFFER);
    if http2 {
        builder.http2_only()
    } else {
        builder.http1_only()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_that_is_lost_early_does_not_hold_up_the_next() {
        for (kind, of_one) in [
            (io::ErrorKind::ConnectionAborted, true),
            (io::ErrorKind::ConnectionReset, true),
            (io::ErrorKind::Other, false),
            (io::ErrorKind::OutOfMemory, false),
        ] {
            assert_eq!(is_of_one_connection(&kind.into()), of_one, "{kind:?}");
        }
        // EMFILE: the process is out of file descriptors.
        assert!(!is_of_one_connection(&io::Error::from_raw_os_error(24)));
    }
}

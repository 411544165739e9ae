//! A plain HTTP port for probes and Prometheus: `/livez`, `/readyz` and `/metrics`, GET and HEAD. Nothing behind it
//! is secret or costly; what one client can take up is bounded all the same.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Connections open at once: the kubelet's probes, a Prometheus or two, and a person.
const CONNECTIONS: usize = 32;
/// Time for the headers of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Age after which a connection is asked to end, so that an idle client does not keep its slot for ever.
const CONNECTION_AGE: Duration = Duration::from_mins(5);
/// Time that a connection then has to end.
const LAST_REQUEST: Duration = Duration::from_secs(10);
/// Pause after a failed accept: usually the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Says whether a probe passes; the error is shown to whoever asks.
type Probe = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// What the port shows.
pub struct Admin {
    registry: Arc<Registry>,
    live: Probe,
    ready: Probe,
}

impl Admin {
    /// Shows `registry` at `/metrics`. Both probes pass until told otherwise.
    #[must_use]
    pub fn new(registry: Arc<Registry>) -> Self {
        Self {
            registry,
            live: Box::new(|| Ok(())),
            ready: Box::new(|| Ok(())),
        }
    }

    /// Sets what `/livez` says.
    #[must_use]
    pub fn live(self, probe: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self {
            live: Box::new(probe),
            ..self
        }
    }

    /// Sets what `/readyz` says.
    #[must_use]
    pub fn ready(self, probe: impl Fn() -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self {
            ready: Box::new(probe),
            ..self
        }
    }

    /// Binds the port. Answers begin with [`BoundAdmin::serve`].
    pub async fn bind(self, address: SocketAddr) -> Result<BoundAdmin, BindError> {
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| BindError { address, source })?;
        Ok(BoundAdmin {
            admin: Arc::new(self),
            listener,
        })
    }

    /// Answers one request: only its method and path count.
    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if method != Method::GET && method != Method::HEAD {
            return text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        }
        match path {
            "/livez" => probe(&self.live),
            "/readyz" => probe(&self.ready),
            "/metrics" => self.metrics(),
            _ => text(StatusCode::NOT_FOUND, "only /livez, /readyz and /metrics\n"),
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut page = String::new();
        if let Err(error) = prometheus_client::encoding::text::encode(&mut page, &self.registry) {
            tracing::error!(%error, "failed to print the metrics");
            return text(StatusCode::INTERNAL_SERVER_ERROR, "failed to print the metrics\n");
        }
        let mut response = Response::new(Full::new(Bytes::from(page)));
        let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static(openmetrics),
        );
        response
    }
}

impl fmt::Debug for Admin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

/// The port cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("failed to listen on {address} for probes and metrics")]
pub struct BindError {
    address: SocketAddr,
    source: io::Error,
}

/// The port, bound.
#[derive(Debug)]
pub struct BoundAdmin {
    admin: Arc<Admin>,
    listener: TcpListener,
}

impl BoundAdmin {
    /// The address bound.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until `shutdown`. Open connections end with it: a probe or a scrape is not worth waiting for.
    pub async fn serve(self, shutdown: CancellationToken) {
        let slots = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            // Both arms are cancel-safe: a connection is either taken or still in the listen queue. The slot is
            // taken first, so that connections above the cap wait there.
            let accepted = tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                accepted = async {
                    let slot = Arc::clone(&slots).acquire_owned().await;
                    (slot, self.listener.accept().await)
                } => accepted,
            };
            match accepted {
                (Ok(slot), Ok((stream, _))) => {
                    let (admin, shutdown) = (Arc::clone(&self.admin), shutdown.clone());
                    tokio::spawn(async move {
                        shutdown.run_until_cancelled(connection(admin, stream)).await;
                        drop(slot);
                    });
                }
                (_, Err(error)) => {
                    tracing::warn!(%error, "failed to accept a connection for probes and metrics");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                // The semaphore is never closed.
                (Err(_), _) => return,
            }
        }
    }
}

async fn connection(admin: Arc<Admin>, stream: TcpStream) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let response = admin.answer(request.method(), request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = tokio::time::sleep(CONNECTION_AGE) => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(LAST_REQUEST, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection for probes and metrics ended early");
    }
}

fn probe(check: &Probe) -> Response<Full<Bytes>> {
    match check() {
        Ok(()) => text(StatusCode::OK, "ok\n"),
        Err(reason) => text(StatusCode::SERVICE_UNAVAILABLE, &format!("{reason}\n")),
    }
}

fn text(status: StatusCode, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *response.status_mut() = status;
    let plain = header::HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn read(admin: &Admin, method: Method, path: &str) -> (u16, String) {
        let response = admin.answer(&method, path);
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn probes_and_metrics_are_shown_and_nothing_else() {
        let mut registry = Registry::default();
        registry.register("turns", "Turns", Counter::<u64>::default());
        let admin = Admin::new(Arc::new(registry)).ready(|| Err("no watch has delivered".to_owned()));
        assert_eq!(
            read(&admin, Method::GET, "/livez").await,
            (200, "ok\n".to_owned())
        );
        assert_eq!(
            read(&admin, Method::GET, "/readyz").await,
            (503, "no watch has delivered\n".to_owned())
        );
        let (status, page) = read(&admin, Method::GET, "/metrics").await;
        assert_eq!(status, 200);
        assert!(page.contains("turns_total 0"), "{page}");
        assert_eq!(read(&admin, Method::GET, "/debug").await.0, 404);
        assert_eq!(read(&admin, Method::POST, "/livez").await.0, 405);
    }

    #[tokio::test]
    async fn the_port_answers_until_shutdown_and_then_ends_open_connections() {
        let bound = Admin::new(Arc::default())
            .bind("127.0.0.1:0".parse().unwrap())
            .await
            .unwrap();
        let (address, shutdown) = (bound.local_addr().unwrap(), CancellationToken::new());
        let served = tokio::spawn(bound.serve(shutdown.clone()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream
            .write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        let mut first = [0; 15];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200 OK");
        shutdown.cancel();
        served.await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
        assert!(rest.ends_with(b"ok\n"));
    }
}

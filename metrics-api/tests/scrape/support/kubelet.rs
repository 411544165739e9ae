//! A kubelet over loopback that behaves as it is told.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use metrics_api::kubelet::address::{Endpoint, Host};
use rustls::{
    ALL_VERSIONS, ServerConfig, SupportedProtocolVersion,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
    version::TLS12,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::{METRICS, SUMMARY, pki::Identity, provider};

/// What comes after a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// A whole response.
    Full(u16, Vec<u8>),
    /// The metrics, after a while.
    Late(Duration),
    /// 401 unless the request carries this token, then the metrics.
    For(&'static str),
    /// Metrics at this path, 404 at others, this status at the Summary API.
    Paths(&'static str, u16),
    /// These bytes, then the end.
    Raw(&'static [u8]),
    /// A body without end.
    Endless,
    /// Nothing, and the connection stays open.
    Silence,
    /// Nothing, and the connection is closed.
    HangUp,
}

/// A request that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Method and path.
    pub(crate) line: String,
    /// Header `authorization`.
    pub(crate) authorization: Option<String>,
}

pub(crate) struct FakeKubelet {
    pub(crate) endpoint: Endpoint,
    state: Arc<State>,
    _task: AbortOnDropHandle<()>,
}

struct State {
    tls: Mutex<Option<Arc<ServerConfig>>>,
    answer: Mutex<Answer>,
    /// Whether each connection ends after one answer.
    once: Mutex<bool>,
    seen: Mutex<Vec<Seen>>,
    connections: Mutex<usize>,
    /// Connections up to this one say nothing any more.
    deaf: Mutex<usize>,
}

impl FakeKubelet {
    /// Answers with metrics, showing this certificate.
    pub(crate) async fn start(identity: &Identity) -> Self {
        Self::listen(Some(server_config(identity, identity, ALL_VERSIONS))).await
    }

    /// The same, but speaks TLS 1.2 only.
    pub(crate) async fn old(identity: &Identity) -> Self {
        Self::listen(Some(server_config(identity, identity, &[&TLS12]))).await
    }

    /// Does not speak TLS at all.
    pub(crate) async fn plain() -> Self {
        Self::listen(None).await
    }

    /// Shows one certificate but has the key of another.
    pub(crate) async fn impostor(shown: &Identity, own: &Identity) -> Self {
        Self::listen(Some(server_config(shown, own, ALL_VERSIONS))).await
    }

    /// The same with TLS 1.2 only.
    pub(crate) async fn old_impostor(shown: &Identity, own: &Identity) -> Self {
        Self::listen(Some(server_config(shown, own, &[&TLS12]))).await
    }

    async fn listen(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            tls: Mutex::new(tls),
            answer: Mutex::new(Answer::Full(200, METRICS.to_vec())),
            once: Mutex::new(false),
            seen: Mutex::default(),
            connections: Mutex::new(0),
            deaf: Mutex::new(0),
        });
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = {
                    let mut connections = shared.connections.lock().unwrap();
                    *connections += 1;
                    *connections
                };
                tokio::spawn(connection(Arc::clone(&shared), stream, number));
            }
        });
        let endpoint = Endpoint {
            host: Host::Ip(address.ip()),
            port: address.port(),
        };
        Self {
            endpoint,
            state,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// From the next connection on.
    pub(crate) fn show(&self, identity: &Identity) {
        *self.state.tls.lock().unwrap() = Some(server_config(identity, identity, ALL_VERSIONS));
    }

    pub(crate) fn answer(&self, answer: Answer) {
        *self.state.answer.lock().unwrap() = answer;
    }

    pub(crate) fn close_after_each_answer(&self) {
        *self.state.once.lock().unwrap() = true;
    }

    /// The open connections say nothing any more, as when a node has vanished and another has its address.
    pub(crate) fn go_deaf(&self) {
        *self.state.deaf.lock().unwrap() = self.connections();
    }

    /// All requests so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state.seen.lock().unwrap().clone()
    }

    pub(crate) fn connections(&self) -> usize {
        *self.state.connections.lock().unwrap()
    }
}

async fn connection(state: Arc<State>, stream: TcpStream, number: usize) {
    let tls = state.tls.lock().unwrap().clone();
    let Some(tls) = tls else {
        let mut stream = stream;
        let _ = stream.write_all(b"SSH-2.0-something\r\n").await;
        return;
    };
    let Ok(mut stream) = TlsAcceptor::from(tls).accept(stream).await else {
        return;
    };
    let mut head = Vec::new();
    loop {
        head.clear();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read_exact(&mut byte).await.is_err() {
                return;
            }
            head.push(byte[0]);
        }
        if number <= *state.deaf.lock().unwrap() {
            std::future::pending::<()>().await;
        }
        let seen = parse(&head);
        state.seen.lock().unwrap().push(seen.clone());
        let answer = state.answer.lock().unwrap().clone();
        let answer = match answer {
            Answer::For(token) if seen.authorization.as_deref() == Some(&format!("Bearer {token}")) => {
                Answer::Full(200, METRICS.to_vec())
            }
            Answer::For(_) => Answer::Full(401, b"Unauthorized".to_vec()),
            Answer::Late(after) => {
                tokio::time::sleep(after).await;
                Answer::Full(200, METRICS.to_vec())
            }
            Answer::Paths(path, _) if seen.line == format!("GET {path}") => {
                Answer::Full(200, METRICS.to_vec())
            }
            Answer::Paths(_, status) if seen.line.starts_with("GET /stats/summary") => Answer::Full(
                status,
                if status == 200 {
                    SUMMARY.to_vec()
                } else {
                    Vec::new()
                },
            ),
            Answer::Paths(..) => Answer::Full(404, b"404 page not found".to_vec()),
            other => other,
        };
        if reply(&mut stream, answer).await.is_err() || *state.once.lock().unwrap() {
            let _ = stream.shutdown().await;
            return;
        }
    }
}

async fn reply(
    stream: &mut tokio_rustls::server::TlsStream<TcpStream>,
    answer: Answer,
) -> std::io::Result<()> {
    match answer {
        Answer::Full(status, body) => {
            let location = if status == 302 {
                "location: /elsewhere\r\n"
            } else {
                ""
            };
            let head = format!(
                "HTTP/1.1 {status} X\r\nDate: Mon, 23 Nov 2026 16:41:43 GMT\r\n{location}content-length: {}\r\n\r\n",
                body.len()
            );
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&body).await?;
            stream.flush().await
        }
        Answer::Raw(bytes) => {
            stream.write_all(bytes).await?;
            stream.flush().await?;
            Err(std::io::ErrorKind::Other.into())
        }
        Answer::Endless => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                .await?;
            loop {
                stream.write_all(b"10000\r\n").await?;
                stream.write_all(&vec![b'a'; 0x10000]).await?;
                stream.write_all(b"\r\n").await?;
            }
        }
        Answer::Silence => std::future::pending().await,
        Answer::HangUp | Answer::For(_) | Answer::Paths(..) | Answer::Late(_) => {
            Err(std::io::ErrorKind::Other.into())
        }
    }
}

fn parse(head: &[u8]) -> Seen {
    let head = String::from_utf8_lossy(head);
    let line = head
        .lines()
        .next()
        .unwrap_or_default()
        .trim_end_matches(" HTTP/1.1")
        .to_owned();
    let header = |name: &str| {
        head.lines()
            .find_map(|line| Some(line.split_once(": ")?).filter(|(key, _)| *key == name))
            .map(|(_, v)| v)
    };
    assert_eq!(
        header("accept-encoding"),
        None,
        "gzip costs kubelets more than the network"
    );
    Seen {
        line,
        authorization: header("authorization").map(str::to_owned),
    }
}

/// Hands out a certificate without asking whether the key fits, which rustls otherwise does.
#[derive(Debug)]
struct Unchecked(Arc<CertifiedKey>);

impl ResolvesServerCert for Unchecked {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn server_config(
    shown: &Identity,
    own: &Identity,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ServerConfig> {
    let key = provider()
        .key_provider
        .load_private_key(own.private_key())
        .unwrap();
    let resolver = Arc::new(Unchecked(Arc::new(CertifiedKey::new(shown.chain.clone(), key))));
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    Arc::new(config)
}

//! What a server is told at its start.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Semaphore;

use crate::resource::Resource;

/// One API group whose versions all serve the same resources in the same form.
#[derive(Clone)]
pub struct ApiGroup {
    /// Name: `metrics.k8s.io`.
    pub name: &'static str,
    /// Versions, preferred first.
    pub versions: Vec<&'static str>,
    /// Resources.
    pub resources: Vec<Arc<dyn Resource>>,
}

impl fmt::Debug for ApiGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let resources: Vec<_> = self
            .resources
            .iter()
            .map(|resource| resource.info().plural)
            .collect();
        f.debug_struct("ApiGroup")
            .field("name", &self.name)
            .field("versions", &self.versions)
            .field("resources", &resources)
            .finish()
    }
}

/// Where the serving certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServingCertificate {
    /// PEM files, read again when their content changes.
    Files {
        /// Certificate chain, leaf first.
        certificate: PathBuf,
        /// Private key.
        key: PathBuf,
    },
    /// A self-signed pair, `apiserver.crt` and `apiserver.key` in this directory, made if it is not there.
    SelfSigned {
        /// Directory, created when missing.
        directory: PathBuf,
    },
}

/// Who a client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authentication {
    /// Whether the server may start while the authentication `ConfigMap` cannot be read. Without it, the start fails.
    pub tolerate_lookup_failure: bool,
    /// How long a `TokenReview`'s answer is kept.
    pub token_cache_ttl: Duration,
}

impl Default for Authentication {
    fn default() -> Self {
        Self {
            tolerate_lookup_failure: false,
            token_cache_ttl: Duration::from_secs(10),
        }
    }
}

/// What a client may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// Paths that need no permission. A `*` at the end matches any rest.
    pub always_allow_paths: Vec<String>,
    /// How long an "allowed" is kept.
    pub allow_ttl: Duration,
    /// How long a "denied" is kept.
    pub deny_ttl: Duration,
}

impl Default for Authorization {
    fn default() -> Self {
        Self {
            always_allow_paths: ["/healthz", "/readyz", "/livez"].map(str::to_owned).to_vec(),
            allow_ttl: Duration::from_secs(10),
            deny_ttl: Duration::from_secs(10),
        }
    }
}

/// How connections are encrypted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsOptions {
    /// The oldest version spoken.
    pub minimum: TlsVersion,
    /// Suites of TLS 1.2 by their names in Go, as metrics-server's `--tls-cipher-suites`; none: all that are secure
    /// enough. Those of TLS 1.3 are not chosen, as in Go.
    pub cipher_suites: Vec<String>,
    /// Groups for the exchange of keys by their numbers in IANA's registry (TLS Supported Groups), as metrics-server's
    /// `--tls-curve-preferences`: X25519MLKEM768, X25519, secp256r1 and secp384r1; none: all of these. The client's order
    /// decides.
    pub curve_preferences: Vec<u16>,
    /// Certificates for clients that ask for a certain name, as metrics-server's `--tls-sni-cert-key`. The first that fits
    /// is served.
    pub by_name: Vec<NamedCertificate>,
}

/// A version of TLS. Older ones are not secure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2.
    #[default]
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// A certificate for certain names, read again when its files change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedCertificate {
    /// Certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Names, of which `*.` at the beginning stands for one label. Empty: those in the certificate.
    pub names: Vec<String>,
}

/// Whom to trust, where that is not what kube-apiserver publishes. Files are read again each minute.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Authorities {
    /// Authorities of client certificates in PEM form, as metrics-server's `--client-ca-file`.
    pub client_ca: Option<PathBuf>,
    /// The front proxy, as metrics-server's `--requestheader-*`.
    pub front_proxy: Option<FrontProxyFiles>,
    /// Whether nothing is read from the cluster, as metrics-server's `--authentication-skip-lookup`: only what is given here
    /// is trusted.
    pub skip_lookup: bool,
}

/// The front proxy, and what it says whom it speaks for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrontProxyFiles {
    /// Authorities of its certificate in PEM form.
    pub ca: PathBuf,
    /// Common names its certificate may have; empty: any.
    pub allowed_names: Vec<String>,
    /// Headers with the user's name.
    pub username_headers: Vec<String>,
    /// Headers with the user's UID.
    pub uid_headers: Vec<String>,
    /// Headers with groups.
    pub group_headers: Vec<String>,
    /// Beginnings of the headers with extra values.
    pub extra_headers_prefixes: Vec<String>,
}

impl FrontProxyFiles {
    /// The front proxy of that authority, with the headers that kube-apiserver sends by default.
    #[must_use]
    pub fn new(ca: impl Into<PathBuf>) -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Self {
            ca: ca.into(),
            allowed_names: Vec::new(),
            username_headers: one("x-remote-user"),
            uid_headers: Vec::new(),
            group_headers: one("x-remote-group"),
            extra_headers_prefixes: one("x-remote-extra-"),
        }
    }
}

/// What one client, and all together, may take up.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// Open connections of clients whose certificate or token was accepted. The front proxy's do not count.
    pub connections: usize,
    /// Open connections of all other clients, those still shaking hands among them. Above it the oldest is closed.
    pub unproven_connections: usize,
    /// Requests answered at once, as metrics-server's `--max-requests-inflight`; 0: no limit. Above it: 429. Probes and
    /// the requests of `system:masters` do not count.
    pub requests_in_flight: usize,
    /// Time for a TLS handshake.
    pub handshake_timeout: Duration,
    /// Time for the headers of a request. Over HTTP/1.1 it begins when the last answer is sent, so that it is also the
    /// time that a connection may be idle.
    pub header_timeout: Duration,
    /// Time for a request, from its headers until its answer is sent, authentication and authorization included.
    /// What a client has not read of an answer by then is dropped.
    pub request_timeout: Duration,
    /// Bytes of all headers of a request.
    pub header_bytes: u32,
    /// Bytes of the body of a request that changes something. Other bodies are not read.
    pub body_bytes: usize,
    /// Whether HTTP/2 is offered beside HTTP/1.1. Over HTTP/2 kube-apiserver sends all requests through one connection: if
    /// that dies without a word, all of them hang until the endpoint is removed; over HTTP/1.1 only those under way do.
    pub http2: bool,
    /// Streams of one HTTP/2 connection.
    pub streams_per_connection: u32,
    /// Age at which a connection is asked to end (over HTTP/2 by GOAWAY), so that clients spread over replicas that came
    /// later. Up to a fifth of it is added, by the client's port: connections that began together end apart. `None`:
    /// never.
    pub connection_age: Option<Duration>,
    /// The chance, from 0 to 1, that a connection is asked to end after a request, as metrics-server's
    /// `--goaway-chance`.
    pub goaway_chance: f64,
    /// Time that everything is still answered after shutdown began, while `/readyz` fails already: as long as it takes
    /// until no client is sent here any more.
    pub shutdown_delay: Duration,
    /// Whether clients that come after that delay are told to go elsewhere (429 with `Retry-After: 5`, and the connection
    /// ends) until the requests in flight are answered, as metrics-server's `--shutdown-send-retry-after`. Without it
    /// no connection is accepted after the delay. Probes, metrics and the requests of `system:masters` are still answered.
    pub shutdown_send_retry_after: bool,
    /// Time for open requests to end after that.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            unproven_connections: 256,
            requests_in_flight: 400,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(32),
            request_timeout: Duration::from_mins(1),
            header_bytes: 256 * 1024,
            body_bytes: 3 * 1024 * 1024,
            http2: false,
            streams_per_connection: 100,
            connection_age: Some(Duration::from_mins(5)),
            goaway_chance: 0.0,
            shutdown_delay: Duration::ZERO,
            shutdown_send_retry_after: false,
            drain: Duration::from_secs(20),
        }
    }
}

impl Limits {
    /// Requests answered at once, as a semaphore counts them.
    pub(crate) fn slots(&self) -> usize {
        match self.requests_in_flight {
            0 => Semaphore::MAX_PERMITS,
            slots => slots.min(Semaphore::MAX_PERMITS),
        }
    }

    /// The age at which the connection of that client is asked to end.
    pub(crate) fn age_of(&self, client: SocketAddr) -> Duration {
        self.connection_age.map_or(Duration::MAX, |age| {
            let spread = age.mul_f64(f64::from(client.port() % 64) / 64.0 / 5.0);
            age.saturating_add(spread)
        })
    }
}

/// What `/version` answers (`version.Info` of apimachinery).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionInfo {
    /// Major version.
    pub major: String,
    /// Minor version.
    pub minor: String,
    /// Version as tagged: `v0.1.0`.
    pub git_version: String,
    /// Commit, or empty.
    pub git_commit: String,
    /// `clean`, `dirty` or empty.
    pub git_tree_state: String,
    /// RFC 3339 time of the build, or empty.
    pub build_date: String,
    /// Compiler.
    #[serde(rename = "goVersion")]
    pub compiler_version: String,
    /// Compiler's name.
    pub compiler: String,
    /// `linux/amd64`.
    pub platform: String,
}

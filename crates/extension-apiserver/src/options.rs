//! What a server is told at its start.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

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

/// What one client, and all together, may take up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Open connections. Above it new ones wait in the listen queue.
    pub connections: usize,
    /// Requests answered at once, as metrics-server's `--max-requests-inflight`. Above it: 429.
    pub requests_in_flight: usize,
    /// Time for a TLS handshake.
    pub handshake_timeout: Duration,
    /// Time for the headers of a request.
    pub header_timeout: Duration,
    /// Time for an answer's first byte, authentication and authorization included.
    pub request_timeout: Duration,
    /// Bytes of all headers of a request.
    pub header_bytes: u32,
    /// Bytes of a request body, which is read and ignored.
    pub body_bytes: usize,
    /// Streams of one HTTP/2 connection.
    pub streams_per_connection: u32,
    /// Time that everything is still answered after shutdown began, while `/readyz` fails already: as long as it takes
    /// until no client is sent here any more.
    pub shutdown_delay: Duration,
    /// Time for open requests to end after that.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 1024,
            requests_in_flight: 400,
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(32),
            request_timeout: Duration::from_mins(1),
            header_bytes: 64 * 1024,
            body_bytes: 64 * 1024,
            streams_per_connection: 100,
            shutdown_delay: Duration::ZERO,
            drain: Duration::from_secs(20),
        }
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

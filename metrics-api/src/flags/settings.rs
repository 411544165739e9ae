//! Flags, checked against each other and turned into what the parts of the program take. Pure.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use extension_apiserver::{
    Authentication, Authorities, Authorization, CorsOrigins, Limits, ServingCertificate, TlsOptions,
    check_label_selector,
};
use http::HeaderValue;

use super::Flags;
use crate::{
    kubelet::{address::AddressRules, tls::TlsMode},
    scrape::kubelets::KubeletSource,
};

/// Port of a kubelet whose Node names none.
const KUBELET_PORT: u16 = 10250;
/// Shortest resolution: kubelets renew what they serve every 10 s or so.
const SHORTEST_RESOLUTION: Duration = Duration::from_secs(10);

/// What was asked for cannot be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum FlagError {
    /// One flag's value.
    #[error("invalid value {found} for {flag}: expected {expected}")]
    Value {
        /// The flag.
        flag: &'static str,
        /// Its value.
        found: String,
        /// What would do.
        expected: String,
    },
    /// A flag of metrics-server that cannot be had here.
    #[error("--{flag} is not supported; to be used instead: {instead}")]
    Refused {
        /// The flag, without the dashes.
        flag: &'static str,
        /// What to use.
        instead: &'static str,
    },
    /// What the flags about TLS say does not fit together.
    #[error("the flags about TLS: {0}")]
    Tls(String),
    /// Two flags that contradict each other.
    #[error("{first} cannot be used together with {second}: {reason}")]
    Conflict {
        /// One.
        first: String,
        /// The other.
        second: String,
        /// Why not.
        reason: &'static str,
    },
}

/// What kubelets are shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KubeletCredential {
    /// A requested token of this ServiceAccount.
    ServiceAccount(String),
    /// The token that this process uses towards kube-apiserver.
    Own,
    /// No token: a client certificate only.
    None,
}

/// A certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// PEM, leaf first.
    pub certificate: PathBuf,
    /// PEM.
    pub key: PathBuf,
}

/// The command line, understood.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The cluster; `None` for the pod's own.
    pub kubeconfig: Option<PathBuf>,
    /// Time between two scrapes of a node.
    pub resolution: Duration,
    /// Which address of a Node is dialled.
    pub addresses: AddressRules,
    /// What is read of kubelets.
    pub source: KubeletSource,
    /// Time for one scrape.
    pub kubelet_timeout: Duration,
    /// How kubelets' certificates are treated.
    pub tls_mode: TlsMode,
    /// Their authorities; `None` for the cluster's.
    pub kubelet_authority: Option<PathBuf>,
    /// What they are shown.
    pub credential: KubeletCredential,
    /// A client certificate they are shown.
    pub client_certificate: Option<Certificate>,
    /// Nodes to scrape.
    pub node_selector: Option<String>,
    /// Where to listen.
    pub bind: SocketAddr,
    /// What to serve with.
    pub serving: ServingCertificate,
    /// How connections are encrypted.
    pub tls: TlsOptions,
    /// Whom to trust, where that is not what kube-apiserver publishes.
    pub authorities: Authorities,
    /// Whose scripts may read answers in a browser, if any.
    pub cors: Option<CorsOrigins>,
    /// Whether other processes may listen on the same port.
    pub shares_port: bool,
    /// The header `Strict-Transport-Security`.
    pub strict_transport_security: Option<HeaderValue>,
    /// Bounds.
    pub limits: Limits,
    /// Who clients are.
    pub authentication: Authentication,
    /// The cluster that says who clients are; `None` for that of `kubeconfig`.
    pub authentication_kubeconfig: Option<PathBuf>,
    /// What they may do.
    pub authorization: Authorization,
    /// The cluster that says what they may do; `None` for that of `kubeconfig`.
    pub authorization_kubeconfig: Option<PathBuf>,
    /// Log level or directives.
    pub log_level: String,
}

impl Settings {
    /// Checks flags. `ipv6` tells whether this machine has it.
    pub fn new(flags: Flags, ipv6: bool) -> Result<Self, FlagError> {
        check_times(&flags)?;
        check_node_selector(&flags)?;
        let tls_mode = tls_mode(&flags)?;
        let strict_transport_security = flags.serving.strict_transport_security()?;
        let cors = flags.serving.cors()?;
        let client_certificate = match (flags.kubelet_client_certificate, flags.kubelet_client_key) {
            (Some(certificate), Some(key)) => Some(Certificate { certificate, key }),
            _ => None,
        };
        let credential = match (flags.kubelet_service_account, &client_certificate) {
            (Some(name), _) => KubeletCredential::ServiceAccount(name),
            (None, None) => KubeletCredential::Own,
            (None, Some(_)) => KubeletCredential::None,
        };
        let serving = match (flags.tls_cert_file, flags.tls_private_key_file) {
            (Some(certificate), Some(key)) => ServingCertificate::Files { certificate, key },
            _ => ServingCertificate::SelfSigned {
                directory: flags.cert_dir,
            },
        };
        let streams = match flags.http2_max_streams_per_connection {
            0 => Limits::default().streams_per_connection,
            streams => streams,
        };
        let everywhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let ip = match flags.bind_address {
            ip if ip == everywhere && ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            ip => ip,
        };
        Ok(Self {
            kubeconfig: flags.kubeconfig,
            resolution: flags.metric_resolution,
            addresses: AddressRules {
                types: flags.kubelet_preferred_address_types,
                port: flags.kubelet_port.unwrap_or(KUBELET_PORT),
                use_node_status_port: flags
                    .kubelet_use_node_status_port
                    .unwrap_or(flags.kubelet_port.is_none()),
                loopback: flags.kubelet_allow_loopback,
            },
            source: flags.kubelet_source,
            kubelet_timeout: flags.kubelet_request_timeout,
            tls_mode,
            kubelet_authority: flags.kubelet_certificate_authority,
            credential,
            client_certificate,
            node_selector: flags.node_selector.filter(|selector| !selector.is_empty()),
            bind: SocketAddr::new(ip, flags.secure_port),
            serving,
            limits: Limits {
                requests_in_flight: flags.max_requests_inflight,
                request_timeout: flags.request_timeout,
                streams_per_connection: streams,
                shutdown_delay: flags.shutdown_delay_duration,
                shutdown_send_retry_after: flags.serving.shutdown_send_retry_after,
                drain: flags.shutdown_drain_duration,
                http2: !flags.serving.disable_http2_serving,
                goaway_chance: flags.serving.goaway_chance,
                connection_age: Some(flags.serving.max_connection_age).filter(|age| !age.is_zero()),
                ..Limits::default()
            },
            tls: flags.serving.tls()?,
            authorities: flags.clients.authorities(),
            cors,
            shares_port: flags.serving.permit_port_sharing,
            strict_transport_security,
            authentication_kubeconfig: flags.clients.authentication_kubeconfig,
            authorization_kubeconfig: flags.clients.authorization_kubeconfig,
            authentication: Authentication {
                tolerate_lookup_failure: flags.authentication_tolerate_lookup_failure,
                token_cache_ttl: flags.authentication_token_webhook_cache_ttl,
            },
            authorization: Authorization {
                always_allow_paths: flags.authorization_always_allow_paths,
                allow_ttl: flags.authorization_webhook_cache_authorized_ttl,
                deny_ttl: flags.authorization_webhook_cache_unauthorized_ttl,
            },
            log_level: flags
                .log_level
                .unwrap_or_else(|| level_of(flags.verbosity).to_owned()),
        })
    }
}

fn check_times(flags: &Flags) -> Result<(), FlagError> {
    let (resolution, timeout) = (flags.metric_resolution, flags.kubelet_request_timeout);
    if resolution < SHORTEST_RESOLUTION {
        return Err(FlagError::Value {
            flag: "--metric-resolution",
            found: format!("{resolution:?}"),
            expected: "at least 10s, for kubelets renew what they serve no more often".to_owned(),
        });
    }
    if timeout.is_zero() {
        return Err(FlagError::Value {
            flag: "--kubelet-request-timeout",
            found: "0s".to_owned(),
            expected: "more than nothing".to_owned(),
        });
    }
    if resolution * 9 / 10 < timeout {
        return Err(FlagError::Conflict {
            first: format!("--metric-resolution={resolution:?}"),
            second: format!("--kubelet-request-timeout={timeout:?}"),
            reason: "the timeout must be at most nine tenths of the resolution",
        });
    }
    Ok(())
}

/// kube-apiserver would refuse it too, but only to the watch, which tries for ever.
fn check_node_selector(flags: &Flags) -> Result<(), FlagError> {
    let Some(selector) = &flags.node_selector else {
        return Ok(());
    };
    check_label_selector(selector).map_err(|reason| FlagError::Value {
        flag: "--node-selector",
        found: format!("{selector:?}"),
        expected: format!("a label selector such as pool=web,!virtual: {reason}"),
    })
}

fn tls_mode(flags: &Flags) -> Result<TlsMode, FlagError> {
    let conflict = |first: &str, second: &str, reason| {
        Err(FlagError::Conflict {
            first: first.to_owned(),
            second: second.to_owned(),
            reason,
        })
    };
    let mode = match (flags.kubelet_insecure_tls, flags.kubelet_tls_mode) {
        (true, None | Some(TlsMode::Insecure)) => TlsMode::Insecure,
        (true, Some(mode)) => {
            let second = format!("--kubelet-tls-mode={mode:?}");
            return conflict(
                "--kubelet-insecure-tls",
                &second,
                "one says to check certificates, the other not to",
            );
        }
        (false, mode) => mode.unwrap_or(TlsMode::Verify),
    };
    if mode == TlsMode::Insecure && flags.kubelet_certificate_authority.is_some() {
        let first = if flags.kubelet_insecure_tls {
            "--kubelet-insecure-tls"
        } else {
            "--kubelet-tls-mode=Insecure"
        };
        return conflict(
            first,
            "--kubelet-certificate-authority",
            "nothing would be checked against that authority",
        );
    }
    Ok(mode)
}

/// klog's levels, roughly: 4 is debugging, 6 and more is tracing. The clients below are loud from the start of
/// tracing on.
fn level_of(verbosity: u32) -> &'static str {
    match verbosity {
        0..=3 => "info",
        4..=5 => "debug,hyper=info,hyper_util=info,rustls=info,tower=info,h2=info",
        6..=9 => "trace,hyper=debug,hyper_util=debug,rustls=debug,tower=debug,h2=info",
        _ => "trace",
    }
}

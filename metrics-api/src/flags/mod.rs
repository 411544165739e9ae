//! Command line. Flags that metrics-server has too keep its names, values and meaning.

pub mod classes;
mod clients;
mod serving;
mod settings;

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{ArgAction, Parser};
use process::telemetry::LogFormat;

pub use clients::ClientFlags;
pub use serving::{MinVersion, ServingFlags};
pub use settings::{Certificate, FlagError, KubeletCredential, Settings};

use crate::{
    kubelet::{address::AddressType, tls::TlsMode},
    scrape::kubelets::KubeletSource,
    time::parse_go_duration,
};

/// Extension API server that scrapes kubelets and answers metrics.k8s.io.
///
/// Durations are written as in Go (15s, 1m30s), lists with commas. Of a flag that is given twice the later counts; those
/// that take a list add up.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "metrics-api",
    version,
    args_override_self = true,
    next_line_help = true
)]
pub struct Flags {
    /// Path to a kubeconfig with the cluster to work for. The default is the pod's own.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Time between two scrapes of a node: at least 10s, and long enough for a request that times out.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = parse_go_duration)]
    pub metric_resolution: Duration,

    /// Port of kubelets. Without it, the port in the status of the Node, or 10250.
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..), help_heading = "Kubelet")]
    pub kubelet_port: Option<u16>,

    /// Take the port in the status of the Node before the one of --kubelet-port.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = parse_go_bool, action = ArgAction::Set, help_heading = "Kubelet")]
    pub kubelet_use_node_status_port: Option<bool>,

    /// Types of Node addresses to dial, preferred first.
    #[arg(
        long,
        value_name = "TYPE",
        value_delimiter = ',',
        default_value = "InternalIP,Hostname,InternalDNS,ExternalDNS,ExternalIP",
        help_heading = "Kubelet"
    )]
    pub kubelet_preferred_address_types: Vec<AddressType>,

    /// Time for one scrape of one node.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_go_duration, help_heading = "Kubelet")]
    pub kubelet_request_timeout: Duration,

    /// File with the certificate authorities of kubelets' serving certificates. The default is the cluster's.
    #[arg(long, value_name = "FILE", help_heading = "Kubelet")]
    pub kubelet_certificate_authority: Option<PathBuf>,

    /// How kubelets' serving certificates are treated. Verify: they must chain to the authority and name the
    /// address. Auto: those that do not chain are pinned on first use. Insecure: they are not looked at.
    #[arg(long, value_name = "MODE", help_heading = "Kubelet")]
    pub kubelet_tls_mode: Option<TlsMode>,

    /// The same as --kubelet-tls-mode=Insecure.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, value_parser = parse_go_bool, action = ArgAction::Set, help_heading = "Kubelet")]
    pub kubelet_insecure_tls: bool,

    /// ServiceAccount in the own namespace whose token is requested and shown to kubelets. Without it they see the
    /// pod's own token.
    #[arg(long, value_name = "NAME", help_heading = "Kubelet")]
    pub kubelet_service_account: Option<String>,

    /// File with a client certificate to show to kubelets.
    #[arg(
        long,
        value_name = "FILE",
        requires = "kubelet_client_key",
        help_heading = "Kubelet"
    )]
    pub kubelet_client_certificate: Option<PathBuf>,

    /// File with the key of --kubelet-client-certificate.
    #[arg(
        long,
        value_name = "FILE",
        requires = "kubelet_client_certificate",
        help_heading = "Kubelet"
    )]
    pub kubelet_client_key: Option<PathBuf>,

    /// What is read of kubelets. For /stats/summary the right to get nodes/stats is needed.
    #[arg(long, value_name = "SOURCE", default_value = "Auto", help_heading = "Kubelet")]
    pub kubelet_source: KubeletSource,

    /// Dial loopback addresses too. For benchmarks and tests: a node could name one to be shown what is meant for a
    /// kubelet on this very machine.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, value_parser = parse_go_bool, action = ArgAction::Set, help_heading = "Kubelet")]
    pub kubelet_allow_loopback: bool,

    /// Label selector of the nodes to scrape and to answer for.
    #[arg(short = 'l', long, value_name = "SELECTOR", help_heading = "Kubelet")]
    pub node_selector: Option<String>,

    /// Address to listen on. 0.0.0.0 is all, of IPv6 too where there is any.
    #[arg(long, value_name = "IP", default_value = "0.0.0.0", help_heading = "Serving")]
    pub bind_address: IpAddr,

    /// Port to listen on.
    #[arg(long, value_name = "PORT", default_value_t = 443, value_parser = clap::value_parser!(u16).range(1..), help_heading = "Serving")]
    pub secure_port: u16,

    /// Directory for a self-signed serving certificate, made where --tls-cert-file is not given.
    #[arg(
        long,
        value_name = "DIRECTORY",
        default_value = "apiserver.local.config/certificates",
        help_heading = "Serving"
    )]
    pub cert_dir: PathBuf,

    /// File with the serving certificate, read again when its content changes.
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_private_key_file",
        help_heading = "Serving"
    )]
    pub tls_cert_file: Option<PathBuf>,

    /// File with the key of --tls-cert-file.
    #[arg(
        long,
        value_name = "FILE",
        requires = "tls_cert_file",
        help_heading = "Serving"
    )]
    pub tls_private_key_file: Option<PathBuf>,

    /// Requests answered at once; more are answered 429. 0: no limit.
    #[arg(long, value_name = "COUNT", default_value_t = 400, help_heading = "Serving")]
    pub max_requests_inflight: usize,

    /// Time for a request.
    #[arg(long, value_name = "DURATION", default_value = "1m0s", value_parser = parse_go_duration, help_heading = "Serving")]
    pub request_timeout: Duration,

    /// Time that everything is still answered after the end was asked for, while /readyz fails already: as long as it
    /// takes until no client is sent here any more.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_go_duration, help_heading = "Serving")]
    pub shutdown_delay_duration: Duration,

    /// Time for open requests to end after that.
    #[arg(long, value_name = "DURATION", default_value = "20s", value_parser = parse_go_duration, help_heading = "Serving")]
    pub shutdown_drain_duration: Duration,

    /// Requests at once on one HTTP/2 connection; 0 is 100.
    #[arg(long, value_name = "COUNT", default_value_t = 0, help_heading = "Serving")]
    pub http2_max_streams_per_connection: u32,

    /// Start also while the ConfigMap kube-system/extension-apiserver-authentication cannot be read.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, value_parser = parse_go_bool, action = ArgAction::Set, help_heading = "Clients")]
    pub authentication_tolerate_lookup_failure: bool,

    /// How long the answer of a TokenReview is kept.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_go_duration, help_heading = "Clients")]
    pub authentication_token_webhook_cache_ttl: Duration,

    /// Paths that everybody may get; a * at the end stands for any rest.
    #[arg(
        long,
        value_name = "PATH",
        value_delimiter = ',',
        default_value = "/healthz,/readyz,/livez",
        help_heading = "Clients"
    )]
    pub authorization_always_allow_paths: Vec<String>,

    /// How long an "allowed" of a SubjectAccessReview is kept.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_go_duration, help_heading = "Clients")]
    pub authorization_webhook_cache_authorized_ttl: Duration,

    /// How long a "denied" of a SubjectAccessReview is kept.
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = parse_go_duration, help_heading = "Clients")]
    pub authorization_webhook_cache_unauthorized_ttl: Duration,

    /// Log level: error, warn, info, debug or trace, or directives such as info,kube=debug.
    #[arg(long, value_name = "LEVEL", help_heading = "Logging")]
    pub log_level: Option<String>,

    /// Log level as a number, where there is no --log-level: from 4 on debug, from 6 on trace.
    #[arg(
        short = 'v',
        long = "v",
        value_name = "NUMBER",
        default_value_t = 0,
        help_heading = "Logging"
    )]
    pub verbosity: u32,

    /// How log lines look.
    #[arg(long, value_name = "FORMAT", default_value = "text", help_heading = "Logging")]
    pub logging_format: LogFormat,

    /// How is served.
    #[command(flatten)]
    pub serving: ServingFlags,

    /// Who is trusted, and who is asked about clients.
    #[command(flatten)]
    pub clients: ClientFlags,
}

/// Booleans as Go's `strconv.ParseBool` reads them, which the flags of Kubernetes' own programs go by.
fn parse_go_bool(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(format!("expected true or false, found \"{text}\"")),
    }
}

#[cfg(test)]
mod tests;

//! Flags of k8s.io/apiserver's that say how is served: what they ask for is the library's to do.

use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use extension_apiserver::{CorsOrigins, NamedCertificate, TlsError, TlsOptions, TlsVersion};
use http::HeaderValue;

use super::{FlagError, parse_go_bool};
use crate::time::parse_go_duration;

/// Most that a connection may be asked to end by chance, as in k8s.io/apiserver.
const MOST_GOAWAY: f64 = 0.02;

/// See the module.
#[derive(Clone, Debug, Args)]
pub struct ServingFlags {
    /// Oldest version of TLS that is spoken.
    #[arg(
        long,
        value_name = "VERSION",
        default_value = "VersionTLS12",
        help_heading = "Serving"
    )]
    pub tls_min_version: MinVersion,

    /// Suites of TLS 1.2 by their names in Go. The default is all that are secure enough.
    #[arg(long, value_name = "SUITE", value_delimiter = ',', help_heading = "Serving")]
    pub tls_cipher_suites: Vec<String>,

    /// Groups for the exchange of keys by their numbers, such as 4588 for X25519MLKEM768 or 29 for X25519. The default is
    /// all of them.
    #[arg(long, value_name = "NUMBER", value_delimiter = ',', help_heading = "Serving")]
    pub tls_curve_preferences: Vec<u16>,

    /// A further certificate and key, and the names it is for where those are not in it; may be given again.
    #[arg(long, value_name = "CERTIFICATE,KEY[:NAME,...]", value_parser = parse_named, help_heading = "Serving")]
    pub tls_sni_cert_key: Vec<NamedCertificate>,

    /// Offer HTTP/1.1 only: a connection that dies without a word then costs one read, not all of them.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = true, value_parser = parse_go_bool, action = ArgAction::Set, help_heading = "Serving")]
    pub disable_http2_serving: bool,

    /// The chance, up to 0.02, that a connection is asked to end after a request.
    #[arg(long, value_name = "CHANCE", default_value_t = 0.0, value_parser = parse_chance, help_heading = "Serving")]
    pub goaway_chance: f64,

    /// Age at which a connection is asked to end, over HTTP/2 by GOAWAY; 0s: never.
    #[arg(long, value_name = "DURATION", default_value = "5m0s", value_parser = parse_go_duration, help_heading = "Serving")]
    pub max_connection_age: Duration,

    /// After the delay of a shutdown, answer 429 with Retry-After while open requests end.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, value_parser = parse_go_bool, action = ArgAction::Set, help_heading = "Serving")]
    pub shutdown_send_retry_after: bool,

    /// Directives of the header Strict-Transport-Security: max-age=SECONDS, includeSubDomains, preload.
    #[arg(long, value_name = "DIRECTIVE", value_delimiter = ',', value_parser = parse_hsts, help_heading = "Serving")]
    pub strict_transport_security_directives: Vec<String>,

    /// Let other processes listen on the same port (`SO_REUSEPORT`).
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value_t = false, value_parser = parse_go_bool, action = ArgAction::Set, help_heading = "Serving")]
    pub permit_port_sharing: bool,

    /// Regular expressions for the origins whose scripts may read answers in a browser.
    #[arg(long, value_name = "REGEXP", value_delimiter = ',', help_heading = "Serving")]
    pub cors_allowed_origins: Vec<String>,
}

/// Values of `--tls-min-version`, as k8s.io/component-base names them. Older ones are insecure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MinVersion {
    /// TLS 1.2.
    #[value(name = "VersionTLS12")]
    Tls12,
    /// TLS 1.3.
    #[value(name = "VersionTLS13")]
    Tls13,
}

impl ServingFlags {
    /// How connections are encrypted.
    ///
    /// # Errors
    ///
    /// A suite or a group that is not known.
    pub fn tls(&self) -> Result<TlsOptions, FlagError> {
        let options = TlsOptions {
            minimum: match self.tls_min_version {
                MinVersion::Tls12 => TlsVersion::V1_2,
                MinVersion::Tls13 => TlsVersion::V1_3,
            },
            cipher_suites: self.tls_cipher_suites.clone(),
            curve_preferences: self.tls_curve_preferences.clone(),
            by_name: self.tls_sni_cert_key.clone(),
        };
        let unknown = |flag, found: String, known| FlagError::Value {
            flag,
            found,
            expected: format!("some of {known}"),
        };
        options.check().map_err(|error| match error {
            TlsError::CipherSuite { found, known } => {
                unknown("--tls-cipher-suites", format!("{found:?}"), known)
            }
            TlsError::Curve { found, known } => unknown("--tls-curve-preferences", found.to_string(), known),
            other => FlagError::Tls(other.to_string()),
        })?;
        Ok(options)
    }

    /// Whose scripts may read answers in a browser, if any.
    pub fn cors(&self) -> Result<Option<CorsOrigins>, FlagError> {
        let expressions = &self.cors_allowed_origins;
        if expressions.is_empty() {
            return Ok(None);
        }
        let origins = CorsOrigins::new(expressions).map_err(|error| FlagError::Value {
            flag: "--cors-allowed-origins",
            found: format!("{:?}", expressions.join(",")),
            expected: format!("regular expressions for origins: {error}"),
        })?;
        Ok(Some(origins))
    }

    /// The header `Strict-Transport-Security`.
    pub fn strict_transport_security(&self) -> Result<Option<HeaderValue>, FlagError> {
        if self.strict_transport_security_directives.is_empty() {
            return Ok(None);
        }
        let text = self.strict_transport_security_directives.join("; ");
        let value = HeaderValue::try_from(&text).map_err(|_| FlagError::Value {
            flag: "--strict-transport-security-directives",
            found: format!("{text:?}"),
            expected: "values of an HTTP header".to_owned(),
        })?;
        Ok(Some(value))
    }
}

/// `certificate,key` or `certificate,key:name,name`.
fn parse_named(text: &str) -> Result<NamedCertificate, String> {
    let (files, names) = text.split_once(':').unwrap_or((text, ""));
    match files.split_once(',') {
        Some((certificate, key)) if !certificate.is_empty() && !key.is_empty() && !key.contains(',') => {
            Ok(NamedCertificate {
                certificate: certificate.into(),
                key: key.into(),
                names: names
                    .split(',')
                    .filter(|name| !name.is_empty())
                    .map(str::to_owned)
                    .collect(),
            })
        }
        _ => Err(format!(
            "expected CERTIFICATE,KEY or CERTIFICATE,KEY:NAME,..., found \"{text}\""
        )),
    }
}

fn parse_chance(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|chance| (0.0..=MOST_GOAWAY).contains(chance))
        .ok_or_else(|| format!("expected a number from 0 to {MOST_GOAWAY}, found \"{text}\""))
}

fn parse_hsts(text: &str) -> Result<String, String> {
    let seconds = text.strip_prefix("max-age=");
    let known = matches!(text, "includeSubDomains" | "preload")
        || seconds
            .is_some_and(|seconds| !seconds.is_empty() && seconds.bytes().all(|byte| byte.is_ascii_digit()));
    known
        .then(|| text.to_owned())
        .ok_or_else(|| format!("expected max-age=SECONDS, includeSubDomains or preload, found \"{text}\""))
}

//! The TLS side of the listener: protocol settings, the serving certificate and its reload.
//!
//! Client certificates are asked for, not required, and any chain passes the handshake if its key signed it. What a
//! chain is worth is judged per request ([`crate::authn`]): the authorities change while connections stay open.

mod client_certificates;
mod names;
pub(crate) mod pair;
mod reload;
mod self_signed;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, SupportedKxGroup, aws_lc_rs};
use rustls::server::NoServerSessionStorage;
use rustls::{ProtocolVersion, ServerConfig, SupportedCipherSuite};

use self::client_certificates::AnyChain;
use self::names::ByName;
pub use self::pair::CertificateError;
pub(crate) use self::reload::Serving;
use crate::options::{TlsOptions, TlsVersion};

/// Marks HTTP/2 in the negotiation of the protocol.
pub(crate) const HTTP_2: &[u8] = b"h2";

/// The one implementation of cryptography, named here so that nothing depends on the process's default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A cipher suite is not known or not secure.
    #[error("cipher suite {found:?} is not known, or not secure: expected one of {known}")]
    CipherSuite {
        /// The name given.
        found: String,
        /// Those there are.
        known: String,
    },
    /// A group for the exchange of keys is not known.
    #[error("group {found} for the exchange of keys is not known: expected one of {known}")]
    Curve {
        /// The number given.
        found: u16,
        /// Those there are.
        known: String,
    },
    /// The settings do not fit together.
    #[error(transparent)]
    Rustls(#[from] rustls::Error),
}

/// The provider with only those suites of TLS 1.2, named as in Go, whose names are those of the registry of IANA.
fn with_suites(names: &[String]) -> Result<CryptoProvider, TlsError> {
    let mut provider = aws_lc_rs::default_provider();
    if names.is_empty() {
        return Ok(provider);
    }
    let name = |suite: &SupportedCipherSuite| format!("{:?}", suite.suite());
    let older = |suite: &&SupportedCipherSuite| suite.version().version == ProtocolVersion::TLSv1_2;
    // Go also knows these without the hash at their end.
    let called = |suite: &SupportedCipherSuite, wanted: &str| {
        let name = name(suite);
        name == wanted
            || (wanted.ends_with("_CHACHA20_POLY1305") && name.strip_suffix("_SHA256") == Some(wanted))
    };
    for wanted in names {
        let mut known = provider.cipher_suites.iter();
        // Names of TLS 1.3 are known but choose nothing, as in Go.
        if !known.any(|suite| called(suite, wanted) || name(suite) == wanted.replace("TLS_", "TLS13_")) {
            let known = provider.cipher_suites.iter().filter(older).map(name);
            let known = known.collect::<Vec<_>>().join(", ");
            let found = wanted.clone();
            return Err(TlsError::CipherSuite { found, known });
        }
    }
    provider
        .cipher_suites
        .retain(|suite| !older(&suite) || names.iter().any(|wanted| called(suite, wanted)));
    Ok(provider)
}

/// Leaves only those groups for the exchange of keys. Which of them is taken, the client's order decides.
fn choose_curves(provider: &mut CryptoProvider, numbers: &[u16]) -> Result<(), TlsError> {
    let number = |group: &&dyn SupportedKxGroup| u16::from(group.name());
    let groups = &mut provider.kx_groups;
    if let Some(&found) = numbers
        .iter()
        .find(|&&wanted| !groups.iter().any(|group| number(group) == wanted))
    {
        let called = |group: &&dyn SupportedKxGroup| format!("{} ({:?})", number(group), group.name());
        let known = groups.iter().map(called).collect::<Vec<_>>().join(", ");
        return Err(TlsError::Curve { found, known });
    }
    groups.retain(|group| numbers.is_empty() || numbers.contains(&number(group)));
    Ok(())
}

/// The provider that does what the options say.
fn chosen(options: &TlsOptions) -> Result<CryptoProvider, TlsError> {
    let mut provider = with_suites(&options.cipher_suites)?;
    choose_curves(&mut provider, &options.curve_preferences)?;
    Ok(provider)
}

impl TlsOptions {
    /// Whether every suite and every group is known, which a server looks at when it starts.
    ///
    /// # Errors
    ///
    /// The first that is not.
    pub fn check(&self) -> Result<(), TlsError> {
        chosen(self).map(drop)
    }
}

/// What every connection is accepted with. `named` are the certificates of [`TlsOptions::by_name`].
pub(crate) fn server_config(
    options: &TlsOptions,
    certificate: &Serving,
    named: &[Serving],
    http2: bool,
) -> Result<ServerConfig, TlsError> {
    let provider = chosen(options)?;
    let algorithms = provider.signature_verification_algorithms;
    let mut certificates = ByName::new(certificate.current());
    for (named, serving) in options.by_name.iter().zip(named) {
        certificates.add(&named.names, serving.current());
    }
    let versions: &[_] = match options.minimum {
        TlsVersion::V1_2 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        TlsVersion::V1_3 => &[&rustls::version::TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(versions)?
        .with_client_cert_verifier(Arc::new(AnyChain(algorithms)))
        .with_cert_resolver(Arc::new(certificates));
    let protocols = [HTTP_2, b"http/1.1"];
    let offered = protocols.iter().skip(usize::from(!http2));
    config.alpn_protocols = offered.map(|protocol| protocol.to_vec()).collect();
    // No resumption: each connection proves anew that it has its certificate's key, and nothing is kept for clients
    // that may never return.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_are_chosen_by_their_numbers() {
        let curves = |numbers: &[u16]| {
            let mut provider = aws_lc_rs::default_provider();
            choose_curves(&mut provider, numbers)?;
            let names = provider.kx_groups.iter().map(|group| u16::from(group.name()));
            Ok::<_, TlsError>(names.collect::<Vec<_>>())
        };
        assert_eq!(curves(&[]).unwrap(), [29, 23, 24, 4588]);
        assert_eq!(curves(&[24, 29]).unwrap(), [29, 24]);
        // P-521, which is not there.
        let error = curves(&[29, 25]).unwrap_err().to_string();
        assert!(
            error.contains("group 25") && error.contains("23 (secp256r1)"),
            "{error}"
        );
    }

    #[test]
    fn suites_are_chosen_by_their_names_in_go() {
        let suites = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            with_suites(&names).map(|provider| {
                let names = provider
                    .cipher_suites
                    .iter()
                    .map(|suite| format!("{:?}", suite.suite()));
                names
                    .filter(|name| !name.starts_with("TLS13_"))
                    .collect::<Vec<_>>()
            })
        };
        assert_eq!(suites(&[]).unwrap().len(), 6);
        let chosen = [
            "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
            "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        ];
        let mut found = suites(&chosen).unwrap();
        found.sort();
        assert_eq!(
            found,
            [
                "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
                "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
            ]
        );
        assert_eq!(suites(&["TLS_AES_128_GCM_SHA256"]).unwrap(), [""; 0]);
        let error = suites(&["TLS_RSA_WITH_RC4_128_SHA"]).unwrap_err().to_string();
        assert!(
            error.contains("RC4") && error.contains("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384"),
            "{error}"
        );
    }
}

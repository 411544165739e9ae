//! The TLS side of the listener: protocol settings, the serving certificate and its reload.
//!
//! Client certificates are asked for, not required, and any chain passes the handshake if its key signed it. What a
//! chain is worth is judged per request ([`crate::authn`]): the authorities change while connections stay open.

mod client_certificates;
mod pair;
mod reload;
mod self_signed;

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, ResolvesServerCert};

use self::client_certificates::AnyChain;
pub use self::pair::CertificateError;
pub(crate) use self::reload::Serving;

/// Marks HTTP/2 in the negotiation of the protocol.
pub(crate) const HTTP_2: &[u8] = b"h2";

/// The one implementation of cryptography, named here so that nothing depends on the process's default.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// What every connection is accepted with.
pub(crate) fn server_config(
    certificate: Arc<dyn ResolvesServerCert>,
    http2: bool,
) -> Result<ServerConfig, rustls::Error> {
    let provider = provider();
    let algorithms = provider.signature_verification_algorithms;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_client_cert_verifier(Arc::new(AnyChain(algorithms)))
        .with_cert_resolver(certificate);
    let protocols = [HTTP_2, b"http/1.1"];
    let offered = protocols.iter().skip(usize::from(!http2));
    config.alpn_protocols = offered.map(|protocol| protocol.to_vec()).collect();
    // No resumption: each connection proves anew that it has its certificate's key, and nothing is kept for clients
    // that may never return.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

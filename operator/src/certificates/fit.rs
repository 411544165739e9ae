//! Whether one stored certificate is good for what it is stored for.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::issue::end_of_leaf;
use super::{KeyPair, Lifetimes, PairError, Server};

/// Why a stored certificate is replaced.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// There is no Secret.
    #[error("there is none")]
    Missing,
    /// The Secret holds something else.
    #[error(transparent)]
    Unreadable(#[from] PairError),
    /// It is in the authority's place but may not sign.
    #[error("it is not a certificate authority")]
    NotAnAuthority,
    /// A third of its life or less is left (of an authority's a fifth), or it is not valid yet.
    #[error("it is valid from {not_before} to {not_after}")]
    Due {
        /// Start of its life.
        not_before: Timestamp,
        /// End of its life.
        not_after: Timestamp,
    },
    /// A verifier as kube-apiserver's would refuse it.
    #[error("it does not verify: {0}")]
    Unverified(String),
    /// Another authority has taken over.
    #[error("its authority is replaced")]
    Replaced,
    /// kube-apiserver refused the one that replaced it.
    #[error("kube-apiserver refuses the new one")]
    Refused,
    /// The lifetime asked for is another than when it was made.
    #[error("its lifetime is not the one asked for")]
    Lifetime,
}

impl Unfit {
    fn due(pair: &KeyPair) -> Self {
        Self::Due {
            not_before: pair.not_before(),
            not_after: pair.not_after(),
        }
    }
}

/// An entry of a Secret.
pub(super) fn bytes<'a>(secret: Option<&'a Secret>, key: &str) -> &'a [u8] {
    secret
        .and_then(|secret| secret.data.as_ref()?.get(key))
        .map_or(&[][..], |bytes| bytes.0.as_slice())
}

/// The pair in these entries of a Secret.
pub(super) fn read(secret: Option<&Secret>, (certificate, key): (&str, &str)) -> Result<KeyPair, Unfit> {
    if secret.is_none() {
        return Err(Unfit::Missing);
    }
    Ok(KeyPair::parse(bytes(secret, certificate), bytes(secret, key))?)
}

/// Whether it can sign. One that is due still can.
pub(super) fn authority(ca: KeyPair, now: Timestamp) -> Result<KeyPair, Unfit> {
    if !ca.is_ca() {
        return Err(Unfit::NotAnAuthority);
    }
    if now >= ca.not_after() {
        return Err(Unfit::due(&ca));
    }
    Ok(ca)
}

/// Whether it has enough time left.
pub(super) fn in_time(pair: &KeyPair, now: Timestamp) -> Result<(), Unfit> {
    if now < pair.not_before() || now >= pair.renew_at() {
        return Err(Unfit::due(pair));
    }
    Ok(())
}

/// Whether a serving certificate of `ca` is as one made now would be, but for its age.
pub(super) fn as_asked(
    leaf: &KeyPair,
    ca: &KeyPair,
    lifetimes: Lifetimes,
    now: Timestamp,
) -> Result<(), Unfit> {
    in_time(leaf, now)?;
    if leaf.not_after() != end_of_leaf(leaf.made(), lifetimes.leaf, ca) {
        return Err(Unfit::Lifetime);
    }
    Ok(())
}

/// Verifies as kube-apiserver does: chain, time, usage and each name.
pub(super) fn verify(
    leaf: &KeyPair,
    authorities: &[CertificateDer<'static>],
    server: &Server,
    now: Timestamp,
) -> Result<(), Unfit> {
    let refuse = |reason: &dyn std::fmt::Display| Unfit::Unverified(reason.to_string());
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(|error| refuse(&error))?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error| refuse(&error))?;
    let time = UnixTime::since_unix_epoch(Duration::from_secs(
        now.as_second().try_into().unwrap_or_default(),
    ));
    for name in &server.dns_names {
        let name = ServerName::try_from(name.as_str()).map_err(|error| refuse(&error))?;
        verifier
            .verify_server_cert(leaf.certificate(), leaf.intermediates(), &name, &[], time)
            .map_err(|error| refuse(&error))?;
    }
    Ok(())
}

//! Which stored certificates are still good.

use std::sync::Arc;
use std::time::Duration;

use contract::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};

use super::{Authority, BACKDATE, BUNDLE, KeyPair, Lifetimes, PairError, Server, authority};

/// What is stored, judged. A serving certificate is only ever good together with its authority.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The authority, or why a new one is needed.
    pub ca: Result<KeyPair, Unfit>,
    /// The authority before, while it is still trusted.
    pub previous: Option<Authority>,
    /// The serving certificate, or why a new one is needed.
    pub leaf: Result<KeyPair, Unfit>,
}

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
    /// A third or less of its life is left, or it is not valid yet.
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
    /// The lifetime asked for is another than when it was made.
    #[error("its lifetime is not the one asked for")]
    Lifetime,
}

/// Judges the Secrets with the authority and the serving certificate. `trusted` holds the authorities that clients
/// trust now, PEM: when the one in the Secret is lost, that is where the one before is known from.
#[must_use]
pub fn judge(
    ca: Option<&Secret>,
    leaf: Option<&Secret>,
    trusted: &str,
    server: &Server,
    lifetimes: Lifetimes,
    now: Timestamp,
) -> Judgement {
    let entry = |key| String::from_utf8_lossy(bytes(ca, key));
    let judged = read(ca).and_then(|ca| judge_ca(ca, now));
    let previous = if let Ok(ca) = &judged {
        let shares = now < made(ca).saturating_add(authority::OVERLAP).unwrap_or(now);
        shares
            .then(|| authority::newest(&entry(BUNDLE), Some(ca.certificate()), now))
            .flatten()
    } else {
        let known = [entry(BUNDLE), entry(names::TLS_CERTIFICATE), trusted.into()].join("\n");
        authority::newest(&known, None, now)
    };
    // A certificate of the authority before serves on until the new one is trusted everywhere.
    let settled = judged
        .as_ref()
        .is_ok_and(|ca| now >= made(ca).saturating_add(authority::SETTLE).unwrap_or(now));
    let still_good = previous.as_ref().filter(|_| !settled).and_then(|previous| {
        let leaf = in_time(read(leaf).ok()?, now).ok()?;
        verify(&leaf, previous.certificate(), server, now).ok()?;
        Some(leaf)
    });
    let leaf = match (still_good, &judged) {
        (Some(leaf), _) => Ok(leaf),
        (None, Ok(ca)) => read(leaf)
            .and_then(|leaf| judge_leaf(leaf, ca, server, lifetimes.leaf, now))
            .map_err(|unfit| match unfit {
                Unfit::Unverified(_) if previous.is_some() => replaced(),
                unfit => unfit,
            }),
        (None, Err(_)) => Err(replaced()),
    };
    Judgement {
        ca: judged,
        previous,
        leaf,
    }
}

/// The lifetimes that what is stored was made with; those of `otherwise` where that cannot be read.
#[must_use]
pub fn lifetimes(ca: Option<&Secret>, leaf: Option<&Secret>, otherwise: Lifetimes) -> Lifetimes {
    let lifetime = |pair: &KeyPair| Duration::try_from(pair.not_after().duration_since(made(pair))).ok();
    Lifetimes {
        ca: read(ca)
            .ok()
            .filter(KeyPair::is_ca)
            .and_then(|ca| lifetime(&ca))
            .unwrap_or(otherwise.ca),
        leaf: read(leaf)
            .ok()
            .and_then(|leaf| lifetime(&leaf))
            .unwrap_or(otherwise.leaf),
    }
}

fn replaced() -> Unfit {
    Unfit::Unverified("its authority is replaced".to_owned())
}

/// When a certificate was made.
fn made(pair: &KeyPair) -> Timestamp {
    pair.not_before()
        .saturating_add(BACKDATE)
        .unwrap_or(Timestamp::MAX)
}

fn bytes<'a>(secret: Option<&'a Secret>, key: &str) -> &'a [u8] {
    secret
        .and_then(|secret| secret.data.as_ref()?.get(key))
        .map_or(&[][..], |bytes| bytes.0.as_slice())
}

fn read(secret: Option<&Secret>) -> Result<KeyPair, Unfit> {
    if secret.is_none() {
        return Err(Unfit::Missing);
    }
    Ok(KeyPair::parse(
        bytes(secret, names::TLS_CERTIFICATE),
        bytes(secret, names::TLS_KEY),
    )?)
}

fn judge_ca(ca: KeyPair, now: Timestamp) -> Result<KeyPair, Unfit> {
    if !ca.is_ca() {
        return Err(Unfit::NotAnAuthority);
    }
    in_time(ca, now)
}

fn in_time(pair: KeyPair, now: Timestamp) -> Result<KeyPair, Unfit> {
    if now < pair.not_before() || now >= pair.renew_at() {
        return Err(Unfit::Due {
            not_before: pair.not_before(),
            not_after: pair.not_after(),
        });
    }
    Ok(pair)
}

fn judge_leaf(
    leaf: KeyPair,
    ca: &KeyPair,
    server: &Server,
    lifetime: Duration,
    now: Timestamp,
) -> Result<KeyPair, Unfit> {
    let leaf = in_time(leaf, now)?;
    verify(&leaf, ca.certificate(), server, now)?;
    if leaf.not_after()
        != end_of_leaf(
            leaf.not_before().saturating_add(BACKDATE).unwrap_or(now),
            lifetime,
            ca,
        )
    {
        return Err(Unfit::Lifetime);
    }
    Ok(leaf)
}

/// When a serving certificate made at `made` ends.
pub(super) fn end_of_leaf(made: Timestamp, lifetime: Duration, ca: &KeyPair) -> Timestamp {
    made.saturating_add(lifetime)
        .unwrap_or(Timestamp::MAX)
        .min(ca.not_after())
}

/// Verifies as kube-apiserver does: chain, time, usage and each name.
fn verify(
    leaf: &KeyPair,
    ca: &CertificateDer<'static>,
    server: &Server,
    now: Timestamp,
) -> Result<(), Unfit> {
    let refuse = |reason: &dyn std::fmt::Display| Unfit::Unverified(reason.to_string());
    let mut roots = RootCertStore::empty();
    roots.add(ca.clone()).map_err(|error| refuse(&error))?;
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
            .verify_server_cert(leaf.certificate(), &[], &name, &[], time)
            .map_err(|error| refuse(&error))?;
    }
    Ok(())
}

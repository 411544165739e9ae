//! A serving certificate that somebody else keeps: cert-manager, or a person.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use super::fit::{self, Unfit, bytes, read};
use super::judge::CURRENT;
use super::{Authority, BUNDLE, Certificates, KeyPair, PREVIOUS, Server, Stored, Usage, authority};

/// What such a Secret holds.
#[derive(Clone, Debug, PartialEq)]
pub struct Given {
    leaf: KeyPair,
    authorities: Vec<Authority>,
}

/// Reads `tls.crt` (the certificate, then those between it and the authority), `tls.key` and `ca.crt` (the authorities
/// that clients are to trust). An error is one line: what was found and what is expected.
pub fn given(secret: &Secret, server: &Server, now: Timestamp) -> Result<Given, String> {
    let leaf = read(Some(secret), CURRENT).map_err(|unfit| match unfit {
        Unfit::Unreadable(error) => error.to_string(),
        unfit => unfit.to_string(),
    })?;
    let (start, end) = (leaf.not_before(), leaf.not_after());
    if now < start || now >= end {
        return Err(format!(
            "tls.crt is valid from {start} to {end}, which is not now"
        ));
    }
    let authorities = authority::read(&String::from_utf8_lossy(bytes(Some(secret), BUNDLE)), now);
    if authorities.is_empty() {
        return Err(format!(
            "{BUNDLE} holds no certificate authority that is valid now; expected the one that tls.crt leads to"
        ));
    }
    fit::verify(&leaf, &certificates(&authorities), server, now).map_err(|unfit| {
        let names = server.dns_names.join(" and ");
        format!("tls.crt is not good for {names} by {BUNDLE}: {unfit}")
    })?;
    Ok(Given { leaf, authorities })
}

/// What is to be stored where somebody else keeps the certificate: theirs as soon as clients know its authority. While
/// theirs cannot be used, the last good one stays; without one, that is an error.
pub fn take(
    given: Result<Given, String>,
    stored: Stored<'_>,
    usage: &Usage,
    server: &Server,
    now: Timestamp,
) -> Result<(Certificates, Option<String>), String> {
    let bundle = |secret| String::from_utf8_lossy(bytes(secret, BUNDLE)).into_owned();
    let known = [bundle(stored.leaf), usage.published.clone()].join("\n");
    let mut others = authority::read(&known, now);
    let current = read(stored.leaf, CURRENT)
        .ok()
        .filter(|leaf| fit::verify(leaf, &certificates(&others), server, now).is_ok());
    let before = read(stored.leaf, PREVIOUS)
        .ok()
        .filter(|leaf| fit::verify(leaf, &certificates(&others), server, now).is_ok());
    let (given, fault) = match (given, current.clone()) {
        (Ok(given), _) => (given, None),
        (Err(fault), Some(leaf)) => {
            let kept = Given {
                leaf,
                authorities: Vec::new(),
            };
            (kept, Some(fault))
        }
        (Err(fault), None) => return Err(fault),
    };
    others.retain(|authority| !given.authorities.contains(authority));
    let is_known = usage.published.is_empty()
        || fit::verify(&given.leaf, &certificates(&usage.settled), server, now).is_ok();
    let (leaf, previous) = match current {
        Some(current) if current == given.leaf => match before {
            Some(before) if usage.refused => (before, None),
            before => {
                if usage.confirms(&current) && fault.is_none() {
                    others.clear();
                }
                (current, before.filter(|_| !others.is_empty()))
            }
        },
        Some(current) if !is_known => (current, None),
        current => (given.leaf, current),
    };
    let certificates = Certificates {
        ca: None,
        next: None,
        given: given.authorities,
        retired: others,
        leaf,
        previous,
    };
    Ok((certificates, fault))
}

fn certificates(authorities: &[Authority]) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    authorities
        .iter()
        .map(|authority| authority.certificate().clone())
        .collect()
}

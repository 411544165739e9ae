//! Which stored certificates are still good, and where in a rotation they are.

use std::time::Duration;

use contract::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use super::fit::{self, Unfit, bytes, read};
use super::{Authority, BUNDLE, KeyPair, Lifetimes, NEXT, PREVIOUS, Server, Usage, authority};

/// Entries of a Secret with what is used now.
pub(super) const CURRENT: (&str, &str) = (names::TLS_CERTIFICATE, names::TLS_KEY);

/// What is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Stored<'a> {
    /// The Secret with the authority.
    pub ca: Option<&'a Secret>,
    /// The Secret with the serving certificate.
    pub leaf: Option<&'a Secret>,
}

/// What is stored, judged. [`issue()`](super::issue()) makes what is an error here.
#[derive(Clone, Debug, PartialEq)]
pub struct Judgement {
    /// The authority that signs, or why a new one is needed.
    pub ca: Result<KeyPair, Unfit>,
    /// Its successor, if there is one, or why one is needed.
    pub next: Option<Result<KeyPair, Unfit>>,
    /// The authorities before, while they are still trusted.
    pub retired: Vec<Authority>,
    /// The serving certificate, or why a new one is needed.
    pub leaf: Result<KeyPair, Unfit>,
    /// The serving certificate of the authority before, until the new one has been accepted.
    pub previous: Option<KeyPair>,
    /// What of it was put in another's place, and why.
    pub moved: Option<Unfit>,
}

/// Judges the Secrets with the authority and the serving certificate.
#[must_use]
pub fn judge(
    stored: Stored<'_>,
    usage: &Usage,
    server: &Server,
    lifetimes: Lifetimes,
    now: Timestamp,
) -> Judgement {
    let mut ca = read(stored.ca, CURRENT).and_then(|ca| fit::authority(ca, now));
    let mut next = read(stored.ca, NEXT)
        .and_then(|next| fit::authority(next, now))
        .ok()
        .filter(|next| ca.as_ref() != Ok(next));
    let mut retired = authority::read(&text(stored.ca, BUNDLE), now);
    if ca.is_err() {
        retired.extend(authority::read(&text(stored.ca, names::TLS_CERTIFICATE), now));
    }
    if let Some(successor) = next.take_if(|next| ca.is_err() || usage.knows(next)) {
        retired.extend(ca.ok().as_ref().map(Authority::from));
        ca = Ok(successor);
    }
    let shown = read(stored.leaf, CURRENT);
    let trusted = |leaf: &KeyPair, retired: &[Authority]| {
        let authorities = retired.iter().map(Authority::certificate);
        let signers = ca.iter().chain(&next).map(KeyPair::certificate);
        let authorities: Vec<_> = authorities.chain(signers).cloned().collect();
        fit::verify(leaf, &authorities, server, begun(leaf, now)).is_ok()
    };
    if !shown.as_ref().is_ok_and(|leaf| trusted(leaf, &retired)) {
        // A Secret is lost, or another one was put in its place. What servers still show goes on being trusted.
        retired.extend(authority::read(&usage.published, now));
    }
    let mut seen = Vec::new();
    retired.retain(|authority| {
        let signs = ca.iter().chain(&next).any(|signer| authority.is_of(signer));
        let first = !seen.contains(authority);
        seen.push(authority.clone());
        first && !signs
    });
    // By an authority that can no longer sign, or not yet.
    let of_another = |leaf: &KeyPair| {
        let authorities = retired.iter().map(Authority::certificate);
        let authorities = authorities.chain(next.iter().map(KeyPair::certificate));
        let authorities: Vec<_> = authorities.cloned().collect();
        fit::verify(leaf, &authorities, server, begun(leaf, now)).is_ok()
    };
    let mut previous = read(stored.leaf, PREVIOUS).ok().filter(|leaf| of_another(leaf));
    let mut moved = None;
    let leaf = match (shown, &ca) {
        (Err(unfit), _) => Err(unfit),
        (Ok(leaf), Err(_)) if of_another(&leaf) => Ok(leaf),
        (Ok(_), Err(_)) => Err(Unfit::Replaced),
        (Ok(leaf), Ok(ca)) => match fit::verify(&leaf, &[ca.certificate().clone()], server, now) {
            Ok(()) => {
                if usage.refused
                    && let Some(accepted) = previous.take()
                {
                    moved = Some(Unfit::Refused);
                    Ok(accepted)
                } else {
                    if usage.confirms(&leaf) {
                        retired.clear();
                        previous = None;
                    }
                    fit::as_asked(&leaf, ca, lifetimes, now).map(|()| leaf)
                }
            }
            Err(_) if of_another(&leaf) => {
                if usage.knows(ca) {
                    previous = Some(leaf);
                    Err(Unfit::Replaced)
                } else {
                    Ok(leaf)
                }
            }
            Err(unfit) => Err(unfit),
        },
    };
    let next = match (next, &ca) {
        (Some(next), _) => Some(Ok(next)),
        (None, Ok(ca)) => fit::in_time(ca, now).err().map(Err),
        (None, Err(_)) => None,
    };
    Judgement {
        ca,
        next,
        retired,
        leaf,
        previous,
        moved,
    }
}

/// `now`, but not before the certificate begins: a clock that was set back further than certificates are backdated is no
/// reason to take one away that clients trust, where only one of an unknown authority could take its place.
fn begun(leaf: &KeyPair, now: Timestamp) -> Timestamp {
    now.max(leaf.not_before())
}

fn text(secret: Option<&Secret>, key: &str) -> String {
    String::from_utf8_lossy(bytes(secret, key)).into_owned()
}

/// The lifetimes that what is stored was made with; those of `otherwise` where that cannot be read.
#[must_use]
pub fn lifetimes(stored: Stored<'_>, otherwise: Lifetimes) -> Lifetimes {
    let lifetime = |pair: &KeyPair| Duration::try_from(pair.not_after().duration_since(pair.made())).ok();
    Lifetimes {
        ca: read(stored.ca, CURRENT)
            .ok()
            .filter(KeyPair::is_ca)
            .and_then(|ca| lifetime(&ca))
            .unwrap_or(otherwise.ca),
        leaf: read(stored.leaf, CURRENT)
            .ok()
            .and_then(|leaf| lifetime(&leaf))
            .unwrap_or(otherwise.leaf),
    }
}

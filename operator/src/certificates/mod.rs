//! The certificates of an extension API server: a certificate authority of its own, a serving certificate under it, and
//! the bundle of authorities that its clients are told to trust.
//!
//! [`judge()`] decides from what is stored, from who knows and uses it ([`Usage`]), and from the time, what is still
//! good; [`issue()`] makes what is not. Both know a server's DNS names and nothing of what it serves.
//!
//! A rotation has no step that is stored: its position is what the certificates are. An authority with a fifth of its
//! life left gets a successor, which is in the bundle only. When every client has known that bundle for long enough, it
//! becomes the authority, and the serving certificate is made anew. When that one is served everywhere and accepted, the
//! old authority leaves the bundle.

mod authority;
mod fit;
mod given;
mod issue;
mod judge;
mod pair;
mod usage;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

pub use authority::Authority;
pub use fit::Unfit;
pub use given::{Given, given, take};
pub use issue::{IssueError, issue};
pub use judge::{Judgement, Stored, judge, lifetimes};
pub use pair::{KeyPair, PairError};
pub use usage::{Observations, Usage};

/// Entry of the authority's Secret with every authority that is trusted, PEM.
pub const BUNDLE: &str = "ca.crt";
/// Entries of the authority's Secret with its successor, while that is only trusted.
pub const NEXT: (&str, &str) = ("next.crt", "next.key");
/// Entries of the serving certificate's Secret with the one of the authority before, until the new one has been accepted.
pub const PREVIOUS: (&str, &str) = ("previous.crt", "previous.key");

/// How far back a new certificate starts, for clocks that are behind.
pub(crate) const BACKDATE: Duration = Duration::from_mins(5);
/// A certificate with less than this left is late, however long it lives: others renew by days, not by parts.
const LATE_AT_MOST: SignedDuration = SignedDuration::from_hours(14 * 24);

/// How much of a lifetime is left when its renewal is late: half of what is left when it is due.
#[must_use]
pub(crate) fn late(lifetime: SignedDuration) -> SignedDuration {
    (lifetime / 6).min(LATE_AT_MOST)
}

/// What the certificates are for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Common name of the serving certificate, and prefix of the authority's.
    pub name: String,
    /// DNS names of the serving certificate, the one that kube-apiserver uses first.
    pub dns_names: Vec<String>,
}

/// How long certificates live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// The authority.
    pub ca: Duration,
    /// The serving certificate; never longer than its authority.
    pub leaf: Duration,
}

/// A complete set of certificates.
#[derive(Clone, Debug, PartialEq)]
pub struct Certificates {
    /// The authority that signs; `None` where somebody else keeps it.
    pub ca: Option<KeyPair>,
    /// Its successor, which is only trusted.
    pub next: Option<KeyPair>,
    /// Somebody else's authorities.
    pub given: Vec<Authority>,
    /// The authorities before, while they are still trusted.
    pub retired: Vec<Authority>,
    /// The serving certificate.
    pub leaf: KeyPair,
    /// The serving certificate of the authority before, until the new one has been accepted.
    pub previous: Option<KeyPair>,
}

impl Certificates {
    /// Every authority that is trusted, PEM.
    #[must_use]
    pub fn bundle(&self) -> String {
        let own = self.ca.iter().chain(&self.next).map(Authority::from);
        let others = self.given.iter().chain(&self.retired);
        authority::bundle(own.chain(others.cloned()))
    }

    /// Whether one authority is taking over from another.
    #[must_use]
    pub fn rotates(&self) -> bool {
        self.next.is_some() || !self.retired.is_empty()
    }

    /// When the next of them is to be renewed; never where somebody else does.
    #[must_use]
    pub fn renew_at(&self) -> Option<Timestamp> {
        let ca = self.ca.as_ref()?;
        let leaf = self.leaf.renew_at();
        Some(if self.next.is_some() {
            leaf
        } else {
            leaf.min(ca.renew_at())
        })
    }
}

#[cfg(test)]
mod life_tests;
#[cfg(test)]
mod tests;

//! The certificates of an extension API server: a certificate authority of its own and a serving certificate under it.
//!
//! [`judge()`] decides from what is stored and the time what is still good; [`issue()`] makes what is not. Both know a
//! server's DNS names and nothing of what it serves.

mod authority;
mod issue;
mod judge;
mod pair;

use std::time::Duration;

use jiff::Timestamp;

pub use authority::{Authority, BUNDLE};
pub use issue::{IssueError, issue};
pub use judge::{Judgement, Unfit, judge, lifetimes};
pub use pair::{KeyPair, PairError};

/// How far back a new certificate starts, for clocks that are behind.
const BACKDATE: Duration = Duration::from_mins(5);

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
    /// The authority.
    pub ca: KeyPair,
    /// The authority before, while it is still trusted.
    pub previous: Option<Authority>,
    /// The serving certificate.
    pub leaf: KeyPair,
}

impl Certificates {
    /// Every authority that is trusted, PEM, the current one first.
    #[must_use]
    pub fn bundle(&self) -> String {
        let previous = self.previous.as_ref().map_or("", Authority::pem);
        format!("{}{previous}", self.ca.certificate_pem())
    }

    /// When the next of them is to be renewed.
    #[must_use]
    pub fn renew_at(&self) -> Timestamp {
        self.ca.renew_at().min(self.leaf.renew_at())
    }
}

#[cfg(test)]
mod tests;

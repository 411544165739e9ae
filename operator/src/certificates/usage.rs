//! Who knows and uses the certificates, and since when.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Authority, KeyPair, authority};

/// How long nothing is tried again after a client refused a new serving certificate.
const REFUSED: Duration = Duration::from_mins(5);

/// Who knows and uses what is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The authorities that clients are told to trust, PEM. Empty while there are no clients.
    pub published: String,
    /// Those that every client has been known to trust for long enough.
    pub settled: Vec<Authority>,
    /// The serving certificate that every server has been seen to serve, and every client to accept, for long enough.
    /// DER.
    pub confirmed: Option<Vec<u8>>,
    /// Whether a client has refused a serving certificate not long ago.
    pub refused: bool,
}

impl Usage {
    /// Whether a certificate of this authority can be served.
    pub(super) fn knows(&self, ca: &KeyPair) -> bool {
        self.published.is_empty() || self.settled.iter().any(|authority| authority.is_of(ca))
    }

    /// Whether nothing else is served any more.
    pub(super) fn confirms(&self, leaf: &KeyPair) -> bool {
        self.confirmed.as_deref() == Some(leaf.certificate())
    }
}

/// What has been seen of clients and servers, and since when. It is lost with the process, which only means to wait again.
#[derive(Clone, Debug, Default)]
pub struct Observations {
    /// The bundle that every client was found to have.
    acknowledged: Option<(String, Instant)>,
    /// The serving certificate that every server was found to serve, DER.
    served: Option<(Vec<u8>, Instant)>,
    /// When a client last refused.
    refused: Option<Instant>,
}

impl Observations {
    /// Whether it is known already that every client has this bundle.
    #[must_use]
    pub fn has(&self, bundle: &str) -> bool {
        self.acknowledged
            .as_ref()
            .is_some_and(|(known, _)| known == bundle)
    }

    /// Every client has this bundle; or, with `None`, that is not known.
    pub fn acknowledged(&mut self, bundle: Option<String>, now: Instant) {
        match bundle {
            Some(bundle) if self.has(&bundle) => {}
            bundle => self.acknowledged = bundle.map(|bundle| (bundle, now)),
        }
    }

    /// Every server serves this certificate, and every client accepts it; or, with `None`, that is not so.
    pub fn served(&mut self, certificate: Option<&[u8]>, now: Instant) {
        let known = self.served.as_ref().map(|(known, _)| known.as_slice());
        if known != certificate {
            self.served = certificate.map(|certificate| (certificate.to_vec(), now));
        }
    }

    /// A client refuses what is served.
    pub fn refused(&mut self, now: Instant) {
        self.refused = Some(now);
        // They are asked again.
        self.acknowledged = None;
    }

    /// What follows from it, where each state must have lasted for `minimum_age`. `time` is the wall clock's.
    #[must_use]
    pub fn usage(&self, published: String, minimum_age: Duration, now: Instant, time: Timestamp) -> Usage {
        let lasts = |since: Instant| now.duration_since(since) >= minimum_age;
        let refused = self
            .refused
            .is_some_and(|since| now.duration_since(since) < REFUSED);
        let settled = self.acknowledged.as_ref();
        let settled = settled.filter(|(_, since)| lasts(*since) && !refused);
        let served = self.served.as_ref().filter(|(_, since)| lasts(*since));
        Usage {
            published,
            settled: settled.map_or_else(Vec::new, |(bundle, _)| authority::read(bundle, time)),
            confirmed: served.map(|(certificate, _)| certificate.clone()),
            refused,
        }
    }
}

//! Authorities that are trusted: while one takes over from another, servers still show certificates of the old one, until
//! they have been brought the new ones.

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::KeyPair;
use super::pair::Facts;

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// A certificate authority without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    pem: String,
    certificate: CertificateDer<'static>,
    facts: Facts,
}

impl Authority {
    /// When it expires.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.facts.not_after
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    pub(super) fn is_of(&self, pair: &KeyPair) -> bool {
        self.certificate == *pair.certificate()
    }

    fn parse(pem: &str) -> Option<Self> {
        let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let facts = Facts::read(&certificate).ok()?;
        Some(Self {
            pem: format!("{}\n", pem.trim()),
            certificate,
            facts,
        })
    }
}

impl From<&KeyPair> for Authority {
    fn from(pair: &KeyPair) -> Self {
        Self {
            pem: format!("{}\n", pair.certificate_pem().trim()),
            certificate: pair.certificate().clone(),
            facts: pair.facts(),
        }
    }
}

/// The authorities in `bundles` that have not expired, each once. Anything else in there is ignored.
pub(super) fn read(bundles: &str, now: Timestamp) -> Vec<Authority> {
    let mut found: Vec<Authority> = Vec::new();
    for part in bundles.split_inclusive(END) {
        let authority = part
            .find(BEGIN)
            .and_then(|start| Authority::parse(part.get(start..)?));
        if let Some(authority) = authority
            && authority.facts.is_ca
            && now < authority.facts.not_after
            && !found.contains(&authority)
        {
            found.push(authority);
        }
    }
    found
}

/// A bundle, PEM: in an order that follows from what is in it, so that it is never written because of that.
pub(super) fn bundle(authorities: impl IntoIterator<Item = Authority>) -> String {
    let mut authorities: Vec<_> = authorities.into_iter().collect();
    authorities.sort_by(|a, b| {
        let key = |authority: &Authority| (authority.facts.not_before, authority.certificate.to_vec());
        key(a).cmp(&key(b))
    });
    authorities.dedup();
    authorities.into_iter().map(|authority| authority.pem).collect()
}

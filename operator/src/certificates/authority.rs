//! Authorities that are trusted besides the current one: while one takes over from another, servers still show
//! certificates of the old one, until they have been brought the new ones.

use std::time::Duration;

use jiff::Timestamp;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::pair::Facts;

/// Entry of the authority's Secret with every authority that is trusted, PEM, the current one first.
pub const BUNDLE: &str = "ca.crt";
/// How long a new authority is only trusted before a serving certificate is made with it: kube-apiservers need time to
/// see the new bundle.
pub(super) const SETTLE: Duration = Duration::from_mins(1);
/// How long a new authority shares the trust with the one before. kubelet brings Pods a new certificate within two
/// minutes; this is for a node that was away.
pub(super) const OVERLAP: Duration = Duration::from_hours(24);

const END: &str = "-----END CERTIFICATE-----";

/// A certificate authority without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    pem: String,
    certificate: CertificateDer<'static>,
    facts: Facts,
}

impl Authority {
    /// PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    pub(super) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
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

/// The newest authority in `bundles` that is still valid, besides `current`. Anything else in there is ignored.
pub(super) fn newest(
    bundles: &str,
    current: Option<&CertificateDer<'_>>,
    now: Timestamp,
) -> Option<Authority> {
    bundles
        .split_inclusive(END)
        .filter_map(|part| Authority::parse(part.get(part.find("-----BEGIN CERTIFICATE-----")?..)?))
        .filter(|authority| authority.facts.is_ca && now < authority.facts.not_after)
        .filter(|authority| current != Some(&authority.certificate))
        .max_by_key(|authority| authority.facts.not_before)
}

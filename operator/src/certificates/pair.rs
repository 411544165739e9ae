//! A certificate with its private key.

use std::fmt;

use jiff::Timestamp;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::BACKDATE;

/// A certificate and its private key, which belong together. Its `Debug` does not show the key.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPair {
    certificate_pem: String,
    key_pem: String,
    certificate: CertificateDer<'static>,
    intermediates: Vec<CertificateDer<'static>>,
    facts: Facts,
}

/// What a certificate says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) is_ca: bool,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

impl Facts {
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Result<Self, PairError> {
        let (_, x509) = X509Certificate::from_der(certificate).map_err(|_| PairError::Certificate)?;
        let second = |time: &x509_parser::time::ASN1Time| {
            Timestamp::from_second(time.timestamp()).map_err(|_| PairError::Certificate)
        };
        Ok(Self {
            is_ca: x509.is_ca(),
            not_before: second(&x509.validity().not_before)?,
            not_after: second(&x509.validity().not_after)?,
        })
    }
}

/// Why bytes are no certificate with its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PairError {
    /// No PEM certificate.
    #[error("tls.crt is not a PEM certificate")]
    Certificate,
    /// No PEM private key.
    #[error("tls.key is not a PEM private key")]
    Key,
    /// Certificate and key are not of one pair.
    #[error("tls.key is not the key of tls.crt")]
    Mismatch,
}

impl KeyPair {
    /// Reads a PEM certificate, which those between it and an authority may follow, and its PEM key.
    pub fn parse(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self, PairError> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate_pem).collect();
        let mut chain = chain.map_err(|_| PairError::Certificate)?.into_iter();
        let certificate = chain.next().ok_or(PairError::Certificate)?;
        let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| PairError::Key)?;
        let (_, x509) = X509Certificate::from_der(&certificate).map_err(|_| PairError::Certificate)?;
        let signing_key = aws_lc_rs::sign::any_supported_type(&key).map_err(|_| PairError::Key)?;
        if signing_key.public_key().as_deref() != Some(x509.public_key().raw) {
            return Err(PairError::Mismatch);
        }
        let facts = Facts::read(&certificate)?;
        Ok(Self {
            certificate_pem: String::from_utf8(certificate_pem.to_vec())
                .map_err(|_| PairError::Certificate)?,
            key_pem: String::from_utf8(key_pem.to_vec()).map_err(|_| PairError::Key)?,
            certificate,
            intermediates: chain.collect(),
            facts,
        })
    }

    /// The certificate, PEM.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key, PEM. For the Secret only.
    #[must_use]
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The certificate, DER.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The certificates between it and an authority, DER.
    pub(super) fn intermediates(&self) -> &[CertificateDer<'static>] {
        &self.intermediates
    }

    /// Whether it may sign others.
    #[must_use]
    pub fn is_ca(&self) -> bool {
        self.facts.is_ca
    }

    /// Since when it is valid.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.facts.not_before
    }

    /// Until when it is valid.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.facts.not_after
    }

    pub(super) fn facts(&self) -> Facts {
        self.facts
    }

    /// When it was made: `BACKDATE` after its start.
    #[must_use]
    pub fn made(&self) -> Timestamp {
        self.facts
            .not_before
            .saturating_add(BACKDATE)
            .unwrap_or(Timestamp::MAX)
            .min(self.facts.not_after)
    }

    /// When it is to be renewed: with a third of its life left, an authority with a fifth; and up to a thirtieth of its
    /// life earlier, so that those of many clusters that were made together are not renewed together.
    #[must_use]
    pub fn renew_at(&self) -> Timestamp {
        let (start, end) = (self.made().as_second(), self.facts.not_after.as_second());
        let life = (end - start).max(0);
        let left = life / if self.facts.is_ca { 5 } else { 3 };
        // The end of the signature: as good as a random number, and always the same for one certificate.
        let dice = self.certificate.iter().rev().take(2);
        let dice = dice.fold(0_i64, |number, &byte| number << 8 | i64::from(byte));
        let early = i128::from(life) * i128::from(dice) / (30 << 16);
        let early = i64::try_from(early).unwrap_or_default();
        Timestamp::from_second(end - left - early).unwrap_or(self.facts.not_after)
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

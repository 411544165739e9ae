//! Makes certificates.

use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyUsagePurpose,
};

use super::{BACKDATE, Certificates, Judgement, KeyPair, Lifetimes, PairError, Server};

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The library refused.
    #[error("failed to make a certificate for {name}")]
    Make {
        /// The server's name.
        name: String,
        /// Why.
        source: rcgen::Error,
    },
    /// What was made is not usable.
    #[error("a new certificate is not usable")]
    Unusable(#[from] PairError),
}

/// Completes what `judgement` found good. Nothing is made when everything was.
pub fn issue(
    judgement: Judgement,
    server: &Server,
    lifetimes: Lifetimes,
    now: Timestamp,
) -> Result<Certificates, IssueError> {
    // Certificates count in whole seconds.
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let make_error = |source| IssueError::Make {
        name: server.name.clone(),
        source,
    };
    let authority = || -> Result<KeyPair, IssueError> {
        let made = authority(server, lifetimes.ca, now).map_err(make_error)?;
        Ok(made.parse()?)
    };
    let ca = match judgement.ca {
        Ok(ca) => ca,
        Err(_) => authority()?,
    };
    let next = match judgement.next {
        Some(Ok(next)) => Some(next),
        Some(Err(_)) => Some(authority()?),
        None => None,
    };
    let leaf = match judgement.leaf {
        Ok(leaf) => leaf,
        Err(_) => leaf(server, &ca, lifetimes.leaf, now)
            .map_err(make_error)?
            .parse()?,
    };
    Ok(Certificates {
        ca: Some(ca),
        next,
        given: Vec::new(),
        retired: judgement.retired,
        leaf,
        previous: judgement.previous,
    })
}

/// When a serving certificate made at `made` ends.
pub(super) fn end_of_leaf(made: Timestamp, lifetime: Duration, ca: &KeyPair) -> Timestamp {
    made.saturating_add(lifetime)
        .unwrap_or(Timestamp::MAX)
        .min(ca.not_after())
}

/// A certificate and its key, both PEM.
struct Pem(String, String);

impl Pem {
    fn parse(self) -> Result<KeyPair, PairError> {
        KeyPair::parse(self.0.as_bytes(), self.1.as_bytes())
    }
}

fn authority(server: &Server, lifetime: Duration, now: Timestamp) -> Result<Pem, rcgen::Error> {
    // The time makes the subject unique: two authorities of one name give misleading errors in Go.
    let name = format!("{}-ca@{}", server.name, now.as_second());
    let end = now.saturating_add(lifetime).unwrap_or(Timestamp::MAX);
    let mut params = params(&name, now, end);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = rcgen::KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Pem(certificate.pem(), key.serialize_pem()))
}

fn leaf(server: &Server, ca: &KeyPair, lifetime: Duration, now: Timestamp) -> Result<Pem, rcgen::Error> {
    let issuer = Issuer::from_ca_cert_pem(ca.certificate_pem(), rcgen::KeyPair::from_pem(ca.key_pem())?)?;
    let mut params = params(&server.name, now, end_of_leaf(now, lifetime, ca));
    params.subject_alt_names = CertificateParams::new(server.dns_names.clone())?.subject_alt_names;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    let key = rcgen::KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Pem(certificate.pem(), key.serialize_pem()))
}

fn params(common_name: &str, now: Timestamp, end: Timestamp) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, common_name);
    params.distinguished_name = subject;
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let since_epoch = |time: Timestamp| Duration::from_secs(time.as_second().try_into().unwrap_or_default());
    params.not_before = epoch + since_epoch(now.saturating_sub(BACKDATE).unwrap_or(now));
    params.not_after = epoch + since_epoch(end);
    params
}

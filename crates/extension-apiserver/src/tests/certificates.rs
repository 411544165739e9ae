//! Authorities and leaves for tests.

use std::sync::LazyLock;
use std::time::Duration;

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate authority.
pub(crate) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { pem, issuer }
    }

    /// One that is made once, for tests that run often.
    pub(crate) fn fixed() -> &'static Self {
        static FIXED: LazyLock<Authority> = LazyLock::new(|| Authority::new("fixed"));
        &FIXED
    }

    pub(crate) fn pem(&self) -> String {
        self.pem.clone()
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()
    }

    /// A leaf with that common name, good from 2020 to 2040.
    pub(crate) fn leaf(&self, name: &str) -> LeafBuilder<'_> {
        LeafBuilder {
            authority: self,
            name: name.to_owned(),
            organization: None,
            not_before: "2020-01-01T00:00:00Z".parse().unwrap(),
            not_after: "2040-01-01T00:00:00Z".parse().unwrap(),
        }
    }

    pub(crate) fn server(&self, name: &str) -> Leaf {
        self.leaf(name).server()
    }

    pub(crate) fn client(&self, name: &str) -> Leaf {
        self.leaf(name).client()
    }
}

pub(crate) struct LeafBuilder<'a> {
    authority: &'a Authority,
    name: String,
    organization: Option<String>,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl LeafBuilder<'_> {
    /// Sets the organization, which is the user's group.
    pub(crate) fn organization(self, organization: &str) -> Self {
        Self {
            organization: Some(organization.to_owned()),
            ..self
        }
    }

    pub(crate) fn begins(self, not_before: Timestamp) -> Self {
        Self { not_before, ..self }
    }

    pub(crate) fn ends(self, not_after: Timestamp) -> Self {
        Self { not_after, ..self }
    }

    pub(crate) fn server(self) -> Leaf {
        self.build(ExtendedKeyUsagePurpose::ServerAuth)
    }

    pub(crate) fn client(self) -> Leaf {
        self.build(ExtendedKeyUsagePurpose::ClientAuth)
    }

    fn build(self, usage: ExtendedKeyUsagePurpose) -> Leaf {
        let mut params = CertificateParams::new([self.name.clone()]).unwrap_or_default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, self.name);
        if let Some(organization) = self.organization {
            params
                .distinguished_name
                .push(DnType::OrganizationName, organization);
        }
        params.extended_key_usages = vec![usage];
        params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(self.not_before);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_epoch(self.not_after);
        let key = KeyPair::generate().unwrap();
        Leaf {
            certificate: params.signed_by(&key, &self.authority.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A certificate with its key.
#[derive(Clone)]
pub(crate) struct Leaf {
    certificate: String,
    key: String,
}

impl Leaf {
    pub(crate) fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    pub(crate) fn key_pem(&self) -> &str {
        &self.key
    }

    pub(crate) fn der(&self) -> Vec<u8> {
        self.chain()[0].to_vec()
    }

    pub(crate) fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()]
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

/// Since the epoch, which is what rcgen's own time type is built from.
fn since_epoch(at: Timestamp) -> Duration {
    Duration::from_secs(at.as_second().try_into().unwrap())
}

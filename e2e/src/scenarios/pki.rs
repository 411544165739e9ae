//! Certificate authorities and certificates of the scenarios.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_RSA_SHA256, SanType,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// How long certificates live: longer than any scenario.
const LIFETIME: Duration = Duration::from_hours(24);

/// A certificate with its key, or with another one.
#[derive(Debug)]
pub(super) struct Identity {
    /// The certificate.
    pub(super) certificate: CertificateDer<'static>,
    /// The private key that is used with it.
    pub(super) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// From PEM files.
    pub(super) fn from_pem(certificate: &str, key: &str) -> Result<Self> {
        Ok(Self {
            certificate: CertificateDer::from_pem_slice(certificate.as_bytes())
                .context("no certificate in PEM")?,
            key: PrivateKeyDer::from_pem_slice(key.as_bytes()).context("no private key in PEM")?,
        })
    }

    /// The same certificate with a key that is not its own, of the kind that kubeadm makes: what one has who knows only
    /// what is public.
    pub(super) fn without_its_key(&self) -> Result<Self> {
        Ok(Self {
            certificate: self.certificate.clone(),
            key: key_der(&KeyPair::generate_for(&PKCS_RSA_SHA256)?),
        })
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            certificate: self.certificate.clone(),
            key: self.key.clone_key(),
        }
    }
}

/// Somebody who signs certificates.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, PEM.
    pub(super) pem: String,
}

impl Authority {
    /// A new one.
    pub(super) fn new(common_name: &str) -> Result<Self> {
        let mut params = params(common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
        })
    }

    /// One of the cluster's.
    pub(super) fn from_pem(certificate: String, key: &str) -> Result<Self> {
        let key = KeyPair::from_pem(key).context("failed to use the authority's key")?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)
            .context("failed to use the authority's certificate")?;
        Ok(Self {
            issuer,
            pem: certificate,
        })
    }

    /// A client's certificate.
    pub(super) fn client(&self, common_name: &str) -> Result<Identity> {
        self.sign(&client_params(common_name))
    }

    /// A client's certificate and its key, PEM.
    pub(super) fn client_pem(&self, common_name: &str) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let certificate = client_params(common_name).signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// The same for so long from now on. All began an hour ago.
    pub(super) fn client_pem_for(&self, common_name: &str, time: Duration) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let mut params = client_params(common_name);
        params.not_after = (SystemTime::now() + time).into();
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// A client's certificate that was valid until an hour ago.
    pub(super) fn expired_client(&self, common_name: &str) -> Result<Identity> {
        self.sign(&expired_client_params(common_name))
    }

    /// The same and its key, PEM.
    pub(super) fn expired_client_pem(&self, common_name: &str) -> Result<(String, String)> {
        let key = KeyPair::generate()?;
        let certificate = expired_client_params(common_name).signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// A kubelet's serving certificate.
    pub(super) fn kubelet(&self, node: &str, address: IpAddr) -> Result<Identity> {
        self.sign(&kubelet_params(node, Some(address)))
    }

    /// A kubelet's serving certificate that names the node, but not the address that is dialled.
    pub(super) fn kubelet_of_another_address(&self, node: &str) -> Result<Identity> {
        self.sign(&kubelet_params(node, None))
    }

    /// A server's certificate and its key, PEM.
    pub(super) fn server(&self, name: &str) -> Result<(String, String)> {
        self.server_for(name, LIFETIME)
    }

    /// The same for so long from now on. All began an hour ago.
    pub(super) fn server_for(&self, name: &str, time: Duration) -> Result<(String, String)> {
        self.server_until(name, SystemTime::now() + time)
    }

    /// The same, and its time was over a minute ago.
    pub(super) fn expired_server(&self, name: &str) -> Result<(String, String)> {
        self.server_until(name, SystemTime::now() - Duration::from_mins(1))
    }

    fn server_until(&self, name: &str, end: SystemTime) -> Result<(String, String)> {
        let mut params = params(name);
        params.not_after = end.into();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.subject_alt_names.push(SanType::DnsName(name.try_into()?));
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    fn sign(&self, params: &CertificateParams) -> Result<Identity> {
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Identity {
            certificate: certificate.der().clone(),
            key: key_der(&key),
        })
    }
}

/// What a kubelet makes for itself when nobody gives it a certificate.
pub(super) fn self_signed_kubelet(node: &str) -> Result<Identity> {
    let key = KeyPair::generate()?;
    let certificate = kubelet_params(node, None).self_signed(&key)?;
    Ok(Identity {
        certificate: certificate.der().clone(),
        key: key_der(&key),
    })
}

fn key_der(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()))
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_hours(1)).into();
    params.not_after = (now + LIFETIME).into();
    params
}

fn client_params(common_name: &str) -> CertificateParams {
    let mut params = params(common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn expired_client_params(common_name: &str) -> CertificateParams {
    let mut params = client_params(common_name);
    let end = SystemTime::now() - Duration::from_hours(1);
    params.not_before = (end - LIFETIME).into();
    params.not_after = end.into();
    params
}

fn kubelet_params(node: &str, address: Option<IpAddr>) -> CertificateParams {
    let mut params = params(&format!("system:node:{node}"));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names.extend(address.map(SanType::IpAddress));
    if let Ok(name) = node.to_owned().try_into() {
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    params
}

//! Certificates of every kind that a kubelet can show.

use std::sync::Arc;

use metrics_api::kubelet::authority;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    SigningKey as _,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::watch;
use x509_parser::prelude::{FromDer as _, X509Certificate};

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: CertificateDer<'static>,
}

/// A certificate chain and its key.
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Vec<u8>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let (params, key) = (ca_params(name), KeyPair::generate().unwrap());
        let der = params.self_signed(&key).unwrap().der().clone();
        Self {
            issuer: Issuer::new(params, key),
            der,
        }
    }

    /// As what kubelets are verified against.
    pub(crate) fn trusted(&self) -> watch::Receiver<Arc<authority::Authority>> {
        let trusted = authority::Authority::from_der(vec![self.der.clone()], "the test").unwrap();
        watch::channel(Arc::new(trusted)).1
    }

    pub(crate) fn pem(&self) -> String {
        pem(&self.der)
    }

    /// A serving certificate for 127.0.0.1, with whatever `change` makes of it.
    pub(crate) fn leaf(&self, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf_params();
        change(&mut params);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity {
            chain: vec![certificate.der().clone()],
            key: key.serialize_der(),
        }
    }

    /// A serving certificate of an intermediate authority, which is shown with it.
    pub(crate) fn leaf_by_intermediate(&self, change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let (params, key) = (ca_params("between"), KeyPair::generate().unwrap());
        let der = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let between = Self {
            issuer: Issuer::new(params, key),
            der,
        };
        let mut identity = between.leaf(change);
        identity.chain.push(between.der);
        identity
    }
}

impl Identity {
    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone().into())
    }

    /// The same as X.509 v1 has it: no version, no extensions, and so no name of a host. No library writes it any more;
    /// tools that predate this century do.
    pub(crate) fn as_version_1(&self) -> Self {
        const ECDSA_WITH_SHA256: [u8; 12] = [0x30, 0x0a, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
        fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
            let length = u16::try_from(content.len()).unwrap().to_be_bytes();
            [&[tag, 0x82][..], &length, content].concat()
        }
        let (_, v3) = X509Certificate::from_der(&self.chain[0]).unwrap();
        let times = [b"200101000000Z", b"400101000000Z"]
            .map(|time| tlv(0x17, time))
            .concat();
        let parts: [&[u8]; 6] = [
            &tlv(2, &[1]),
            &ECDSA_WITH_SHA256,
            v3.issuer().as_raw(),
            &tlv(0x30, &times),
            v3.subject().as_raw(),
            v3.public_key().raw,
        ];
        let signed = tlv(0x30, &parts.concat());
        let key = KeyPair::try_from(self.key.as_slice()).unwrap();
        let signature = [&[0][..], &key.sign(&signed).unwrap()].concat();
        let whole = [&signed[..], &ECDSA_WITH_SHA256, &tlv(3, &signature)].concat();
        Self {
            chain: vec![tlv(0x30, &whole).into()],
            key: self.key.clone(),
        }
    }

    /// The same key in another certificate, which a kubelet writes after its own has run out.
    pub(crate) fn renewed(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::try_from(self.key.as_slice()).unwrap();
        let mut params = leaf_params();
        change(&mut params);
        Self {
            chain: vec![params.self_signed(&key).unwrap().der().clone()],
            key: self.key.clone(),
        }
    }
}

/// As kubeadm's kubelets make them: nobody else has signed it.
pub(crate) fn self_signed(change: impl FnOnce(&mut CertificateParams)) -> Identity {
    let key = KeyPair::generate().unwrap();
    Identity {
        chain: Vec::new(),
        key: key.serialize_der(),
    }
    .renewed(change)
}

pub(crate) fn expired(params: &mut CertificateParams) {
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
}

pub(crate) fn for_a_name(params: &mut CertificateParams) {
    params.subject_alt_names = vec![SanType::DnsName("node-a".try_into().unwrap())];
}

pub(crate) fn for_clients(params: &mut CertificateParams) {
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
}

pub(crate) fn as_authority(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}

pub(crate) fn pem(der: &CertificateDer<'_>) -> String {
    encode("CERTIFICATE", der)
}

pub(crate) fn key_pem(identity: &Identity) -> String {
    encode("PRIVATE KEY", &identity.key)
}

fn encode(label: &str, der: &[u8]) -> String {
    use std::fmt::Write as _;
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = format!("-----BEGIN {label}-----\n");
    let mut line = 0;
    for chunk in der.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let sextet = (bits >> (18 - 6 * place)) & 63;
            let sign = if place > chunk.len() {
                '='
            } else {
                char::from(ALPHABET[sextet as usize])
            };
            write!(text, "{sign}").unwrap();
        }
        line += 4;
        if line % 64 == 0 {
            text.push('\n');
        }
    }
    text + &format!("\n-----END {label}-----\n")
}

fn leaf_params() -> CertificateParams {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params
        .distinguished_name
        .push(DnType::CommonName, "system:node:node-a");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
}

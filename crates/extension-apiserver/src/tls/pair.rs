//! From PEM files to a certificate that can be served.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use sha2::{Digest as _, Sha256};

/// A chain with a key takes a few kilobytes; what is larger is not one.
const LARGEST_FILE: u64 = 1024 * 1024;

/// Why a certificate and its key cannot be served. Never holds anything of a key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("failed to read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is far larger than a certificate or key.
    #[error("{path:?} is larger than {LARGEST_FILE} bytes, which no certificate or key is")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The certificate file holds no usable chain.
    #[error("{path:?} does not hold a certificate chain in PEM form, leaf first: {found}")]
    Certificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        found: String,
    },
    /// The key file holds no usable key.
    #[error(
        "{path:?} does not hold an unencrypted private key in PEM form (PKCS#8, PKCS#1 or SEC1) that TLS can use"
    )]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The two files do not belong together.
    #[error("the private key in {key:?} is not that of the certificate in {certificate:?}")]
    Mismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },
    /// The certificate is over.
    #[error("the certificate in {path:?} expired at {not_after}")]
    Expired {
        /// The certificate file.
        path: PathBuf,
        /// When.
        not_after: Timestamp,
    },
    /// The certificate is not good yet.
    #[error("the certificate in {path:?} is good only from {not_before} on")]
    NotYetValid {
        /// The certificate file.
        path: PathBuf,
        /// From when on.
        not_before: Timestamp,
    },
    /// A self-signed pair cannot be made or stored.
    #[error(
        "failed to make a self-signed certificate in {path:?}: the directory must be writable, or name files instead"
    )]
    SelfSigned {
        /// Directory or file.
        path: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The bytes of both files.
pub(crate) struct PairBytes {
    pub(crate) certificate: Vec<u8>,
    pub(crate) key: Vec<u8>,
}

impl PairBytes {
    /// Reads both files. A mounted Secret changes by the swap of a symlink, which may happen between two reads: then
    /// they are read again.
    pub(super) fn read(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let mut first = read(certificate)?;
        loop {
            let key = read(key)?;
            let again = read(certificate)?;
            if again == first {
                return Ok(Self {
                    certificate: first,
                    key,
                });
            }
            first = again;
        }
    }

    /// Tells contents apart, without keeping them.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update((self.certificate.len() as u64).to_be_bytes());
        hash.update(&self.certificate);
        hash.update(&self.key);
        hash.finalize().into()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST_FILE + 1).read_to_end(&mut bytes))
        .map_err(|source| CertificateError::Read {
            path: path.to_owned(),
            source,
        })?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(CertificateError::TooLarge {
            path: path.to_owned(),
        });
    }
    Ok(bytes)
}

/// A certificate with its key, and how long it is good.
#[derive(Debug)]
pub(crate) struct Pair {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) not_before: Timestamp,
    pub(super) not_after: Timestamp,
}

impl Pair {
    /// Makes a servable pair of what the two files hold. The paths are for errors.
    pub(crate) fn parse(bytes: &PairBytes, certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let refuse = |found: String| CertificateError::Certificate {
            path: certificate.to_owned(),
            found,
        };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&bytes.certificate)
            .collect::<Result<_, _>>()
            // The error may quote a line, and somebody may have put the key into this file.
            .map_err(|_| refuse("its PEM is broken".to_owned()))?;
        let leaf = chain
            .first()
            .ok_or_else(|| refuse("there is none in it".to_owned()))?;
        let (not_before, not_after) =
            validity(leaf).ok_or_else(|| refuse("the first one cannot be decoded".to_owned()))?;

        let unusable = || CertificateError::Key { path: key.to_owned() };
        let private = PrivateKeyDer::from_pem_slice(&bytes.key).map_err(|_| unusable())?;
        let certified =
            CertifiedKey::from_der(chain, private, &super::provider()).map_err(|error| match error {
                rustls::Error::InconsistentKeys(_) => CertificateError::Mismatch {
                    certificate: certificate.to_owned(),
                    key: key.to_owned(),
                },
                rustls::Error::InvalidCertificate(error) => refuse(format!("{error:?}")),
                _ => unusable(),
            })?;
        Ok(Self {
            key: Arc::new(certified),
            not_before,
            not_after,
        })
    }
}

/// From when until when a certificate is good.
fn validity(der: &CertificateDer<'_>) -> Option<(Timestamp, Timestamp)> {
    let (_, parsed) = x509_parser::parse_x509_certificate(der).ok()?;
    let validity = parsed.validity();
    Some((
        Timestamp::from_second(validity.not_before.timestamp()).ok()?,
        Timestamp::from_second(validity.not_after.timestamp()).ok()?,
    ))
}

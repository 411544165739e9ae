//! The client certificate that kubelets are shown instead of a token, or beside it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use k8s_openapi::ByteString;
use rustls::{
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use tokio::sync::watch;

/// How often the files are compared with what was read last.
const RELOAD: Duration = Duration::from_mins(1);

/// A certificate of our own, with its key.
#[derive(Debug)]
pub struct ClientCertificate {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Key of the leaf.
    pub key: PrivateKeyDer<'static>,
}

/// Why there is no client certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("failed to read {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no certificate in what was read.
    #[error("expected PEM certificates, leaf first, in {0}")]
    Certificate(String),
    /// There is no key in what was read.
    #[error("expected a PEM private key in {0}")]
    Key(String),
    /// They are not a pair.
    #[error("the certificate in {certificate} and the key in {key} do not belong together: {source}")]
    Pair {
        /// Where the certificate is.
        certificate: String,
        /// Where the key is.
        key: String,
        /// Why.
        source: rustls::Error,
    },
}

/// What was read, and how to name where.
struct Pem<'a> {
    bytes: &'a [u8],
    place: String,
}

impl ClientCertificate {
    fn from_pem(
        certificate: &Pem<'_>,
        key: &Pem<'_>,
        provider: &CryptoProvider,
    ) -> Result<Self, IdentityError> {
        let chain = CertificateDer::pem_slice_iter(certificate.bytes)
            .collect::<Result<Vec<_>, _>>()
            .ok()
            .filter(|chain| !chain.is_empty())
            .ok_or_else(|| IdentityError::Certificate(certificate.place.clone()))?;
        let private =
            PrivateKeyDer::from_pem_slice(key.bytes).map_err(|_| IdentityError::Key(key.place.clone()))?;
        CertifiedKey::from_der(chain.clone(), private.clone_key(), provider).map_err(|source| {
            IdentityError::Pair {
                certificate: certificate.place.clone(),
                key: key.place.clone(),
                source,
            }
        })?;
        Ok(Self { chain, key: private })
    }
}

/// Reads the pair of a kubeconfig, which holds PEM as base64.
pub fn from_base64(
    certificate: &str,
    key: &str,
    provider: &CryptoProvider,
) -> Result<ClientCertificate, IdentityError> {
    let decode = |text: &str| {
        let text = serde_json::Value::from(text);
        serde_json::from_value::<ByteString>(text).map(|decoded| decoded.0)
    };
    let places = ["client-certificate-data", "client-key-data"].map(str::to_owned);
    let [certificate_place, key_place] = places;
    let certificate =
        decode(certificate).map_err(|_| IdentityError::Certificate(certificate_place.clone()))?;
    let key = decode(key).map_err(|_| IdentityError::Key(key_place.clone()))?;
    let certificate = Pem {
        bytes: &certificate,
        place: certificate_place,
    };
    let key = Pem {
        bytes: &key,
        place: key_place,
    };
    ClientCertificate::from_pem(&certificate, &key, provider)
}

/// Reads the files and keeps reading them. What is there at the start must be usable; later only what is usable
/// replaces what was read before, so that a pair of which one half is new already waits for the other. The task ends
/// when nobody listens any more.
pub async fn watch_files(
    certificate: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
) -> Result<watch::Receiver<Arc<ClientCertificate>>, IdentityError> {
    let mut last = read(&certificate, &key).await?;
    let parse = move |read: &(Vec<u8>, Vec<u8>), certificate: &PathBuf, key: &PathBuf| {
        let pem = |bytes, path: &PathBuf| Pem {
            bytes,
            place: path.display().to_string(),
        };
        ClientCertificate::from_pem(&pem(&read.0, certificate), &pem(&read.1, key), &provider)
    };
    let (sender, receiver) = watch::channel(Arc::new(parse(&last, &certificate, &key)?));
    tokio::spawn(async move {
        let mut failing = false;
        while tokio::time::timeout(RELOAD, sender.closed()).await.is_err() {
            let loaded = match read(&certificate, &key).await {
                Ok(same) if same == last => {
                    failing = false;
                    continue;
                }
                Ok(other) => parse(&other, &certificate, &key).map(|parsed| (parsed, other)),
                Err(error) => Err(error),
            };
            match loaded {
                Ok((identity, read)) => {
                    tracing::info!(file = ?certificate, "read a changed client certificate for kubelets");
                    (failing, last) = (false, read);
                    sender.send_replace(Arc::new(identity));
                }
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(%error, "keeping the client certificate for kubelets that was read before");
                }
                Err(_) => {}
            }
        }
    });
    Ok(receiver)
}

async fn read(certificate: &PathBuf, key: &PathBuf) -> Result<(Vec<u8>, Vec<u8>), IdentityError> {
    let read = async |path: &PathBuf| {
        tokio::fs::read(path).await.map_err(|source| IdentityError::Read {
            path: path.clone(),
            source,
        })
    };
    Ok((read(certificate).await?, read(key).await?))
}

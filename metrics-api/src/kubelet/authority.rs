//! The certificates that a kubelet's serving certificate may chain to, and whether it does.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rustls::{
    RootCertStore,
    crypto::WebPkiSupportedAlgorithms,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::sync::watch;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How often a file with certificates is compared with what was read last. Mounted files change by a symlink swap
/// up to a minute late as it is.
const RELOAD: Duration = Duration::from_mins(1);
/// Longest chain that is followed.
const DEPTH: usize = 6;

/// Trusted certificates.
#[derive(Debug)]
pub struct Authority {
    /// For verification.
    pub roots: Arc<RootCertStore>,
    certificates: Vec<CertificateDer<'static>>,
}

/// Why there are no trusted certificates.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuthorityError {
    /// The file cannot be read.
    #[error("failed to read the certificate authorities of kubelets from {path:?}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no certificate in what was read.
    #[error("expected PEM certificates as authorities of kubelets in {place}: {reason}")]
    Pem {
        /// Where it was read.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Authority {
    /// Reads a PEM bundle. `place` is for the error.
    pub fn from_pem(pem: &[u8], place: &str) -> Result<Self, AuthorityError> {
        let refuse = |reason: String| AuthorityError::Pem {
            place: place.to_owned(),
            reason,
        };
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let certificates = certificates.map_err(|error| refuse(error.to_string()))?;
        Self::from_der(certificates, place)
    }

    /// Takes certificates as they are.
    pub fn from_der(certificates: Vec<CertificateDer<'static>>, place: &str) -> Result<Self, AuthorityError> {
        let mut roots = RootCertStore::empty();
        let (taken, _) = roots.add_parsable_certificates(certificates.iter().cloned());
        if taken == 0 {
            let reason = "found none that can be used".to_owned();
            return Err(AuthorityError::Pem {
                place: place.to_owned(),
                reason,
            });
        }
        Ok(Self {
            roots: Arc::new(roots),
            certificates,
        })
    }

    /// Whether `leaf` was signed, by way of `intermediates` or directly, by one of these certificates; whatever
    /// its dates, names and usage are. Verification proper answers "no" before it has looked at the issuer when the
    /// dates are wrong, and an expired certificate of a stranger must not be mixed up with one of ours.
    #[must_use]
    pub fn issued(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> bool {
        let parse = |der| {
            X509Certificate::from_der(der)
                .ok()
                .map(|(_, certificate)| certificate)
        };
        let roots: Vec<_> = self.certificates.iter().filter_map(|der| parse(der)).collect();
        let between: Vec<_> = intermediates
            .iter()
            .take(DEPTH)
            .filter_map(|der| parse(der))
            .collect();
        let Some(leaf) = parse(leaf) else { return false };
        let mut reached = vec![&leaf];
        for _ in 0..DEPTH {
            if reached
                .iter()
                .any(|child| roots.iter().any(|root| signed(child, root, algorithms)))
            {
                return true;
            }
            let is_parent =
                |parent: &&X509Certificate<'_>| reached.iter().any(|child| signed(child, parent, algorithms));
            reached = between.iter().filter(is_parent).collect();
        }
        false
    }
}

fn signed(
    child: &X509Certificate<'_>,
    parent: &X509Certificate<'_>,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let (key, signature) = (&parent.public_key().subject_public_key, &child.signature_value);
    child.issuer().as_raw() == parent.subject().as_raw()
        && algorithms.all.iter().any(|algorithm| {
            algorithm
                .verify_signature(&key.data, child.tbs_certificate.as_ref(), &signature.data)
                .is_ok()
        })
}

/// Reads the file and keeps reading it. What is there at the start must be usable; later only what is usable
/// replaces what was read before. The task ends when nobody listens any more.
pub async fn watch_file(path: PathBuf) -> Result<watch::Receiver<Arc<Authority>>, AuthorityError> {
    let read = |path: PathBuf| async move {
        tokio::fs::read(&path)
            .await
            .map_err(|source| AuthorityError::Read { path, source })
    };
    let place = path.display().to_string();
    let mut last = read(path.clone()).await?;
    let (sender, receiver) = watch::channel(Arc::new(Authority::from_pem(&last, &place)?));
    tokio::spawn(async move {
        let mut failing = false;
        while tokio::time::timeout(RELOAD, sender.closed()).await.is_err() {
            let loaded = match read(path.clone()).await {
                Ok(pem) if pem == last => {
                    failing = false;
                    continue;
                }
                Ok(pem) => {
                    let parsed = Authority::from_pem(&pem, &place);
                    last = pem;
                    parsed
                }
                Err(error) => Err(error),
            };
            match loaded {
                Ok(authority) => {
                    tracing::info!(file = ?path, "read changed certificate authorities of kubelets");
                    failing = false;
                    sender.send_replace(Arc::new(authority));
                }
                Err(error) if !failing => {
                    failing = true;
                    tracing::warn!(%error, "keeping the certificate authorities of kubelets that were read before");
                }
                Err(_) => {}
            }
        }
    });
    Ok(receiver)
}

//! The serving certificate, read again when its content changes.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::sign::CertifiedKey;
use tokio::sync::watch;

use super::pair::{CertificateError, Pair, PairBytes};
use super::self_signed;
use crate::metrics::Metrics;
use crate::options::ServingCertificate;

/// How often the files are read. Content is compared, not watched: a mounted Secret changes by a symlink swap that
/// file watches miss.
const INTERVAL: Duration = Duration::from_secs(5);

/// The files of the serving certificate, and what was last seen in them.
pub(crate) struct Serving {
    certificate: PathBuf,
    key: PathBuf,
    /// Directory of a self-signed pair.
    self_signed: Option<PathBuf>,
    /// Whether the pair now served was made here: only then is it renewed.
    own: bool,
    seen: [u8; 32],
    refused: Option<String>,
    current: watch::Sender<Arc<Pair>>,
}

impl Serving {
    /// Loads the certificate; makes a self-signed one if that is what `source` says and none is there.
    pub(crate) fn load(source: &ServingCertificate, now: Timestamp) -> Result<Self, CertificateError> {
        let (certificate, key, self_signed) = match source {
            ServingCertificate::Files { certificate, key } => (certificate.clone(), key.clone(), None),
            ServingCertificate::SelfSigned { directory } => {
                let (certificate, key) = self_signed::paths(directory);
                (certificate, key, Some(directory.clone()))
            }
        };
        if let Some(directory) = &self_signed
            && is_to_be_made(&certificate, &key)
        {
            self_signed::generate(directory, now)?;
        }
        let bytes = PairBytes::read(&certificate, &key)?;
        let pair = Pair::parse(&bytes, &certificate, &key)?;
        let own = self_signed::is_own(&bytes.certificate);
        if pair.not_after <= now && !(own && self_signed.is_some()) {
            tracing::warn!(path = ?certificate, not_after = %pair.not_after, "the serving certificate has expired: \
                 clients will refuse it until it is replaced");
        } else if pair.not_before > now {
            tracing::warn!(path = ?certificate, not_before = %pair.not_before, "the serving certificate is not valid \
                 yet: clients will refuse it until then, or a clock is wrong");
        }
        let mut serving = Self {
            certificate,
            key,
            self_signed,
            own,
            seen: bytes.digest(),
            refused: None,
            current: watch::Sender::new(Arc::new(pair)),
        };
        // A self-signed pair of an earlier run may be near its end.
        serving.renew(now)?;
        serving.take_over(now)?;
        Ok(serving)
    }

    /// What handshakes take the certificate from.
    pub(super) fn current(&self) -> Current {
        Current(self.current.subscribe())
    }

    /// When the certificate now served ends.
    pub(crate) fn not_after(&self) -> Timestamp {
        self.current.borrow().not_after
    }

    /// Reads the files again and again. A pair that cannot be served is refused, and the one before stays.
    /// `metrics` are told when the certificate ends, of one of several only of the first.
    pub(crate) async fn keep_fresh(mut self, metrics: Arc<Metrics>, first: bool) {
        loop {
            if first {
                metrics.serving_certificate(self.not_after());
            }
            tokio::time::sleep(INTERVAL).await;
            let checked = tokio::task::spawn_blocking(move || {
                let outcome = self.check(Timestamp::now());
                (self, outcome)
            });
            let Ok((serving, outcome)) = checked.await else {
                tracing::error!("reading the serving certificate panicked: it is not renewed any more");
                return;
            };
            self = serving;
            match outcome {
                Ok(false) => {}
                Ok(true) => metrics.reloads(true),
                Err(_) => metrics.reloads(false),
            }
        }
    }

    /// Reads the files once, and takes over what is new and good. `Ok(true)` if something was. Each distinct cause
    /// of a refusal is logged once.
    pub(super) fn check(&mut self, now: Timestamp) -> Result<bool, CertificateError> {
        // What can be taken over is, also if renewing fails.
        let renewed = self.renew(now);
        let outcome = self.take_over(now);
        let outcome = renewed.and(outcome);
        match &outcome {
            Ok(true) => {
                tracing::info!(path = ?self.certificate, not_after = %self.not_after(), "serving a new certificate");
                self.refused = None;
            }
            Ok(false) => self.refused = None,
            Err(error) => {
                let cause = crate::error_chain(error);
                if self.refused.as_ref() != Some(&cause) {
                    tracing::error!(error = %cause, not_after = %self.not_after(), "the new serving certificate is \
                         refused, the one before is still served");
                    self.refused = Some(cause);
                }
            }
        }
        outcome
    }

    fn take_over(&mut self, now: Timestamp) -> Result<bool, CertificateError> {
        let bytes = PairBytes::read(&self.certificate, &self.key)?;
        let digest = bytes.digest();
        if digest == self.seen {
            return Ok(false);
        }
        let pair = Pair::parse(&bytes, &self.certificate, &self.key)?;
        if pair.not_after <= now {
            return Err(CertificateError::Expired {
                path: self.certificate.clone(),
                not_after: pair.not_after,
            });
        }
        if pair.not_before > now && self.is_valid(now) {
            return Err(CertificateError::NotYetValid {
                path: self.certificate.clone(),
                not_before: pair.not_before,
            });
        }
        self.own = self_signed::is_own(&bytes.certificate);
        self.seen = digest;
        self.current.send_replace(Arc::new(pair));
        Ok(true)
    }

    fn is_valid(&self, now: Timestamp) -> bool {
        let current = self.current.borrow();
        (current.not_before..current.not_after).contains(&now)
    }

    /// Renews a pair made here with a third of its life left.
    fn renew(&self, now: Timestamp) -> Result<(), CertificateError> {
        let Some(directory) = self.self_signed.as_ref().filter(|_| self.own) else {
            return Ok(());
        };
        let (from, until) = {
            let current = self.current.borrow();
            (current.not_before, current.not_after)
        };
        if until.duration_since(now) > until.duration_since(from) / 3 {
            return Ok(());
        }
        // Somebody may have put a pair of their own there since it was last read.
        let bytes = PairBytes::read(&self.certificate, &self.key)?;
        if bytes.digest() == self.seen {
            self_signed::generate(directory, now)?;
        }
        Ok(())
    }
}

/// Whether the directory of a self-signed pair has none: there is nothing in it, or half of what was made here.
fn is_to_be_made(certificate: &Path, key: &Path) -> bool {
    if !certificate.exists() {
        return !key.exists();
    }
    if key.exists() {
        return PairBytes::read(certificate, key).is_ok_and(|bytes| {
            let pair = Pair::parse(&bytes, certificate, key);
            matches!(pair, Err(CertificateError::Mismatch { .. })) && self_signed::is_own(&bytes.certificate)
        });
    }
    std::fs::read(certificate).is_ok_and(|bytes| self_signed::is_own(&bytes))
}

impl fmt::Debug for Serving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serving")
            .field("certificate", &self.certificate)
            .finish_non_exhaustive()
    }
}

/// Gives each handshake the pair of that moment.
#[derive(Debug)]
pub(super) struct Current(watch::Receiver<Arc<Pair>>);

impl Current {
    /// The pair of this moment.
    pub(super) fn now(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.borrow().key)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    use std::path::Path;

    use jiff::ToSpan as _;

    use super::*;
    use crate::tests::certificates::{Authority, Leaf};

    fn now() -> Timestamp {
        "2026-11-24T12:00:00Z".parse().unwrap()
    }

    fn store(directory: &Path, leaf: &Leaf) {
        fs::create_dir_all(directory).unwrap();
        fs::write(directory.join("tls.crt"), leaf.certificate_pem()).unwrap();
        fs::write(directory.join("tls.key"), leaf.key_pem()).unwrap();
    }

    fn files(directory: &Path) -> ServingCertificate {
        ServingCertificate::Files {
            certificate: directory.join("tls.crt"),
            key: directory.join("tls.key"),
        }
    }

    fn served(serving: &Serving) -> Vec<u8> {
        serving.current.borrow().key.cert[0].to_vec()
    }

    #[test]
    fn a_swapped_symlink_is_noticed_and_a_bad_pair_is_not_taken() {
        let root = tempfile::tempdir().unwrap();
        let authority = Authority::new("ca");
        let (first, second) = (authority.server("a.b.svc"), authority.server("a.b.svc"));
        store(&root.path().join("1"), &first);
        store(&root.path().join("2"), &second);
        let data = root.path().join("..data");
        symlink("1", &data).unwrap();

        let mut serving = Serving::load(&files(&data), now()).unwrap();
        assert_eq!(served(&serving), first.der());
        assert!(!serving.check(now()).unwrap());

        fs::remove_file(&data).unwrap();
        symlink("2", &data).unwrap();
        assert!(serving.check(now()).unwrap());
        assert_eq!(served(&serving), second.der());

        fs::write(data.join("tls.key"), first.key_pem()).unwrap();
        let error = serving.check(now()).unwrap_err();
        assert!(matches!(error, CertificateError::Mismatch { .. }), "{error:?}");
        assert_eq!(served(&serving), second.der());

        fs::write(data.join("tls.crt"), "nothing").unwrap();
        let error = serving.check(now()).unwrap_err().to_string();
        assert!(
            error.contains("tls.crt") && error.contains("there is none in it"),
            "{error}"
        );

        fs::remove_file(data.join("tls.crt")).unwrap();
        let error = serving.check(now()).unwrap_err();
        assert!(matches!(error, CertificateError::Read { .. }), "{error:?}");
        assert_eq!(served(&serving), second.der());
    }

    #[test]
    fn an_expired_replacement_is_refused_but_an_expired_start_is_not() {
        let root = tempfile::tempdir().unwrap();
        let authority = Authority::new("ca");
        store(root.path(), &authority.server("a.b.svc"));
        let mut serving = Serving::load(&files(root.path()), now()).unwrap();
        store(
            root.path(),
            &authority.leaf("a.b.svc").ends(now() - 1.hour()).server(),
        );
        let error = serving.check(now()).unwrap_err();
        assert!(matches!(error, CertificateError::Expired { .. }), "{error:?}");
        Serving::load(&files(root.path()), now()).unwrap();
    }

    #[test]
    fn a_broken_file_fails_the_start_with_its_name_and_without_its_content() {
        let root = tempfile::tempdir().unwrap();
        let leaf = Authority::new("ca").server("a.b.svc");
        store(root.path(), &leaf);
        fs::write(
            root.path().join("tls.key"),
            leaf.key_pem().replace("KEY", "SECRET"),
        )
        .unwrap();
        let error = Serving::load(&files(root.path()), now()).unwrap_err();
        assert!(matches!(error, CertificateError::Key { .. }), "{error:?}");
        let told = format!("{error} {error:?}");
        assert!(told.contains("tls.key") && !told.contains("SECRET"), "{told}");
    }

    #[test]
    fn a_replacement_that_is_not_good_yet_waits_for_its_time() {
        let root = tempfile::tempdir().unwrap();
        let authority = Authority::new("ca");
        store(root.path(), &authority.server("a.b.svc"));
        let mut serving = Serving::load(&files(root.path()), now()).unwrap();
        let first = served(&serving);
        let next = authority.leaf("a.b.svc").begins(now() + 1.hour()).server();
        store(root.path(), &next);
        let error = serving.check(now()).unwrap_err();
        assert!(matches!(error, CertificateError::NotYetValid { .. }), "{error:?}");
        assert_eq!(served(&serving), first);
        assert!(serving.check(now() + 1.hour()).unwrap());
        assert_eq!(served(&serving), next.der());
        // One that is not good any more is no better than one that is not good yet.
        store(
            root.path(),
            &authority.leaf("a.b.svc").ends(now() - 1.hour()).server(),
        );
        let mut serving = Serving::load(&files(root.path()), now()).unwrap();
        store(root.path(), &next);
        assert!(serving.check(now()).unwrap());
    }

    fn self_signed_in(directory: &Path) -> ServingCertificate {
        ServingCertificate::SelfSigned {
            directory: directory.to_owned(),
        }
    }

    #[test]
    fn a_pair_of_somebody_else_is_served_and_never_replaced() {
        let root = tempfile::tempdir().unwrap();
        let (certificate, key) = self_signed::paths(root.path());
        let put = |leaf: &Leaf| {
            fs::write(&certificate, leaf.certificate_pem()).unwrap();
            fs::write(&key, leaf.key_pem()).unwrap();
        };
        let authority = Authority::new("ca");
        let theirs = authority.leaf("localhost").ends(now() + 1.hour()).server();
        put(&theirs);
        let mut serving = Serving::load(&self_signed_in(root.path()), now()).unwrap();
        assert_eq!(served(&serving), theirs.der());
        assert!(!serving.check(now() + 2.hours()).unwrap());
        assert_eq!(fs::read_to_string(&key).unwrap(), theirs.key_pem());
        // What they put in its place is taken over.
        let newer = authority.server("localhost");
        put(&newer);
        assert!(serving.check(now()).unwrap());
        assert_eq!(served(&serving), newer.der());

        // Half a pair of theirs is an error, not a reason to write over it.
        for gone in [&certificate, &key] {
            put(&newer);
            fs::remove_file(gone).unwrap();
            Serving::load(&self_signed_in(root.path()), now()).unwrap_err();
            assert!(!gone.exists());
        }
        put(&newer);
        fs::write(&key, theirs.key_pem()).unwrap();
        let error = Serving::load(&self_signed_in(root.path()), now()).unwrap_err();
        assert!(matches!(error, CertificateError::Mismatch { .. }), "{error:?}");
    }

    #[test]
    fn a_pair_of_theirs_that_comes_in_the_place_of_ours_is_not_renewed() {
        let root = tempfile::tempdir().unwrap();
        let mut serving = Serving::load(&self_signed_in(root.path()), now()).unwrap();
        let (certificate, key) = self_signed::paths(root.path());
        let theirs = Authority::new("ca").server("a.b.svc");
        fs::write(&certificate, theirs.certificate_pem()).unwrap();
        fs::write(&key, theirs.key_pem()).unwrap();
        // Ours is due for renewal at the very moment that theirs is found.
        assert!(serving.check(now() + (300 * 24).hours()).unwrap());
        assert_eq!(served(&serving), theirs.der());
    }

    #[test]
    fn a_pair_of_ours_that_was_half_written_is_made_again() {
        let root = tempfile::tempdir().unwrap();
        let source = self_signed_in(root.path());
        let (_, key) = self_signed::paths(root.path());
        let first = served(&Serving::load(&source, now()).unwrap());
        let old_key = fs::read(&key).unwrap();
        fs::remove_file(&key).unwrap();
        let second = served(&Serving::load(&source, now()).unwrap());
        assert_ne!(second, first);
        fs::write(&key, old_key).unwrap();
        assert_ne!(served(&Serving::load(&source, now()).unwrap()), second);
    }

    #[test]
    fn a_self_signed_pair_is_made_kept_and_renewed() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("certificates");
        let source = ServingCertificate::SelfSigned {
            directory: directory.clone(),
        };
        let mut serving = Serving::load(&source, now()).unwrap();
        let first = served(&serving);
        let key = fs::metadata(directory.join("apiserver.key")).unwrap();
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        assert_eq!(served(&Serving::load(&source, now()).unwrap()), first);

        let later = now() + (300 * 24).hours();
        serving.check(later).unwrap();
        assert_ne!(served(&serving), first);
        assert!(serving.not_after() > later + (364 * 24).hours());
    }
}

//! A pair for those who brought none.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use super::pair::CertificateError;

/// How long a self-signed certificate is good. It is renewed when a third is left.
const LIFE: SignedDuration = SignedDuration::from_hours(365 * 24);
/// Whom it names.
const NAME: &str = "localhost";
/// Clocks differ.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

/// Where the pair is, named as k8s.io/apiserver names it.
pub(super) fn paths(directory: &Path) -> (PathBuf, PathBuf) {
    (directory.join("apiserver.crt"), directory.join("apiserver.key"))
}

/// Whether a certificate is one that was made here: only such are replaced, for whatever else is in the directory is
/// somebody's.
pub(super) fn is_own(pem: &[u8]) -> bool {
    let mut chain = CertificateDer::pem_slice_iter(pem);
    let (Some(Ok(der)), None) = (chain.next(), chain.next()) else {
        return false;
    };
    let Ok((_, certificate)) = x509_parser::parse_x509_certificate(&der) else {
        return false;
    };
    let mut names = certificate.subject().iter_common_name();
    certificate.subject() == certificate.issuer()
        && names.next().is_some_and(|name| name.as_str() == Ok(NAME))
        && names.next().is_none()
}

/// Makes a pair and stores it, the certificate first: if the process ends before the key is there, it can be seen that
/// the pair is to be made again.
pub(super) fn generate(directory: &Path, now: Timestamp) -> Result<(), CertificateError> {
    let failed =
        |path: &Path, source: Box<dyn std::error::Error + Send + Sync>| CertificateError::SelfSigned {
            path: path.to_owned(),
            source,
        };
    let (certificate, key) = pair(now).map_err(|error| failed(directory, error))?;
    let (certificate_path, key_path) = paths(directory);
    std::fs::create_dir_all(directory).map_err(|error| failed(directory, error.into()))?;
    for (path, content) in [(certificate_path, certificate), (key_path, key)] {
        write(&path, &content).map_err(|error| failed(&path, error.into()))?;
    }
    Ok(())
}

fn pair(now: Timestamp) -> Result<(String, String), Box<dyn std::error::Error + Send + Sync>> {
    let mut params = CertificateParams::new([NAME.to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, NAME);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since_epoch(now - BACKDATED);
    params.not_after = epoch + since_epoch(now + LIFE);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn since_epoch(at: Timestamp) -> Duration {
    at.duration_since(Timestamp::UNIX_EPOCH).unsigned_abs()
}

fn write(path: &Path, content: &str) -> std::io::Result<()> {
    // Written aside and renamed, so that a reader never sees half of it.
    let aside = path.with_extension("new");
    match std::fs::remove_file(&aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&aside, path)
}

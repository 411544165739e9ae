//! A pair for those who brought none.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose};

use super::pair::CertificateError;

/// How long a self-signed certificate is good. It is renewed when a third is left.
const LIFE: SignedDuration = SignedDuration::from_hours(365 * 24);
/// Clocks differ.
const BACKDATED: SignedDuration = SignedDuration::from_hours(1);

/// Where the pair is, named as k8s.io/apiserver names it.
pub(super) fn paths(directory: &Path) -> (PathBuf, PathBuf) {
    (directory.join("apiserver.crt"), directory.join("apiserver.key"))
}

/// Makes a pair and stores it, the key first: a certificate is never there without its key.
pub(super) fn generate(directory: &Path, now: Timestamp) -> Result<(), CertificateError> {
    let failed =
        |path: &Path, source: Box<dyn std::error::Error + Send + Sync>| CertificateError::SelfSigned {
            path: path.to_owned(),
            source,
        };
    let (certificate, key) = pair(now).map_err(|error| failed(directory, error))?;
    let (certificate_path, key_path) = paths(directory);
    std::fs::create_dir_all(directory).map_err(|error| failed(directory, error.into()))?;
    for (path, content) in [(key_path, key), (certificate_path, certificate)] {
        write(&path, &content).map_err(|error| failed(&path, error.into()))?;
    }
    Ok(())
}

fn pair(now: Timestamp) -> Result<(String, String), Box<dyn std::error::Error + Send + Sync>> {
    let mut params =
        CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "localhost");
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

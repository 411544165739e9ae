//! Judging a kubelet's serving certificate during the handshake. What only the record of earlier meetings can
//! decide (mode `Auto`, a certificate of nobody we know) is left to [`super::trust`], before anything is sent.

use std::{
    fmt::{self, Write as _},
    sync::{Arc, OnceLock},
};

use contract::report::{ErrorClass, NodeError};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    client::{verify_server_cert_signed_by_trust_anchor, verify_server_name},
    crypto::{
        WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
        verify_tls13_signature_with_raw_key,
    },
    pki_types::{CertificateDer, ServerName, SubjectPublicKeyInfoDer, UnixTime},
    server::ParsedCertificate,
};
use sha2::{Digest as _, Sha256};
use x509_parser::{
    prelude::{FromDer as _, X509Certificate},
    x509::SubjectPublicKeyInfo,
};

use super::authority::Authority;

/// How kubelets' certificates are treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum TlsMode {
    /// Verified where they chain to the authority; pinned on first use where they do not.
    #[value(name = "Auto")]
    Auto,
    /// They must chain to the authority and name the address.
    #[value(name = "Verify")]
    Verify,
    /// Not looked at.
    #[value(name = "Insecure")]
    Insecure,
}

/// SHA-256 of a public key (SubjectPublicKeyInfo, DER) in lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub String);

impl Fingerprint {
    fn of(public_key: &[u8]) -> Self {
        let digest = Sha256::digest(public_key);
        Self(digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
            // Writing to a String does not fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        }))
    }
}

/// What a kubelet has shown, once the handshake has gone through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presented {
    /// A certificate that chains to the authority, for this address, now.
    Verified,
    /// One that does not chain; only its key can be recognized. Mode `Auto` only.
    Foreign(Fingerprint),
    /// Nobody looked. Mode `Insecure` only.
    Unchecked,
}

/// Why a certificate was refused, with what rustls shall tell the kubelet.
struct Refused {
    class: ErrorClass,
    cause: CertificateError,
}

/// Verifies one connection, and remembers the outcome for whoever made it.
pub struct Verifier {
    mode: TlsMode,
    authority: Option<Arc<Authority>>,
    algorithms: WebPkiSupportedAlgorithms,
    outcome: OnceLock<Result<Presented, NodeError>>,
}

impl Verifier {
    /// For one handshake. Without an authority nothing is verified: it may be absent in mode `Insecure` only.
    #[must_use]
    pub fn new(
        mode: TlsMode,
        authority: Option<Arc<Authority>>,
        algorithms: WebPkiSupportedAlgorithms,
    ) -> Self {
        Self {
            mode,
            authority,
            algorithms,
            outcome: OnceLock::new(),
        }
    }

    /// How the certificate was judged; `None` before it was seen.
    #[must_use]
    pub fn outcome(&self) -> Option<&Result<Presented, NodeError>> {
        self.outcome.get()
    }

    fn judge(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<Presented, Refused> {
        let authority = match (self.mode, &self.authority) {
            (TlsMode::Insecure, _) => return Ok(Presented::Unchecked),
            (_, Some(authority)) => authority,
            (_, None) => return Err(Refused::unknown_authority()),
        };
        let cause = match self.verify(authority, leaf, intermediates, name, now) {
            Ok(()) => return Ok(Presented::Verified),
            Err(Error::InvalidCertificate(cause)) => cause,
            Err(_) => CertificateError::ApplicationVerificationFailure,
        };
        if authority.issued(leaf, intermediates, &self.algorithms) {
            return Err(Refused {
                class: class_of(&cause),
                cause,
            });
        }
        if self.mode != TlsMode::Auto {
            return Err(Refused::unknown_authority());
        }
        // Of a pin only the key counts, so the rest of the certificate may be as old-fashioned as it likes.
        let key = public_key(leaf).ok_or(Refused {
            class: ErrorClass::TlsInvalid,
            cause: CertificateError::BadEncoding,
        })?;
        Ok(Presented::Foreign(Fingerprint::of(&key)))
    }

    fn verify(
        &self,
        authority: &Authority,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        now: UnixTime,
    ) -> Result<(), Error> {
        let certificate = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &certificate,
            &authority.roots,
            intermediates,
            now,
            algorithms,
        )?;
        verify_server_name(&certificate, name)
    }
}

impl Refused {
    fn unknown_authority() -> Self {
        Self {
            class: ErrorClass::TlsUnknownAuthority,
            cause: CertificateError::UnknownIssuer,
        }
    }
}

/// The public key of a certificate that rustls cannot read: it knows X.509 v3 only, and `openssl x509 -req` and old
/// tools still write v1.
fn public_key(certificate: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    Some(certificate.public_key().raw.to_vec().into())
}

/// The signature of a TLS 1.2 handshake by a bare key, as [`verify_tls13_signature_with_raw_key`] does it for 1.3.
fn verify_tls12_signature_with_raw_key(
    message: &[u8],
    key: &SubjectPublicKeyInfoDer<'_>,
    dss: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error> {
    let bad = |cause| Error::InvalidCertificate(cause);
    let (_, key) = SubjectPublicKeyInfo::from_der(key).map_err(|_| bad(CertificateError::BadEncoding))?;
    let fitting = algorithms
        .mapping
        .iter()
        .filter(|(scheme, _)| *scheme == dss.scheme)
        .flat_map(|(_, algorithms)| algorithms.iter());
    for algorithm in fitting {
        let point = &key.subject_public_key.data;
        if algorithm
            .verify_signature(point, message, dss.signature())
            .is_ok()
        {
            return Ok(HandshakeSignatureValid::assertion());
        }
    }
    Err(bad(CertificateError::BadSignature))
}

/// The key of a certificate that rustls cannot read, and nothing for one that it can.
fn unreadable_key(certificate: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    match ParsedCertificate::try_from(certificate) {
        Ok(_) => None,
        Err(_) => public_key(certificate),
    }
}

/// The class of a certificate that chains and was refused all the same.
fn class_of(cause: &CertificateError) -> ErrorClass {
    match cause {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => ErrorClass::TlsExpired,
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            ErrorClass::TlsNameMismatch
        }
        _ => ErrorClass::TlsInvalid,
    }
}

fn message(class: ErrorClass, name: &ServerName<'_>) -> String {
    let name = name.to_str();
    match class {
        ErrorClass::TlsUnknownAuthority => {
            "x509: the serving certificate is signed by an authority that is not the cluster's (kubeadm's default is \
             a self-signed one)"
                .to_owned()
        }
        ErrorClass::TlsNameMismatch => format!("x509: the serving certificate is not for {name}"),
        ErrorClass::TlsExpired => "x509: the serving certificate has expired or is not valid yet".to_owned(),
        _ => "x509: the certificate is of the cluster's authority, but not one for serving, or cannot be used"
            .to_owned(),
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (outcome, answer) = match self.judge(end_entity, intermediates, server_name, now) {
            Ok(presented) => (Ok(presented), Ok(ServerCertVerified::assertion())),
            Err(Refused { class, cause }) => {
                let message = message(class, server_name);
                (
                    Err(NodeError { class, message }),
                    Err(Error::InvalidCertificate(cause)),
                )
            }
        };
        // A verifier serves one handshake, in which the certificate is shown once.
        let _ = self.outcome.set(outcome);
        answer
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match unreadable_key(cert) {
            Some(key) => verify_tls12_signature_with_raw_key(message, &key, dss, &self.algorithms),
            None => verify_tls12_signature(message, cert, dss, &self.algorithms),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        match unreadable_key(cert) {
            Some(key) => verify_tls13_signature_with_raw_key(message, &key, dss, &self.algorithms),
            None => verify_tls13_signature(message, cert, dss, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("mode", &self.mode)
            .field("outcome", &self.outcome)
            .finish_non_exhaustive()
    }
}

//! Checks authorities that a user gave.

use rustls::pki_types::pem::{self, PemObject as _, SectionKind};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// What is wrong with `bundle`, if anything. Never repeats what it holds.
pub(super) fn fault(bundle: &str) -> Option<String> {
    let mut certificates = 0_usize;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bundle.as_bytes()) {
        match section {
            Ok((SectionKind::Certificate, der)) => {
                certificates += 1;
                if X509Certificate::from_der(&der).is_err() {
                    return Some(format!(
                        "found a PEM block, number {certificates}, that is not an X.509 certificate"
                    ));
                }
            }
            Ok((SectionKind::RsaPrivateKey | SectionKind::PrivateKey | SectionKind::EcPrivateKey, _)) => {
                return Some(
                    "found a private key, which has no place here and should count as leaked".to_owned(),
                );
            }
            Ok(_) => return Some("found a PEM block of another kind".to_owned()),
            Err(pem::Error::MissingSectionEnd { .. }) => {
                return Some("found a PEM block without an end".to_owned());
            }
            Err(_) => return Some("found broken PEM".to_owned()),
        }
    }
    (certificates == 0).then(|| "found no PEM certificate".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> String {
        let key = rcgen::generate_simple_self_signed(vec!["a".to_owned()]).unwrap();
        key.cert.pem()
    }

    #[test]
    fn certificates_are_taken() {
        assert_eq!(fault(&certificate()), None);
        assert_eq!(fault(&format!("# two\n{}{}", certificate(), certificate())), None);
    }

    #[test]
    fn anything_else_is_named() {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let cut = certificate().replace("-----END CERTIFICATE-----", "");
        let cases = [
            ("", "no PEM certificate"),
            ("not PEM", "no PEM certificate"),
            (
                "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
                "broken PEM",
            ),
            (
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
                "number 1, that is not an X.509",
            ),
            (&cut, "without an end"),
            (&key, "private key"),
        ];
        for (bundle, expected) in cases {
            let found = fault(bundle).unwrap();
            assert!(found.contains(expected), "{bundle:?}: {found}");
        }
    }
}

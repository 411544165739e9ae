//! Authorities that a user gave, in the spec or in a ConfigMap.

use rustls::pki_types::pem::{self, PemObject as _, SectionKind};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{KubeletAuthorities, Problem};
use crate::api::{CaBundleSpec, ConfigMapKeySpec};
use crate::observe::Observed;

const CERTIFICATES: &str =
    "one or more PEM certificates (\"-----BEGIN CERTIFICATE-----\") and nothing secret";
/// The key in a ConfigMap, where the spec names none: as in `kube-root-ca.crt`, which every namespace has.
const DEFAULT_KEY: &str = "ca.crt";

/// Whom kubelets' certificates must chain to.
pub(super) fn authorities(
    spec: Option<CaBundleSpec>,
    observed: &Observed,
    problems: &mut Vec<Problem>,
) -> KubeletAuthorities {
    match spec {
        None => KubeletAuthorities::Cluster,
        Some(CaBundleSpec {
            config_map: Some(reference),
            ..
        }) => match of_config_map(&reference, observed) {
            Ok(Some(bundle)) => KubeletAuthorities::Given(bundle),
            Ok(None) => KubeletAuthorities::Kept { fault: None },
            Err(fault) => KubeletAuthorities::Kept { fault: Some(fault) },
        },
        Some(CaBundleSpec { inline, .. }) => {
            let bundle = inline.unwrap_or_default();
            if let Some(found) = fault(&bundle) {
                problems.push(Problem {
                    field: "spec.kubelet.tls.caBundle.inline",
                    found,
                    expected: CERTIFICATES,
                });
            }
            KubeletAuthorities::Given(bundle)
        }
    }
}

/// What a ConfigMap holds; nothing if it could not be read, which is told apart; or what is wrong with it.
fn of_config_map(
    ConfigMapKeySpec { name, key }: &ConfigMapKeySpec,
    observed: &Observed,
) -> Result<Option<String>, String> {
    let Some(read) = observed.kubelet_authorities.get(name) else {
        return Ok(None);
    };
    let key = key.as_deref().unwrap_or(DEFAULT_KEY);
    let place = format!("ConfigMap {}/{name}", observed.namespace);
    let config_map = read.as_ref().ok_or_else(|| format!("there is no {place}"))?;
    let bundle = config_map
        .data
        .as_ref()
        .and_then(|data| data.get(key))
        .ok_or_else(|| format!("{place} has no {key}"))?;
    match fault(bundle) {
        None => Ok(Some(bundle.clone())),
        Some(found) => Err(format!("{found} in {key} of {place}")),
    }
}

/// What is wrong with `bundle`, if anything. Never repeats what it holds.
fn fault(bundle: &str) -> Option<String> {
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
    use std::collections::BTreeMap;

    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn seen(data: Option<(&str, &str)>) -> Observed {
        let config_map = data.map(|(key, text)| ConfigMap {
            data: Some(BTreeMap::from([(key.to_owned(), text.to_owned())])),
            ..ConfigMap::default()
        });
        Observed {
            namespace: "ns".to_owned(),
            kubelet_authorities: BTreeMap::from([("cas".to_owned(), config_map)]),
            ..Observed::default()
        }
    }

    fn of(name: &str, key: Option<&str>, observed: &Observed) -> KubeletAuthorities {
        let spec = CaBundleSpec {
            inline: None,
            config_map: Some(ConfigMapKeySpec {
                name: name.to_owned(),
                key: key.map(str::to_owned),
            }),
        };
        let mut problems = Vec::new();
        let authorities = authorities(Some(spec), observed, &mut problems);
        assert_eq!(problems, []);
        authorities
    }

    #[test]
    fn a_config_map_is_read_by_its_key() {
        let bundle = certificate();
        let given = KubeletAuthorities::Given(bundle.clone());
        assert_eq!(of("cas", None, &seen(Some(("ca.crt", &bundle)))), given);
        assert_eq!(of("cas", Some("my.pem"), &seen(Some(("my.pem", &bundle)))), given);
    }

    #[test]
    fn while_a_config_map_gives_nothing_good_what_was_there_stays_and_why_is_told() {
        let kept = |fault: &str| KubeletAuthorities::Kept {
            fault: Some(fault.to_owned()),
        };
        assert_eq!(of("cas", None, &seen(None)), kept("there is no ConfigMap ns/cas"));
        assert_eq!(
            of("cas", None, &seen(Some(("other", "x")))),
            kept("ConfigMap ns/cas has no ca.crt")
        );
        assert_eq!(
            of("cas", None, &seen(Some(("ca.crt", "x")))),
            kept("found no PEM certificate in ca.crt of ConfigMap ns/cas")
        );
        // One that could not be read.
        assert_eq!(
            of("others", None, &seen(None)),
            KubeletAuthorities::Kept { fault: None }
        );
    }

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

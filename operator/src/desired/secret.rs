//! Secrets.

use contract::names;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::namespaced;
use crate::certificates::{BUNDLE, Certificates, KeyPair, NEXT, PREVIOUS};

/// The authority, its successor, and all authorities that are trusted.
pub(super) fn authority(namespace: &str, ca: &KeyPair, certificates: &Certificates) -> Secret {
    let next = certificates.next.as_ref().map(|next| (NEXT, next));
    key_pair(namespace, names::CA_SECRET, ca, next, certificates)
}

/// The Secret of the authority, by name.
pub(super) fn no_authority(namespace: &str) -> Secret {
    Secret {
        metadata: namespaced(namespace, names::CA_SECRET),
        ..Secret::default()
    }
}

/// The serving certificate, and the one before while it may be needed again.
pub(super) fn serving(namespace: &str, certificates: &Certificates) -> Secret {
    let previous = certificates.previous.as_ref();
    let previous = previous.map(|previous| (PREVIOUS, previous));
    key_pair(
        namespace,
        names::SERVING_SECRET,
        &certificates.leaf,
        previous,
        certificates,
    )
}

fn key_pair(
    namespace: &str,
    name: &str,
    pair: &KeyPair,
    another: Option<((&str, &str), &KeyPair)>,
    certificates: &Certificates,
) -> Secret {
    let entry = |key: &str, value: &str| (key.to_owned(), ByteString(value.as_bytes().to_vec()));
    let current = ((names::TLS_CERTIFICATE, names::TLS_KEY), pair);
    let pairs = [Some(current), another].into_iter().flatten();
    Secret {
        metadata: namespaced(namespace, name),
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(
            pairs
                .flat_map(|((certificate, key), pair)| {
                    [
                        entry(certificate, pair.certificate_pem()),
                        entry(key, pair.key_pem()),
                    ]
                })
                .chain([entry(BUNDLE, &certificates.bundle())])
                .collect(),
        ),
        ..Secret::default()
    }
}

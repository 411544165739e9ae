//! Secrets.

use std::collections::BTreeMap;

use contract::names;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;

use super::namespaced;
use crate::certificates::{BUNDLE, KeyPair};

/// A certificate with its key, and the authorities that are trusted.
pub(super) fn key_pair(namespace: &str, name: &str, pair: &KeyPair, bundle: Option<&str>) -> Secret {
    let entry = |key: &str, value: &str| (key.to_owned(), ByteString(value.as_bytes().to_vec()));
    Secret {
        metadata: namespaced(namespace, name),
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(
            [
                entry(names::TLS_CERTIFICATE, pair.certificate_pem()),
                entry(names::TLS_KEY, pair.key_pem()),
            ]
            .into_iter()
            .chain(bundle.map(|bundle| entry(BUNDLE, bundle)))
            .collect::<BTreeMap<_, _>>(),
        ),
        ..Secret::default()
    }
}

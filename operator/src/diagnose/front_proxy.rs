//! What kube-apiserver publishes about its front proxy, in the ConfigMap `extension-apiserver-authentication`.

use contract::names;
use k8s_openapi::api::core::v1::ConfigMap;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Finding, Reason, Severity};

/// The key under which kube-apiserver publishes the front-proxy authority.
const FRONT_PROXY_AUTHORITY: &str = "requestheader-client-ca-file";
const CLIENT_AUTHORITY: &str = "client-ca-file";
const ALLOWED_NAMES: &str = "requestheader-allowed-names";

/// What is wrong with it.
pub(super) fn finding(authentication: Option<&ConfigMap>) -> Option<Finding> {
    let config_map = format!("ConfigMap kube-system/{}", names::AUTHENTICATION_CONFIG_MAP);
    if !publishes_front_proxy(authentication) {
        let evidence = format!("{config_map} has no {FRONT_PROXY_AUTHORITY}");
        return Some(Finding::new(
            Reason::AggregationDisabled,
            Severity::Failure,
            evidence,
        ));
    }
    let subject = shared_authority(authentication?)?;
    let (severity, meaning) = if allowed_names(authentication).is_empty() {
        let meaning = "any client certificate may say that it speaks for anybody, for requestheader-allowed-names is empty";
        (Severity::Failure, meaning)
    } else {
        (
            Severity::Warning,
            "only requestheader-allowed-names tells a front proxy from other clients",
        )
    };
    let evidence = format!(
        "{config_map} has the key of {subject:?} in both {CLIENT_AUTHORITY} and {FRONT_PROXY_AUTHORITY}: {meaning}"
    );
    Some(Finding::new(
        Reason::FrontProxyAuthorityShared,
        severity,
        evidence,
    ))
}

/// The subject of an authority whose key signs client certificates and front proxies alike.
fn shared_authority(authentication: &ConfigMap) -> Option<String> {
    let data = authentication.data.as_ref()?;
    let of_clients = keys(data.get(CLIENT_AUTHORITY)?);
    let of_proxies = keys(data.get(FRONT_PROXY_AUTHORITY)?);
    let mut shared = of_proxies
        .into_iter()
        .filter(|(key, _)| of_clients.iter().any(|(other, _)| other == key));
    shared.next().map(|(_, subject)| subject)
}

/// The public key and the subject of every certificate that can be decoded. metrics-api says which cannot.
fn keys(pem: &str) -> Vec<(Vec<u8>, String)> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes()).flatten();
    let key = |der: CertificateDer<'_>| {
        let (_, certificate) = X509Certificate::from_der(&der).ok()?;
        Some((
            certificate.public_key().raw.to_vec(),
            certificate.subject().to_string(),
        ))
    };
    certificates.filter_map(key).collect()
}

/// Whether kube-apiserver publishes an authority for front-proxy certificates. An authority for client certificates
/// may be missing: that is legal.
#[must_use]
pub fn publishes_front_proxy(authentication: Option<&ConfigMap>) -> bool {
    authentication
        .and_then(|config_map| config_map.data.as_ref())
        .and_then(|data| data.get(FRONT_PROXY_AUTHORITY))
        .is_some_and(|authority| authority.contains("-----BEGIN CERTIFICATE-----"))
}

/// The names that a front-proxy certificate may have; empty: any.
#[must_use]
pub fn allowed_names(authentication: Option<&ConfigMap>) -> Vec<String> {
    authentication
        .and_then(|config_map| config_map.data.as_ref())
        .and_then(|data| data.get(ALLOWED_NAMES))
        .and_then(|names| serde_json::from_str(names).ok())
        .unwrap_or_default()
}

//! What kube-apiserver publishes about its front proxy, in the ConfigMap `extension-apiserver-authentication`.

use contract::names;
use jiff::SignedDuration;
use k8s_openapi::api::core::v1::ConfigMap;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::{Finding, Reason, Severity};
use crate::observe::Observed;

/// The key under which kube-apiserver publishes the front-proxy authority.
const FRONT_PROXY_AUTHORITY: &str = "requestheader-client-ca-file";
const CLIENT_AUTHORITY: &str = "client-ca-file";
const MONTH: SignedDuration = SignedDuration::from_hours(30 * 24);
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

/// How long before its end a front-proxy certificate that is valid for so long should have been renewed: a month, but not
/// what is the ordinary course of one that is renewed by half.
fn early(validity: SignedDuration) -> SignedDuration {
    MONTH.min(validity / 3)
}

/// Whether what kube-apiserver shows ends soon. What has ended is refused, and another finding.
pub(super) fn expiry(observed: &Observed) -> Option<Finding> {
    let shown = observed.front_proxy_certificate.as_ref()?;
    let left = shown.not_after.duration_since(observed.at);
    if left > early(shown.not_after.duration_since(shown.not_before)) {
        return None;
    }
    let evidence = format!(
        "The certificate of the front proxy {:?} is valid until {}",
        shown.common_name, shown.not_after
    );
    Some(Finding::new(
        Reason::FrontProxyCertificateExpires,
        Severity::Warning,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::now;
    use crate::observe::FrontProxyCertificate;

    fn shown(begun_days_ago: i64, ends_in_days: i64) -> Observed {
        let at = |days: i64| now() + SignedDuration::from_hours(24 * days);
        Observed {
            at: now(),
            front_proxy_certificate: Some(FrontProxyCertificate {
                common_name: "front-proxy-client".to_owned(),
                not_before: at(-begun_days_ago),
                not_after: at(ends_in_days),
            }),
            ..Observed::default()
        }
    }

    #[test]
    fn a_month_before_its_end_it_is_told_or_with_a_third_left() {
        let is_told = |begun, ends| expiry(&shown(begun, ends)).is_some();
        // kubeadm's and k3s's are valid for a year, OpenShift's for a month and made anew by half.
        assert_eq!([is_told(334, 31), is_told(335, 30)], [false, true]);
        assert_eq!([is_told(15, 15), is_told(20, 10)], [false, true]);
        assert!(expiry(&Observed::default()).is_none());
        let finding = expiry(&shown(360, 5)).unwrap();
        let ends = now() + SignedDuration::from_hours(5 * 24);
        assert_eq!(
            finding.evidence,
            format!("The certificate of the front proxy \"front-proxy-client\" is valid until {ends}")
        );
        assert_eq!(finding.severity, Severity::Warning);
    }
}

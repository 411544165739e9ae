//! What kube-apiserver publishes for extension API servers: the authorities of client certificates and of the front
//! proxy, and the headers that the front proxy speaks with.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::HeaderName;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};

pub(super) const CLIENT_CA: &str = "client-ca-file";
pub(super) const FRONT_PROXY_CA: &str = "requestheader-client-ca-file";
pub(super) const ALLOWED_NAMES: &str = "requestheader-allowed-names";
pub(super) const USERNAME_HEADERS: &str = "requestheader-username-headers";
pub(super) const UID_HEADERS: &str = "requestheader-uid-headers";
pub(super) const GROUP_HEADERS: &str = "requestheader-group-headers";
pub(super) const EXTRA_HEADERS_PREFIX: &str = "requestheader-extra-headers-prefix";

/// What the `ConfigMap` says.
#[derive(Debug, Default)]
pub(crate) struct AuthenticationConfig {
    /// Authorities of client certificates. Some managed clouds publish none.
    pub(crate) client_ca: Option<Roots>,
    /// How the front proxy is known and what it says. `None`: there is none.
    pub(crate) front_proxy: Option<FrontProxy>,
}

/// How the front proxy is known and what it says.
#[derive(Debug)]
pub(crate) struct FrontProxy {
    /// Authorities of its certificate.
    pub(crate) roots: Roots,
    /// Common names its certificate may have. Empty: any.
    pub(crate) allowed_names: Vec<String>,
    /// Headers with the user's name; the first that is there counts.
    pub(crate) username_headers: Vec<HeaderName>,
    /// Headers with the user's UID; the first that is there counts.
    pub(crate) uid_headers: Vec<HeaderName>,
    /// Headers with groups; all count.
    pub(crate) group_headers: Vec<HeaderName>,
    /// Beginnings of the headers with extra values, in lower case.
    pub(crate) extra_prefixes: Vec<String>,
}

/// Certificates of authorities.
#[derive(Debug)]
pub(crate) struct Roots(Vec<Root>);

#[derive(Debug)]
struct Root {
    der: CertificateDer<'static>,
    /// Seconds since the epoch. webpki does not look at the dates of a root.
    valid: std::ops::RangeInclusive<i64>,
}

impl Roots {
    /// The authorities that are valid at `now`.
    pub(crate) fn at(&self, now: UnixTime) -> Arc<RootCertStore> {
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let mut store = RootCertStore::empty();
        let valid = self.0.iter().filter(|root| root.valid.contains(&now));
        store.add_parsable_certificates(valid.map(|root| root.der.clone()));
        Arc::new(store)
    }
}

/// Why the `ConfigMap` cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("key {key:?} is not usable: {found}; expected {expected}")]
pub(crate) struct ConfigError {
    key: &'static str,
    found: String,
    expected: &'static str,
}

impl AuthenticationConfig {
    /// Reads the data of the `ConfigMap`. A missing authority is no error, a broken one is.
    pub(crate) fn parse(data: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let front_proxy = match roots(data, FRONT_PROXY_CA)? {
            Some(roots) => Some(FrontProxy {
                roots,
                allowed_names: list(data, ALLOWED_NAMES)?,
                username_headers: header_names(data, USERNAME_HEADERS)?,
                uid_headers: header_names(data, UID_HEADERS)?,
                group_headers: header_names(data, GROUP_HEADERS)?,
                extra_prefixes: list(data, EXTRA_HEADERS_PREFIX)?
                    .into_iter()
                    .filter(|prefix| !prefix.is_empty())
                    .map(|prefix| prefix.to_ascii_lowercase())
                    .collect(),
            }),
            None => None,
        };
        Ok(Self {
            client_ca: roots(data, CLIENT_CA)?,
            front_proxy,
        })
    }
}

fn roots(data: &BTreeMap<String, String>, key: &'static str) -> Result<Option<Roots>, ConfigError> {
    let refuse = |found: String| ConfigError {
        key,
        found,
        expected: "certificates of authorities in PEM form",
    };
    let pem = match data.get(key) {
        Some(pem) if !pem.trim().is_empty() => pem,
        _ => return Ok(None),
    };
    let mut roots = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let nth = roots.len() + 1;
        let der = certificate.map_err(|error| refuse(format!("certificate {nth}: {error}")))?;
        RootCertStore::empty()
            .add(der.clone())
            .map_err(|error| refuse(format!("certificate {nth}: {error}")))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der)
            .map_err(|error| refuse(format!("certificate {nth}: {error}")))?;
        let validity = parsed.validity();
        let valid = validity.not_before.timestamp()..=validity.not_after.timestamp();
        roots.push(Root { der, valid });
    }
    if roots.is_empty() {
        return Err(refuse("there is no certificate in it".to_owned()));
    }
    Ok(Some(Roots(roots)))
}

fn list(data: &BTreeMap<String, String>, key: &'static str) -> Result<Vec<String>, ConfigError> {
    match data.get(key).map(|list| list.trim()) {
        None | Some("") => Ok(Vec::new()),
        // Go writes an empty list as null.
        Some(json) => serde_json::from_str::<Option<Vec<String>>>(json)
            .map(Option::unwrap_or_default)
            .map_err(|error| ConfigError {
                key,
                found: error.to_string(),
                expected: "a JSON list of strings",
            }),
    }
}

fn header_names(data: &BTreeMap<String, String>, key: &'static str) -> Result<Vec<HeaderName>, ConfigError> {
    let parse = |name: &String| {
        HeaderName::from_bytes(name.as_bytes()).map_err(|_| ConfigError {
            key,
            found: format!("{name:?}"),
            expected: "a JSON list of names of HTTP headers",
        })
    };
    list(data, key)?.iter().map(parse).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tests::certificates::Authority;
    use crate::tests::published;

    /// About the first of January.
    fn year(year: u64) -> UnixTime {
        UnixTime::since_unix_epoch(std::time::Duration::from_secs((year - 1970) * 31_556_952))
    }

    #[test]
    fn what_kubeadm_publishes_is_read() {
        let recorded = include_str!("../tests/fixtures/kubeadm-1.37-extension-apiserver-authentication.json");
        let config = AuthenticationConfig::parse(&serde_json::from_str(recorded).unwrap()).unwrap();
        assert_eq!(config.client_ca.unwrap().at(year(2027)).len(), 1);
        let proxy = config.front_proxy.unwrap();
        assert_eq!(proxy.roots.at(year(2027)).len(), 1);
        assert_eq!(proxy.allowed_names, ["front-proxy-client"]);
        assert_eq!(proxy.username_headers, ["x-remote-user"]);
        assert!(proxy.uid_headers.is_empty());
        assert_eq!(proxy.group_headers, ["x-remote-group"]);
        assert_eq!(proxy.extra_prefixes, ["x-remote-extra-"]);
    }

    #[test]
    fn absent_authorities_and_lists_are_no_error() {
        let config = AuthenticationConfig::parse(&BTreeMap::new()).unwrap();
        assert!(config.client_ca.is_none() && config.front_proxy.is_none());

        let mut data = published(None, Some(&Authority::new("front-proxy-ca")));
        data.insert(ALLOWED_NAMES.to_owned(), "null".to_owned());
        data.insert(GROUP_HEADERS.to_owned(), " ".to_owned());
        let config = AuthenticationConfig::parse(&data).unwrap();
        assert!(config.client_ca.is_none());
        let proxy = config.front_proxy.unwrap();
        assert!(proxy.allowed_names.is_empty() && proxy.group_headers.is_empty());
    }

    #[test]
    fn what_is_broken_is_named() {
        for (key, value) in [
            (CLIENT_CA, "no certificate"),
            (
                FRONT_PROXY_CA,
                "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            ),
            (ALLOWED_NAMES, "front-proxy-client"),
            (USERNAME_HEADERS, r#"["X Remote User"]"#),
            (EXTRA_HEADERS_PREFIX, "[1]"),
        ] {
            let mut data = published(None, Some(&Authority::new("front-proxy-ca")));
            data.insert(key.to_owned(), value.to_owned());
            let error = AuthenticationConfig::parse(&data).unwrap_err().to_string();
            assert!(error.contains(key) && error.contains("expected"), "{error}");
        }
    }

    #[test]
    fn an_expired_authority_vouches_for_nobody() {
        let data = published(Some(&Authority::new("kubernetes")), None);
        let roots = AuthenticationConfig::parse(&data).unwrap().client_ca.unwrap();
        assert_eq!(roots.at(year(2026)).len(), 1);
        assert!(roots.at(year(1999)).is_empty());
        assert!(roots.at(year(2099)).is_empty());
    }

    proptest! {
        #[test]
        fn any_content_is_read_or_refused(
            lists in proptest::collection::vec("(\\[\"[ -~]{0,12}\"(,\"[a-zA-Z-]{0,12}\")?\\])|.{0,40}", 5),
            pem in "(-----BEGIN CERTIFICATE-----\n[A-Za-z0-9+/=\n]{0,80}\n-----END CERTIFICATE-----)|.{0,80}",
            ca in proptest::bool::ANY,
        ) {
            let mut data = BTreeMap::new();
            if ca {
                data = published(None, Some(Authority::fixed()));
            } else {
                data.insert(FRONT_PROXY_CA.to_owned(), pem);
            }
            let keys = [ALLOWED_NAMES, USERNAME_HEADERS, UID_HEADERS, GROUP_HEADERS, EXTRA_HEADERS_PREFIX];
            for (key, list) in keys.iter().zip(lists) {
                data.insert((*key).to_owned(), list);
            }
            if let Ok(AuthenticationConfig { front_proxy: Some(proxy), .. }) = AuthenticationConfig::parse(&data) {
                prop_assert!(proxy.extra_prefixes.iter().all(|prefix| !prefix.is_empty()));
            }
        }
    }
}

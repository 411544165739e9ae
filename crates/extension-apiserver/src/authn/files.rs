//! Whom to trust by files and settings, in the place of what kube-apiserver publishes.

use std::collections::BTreeMap;
use std::path::Path;

use super::config::{
    ALLOWED_NAMES, CLIENT_CA, EXTRA_HEADERS_PREFIX, FRONT_PROXY_CA, GROUP_HEADERS, UID_HEADERS,
    USERNAME_HEADERS,
};
use crate::options::Authorities;

/// The data of the `ConfigMap` with what is told otherwise in its place. The error names the file.
pub(super) fn put_in(
    mut data: BTreeMap<String, String>,
    authorities: &Authorities,
) -> Result<BTreeMap<String, String>, String> {
    if let Some(path) = &authorities.client_ca {
        data.insert(CLIENT_CA.to_owned(), read(path)?);
    }
    if let Some(proxy) = &authorities.front_proxy {
        data.insert(FRONT_PROXY_CA.to_owned(), read(&proxy.ca)?);
        for (key, list) in [
            (ALLOWED_NAMES, &proxy.allowed_names),
            (USERNAME_HEADERS, &proxy.username_headers),
            (UID_HEADERS, &proxy.uid_headers),
            (GROUP_HEADERS, &proxy.group_headers),
            (EXTRA_HEADERS_PREFIX, &proxy.extra_headers_prefixes),
        ] {
            data.insert(key.to_owned(), serde_json::json!(list).to_string());
        }
    }
    Ok(data)
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| {
        let path = path.display();
        format!("failed to read certificates of authorities from {path}: {error}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::config::AuthenticationConfig;
    use crate::options::FrontProxyFiles;
    use crate::tests::certificates::Authority;
    use crate::tests::published;

    #[test]
    fn files_come_in_the_place_of_what_is_published() {
        let directory = tempfile::tempdir().unwrap();
        let ca = directory.path().join("ca.crt");
        let (theirs, ours) = (Authority::new("theirs"), Authority::new("ours"));
        let data = published(Some(&theirs), Some(&theirs));
        let proxy = FrontProxyFiles {
            allowed_names: vec!["proxy".to_owned()],
            ..FrontProxyFiles::new(&ca)
        };
        let authorities = Authorities {
            client_ca: Some(ca.clone()),
            front_proxy: Some(proxy),
            skip_lookup: false,
        };
        let error = put_in(data.clone(), &authorities).unwrap_err();
        assert!(error.contains("ca.crt"), "{error}");
        std::fs::write(&ca, ours.pem()).unwrap();
        let put = put_in(data.clone(), &authorities).unwrap();
        assert_eq!(
            (&put[CLIENT_CA], &put[FRONT_PROXY_CA]),
            (&ours.pem(), &ours.pem())
        );
        let proxy = AuthenticationConfig::parse(&put).unwrap().front_proxy.unwrap();
        assert_eq!(proxy.allowed_names, ["proxy"]);
        assert_eq!(proxy.username_headers, ["x-remote-user"]);
        assert_eq!(put_in(data.clone(), &Authorities::default()).unwrap(), data);
    }
}

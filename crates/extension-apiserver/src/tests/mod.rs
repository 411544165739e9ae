//! What several tests need, and the tests that go through more than one module.

mod authentication;
pub(crate) mod certificates;
pub(crate) mod cluster;
mod decoders;
mod server;

use std::collections::BTreeMap;

use self::certificates::Authority;

/// The data of the authentication `ConfigMap`, as kubeadm's kube-apiserver publishes it.
pub(crate) fn published(
    clients: Option<&Authority>,
    proxies: Option<&Authority>,
) -> BTreeMap<String, String> {
    let mut data = BTreeMap::new();
    if let Some(authority) = clients {
        data.insert("client-ca-file".to_owned(), authority.pem());
    }
    if let Some(authority) = proxies {
        data.insert("requestheader-client-ca-file".to_owned(), authority.pem());
        for (key, value) in [
            ("requestheader-allowed-names", r#"["front-proxy-client"]"#),
            ("requestheader-username-headers", r#"["X-Remote-User"]"#),
            ("requestheader-group-headers", r#"["X-Remote-Group"]"#),
            ("requestheader-extra-headers-prefix", r#"["X-Remote-Extra-"]"#),
        ] {
            data.insert(key.to_owned(), value.to_owned());
        }
    }
    data
}

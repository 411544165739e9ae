//! ConfigMaps.

use std::collections::BTreeMap;

use contract::names;
use k8s_openapi::api::core::v1::ConfigMap;

use super::namespaced;

/// The authorities of kubelets' certificates; without a bundle just the object's identity.
pub(super) fn kubelet_ca(namespace: &str, bundle: Option<&str>) -> ConfigMap {
    ConfigMap {
        metadata: namespaced(namespace, names::KUBELET_CA_CONFIG_MAP),
        data: bundle.map(|bundle| BTreeMap::from([(names::KUBELET_CA.to_owned(), bundle.to_owned())])),
        ..ConfigMap::default()
    }
}

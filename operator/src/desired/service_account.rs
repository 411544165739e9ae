//! ServiceAccounts.

use contract::names;
use k8s_openapi::api::core::v1::ServiceAccount;

use super::namespaced;

/// metrics-api's own.
pub(super) fn metrics_api(namespace: &str) -> ServiceAccount {
    ServiceAccount {
        metadata: namespaced(namespace, names::METRICS_API),
        ..ServiceAccount::default()
    }
}

/// The one that kubelets get to see a token of. No Pod runs as it.
pub(super) fn kubelet(namespace: &str) -> ServiceAccount {
    ServiceAccount {
        metadata: namespaced(namespace, names::KUBELET_SERVICE_ACCOUNT),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

//! The registration with kube-apiserver's aggregation layer.

use contract::names;
use k8s_openapi::ByteString;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{
    APIService, APIServiceSpec, ServiceReference,
};

use super::cluster_wide;
use crate::adopt::FORMER;
use crate::certificates::Certificates;
use crate::cluster::api_service_name;

/// Priorities as in metrics-server's manifests. Of two versions with one priority the stable one is preferred.
const GROUP_PRIORITY: i32 = 100;
const VERSION_PRIORITY: i32 = 100;

pub(super) fn metrics(
    namespace: &str,
    version: &str,
    certificates: &Certificates,
    former: Option<&str>,
) -> APIService {
    let mut metadata = cluster_wide(&api_service_name(version));
    metadata.annotations = former.map(|former| [(FORMER.to_owned(), former.to_owned())].into());
    APIService {
        metadata,
        spec: Some(APIServiceSpec {
            group: Some(names::METRICS_GROUP.to_owned()),
            version: Some(version.to_owned()),
            group_priority_minimum: GROUP_PRIORITY,
            version_priority: VERSION_PRIORITY,
            service: Some(ServiceReference {
                namespace: Some(namespace.to_owned()),
                name: Some(names::METRICS_API.to_owned()),
                // Written out, although it is the default: what is left out reads back as a difference.
                port: Some(i32::from(names::SERVICE_PORT)),
            }),
            ca_bundle: Some(ByteString(certificates.bundle().into_bytes())),
            insecure_skip_tls_verify: None,
        }),
        ..APIService::default()
    }
}

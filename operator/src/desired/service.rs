//! The Service behind the `APIServices`.

use contract::names;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{namespaced, selector};

/// Name of the port in Pod and Service.
pub(crate) const PORT_NAME: &str = "https";

pub(super) fn metrics_api(namespace: &str) -> Service {
    Service {
        metadata: namespaced(namespace, names::METRICS_API),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            ip_family_policy: Some("PreferDualStack".to_owned()),
            selector: Some(selector()),
            ports: Some(vec![ServicePort {
                name: Some(PORT_NAME.to_owned()),
                protocol: Some("TCP".to_owned()),
                app_protocol: Some("https".to_owned()),
                port: i32::from(names::SERVICE_PORT),
                target_port: Some(IntOrString::String(PORT_NAME.to_owned())),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

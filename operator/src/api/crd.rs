//! The CustomResourceDefinition.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};
use kube::CustomResourceExt as _;

use super::MetricsStack;

/// The CustomResourceDefinition, in which `spec` may be left out.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let mut crd = MetricsStack::crd();
    for version in &mut crd.spec.versions {
        let Some(schema) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        // The derive macro requires a spec. With a default, what is read back always has one.
        if let Some(required) = &mut schema.required {
            required.retain(|field| field != "spec");
        }
        if schema.required.as_ref().is_some_and(Vec::is_empty) {
            schema.required = None;
        }
        if let Some(spec) = schema
            .properties
            .as_mut()
            .and_then(|fields| fields.get_mut("spec"))
        {
            spec.default = Some(JSON(serde_json::json!({})));
        }
    }
    crd
}

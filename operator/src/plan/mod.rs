//! From what a `MetricsStack` asks for and what was observed to what shall be: defaults filled, everything checked.

mod ca_bundle;
mod labels;
mod scheduling;
mod sizing;
mod spec;
mod types;

use contract::names;
use jiff::Timestamp;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::ResourceExt as _;

pub use types::{
    ForeignApiService, KubeletPlan, MetricsApiPlan, Placement, Plan, Problem, Refusal, Registration,
};

use crate::api::{MetricsStack, MetricsStackSpec};
use crate::certificates::{self, Judgement, Server};
use crate::desired;
use crate::observe::Observed;

/// Where the operator runs and what it was installed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Namespace of the operator, and so of metrics-api.
    pub namespace: String,
    /// Image with metrics-api where the stack names none.
    pub image: String,
}

/// Makes the plan. Certificates that are still good are kept, others made.
pub fn plan(
    stack: &MetricsStack,
    observed: &Observed,
    environment: &Environment,
    now: Timestamp,
) -> Result<Plan, Refusal> {
    let MetricsStackSpec {
        metrics_api,
        kubelet,
        certificates,
    } = stack.spec.clone();
    let mut problems = Vec::new();
    let metrics_api = spec::metrics_api(
        metrics_api.unwrap_or_default(),
        observed,
        environment,
        &mut problems,
    );
    let kubelet = spec::kubelet(kubelet.unwrap_or_default(), &mut problems);
    let lifetimes = spec::lifetimes(&certificates.unwrap_or_default(), &mut problems);
    if !problems.is_empty() {
        return Err(Refusal::InvalidSpec(problems));
    }

    let server = server(&environment.namespace);
    let judgement = certificates::judge(
        observed.ca_secret.as_ref(),
        observed.serving_secret.as_ref(),
        &trusted(observed),
        &server,
        lifetimes,
        now,
    );
    let renewed = renewed(&judgement);
    let certificates = certificates::issue(judgement, &server, lifetimes, now)
        .map_err(|error| Refusal::Certificates(with_source(&error)))?;
    Ok(Plan {
        namespace: environment.namespace.clone(),
        metrics_api,
        kubelet,
        next_check: certificates.renew_at(),
        certificates,
        renewed,
        registration: registration(observed),
    })
}

fn server(namespace: &str) -> Server {
    // kube-apiserver asks for the first, whatever the cluster's domain is.
    let name = format!("{}.{namespace}.svc", names::METRICS_API);
    Server {
        dns_names: vec![name.clone(), format!("{name}.cluster.local")],
        name: names::METRICS_API.to_owned(),
    }
}

fn renewed(judgement: &Judgement) -> Vec<String> {
    let of = |name: &str, judged: &Result<_, certificates::Unfit>| {
        judged.as_ref().err().map(|unfit| format!("{name}: {unfit}"))
    };
    [
        of(names::CA_SECRET, &judgement.ca),
        of(names::SERVING_SECRET, &judgement.leaf),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The authorities that kube-apiserver trusts now.
fn trusted(observed: &Observed) -> String {
    let bundles = observed
        .api_services
        .iter()
        .filter(|service| desired::ours(&service.metadata))
        .filter_map(|service| service.spec.as_ref()?.ca_bundle.as_ref());
    bundles
        .map(|bundle| String::from_utf8_lossy(&bundle.0) + "\n")
        .collect()
}

fn registration(observed: &Observed) -> Registration {
    let foreign: Vec<_> = observed
        .api_services
        .iter()
        .filter(|service| !desired::ours(&service.metadata))
        .map(|service| ForeignApiService {
            name: service.name_any(),
            service: target(service),
        })
        .collect();
    if !foreign.is_empty() {
        Registration::Withheld(foreign)
    } else if observed.ready_endpoints > 0 || !observed.api_services.is_empty() {
        // Those that are there stay when the last endpoint goes: removing them would hide what is wrong.
        Registration::Register
    } else {
        Registration::AwaitEndpoint
    }
}

/// The Service that an `APIService` points at, as `namespace/name`; `Local` when kube-apiserver answers itself.
#[must_use]
pub fn target(service: &APIService) -> String {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.service.as_ref())
        .map_or_else(
            || "Local".to_owned(),
            |service| {
                format!(
                    "{}/{}",
                    service.namespace.as_deref().unwrap_or_default(),
                    service.name.as_deref().unwrap_or_default()
                )
            },
        )
}

fn with_source(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[cfg(test)]
mod tests;

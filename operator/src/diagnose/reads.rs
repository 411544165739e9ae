//! Why metrics cannot be read through kube-apiserver, by what it and metrics-api say about it.

use contract::names;
use contract::report::FrontProxyRefusal;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::{APIService, APIServiceCondition};
use kube::ResourceExt as _;

use super::{Finding, Reason, Severity, names_of, pods};
use crate::observe::{Observed, Part, Read};
use crate::{adopt, cluster};

/// Words of Go about a certificate.
const OF_CERTIFICATES: [&str; 2] = ["x509:", "tls: failed to verify certificate"];
/// And about a server that is not reached.
const OF_CONNECTIONS: [&str; 8] = [
    "dial tcp",
    "no route to host",
    "network is unreachable",
    "connection refused",
    "i/o timeout",
    "Client.Timeout exceeded",
    "context deadline exceeded",
    "no answer within",
];

/// And about a kept connection that turns out to be dead. With HTTP/1.1 the next read is on another one.
const OF_DEAD_CONNECTIONS: [&str; 2] = ["http2: client connection lost", "http2: server sent GOAWAY"];
/// What kube-aggregator says where the Service lacks the port. See [`adopt::NOBODY`] for where it is gone or leads nowhere.
const NO_PORT: &str = "ServicePortError";
/// Endpoints come a moment after their Pods are ready, and kube-aggregator's word of them a moment after that.
const ENDPOINTS_COME_WITHIN: SignedDuration = SignedDuration::from_secs(10);

/// What is wrong with a failed read, and what cannot be done meanwhile.
pub(super) fn findings(observed: &Observed, findings: &mut Vec<Finding>) {
    // Without a ready replica there is nobody to read from: why that is so is found at the Pods.
    if let Read::Failed { version, reason } = &observed.read
        && observed.ready_endpoints > 0
    {
        findings.push(read_failed(observed, version, reason));
    }
    findings.extend(without_endpoints(observed));
    if !observed.stuck_namespaces.is_empty() {
        let evidence = format!(
            "{} namespaces cannot be deleted: {}",
            observed.stuck_namespaces.len(),
            names_of(observed.stuck_namespaces.iter().map(String::as_str))
        );
        findings.push(Finding::new(Reason::NamespacesStuck, Severity::Warning, evidence));
    }
}

/// Replicas that have been ready for a while, and to which the Service does not lead, as kube-aggregator says too.
fn without_endpoints(observed: &Observed) -> Option<Finding> {
    let lasts = |since: &Timestamp| observed.at.duration_since(*since) >= ENDPOINTS_COME_WITHIN;
    let ready = observed.pods.iter().filter_map(pods::ready_since);
    let ready = ready.filter(lasts).count();
    if ready == 0 || observed.ready_endpoints > 0 || !observed.sees(Part::Endpoints) {
        return None;
    }
    let ours = observed
        .api_services
        .iter()
        .filter(|service| observed.owns(service));
    let (service, condition) = ours
        .filter_map(|service| Some((service, condition(service)?)))
        .find(|(_, condition)| {
            let reason = condition.reason.as_deref().unwrap_or_default();
            let nowhere = reason == NO_PORT || adopt::NOBODY.contains(&reason);
            condition.status != "True" && nowhere
        })?;
    let evidence = format!(
        "{ready} replicas are ready, and APIService {} is Available={}, {}: {}",
        service.name_any(),
        condition.status,
        condition.reason.as_deref().unwrap_or_default(),
        condition.message.as_deref().unwrap_or_default()
    );
    Some(Finding::new(
        Reason::ServiceWithoutEndpoints,
        Severity::Failure,
        evidence,
    ))
}

fn read_failed(observed: &Observed, version: &str, reason: &str) -> Finding {
    let name = cluster::api_service_name(version);
    let mut services = observed.api_services.iter();
    let condition = services
        .find(|service| service.name_any() == name)
        .and_then(condition)
        .filter(|condition| condition.status != "True");
    let message = condition.and_then(|condition| condition.message.as_deref());
    let said = [reason, message.unwrap_or_default()];
    let says = |words: &[&str]| {
        said.iter()
            .any(|said| words.iter().any(|word| said.contains(word)))
    };
    let state = condition.map_or_else(String::new, |condition| {
        let reason = condition.reason.as_deref().unwrap_or_default();
        let message = match message {
            Some(message) if !message.is_empty() => format!(": {message}"),
            _ => String::new(),
        };
        format!(
            " (its APIService is Available={}, {reason}{message})",
            condition.status
        )
    });
    let evidence = format!(
        "Listing nodes of {}/{version} failed: {reason}{state}",
        names::METRICS_GROUP
    );
    if says(&["(401)", ": 401"])
        && let Some(refusal) = refusal(observed)
    {
        let evidence = format!(
            "{evidence}. metrics-api says of the certificate: {}",
            refusal.message
        );
        return Finding::new(Reason::FrontProxy(refusal.fault), Severity::Failure, evidence);
    }
    let reaches = observed.replicas.iter().any(|replica| replica.report.is_ok());
    let reason = if says(&OF_CERTIFICATES) {
        Reason::ServingCertificateNotTrusted
    } else if reaches && says(&OF_CONNECTIONS) {
        Reason::ControlPlaneCannotReachPods
    } else if says(&OF_DEAD_CONNECTIONS) {
        Reason::ConnectionLost
    } else {
        Reason::ReadFailed
    };
    Finding::new(reason, Severity::Failure, evidence)
}

/// The last time that a replica did not believe a front proxy.
fn refusal(observed: &Observed) -> Option<&FrontProxyRefusal> {
    let reports = observed
        .replicas
        .iter()
        .filter_map(|replica| replica.report.as_ref().ok());
    reports
        .filter_map(|report| report.front_proxy.as_ref())
        .max_by(|a, b| a.at.cmp(&b.at))
}

/// Status and reason of an `APIService`'s condition Available.
#[must_use]
pub fn available(service: &APIService) -> (String, String) {
    condition(service).map_or_else(
        || ("Unknown".to_owned(), String::new()),
        |condition| {
            (
                condition.status.clone(),
                condition.reason.clone().unwrap_or_default(),
            )
        },
    )
}

fn condition(service: &APIService) -> Option<&APIServiceCondition> {
    let conditions = service.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == "Available")
}

#[cfg(test)]
mod tests;

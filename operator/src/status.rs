//! From everything observed to what a `MetricsStack` says about itself. Equal to the previous status when nothing
//! changed, so that no write leads to the next.

mod conditions;
mod settle;

use std::net::SocketAddr;

use contract::names;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use crate::api::{
    AggregationStatus, ApiServerStatus, ApiServiceStatus, CertificateStatus, FailingKubelets, FindingStatus,
    KubeletsStatus, MetricsStackStatus, ProxyClientStatus,
};
use crate::certificates::KeyPair;
use crate::diagnose::{self, Diagnosis, Finding, Kubelets, Reason, Severity};
use crate::observe::{ObserveError, Observed, Read};
use crate::plan::{self, Plan, Refusal};
use crate::registration;

/// Most findings that are kept: the rest is more of the same.
const MAX_FINDINGS: usize = 20;
/// Longest text of a condition or finding, in characters. Kubernetes takes 32768 bytes in a condition.
const MAX_TEXT: usize = 2000;

/// The status after a reconcile.
#[must_use]
pub fn status(
    previous: Option<&MetricsStackStatus>,
    generation: Option<i64>,
    observed: &Observed,
    outcome: Result<&Plan, &Refusal>,
    diagnosis: &Diagnosis,
    now: Timestamp,
) -> MetricsStackStatus {
    let Diagnosis { findings, kubelets } = diagnosis;
    // What is made but not kept is made anew in the next turn: it is nothing to tell of.
    let generation = acted_on(previous, generation, observed, outcome);
    let kept = outcome.is_ok_and(|plan| plan.renewed.is_empty())
        || (observed.conflicts.is_empty()
            && observed.apply_error.is_none()
            && !observed.certificates_unstored);
    let certificates = certificates(previous, outcome, kept);
    let judged = [
        conditions::aggregation(observed, findings),
        conditions::certificates_ready(outcome, kept, findings),
        conditions::metrics_api_ready(observed, outcome, findings, kubelets),
        conditions::kubelets_reachable(observed, kubelets),
        conditions::available(observed, outcome),
    ];
    let ready = conditions::ready(&judged, findings, kubelets);
    let degraded = conditions::degraded(findings);
    let conditions = [ready].into_iter().chain(judged).chain([degraded]);
    let mut status = MetricsStackStatus {
        observed_generation: generation,
        conditions: conditions
            .map(|judged| judged.into_condition(previous, generation, now))
            .collect(),
        findings: findings.iter().take(MAX_FINDINGS).map(finding_status).collect(),
        aggregation: aggregation(previous, observed),
        api_services: api_services(observed),
        next_certificate_expiry: certificates
            .iter()
            .map(|certificate| certificate.not_after.clone())
            .min(),
        certificates,
        kubelets: Some(kubelets_status(previous, kubelets)),
    };
    settle::settle(&mut status, previous);
    status
}

/// The generation that the status is about: not a new one before metrics-api runs as it asks. Until then, what answers
/// is metrics-api as it was; `kubectl wait` and Argo CD wait for this field.
fn acted_on(
    previous: Option<&MetricsStackStatus>,
    generation: Option<i64>,
    observed: &Observed,
    outcome: Result<&Plan, &Refusal>,
) -> Option<i64> {
    let follows = outcome.is_ok_and(|plan| plan.problems.is_empty() && !plan.keeps_workload);
    let applied = observed.apply_error.is_none() && observed.conflicts.is_empty();
    previous
        .and_then(|previous| previous.observed_generation)
        .filter(|_| follows && applied && observed.deployment.as_ref().is_some_and(conditions::rolls_out))
        .or(generation)
}

/// The status while something could not be read that all else rests on: what was known may not be true any more.
#[must_use]
pub fn blind(
    previous: Option<&MetricsStackStatus>,
    generation: Option<i64>,
    error: &ObserveError,
    now: Timestamp,
) -> (MetricsStackStatus, Finding) {
    let finding = Finding {
        reason: Reason::NotObserved,
        severity: Severity::Failure,
        evidence: error.to_string(),
    };
    let mut status = previous.cloned().unwrap_or_default();
    // The text of an error may differ from try to try.
    let said = status
        .findings
        .first()
        .is_some_and(|known| known.reason == finding.reason.name() && known.message.contains(error.what()));
    let unknown = status.conditions.iter().all(|known| known.status == "Unknown");
    if !(said && unknown) {
        status.findings = vec![finding_status(&finding)];
        status.conditions = conditions::blind(&finding.evidence)
            .into_iter()
            .map(|judged| judged.into_condition(previous, generation, now))
            .collect();
    }
    (status, finding)
}

fn shorten(text: &str) -> String {
    if text.chars().count() <= MAX_TEXT {
        return text.to_owned();
    }
    text.chars().take(MAX_TEXT - 1).chain(['…']).collect()
}

fn finding_status(finding: &Finding) -> FindingStatus {
    FindingStatus {
        reason: finding.reason.name(),
        message: shorten(&finding.message()),
        remedy: finding.remedy().to_owned(),
    }
}

/// While no certificate can be made or kept, they are as they were.
fn certificates(
    previous: Option<&MetricsStackStatus>,
    outcome: Result<&Plan, &Refusal>,
    kept: bool,
) -> Vec<CertificateStatus> {
    let plan = match outcome {
        Ok(plan) if kept => plan,
        Err(Refusal::InvalidSpec(_)) => return Vec::new(),
        Ok(_) | Err(Refusal::Certificates(_) | Refusal::GivenCertificate(_)) => {
            return previous
                .map(|previous| previous.certificates.clone())
                .unwrap_or_default();
        }
    };
    let of = |name: &str, pair: &KeyPair| CertificateStatus {
        name: name.to_owned(),
        not_after: Time(pair.not_after()),
        renew_at: plan.certificates.renew_at().map(|_| Time(pair.renew_at())),
    };
    let ca = plan.certificates.ca.as_ref();
    ca.map(|ca| of(names::CA_SECRET, ca))
        .into_iter()
        .chain([of(names::SERVING_SECRET, &plan.certificates.leaf)])
        .collect()
}

fn aggregation(previous: Option<&MetricsStackStatus>, observed: &Observed) -> Option<AggregationStatus> {
    let shown = observed
        .front_proxy_certificate
        .as_ref()
        .map(|shown| ProxyClientStatus {
            common_name: shown.common_name.clone(),
            not_after: Time(shown.not_after),
        });
    // An operator that has just started may not have seen any.
    let known = || previous?.aggregation.as_ref()?.proxy_client.clone();
    let status = AggregationStatus {
        allowed_names: observed
            .authentication
            .as_ref()
            .map(|config_map| diagnose::allowed_names(Some(config_map)))
            .unwrap_or_default(),
        proxy_client: shown.or_else(known),
        api_servers: observed
            .api_servers
            .iter()
            .map(|(address, read)| api_server(*address, read.as_ref()))
            .collect(),
    };
    let is_known = observed.authentication.is_some() || !status.api_servers.is_empty();
    is_known.then_some(status)
}

fn api_server(address: SocketAddr, read: Option<&Read>) -> ApiServerStatus {
    let (available, message) = match read {
        Some(Read::Succeeded) => ("True", String::new()),
        Some(Read::Failed { reason, .. }) => ("False", shorten(reason)),
        Some(Read::NotTried) | None => ("Unknown", String::new()),
    };
    ApiServerStatus {
        address: address.to_string(),
        available: available.to_owned(),
        message,
    }
}

fn api_services(observed: &Observed) -> Vec<ApiServiceStatus> {
    let mut services: Vec<_> = observed
        .api_services
        .iter()
        .map(|service| {
            let (available, reason) = diagnose::available(service);
            ApiServiceStatus {
                name: service.name_any(),
                service: plan::target(service),
                managed: observed.owns(service),
                owner: (!observed.owns(service))
                    .then(|| registration::owner(service))
                    .flatten(),
                available,
                reason,
            }
        })
        .collect();
    services.sort_by(|a, b| a.name.cmp(&b.name));
    services
}

fn kubelets_status(previous: Option<&MetricsStackStatus>, kubelets: &Kubelets) -> KubeletsStatus {
    let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
    let before = previous
        .and_then(|previous| previous.kubelets.as_ref())
        .map(|kubelets| kubelets.failing.as_slice());
    KubeletsStatus {
        summary: format!("{}/{}", kubelets.answering, kubelets.total),
        total: count(kubelets.total),
        answering: count(kubelets.answering),
        pinned: count(kubelets.pinned.len()),
        failing: kubelets
            .failing
            .iter()
            .map(|group| FailingKubelets {
                reason: group.class.as_str().to_owned(),
                count: count(group.nodes.len()),
                examples: same_examples(before.unwrap_or_default(), group),
            })
            .collect(),
    }
}

/// Messages may hold what differs from try to try, such as a local port. While the same nodes fail alike, the first
/// message stays.
fn same_examples(before: &[FailingKubelets], group: &diagnose::FailingGroup) -> Vec<String> {
    let examples: Vec<_> = group.examples().iter().map(|example| shorten(example)).collect();
    let node = |example: &String| example.split(':').next().unwrap_or_default().to_owned();
    let nodes = |examples: &[String]| examples.iter().map(node).collect::<Vec<_>>();
    before
        .iter()
        .find(|old| old.reason == group.class.as_str() && nodes(&old.examples) == nodes(&examples))
        .map_or(examples, |old| old.examples.clone())
}

#[cfg(test)]
mod tests;

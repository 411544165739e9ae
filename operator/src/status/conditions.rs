//! What each condition says.

use contract::names;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::shorten;
use crate::api::MetricsStackStatus;
use crate::diagnose::{Finding, Kubelets, Reason, Severity};
use crate::observe::{Observed, Part, Read};
use crate::plan::{Plan, Refusal, Registration};

/// A condition without its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    kind: &'static str,
    status: &'static str,
    reason: String,
    message: String,
}

/// Types of all conditions.
pub(super) const KINDS: [&str; 7] = [
    "Ready",
    "AggregationReady",
    "CertificatesReady",
    "MetricsApiReady",
    "KubeletsReachable",
    "Available",
    "Degraded",
];
const TRUE: &str = "True";
const FALSE: &str = "False";
const UNKNOWN: &str = "Unknown";

impl Judged {
    fn new(
        kind: &'static str,
        status: &'static str,
        reason: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            status,
            reason: reason.into(),
            message: message.into(),
        }
    }

    fn of_finding(kind: &'static str, status: &'static str, finding: &Finding) -> Self {
        Self::new(
            kind,
            status,
            finding.reason.name(),
            format!("{} {}", finding.message(), finding.remedy()),
        )
    }

    /// The time of the last transition stays as long as the status does.
    pub(super) fn into_condition(
        self,
        previous: Option<&MetricsStackStatus>,
        generation: Option<i64>,
        now: Timestamp,
    ) -> Condition {
        let since = previous
            .and_then(|previous| {
                previous
                    .conditions
                    .iter()
                    .find(|condition| condition.type_ == self.kind)
            })
            .filter(|condition| condition.status == self.status)
            .map_or_else(
                || Time(whole_second(now)),
                |condition| condition.last_transition_time.clone(),
            );
        Condition {
            type_: self.kind.to_owned(),
            status: self.status.to_owned(),
            reason: self.reason,
            message: shorten(&self.message),
            observed_generation: generation,
            last_transition_time: since,
        }
    }
}

/// As it is kept by kube-apiserver, so that what is read back is what was written.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

fn find(findings: &[Finding], reasons: &[Reason]) -> Option<Finding> {
    findings
        .iter()
        .find(|finding| reasons.contains(&finding.reason))
        .cloned()
}

/// What is said of a part that could not be read.
fn unseen(kind: &'static str, observed: &Observed, part: Part) -> Option<Judged> {
    let error = observed.unseen.get(&part)?;
    let message = format!("failed to read {}: {error}", part.describe());
    Some(Judged::new(kind, UNKNOWN, Reason::NotObserved.name(), message))
}

/// Everything is unknown, since what all else rests on could not be read.
pub(super) fn blind(message: &str) -> Vec<Judged> {
    KINDS
        .map(|kind| Judged::new(kind, UNKNOWN, Reason::NotObserved.name(), message))
        .into()
}

pub(super) fn aggregation(observed: &Observed, findings: &[Finding]) -> Judged {
    let kind = "AggregationReady";
    if let Some(judged) = unseen(kind, observed, Part::FrontProxy) {
        return judged;
    }
    find(findings, &[Reason::AggregationDisabled]).map_or_else(
        || {
            Judged::new(
                kind,
                TRUE,
                "FrontProxyPublished",
                "kube-apiserver publishes its front-proxy authority",
            )
        },
        |finding| Judged::of_finding(kind, FALSE, &finding),
    )
}

pub(super) fn certificates_ready(
    outcome: Result<&Plan, &Refusal>,
    kept: bool,
    findings: &[Finding],
) -> Judged {
    let kind = "CertificatesReady";
    if outcome.is_ok()
        && !kept
        && let Some(finding) = find(
            findings,
            &[
                Reason::ObjectConflict,
                Reason::ApplyFailed,
                Reason::ObjectContested,
            ],
        )
    {
        return Judged::of_finding(kind, FALSE, &finding);
    }
    match outcome {
        Err(Refusal::Certificates(error)) => {
            Judged::new(kind, FALSE, Reason::CertificatesUnavailable.name(), error.clone())
        }
        Err(Refusal::InvalidSpec(_)) => Judged::new(
            kind,
            UNKNOWN,
            Reason::InvalidSpec.name(),
            "none are made before the spec is corrected",
        ),
        Err(Refusal::GivenCertificate(error)) => {
            Judged::new(kind, FALSE, Reason::GivenCertificateUnfit.name(), error.clone())
        }
        Ok(plan) if plan.given_fault.is_some() => Judged::new(
            kind,
            FALSE,
            Reason::GivenCertificateUnfit.name(),
            format!(
                "{}. The last good certificate is used until {}",
                plan.given_fault.as_deref().unwrap_or_default(),
                plan.certificates.leaf.not_after()
            ),
        ),
        Ok(Plan { certificates, .. }) if certificates.next.is_some() => Judged::new(
            kind,
            TRUE,
            "Rotating",
            "every certificate is valid; a new authority is to be known to every kube-apiserver before it is used",
        ),
        Ok(Plan { certificates, .. }) if certificates.rotates() => Judged::new(
            kind,
            TRUE,
            "Rotating",
            "every certificate is valid; the authority before stays trusted until every replica serves a certificate \
             of the new one",
        ),
        Ok(_) => Judged::new(
            kind,
            TRUE,
            "Valid",
            "every certificate is valid and renewed in time",
        ),
    }
}

pub(super) fn metrics_api_ready(
    observed: &Observed,
    outcome: Result<&Plan, &Refusal>,
    findings: &[Finding],
    kubelets: &Kubelets,
) -> Judged {
    let kind = "MetricsApiReady";
    if let Some(judged) = unseen(kind, observed, Part::Deployment) {
        return judged;
    }
    let status = observed
        .deployment
        .as_ref()
        .and_then(|deployment| deployment.status.as_ref());
    let ready = status
        .and_then(|status| status.ready_replicas)
        .unwrap_or_default();
    let planned = outcome.ok().filter(|plan| !plan.keeps_workload);
    let wanted = planned.map(|plan| plan.metrics_api.replicas).or_else(|| {
        observed
            .deployment
            .as_ref()
            .and_then(|deployment| deployment.spec.replicas)
    });
    let count = format!("{ready} of {} replicas are ready", wanted.unwrap_or_default());
    if ready > 0 {
        let reason = if observed.deployment.as_ref().is_some_and(rolls_out) {
            "RollingOut"
        } else if wanted.is_some_and(|wanted| ready < wanted) {
            "SomeReplicasReady"
        } else {
            "ReplicasReady"
        };
        return Judged::new(kind, TRUE, reason, count);
    }
    let causes = [
        Reason::InvalidSpec,
        Reason::ObjectConflict,
        Reason::ApplyFailed,
        Reason::ImagePullFailed,
        Reason::Unschedulable,
        Reason::PodsRefused,
        Reason::ContainerCrashing,
        Reason::ContainerNotStarting,
        Reason::RolloutStuck,
    ];
    // A replica is ready once it has metrics of a kubelet: what keeps most of them from answering keeps it too.
    let of_kubelets = || {
        let most = kubelets.failing.first().filter(|_| kubelets.answering == 0)?;
        find(findings, &[Reason::Kubelet(most.class)])
    };
    match find(findings, &causes).or_else(of_kubelets) {
        Some(finding) => Judged::of_finding(kind, FALSE, &finding),
        None => Judged::new(kind, FALSE, "NotReady", count),
    }
}

/// Whether Pods of an earlier revision are still being replaced, and that goes on.
pub(super) fn rolls_out(deployment: &Deployment) -> bool {
    let Some(status) = &deployment.status else {
        return true;
    };
    let stuck = status.conditions.iter().flatten().any(|condition| {
        condition.type_.as_deref() == Some("Progressing") && condition.status.as_deref() == Some("False")
    });
    let updated = status.updated_replicas.unwrap_or_default();
    let wanted = deployment.spec.replicas.unwrap_or(1);
    let done = status.observed_generation == deployment.metadata.generation
        && updated >= wanted
        && status.replicas.unwrap_or_default() <= updated;
    !(stuck || done)
}

pub(super) fn kubelets_reachable(observed: &Observed, kubelets: &Kubelets) -> Judged {
    let kind = "KubeletsReachable";
    if let Some(judged) = unseen(kind, observed, Part::Pods) {
        return judged;
    }
    let mut count = format!("{} of {} kubelets answer", kubelets.answering, kubelets.total);
    if !kubelets.pinned.is_empty() {
        count.push_str(&weaker_trust(kubelets));
    }
    match kubelets.failing.as_slice() {
        _ if !kubelets.reported => Judged::new(
            kind,
            UNKNOWN,
            "NotReported",
            "no replica of metrics-api reports yet",
        ),
        [] if kubelets.answering < kubelets.total => Judged::new(kind, UNKNOWN, "Pending", count),
        [] if kubelets.total == 0 => Judged::new(kind, UNKNOWN, "NoNodes", "there is no node to scrape"),
        [] => Judged::new(kind, TRUE, "AllAnswer", count),
        [only] => Judged::new(kind, FALSE, Reason::Kubelet(only.class).name(), count),
        [..] => Judged::new(kind, FALSE, "SeveralFailures", count),
    }
}

/// How many are trusted by less than a certificate of the cluster's CA, and the way out.
fn weaker_trust(kubelets: &Kubelets) -> String {
    format!(
        "; {} of them are on weaker trust, a key pinned at first use. To have them verified instead, set \
         serverTLSBootstrap: true in their configuration, restart them and approve their requests (kubectl get csr)",
        kubelets.pinned.len()
    )
}

pub(super) fn available(observed: &Observed, outcome: Result<&Plan, &Refusal>) -> Judged {
    let kind = "Available";
    match (&observed.read, outcome.map(|plan| &plan.registration)) {
        (_, Ok(Registration::Withheld(foreign))) => {
            let names: Vec<_> = foreign
                .iter()
                .map(|service| format!("{} points at {}", service.name, service.service))
                .collect();
            Judged::new(kind, FALSE, Reason::ForeignApiService.name(), names.join(", "))
        }
        (Read::Succeeded, _) => Judged::new(
            kind,
            TRUE,
            "Read",
            "metrics were read through kube-apiserver's aggregation layer",
        ),
        (Read::Failed { version, reason }, _) => {
            let message = format!(
                "listing nodes of {}/{version} failed: {reason}",
                names::METRICS_GROUP
            );
            Judged::new(kind, FALSE, Reason::ReadFailed.name(), message)
        }
        (Read::NotTried, Ok(Registration::AwaitEndpoint)) => Judged::new(
            kind,
            FALSE,
            "AwaitingEndpoint",
            "no replica of metrics-api is ready to be registered",
        ),
        (Read::NotTried, _) => Judged::new(kind, UNKNOWN, "NotRead", "metrics were not read yet"),
    }
}

pub(super) fn ready(judged: &[Judged], findings: &[Finding], kubelets: &Kubelets) -> Judged {
    let kind = "Ready";
    if let Some(finding) = findings
        .iter()
        .find(|finding| finding.severity == Severity::Failure)
    {
        return Judged::of_finding(kind, FALSE, finding);
    }
    // One sick node hides only itself, and what the operator may not see does no harm while the API answers.
    let missing = judged
        .iter()
        .filter(|condition| condition.kind != "KubeletsReachable" || kubelets.answering == 0)
        .filter(|condition| condition.reason != Reason::NotObserved.name())
        .find(|condition| condition.status != TRUE);
    match missing {
        Some(condition) => Judged::new(
            kind,
            FALSE,
            condition.reason.clone(),
            format!(
                "{} is {}: {}",
                condition.kind, condition.status, condition.message
            ),
        ),
        None => Judged::new(
            kind,
            TRUE,
            "Working",
            if kubelets.reported {
                format!(
                    "the Metrics API answers; {} of {} kubelets do",
                    kubelets.answering, kubelets.total
                )
            } else {
                "the Metrics API answers".to_owned()
            },
        ),
    }
}

pub(super) fn degraded(findings: &[Finding]) -> Judged {
    let kind = "Degraded";
    match findings.iter().find(|finding| finding.severity != Severity::Note) {
        Some(finding) => Judged::new(kind, TRUE, finding.reason.name(), finding.message()),
        None => Judged::new(kind, FALSE, "AsExpected", "nothing needs attention"),
    }
}

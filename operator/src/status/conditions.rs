//! What each condition says.

use contract::names;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::shorten;
use crate::api::{CertificateStatus, MetricsStackStatus};
use crate::diagnose::{Finding, Kubelets, Reason, Severity};
use crate::observe::{Observed, Read};
use crate::plan::{Plan, Refusal, Registration};

/// A condition without its history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Judged {
    kind: &'static str,
    status: &'static str,
    reason: String,
    message: String,
}

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

pub(super) fn aggregation(findings: &[Finding]) -> Judged {
    let kind = "AggregationReady";
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
    certificates: &[CertificateStatus],
    kept: bool,
    findings: &[Finding],
) -> Judged {
    let kind = "CertificatesReady";
    if outcome.is_ok()
        && !kept
        && let Some(finding) = find(findings, &[Reason::ObjectConflict, Reason::ApplyFailed])
    {
        return Judged::of_finding(kind, FALSE, &finding);
    }
    match outcome {
        Err(Refusal::Certificates(error)) => {
            Judged::new(kind, FALSE, Reason::CertificatesUnavailable.name(), error.clone())
        }
        Err(Refusal::InvalidSpec(_)) if certificates.is_empty() => Judged::new(
            kind,
            UNKNOWN,
            Reason::InvalidSpec.name(),
            "none are made before the spec is corrected",
        ),
        _ => Judged::new(
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
) -> Judged {
    let kind = "MetricsApiReady";
    let status = observed
        .deployment
        .as_ref()
        .and_then(|deployment| deployment.status.as_ref());
    let ready = status
        .and_then(|status| status.ready_replicas)
        .unwrap_or_default();
    let wanted = outcome.ok().map(|plan| plan.metrics_api.replicas).or_else(|| {
        observed
            .deployment
            .as_ref()
            .and_then(|deployment| deployment.spec.replicas)
    });
    let count = format!("{ready} of {} replicas are ready", wanted.unwrap_or_default());
    if ready > 0 {
        let reason = if wanted.is_some_and(|wanted| ready < wanted) {
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
    match find(findings, &causes) {
        Some(finding) => Judged::of_finding(kind, FALSE, &finding),
        None => Judged::new(kind, FALSE, "NotReady", count),
    }
}

pub(super) fn kubelets_reachable(kubelets: &Kubelets) -> Judged {
    let kind = "KubeletsReachable";
    let count = format!("{} of {} kubelets answer", kubelets.answering, kubelets.total);
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
    // One sick node hides only itself.
    let missing = judged
        .iter()
        .filter(|condition| condition.kind != "KubeletsReachable" || kubelets.answering == 0)
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
            format!(
                "the Metrics API answers; {} of {} kubelets do",
                kubelets.answering, kubelets.total
            ),
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

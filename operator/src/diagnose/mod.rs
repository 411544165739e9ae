//! From everything observed to findings: what is wrong, the evidence, and what to do.

mod certificates;
mod front_proxy;
mod kubelets;
mod pods;
mod reads;
mod table;

use contract::names;
use contract::report::ErrorClass;
use kube::ResourceExt as _;

pub use front_proxy::{allowed_names, publishes_front_proxy};
use kubelets::survey;
pub use kubelets::{FailingGroup, Kubelets};
pub use reads::available;
pub use table::{Entry, Reason};

use crate::api::TlsMode;
use crate::observe::{self, Observed, Part};
use crate::plan::{self, KubeletAuthorities, Plan, Refusal, Registration};

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The Metrics API does not work, or not as asked.
    Failure,
    /// A part does not work.
    Warning,
    /// Worth knowing.
    Note,
}

/// What is wrong or worth knowing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its kind.
    pub reason: Reason,
    /// How much it matters.
    pub severity: Severity,
    /// What was seen.
    pub evidence: String,
}

impl Finding {
    fn new(reason: Reason, severity: Severity, evidence: impl Into<String>) -> Self {
        Self {
            reason,
            severity,
            evidence: evidence.into(),
        }
    }

    /// What was seen and what it means.
    #[must_use]
    pub fn message(&self) -> String {
        format!(
            "{}. {}",
            self.evidence.trim_end_matches('.'),
            self.reason.entry().cause
        )
    }

    /// What to do.
    #[must_use]
    pub fn remedy(&self) -> &'static str {
        self.reason.entry().remedy
    }
}

/// What was found out of everything observed.
#[derive(Clone, Debug)]
pub struct Diagnosis {
    /// The most important first.
    pub findings: Vec<Finding>,
    /// The kubelets, counted.
    pub kubelets: Kubelets,
}

/// Looks at everything observed, once a turn.
#[must_use]
pub fn diagnose(observed: &Observed, outcome: Result<&Plan, &Refusal>) -> Diagnosis {
    let kubelets = survey(observed, outcome.ok());
    let findings = findings(observed, outcome, &kubelets);
    Diagnosis { findings, kubelets }
}

fn findings(observed: &Observed, outcome: Result<&Plan, &Refusal>, kubelets: &Kubelets) -> Vec<Finding> {
    let mut findings = Vec::new();
    match outcome {
        Ok(plan) => {
            if !plan.problems.is_empty() {
                let evidence = plan::in_words(&plan.problems);
                findings.push(Finding::new(Reason::InvalidSpec, Severity::Failure, evidence));
            }
            if let Some(fault) = &plan.given_fault {
                let evidence = format!(
                    "{fault}; the one before is used until {}",
                    plan.certificates.leaf.not_after()
                );
                findings.push(Finding::new(
                    Reason::GivenCertificateUnfit,
                    Severity::Warning,
                    evidence,
                ));
            }
            findings.extend(of_authorities(plan, observed));
            of_registration(&plan.registration, &mut findings);
        }
        Err(refusal) => findings.push(of_refusal(refusal)),
    }
    for conflict in &observed.conflicts {
        let evidence = format!(
            "{} lacks the label {}={}",
            conflict.object,
            names::MANAGED_BY_LABEL,
            names::MANAGED_BY
        );
        findings.push(Finding::new(Reason::ObjectConflict, Severity::Failure, evidence));
    }
    for server in &observed.former_servers {
        let runs = match &server.deployment {
            Some((namespace, name)) => format!(
                "whose Deployment {namespace}/{name} still runs; this removes it: kubectl delete deployment --namespace \
                 {namespace} {name}"
            ),
            None => "which still has endpoints".to_owned(),
        };
        let evidence = format!(
            "APIService {} was taken over from the Service {}, {runs}",
            server.api_service, server.service
        );
        findings.push(Finding::new(Reason::FormerServerRuns, Severity::Note, evidence));
    }
    for contest in &observed.contests {
        let evidence = format!(
            "{} is changed by {} as often as the operator puts it right",
            contest.object, contest.by
        );
        findings.push(Finding::new(Reason::ObjectContested, Severity::Warning, evidence));
    }
    if let Some(error) = &observed.apply_error {
        findings.push(Finding::new(Reason::ApplyFailed, Severity::Failure, error));
    }
    if !observed.monitoring_errors.is_empty() {
        let evidence = observed.monitoring_errors.join(". ");
        findings.push(Finding::new(
            Reason::MonitoringFailed,
            Severity::Warning,
            evidence,
        ));
    }
    for (part, error) in &observed.unseen {
        let evidence = format!("Failed to read {}: {error}", part.describe());
        findings.push(Finding::new(Reason::NotObserved, Severity::Warning, evidence));
    }
    if observed.sees(Part::FrontProxy) {
        findings.extend(front_proxy::finding(observed.authentication.as_ref()));
    }
    findings.extend(pods::findings(observed));
    reads::findings(observed, &mut findings);
    certificates::findings(observed, outcome.ok(), &mut findings);
    findings.extend(front_proxy::expiry(observed));
    of_kubelets(observed, outcome, kubelets, &mut findings);
    findings.sort_by_key(|finding| (finding.severity, rank(finding.reason)));
    findings
}

/// Ways in which kubelets fail stay in their order: the one that most share comes first.
fn rank(reason: Reason) -> Reason {
    match reason {
        Reason::Kubelet(_) => Reason::Kubelet(ErrorClass::NoAddress),
        other => other,
    }
}

fn of_authorities(plan: &Plan, observed: &Observed) -> Option<Finding> {
    let KubeletAuthorities::Kept { fault: Some(fault) } = &plan.kubelet.authorities else {
        return None;
    };
    let severity = if observed.deployment.is_some() {
        Severity::Warning
    } else {
        Severity::Failure
    };
    Some(Finding::new(Reason::KubeletAuthoritiesUnfit, severity, fault))
}

fn of_refusal(refusal: &Refusal) -> Finding {
    let reason = match refusal {
        Refusal::InvalidSpec(_) => Reason::InvalidSpec,
        Refusal::GivenCertificate(_) => Reason::GivenCertificateUnfit,
        Refusal::Certificates(_) => Reason::CertificatesUnavailable,
    };
    Finding::new(reason, Severity::Failure, refusal.to_string())
}

fn of_registration(registration: &Registration, findings: &mut Vec<Finding>) {
    if let Registration::Withheld(foreign) = registration {
        for service in foreign {
            let target = match service.service.as_str() {
                "Local" => "kube-apiserver itself, by a CustomResourceDefinition or the like".to_owned(),
                service => format!("the Service {service}"),
            };
            let evidence = format!(
                "APIService {} belongs to {} and points at {target}",
                service.name,
                service.owner.as_deref().unwrap_or("somebody else")
            );
            findings.push(Finding::new(
                Reason::ForeignApiService,
                Severity::Failure,
                evidence,
            ));
        }
    }
}

fn of_kubelets(
    observed: &Observed,
    outcome: Result<&Plan, &Refusal>,
    kubelets: &Kubelets,
    findings: &mut Vec<Finding>,
) {
    let severity = if kubelets.answering == 0 {
        Severity::Failure
    } else {
        Severity::Warning
    };
    for group in &kubelets.failing {
        let evidence = format!(
            "{} of {} kubelets fail with {}: {}",
            group.nodes.len(),
            kubelets.total,
            group.class,
            names_of(group.nodes.keys().map(String::as_str))
        );
        findings.push(Finding::new(Reason::Kubelet(group.class), severity, evidence));
    }
    let waits = |group: &FailingGroup| observe::awaits_certificate(group.class);
    let approves = outcome.is_ok_and(|plan| plan.kubelet.approves.is_some());
    if !approves && !observed.waiting_kubelets.is_empty() && kubelets.failing.iter().any(waits) {
        let evidence = format!(
            "{} kubelets wait for approval of their serving certificates: {}",
            observed.waiting_kubelets.len(),
            names_of(observed.waiting_kubelets.iter().map(String::as_str))
        );
        findings.push(Finding::new(
            Reason::KubeletCertificatesPending,
            Severity::Warning,
            evidence,
        ));
    }
    if !kubelets.pinned.is_empty() {
        let evidence = format!(
            "{} of {} kubelets are trusted by a pinned key: {}",
            kubelets.pinned.len(),
            kubelets.total,
            names_of(kubelets.pinned.iter().map(String::as_str))
        );
        findings.push(Finding::new(Reason::KubeletsPinned, Severity::Note, evidence));
    }
    if outcome.is_ok_and(|plan| plan.kubelet.tls_mode == TlsMode::Insecure && !plan.keeps_workload) {
        let evidence = format!("{} kubelets are believed unseen", kubelets.total);
        findings.push(Finding::new(
            Reason::KubeletsNotVerified,
            Severity::Note,
            evidence,
        ));
    }
    for replica in &observed.replicas {
        // One that is not ready yet may well not answer: what keeps it from starting is found at its Pod.
        if let Err(error) = &replica.report
            && observed
                .pods
                .iter()
                .any(|pod| pod.name_any() == replica.pod && pods::is_ready(pod))
        {
            let evidence = format!("Pod {}: {error}", replica.pod);
            findings.push(Finding::new(
                Reason::ReportUnavailable,
                Severity::Warning,
                evidence,
            ));
        }
    }
}

/// Up to three names, and how many more there are.
fn names_of<'a>(names: impl ExactSizeIterator<Item = &'a str>) -> String {
    let more = names.len().saturating_sub(kubelets::EXAMPLES);
    let text = names.take(kubelets::EXAMPLES).collect::<Vec<_>>().join(", ");
    if more > 0 {
        format!("{text} and {more} more")
    } else {
        text
    }
}

#[cfg(test)]
mod tests;

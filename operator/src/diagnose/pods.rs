//! Why metrics-api's Pods do not run.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodCondition};
use kube::ResourceExt as _;

use super::{Finding, Reason, Severity};
use crate::observe::{Observed, Part};

/// Longest piece of a container's last words.
const LAST_WORDS: usize = 300;

/// One finding a kind, about the first Pod that shows it.
pub(super) fn findings(observed: &Observed) -> Vec<Finding> {
    let ready = if observed.sees(Part::Deployment) {
        observed
            .deployment
            .as_ref()
            .and_then(|deployment| deployment.status.as_ref())
            .and_then(|status| status.ready_replicas)
            .is_some_and(|ready| ready > 0)
    } else {
        observed.ready_endpoints > 0
    };
    // While one replica answers, the others are missed, but nothing is broken.
    let severity = if ready {
        Severity::Warning
    } else {
        Severity::Failure
    };
    let mut seen = BTreeSet::new();
    let mut findings: Vec<_> = observed
        .pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .filter_map(trouble)
        .filter(|(reason, _)| seen.insert(*reason))
        .map(|(reason, evidence)| Finding::new(reason, severity, evidence))
        .collect();
    if let Some(message) = condition(observed, "ReplicaFailure", "True") {
        findings.push(Finding::new(Reason::PodsRefused, severity, message));
    }
    if findings.is_empty()
        && let Some(message) = condition(observed, "Progressing", "False")
    {
        findings.push(Finding::new(Reason::RolloutStuck, severity, message));
    }
    findings
}

/// Since when a Pod takes requests.
pub(super) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    Some(ready(pod)?.last_transition_time.as_ref()?.0)
}

/// Whether a Pod takes requests.
pub(super) fn is_ready(pod: &Pod) -> bool {
    ready(pod).is_some()
}

/// The condition Ready of a Pod, where it is True.
fn ready(pod: &Pod) -> Option<&PodCondition> {
    let mut conditions = pod.status.as_ref()?.conditions.iter().flatten();
    conditions.find(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn condition(observed: &Observed, kind: &str, status: &str) -> Option<String> {
    let conditions = observed
        .deployment
        .as_ref()?
        .status
        .as_ref()?
        .conditions
        .as_ref()?;
    let condition = conditions.iter().find(|condition| {
        condition.type_.as_deref() == Some(kind) && condition.status.as_deref() == Some(status)
    })?;
    let text = condition.message.clone().or_else(|| condition.reason.clone());
    Some(text.unwrap_or_else(|| format!("the Deployment's condition {kind} is {status}")))
}

fn trouble(pod: &Pod) -> Option<(Reason, String)> {
    let name = pod.name_any();
    let status = pod.status.as_ref()?;
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    if let Some(condition) = unscheduled {
        let why = condition
            .message
            .clone()
            .unwrap_or_else(|| "no node was found".to_owned());
        return Some((Reason::Unschedulable, format!("Pod {name}: {why}")));
    }
    status
        .container_statuses
        .iter()
        .flatten()
        .find_map(|container| of_container(pod, &name, container))
}

fn of_container(pod: &Pod, name: &str, container: &ContainerStatus) -> Option<(Reason, String)> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().unwrap_or_default();
    match reason {
        // These two take turns: the evidence must not.
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
            let node = pod
                .spec
                .as_ref()
                .and_then(|spec| spec.node_name.as_deref())
                .unwrap_or("its node");
            Some((
                Reason::ImagePullFailed,
                format!(
                    "Pod {name}: {node} cannot get the image {}",
                    image(pod, container)
                ),
            ))
        }
        "CrashLoopBackOff" => Some((
            Reason::ContainerCrashing,
            format!("Pod {name}: {}", last_words(container)),
        )),
        "" | "ContainerCreating" | "PodInitializing" => None,
        other => {
            let why = waiting.message.as_deref().unwrap_or_default();
            Some((
                Reason::ContainerNotStarting,
                format!("Pod {name}: {other} {why}").trim_end().to_owned(),
            ))
        }
    }
}

/// As the Pod asks for it: the status may hold a digest or nothing.
fn image<'a>(pod: &'a Pod, container: &'a ContainerStatus) -> &'a str {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.containers.iter().find(|other| other.name == container.name))
        .and_then(|container| container.image.as_deref())
        .unwrap_or(&container.image)
}

fn last_words(container: &ContainerStatus) -> String {
    let ended = container
        .last_state
        .as_ref()
        .and_then(|ContainerState { terminated, .. }| terminated.as_ref());
    let Some(ended) = ended else {
        return "metrics-api ended".to_owned();
    };
    let line = ended
        .message
        .as_deref()
        .and_then(|message| message.trim_end().lines().last());
    let line: String = line.unwrap_or_default().chars().take(LAST_WORDS).collect();
    let reason = ended.reason.as_deref().unwrap_or("Error");
    format!("metrics-api ended with {} ({reason}): {line}", ended.exit_code)
        .trim_end_matches(": ")
        .to_owned()
}

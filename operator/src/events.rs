//! Events on the stack: what has begun to be wrong, what to do about it, and that it is over.

use contract::names;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource as _};

use crate::api::{MetricsStack, MetricsStackStatus};
use crate::cluster;
use crate::diagnose::{Finding, Severity};
use crate::kubelet_certificates::Denied;
use crate::repair::Repair;

/// kube-apiserver takes notes of up to a kibibyte.
const NOTE_LIMIT: usize = 1024;
const ACTION: &str = "Reconcile";
/// Where something was left out.
const CUT: &str = "…";
const AFTER_REPAIR: &str = "It is as it was again. What to do: nothing, if that was an accident; what shall be otherwise \
                            belongs into the spec of the MetricsStack.";
const AFTER_DENIAL: &str = "What to do: if it is a kubelet of yours, put right what is named and restart it, and it asks \
                            again; otherwise see who has its credentials.";
const WHILE_STILL_THERE: &str = "It is tried again. What to do: mend what is named; where the operator will not run any more, \
                                 take the finalizer metricsstack.dev/cleanup away.";

/// Publishes changes of a stack's status as events.
pub struct Publisher(Recorder);

impl Publisher {
    /// `instance` is the name of this Pod.
    #[must_use]
    pub fn new(client: Client, instance: &str) -> Self {
        let reporter = Reporter {
            controller: names::MANAGED_BY.to_owned(),
            instance: Some(instance.to_owned()),
        };
        Self(Recorder::new(client, reporter))
    }

    /// Publishes what is new in `after` and its findings. An event that cannot be written is logged: it is not worth a
    /// retry.
    pub async fn publish(&self, stack: &MetricsStack, after: &MetricsStackStatus, findings: &[Finding]) {
        let about: ObjectReference = stack.object_ref(&());
        for event in news(stack.status.as_ref(), after, findings) {
            tracing::info!(
                reason = event.reason,
                warning = event.type_ == EventType::Warning,
                "{}",
                event.note.as_deref().unwrap_or_default()
            );
            self.write(&event, &about).await;
        }
    }

    /// Publishes which certificates were made anew (`CertificateRenewed`) or put back (`CertificateRestored`), and why.
    pub async fn certificates(&self, stack: &MetricsStack, reason: &str, certificates: &[String]) {
        for certificate in certificates {
            // Events of one kind become one, whatever they say, unless they are about different objects.
            let secret = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Secret".to_owned()),
                name: certificate.split_once(": ").map(|(name, _)| name.to_owned()),
                ..ObjectReference::default()
            };
            let event = Event {
                secondary: Some(secret),
                ..event(EventType::Normal, reason, certificate)
            };
            self.write(&event, &stack.object_ref(&())).await;
        }
    }

    /// Publishes which objects of the operator somebody else had changed or deleted.
    pub async fn repaired(&self, stack: &MetricsStack, repaired: &[Repair]) {
        for Repair { about, reason, found } in repaired {
            let event = Event {
                secondary: Some(about.clone()),
                ..event(EventType::Normal, reason, &sentences(found, AFTER_REPAIR))
            };
            self.write(&event, &stack.object_ref(&())).await;
        }
    }

    /// Publishes which requests of kubelets for certificates were denied, and why.
    pub(crate) async fn denied(&self, stack: &MetricsStack, requests: &[Denied]) {
        for Denied { name, why } in requests {
            let about = ObjectReference {
                api_version: Some("certificates.k8s.io/v1".to_owned()),
                kind: Some("CertificateSigningRequest".to_owned()),
                name: Some(name.clone()),
                ..ObjectReference::default()
            };
            let event = Event {
                secondary: Some(about),
                ..event(
                    EventType::Warning,
                    "KubeletCertificateDenied",
                    &sentences(why, AFTER_DENIAL),
                )
            };
            self.write(&event, &stack.object_ref(&())).await;
        }
    }

    /// Publishes why a stack that is being deleted is still there: its status tells of what was asked for before.
    pub async fn still_there(&self, stack: &MetricsStack, why: &str) {
        let event = event(
            EventType::Warning,
            "DeletionFailed",
            &sentences(why, WHILE_STILL_THERE),
        );
        self.write(&event, &stack.object_ref(&())).await;
    }

    async fn write(&self, event: &Event, about: &ObjectReference) {
        if let Err(error) = self.0.publish(event, about).await {
            tracing::warn!(
                error = cluster::describe(&error),
                reason = event.reason,
                "failed to write an event"
            );
        }
    }
}

/// What is new: findings of a kind that `before` did not have, and a change of the condition Ready.
fn news(before: Option<&MetricsStackStatus>, after: &MetricsStackStatus, findings: &[Finding]) -> Vec<Event> {
    let known = |reason: &str| {
        before.is_some_and(|before| before.findings.iter().any(|known| known.reason == reason))
    };
    let mut events: Vec<_> = findings
        .iter()
        .filter(|finding| !known(&finding.reason.name()))
        .map(|finding| {
            let type_ = match finding.severity {
                Severity::Failure | Severity::Warning => EventType::Warning,
                Severity::Note => EventType::Normal,
            };
            event(type_, &finding.reason.name(), &note(finding))
        })
        .collect();
    let ready = |status: &MetricsStackStatus| {
        status
            .conditions
            .iter()
            .find(|condition| condition.type_ == "Ready")
            .cloned()
    };
    let was_ready = before
        .and_then(ready)
        .is_some_and(|condition| condition.status == "True");
    match ready(after) {
        Some(now) if now.status == "True" && !was_ready => {
            events.push(event(EventType::Normal, "Ready", &now.message));
        }
        Some(now) if now.status != "True" && was_ready => {
            events.push(event(EventType::Warning, "NotReady", &now.message));
        }
        _ => {}
    }
    events
}

/// What was found, what it means and what to do. What somebody else's long error says is cut off before what to do is.
fn note(finding: &Finding) -> String {
    let entry = finding.reason.entry();
    let rest = format!("{} What to do: {}", entry.cause, entry.remedy);
    sentences(finding.evidence.trim_end_matches('.'), &rest)
}

/// What was found, shortened if it is long, and what we say to it.
fn sentences(found: &str, ours: &str) -> String {
    let room = NOTE_LIMIT.saturating_sub(". ".len() + ours.len());
    if found.len() <= room {
        return format!("{found}. {ours}");
    }
    let shorter = beginning(found, room.saturating_sub(CUT.len()));
    format!("{shorter}{CUT}. {ours}")
}

/// Whole characters of so many bytes at most.
fn beginning(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn event(type_: EventType, reason: &str, note: &str) -> Event {
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(beginning(note, NOTE_LIMIT).to_owned()),
        action: ACTION.to_owned(),
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::diagnose::Reason;

    fn finding() -> Finding {
        Finding {
            reason: Reason::ReadFailed,
            severity: Severity::Failure,
            evidence: "It hurts".to_owned(),
        }
    }

    fn status(ready: &str, findings: &[Finding]) -> MetricsStackStatus {
        let findings: Vec<_> = findings
            .iter()
            .map(|finding| json!({"reason": finding.reason.name(), "message": "", "remedy": ""}))
            .collect();
        serde_json::from_value(json!({
            "conditions": [{"type": "Ready", "status": ready, "reason": "R", "message": "m",
                "lastTransitionTime": "2026-11-24T00:00:00Z"}],
            "findings": findings,
        }))
        .unwrap()
    }

    #[test]
    fn what_is_known_is_no_news() {
        let (bad, good) = (status("False", &[finding()]), status("True", &[]));
        let reasons =
            |before: Option<&MetricsStackStatus>, after: &MetricsStackStatus, findings: &[Finding]| {
                news(before, after, findings)
                    .into_iter()
                    .map(|event| event.reason)
                    .collect::<Vec<_>>()
            };
        let found = Reason::ReadFailed.name();
        assert_eq!(reasons(None, &bad, &[finding()]), [found.as_str()]);
        assert_eq!(reasons(Some(&bad), &bad, &[finding()]), [""; 0]);
        assert_eq!(reasons(Some(&bad), &good, &[]), ["Ready"]);
        assert_eq!(
            reasons(Some(&good), &bad, &[finding()]),
            [found.as_str(), "NotReady"]
        );
        let note = news(None, &bad, &[finding()]).remove(0).note.unwrap();
        assert!(
            note.starts_with("It hurts. ") && note.contains("What to do: "),
            "{note}"
        );
    }

    #[test]
    fn whatever_somebody_else_says_what_to_do_is_said() {
        for evidence in ["ä".repeat(2000), format!("{}.", "x".repeat(900))] {
            let long = Finding {
                evidence,
                ..finding()
            };
            let note = note(&long);
            assert!(note.ends_with(long.remedy()) && note.contains("…. "), "{note}");
            assert!(
                note.len() <= NOTE_LIMIT && note.len() > NOTE_LIMIT - 4,
                "{}",
                note.len()
            );
        }
    }

    #[test]
    fn a_note_is_cut_at_a_whole_character() {
        let note = event(EventType::Normal, "R", &"ä".repeat(1000)).note.unwrap();
        assert!(note.len() <= NOTE_LIMIT && note.len() > NOTE_LIMIT - 4);
    }
}

//! What an error says may differ from try to try: a local port, a time, a counter. A status is written only when what it
//! says changes in kind; until then the first text stays, or each write would lead to the next.

use std::borrow::Cow;

use contract::report::FrontProxyFault;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::{ApiServerStatus, FindingStatus, MetricsStackStatus};
use crate::diagnose::Reason;

/// Kinds of findings that quote an error of somebody else.
const QUOTING: [Reason; 7] = [
    Reason::NotObserved,
    Reason::ApplyFailed,
    Reason::MonitoringFailed,
    Reason::ReadFailed,
    Reason::ReportUnavailable,
    Reason::ContainerCrashing,
    Reason::ContainerNotStarting,
];
/// Kinds that say by themselves what is wrong. In what words somebody else says it may differ each time.
const CLASSIFIED: [Reason; 4] = [
    Reason::ControlPlaneCannotReachPods,
    Reason::ServiceWithoutEndpoints,
    Reason::ConnectionLost,
    Reason::ServingCertificateNotTrusted,
];

/// Puts back the texts of `previous` that say the same.
pub(super) fn settle(status: &mut MetricsStackStatus, previous: Option<&MetricsStackStatus>) {
    let Some(previous) = previous else {
        return;
    };
    // Each text once: two findings that say the same of two things stay two.
    let mut known: Vec<&FindingStatus> = previous.findings.iter().collect();
    for finding in &mut status.findings {
        let same = known.iter().position(|known| {
            known.reason == finding.reason && says_the_same(&known.reason, &known.message, &finding.message)
        });
        if let Some(at) = same {
            finding.message.clone_from(&known.remove(at).message);
        }
    }
    let servers = previous.aggregation.iter().flat_map(|known| &known.api_servers);
    for server in status
        .aggregation
        .iter_mut()
        .flat_map(|known| &mut known.api_servers)
    {
        let is_same = |known: &&ApiServerStatus| {
            let reason = Reason::ReadFailed.name();
            known.address == server.address && says_the_same(&reason, &known.message, &server.message)
        };
        if let Some(same) = servers.clone().find(is_same) {
            server.message.clone_from(&same.message);
        }
    }
    for condition in &mut status.conditions {
        let is_same = |known: &&Condition| {
            known.type_ == condition.type_
                && known.status == condition.status
                && known.reason == condition.reason
                && says_the_same(&known.reason, &known.message, &condition.message)
        };
        if let Some(same) = previous.conditions.iter().find(is_same) {
            condition.message.clone_from(&same.message);
        }
    }
}

fn says_the_same(reason: &str, before: &str, now: &str) -> bool {
    let is_one_of = |reasons: &[Reason]| reasons.iter().any(|known| known.name() == reason);
    before == now
        || is_one_of(&CLASSIFIED)
        || is_one_of(&FrontProxyFault::ALL.map(Reason::FrontProxy))
        || is_one_of(&QUOTING) && kind(before) == kind(now)
}

/// A text without its numbers. An HTTP status in parentheses and the index of a list stay: those are what it is about.
fn kind(text: &str) -> String {
    let mut kind = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest
            .find(|character: char| !character.is_alphanumeric())
            .unwrap_or(rest.len());
        let (word, after) = if end == 0 {
            rest.split_at(first.len_utf8())
        } else {
            rest.split_at(end)
        };
        kind.push_str(&without_number(word, kind.chars().last(), after.chars().next()));
        rest = after;
    }
    // `10.2 s` and `10 s`, `10.0.0.1:443` and `10.0.0.1:80`.
    for joint in ['.', ':', '-'] {
        let pair = format!("#{joint}#");
        while kind.contains(&pair) {
            kind = kind.replace(&pair, "#");
        }
    }
    kind
}

fn without_number(word: &str, before: Option<char>, after: Option<char>) -> Cow<'_, str> {
    let is_status = word.len() == 3 && before == Some('(') && after == Some(')');
    let is_index = before == Some('[') && after == Some(']');
    let has_digit = word.contains(|character: char| character.is_ascii_digit());
    let is_number = word.starts_with(|character: char| character.is_ascii_digit());
    let is_hexadecimal = word.len() >= 4 && word.chars().all(|character| character.is_ascii_hexdigit());
    if has_digit && !is_status && !is_index && (is_number || is_hexadecimal) {
        Cow::Borrowed("#")
    } else {
        Cow::Borrowed(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_times_and_counts_make_no_other_kind() {
        for (one, other) in [
            ("read tcp 10.0.0.1:44312: reset", "read tcp 10.0.0.1:51000: reset"),
            ("no answer after 10.001 s", "no answer after 10 s"),
            ("back-off 2m40s restarting", "back-off 10s restarting"),
            ("uid f47ac10b-58cc-4372 differs", "uid 0e02b2c3-58cc-1111 differs"),
        ] {
            assert_eq!(kind(one), kind(other));
        }
    }

    #[test]
    fn another_status_field_version_or_word_is_another_kind() {
        for (one, other) in [
            ("no (500)", "no (503)"),
            ("spec.ports[0]: bad", "spec.ports[1]: bad"),
            ("metrics.k8s.io/v1 failed", "metrics.k8s.io/v1beta1 failed"),
            ("after 10 s: refused", "after 10 s: reset"),
        ] {
            assert_ne!(kind(one), kind(other));
        }
    }

    #[test]
    fn two_findings_of_a_kind_stay_two() {
        let finding = |message: &str| FindingStatus {
            reason: Reason::ReportUnavailable.name(),
            message: message.to_owned(),
            ..FindingStatus::default()
        };
        let of = |messages: [&str; 2]| MetricsStackStatus {
            findings: messages.map(finding).into(),
            ..MetricsStackStatus::default()
        };
        let before = of(["10.0.0.1: port 1", "10.0.0.2: port 2"]);
        let mut after = of(["10.0.0.1: port 3", "10.0.0.2: port 4"]);
        settle(&mut after, Some(&before));
        assert_eq!(after, before);
    }

    #[test]
    fn a_number_of_ours_is_news() {
        let of = |message: &str| MetricsStackStatus {
            findings: vec![FindingStatus {
                reason: Reason::KubeletsPinned.name(),
                message: message.to_owned(),
                ..FindingStatus::default()
            }],
            ..MetricsStackStatus::default()
        };
        let mut after = of("2 of 3");
        settle(&mut after, Some(&of("1 of 3")));
        assert_eq!(after, of("2 of 3"));
    }
}

//! What a status keeps of the one before it.

use super::*;
use crate::observe::FrontProxyCertificate;

#[test]
fn nothing_changes_when_nothing_did() {
    let observed = working();
    let plan = planned(&json!({}), &observed);
    let first = status(None, Some(1), &observed, plan.as_ref(), at(0));
    // As it is read back.
    let first: MetricsStackStatus = serde_json::from_value(serde_json::to_value(first).unwrap()).unwrap();
    assert_eq!(
        status(Some(&first), Some(1), &observed, plan.as_ref(), at(3600)),
        first
    );
}

#[test]
fn the_front_proxys_certificate_stays_known_to_an_operator_that_starts() {
    let mut observed = working();
    observed.front_proxy_certificate = Some(FrontProxyCertificate {
        common_name: "front-proxy-client".to_owned(),
        not_before: "2026-01-01T00:00:00Z".parse().unwrap(),
        not_after: "2027-01-01T00:00:00Z".parse().unwrap(),
    });
    let shown = of(&json!({}), &observed).aggregation.unwrap();
    let client = shown.proxy_client.clone().unwrap();
    assert_eq!(
        (client.common_name.as_str(), client.not_after.0.to_string()),
        ("front-proxy-client", "2027-01-01T00:00:00Z".to_owned())
    );
    let previous = MetricsStackStatus {
        aggregation: Some(shown),
        ..MetricsStackStatus::default()
    };
    let (observed, plan) = (working(), planned(&json!({}), &working()).unwrap());
    let later = status(Some(&previous), None, &observed, Ok(&plan), at(1));
    assert_eq!(later.aggregation.unwrap().proxy_client, Some(client));
}

#[test]
fn a_transition_is_dated_and_the_others_keep_their_dates() {
    let plan = planned(&json!({}), &working());
    let before = status(None, Some(1), &working(), plan.as_ref(), at(0));
    let failed = Observed {
        read: Read::Failed {
            version: "v1".to_owned(),
            reason: "503".to_owned(),
        },
        ..working()
    };
    let after = status(Some(&before), Some(1), &failed, plan.as_ref(), at(60));
    for condition in &after.conditions {
        let changed = ["Ready", "Available", "Degraded"].contains(&condition.type_.as_str());
        let expected = if changed { at(60) } else { at(0) };
        assert_eq!(condition.last_transition_time.0, expected, "{}", condition.type_);
    }
}

#[test]
fn messages_that_differ_from_try_to_try_do_not_change_the_status() {
    let plan = planned(&json!({}), &working());
    let slow = |message: &str| Observed {
        replicas: vec![replica(vec![
            node("a", TlsState::Verified, Some(message)),
            node("b", TlsState::Verified, None),
        ])],
        ..working()
    };
    let before = status(None, Some(1), &slow("after 10.001 s"), plan.as_ref(), at(0));
    let after = status(
        Some(&before),
        Some(1),
        &slow("after 10.002 s"),
        plan.as_ref(),
        at(15),
    );
    assert_eq!(after, before);
    assert_eq!(after.kubelets.unwrap().failing[0].examples, ["a: after 10.001 s"]);
}

#[test]
fn errors_that_differ_in_a_number_do_not_change_the_status() {
    let plan = planned(&json!({}), &working());
    let failing = |port: u16, code: u16| Observed {
        read: Read::Failed {
            version: "v1".to_owned(),
            reason: format!("read tcp 10.0.0.1:{port}: reset ({code})"),
        },
        apply_error: Some(format!("Service ns/metrics-api: no answer on {port}")),
        unseen: [(Part::Nodes, format!("port {port} is closed"))].into(),
        ..working()
    };
    let before = status(None, Some(1), &failing(40_001, 500), plan.as_ref(), at(0));
    let after = status(
        Some(&before),
        Some(1),
        &failing(40_002, 500),
        plan.as_ref(),
        at(15),
    );
    assert_eq!(after, before);
    let other = status(
        Some(&before),
        Some(1),
        &failing(40_003, 503),
        plan.as_ref(),
        at(30),
    );
    assert_ne!(other, before);
}

use contract::report::FrontProxyFault;
use serde_json::{Value, json};

use super::*;
use crate::fixtures::{now, replica, two_nodes};

const LONG_AGO: SignedDuration = SignedDuration::from_mins(10);

/// A read that failed in this way, of an `APIService` whose condition says that.
fn failed(reason: &str, condition: &Value) -> Observed {
    let service = json!({
        "metadata": {"name": "v1.metrics.k8s.io", "labels": {names::MANAGED_BY_LABEL: names::MANAGED_BY}},
        "status": {"conditions": [condition]},
    });
    Observed {
        at: now(),
        ready_endpoints: 1,
        read: Read::Failed {
            version: "v1".to_owned(),
            reason: reason.to_owned(),
        },
        api_services: vec![serde_json::from_value(service).unwrap()],
        replicas: vec![replica(Vec::new())],
        ..two_nodes()
    }
}

fn unavailable(message: &str) -> Value {
    json!({"type": "Available", "status": "False", "reason": "FailedDiscoveryCheck", "message": message})
}

fn found(observed: &Observed) -> Finding {
    let mut all = Vec::new();
    findings(observed, &mut all);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

/// What kube-apiserver says where it is cut off from the Pods, or does not trust their certificate.
#[test]
fn what_kube_aggregator_says_tells_causes_apart() {
    const UNAVAILABLE: &str = "the server is currently unable to handle the request (503)";
    let cases = [
        (
            r#"failing or missing response from https://10.244.1.5:10250/apis/metrics.k8s.io/v1: Get "https://10.244.1.5:10250/apis/metrics.k8s.io/v1": dial tcp 10.244.1.5:10250: connect: no route to host"#,
            Reason::ControlPlaneCannotReachPods,
        ),
        (
            r#"failing or missing response from https://10.96.0.9:443/apis/metrics.k8s.io/v1: Get "https://10.96.0.9:443/apis/metrics.k8s.io/v1": net/http: request canceled while waiting for connection (Client.Timeout exceeded while awaiting headers)"#,
            Reason::ControlPlaneCannotReachPods,
        ),
        (
            r#"failing or missing response from https://10.244.1.5:10250/apis/metrics.k8s.io/v1: Get "https://10.244.1.5:10250/apis/metrics.k8s.io/v1": tls: failed to verify certificate: x509: certificate signed by unknown authority"#,
            Reason::ServingCertificateNotTrusted,
        ),
        (
            "bad status from https://10.244.1.5:10250/apis/metrics.k8s.io/v1: 404",
            Reason::ReadFailed,
        ),
    ];
    for (message, reason) in cases {
        let finding = found(&failed(UNAVAILABLE, &unavailable(message)));
        assert_eq!((finding.reason, finding.severity), (reason, Severity::Failure));
        assert!(finding.evidence.contains(message) && finding.evidence.contains(UNAVAILABLE));
    }
    let dial = "error trying to reach service: dial tcp 10.244.1.5:10250: i/o timeout (503)";
    let works = json!({"type": "Available", "status": "True"});
    assert_eq!(
        found(&failed(dial, &works)).reason,
        Reason::ControlPlaneCannotReachPods
    );
    let said = |what: &str| failed(&format!("error trying to reach service: {what} (503)"), &works);
    assert_eq!(
        found(&said("http2: client connection lost")).reason,
        Reason::ConnectionLost
    );
    // With HTTP/1.1 that is not an old connection, for it was tried again.
    assert_eq!(found(&said("EOF")).reason, Reason::ReadFailed);
    // The operator does not reach them either: then it is not the control plane's way to them.
    let mut unreachable = failed(dial, &works);
    unreachable.replicas[0].report = Err("no route".to_owned());
    assert_eq!(found(&unreachable).reason, Reason::ReadFailed);
}

#[test]
fn ready_replicas_that_no_endpoint_names_are_the_services_fault() {
    let missing = |reason: &str| {
        json!({"type": "Available", "status": "False", "reason": reason,
            "message": "endpointslices for service/metrics-api in \"ns\" have no addresses with port name \"https\""})
    };
    let observed = |reason: &str, ready: usize| {
        let pod = json!({"metadata": {"name": "a"}, "status": {"conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": now() - LONG_AGO}]}});
        let pods = vec![serde_json::from_value(pod).unwrap(); ready];
        Observed {
            ready_endpoints: 0,
            pods,
            ..failed(
                "the server is currently unable to handle the request (503)",
                &missing(reason),
            )
        }
    };
    let finding = found(&observed("MissingEndpoints", 2));
    assert_eq!(
        (finding.reason, finding.severity),
        (Reason::ServiceWithoutEndpoints, Severity::Failure)
    );
    assert_eq!(
        finding.evidence,
        "2 replicas are ready, and APIService v1.metrics.k8s.io is Available=False, MissingEndpoints: endpointslices for \
         service/metrics-api in \"ns\" have no addresses with port name \"https\""
    );
    // Without a ready replica there are none to have, and a look at both may fall between two moments.
    for other in [
        observed("MissingEndpoints", 0),
        observed("FailedDiscoveryCheck", 2),
    ] {
        let mut all = Vec::new();
        findings(&other, &mut all);
        assert!(all.is_empty(), "{all:?}");
    }
}

#[test]
fn who_is_unauthorized_has_a_front_proxy_certificate_that_metrics_api_refuses() {
    let refused = |fault, at: &str| {
        let mut replica = replica(Vec::new());
        replica.report.as_mut().unwrap().front_proxy = Some(FrontProxyRefusal {
            fault,
            message: format!("because of {at}"),
            at: at.to_owned(),
        });
        replica
    };
    let works = json!({"type": "Available", "status": "True"});
    let mut observed = failed("Unauthorized (401)", &works);
    assert_eq!(found(&observed).reason, Reason::ReadFailed);
    observed.replicas = vec![
        refused(FrontProxyFault::Expired, "2026-11-24T05:00:01Z"),
        refused(FrontProxyFault::NameNotAllowed, "2026-11-24T05:00:00Z"),
    ];
    let finding = found(&observed);
    assert_eq!(finding.reason, Reason::FrontProxy(FrontProxyFault::Expired));
    assert!(
        finding.evidence.ends_with("because of 2026-11-24T05:00:01Z"),
        "{}",
        finding.evidence
    );
    // Somebody else may have knocked: what fails otherwise has another cause.
    observed.read = Read::Failed {
        version: "v1".to_owned(),
        reason: "Forbidden (403)".to_owned(),
    };
    assert_eq!(found(&observed).reason, Reason::ReadFailed);
}

#[test]
fn namespaces_that_cannot_be_deleted_are_counted_and_three_named() {
    let observed = Observed {
        stuck_namespaces: ["a", "b", "c", "d"].map(str::to_owned).to_vec(),
        ..two_nodes()
    };
    let finding = found(&observed);
    assert_eq!(
        (finding.reason, finding.severity),
        (Reason::NamespacesStuck, Severity::Warning)
    );
    assert_eq!(
        finding.evidence,
        "4 namespaces cannot be deleted: a, b, c and 1 more"
    );
}

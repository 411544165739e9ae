//! The operator's own metrics.

use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::api::MetricsStackStatus;
use crate::diagnose::Reason;

/// Seconds that turns take: one that finds nothing to do asks kube-apiserver some thirty times.
const BUCKETS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0];

/// Counters and gauges. Clones count together.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Turns, by how they ended.
    pub reconciles: Family<Outcome, Counter>,
    /// Seconds that they took.
    duration: Histogram,
    /// Objects created, changed or deleted.
    pub writes: Counter,
    /// 1 while this replica holds the Lease.
    pub leader: Gauge,
    conditions: Family<ConditionLabels, Gauge>,
    findings: Family<FindingLabels, Gauge>,
    expiries: Family<CertificateLabels, Gauge>,
    front_proxy_expiry: Family<FrontProxyLabels, Gauge>,
}

/// Label of [`Metrics::reconciles`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// How a turn ended.
    pub result: TurnResult,
}

/// How a turn ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the label's values")]
pub enum TurnResult {
    /// As it should.
    success,
    /// Early: it is done again.
    error,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConditionLabels {
    r#type: String,
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FindingLabels {
    reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FrontProxyLabels {
    common_name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CertificateLabels {
    secret: String,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            reconciles: Family::default(),
            duration: Histogram::new(BUCKETS),
            writes: Counter::default(),
            leader: Gauge::default(),
            conditions: Family::default(),
            findings: Family::default(),
            expiries: Family::default(),
            front_proxy_expiry: Family::default(),
        }
    }
}

impl Metrics {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        // From the start: an increase of what was never seen is not zero.
        for result in [TurnResult::success, TurnResult::error] {
            drop(self.reconciles.get_or_create(&Outcome { result }));
        }
        let registry = registry.sub_registry_with_prefix("metricsstack_operator");
        registry.register(
            "reconciles",
            "Turns of the reconcile loop",
            self.reconciles.clone(),
        );
        registry.register_with_unit(
            "reconcile_duration",
            "How long they took",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register(
            "object_writes",
            "Objects created, changed or deleted",
            self.writes.clone(),
        );
        registry.register("leader", "Whether this replica reconciles", self.leader.clone());
        registry.register(
            "condition",
            "The conditions of the MetricsStack: 1 for the status that it has",
            self.conditions.clone(),
        );
        registry.register(
            "finding",
            "What is wrong or worth knowing, by its reason in the status: 1 while it is",
            self.findings.clone(),
        );
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "When the certificate in a Secret of the operator expires",
            Unit::Seconds,
            self.expiries.clone(),
        );
        registry.register_with_unit(
            "front_proxy_certificate_expiry_timestamp",
            "When the certificate expires that kube-apiserver shows as front proxy",
            Unit::Seconds,
            self.front_proxy_expiry.clone(),
        );
    }

    /// Counts one turn.
    pub fn turn(&self, result: TurnResult, took: Duration) {
        self.reconciles.get_or_create(&Outcome { result }).inc();
        self.duration.observe(took.as_secs_f64());
    }

    /// What the status says from now on.
    pub fn show(&self, status: &MetricsStackStatus) {
        for condition in &status.conditions {
            for value in ["True", "False", "Unknown"] {
                let labels = ConditionLabels {
                    r#type: condition.type_.clone(),
                    status: value,
                };
                let is_so = i64::from(condition.status == value);
                self.conditions.get_or_create(&labels).set(is_so);
            }
        }
        for reason in Reason::all() {
            let reason = reason.name();
            let is_found = status.findings.iter().any(|finding| finding.reason == reason);
            self.findings
                .get_or_create(&FindingLabels { reason })
                .set(i64::from(is_found));
        }
        // One that is no longer kept does not expire.
        self.expiries.clear();
        for certificate in &status.certificates {
            let secret = certificate.name.clone();
            let expiry = certificate.not_after.0.as_second();
            self.expiries
                .get_or_create(&CertificateLabels { secret })
                .set(expiry);
        }
        self.front_proxy_expiry.clear();
        let aggregation = status.aggregation.as_ref();
        if let Some(shown) = aggregation.and_then(|aggregation| aggregation.proxy_client.as_ref()) {
            let expiry = shown.not_after.0.as_second();
            let common_name = shown.common_name.clone();
            self.front_proxy_expiry
                .get_or_create(&FrontProxyLabels { common_name })
                .set(expiry);
        }
    }

    /// Nothing is known of a stack any more: it is gone, or another replica reconciles it.
    pub fn forget(&self) {
        self.conditions.clear();
        self.findings.clear();
        self.expiries.clear();
        self.front_proxy_expiry.clear();
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use prometheus_client::encoding::text::encode;
    use serde_json::json;

    use super::*;
    use crate::api::{AggregationStatus, CertificateStatus, FindingStatus, ProxyClientStatus};

    fn exposition(metrics: &Metrics) -> String {
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        // Families are in no order.
        let mut lines: Vec<_> = text.lines().collect();
        lines.sort_unstable();
        lines.join("\n")
    }

    fn status() -> MetricsStackStatus {
        let condition = |kind: &str, status: &str| {
            serde_json::from_value(
                json!({"type": kind, "status": status, "reason": "R", "message": "",
                "lastTransitionTime": "2026-11-25T12:00:00Z"}),
            )
            .unwrap()
        };
        MetricsStackStatus {
            conditions: vec![condition("Ready", "False"), condition("Available", "Unknown")],
            findings: vec![FindingStatus {
                reason: "ReadFailed".to_owned(),
                ..FindingStatus::default()
            }],
            aggregation: Some(AggregationStatus {
                proxy_client: Some(ProxyClientStatus {
                    common_name: "front-proxy-client".to_owned(),
                    not_after: Time("2027-11-25T12:00:00Z".parse().unwrap()),
                }),
                ..AggregationStatus::default()
            }),
            certificates: vec![CertificateStatus {
                name: "metrics-api-serving".to_owned(),
                not_after: Time("2027-02-23T12:00:00Z".parse().unwrap()),
                renew_at: None,
            }],
            ..MetricsStackStatus::default()
        }
    }

    #[test]
    fn the_exposition_is_as_committed() {
        let metrics = Metrics::default();
        metrics.turn(TurnResult::success, Duration::from_millis(200));
        metrics.turn(TurnResult::error, Duration::from_secs(3));
        metrics.writes.inc_by(20);
        metrics.leader.set(1);
        metrics.show(&status());
        insta::assert_snapshot!(exposition(&metrics));
    }

    #[test]
    fn what_has_passed_is_zero_and_what_is_gone_is_not_told() {
        let metrics = Metrics::default();
        metrics.show(&status());
        let mut better = status();
        better.findings.clear();
        better.conditions[0].status = "True".to_owned();
        metrics.show(&better);
        let text = exposition(&metrics);
        for line in [
            r#"metricsstack_operator_finding{reason="ReadFailed"} 0"#,
            r#"metricsstack_operator_condition{type="Ready",status="True"} 1"#,
            r#"metricsstack_operator_condition{type="Ready",status="False"} 0"#,
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "{line} is not in\n{text}"
            );
        }
        metrics.forget();
        let text = exposition(&metrics);
        for name in [
            "condition{",
            "finding{",
            "certificate_expiry_timestamp_seconds{",
            "front_proxy_certificate_expiry_timestamp_seconds ",
        ] {
            assert!(!text.contains(name), "{name} is in\n{text}");
        }
    }
}

//! How much CPU and memory a replica reserves where the stack does not say.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Most nodes of a step, with what a replica reserves there: what one took that was read ten times a second, about three
/// times over, for nodes with more than twenty pods of two containers. Measured with fake kubelets (`cargo e2e test
/// sizes`): 10m and 24Mi at 100 such nodes, 26m and 47Mi at 500, 51m and 76Mi at 1000, 82m and 132Mi at 2000. As
/// kube-apiserver writes quantities: by these a Deployment is known to be of a step.
const STEPS: [(usize, &str, &str); 6] = [
    (100, "25m", "48Mi"),
    (500, "100m", "128Mi"),
    (1_000, "200m", "256Mi"),
    (2_000, "300m", "400Mi"),
    (5_000, "1", "1Gi"),
    (usize::MAX, "2", "2Gi"),
];

/// Annotation of the Deployment: since when fewer nodes than it is sized for would do with a smaller step.
pub(crate) const SMALLER_SINCE: &str = "metricsstack.dev/smaller-since";
/// How long that must last.
const PATIENCE: SignedDuration = SignedDuration::from_hours(24);

/// What a replica reserves.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sizing {
    pub(super) requests: ResourceRequirements,
    /// See [`SMALLER_SINCE`].
    pub(super) smaller_since: Option<Timestamp>,
}

/// What a replica reserves for this many nodes. A step up is taken at once, one down when there have been at most 70 % of
/// its nodes for a day, so that a cluster that breathes around a step's edge does not restart metrics-api with each
/// breath.
pub(super) fn sizing(nodes: usize, current: Option<&Deployment>, now: Timestamp) -> Sizing {
    let step_for = |nodes: usize| {
        STEPS
            .iter()
            .position(|(most, ..)| nodes <= *most)
            .unwrap_or(STEPS.len() - 1)
    };
    let wanted = step_for(nodes);
    // With room to grow by three sevenths.
    let roomy = step_for(nodes.saturating_mul(10).div_ceil(7));
    let (step, smaller_since) = match current.and_then(current_step) {
        Some(current_step) if roomy < current_step => {
            let since = current.and_then(smaller_since).unwrap_or(now);
            if now.duration_since(since) >= PATIENCE {
                (roomy, None)
            } else {
                (current_step, Some(since))
            }
        }
        Some(current_step) => (wanted.max(current_step), None),
        None => (wanted, None),
    };
    let (_, cpu, memory) = STEPS.get(step).copied().unwrap_or(STEPS[0]);
    Sizing {
        requests: ResourceRequirements {
            requests: Some(BTreeMap::from([
                ("cpu".to_owned(), Quantity(cpu.to_owned())),
                ("memory".to_owned(), Quantity(memory.to_owned())),
            ])),
            ..ResourceRequirements::default()
        },
        smaller_since,
    }
}

fn smaller_since(deployment: &Deployment) -> Option<Timestamp> {
    deployment
        .metadata
        .annotations
        .as_ref()?
        .get(SMALLER_SINCE)?
        .parse()
        .ok()
}

fn current_step(deployment: &Deployment) -> Option<usize> {
    let containers = &deployment.spec.template.spec.as_ref()?.containers;
    let requests = containers.first()?.resources.as_ref()?.requests.as_ref()?;
    let (cpu, memory) = (requests.get("cpu")?, requests.get("memory")?);
    STEPS
        .iter()
        .position(|(_, step_cpu, step_memory)| cpu.0 == *step_cpu && memory.0 == *step_memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "2026-11-24T00:00:00Z";

    fn at(hour: i64) -> Timestamp {
        START.parse::<Timestamp>().unwrap() + SignedDuration::from_hours(hour)
    }

    /// CPU at an hour after a Deployment with that CPU and perhaps the annotation; and whether the annotation is there
    /// then.
    fn sized(
        nodes: usize,
        current: Option<&str>,
        since: Option<i64>,
        hour: i64,
    ) -> (String, Option<Timestamp>) {
        let deployment = current.map(|cpu| {
            let memory = STEPS.iter().find(|(_, step, _)| *step == cpu).unwrap().2;
            let annotations = match since {
                Some(hour) => serde_json::json!({SMALLER_SINCE: at(hour)}),
                None => serde_json::json!({}),
            };
            serde_json::from_value(serde_json::json!({
                "metadata": {"annotations": annotations},
                "spec": {"selector": {}, "template": {"spec": {"containers": [
                    {"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}},
                ]}}},
            }))
            .unwrap()
        });
        let sizing = sizing(nodes, deployment.as_ref(), at(hour));
        let cpu = sizing.requests.requests.unwrap()["cpu"].0.clone();
        (cpu, sizing.smaller_since)
    }

    /// kube-apiserver writes `1000m` as `1` and `1024Mi` as `1Gi`.
    #[test]
    fn quantities_are_as_kube_apiserver_writes_them() {
        for (_, cpu, memory) in STEPS {
            assert!(!cpu.ends_with("000m"), "{cpu}");
            let mebibytes: Option<u32> = memory.strip_suffix("Mi").map(|number| number.parse().unwrap());
            assert!(mebibytes.is_none_or(|number| number % 1024 != 0), "{memory}");
        }
    }

    #[test]
    fn a_step_up_is_taken_at_once() {
        for (nodes, cpu) in [
            (0, "25m"),
            (100, "25m"),
            (101, "100m"),
            (1_001, "300m"),
            (100_000, "2"),
        ] {
            assert_eq!(sized(nodes, None, None, 0), (cpu.to_owned(), None));
            assert_eq!(sized(nodes, Some("25m"), None, 0), (cpu.to_owned(), None));
        }
    }

    #[test]
    fn a_step_down_is_taken_after_a_day_below_seven_tenths() {
        let (kept, smaller) = ("100m".to_owned(), "25m".to_owned());
        assert_eq!(sized(71, Some("100m"), None, 0), (kept.clone(), None));
        assert_eq!(sized(70, Some("100m"), None, 0), (kept.clone(), Some(at(0))));
        assert_eq!(sized(70, Some("100m"), Some(0), 23), (kept.clone(), Some(at(0))));
        assert_eq!(
            sized(71, Some("100m"), Some(0), 23),
            (kept, None),
            "from the start"
        );
        assert_eq!(sized(70, Some("100m"), Some(0), 24), (smaller.clone(), None));
        assert_eq!(
            sized(70, Some("1"), Some(0), 24),
            (smaller, None),
            "several at once"
        );
        let garbage = sized(3, Some("300m"), Some(100), 24);
        assert_eq!(
            garbage,
            ("300m".to_owned(), Some(at(100))),
            "a clock that was ahead"
        );
    }
}

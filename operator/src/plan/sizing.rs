//! How much CPU and memory a replica reserves where the stack does not say.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// Most nodes of a step, with what a replica reserves there. A quarter of what metrics-server asks for: 1m and 2Mi a
/// node beyond the first hundred, from 100m and 200Mi.
const STEPS: [(usize, &str, &str); 5] = [
    (100, "25m", "48Mi"),
    (500, "125m", "256Mi"),
    (1_000, "250m", "512Mi"),
    (5_000, "1250m", "2560Mi"),
    (usize::MAX, "2500m", "5120Mi"),
];

/// What a replica reserves for this many nodes. A step down waits until a fifth of the lower step is free, so that a
/// cluster that breathes around a step's edge does not restart metrics-api with each breath.
pub(super) fn requests(nodes: usize, current: Option<&Deployment>) -> ResourceRequirements {
    let index = STEPS
        .iter()
        .position(|(most, ..)| nodes <= *most)
        .unwrap_or(STEPS.len() - 1);
    let kept = current
        .and_then(current_step)
        .filter(|current| *current == index + 1)
        .filter(|_| STEPS.get(index).is_some_and(|(most, ..)| nodes > most - most / 5));
    let (_, cpu, memory) = STEPS.get(kept.unwrap_or(index)).copied().unwrap_or(STEPS[0]);
    ResourceRequirements {
        requests: Some(BTreeMap::from([
            ("cpu".to_owned(), Quantity(cpu.to_owned())),
            ("memory".to_owned(), Quantity(memory.to_owned())),
        ])),
        ..ResourceRequirements::default()
    }
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

    fn cpu(nodes: usize, current: Option<&str>) -> String {
        let deployment = current.map(|cpu| {
            let memory = STEPS.iter().find(|(_, step, _)| *step == cpu).unwrap().2;
            serde_json::from_value(serde_json::json!({
                "spec": {"selector": {}, "template": {"spec": {"containers": [
                    {"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}},
                ]}}},
            }))
            .unwrap()
        });
        requests(nodes, deployment.as_ref()).requests.unwrap()["cpu"]
            .0
            .clone()
    }

    #[test]
    fn a_step_up_is_taken_at_once_and_a_step_down_late() {
        assert_eq!(cpu(0, None), "25m");
        assert_eq!(cpu(100, None), "25m");
        assert_eq!(cpu(101, Some("25m")), "125m");
        assert_eq!(cpu(81, Some("125m")), "125m");
        assert_eq!(cpu(80, Some("125m")), "25m");
        assert_eq!(cpu(90, Some("250m")), "25m", "two steps are no breath");
        assert_eq!(cpu(100_000, None), "2500m");
    }
}

//! metrics-api's Deployment.

use std::time::Duration;

use contract::names;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy, RollingUpdateDeployment};
use k8s_openapi::api::core::v1::{
    Affinity, Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, EnvVarSource,
    HTTPGetAction, KeyToPath, LocalObjectReference, ObjectFieldSelector, PodAffinityTerm, PodAntiAffinity,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, SeccompProfile, SecretVolumeSource, SecurityContext,
    Volume, VolumeMount, WeightedPodAffinityTerm,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::service::PORT_NAME;
use super::{labels, namespaced, selector};
use crate::api::TlsMode;
use crate::plan::sizing::SMALLER_SINCE;
use crate::plan::{KubeletAuthorities, KubeletPlan, MetricsApiPlan, Placement, Plan};

const TLS_DIRECTORY: &str = "/etc/metrics-api/tls";
const KUBELET_CA_DIRECTORY: &str = "/etc/metrics-api/kubelet-ca";
/// How long a rollout may stand still before Kubernetes calls it stuck.
const PROGRESS_DEADLINE_SECONDS: i32 = 120;
/// How long a replica that is told to end still answers: until no proxy sends it requests any more.
const SHUTDOWN_DELAY: Duration = Duration::from_secs(8);
/// The delay, metrics-api's own 20 s for open requests, and a margin.
const GRACE_PERIOD_SECONDS: i64 = 40;
/// metrics-api's own default for a scrape.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) fn metrics_api(plan: &Plan) -> Deployment {
    let metrics_api = &plan.metrics_api;
    let mut metadata = namespaced(&plan.namespace, names::METRICS_API);
    metadata.annotations = metrics_api
        .smaller_since
        .map(|since| [(SMALLER_SINCE.to_owned(), since.to_string())].into());
    Deployment {
        metadata,
        spec: DeploymentSpec {
            replicas: Some(metrics_api.replicas),
            revision_history_limit: Some(3),
            progress_deadline_seconds: Some(PROGRESS_DEADLINE_SECONDS),
            selector: LabelSelector {
                match_labels: Some(selector()),
                ..LabelSelector::default()
            },
            strategy: Some(strategy(metrics_api)),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels()),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(metrics_api, &plan.kubelet)),
            },
            ..DeploymentSpec::default()
        },
        ..Deployment::default()
    }
}

/// A replica is replaced before it ends wherever that cannot get stuck: replicas of two templates may share a node, with
/// our own rules.
fn strategy(metrics_api: &MetricsApiPlan) -> DeploymentStrategy {
    let (surge, unavailable) = match metrics_api.placement {
        // Two cannot have one port.
        _ if metrics_api.host_network => (0, 1),
        Placement::Apart | Placement::PreferApart => (1, 0),
        Placement::Custom(_) => (1, i32::from(metrics_api.replicas > 1)),
    };
    DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment {
            max_surge: Some(IntOrString::Int(surge)),
            max_unavailable: Some(IntOrString::Int(unavailable)),
        }),
    }
}

fn pod(metrics_api: &MetricsApiPlan, kubelet: &KubeletPlan) -> PodSpec {
    let secrets = &metrics_api.image_pull_secrets;
    PodSpec {
        service_account_name: Some(names::METRICS_API.to_owned()),
        enable_service_links: Some(false),
        priority_class_name: Some(metrics_api.priority_class_name.clone()),
        termination_grace_period_seconds: Some(GRACE_PERIOD_SECONDS),
        node_selector: Some(metrics_api.node_selector.clone()),
        tolerations: Some(metrics_api.tolerations.clone()),
        affinity: Some(affinity(&metrics_api.placement)),
        topology_spread_constraints: Some(metrics_api.topology_spread.clone()),
        host_network: metrics_api.host_network.then_some(true),
        dns_policy: metrics_api
            .host_network
            .then(|| "ClusterFirstWithHostNet".to_owned()),
        image_pull_secrets: (!secrets.is_empty()).then(|| {
            secrets
                .iter()
                .map(|name| LocalObjectReference { name: name.clone() })
                .collect()
        }),
        security_context: Some(PodSecurityContext {
            // As whom is the image's word (65532), or that of who admits the Pod: OpenShift gives each namespace users of
            // its own and refuses others.
            run_as_non_root: Some(true),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(metrics_api, kubelet)],
        volumes: Some(volumes(kubelet)),
        ..PodSpec::default()
    }
}

fn container(metrics_api: &MetricsApiPlan, kubelet: &KubeletPlan) -> Container {
    Container {
        name: names::METRICS_API.to_owned(),
        image: Some(metrics_api.image.clone()),
        image_pull_policy: Some(metrics_api.image_pull_policy.as_str().to_owned()),
        args: Some(arguments(metrics_api, kubelet)),
        env: Some(vec![EnvVar {
            name: "POD_NAMESPACE".to_owned(),
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector {
                    api_version: Some("v1".to_owned()),
                    field_path: "metadata.namespace".to_owned(),
                }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        }]),
        ports: Some(vec![ContainerPort {
            name: Some(PORT_NAME.to_owned()),
            container_port: i32::from(metrics_api.port),
            protocol: Some("TCP".to_owned()),
            ..ContainerPort::default()
        }]),
        resources: Some(metrics_api.resources.clone()),
        liveness_probe: Some(probe("/livez", 10)),
        readiness_probe: Some(probe("/readyz", 5)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                ..Capabilities::default()
            }),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..SecurityContext::default()
        }),
        // Its last lines tell in the Pod's status why it ended.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        volume_mounts: Some(
            mounts(kubelet)
                .map(|(name, path)| VolumeMount {
                    name: name.to_owned(),
                    mount_path: path.to_owned(),
                    read_only: Some(true),
                    ..VolumeMount::default()
                })
                .collect(),
        ),
        ..Container::default()
    }
}

fn arguments(metrics_api: &MetricsApiPlan, kubelet: &KubeletPlan) -> Vec<String> {
    let types: Vec<_> = kubelet
        .address_types
        .iter()
        .map(|address| address.as_str())
        .collect();
    let mut arguments = vec![
        format!("--secure-port={}", metrics_api.port),
        format!("--tls-cert-file={TLS_DIRECTORY}/{}", names::TLS_CERTIFICATE),
        format!("--tls-private-key-file={TLS_DIRECTORY}/{}", names::TLS_KEY),
        format!("--metric-resolution={}", go_duration(metrics_api.resolution)),
        format!("--kubelet-preferred-address-types={}", types.join(",")),
        "--kubelet-use-node-status-port".to_owned(),
        format!("--kubelet-source={}", kubelet.source.as_str()),
        format!("--kubelet-tls-mode={}", kubelet.tls_mode.as_str()),
        format!("--kubelet-service-account={}", names::KUBELET_SERVICE_ACCOUNT),
        format!("--log-level={}", metrics_api.log_level.as_str()),
        format!("--logging-format={}", metrics_api.log_format.as_str()),
        format!("--shutdown-delay-duration={}", go_duration(SHUTDOWN_DELAY)),
    ];
    // metrics-api wants a scrape to be over well before the next one.
    let longest = metrics_api.resolution * 9 / 10;
    if longest < REQUEST_TIMEOUT {
        arguments.push(format!("--kubelet-request-timeout={}", go_duration(longest)));
    }
    if mounts_kubelet_ca(kubelet) {
        arguments.push(format!(
            "--kubelet-certificate-authority={KUBELET_CA_DIRECTORY}/{}",
            names::KUBELET_CA
        ));
    }
    if !kubelet.node_selector.is_empty() {
        let terms: Vec<_> = kubelet
            .node_selector
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        arguments.push(format!("--node-selector={}", terms.join(",")));
    }
    arguments
}

/// In whole milliseconds: finer is of no use.
fn go_duration(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    if milliseconds.is_multiple_of(1000) {
        format!("{}s", milliseconds / 1000)
    } else {
        format!("{milliseconds}ms")
    }
}

fn probe(path: &str, period_seconds: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String(PORT_NAME.to_owned()),
            scheme: Some("HTTPS".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period_seconds),
        timeout_seconds: Some(5),
        failure_threshold: Some(3),
        ..Probe::default()
    }
}

fn mounts_kubelet_ca(kubelet: &KubeletPlan) -> bool {
    kubelet.authorities != KubeletAuthorities::Cluster && kubelet.tls_mode != TlsMode::Insecure
}

fn mounts(kubelet: &KubeletPlan) -> impl Iterator<Item = (&'static str, &'static str)> {
    let ca = mounts_kubelet_ca(kubelet).then_some(("kubelet-ca", KUBELET_CA_DIRECTORY));
    [("tls", TLS_DIRECTORY)].into_iter().chain(ca)
}

fn volumes(kubelet: &KubeletPlan) -> Vec<Volume> {
    let item = |key: &str| KeyToPath {
        key: key.to_owned(),
        path: key.to_owned(),
        ..KeyToPath::default()
    };
    mounts(kubelet)
        .map(|(name, path)| {
            let name = name.to_owned();
            if path == TLS_DIRECTORY {
                let secret = SecretVolumeSource {
                    secret_name: Some(names::SERVING_SECRET.to_owned()),
                    // Whoever the user is. Nothing else runs in the Pod.
                    default_mode: Some(0o444),
                    items: Some(vec![item(names::TLS_CERTIFICATE), item(names::TLS_KEY)]),
                    ..SecretVolumeSource::default()
                };
                Volume {
                    name,
                    secret: Some(secret),
                    ..Volume::default()
                }
            } else {
                let config_map = ConfigMapVolumeSource {
                    name: names::KUBELET_CA_CONFIG_MAP.to_owned(),
                    items: Some(vec![item(names::KUBELET_CA)]),
                    ..ConfigMapVolumeSource::default()
                };
                Volume {
                    name,
                    config_map: Some(config_map),
                    ..Volume::default()
                }
            }
        })
        .collect()
}

fn affinity(placement: &Placement) -> Affinity {
    let term = PodAffinityTerm {
        topology_key: "kubernetes.io/hostname".to_owned(),
        label_selector: Some(LabelSelector {
            match_labels: Some(selector()),
            ..LabelSelector::default()
        }),
        // Of one revision: else a node that is down would keep a rollout from the place of the last Pod that runs.
        match_label_keys: Some(vec!["pod-template-hash".to_owned()]),
        ..PodAffinityTerm::default()
    };
    let anti_affinity = match placement {
        Placement::Custom(affinity) => return (**affinity).clone(),
        Placement::Apart => PodAntiAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![term]),
            ..PodAntiAffinity::default()
        },
        Placement::PreferApart => PodAntiAffinity {
            preferred_during_scheduling_ignored_during_execution: Some(vec![WeightedPodAffinityTerm {
                weight: 100,
                pod_affinity_term: term,
            }]),
            ..PodAntiAffinity::default()
        },
    };
    Affinity {
        pod_anti_affinity: Some(anti_affinity),
        ..Affinity::default()
    }
}

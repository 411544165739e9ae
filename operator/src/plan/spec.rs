//! From the fields of a spec to those of a plan: defaults filled, everything checked.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{
    AddressPrefixes, Environment, KubeletPlan, MetricsApiPlan, MonitoringPlan, Placement, Problem, ca_bundle,
    labels, scheduling, sizing,
};
use crate::api::{
    AddressType, CertificateIssuer, CertificatesSpec, KubeletSpec, KubeletTlsSpec, LogFormat, LogLevel,
    MetricsApiSpec, MonitoringMode, MonitoringSpec, ResourcesSpec, TlsMode,
};
use crate::certificates::Lifetimes;
use crate::cluster;
use crate::observe::Observed;

const DEFAULT_REPLICAS: i32 = 2;
/// Default port in the network of a node, where 10250 is the kubelet's.
const HOST_PORT: u16 = 4443;
const DEFAULT_RESOLUTION: Duration = Duration::from_secs(15);
const DEFAULT_PRIORITY_CLASS: &str = "system-cluster-critical";
const DEFAULT_CA_VALIDITY: Duration = Duration::from_hours(87_600);
const DEFAULT_LEAF_VALIDITY: Duration = Duration::from_hours(2_160);
const DEFAULT_ADDRESS_TYPES: [AddressType; 5] = [
    AddressType::InternalIp,
    AddressType::Hostname,
    AddressType::InternalDns,
    AddressType::ExternalDns,
    AddressType::ExternalIp,
];

pub(super) fn metrics_api(
    spec: MetricsApiSpec,
    observed: &Observed,
    environment: &Environment,
    now: Timestamp,
    problems: &mut Vec<Problem>,
) -> MetricsApiPlan {
    let MetricsApiSpec {
        image,
        image_pull_policy,
        image_pull_secrets,
        replicas,
        resources,
        resolution,
        node_selector,
        tolerations,
        affinity,
        topology_spread_constraints,
        host_network,
        port,
        priority_class_name,
        log_level,
        log_format,
    } = spec;
    let mut node_selector = selector("spec.metricsApi.nodeSelector", node_selector, problems);
    // The image is for Linux: a node of another system could never run it.
    node_selector.insert("kubernetes.io/os".to_owned(), "linux".to_owned());
    let tolerations = tolerations.unwrap_or_else(scheduling::default_tolerations);
    let able = scheduling::able_nodes(&observed.nodes, &node_selector, &tolerations, affinity.as_ref());
    let replicas = replicas.unwrap_or(if able == 1 { 1 } else { DEFAULT_REPLICAS });
    let placement = match affinity {
        Some(affinity) => Placement::Custom(Box::new(affinity)),
        // A rule that cannot be kept would leave a replica pending for ever.
        None if replicas > 1 && usize::try_from(replicas).is_ok_and(|replicas| replicas <= able) => {
            Placement::Apart
        }
        None => Placement::PreferApart,
    };
    let resolution = duration(
        "spec.metricsApi.resolution",
        resolution.as_deref(),
        DEFAULT_RESOLUTION,
        Duration::from_secs(10)..=Duration::from_mins(5),
        "a duration from 10s to 5m, such as \"15s\"",
        problems,
    );
    let host_network = host_network.unwrap_or(false);
    let port = self::port(port, host_network, problems);
    let (resources, smaller_since) = if let Some(resources) = resources {
        (given_resources(resources), None)
    } else {
        let sizing = sizing::sizing(observed.nodes.len(), observed.deployment.as_ref(), now);
        (sizing.requests, sizing.smaller_since)
    };
    MetricsApiPlan {
        image: image.unwrap_or_else(|| environment.image.clone()),
        image_pull_policy: image_pull_policy.unwrap_or(environment.image_pull_policy),
        image_pull_secrets: image_pull_secrets.map_or_else(
            || environment.image_pull_secrets.clone(),
            |secrets| secrets.into_iter().map(|secret| secret.name).collect(),
        ),
        replicas,
        resources,
        smaller_since,
        resolution,
        node_selector,
        tolerations,
        placement,
        topology_spread: topology_spread_constraints.unwrap_or_else(scheduling::default_spread),
        host_network,
        port,
        priority_class_name: priority_class_name.unwrap_or_else(|| DEFAULT_PRIORITY_CLASS.to_owned()),
        log_level: log_level.unwrap_or(LogLevel::Info),
        log_format: log_format.unwrap_or(LogFormat::Text),
    }
}

fn port(port: Option<i32>, host_network: bool, problems: &mut Vec<Problem>) -> u16 {
    let default = if host_network {
        HOST_PORT
    } else {
        names::METRICS_API_PORT
    };
    let Some(found) = port else { return default };
    let taken = host_network && found == i32::from(names::METRICS_API_PORT);
    match u16::try_from(found) {
        Ok(port) if port >= 1024 && !taken => port,
        _ => {
            problems.push(Problem {
                field: "spec.metricsApi.port",
                found: format!("found {found}"),
                expected: "a port from 1024 to 65535; with hostNetwork not 10250, which is the kubelet's",
            });
            default
        }
    }
}

fn given_resources(ResourcesSpec { requests, limits }: ResourcesSpec) -> ResourceRequirements {
    let quantities = |map: BTreeMap<String, IntOrString>| {
        map.into_iter()
            .map(|(name, value)| {
                let value = match value {
                    IntOrString::Int(number) => number.to_string(),
                    IntOrString::String(text) => text,
                };
                (name, Quantity(value))
            })
            .collect()
    };
    ResourceRequirements {
        requests: requests.map(quantities),
        limits: limits.map(quantities),
        claims: None,
    }
}

pub(super) fn kubelet(spec: KubeletSpec, observed: &Observed, problems: &mut Vec<Problem>) -> KubeletPlan {
    let KubeletSpec {
        source,
        address_types,
        node_selector,
        tls,
        approve_serving_certificates,
        serving_certificate_address_prefixes,
    } = spec;
    let prefixes = address_prefixes(serving_certificate_address_prefixes.unwrap_or_default(), problems);
    let KubeletTlsSpec { mode, ca_bundle } = tls.unwrap_or_default();
    KubeletPlan {
        source: source.unwrap_or_default(),
        address_types: address_types.unwrap_or_else(|| DEFAULT_ADDRESS_TYPES.to_vec()),
        node_selector: selector("spec.kubelet.nodeSelector", node_selector, problems),
        tls_mode: mode.unwrap_or(TlsMode::Auto),
        authorities: ca_bundle::authorities(ca_bundle, observed, problems),
        approves: approve_serving_certificates.unwrap_or(false).then_some(prefixes),
    }
}

/// All but the kinds that there are.
pub(super) fn monitoring(spec: MonitoringSpec, problems: &mut Vec<Problem>) -> MonitoringPlan {
    let MonitoringSpec {
        service_monitor,
        rules,
        dashboard,
        labels,
    } = spec;
    let is_wanted = |mode: Option<MonitoringMode>| mode.unwrap_or_default() == MonitoringMode::Auto;
    MonitoringPlan {
        kinds: None,
        service_monitor: is_wanted(service_monitor),
        rules: is_wanted(rules),
        dashboard: is_wanted(dashboard),
        labels: selector("spec.monitoring.labels", labels, problems),
    }
}

fn address_prefixes(given: Vec<String>, problems: &mut Vec<Problem>) -> AddressPrefixes {
    let mut prefixes = Vec::new();
    for text in given {
        match text.parse() {
            Ok(prefix) => prefixes.push(prefix),
            Err(_) => problems.push(Problem {
                field: "spec.kubelet.servingCertificateAddressPrefixes",
                found: format!("found {text:?}"),
                expected: "addresses with a length of prefix, such as \"10.0.0.0/8\" or \"fd00::/64\"",
            }),
        }
    }
    AddressPrefixes(prefixes)
}

fn selector(
    field: &'static str,
    given: Option<BTreeMap<String, String>>,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, String> {
    let labels = given.unwrap_or_default();
    if let Some(found) = labels::fault(&labels) {
        problems.push(Problem {
            field,
            found,
            expected: "labels: names and values of up to 63 letters, digits, '-', '_' and '.', such as \"pool\": \"a\"",
        });
    }
    labels
}

/// The Secret that somebody else keeps the serving certificate in.
pub(super) fn given_secret(spec: &CertificatesSpec, problems: &mut Vec<Problem>) -> Option<String> {
    let is_given = spec.issuer == Some(CertificateIssuer::Secret);
    let found = match (&spec.secret_name, is_given) {
        (None, false) => return None,
        (Some(name), true) if !cluster::SECRETS.contains(&name.as_str()) => return Some(name.clone()),
        (Some(name), true) => format!("found {name:?}, which is the operator's own"),
        (Some(name), false) => format!("found {name:?} without issuer Secret"),
        (None, true) => "found none".to_owned(),
    };
    problems.push(Problem {
        field: "spec.certificates.secretName",
        found,
        expected: "with issuer Secret, and only then, the name of a Secret that somebody else keeps",
    });
    None
}

pub(super) fn lifetimes(spec: &CertificatesSpec, problems: &mut Vec<Problem>) -> Lifetimes {
    let CertificatesSpec {
        ca_validity,
        leaf_validity,
        ..
    } = spec;
    let longest = DEFAULT_CA_VALIDITY;
    Lifetimes {
        ca: duration(
            "spec.certificates.caValidity",
            ca_validity.as_deref(),
            DEFAULT_CA_VALIDITY,
            Duration::from_mins(3)..=longest,
            "a duration from 3m to 87600h, such as \"8760h\"",
            problems,
        ),
        leaf: duration(
            "spec.certificates.leafValidity",
            leaf_validity.as_deref(),
            DEFAULT_LEAF_VALIDITY,
            Duration::from_mins(1)..=longest,
            "a duration from 1m to 87600h, such as \"2160h\"",
            problems,
        ),
    }
}

/// The schema bounds durations too, but an older one may be installed.
fn duration(
    field: &'static str,
    text: Option<&str>,
    default: Duration,
    bounds: std::ops::RangeInclusive<Duration>,
    expected: &'static str,
    problems: &mut Vec<Problem>,
) -> Duration {
    let Some(text) = text else { return default };
    let parsed = text
        .parse::<kube::core::Duration>()
        .ok()
        .filter(|parsed| !parsed.is_negative())
        .map(Duration::from)
        .filter(|parsed| bounds.contains(parsed));
    parsed.unwrap_or_else(|| {
        problems.push(Problem {
            field,
            found: format!("found {text:?}"),
            expected,
        });
        default
    })
}

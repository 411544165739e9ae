//! From what a `MetricsStack` asks for and what was observed to what shall be: defaults filled, everything checked.

mod ca_bundle;
mod labels;
mod scheduling;
pub(crate) mod sizing;
mod spec;
mod types;

use std::net::IpAddr;
use std::time::Duration;

use contract::names;
use jiff::Timestamp;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::ResourceExt as _;

pub(crate) use types::in_words;
pub use types::{
    AddressPrefixes, EgressPorts, ForeignApiService, KubeletAuthorities, KubeletPlan, MetricsApiPlan,
    MonitoringPlan, NetworkPolicyPlan, Placement, Plan, Problem, Refusal, Registration,
};

use crate::adopt;
use crate::api::{AdoptPolicy, ImagePullPolicy, MetricsStack, MetricsStackSpec, NetworkPolicyMode};
use crate::certificates::{self, Given, Judgement, Lifetimes, Server, Stored};
use crate::desired;
use crate::observe::{Observed, Part};

/// Where the operator runs and what it was installed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// Namespace of the operator, and so of metrics-api.
    pub namespace: String,
    /// Image with metrics-api where the stack names none.
    pub image: String,
    /// When it is pulled, where the stack does not say.
    pub image_pull_policy: ImagePullPolicy,
    /// Names of Secrets with credentials of its registry, where the stack names none.
    pub image_pull_secrets: Vec<String>,
    /// How long every state of a rotation of certificates lasts at least.
    pub certificate_minimum_age: Duration,
    /// Address of Service `default/kubernetes`, where Pods reach kube-apiserver.
    pub api_service: Option<IpAddr>,
}

/// Default of [`Environment::certificate_minimum_age`]. kube-apiservers see a new bundle within a second; this is for one
/// that could not be asked.
pub const CERTIFICATE_MINIMUM_AGE: Duration = Duration::from_mins(1);

impl Environment {
    /// With an image that anybody may pull.
    #[must_use]
    pub fn new(namespace: &str, image: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            image: image.to_owned(),
            image_pull_policy: ImagePullPolicy::IfNotPresent,
            image_pull_secrets: Vec::new(),
            certificate_minimum_age: CERTIFICATE_MINIMUM_AGE,
            api_service: None,
        }
    }
}

/// Makes the plan. Certificates that are still good are kept, others made.
///
/// What ran before a spec that cannot be keeps running, and its certificates are renewed: `last_good` is the last spec
/// without a fault, if this process has seen one; else what exists tells as much as is needed for that.
pub fn plan(
    stack: &MetricsStack,
    last_good: Option<&MetricsStackSpec>,
    observed: &Observed,
    environment: &Environment,
    now: Timestamp,
) -> Result<Plan, Refusal> {
    let mut problems = Vec::new();
    let mut asked = Asked::read(&stack.spec, observed, environment, now, &mut problems);
    let mut keeps_workload = !knows_workload(observed);
    if !problems.is_empty() {
        if let Some(good) = last_good {
            asked = Asked::read(good, observed, environment, now, &mut Vec::new());
        } else if runs(observed) {
            asked.lifetimes = certificates::lifetimes(stored(observed), asked.lifetimes);
            keeps_workload = true;
        } else {
            return Err(Refusal::InvalidSpec(problems));
        }
    }
    let Asked {
        metrics_api,
        kubelet,
        lifetimes,
        given_secret,
        adopt,
        network_policy: network_policy_mode,
        monitoring,
    } = asked;

    if matches!(kubelet.authorities, KubeletAuthorities::Kept { .. }) && !mounts_authorities(observed) {
        // There are none to keep: Pods would wait for what is not there.
        keeps_workload = true;
    }
    let server = server(&environment.namespace);
    let (usage, stored) = (&observed.usage, stored(observed));
    let (certificates, renewed, given_fault) = if let Some(name) = given_secret {
        // The others are a service to those who look at it; they cannot be asked of somebody else.
        let server = Server {
            dns_names: server.dns_names.into_iter().take(1).collect(),
            ..server
        };
        let given = given(&name, observed, &server, now);
        let (certificates, fault) =
            certificates::take(given, stored, usage, &server, now).map_err(Refusal::GivenCertificate)?;
        (certificates, Vec::new(), fault)
    } else {
        let judgement = certificates::judge(stored, usage, &server, lifetimes, now);
        let renewed = renewed(&judgement);
        let certificates = certificates::issue(judgement, &server, lifetimes, now)
            .map_err(|error| Refusal::Certificates(with_source(&error)))?;
        (certificates, renewed, None)
    };
    Ok(Plan {
        namespace: environment.namespace.clone(),
        kubelet,
        next_check: certificates.renew_at(),
        certificates,
        given_fault,
        renewed,
        registration: registration(observed, adopt, now),
        network_policy: network_policy(network_policy_mode, metrics_api.host_network, observed),
        metrics_api,
        monitoring: MonitoringPlan {
            kinds: observed.monitoring_kinds.clone(),
            ..monitoring
        },
        adopts: observed
            .api_services
            .iter()
            .filter(|service| !observed.owns(service) && adopt::takes(adopt, service, now))
            .map(kube::ResourceExt::name_any)
            .collect(),
        former: observed
            .api_services
            .iter()
            .filter_map(|service| Some((service.name_any(), adopt::kept(service, observed.owns(service))?)))
            .collect(),
        problems,
        keeps_workload,
    })
}

/// A spec with its defaults.
struct Asked {
    metrics_api: MetricsApiPlan,
    kubelet: KubeletPlan,
    lifetimes: Lifetimes,
    given_secret: Option<String>,
    adopt: AdoptPolicy,
    network_policy: NetworkPolicyMode,
    monitoring: MonitoringPlan,
}

impl Asked {
    fn read(
        spec: &MetricsStackSpec,
        observed: &Observed,
        environment: &Environment,
        now: Timestamp,
        problems: &mut Vec<Problem>,
    ) -> Self {
        let MetricsStackSpec {
            metrics_api,
            kubelet,
            certificates,
            api_service,
            network_policy,
            monitoring,
        } = spec.clone();
        let certificates = certificates.unwrap_or_default();
        Self {
            metrics_api: spec::metrics_api(
                metrics_api.unwrap_or_default(),
                observed,
                environment,
                now,
                problems,
            ),
            kubelet: spec::kubelet(kubelet.unwrap_or_default(), observed, problems),
            lifetimes: spec::lifetimes(&certificates, problems),
            given_secret: spec::given_secret(&certificates, problems),
            adopt: api_service.and_then(|spec| spec.adopt).unwrap_or_default(),
            network_policy: network_policy.unwrap_or_default(),
            monitoring: spec::monitoring(monitoring.unwrap_or_default(), problems),
        }
    }
}

fn network_policy(mode: NetworkPolicyMode, host_network: bool, observed: &Observed) -> NetworkPolicyPlan {
    if mode == NetworkPolicyMode::Disabled || host_network {
        return NetworkPolicyPlan::Absent;
    }
    let egress = EgressPorts {
        kubelets: observed.nodes.iter().map(|node| node.kubelet_port).collect(),
        api_servers: observed
            .api_servers
            .iter()
            .map(|(address, _)| address.port())
            .collect(),
    };
    if egress.kubelets.is_empty() || egress.api_servers.is_empty() {
        NetworkPolicyPlan::Kept
    } else {
        NetworkPolicyPlan::Wanted(egress)
    }
}

/// Whether something of ours is there already.
fn runs(observed: &Observed) -> bool {
    let secrets = [&observed.ca_secret, &observed.serving_secret];
    let secrets = secrets.into_iter().flatten().map(|secret| &secret.metadata);
    let deployment = observed.deployment.iter().map(|deployment| &deployment.metadata);
    secrets.chain(deployment).any(desired::ours)
        || observed.api_services.iter().any(|service| observed.owns(service))
}

/// Whether enough was seen to say what the Deployment shall be like. A cluster whose nodes are not seen must not be
/// taken for one without nodes.
fn knows_workload(observed: &Observed) -> bool {
    let nodes = observed.sees(Part::Nodes) || !observed.nodes.is_empty() || observed.deployment.is_none();
    nodes && observed.sees(Part::Deployment)
}

/// Whether metrics-api was given kubelets' authorities before.
fn mounts_authorities(observed: &Observed) -> bool {
    let pod = observed
        .deployment
        .as_ref()
        .and_then(|deployment| deployment.spec.template.spec.as_ref());
    let volumes = pod.iter().flat_map(|pod| pod.volumes.iter().flatten());
    volumes
        .filter_map(|volume| volume.config_map.as_ref())
        .any(|config_map| config_map.name == names::KUBELET_CA_CONFIG_MAP)
}

fn server(namespace: &str) -> Server {
    // kube-apiserver asks for the first, whatever the cluster's domain is.
    let name = format!("{}.{namespace}.svc", names::METRICS_API);
    Server {
        dns_names: vec![name.clone(), format!("{name}.cluster.local")],
        name: names::METRICS_API.to_owned(),
    }
}

fn stored(observed: &Observed) -> Stored<'_> {
    Stored {
        ca: observed.ca_secret.as_ref(),
        leaf: observed.serving_secret.as_ref(),
    }
}

/// Somebody else's certificate, or what is wrong with it.
fn given(name: &str, observed: &Observed, server: &Server, now: Timestamp) -> Result<Given, String> {
    let of = |fault: &str| format!("Secret {}/{name}: {fault}", observed.namespace);
    match &observed.given_secret {
        None => Err(of("it was not read")),
        Some(Err(error)) => Err(of(error)),
        Some(Ok(None)) => Err(of("there is none")),
        Some(Ok(Some(secret))) => certificates::given(secret, server, now).map_err(|fault| of(&fault)),
    }
}

fn renewed(judgement: &Judgement) -> Vec<String> {
    let of = |name: &str, unfit: Option<&certificates::Unfit>| unfit.map(|unfit| format!("{name}: {unfit}"));
    let next = judgement.next.as_ref();
    [
        of(names::CA_SECRET, judgement.ca.as_ref().err()),
        of(names::CA_SECRET, next.and_then(|next| next.as_ref().err())),
        of(names::SERVING_SECRET, judgement.leaf.as_ref().err()),
        of(names::SERVING_SECRET, judgement.moved.as_ref()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The authorities that kube-apiserver trusts now.
pub(crate) fn published(observed: &Observed) -> String {
    let bundles = observed
        .api_services
        .iter()
        .filter(|service| observed.owns(service))
        .filter_map(|service| service.spec.as_ref()?.ca_bundle.as_ref());
    bundles
        .map(|bundle| String::from_utf8_lossy(&bundle.0) + "\n")
        .collect()
}

fn registration(observed: &Observed, adopt: AdoptPolicy, now: Timestamp) -> Registration {
    let foreign: Vec<_> = observed
        .api_services
        .iter()
        .filter(|service| !observed.owns(service) && !adopt::takes(adopt, service, now))
        .map(|service| ForeignApiService {
            name: service.name_any(),
            service: target(service),
            owner: crate::registration::owner(service),
        })
        .collect();
    if !foreign.is_empty() {
        Registration::Withheld(foreign)
    } else if observed.ready_endpoints > 0
        || observed.api_services.iter().any(|service| observed.owns(service))
    {
        // Those that are there stay when the last endpoint goes: removing them would hide what is wrong.
        Registration::Register
    } else {
        Registration::AwaitEndpoint
    }
}

/// The Service that an `APIService` points at, as `namespace/name`; `Local` when kube-apiserver answers itself.
#[must_use]
pub fn target(service: &APIService) -> String {
    service
        .spec
        .as_ref()
        .and_then(|spec| spec.service.as_ref())
        .map_or_else(
            || "Local".to_owned(),
            |service| {
                format!(
                    "{}/{}",
                    service.namespace.as_deref().unwrap_or_default(),
                    service.name.as_deref().unwrap_or_default()
                )
            },
        )
}

fn with_source(error: &dyn std::error::Error) -> String {
    error
        .source()
        .map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[cfg(test)]
mod tests;

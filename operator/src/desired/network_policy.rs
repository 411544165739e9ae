//! The `NetworkPolicy` of metrics-api's Pods, by port only: who kube-apiserver and kubelets are in a Pod network's eyes
//! differs from one network to the next.

use contract::names;
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::service::PORT_NAME;
use super::{namespaced, selector};
use crate::plan::EgressPorts;

const DNS: u16 = 53;

pub(super) fn metrics_api(namespace: &str, egress: Option<&EgressPorts>) -> NetworkPolicy {
    let port = |protocol: &str, port: IntOrString| NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(port),
        ..NetworkPolicyPort::default()
    };
    let number = |number: u16| IntOrString::Int(i32::from(number));
    let rule = |ports: Vec<NetworkPolicyPort>| NetworkPolicyEgressRule {
        ports: Some(ports),
        ..NetworkPolicyEgressRule::default()
    };
    let tcp = |ports: &std::collections::BTreeSet<u16>| {
        rule(ports.iter().map(|&it| port("TCP", number(it))).collect())
    };
    NetworkPolicy {
        metadata: namespaced(namespace, names::METRICS_API),
        spec: egress.map(|egress| NetworkPolicySpec {
            pod_selector: Some(LabelSelector {
                match_labels: Some(selector()),
                ..LabelSelector::default()
            }),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: Some(vec![NetworkPolicyIngressRule {
                ports: Some(vec![port("TCP", IntOrString::String(PORT_NAME.to_owned()))]),
                ..NetworkPolicyIngressRule::default()
            }]),
            egress: Some(vec![
                tcp(&egress.kubelets),
                tcp(&egress.api_servers),
                rule(vec![port("UDP", number(DNS)), port("TCP", number(DNS))]),
            ]),
        }),
    }
}

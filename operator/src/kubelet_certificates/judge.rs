//! Whether a request is a kubelet's own, for what its Node is: pure. The request is written by whoever asks.

use std::net::IpAddr;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;

use super::SIGNER;
use super::request::{self, Asked};
use crate::observe::NodeFacts;
use crate::plan::AddressPrefixes;

/// Users and group of kubelets.
const USER_PREFIX: &str = "system:node:";
const GROUP: &str = "system:nodes";
/// Longest name of a Node.
const LONGEST_NAME: usize = 253;
/// Longest reason, in characters.
const LONGEST: usize = 300;
/// What such a certificate may be for, one or the other
/// (<https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/#kubernetes-signers>).
const USAGES: [&[&str]; 2] = [
    &["digital signature", "key encipherment", "server auth"],
    &["digital signature", "server auth"],
];

/// What is to be done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Everything holds.
    Approve,
    /// Something can never hold.
    Deny(String),
    /// Something does not hold yet.
    Wait(String),
}

/// The Node that the request is for, by who asks. Only a name that a Node can have (a DNS subdomain): others may mean
/// something in the path of a call, which is not escaped.
pub(crate) fn node_of(request: &CertificateSigningRequest) -> Option<&str> {
    let name = request.spec.username.as_deref()?.strip_prefix(USER_PREFIX)?;
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let may_be = name.bytes().all(|byte| is_word(byte) || b"-.".contains(&byte));
    let ends = [name.bytes().next()?, name.bytes().last()?];
    (may_be && name.len() <= LONGEST_NAME && ends.into_iter().all(is_word)).then_some(name)
}

/// What requests are judged by besides their Node, which says of itself what addresses it has.
pub(crate) struct Rules<'a> {
    /// Where addresses must be.
    pub(crate) prefixes: &'a AddressPrefixes,
    /// Every Node.
    pub(crate) nodes: &'a [NodeFacts],
    /// Address of Service `default/kubernetes`.
    pub(crate) service: Option<IpAddr>,
}

/// Judges a request, given the Node that [`node_of`] names, if it exists.
pub(super) fn judge(request: &CertificateSigningRequest, node: Option<&Node>, rules: &Rules<'_>) -> Verdict {
    let asked = match asked(request) {
        Ok(asked) => asked,
        Err(why) => return Verdict::Deny(line(&why)),
    };
    if let Some(name) = asked.dns.iter().find(|name| is_of_services(name)) {
        return Verdict::Deny(line(&format!("{name} is a name of Services, not of nodes")));
    }
    for &address in &asked.addresses {
        if !rules.prefixes.allow(address) {
            return Verdict::Deny(format!(
                "{address} is in none of spec.kubelet.servingCertificateAddressPrefixes"
            ));
        }
        if rules.service == Some(address) {
            return Verdict::Deny(format!("{address} is where Pods reach kube-apiserver"));
        }
        if address.is_loopback() || address.is_unspecified() || address.is_multicast() {
            return Verdict::Deny(format!("{address} is no address of one node"));
        }
    }
    // Whatever was read for the name, it must be of that name.
    let Some(node) = node.filter(|node| node.metadata.name.as_deref() == node_of(request)) else {
        return Verdict::Wait("the Node does not exist yet".to_owned());
    };
    let known: Vec<&str> = node
        .status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten())
        .map(|address| address.address.as_str())
        .collect();
    let is_dns = |name: &str| known.iter().any(|known| known.eq_ignore_ascii_case(name));
    let is_address = |address: IpAddr| known.iter().any(|known| known.parse() == Ok(address));
    let missing = asked.dns.iter().filter(|name| !is_dns(name)).cloned();
    let addresses = asked.addresses.iter().filter(|address| !is_address(**address));
    if let Some(missing) = missing.chain(addresses.map(ToString::to_string)).next() {
        return Verdict::Wait(line(&format!("{missing} is not among the Node's addresses")));
    }
    match claimed_before(&asked, node, rules.nodes) {
        Some((name, other)) => Verdict::Wait(line(&format!(
            "{name} is also Node {other}'s, which was there before"
        ))),
        None => Verdict::Approve,
    }
}

/// What is asked for that an older Node has too. A kubelet writes its Node's addresses itself, also those of others.
fn claimed_before(asked: &Asked, node: &Node, nodes: &[NodeFacts]) -> Option<(String, String)> {
    let created = node.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let is_older = |other: &&NodeFacts| {
        let before = created.is_none_or(|created| other.created.is_some_and(|other| other < created));
        before && node.metadata.name.as_deref() != Some(&other.name)
    };
    nodes.iter().filter(is_older).find_map(|other| {
        let claimed = other.addresses.iter().find(|address| {
            asked.dns.iter().any(|name| name.eq_ignore_ascii_case(address))
                || asked.addresses.iter().any(|asked| address.parse() == Ok(*asked))
        })?;
        Some((claimed.clone(), other.name.clone()))
    })
}

/// Whether clients take this name for a Service's, such as kube-apiserver's.
fn is_of_services(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let mut labels = name.split('.');
    let first = labels.clone().next().unwrap_or_default();
    let second = labels.clone().nth(1);
    labels.any(|label| label == "svc" || label == "localhost")
        || (first == "kubernetes" && matches!(second, None | Some("default")))
}

/// What is asked for, if a kubelet may ask for that at all.
fn asked(request: &CertificateSigningRequest) -> Result<Asked, String> {
    let spec = &request.spec;
    if spec.signer_name != SIGNER {
        return Err(format!("the signer is {}, expected {SIGNER}", spec.signer_name));
    }
    let user = spec.username.as_deref().unwrap_or_default();
    if node_of(request).is_none() {
        return Err(format!("{user:?} asks, expected a node, {USER_PREFIX}<name>"));
    }
    if !spec.groups.iter().flatten().any(|group| group == GROUP) {
        return Err(format!("{user} is not in group {GROUP}"));
    }
    let mut usages: Vec<&str> = spec.usages.iter().flatten().map(String::as_str).collect();
    usages.sort_unstable();
    usages.dedup();
    if !USAGES.contains(&usages.as_slice()) {
        return Err(format!(
            "the usages are {usages:?}, expected \"digital signature\", \"server auth\" and perhaps \"key encipherment\""
        ));
    }
    let asked = request::read(&spec.request.0)?;
    only("common name", &asked.common_names, user)?;
    only("organization", &asked.organizations, GROUP)?;
    Ok(asked)
}

/// Whether the subject has one such attribute, and that with this value.
fn only(kind: &str, found: &[String], expected: &str) -> Result<(), String> {
    if found == [expected] {
        Ok(())
    } else {
        Err(format!("the {kind} is {found:?}, expected {expected:?} alone"))
    }
}

/// Text that somebody else wrote part of, as one short line: it goes into the log, an event and a condition.
pub(super) fn line(text: &str) -> String {
    let plain = text
        .chars()
        .map(|char| if char.is_control() { ' ' } else { char });
    let mut line: String = plain.take(LONGEST).collect();
    if text.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}

//! Whether a request is a kubelet's own, for what its Node is: pure. The request is written by whoever asks.

use std::net::IpAddr;

use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::X509Name;

use super::SIGNER;
use crate::plan::AddressPrefixes;

/// Users and group of kubelets.
const USER_PREFIX: &str = "system:node:";
const GROUP: &str = "system:nodes";
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

/// The Node that the request is for, by who asks.
pub(super) fn node_of(request: &CertificateSigningRequest) -> Option<&str> {
    let name = request.spec.username.as_deref()?.strip_prefix(USER_PREFIX)?;
    (!name.is_empty()).then_some(name)
}

/// Judges a request, given the Node that [`node_of`] names, if it exists.
pub(super) fn judge(
    request: &CertificateSigningRequest,
    node: Option<&Node>,
    prefixes: &AddressPrefixes,
) -> Verdict {
    let names = match asked(request) {
        Ok(names) => names,
        Err(why) => return Verdict::Deny(why),
    };
    for address in &names.addresses {
        if !prefixes.allow(*address) {
            return Verdict::Deny(format!(
                "{address} is in none of spec.kubelet.servingCertificateAddressPrefixes"
            ));
        }
    }
    let Some(node) = node else {
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
    let missing = names.dns.iter().filter(|name| !is_dns(name)).cloned();
    let addresses = names.addresses.iter().filter(|address| !is_address(**address));
    match missing.chain(addresses.map(ToString::to_string)).next() {
        Some(missing) => Verdict::Wait(format!("{missing} is not among the Node's addresses")),
        None => Verdict::Approve,
    }
}

/// What the certificate is to be good for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Names {
    dns: Vec<String>,
    addresses: Vec<IpAddr>,
}

/// What is asked for, if a kubelet may ask for that at all.
fn asked(request: &CertificateSigningRequest) -> Result<Names, String> {
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
    let der = CertificateSigningRequestDer::from_pem_slice(&spec.request.0)
        .map_err(|_| "spec.request is not a PEM certificate request".to_owned())?;
    let (rest, parsed) = X509CertificationRequest::from_der(&der)
        .map_err(|_| "spec.request is not a PKCS#10 certificate request".to_owned())?;
    if !rest.is_empty() {
        return Err("spec.request has bytes after the certificate request".to_owned());
    }
    let subject = &parsed.certification_request_info.subject;
    only(subject, "common name", X509Name::iter_common_name, user)?;
    only(subject, "organization", X509Name::iter_organization, GROUP)?;
    names(&parsed)
}

/// Whether the subject has one such attribute, and that with this value.
fn only<'a, I>(
    subject: &'a X509Name<'a>,
    kind: &str,
    attributes: impl FnOnce(&'a X509Name<'a>) -> I,
    expected: &str,
) -> Result<(), String>
where
    I: Iterator<Item = &'a x509_parser::x509::AttributeTypeAndValue<'a>>,
{
    let found: Vec<&str> = attributes(subject)
        .map(|attribute| attribute.as_str().unwrap_or_default())
        .collect();
    if found == [expected] {
        Ok(())
    } else {
        Err(format!("the {kind} is {found:?}, expected {expected:?} alone"))
    }
}

fn names(request: &X509CertificationRequest<'_>) -> Result<Names, String> {
    let mut names = Names::default();
    let mut times = 0;
    for extension in request.requested_extensions().into_iter().flatten() {
        let ParsedExtension::SubjectAlternativeName(alternatives) = extension else {
            continue;
        };
        times += 1;
        for name in &alternatives.general_names {
            match name {
                GeneralName::DNSName(name) => names.dns.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => names
                    .addresses
                    .push(address(bytes).ok_or_else(|| format!("an address has {} bytes", bytes.len()))?),
                other => return Err(format!("it names {other}, expected DNS names and addresses only")),
            }
        }
    }
    if times != 1 || names == Names::default() {
        return Err("it does not name a DNS name or address, once".to_owned());
    }
    Ok(names)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

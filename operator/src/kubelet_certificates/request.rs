//! What a request for a certificate asks for: pure. The bytes are whatever somebody sent.
//!
//! kube-controller-manager signs what Go reads in them, so what could be read in another way is refused, also where the
//! reading here is a harmless one.

use std::net::IpAddr;

use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::cri_attributes::ParsedCriAttribute;
use x509_parser::extensions::{GeneralName, ParsedExtension, X509Extension};
use x509_parser::oid_registry::{OID_PKCS9_EXTENSION_REQUEST, OID_X509_EXT_SUBJECT_ALT_NAME};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::AttributeTypeAndValue;

const BEGIN: &str = "-----BEGIN CERTIFICATE REQUEST-----\n";
const END: &str = "-----END CERTIFICATE REQUEST-----";
const NO_NAMES: &str = "it does not name a DNS name or address, once";

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// Each common name of the subject; one that is no text is empty.
    pub(super) common_names: Vec<String>,
    /// Its organizations, in the same way.
    pub(super) organizations: Vec<String>,
    /// The DNS names that the certificate is to be good for.
    pub(super) dns: Vec<String>,
    /// The addresses.
    pub(super) addresses: Vec<IpAddr>,
}

/// Reads `spec.request`, or says why it is not what a kubelet sends.
pub(super) fn read(request: &[u8]) -> Result<Asked, String> {
    let der = block(request).ok_or("spec.request is not one PEM certificate request and nothing else")?;
    let (rest, parsed) = X509CertificationRequest::from_der(&der)
        .map_err(|_| "spec.request is not a PKCS#10 certificate request".to_owned())?;
    if !rest.is_empty() {
        return Err("spec.request has bytes after the certificate request".to_owned());
    }
    let subject = &parsed.certification_request_info.subject;
    let mut asked = Asked {
        common_names: subject.iter_common_name().map(text).collect(),
        organizations: subject.iter_organization().map(text).collect(),
        ..Asked::default()
    };
    let names = extensions(&parsed).and_then(names).ok_or(NO_NAMES)?;
    for name in names {
        match name {
            GeneralName::DNSName(name) => asked.dns.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let address =
                    address(bytes).ok_or_else(|| format!("an address has {} bytes", bytes.len()))?;
                asked.addresses.push(address);
            }
            other => return Err(format!("it names {other}, expected DNS names and addresses only")),
        }
    }
    if asked.dns.is_empty() && asked.addresses.is_empty() {
        return Err(NO_NAMES.to_owned());
    }
    Ok(asked)
}

/// The one block, as Go writes it. Readers of PEM differ in what ends a line, in what they skip, and in which block they
/// take of several: one could be shown here and another be signed.
fn block(pem: &[u8]) -> Option<CertificateSigningRequestDer<'static>> {
    let text = str::from_utf8(pem).ok()?;
    let text = text.strip_suffix('\n').unwrap_or(text);
    let body = text.strip_prefix(BEGIN)?.strip_suffix(END)?;
    let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=\n".contains(&byte);
    if body.ends_with('\n') && body.bytes().all(is_base64) {
        CertificateSigningRequestDer::from_pem_slice(pem).ok()
    } else {
        None
    }
}

/// The extensions of the only attribute that asks for some. x509-parser takes the first of several and does not look
/// at the length of the set in it, where Go skips a set that is empty and takes the next.
fn extensions<'a>(request: &'a X509CertificationRequest<'_>) -> Option<&'a [X509Extension<'a>]> {
    let attributes = request.certification_request_info.iter_attributes();
    let mut asking = attributes.filter(|attribute| attribute.oid == OID_PKCS9_EXTENSION_REQUEST);
    let (attribute, None) = (asking.next()?, asking.next()) else {
        return None;
    };
    let (after_set, set) = Any::from_der(attribute.value).ok()?;
    let (after_value, _) = Any::from_der(set.data).ok()?;
    let is_one = set.tag() == Tag::Set && after_set.is_empty() && after_value.is_empty();
    match attribute.parsed_attribute() {
        ParsedCriAttribute::ExtensionRequest(requested) if is_one => Some(&requested.extensions),
        _ => None,
    }
}

/// The names in the only extension with names.
fn names<'a>(extensions: &'a [X509Extension<'a>]) -> Option<&'a [GeneralName<'a>]> {
    let mut naming = extensions
        .iter()
        .filter(|extension| extension.oid == OID_X509_EXT_SUBJECT_ALT_NAME);
    match (naming.next()?.parsed_extension(), naming.next()) {
        (ParsedExtension::SubjectAlternativeName(names), None) => Some(&names.general_names),
        _ => None,
    }
}

fn text(attribute: &AttributeTypeAndValue<'_>) -> String {
    attribute.as_str().unwrap_or_default().to_owned()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

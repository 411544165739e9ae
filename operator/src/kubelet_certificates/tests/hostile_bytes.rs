//! Requests that were changed in a few places, and then are judged.

use std::sync::LazyLock;

use fuzz::Target;
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject as _;

use super::two_readings::{ANOTHERS, OWN, asking, extensions, set};
use super::*;

/// Where mistakes are made: names of other kinds, tags, objects' identifiers.
const FRAGMENTS: [&str; 12] = [
    "-----BEGIN CERTIFICATE REQUEST-----\n",
    "-----END CERTIFICATE REQUEST-----\n",
    "\r",
    "\n",
    "\u{6}\u{3}\u{55}\u{1d}\u{11}",
    "1\0",
    "0\0",
    "\u{1}\u{1}",
    "system:node:a",
    "system:nodes",
    "another.example",
    "a.example",
];

fn der(request: &CertificateSigningRequest) -> Vec<u8> {
    CertificateSigningRequestDer::from_pem_slice(&request.spec.request.0)
        .unwrap()
        .to_vec()
}

fn armoured(der: Vec<u8>) -> Vec<u8> {
    let text = serde_json::to_value(ByteString(der)).unwrap();
    format!(
        "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
        text.as_str().unwrap()
    )
    .into_bytes()
}

/// Nothing that a node may not have is approved, and what is said is fit for a log.
fn judged(request: Vec<u8>) {
    static NODE: LazyLock<Node> = LazyLock::new(node);
    let request = with(request);
    match judge(&request, Some(&NODE), &rules()) {
        Verdict::Approve => {
            let asked = super::super::request::read(&request.spec.request.0).unwrap();
            assert_eq!((asked.common_names.len(), asked.organizations.len()), (1, 1));
            assert!(
                !asked
                    .dns
                    .iter()
                    .any(|name| !name.eq_ignore_ascii_case("a.example")),
                "{asked:?}"
            );
        }
        Verdict::Deny(why) | Verdict::Wait(why) => {
            assert!(why.len() < 1500 && !why.contains(char::is_control), "{why:?}");
        }
    }
}

fn requests() -> Vec<CertificateSigningRequest> {
    let mut requests = vec![
        kubelets(vec![dns("a.example"), ip("10.0.0.1"), ip("fd00::1")]),
        kubelets(vec![dns("another.example")]),
        kubelets(vec![SanType::URI("spiffe://a".try_into().unwrap())]),
        kubelets(Vec::new()),
    ];
    for values in [
        vec![set(OWN)],
        vec![set(OWN), set(ANOTHERS)],
        vec![extensions(OWN)],
    ] {
        requests.push(asking(values));
    }
    requests
}

#[test]
fn any_request_is_judged() {
    let targets = [
        Target {
            name: "kubelets-request-der",
            inputs: requests().iter().map(der).collect(),
            fragments: &FRAGMENTS,
            one: |bytes| judged(armoured(bytes.to_vec())),
        },
        Target {
            name: "kubelets-request-pem",
            inputs: requests()
                .into_iter()
                .map(|request| request.spec.request.0)
                .collect(),
            fragments: &FRAGMENTS,
            one: |bytes| judged(bytes.to_vec()),
        },
    ];
    for target in targets {
        target.holds();
        target.changes_hold();
    }
}

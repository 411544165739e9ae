//! kube-controller-manager signs what Go reads in a request. Each of these reads as one thing there and as another by
//! the libraries here, which would have a node get a certificate for what is not its own.

use rcgen::Attribute;

use super::*;

const EXTENSION_REQUEST: &[u64] = &[1, 2, 840, 113_549, 1, 9, 14];
const SUBJECT: [(DnType, &str); 2] = [
    (DnType::CommonName, "system:node:a"),
    (DnType::OrganizationName, "system:nodes"),
];

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap();
    assert!(length < 0x80, "{length} needs a longer form");
    [&[tag, length], content].concat()
}

/// Extensions that ask for one name, of this tag.
pub(super) fn extensions((tag, name): (u8, &[u8])) -> Vec<u8> {
    let names = tlv(0x30, &tlv(tag, name));
    let extension = [vec![0x06, 0x03, 0x55, 0x1d, 0x11], tlv(0x04, &names)].concat();
    tlv(0x30, &tlv(0x30, &extension))
}

/// The same as the one value of an attribute.
pub(super) fn set(name: (u8, &[u8])) -> Vec<u8> {
    tlv(0x31, &extensions(name))
}

/// A request with these values of the attribute that asks for extensions, each in its own.
pub(super) fn asking(values: Vec<Vec<u8>>) -> CertificateSigningRequest {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in SUBJECT {
        params.distinguished_name.push(kind, value);
    }
    let attributes = values.into_iter().map(|values| Attribute {
        oid: EXTENSION_REQUEST,
        values,
    });
    let key = KeyPair::generate().unwrap();
    let request = params
        .serialize_request_with_attributes(&key, attributes.collect())
        .unwrap();
    with(request.pem().unwrap().into_bytes())
}

fn denied(request: &CertificateSigningRequest, part: &str) {
    match verdict(request) {
        Verdict::Deny(why) => assert!(why.contains(part), "{why:?}, expected {part:?}"),
        other => panic!("{other:?}, expected a denial because of {part:?}"),
    }
}

pub(super) const OWN: (u8, &[u8]) = (0x87, &[10, 0, 0, 1]);
pub(super) const ANOTHERS: (u8, &[u8]) = (0x82, b"another.example");

#[test]
fn one_block_is_one_block_whoever_reads_it() {
    let own = pem(&SUBJECT, vec![ip("10.0.0.1")]);
    let anothers = pem(&SUBJECT, vec![dns("another.example")]);
    // Go knows no line that ends with a carriage return alone.
    let returns = String::from_utf8(own.clone()).unwrap().replace('\n', "\r");
    let hidden = [b"\r", returns.as_bytes(), b"\n", &anothers].concat();
    // Go skips what has no proper end.
    let loose = String::from_utf8(own.clone())
        .unwrap()
        .replace("REQUEST-----\n", "REQUEST----- x\n");
    let loose = loose.replacen("REQUEST----- x\n", "REQUEST-----\n", 1);
    for request in [
        hidden,
        [loose.as_bytes(), &anothers].concat(),
        [own.as_slice(), &anothers].concat(),
        [b"x\n".as_slice(), &own].concat(),
        [own.as_slice(), b"x"].concat(),
    ] {
        denied(&with(request), "PEM");
    }
}

#[test]
fn extensions_are_asked_for_once() {
    assert_eq!(verdict(&asking(vec![set(OWN)])), Verdict::Approve);
    // Go takes what follows an empty set for nothing, and the other attribute for what is asked.
    let empty = [tlv(0x31, &[]), extensions(OWN)].concat();
    let two = [extensions(OWN), extensions(ANOTHERS)].concat();
    for values in [
        vec![empty.clone(), set(ANOTHERS)],
        vec![set(OWN), set(ANOTHERS)],
        vec![empty],
        vec![tlv(0x31, &two)],
        vec![],
    ] {
        denied(&asking(values), "does not name");
    }
}

#[tokio::test]
async fn a_name_that_no_node_can_have_is_nobodys() {
    let fake = Fake::default();
    fake.put("/api/v1/nodes/a", serde_json::to_value(node()).unwrap());
    // What follows a question mark is no part of the path of the Node that is read.
    let users =
        ["a?x=", "a/status", "../nodes/a", "A", "a%20", "a."].map(|name| format!("system:node:{name}"));
    for (at, user) in users.iter().enumerate() {
        let subject = [
            (DnType::CommonName, user.as_str()),
            (DnType::OrganizationName, "system:nodes"),
        ];
        let mut request = with(pem(&subject, vec![ip("10.0.0.1")]));
        request.spec.username = Some(user.clone());
        put(&fake, &format!("csr-{at}"), request, json!({}));
    }
    let outcome = decide(&fake.client(), &rules()).await.unwrap();
    assert_eq!((outcome.approved, outcome.waiting), (0, 0), "{outcome:?}");
    assert_eq!(outcome.denied.len(), users.len());
    let calls = fake.calls();
    assert!(!calls.iter().any(|call| call.contains("/nodes/")), "{calls:?}");
}

/// One that was read for another name says nothing.
#[test]
fn a_node_is_who_it_says() {
    let mut other = node();
    other.metadata.name = Some("b".to_owned());
    let request = kubelets(vec![ip("10.0.0.1")]);
    let verdict = judge(&request, Some(&other), &rules());
    assert!(matches!(verdict, Verdict::Wait(_)), "{verdict:?}");
}

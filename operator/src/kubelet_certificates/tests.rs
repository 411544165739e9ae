use k8s_openapi::ByteString;
use proptest::prelude::*;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use serde_json::{Value, json};

use super::*;
use crate::fake::Fake;
use crate::observe::NodeFacts;
use crate::plan::AddressPrefixes;

mod hostile_bytes;
mod two_readings;

const PATH: &str = "/apis/certificates.k8s.io/v1/certificatesigningrequests";

fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

fn ip(address: &str) -> SanType {
    SanType::IpAddress(address.parse().unwrap())
}

fn pem(subject: &[(DnType, &str)], names: Vec<SanType>) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in subject {
        params.distinguished_name.push(kind.clone(), *value);
    }
    params.subject_alt_names = names;
    let key = KeyPair::generate().unwrap();
    params
        .serialize_request(&key)
        .unwrap()
        .pem()
        .unwrap()
        .into_bytes()
}

/// What kubelet of node `a` asks for.
fn kubelets(names: Vec<SanType>) -> CertificateSigningRequest {
    let subject = [
        (DnType::CommonName, "system:node:a"),
        (DnType::OrganizationName, "system:nodes"),
    ];
    with(pem(&subject, names))
}

fn with(request: Vec<u8>) -> CertificateSigningRequest {
    serde_json::from_value(json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": "csr-1"},
        "spec": {
            "signerName": SIGNER,
            "username": "system:node:a",
            "groups": ["system:nodes", "system:authenticated"],
            "usages": ["digital signature", "key encipherment", "server auth"],
            "request": ByteString(request),
        },
    }))
    .unwrap()
}

fn node() -> Node {
    serde_json::from_value(json!({"metadata": {"name": "a"}, "status": {"addresses": [
        {"type": "InternalIP", "address": "10.0.0.1"},
        {"type": "InternalIP", "address": "fd00::1"},
        {"type": "Hostname", "address": "a.example"},
    ]}}))
    .unwrap()
}

fn prefixes(texts: &[&str]) -> AddressPrefixes {
    AddressPrefixes(texts.iter().map(|text| text.parse().unwrap()).collect())
}

static ANYWHERE: AddressPrefixes = AddressPrefixes(Vec::new());

fn rules() -> Rules<'static> {
    within(&ANYWHERE)
}

fn within(prefixes: &AddressPrefixes) -> Rules<'_> {
    Rules {
        prefixes,
        nodes: &[],
        service: Some("10.96.0.1".parse().unwrap()),
    }
}

fn verdict(request: &CertificateSigningRequest) -> Verdict {
    judge(request, Some(&node()), &rules())
}

#[test]
fn what_a_kubelet_asks_for_its_own_addresses_is_approved() {
    for names in [
        vec![dns("a.example"), ip("10.0.0.1"), ip("fd00::1")],
        vec![ip("10.0.0.1")],
        vec![dns("A.Example")],
    ] {
        assert_eq!(verdict(&kubelets(names)), Verdict::Approve);
    }
    let mut without_encipherment = kubelets(vec![ip("10.0.0.1")]);
    without_encipherment.spec.usages = Some(vec!["server auth".to_owned(), "digital signature".to_owned()]);
    assert_eq!(verdict(&without_encipherment), Verdict::Approve);
    let request = kubelets(vec![dns("a.example"), ip("10.0.0.1"), ip("fd00::1")]);
    let allowed = prefixes(&["10.0.0.0/24", "fd00::/64"]);
    assert_eq!(
        judge(&request, Some(&node()), &within(&allowed)),
        Verdict::Approve
    );
}

#[test]
fn what_the_node_does_not_have_yet_waits() {
    let request = kubelets(vec![dns("a.example"), ip("10.0.0.7")]);
    let wait = |why: &str| Verdict::Wait(why.to_owned());
    assert_eq!(
        verdict(&request),
        wait("10.0.0.7 is not among the Node's addresses")
    );
    let request = kubelets(vec![dns("b.example")]);
    assert_eq!(
        verdict(&request),
        wait("b.example is not among the Node's addresses")
    );
    assert_eq!(
        judge(&request, None, &rules()),
        wait("the Node does not exist yet")
    );
}

#[test]
fn forgeries_are_denied_whether_the_node_exists_or_not() {
    let own = || vec![ip("10.0.0.1")];
    let subject = |names: &[(DnType, &str)]| with(pem(names, own()));
    let spec = |change: &dyn Fn(&mut Value)| {
        let mut value = serde_json::to_value(kubelets(own())).unwrap();
        change(&mut value["spec"]);
        serde_json::from_value(value).unwrap()
    };
    let (name, organization) = (DnType::CommonName, DnType::OrganizationName);
    let email = SanType::Rfc822Name("a@example.com".try_into().unwrap());
    let uri = SanType::URI("spiffe://a".try_into().unwrap());
    let mut trailing = kubelets(own());
    trailing.spec.request.0 =
        b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----".to_vec();
    let cases = [
        (
            subject(&[
                (name.clone(), "system:node:b"),
                (organization.clone(), "system:nodes"),
            ]),
            "common name",
        ),
        (subject(&[(organization.clone(), "system:nodes")]), "common name"),
        (
            subject(&[
                (name.clone(), "system:node:a"),
                (organization.clone(), "system:masters"),
            ]),
            "organization",
        ),
        (subject(&[(name.clone(), "system:node:a")]), "organization"),
        (
            kubelets(vec![ip("10.0.0.1"), email]),
            "DNS names and addresses only",
        ),
        (
            kubelets(vec![ip("10.0.0.1"), uri]),
            "DNS names and addresses only",
        ),
        (kubelets(Vec::new()), "does not name"),
        (
            spec(&|spec| spec["username"] = json!("system:serviceaccount:a:b")),
            "expected a node",
        ),
        (
            spec(&|spec| spec["username"] = json!("system:node:")),
            "expected a node",
        ),
        (
            spec(&|spec| spec["groups"] = json!(["system:authenticated"])),
            "not in group",
        ),
        (
            spec(&|spec| spec["usages"] = json!(["client auth", "digital signature"])),
            "usages",
        ),
        (
            spec(&|spec| spec["usages"] = json!(["client auth", "digital signature", "server auth"])),
            "usages",
        ),
        (
            spec(&|spec| spec["signerName"] = json!("kubernetes.io/kube-apiserver-client")),
            "signer",
        ),
        (with(b"no PEM".to_vec()), "PEM"),
        (trailing, "PKCS#10"),
    ];
    for (request, part) in cases {
        for node in [Some(&node()), None] {
            match judge(&request, node, &rules()) {
                Verdict::Deny(why) => assert!(why.contains(part), "{why:?}, expected {part:?}"),
                other => panic!("{other:?}, expected a denial because of {part:?}"),
            }
        }
    }
    let outside = judge(
        &kubelets(own()),
        Some(&node()),
        &within(&prefixes(&["192.168.0.0/16"])),
    );
    assert!(
        matches!(&outside, Verdict::Deny(why) if why.contains("10.0.0.1 is in none")),
        "{outside:?}"
    );
}

proptest! {
    #[test]
    fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0_usize..600, byte in any::<u8>()) {
        verdict(&with(bytes.clone()));
        let armoured = format!(
            "-----BEGIN CERTIFICATE REQUEST-----\n{}\n-----END CERTIFICATE REQUEST-----\n",
            serde_json::to_value(ByteString(bytes)).unwrap().as_str().unwrap()
        );
        verdict(&with(armoured.into_bytes()));
        let mut changed = kubelets(vec![ip("10.0.0.9"), dns("a.example")]);
        let length = changed.spec.request.0.len();
        changed.spec.request.0[at % length] = byte;
        // 10.0.0.9 is not the node's.
        prop_assert_ne!(verdict(&changed), Verdict::Approve);
    }
}

fn put(fake: &Fake, name: &str, mut request: CertificateSigningRequest, status: Value) {
    request.metadata.name = Some(name.to_owned());
    let mut value = serde_json::to_value(request).unwrap();
    value["status"] = status;
    fake.put(&format!("{PATH}/{name}"), value);
}

#[tokio::test]
async fn only_pending_requests_are_decided_on_and_nobodys_decision_is_overwritten() {
    let fake = Fake::default();
    fake.put("/api/v1/nodes/a", serde_json::to_value(node()).unwrap());
    let good = || kubelets(vec![ip("10.0.0.1")]);
    put(
        &fake,
        "csr-denied-already",
        good(),
        json!({"conditions": [{"type": "Denied", "status": "True"}]}),
    );
    put(
        &fake,
        "csr-done",
        good(),
        json!({"conditions": [{"type": "Approved", "status": "True"}]}),
    );
    put(&fake, "csr-forged", kubelets(Vec::new()), json!({}));
    put(&fake, "csr-good", good(), json!({}));
    put(&fake, "csr-late", kubelets(vec![ip("10.0.0.2")]), json!({}));
    put(&fake, "csr-raced", good(), json!({}));
    let call = format!("PUT {PATH}/csr-raced/approval");
    fake.always(&call, 409, crate::fake::status(409, "Conflict", "changed"));
    let outcome = decide(&fake.client(), &rules()).await.unwrap();
    assert_eq!((outcome.approved, outcome.waiting), (1, 1));
    let [denied] = outcome.denied.as_slice() else {
        panic!("{outcome:?}")
    };
    assert!(
        denied
            .why
            .starts_with("CertificateSigningRequest csr-forged of system:node:a: it does not name"),
        "{denied:?}"
    );
    let decided = ["csr-forged", "csr-good", "csr-raced"].map(|name| format!("PUT {PATH}/{name}/approval"));
    assert_eq!(fake.writes(), decided);
    assert!(
        fake.calls()
            .iter()
            .any(|call| call.contains("spec.signerName%3Dkubernetes.io"))
    );
}

#[tokio::test]
async fn whoever_waits_or_fails_keeps_nobody_from_being_looked_at() {
    let fake = Fake::default();
    fake.put("/api/v1/nodes/a", serde_json::to_value(node()).unwrap());
    fake.always(
        "GET /api/v1/nodes/b",
        500,
        crate::fake::status(500, "InternalError", "broken"),
    );
    let late = kubelets(vec![ip("10.0.0.2")]);
    for at in 0..MOST + 50 {
        put(&fake, &format!("csr-a-{at}"), late.clone(), json!({}));
    }
    let subject = [
        (DnType::CommonName, "system:node:b"),
        (DnType::OrganizationName, "system:nodes"),
    ];
    let mut broken = with(pem(&subject, vec![ip("10.0.0.1")]));
    broken.spec.username = Some("system:node:b".to_owned());
    put(&fake, "csr-b", broken, json!({}));
    put(&fake, "csr-c", kubelets(vec![ip("10.0.0.1")]), json!({}));
    let outcome = decide(&fake.client(), &rules()).await.unwrap();
    assert_eq!(
        (outcome.approved, outcome.waiting),
        (1, usize::try_from(MOST).unwrap() + 51)
    );
    assert_eq!(fake.writes(), [format!("PUT {PATH}/csr-c/approval")]);
    // Once a turn for one node, however often it asks.
    let reads = fake.calls().into_iter().filter(|call| call.contains("/nodes/a"));
    assert_eq!(reads.count(), 1);
}

#[tokio::test]
async fn a_turn_ends_though_there_is_more_to_decide_on() {
    let fake = Fake::default();
    fake.put("/api/v1/nodes/a", serde_json::to_value(node()).unwrap());
    let good = kubelets(vec![ip("10.0.0.1")]);
    for at in 0..MOST + 3 {
        put(&fake, &format!("csr-{at}"), good.clone(), json!({}));
    }
    let outcome = decide(&fake.client(), &rules()).await.unwrap();
    assert_eq!((outcome.approved, outcome.waiting), (MOST, 3));
}

/// A kubelet may write any address into its Node.
#[test]
fn a_node_that_says_it_is_somebody_else_gets_no_certificate() {
    let claims = [
        "kubernetes",
        "kubernetes.default",
        "Kubernetes.Default.Svc",
        "kubernetes.default.svc.cluster.local",
        "metrics-api.metricsstack-system.svc",
        "localhost",
    ];
    let addresses = ["10.96.0.1", "127.0.0.1", "::1", "0.0.0.0"];
    let mut liar = node();
    let status = liar
        .status
        .get_or_insert_default()
        .addresses
        .get_or_insert_default();
    for address in claims.iter().chain(&addresses) {
        let kind = json!({"type": "InternalDNS", "address": address});
        status.push(serde_json::from_value(kind).unwrap());
    }
    let names = claims
        .iter()
        .map(|name| dns(name))
        .chain(addresses.iter().map(|address| ip(address)));
    for name in names {
        let verdict = judge(&kubelets(vec![name.clone()]), Some(&liar), &rules());
        assert!(matches!(verdict, Verdict::Deny(_)), "{name:?}: {verdict:?}");
    }
    // Names that only look like those.
    let mut odd = node();
    let address = json!({"type": "Hostname", "address": "kubernetes-1.example"});
    let status = odd
        .status
        .get_or_insert_default()
        .addresses
        .get_or_insert_default();
    status.push(serde_json::from_value(address).unwrap());
    let request = kubelets(vec![dns("kubernetes-1.example")]);
    assert_eq!(judge(&request, Some(&odd), &rules()), Verdict::Approve);
}

#[test]
fn an_address_is_that_of_the_node_that_had_it_first() {
    let at = |second| Timestamp::from_second(second).unwrap();
    let facts = |name: &str, created, address: &str| NodeFacts {
        name: name.to_owned(),
        created: Some(at(created)),
        addresses: vec![address.to_owned()],
        ..NodeFacts::default()
    };
    let mut own = node();
    own.metadata.creation_timestamp = Some(Time(at(100)));
    let among = |others: &[NodeFacts], asked| {
        let rules = Rules {
            nodes: others,
            ..rules()
        };
        judge(&kubelets(vec![asked]), Some(&own), &rules)
    };
    let waits = |address: &str| Verdict::Wait(format!("{address} is also Node b's, which was there before"));
    let elder = [facts("a", 100, "10.0.0.1"), facts("b", 99, "10.0.0.1")];
    assert_eq!(among(&elder, ip("10.0.0.1")), waits("10.0.0.1"));
    assert_eq!(
        among(&[facts("b", 99, "A.example")], dns("a.example")),
        waits("A.example")
    );
    assert_eq!(among(&elder, dns("a.example")), Verdict::Approve);
    // Whoever says so later keeps nobody from his certificate.
    assert_eq!(
        among(&[facts("b", 101, "10.0.0.1")], ip("10.0.0.1")),
        Verdict::Approve
    );
}

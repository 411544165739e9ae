//! An authority that is due, turn by turn, and whoever leads dying at any write.

use k8s_openapi::ByteString;

use super::interrupted::dies_after;
use super::*;
use crate::certificates::{Judgement, KeyPair, Lifetimes, Server, Stored, Unfit, Usage, issue, judge};

/// The working cluster with an authority that is due, and its serving certificate, which is not.
async fn due() -> (Fake, Reconciler) {
    let (fake, _) = working().await;
    let now = Timestamp::now();
    let long_ago = now - jiff::SignedDuration::from_hours(24 * 365 * 9);
    let lifetimes = Lifetimes {
        ca: Duration::from_hours(87_600),
        leaf: Duration::from_hours(2_160),
    };
    let name = "metrics-api.ns.svc".to_owned();
    let server = Server {
        name: "metrics-api".to_owned(),
        dns_names: vec![name.clone(), format!("{name}.cluster.local")],
    };
    let judgement = judge(Stored::default(), &Usage::default(), &server, lifetimes, long_ago);
    let old = issue(judgement, &server, lifetimes, long_ago).unwrap();
    let judgement = Judgement {
        ca: Ok(old.ca.unwrap()),
        next: None,
        retired: Vec::new(),
        leaf: Err(Unfit::Missing),
        previous: None,
        moved: None,
    };
    let certificates = issue(judgement, &server, lifetimes, now).unwrap();
    let put = |path: &str, pair: &KeyPair| {
        let mut secret = fake.get(path).unwrap();
        let text = |text: &str| json!(ByteString(text.as_bytes().to_vec()));
        secret["data"] = json!({"tls.crt": text(pair.certificate_pem()), "tls.key": text(pair.key_pem()),
            "ca.crt": text(&certificates.bundle())});
        fake.put(path, secret);
    };
    put(CA, certificates.ca.as_ref().unwrap());
    put(SERVING, &certificates.leaf);
    for version in names::METRICS_VERSIONS {
        let path = format!("{APISERVICES}/{version}.{}", names::METRICS_GROUP);
        let mut service = fake.get(&path).unwrap();
        service["spec"]["caBundle"] = json!(ByteString(certificates.bundle().into_bytes()));
        fake.put(&path, service);
    }
    fake.writes();
    let reconciler = reconciler_for(&fake);
    (fake, reconciler)
}

fn data(fake: &Fake, path: &str, key: &str) -> Value {
    fake.get(path).unwrap()["data"][key].clone()
}

fn decoded(value: Value) -> String {
    let bytes: ByteString = serde_json::from_value(value).unwrap();
    String::from_utf8(bytes.0).unwrap()
}

/// How many authorities the registration names, each of which must be known by the Secret.
fn trusted(fake: &Fake) -> usize {
    let bundles = names::METRICS_VERSIONS.map(|version| {
        let path = format!("{APISERVICES}/{version}.{}", names::METRICS_GROUP);
        decoded(fake.get(&path).unwrap()["spec"]["caBundle"].clone())
    });
    let least = bundles.iter().map(|bundle| bundle.matches("BEGIN").count()).min();
    least.unwrap()
}

async fn settles() {
    tokio::time::advance(plan::CERTIFICATE_MINIMUM_AGE).await;
}

#[tokio::test(start_paused = true)]
async fn a_successor_signs_when_every_api_server_has_known_it_for_a_while() {
    let (fake, mut reconciler) = due().await;
    let (old, leaf) = (data(&fake, CA, "tls.crt"), data(&fake, SERVING, "tls.crt"));
    let wait = reconciler.reconcile().await.unwrap();
    assert!(wait <= Duration::from_secs(5), "{wait:?}");
    let next = data(&fake, CA, "next.crt");
    assert_eq!(
        (data(&fake, CA, "tls.crt"), data(&fake, SERVING, "tls.crt")),
        (old.clone(), leaf.clone())
    );
    assert_eq!(trusted(&fake), 2);
    assert_eq!(
        condition(&fake, "CertificatesReady"),
        ("True".to_owned(), "Rotating".to_owned())
    );
    reconciler.reconcile().await.unwrap();
    assert_eq!(data(&fake, CA, "tls.crt"), old, "not yet");

    settles().await;
    reconciler.reconcile().await.unwrap();
    assert_eq!(data(&fake, CA, "tls.crt"), next);
    assert_ne!(data(&fake, SERVING, "tls.crt"), leaf);
    assert_eq!(data(&fake, SERVING, "previous.crt"), leaf);
    settles().await;
    reconciler.reconcile().await.unwrap();
    assert_eq!(trusted(&fake), 2, "nobody has seen what replicas serve");
}

#[tokio::test(start_paused = true)]
async fn a_successor_does_not_sign_while_a_kube_apiserver_does_not_know_it() {
    let (fake, mut reconciler) = due().await;
    let old = data(&fake, CA, "tls.crt");
    reconciler.api_servers = {
        // It has the registration of before.
        let (behind, ahead) = (Fake::default(), fake.client());
        behind.always("GET /readyz", 200, json!("ok"));
        fake.always("GET /readyz", 200, json!("ok"));
        for version in names::METRICS_VERSIONS {
            let path = format!("{APISERVICES}/{version}.{}", names::METRICS_GROUP);
            behind.put(&path, fake.get(&path).unwrap());
            let list = json!({"kind": "NodeMetricsList", "apiVersion": format!("metrics.k8s.io/{version}"),
                "items": [{}]});
            behind.always(&format!("GET /apis/metrics.k8s.io/{version}/nodes"), 200, list);
        }
        fake.put(
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes",
            json!({"metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
                "addressType": "IPv4", "ports": [{"port": 6443}],
                "endpoints": [{"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"]}]}),
        );
        let behind = behind.client();
        ApiServers::with(
            fake.client(),
            std::sync::Arc::new(move |address| {
                let is_first = address == "10.0.0.1:6443".parse().unwrap();
                Ok(if is_first { ahead.clone() } else { behind.clone() })
            }),
        )
    };
    for _ in 0..4 {
        reconciler.reconcile().await.unwrap();
        settles().await;
        assert_eq!(data(&fake, CA, "tls.crt"), old);
    }
    let servers = fake.get(STACK).unwrap()["status"]["aggregation"]["apiServers"].clone();
    assert_eq!(
        servers,
        json!([{"address": "10.0.0.1:6443", "available": "True"}, {"address": "10.0.0.2:6443", "available": "True"}])
    );
}

#[tokio::test(start_paused = true)]
async fn whichever_write_of_a_rotation_a_leader_dies_after_the_next_one_comes_to_the_same_end() {
    for turns_before in 0..2 {
        let (whole, mut reconciler) = due().await;
        for _ in 0..turns_before {
            reconciler.reconcile().await.unwrap();
            settles().await;
        }
        whole.writes();
        reconciler.reconcile().await.unwrap();
        let writes = whole.writes().len();
        assert!(writes > 2, "{writes}");
        for n in 0..writes {
            let (fake, mut reconciler) = due().await;
            let (old, leaf) = (data(&fake, CA, "tls.crt"), data(&fake, SERVING, "tls.crt"));
            for _ in 0..turns_before {
                reconciler.reconcile().await.unwrap();
                settles().await;
            }
            dies_after(n, &fake, reconciler).await;
            let mut started = reconciler_for(&fake);
            for _ in 0..2 {
                started.reconcile().await.unwrap();
                settles().await;
            }
            started.reconcile().await.unwrap();
            assert_ne!(data(&fake, CA, "tls.crt"), old, "turn {turns_before}, write {n}");
            assert_ne!(
                data(&fake, SERVING, "tls.crt"),
                leaf,
                "turn {turns_before}, write {n}"
            );
            assert_eq!(trusted(&fake), 2, "turn {turns_before}, write {n}");
            fake.writes();
            started.reconcile().await.unwrap();
            assert_eq!(fake.writes(), [""; 0], "turn {turns_before}, write {n}");
        }
    }
}

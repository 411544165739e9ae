//! A turn that ends in the middle, an API server that fills in defaults, and a CRD of another version.

use super::*;

/// What is left of a cluster when the turns are over, without what differs from run to run.
fn end_state(fake: &Fake) -> Vec<String> {
    let mut paths = fake.paths();
    paths.retain(|path| !path.contains("/events/"));
    paths
}

/// Ends a turn, and whoever makes it, when `n` writes are done and the next is under way.
pub(super) async fn dies_after(n: usize, fake: &Fake, mut reconciler: Reconciler) {
    fake.hang_after(n);
    let died = async {
        while !fake.hangs() {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        result = reconciler.reconcile() => panic!("it was to die after write {n}: {result:?}"),
        () = died => {}
    }
    fake.go_on();
}

/// Turns until nothing is written, by a process that has just started.
async fn converge(fake: &Fake) {
    let mut reconciler = reconciler_for(fake);
    for _ in 0..5 {
        fake.writes();
        reconciler.reconcile().await.unwrap();
        if fake.writes().is_empty() {
            return;
        }
    }
    panic!("there is no end of writing: {:?}", fake.writes());
}

#[tokio::test]
async fn whichever_write_a_leader_dies_after_the_next_one_comes_to_the_same_end() {
    let spec = json!({"kubelet": {"tls": {"mode": "Verify"}}});
    let (whole, mut reconciler) = cluster(&spec);
    endpoint_is_ready(&whole);
    reconciler.reconcile().await.unwrap();
    let writes = whole.writes().len();
    converge(&whole).await;
    assert!(writes > 15, "{writes}");
    for n in 0..writes {
        let (fake, reconciler) = cluster(&spec);
        endpoint_is_ready(&fake);
        dies_after(n, &fake, reconciler).await;
        let authority = fake.get(CA);
        converge(&fake).await;
        assert_eq!(end_state(&fake), end_state(&whole), "after write {n}");
        assert_eq!(condition(&fake, "Available").0, "True", "after write {n}");
        if let Some(authority) = authority {
            assert_eq!(
                fake.get(CA).unwrap()["data"],
                authority["data"],
                "after write {n}"
            );
        }
    }
}

#[tokio::test]
async fn whichever_write_a_leader_dies_after_a_deleted_stack_goes() {
    let gone = |fake: &Fake| {
        let mut stack = fake.get(STACK).unwrap();
        stack["metadata"]["deletionTimestamp"] = json!("2026-11-24T00:00:00Z");
        fake.put(STACK, stack);
        for version in names::METRICS_VERSIONS {
            let call = format!("GET /apis/metrics.k8s.io/{version}");
            fake.always(&call, 404, status(404, "NotFound", "no"));
        }
    };
    let (whole, mut reconciler) = working().await;
    gone(&whole);
    whole.writes();
    reconciler.reconcile().await.unwrap();
    let writes = whole.writes().len();
    assert!(writes > 10, "{writes}");
    for n in 0..writes {
        let (fake, reconciler) = working().await;
        gone(&fake);
        dies_after(n, &fake, reconciler).await;
        reconciler_for(&fake).reconcile().await.unwrap();
        assert_eq!(end_state(&fake), end_state(&whole), "after write {n}");
    }
}

/// Fields that kube-apiserver fills in.
fn fill_in(fake: &Fake) {
    let fill = |path: &str, pointer: &str, fields: Value| {
        let mut object = fake.get(path).unwrap();
        let place = object.pointer_mut(pointer).unwrap();
        for (key, value) in fields.as_object().unwrap() {
            place
                .as_object_mut()
                .unwrap()
                .entry(key)
                .or_insert_with(|| value.clone());
        }
        fake.put(path, object);
    };
    let service = "/api/v1/namespaces/ns/services/metrics-api";
    fill(
        service,
        "/spec",
        json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "type": "ClusterIP",
            "sessionAffinity": "None", "ipFamilies": ["IPv4"], "internalTrafficPolicy": "Cluster"}),
    );
    fill(service, "/spec/ports/0", json!({"protocol": "TCP"}));
    fill(
        DEPLOYMENT,
        "/spec",
        json!({"progressDeadlineSeconds": 600, "revisionHistoryLimit": 10}),
    );
    fill(
        DEPLOYMENT,
        "/spec/template/spec",
        json!({"dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler"}),
    );
    fill(
        DEPLOYMENT,
        "/spec/template/spec/containers/0",
        json!({"terminationMessagePath": "/dev/termination-log"}),
    );
}

#[tokio::test]
async fn over_an_unchanged_cluster_with_defaults_filled_in_nothing_is_written() {
    let (fake, mut reconciler) = working().await;
    fill_in(&fake);
    reconciler.reconcile().await.unwrap();
    fake.writes();
    for _ in 0..3 {
        reconciler.reconcile().await.unwrap();
        assert_eq!(fake.writes(), [""; 0]);
    }
    let mut started = reconciler_for(&fake);
    for _ in 0..3 {
        started.reconcile().await.unwrap();
        assert_eq!(fake.writes(), [""; 0], "by a process that has just started");
    }
}

#[tokio::test]
async fn a_crd_newer_or_older_than_the_operator_keeps_nothing_from_working() {
    for (spec, dropped) in [
        (
            json!({"later": {"field": 1}, "metricsApi": {"later": true}}),
            None,
        ),
        (json!({}), Some("findings")),
    ] {
        let (fake, mut reconciler) = working().await;
        let mut stack = fake.get(STACK).unwrap();
        stack["spec"] = spec;
        if let Some(field) = dropped {
            stack["status"].as_object_mut().unwrap().remove(field);
        }
        stack["status"]["later"] = json!("a field of another version");
        fake.put(STACK, stack);
        reconciler.reconcile().await.unwrap();
        assert_eq!(condition(&fake, "Available").0, "True");
        assert_eq!(
            registrations(&fake.writes())
                .iter()
                .filter(|write| write.contains("DELETE"))
                .count(),
            0
        );
    }
}

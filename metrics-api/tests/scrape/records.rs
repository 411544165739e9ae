//! Trust records at an API server that has other writers too.

use std::{collections::HashSet, convert::Infallible, time::Duration};

use contract::{
    names::TRUST_LABEL,
    report::ErrorClass,
    trust::{MAX_RECORDS, config_map_name},
};
use futures::future::join_all;
use metrics_api::kubelet::{
    records::Records,
    tls::{Fingerprint, Presented},
};

use crate::support::{UID, api::FakeApi};

const AGE: Duration = Duration::from_secs(10);

fn key(letter: &str) -> Presented {
    Presented::Foreign(Fingerprint(letter.repeat(64)))
}

fn pin(letter: &str) -> String {
    format!("pinned sha256:{}", letter.repeat(64))
}

async fn settle(records: &Records, uid: &str, presented: &Presented) -> Result<(), ErrorClass> {
    records
        .settle(uid, presented, AGE)
        .await
        .map_err(|error| error.class)
}

/// So many UIDs whose records are in one ConfigMap.
fn neighbours(count: usize) -> Vec<String> {
    let shard = config_map_name("uid-0");
    (0..)
        .map(|i| format!("uid-{i}"))
        .filter(|uid| config_map_name(uid) == shard)
        .take(count)
        .collect()
}

#[tokio::test]
async fn two_replicas_cannot_record_different_keys() {
    let api = FakeApi::default();
    let (ours, theirs) = (Records::new(api.config_maps()), Records::new(api.config_maps()));
    let (a, b) = (key("a"), key("b"));
    let (first, second) = tokio::join!(settle(&ours, UID, &a), settle(&theirs, UID, &b));
    assert_ne!(first.is_ok(), second.is_ok(), "{first:?} {second:?}");
    let loser = if first.is_ok() { second } else { first };
    assert_eq!(loser, Err(ErrorClass::TlsKeyChanged));
    let winner = if first.is_ok() { "a" } else { "b" };
    assert_eq!(api.records()[UID], pin(winner));
}

#[tokio::test]
async fn whoever_is_late_yields_to_what_was_written_meanwhile() {
    // The ConfigMap does not exist, then it does; it exists, then it changes.
    for exists in [false, true] {
        let api = FakeApi::default();
        let others = neighbours(3);
        if exists {
            api.put_record(&others[1], Some("verified"));
        }
        let uid = others[0].clone();
        api.before_next_write(move |api| api.put_record(&uid, Some(&pin("b"))));
        let records = Records::new(api.config_maps());
        assert_eq!(
            settle(&records, &others[0], &key("a")).await,
            Err(ErrorClass::TlsKeyChanged),
            "{exists}"
        );
        assert_eq!(api.records()[&others[0]], pin("b"));
        // A neighbour's record that is written at the same time is no conflict of ours.
        let neighbour = others[1].clone();
        api.before_next_write(move |api| api.put_record(&neighbour, Some(&pin("c"))));
        assert_eq!(settle(&records, &others[2], &key("a")).await, Ok(()));
        assert_eq!(api.records()[&others[1]], pin("c"));
        assert_eq!(api.records()[&others[2]], pin("a"));
    }
}

#[tokio::test]
async fn many_nodes_are_recorded_by_few_writes() {
    let api = FakeApi::default();
    let records = Records::new(api.config_maps());
    let (uids, presented) = (neighbours(200), key("a"));
    let settled = join_all(uids.iter().map(|uid| settle(&records, uid, &presented))).await;
    assert!(settled.iter().all(Result::is_ok), "{settled:?}");
    assert_eq!(api.records().len(), 200);
    assert!(api.writes() <= 3, "{} writes", api.writes());
    let again = join_all(uids.iter().map(|uid| settle(&records, uid, &presented))).await;
    assert!(again.iter().all(Result::is_ok));
    assert!(api.writes() <= 3, "nothing is written when nothing changed");
    assert!(api.reads() <= 3, "{} reads", api.reads());
}

#[tokio::test]
async fn a_full_shard_takes_no_more_and_says_so() {
    let api = FakeApi::default();
    let uids = neighbours(MAX_RECORDS + 1);
    for uid in &uids[1..] {
        api.put_record(uid, Some(&pin("a")));
    }
    let records = Records::new(api.config_maps());
    let error = records.settle(&uids[0], &key("a"), AGE).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::TlsRecordUnavailable);
    assert!(
        error.message.contains(&config_map_name(&uids[0])) && error.message.contains("2000"),
        "{error:?}"
    );
    assert_eq!(
        settle(&records, &uids[1], &key("a")).await,
        Ok(()),
        "who is in it stays trusted"
    );
    assert_eq!(settle(&records, &uids[1], &Presented::Verified).await, Ok(()));
    assert_eq!(
        api.records()[&uids[1]],
        "verified",
        "and a record may still change"
    );
}

#[tokio::test]
async fn an_error_names_the_config_map_and_the_cause() {
    let api = FakeApi::default();
    api.refuse(|_, _| Some(403));
    let error = Records::new(api.config_maps())
        .settle(UID, &key("a"), AGE)
        .await
        .unwrap_err();
    assert_eq!(error.class, ErrorClass::TlsRecordUnavailable);
    for part in [config_map_name(UID).as_str(), "read", "403"] {
        assert!(error.message.contains(part), "{}", error.message);
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_hangs_is_not_waited_for() {
    let service = tower::service_fn(|_: http::Request<kube::client::Body>| {
        std::future::pending::<Result<http::Response<kube::client::Body>, Infallible>>()
    });
    let records = Records::new(kube::Api::namespaced(
        kube::Client::new(service, "apart"),
        "apart",
    ));
    assert_eq!(
        settle(&records, UID, &key("a")).await,
        Err(ErrorClass::TlsRecordUnavailable)
    );
    assert_eq!(settle(&records, UID, &Presented::Verified).await, Ok(()));
}

#[tokio::test]
async fn the_config_maps_are_marked_as_ours() {
    let api = FakeApi::default();
    settle(&Records::new(api.config_maps()), UID, &key("a"))
        .await
        .unwrap();
    let mut map = api.config_map(&config_map_name(UID)).unwrap();
    assert_eq!(map.metadata.labels.as_ref().unwrap()[TRUST_LABEL], "true");
    map.metadata.resource_version = None;
    insta::assert_json_snapshot!(map, @r#"
    {
      "apiVersion": "v1",
      "kind": "ConfigMap",
      "data": {
        "d60d38f6-6e71-416b-97ce-00f6ce32dce1": "pinned sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
      },
      "metadata": {
        "labels": {
          "app.kubernetes.io/managed-by": "metrics-api",
          "app.kubernetes.io/name": "metrics-api",
          "metricsstack.dev/kubelet-trust": "true"
        },
        "name": "metrics-api-kubelet-trust-26"
      }
    }
    "#);
}

async fn prune(records: &Records, living: &[&str]) -> Result<usize, String> {
    let living: HashSet<String> = living.iter().map(|uid| (*uid).to_owned()).collect();
    records
        .prune(|| async { Ok::<_, Infallible>(living) })
        .await
        .map_err(|error| error.to_string())
}

#[tokio::test]
async fn records_go_with_their_nodes() {
    let api = FakeApi::default();
    for uid in ["uid-a", "uid-b", "uid-c"] {
        api.put_record(uid, Some(&pin("a")));
    }
    let records = Records::new(api.config_maps());
    assert_eq!(prune(&records, &["uid-a", "uid-c", "uid-new"]).await, Ok(1));
    assert_eq!(api.records().into_keys().collect::<Vec<_>>(), ["uid-a", "uid-c"]);
    let writes = api.writes();
    assert_eq!(prune(&records, &["uid-a", "uid-c"]).await, Ok(0));
    assert_eq!(api.writes(), writes, "a quiet cluster is not written to");
}

#[tokio::test]
async fn without_a_complete_list_of_nodes_nothing_is_pruned() {
    let api = FakeApi::default();
    api.put_record("uid-a", Some(&pin("a")));
    let records = Records::new(api.config_maps());
    let error = records
        .prune(|| async { Err(std::io::Error::other("410 Gone")) })
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "failed to list all Nodes");
    assert_eq!(api.records().len(), 1);
}

#[tokio::test]
async fn a_node_that_joins_while_records_are_pruned_keeps_its_own() {
    let api = FakeApi::default();
    let uids = neighbours(2);
    api.put_record(&uids[0], Some(&pin("a")));
    let records = Records::new(api.config_maps());
    // The list was made before the node joined; its record is written after the records were read.
    let joined = api.clone();
    let uid = uids[1].clone();
    let removed = records.prune(|| async move {
        joined.put_record(&uid, Some(&pin("b")));
        Ok::<_, Infallible>(HashSet::new())
    });
    assert_eq!(
        removed.await.unwrap(),
        0,
        "the ConfigMap changed meanwhile: the next turn sees to it"
    );
    assert_eq!(api.records().len(), 2);
    assert_eq!(prune(&records, &[&uids[1]]).await, Ok(1));
    assert_eq!(api.records().into_keys().collect::<Vec<_>>(), [uids[1].clone()]);
}

#[tokio::test(start_paused = true)]
async fn who_is_known_as_verified_is_not_read_again() {
    let api = FakeApi::default();
    let records = Records::new(api.config_maps());
    settle(&records, UID, &Presented::Verified).await.unwrap();
    let reads = api.reads();
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_mins(5)).await;
        settle(&records, UID, &Presented::Verified).await.unwrap();
    }
    assert_eq!(api.reads(), reads);
    assert_eq!(
        settle(&records, UID, &key("a")).await,
        Err(ErrorClass::TlsDowngrade)
    );
    assert!(api.reads() > reads, "a refusal is never based on memory");
}

use k8s_openapi::{api::core::v1::Node, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use serde_json::json;

use super::*;
use crate::time::Monotonic;

fn pod(namespace: &str, name: &str, uid: &str, app: &str) -> ObjectMeta {
    let pod = json!({
        "namespace": namespace, "name": name, "uid": uid, "creationTimestamp": "2026-11-23T16:00:00Z",
        "labels": {"app": app, "tier": "x"},
    });
    serde_json::from_value(pod).unwrap()
}

fn node(name: &str, uid: &str) -> Node {
    let mut node: Node = serde_json::from_slice(include_bytes!("../../tests/fixtures/node.json")).unwrap();
    node.metadata.name = Some(name.to_owned());
    node.metadata.uid = Some(uid.to_owned());
    node
}

/// Pods as `namespace/name` with their label `app` and since when they are there.
fn pods(index: &PodIndex) -> Vec<(String, String, u64)> {
    let view = index.read();
    let pods = view.from(std::ops::Bound::Unbounded);
    pods.map(|(key, pod)| {
        let app = pod.labels.get("app").unwrap_or_default().to_owned();
        (format!("{}/{}", key.namespace, key.name), app, pod.since().0)
    })
    .collect()
}

fn expected<const N: usize>(pods: [(&str, &str, u64); N]) -> Vec<(String, String, u64)> {
    pods.map(|(key, app, since)| (key.to_owned(), app.to_owned(), since))
        .to_vec()
}

#[test]
fn pods_come_change_and_go() {
    let index = PodIndex::new(Names::default());
    index.begin();
    index.apply(&pod("n", "b", "1", "x"), Monotonic(10));
    index.apply(&pod("n", "a", "2", "x"), Monotonic(10));
    index.apply(&pod("m", "c", "3", "x"), Monotonic(10));
    assert!(!index.is_synced());
    index.finish();
    assert!(index.is_synced());
    assert_eq!(
        pods(&index),
        expected([("m/c", "x", 0), ("n/a", "x", 0), ("n/b", "x", 0)])
    );

    index.apply(&pod("n", "a", "2", "changed"), Monotonic(20));
    index.apply(&pod("n", "b", "another", "x"), Monotonic(20));
    index.apply(&pod("n", "d", "4", "x"), Monotonic(20));
    index.delete(&pod("m", "c", "3", "x"));
    assert_eq!(
        pods(&index),
        expected([("n/a", "changed", 0), ("n/b", "x", 20), ("n/d", "x", 20)])
    );
    index.delete(&pod("n", "b", "another", "x"));
    index.apply(&pod("n", "b", "again", "x"), Monotonic(30));
    assert_eq!(pods(&index).get(1), Some(&("n/b".to_owned(), "x".to_owned(), 30)));
}

#[test]
fn a_full_list_ends_what_it_does_not_hold_but_not_before_its_end() {
    let index = PodIndex::new(Names::default());
    for kept in [["a", "b"], ["b", "c"]] {
        index.begin();
        for name in kept {
            index.apply(&pod("n", name, name, "x"), Monotonic(10));
        }
        let before = index.len();
        index.finish();
        assert!(before >= index.len());
        // A list that breaks off and begins again.
        index.begin();
        index.apply(&pod("n", "b", "b", "x"), Monotonic(10));
        assert_eq!(index.len(), 2);
    }
    assert_eq!(pods(&index), expected([("n/b", "x", 0), ("n/c", "x", 10)]));
    index.finish();
    assert_eq!(pods(&index), expected([("n/b", "x", 0)]));
}

#[test]
fn equal_labels_are_shared_and_dated() {
    let index = PodIndex::new(Names::default());
    index.apply(&pod("n", "a", "1", "x"), Monotonic(10));
    index.apply(&pod("n", "b", "2", "x"), Monotonic(10));
    let view = index.read();
    let [a, b] = ["a", "b"].map(|name| view.get(&PodKey::new("n", name)).unwrap());
    assert!(Arc::ptr_eq(&a.labels.0, &b.labels.0));
    assert_eq!(a.labels.iter().collect::<Vec<_>>(), [("app", "x"), ("tier", "x")]);
    assert_eq!((a.labels.get("tier"), a.labels.get("none")), (Some("x"), None));
    assert_eq!(a.created().unwrap().to_string(), "2026-11-23T16:00:00Z");
}

#[test]
fn of_a_node_is_kept_what_a_scrape_and_an_answer_need() {
    let index = NodeIndex::new(Names::default());
    let (info, change) = index.apply(&node("node-a", "u1")).unwrap();
    assert_eq!(change, NodeChange::Added);
    insta::assert_debug_snapshot!(info);
    let mut virtual_node = node("v", "u2");
    let annotations = [("metrics.k8s.io/resource-metrics-path".to_owned(), "/x".to_owned())];
    virtual_node.metadata.annotations = Some(annotations.into());
    virtual_node.status = None;
    let (info, _) = index.apply(&virtual_node).unwrap();
    assert_eq!(
        (&info.metrics_path, info.kubelet_port, info.ready),
        (&MetricsPath::At("/x".into()), None, false)
    );
    assert!(index.apply(&Node::default()).is_none());
}

#[test]
fn nodes_come_change_and_go() {
    let index = NodeIndex::new(Names::default());
    let change = |node: &Node| index.apply(node).map(|(_, change)| change);
    index.begin();
    assert_eq!(change(&node("a", "1")), Some(NodeChange::Added));
    assert_eq!(change(&node("b", "2")), Some(NodeChange::Added));
    assert!(!index.is_synced());
    assert!(index.finish().is_empty());
    assert!(index.is_synced());
    assert_eq!(change(&node("a", "1")), Some(NodeChange::Unchanged));
    let mut moved = node("a", "1");
    moved.status.as_mut().unwrap().addresses = None;
    assert_eq!(change(&moved), Some(NodeChange::Changed));
    assert_eq!(change(&node("a", "new")), Some(NodeChange::Replaced));
    let names =
        |nodes: Vec<Arc<NodeInfo>>| nodes.iter().map(|node| node.name.to_string()).collect::<Vec<_>>();
    assert_eq!(
        names(index.read().after(Some("a")).map(Arc::clone).collect()),
        ["b"]
    );
    index.begin();
    index.apply(&node("b", "2"));
    assert_eq!(names(index.all()), ["a", "b"]);
    assert_eq!(names(index.finish()), ["a"]);
    assert_eq!(names(index.all()), ["b"]);
    assert!(index.get("b").is_some());
    assert!(index.delete("b") && !index.delete("b"));
    assert!(index.get("b").is_none());
}

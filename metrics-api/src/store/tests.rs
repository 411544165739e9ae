use std::{collections::BTreeMap, fmt::Write as _, ops::Bound};

use proptest::prelude::*;

use super::*;
use crate::{decode::decode, time::UnixMillis};

const RULES: Rules = Rules { resolution: 15_000 };

/// An answer: time on the node's clock and CPU time in seconds, and the containers as `namespace/pod/container`.
fn answer(seconds: u64, containers: &[&str]) -> String {
    let millis = 1_795_452_000_000 + seconds * 1000;
    let mut text = format!(
        "node_cpu_usage_seconds_total {seconds} {millis}\nnode_memory_working_set_bytes 1 {millis}\n"
    );
    for container in containers {
        let [namespace, pod, name] = container.split('/').collect::<Vec<_>>()[..] else {
            panic!("{container}")
        };
        let labels = format!("{{container=\"{name}\",namespace=\"{namespace}\",pod=\"{pod}\"}}");
        writeln!(
            text,
            "container_cpu_usage_seconds_total{labels} {seconds} {millis}"
        )
        .unwrap();
        writeln!(text, "container_memory_working_set_bytes{labels} 1 {millis}").unwrap();
    }
    text
}

fn at(seconds: u64) -> Monotonic {
    Monotonic(86_400_000 + seconds * 1000)
}

fn put(store: &Store, node: &str, seconds: u64, text: &str) {
    store.put(
        node,
        &decode(text.as_bytes(), UnixMillis(0)).unwrap(),
        at(seconds),
    );
}

fn store() -> Store {
    Store::new(RULES, Names::default())
}

/// All pods that are answered at `seconds`, with their containers.
fn answered(store: &Store, seconds: u64) -> BTreeMap<String, Vec<String>> {
    let view = store.read();
    let mut pods = BTreeMap::new();
    for (key, _) in view.pods_from(Bound::Unbounded) {
        if let Some(usage) = view.pod(key, Monotonic(0), at(seconds)) {
            let names = usage.containers().map(|(name, _)| name.to_owned()).collect();
            pods.insert(format!("{}/{}", key.namespace, key.name), names);
        }
    }
    pods
}

fn pods<const N: usize>(expected: [(&str, &[&str]); N]) -> BTreeMap<String, Vec<String>> {
    let owned = |names: &[&str]| names.iter().copied().map(str::to_owned).collect();
    expected
        .into_iter()
        .map(|(pod, names)| (pod.to_owned(), owned(names)))
        .collect()
}

#[test]
fn a_node_and_its_pods_are_answered_after_two_answers() {
    let store = store();
    assert!(!store.is_ready(at(0)));
    put(&store, "a", 0, &answer(0, &["n/p/c", "n/p/b", "m/q/c"]));
    assert_eq!(
        (answered(&store, 0), store.read().node("a", at(0))),
        (BTreeMap::new(), None)
    );
    put(&store, "a", 15, &answer(15, &["n/p/c", "n/p/b", "m/q/c"]));
    assert_eq!(
        answered(&store, 15),
        pods([("m/q", &["c"]), ("n/p", &["b", "c"])])
    );
    let view = store.read();
    let usage = view.node("a", at(15)).unwrap();
    assert_eq!(
        (usage.cpu, usage.window, usage.memory),
        (1_000_000_000, 15_000, 1)
    );
    assert_eq!(
        store.points(at(15)),
        Points {
            nodes: 1,
            containers: 3
        }
    );
    assert!(store.is_ready(at(15)));
}

#[test]
fn a_pod_is_answered_whole_or_not_at_all() {
    let store = store();
    put(&store, "a", 0, &answer(0, &["n/p/a"]));
    put(&store, "a", 15, &answer(15, &["n/p/a", "n/p/b"]));
    assert_eq!(answered(&store, 15), pods([]));
    put(&store, "a", 30, &answer(30, &["n/p/a", "n/p/b"]));
    assert_eq!(answered(&store, 30), pods([("n/p", &["a", "b"])]));
    put(&store, "a", 45, &answer(45, &["n/p/b"]));
    assert_eq!(answered(&store, 45), pods([("n/p", &["b"])]));
}

#[test]
fn a_missing_value_keeps_the_last_usage_for_three_resolutions() {
    let store = store();
    let whole = |seconds| answer(seconds, &["n/p/a", "n/p/b"]);
    put(&store, "a", 0, &whole(0));
    put(&store, "a", 15, &whole(15));
    let damaged = |seconds| {
        whole(seconds).replace(
            "container_cpu_usage_seconds_total{container=\"a\",namespace=\"n\",pod=\"p\"} ",
            "container_cpu_usage_seconds_total{container=\"a\",namespace=\"n\",pod=\"p\"} x",
        )
    };
    for seconds in [30, 45, 60] {
        put(&store, "a", seconds, &damaged(seconds));
        assert_eq!(answered(&store, seconds), pods([("n/p", &["a", "b"])]));
        let view = store.read();
        let usage = view
            .pod(&PodKey::new("n", "p"), Monotonic(0), at(seconds))
            .unwrap();
        assert_eq!(
            (usage.time, usage.window),
            (UnixMillis(1_795_452_015_000), 15_000),
            "the older one's"
        );
        let (_, b) = usage.containers().last().unwrap();
        assert_eq!(
            b.time,
            UnixMillis(1_795_452_000_000 + i64::try_from(seconds).unwrap() * 1000)
        );
    }
    put(&store, "a", 61, &damaged(61));
    assert_eq!(answered(&store, 61), pods([]));
    put(&store, "a", 75, &whole(75));
    assert_eq!(answered(&store, 75), pods([("n/p", &["a", "b"])]));
}

#[test]
fn missing_scrapes_hide_a_node_after_three_resolutions_and_no_other() {
    let store = store();
    for seconds in [0, 15, 30, 45, 60, 75] {
        put(&store, "well", seconds, &answer(seconds, &["n/well/c"]));
        if seconds <= 15 {
            put(&store, "sick", seconds, &answer(seconds, &["n/sick/c"]));
        }
    }
    assert_eq!(
        answered(&store, 60),
        pods([("n/sick", &["c"]), ("n/well", &["c"])])
    );
    assert!(store.read().node("sick", at(60)).is_some());
    assert_eq!(answered(&store, 61), pods([("n/well", &["c"])]));
    assert!(store.read().node("sick", at(61)).is_none());
    assert!(store.is_ready(at(75)));
    assert!(!store.is_ready(at(121)));
}

#[test]
fn an_incomplete_answer_ends_nothing() {
    let store = store();
    for seconds in [0, 15] {
        put(&store, "a", seconds, &answer(seconds, &["n/p/c", "n/q/c"]));
    }
    put(
        &store,
        "a",
        30,
        &(answer(30, &["n/p/c"]) + "resource_scrape_error 1\n"),
    );
    assert_eq!(answered(&store, 30), pods([("n/p", &["c"]), ("n/q", &["c"])]));
    put(
        &store,
        "a",
        61,
        &(answer(61, &["n/p/c"]) + "container_cpu_usage_seconds_total{\n"),
    );
    assert_eq!(answered(&store, 61), pods([("n/p", &["c"])]));
    assert_eq!(
        store.read().pods_from(Bound::Unbounded).count(),
        1,
        "forgotten after three resolutions"
    );
    put(
        &store,
        "a",
        76,
        &(answer(76, &["n/p/c"]) + "resource_scrape_error 0\n"),
    );
    assert_eq!(answered(&store, 76), pods([("n/p", &["c"])]));
}

#[test]
fn of_a_pod_that_two_kubelets_report_the_later_start_is_answered() {
    let store = store();
    let with_start = |seconds: u64, start: u64| {
        let start = 1_795_452_000 + start;
        answer(seconds, &["n/p/c"])
            + &format!("container_start_time_seconds{{container=\"c\",namespace=\"n\",pod=\"p\"}} {start}\n")
    };
    for seconds in [100, 115] {
        put(&store, "new", seconds, &with_start(seconds, 50));
        put(&store, "old", seconds + 3, &with_start(seconds + 3, 10));
    }
    let time = |store: &Store| {
        store
            .read()
            .pod(&PodKey::new("n", "p"), Monotonic(0), at(118))
            .map(|usage| usage.time)
    };
    assert_eq!(time(&store), Some(UnixMillis(1_795_452_115_000)));
    put(&store, "new", 116, &answer(116, &[]));
    assert_eq!(time(&store), Some(UnixMillis(1_795_452_118_000)));
    store.remove("old");
    assert_eq!(time(&store), None);
}

#[test]
fn a_removed_node_takes_its_pods_along_and_may_come_back() {
    let store = store();
    for seconds in [0, 15] {
        put(&store, "a", seconds, &answer(seconds, &["n/p/c"]));
        put(&store, "b", seconds, &answer(seconds, &["n/q/c"]));
    }
    store.remove("a");
    store.remove("never there");
    assert_eq!(answered(&store, 15), pods([("n/q", &["c"])]));
    assert!(store.read().node("a", at(15)).is_none());
    put(&store, "c", 16, &answer(16, &["n/r/c"]));
    put(&store, "a", 30, &answer(30, &["n/p/c"]));
    assert!(store.read().node("a", at(30)).is_none(), "it starts anew");
    put(&store, "a", 45, &answer(45, &["n/p/c"]));
    assert_eq!(answered(&store, 45), pods([("n/p", &["c"]), ("n/q", &["c"])]));
}

#[test]
fn what_was_renewed_before_a_pod_came_into_being_is_not_its_usage() {
    let store = store();
    for seconds in [0, 15] {
        put(&store, "a", seconds, &answer(seconds, &["n/p/c"]));
    }
    let view = store.read();
    assert!(view.pod(&PodKey::new("n", "p"), at(15), at(20)).is_some());
    assert!(view.pod(&PodKey::new("n", "p"), at(16), at(20)).is_none());
}

/// Names for generated answers: few, so that they meet.
const POOL: [&str; 6] = ["m/p/a", "n/p/a", "n/p/b", "n/p/c", "n/q/a", "o/r/b"];

proptest! {
    #[test]
    fn every_history_answers_whole_pods_of_the_newest_answers(
        history in proptest::collection::vec((0_usize..3, proptest::sample::subsequence(&POOL[..], 0..=6), 1_u64..30), 1..40),
        complete: bool,
    ) {
        let store = store();
        let mut seconds = 100;
        let mut running: [BTreeMap<String, Vec<String>>; 3] = Default::default();
        for (node, containers, step) in history {
            seconds += step;
            let error = if complete { "" } else { "resource_scrape_error 1\n" };
            put(&store, ["a", "b", "c"][node], seconds, &(answer(seconds, &containers) + error));
            running[node].clear();
            for container in containers {
                let (pod, name) = container.rsplit_once('/').unwrap();
                running[node].entry(pod.to_owned()).or_default().push(name.to_owned());
            }
            if complete {
                for (pod, names) in answered(&store, seconds) {
                    prop_assert!(running.iter().any(|node| node.get(&pod) == Some(&names)), "{pod} {names:?} {running:?}");
                }
            }
            let inner = &store.read().inner;
            let of_entry = |id: usize| {
                let pods = inner.entries[id].iter().flat_map(|entry| &entry.pods);
                pods.map(move |pod| (pod.key.clone(), NodeId::try_from(id).unwrap()))
            };
            let owned: BTreeSet<_> = (0..inner.entries.len()).flat_map(of_entry).collect();
            prop_assert_eq!(&inner.pods, &owned, "the set of all pods is that of the entries");
        }
    }
}

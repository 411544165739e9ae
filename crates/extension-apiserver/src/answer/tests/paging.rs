//! `limit` and `continue`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use k8s_pb::metrics::pkg::apis::metrics::v1beta1::PodMetricsList;
use proptest::prelude::*;

use super::*;

const PODS: &str = "/apis/metrics.k8s.io/v1/pods";
const ACCEPT: [&str; 5] = [
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/yaml;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
];

/// Names on a page, and what the next is asked for by.
fn page(api: &Api, path: &str, query: &str, token: &str, accept: &str) -> (Vec<String>, String) {
    let request = format!("GET {path}?{query}&continue={token}");
    let answered = ask(api, &request, &[("accept", accept)]);
    assert_eq!(answered.code, 200, "{request}: {:?}", answered.told());
    if accept.contains("protobuf") {
        let list: PodMetricsList = encodings::decode(&answered.body);
        let names = list
            .items
            .iter()
            .map(|item| item.metadata.as_ref().unwrap().name().to_owned());
        return (names.collect(), list.metadata.unwrap().r#continue().to_owned());
    }
    let mut list: Value = if accept.contains("yaml") {
        serde_yaml::from_slice(&answered.body).unwrap()
    } else {
        answered.json()
    };
    if let Some(rows) = list["rows"].as_array_mut() {
        list["items"] = rows.iter_mut().map(|row| row["object"].take()).collect();
    }
    assert!(list["metadata"].is_object());
    let token = list["metadata"]["continue"].as_str().unwrap_or_default();
    (names(&list), token.to_owned())
}

#[test]
fn pages_go_on_where_the_one_before_ended_in_every_form() {
    let api = api();
    for accept in ACCEPT {
        let (first, token) = page(&api, PODS, "limit=2", "", accept);
        assert_eq!(first, ["etcd-node-a", "kube-apiserver-node-a"], "{accept}");
        let (second, token) = page(&api, PODS, "limit=2", &token, accept);
        assert_eq!(
            second,
            ["kube-controller-manager-node-a", "kube-scheduler-node-a"]
        );
        let (third, end) = page(&api, PODS, "limit=2", &token, accept);
        assert_eq!((third.len(), end.as_str()), (1, ""), "{accept}");
        // The rest may also be had at once, from any version, and a page may be as large as the list.
        let beta = PODS.replace("v1/", "v1beta1/");
        assert_eq!(page(&api, &beta, "", &token, accept), (third, String::new()));
        assert_eq!(page(&api, PODS, "limit=5", "", accept).1, "");
        assert_eq!(page(&api, PODS, "limit=-1", "", accept).0.len(), 5);
    }
    let selector = "limit=4&labelSelector=tier%3Dcontrol-plane";
    let (names, end) = page(&api, PODS, selector, "", ACCEPT[0]);
    assert_eq!((names.len(), end.as_str()), (4, ""), "nothing else is selected");
}

#[test]
fn a_token_is_for_what_it_was_given_for() {
    let api = api();
    let (_, token) = page(&api, PODS, "limit=2", "", ACCEPT[0]);
    let refused = |path: &str, query: &str, token: &str| {
        let answered = ask(&api, &format!("GET {path}?{query}&continue={token}"), &[]);
        assert_eq!(answered.code, 400, "{path} {query} {token}");
        assert_eq!(answered.json()["reason"], "BadRequest");
        answered.told().2
    };
    let namespaced = "/apis/metrics.k8s.io/v1/namespaces/kube-system/pods";
    let nodes = "/apis/metrics.k8s.io/v1/nodes";
    for (path, query) in [
        (namespaced, "limit=2"),
        (nodes, "limit=2"),
        (PODS, "labelSelector=a"),
        (PODS, "fieldSelector=metadata.name%3Da"),
    ] {
        let told = refused(path, query, &token);
        assert!(
            told.contains("of a list of another resource or namespace"),
            "{told}"
        );
    }
    let parts: Value = serde_json::from_slice(&BASE64.decode(&token).unwrap()).unwrap();
    let with = |field: &str, value: Value| {
        let mut parts = parts.clone();
        parts[field] = value;
        BASE64.encode(parts.to_string())
    };
    for token in [
        "x".to_owned(),
        "!!!".to_owned(),
        BASE64.encode("{}"),
        BASE64.encode("null"),
        with("v", 2.into()),
        with("more", 2.into()),
        with("name", 2.into()),
        with("hash", "".into()),
    ] {
        let told = refused(PODS, "limit=1", &token);
        assert!(told.starts_with("continue key is not valid: "), "{told}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Between the pages objects come and go. Those that are there throughout come exactly once.
    #[test]
    fn what_is_there_throughout_comes_exactly_once(
        count in 1_usize..120,
        limit in 1_usize..40,
        changes in proptest::collection::vec((0_usize..120, any::<bool>()), 0..60),
        selector in any::<bool>(),
        form in 0..ACCEPT.len(),
    ) {
        let (pods, nodes) = resources();
        // Every second one of these is there at the start, the others may come.
        let all = many(count * 2);
        let start: Vec<_> = all.iter().step_by(2).cloned().collect();
        let mut throughout: std::collections::BTreeSet<String> = start.iter().map(|pod| pod.name.clone()).collect();
        pods.items.write().unwrap().clone_from(&start);
        let api = api_of(&["v1"], Arc::clone(&pods), nodes);
        let query = format!("limit={limit}&labelSelector={}", if selector { "third" } else { "" });
        let mut changes = changes.into_iter();
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let (found, next) = page(&api, PODS, &query, &token, ACCEPT[form]);
            prop_assert!(found.len() <= limit);
            seen.extend(found);
            token = next;
            if token.is_empty() {
                break;
            }
            for (at, comes) in changes.by_ref().take(3) {
                let mut items = pods.items.write().unwrap();
                let pod = all[at % all.len()].clone();
                items.retain(|item| item.name != pod.name);
                if comes {
                    items.push(pod);
                    items.sort_by(|a, b| a.key().cmp(&b.key()));
                } else {
                    throughout.remove(&pod.name);
                }
            }
        }
        let distinct: std::collections::BTreeSet<_> = seen.iter().cloned().collect();
        prop_assert_eq!(distinct.len(), seen.len(), "each comes once at most");
        prop_assert!(throughout.is_subset(&distinct), "{:?} did not come", throughout.difference(&distinct));
    }

    #[test]
    fn any_token_is_taken_or_refused(token in "[A-Za-z0-9_-]{0,60}") {
        let answered = ask(&api(), &format!("GET {PODS}?limit=1&continue={token}"), &[]);
        prop_assert!(answered.code == 400 || answered.code == 200 && token.is_empty());
    }
}

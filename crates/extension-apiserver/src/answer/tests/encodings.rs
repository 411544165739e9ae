//! YAML, protobuf and gzip.

use std::io::Read as _;

use k8s_pb::api::apidiscovery::v2::APIGroupDiscoveryList;
pub(super) use k8s_pb::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_pb::apimachinery::pkg::runtime::Unknown;
use k8s_pb::metrics::pkg::apis::metrics::v1beta1::{NodeMetrics, PodMetricsList};
use prost::Message as _;

use super::*;

const PROTOBUF: [(&str, &str); 1] = [("accept", "application/vnd.kubernetes.protobuf")];
const YAML: [(&str, &str); 1] = [("accept", "application/yaml")];
const PODS: &str = "GET /apis/metrics.k8s.io/v1beta1/pods";

pub(super) fn unknown(body: &[u8]) -> Unknown {
    Unknown::decode(body.strip_prefix(b"k8s\0").unwrap()).unwrap()
}

pub(super) fn decode<T: prost::Message + Default>(body: &[u8]) -> T {
    T::decode(unknown(body).raw.unwrap().as_slice()).unwrap()
}

fn fixture_bytes(name: &str) -> Vec<u8> {
    let path = format!(
        "{}/tests/fixtures/metrics-server-0.9/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    std::fs::read(path).unwrap()
}

#[test]
fn protobuf_is_what_metrics_server_writes() {
    let api = api();
    for accept in [
        "application/vnd.kubernetes.protobuf",
        "application/vnd.kubernetes.protobuf, */*",
        "application/vnd.kubernetes.protobuf,application/json",
    ] {
        let answered = ask(&api, PODS, &[("accept", accept), ("user-agent", "curl/8")]);
        assert_eq!(answered.header("content-type"), PROTOBUF[0].1);
        assert_eq!(answered.body, fixture_bytes("pods.pb"));
    }
    let stable = ask(&api, "GET /apis/metrics.k8s.io/v1/pods", &PROTOBUF);
    assert_eq!(stable.told().1, "metrics.k8s.io/v1");
    assert_eq!(unknown(&stable.body).raw, unknown(&fixture_bytes("pods.pb")).raw);
}

#[test]
fn single_objects_and_metadata_come_as_protobuf() {
    let api = api();
    let node = ask(&api, "GET /apis/metrics.k8s.io/v1beta1/nodes/node-a", &PROTOBUF);
    let decoded: NodeMetrics = decode(&node.body);
    let metadata = decoded.metadata.unwrap();
    assert_eq!(metadata.name(), "node-a");
    assert_eq!(metadata.labels["kubernetes.io/os"], "linux");
    assert_eq!(decoded.usage["cpu"].string(), "169415881n");
    assert_eq!(decoded.window.unwrap().duration(), 20_040_000_000);
    assert_eq!(decoded.timestamp.unwrap().seconds(), 1_795_452_122);

    let partial = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io";
    let one = ask(
        &api,
        "GET /apis/metrics.k8s.io/v1/nodes/node-a",
        &[("accept", partial)],
    );
    assert_eq!(one.told().0, "PartialObjectMetadata");
    let decoded: meta::PartialObjectMetadata = decode(&one.body);
    assert_eq!(decoded.metadata.unwrap().name(), "node-a");
    let list = partial.replace("Metadata;", "MetadataList;");
    let list = ask(&api, PODS, &[("accept", &list)]);
    let decoded: meta::PartialObjectMetadataList = decode(&list.body);
    assert_eq!(list.told().1, "meta.k8s.io/v1");
    assert_eq!(decoded.items.len(), 5);
    assert_eq!(
        decoded.items[4].metadata.as_ref().unwrap().namespace(),
        "kube-system"
    );
}

#[test]
fn refusals_come_as_what_was_asked_for() {
    let api = api();
    let request = "GET /apis/metrics.k8s.io/v1beta1/namespaces/kube-system/pods/none";
    let answered = ask(&api, request, &PROTOBUF);
    let status: meta::Status = decode(&answered.body);
    let json = ask(&api, request, &[]).json();
    assert_eq!((status.code(), status.reason()), (404, "NotFound"));
    assert_eq!(status.message(), json["message"]);
    assert_eq!((status.status(), answered.code.as_u16()), ("Failure", 404));
    let details = status.details.unwrap();
    assert_eq!((details.name(), details.kind()), ("none", "pods"));

    let yaml: Value = serde_yaml::from_slice(&ask(&api, request, &YAML).body).unwrap();
    assert_eq!(yaml, json);

    let mut headers = HeaderMap::new();
    headers.insert("accept", PROTOBUF[0].1.parse().unwrap());
    let busy = read(refuse(&Status::too_many_requests(7), &headers));
    let status: meta::Status = decode(&busy.body);
    assert_eq!(status.details.unwrap().retry_after_seconds(), 7);
    let broken = read(refuse(&Status::internal(&"cause"), &headers));
    let status: meta::Status = decode(&broken.body);
    assert_eq!(status.details.unwrap().causes[0].message(), "cause");
}

#[test]
fn discovery_comes_as_protobuf_and_yaml() {
    let api = api();
    let groups: meta::APIGroupList = decode(&ask(&api, "GET /apis", &PROTOBUF).body);
    let group: meta::APIGroup = decode(&ask(&api, "GET /apis/metrics.k8s.io", &PROTOBUF).body);
    assert_eq!(groups.groups, std::slice::from_ref(&group));
    assert_eq!((group.name(), group.versions.len()), ("metrics.k8s.io", 2));
    assert_eq!(
        group.preferred_version.unwrap().group_version(),
        "metrics.k8s.io/v1"
    );
    let path = "GET /apis/metrics.k8s.io/v1beta1";
    let resources: meta::APIResourceList = decode(&ask(&api, path, &PROTOBUF).body);
    let shown: Vec<_> = resources
        .resources
        .iter()
        .map(|resource| (resource.name(), resource.namespaced(), resource.kind()))
        .collect();
    assert_eq!(
        shown,
        [("nodes", false, "NodeMetrics"), ("pods", true, "PodMetrics")]
    );
    assert_eq!(
        resources.resources[0].verbs.as_ref().unwrap().items,
        ["get", "list"]
    );
    for path in ["GET /apis", "GET /apis/metrics.k8s.io", path] {
        let yaml: Value = serde_yaml::from_slice(&ask(&api, path, &YAML).body).unwrap();
        assert_eq!(yaml, ask(&api, path, &[]).json());
    }

    let accept = "application/vnd.kubernetes.protobuf;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let aggregated = ask(&api, "GET /apis", &[("accept", accept)]);
    assert_eq!(aggregated.header("content-type"), accept);
    assert_eq!(aggregated.header("cache-control"), "public");
    let list: APIGroupDiscoveryList = decode(&aggregated.body);
    let version = &list.items[0].versions[1];
    assert_eq!((version.version(), version.freshness()), ("v1beta1", "Current"));
    let pods = &version.resources[1];
    assert_eq!((pods.resource(), pods.scope()), ("pods", "Namespaced"));
    assert_eq!(pods.response_kind.as_ref().unwrap().kind(), "PodMetrics");
    assert_eq!(pods.verbs, ["get", "list"]);
    let older = accept.replace("v=v2", "v=v2beta1");
    let older = ask(&api, "GET /apis", &[("accept", &older)]);
    assert_eq!(older.type_meta().1, "apidiscovery.k8s.io/v2beta1");
}

impl Answered {
    /// Kind and version of protobuf whose content type says more than that.
    fn type_meta(&self) -> (String, String) {
        let meta = unknown(&self.body).type_meta.unwrap();
        (meta.kind().to_owned(), meta.api_version().to_owned())
    }
}

#[test]
fn yaml_says_what_metrics_server_says() {
    let api = api();
    let answered = ask(&api, PODS, &YAML);
    assert_eq!(answered.header("content-type"), "application/yaml");
    let expected: Value = serde_yaml::from_str(&fixture("pods-yaml.yaml")).unwrap();
    let found: Value = serde_yaml::from_slice(&answered.body).unwrap();
    assert_eq!(found, expected);
    // The same lines too, but for their order.
    let lines = |text: &str| {
        let mut lines: Vec<_> = text
            .lines()
            .map(|line| line.trim_start_matches("- ").trim().to_owned())
            .collect();
        lines.sort();
        lines
    };
    assert_eq!(
        lines(answered.text())
            .iter()
            .filter(|line| !line.contains("hash"))
            .collect::<Vec<_>>(),
        lines(&fixture("pods-yaml.yaml"))
            .iter()
            .filter(|line| !line.contains("hash"))
            .collect::<Vec<_>>(),
    );
    let table = [("accept", "application/yaml;as=Table;v=v1;g=meta.k8s.io")];
    let found: Value = serde_yaml::from_slice(&ask(&api, PODS, &table).body).unwrap();
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    assert_eq!(found, ask(&api, PODS, &table).json());
}

#[test]
fn labels_that_yaml_1_1_takes_for_booleans_stay_strings() {
    let (pods, nodes) = resources();
    pods.items.write().unwrap()[0].labels = labels(&[("on", "off"), ("y", "1_000"), ("v", "1.0")]);
    let api = api_of(&["v1"], pods, nodes);
    let answered = ask(
        &api,
        "GET /apis/metrics.k8s.io/v1/namespaces/kube-system/pods/etcd-node-a",
        &YAML,
    );
    let text = answered.text();
    for line in [
        "    \"on\": \"off\"\n",
        "    \"y\": \"1_000\"\n",
        "    v: \"1.0\"\n",
    ] {
        assert!(text.contains(line), "{line:?} is not in {text}");
    }
}

#[test]
fn a_large_list_comes_whole_in_every_form() {
    let (pods, nodes) = resources();
    *pods.items.write().unwrap() = many(3000);
    let api = api_of(&["v1"], pods, nodes);
    let expected: Vec<_> = many(3000).into_iter().map(|pod| pod.name).collect();
    let path = "GET /apis/metrics.k8s.io/v1/pods";
    let list: PodMetricsList = decode(&ask(&api, path, &PROTOBUF).body);
    let found: Vec<_> = list
        .items
        .iter()
        .map(|item| item.metadata.as_ref().unwrap().name().to_owned())
        .collect();
    assert_eq!(found, expected);
    let list: Value = serde_yaml::from_slice(&ask(&api, path, &YAML).body).unwrap();
    assert_eq!(names(&list), expected);
}

#[test]
fn lists_in_memory_as_a_whole_are_limited() {
    let (pods, nodes) = resources();
    *pods.items.write().unwrap() = many(1000);
    let api = api_of(&["v1"], pods, nodes);
    let path = "GET /apis/metrics.k8s.io/v1/pods";
    let open: Vec<_> = (0..crate::answer::WHOLE_LISTS)
        .map(|_| start(&api, path, &PROTOBUF))
        .collect();
    assert_eq!(ask(&api, path, &PROTOBUF).code, 429);
    // Whoever takes text too gets that.
    let either = [("accept", "application/vnd.kubernetes.protobuf, */*")];
    let answered = ask(&api, path, &either);
    assert_eq!(
        (answered.code.as_u16(), answered.header("content-type")),
        (200, "application/json")
    );
    assert_eq!(names(&answered.json()).len(), 1000);
    assert_eq!(ask(&api, path, &[]).code, 200);
    drop(open);
    assert_eq!(ask(&api, path, &PROTOBUF).code, 200);
}

#[test]
fn what_is_large_is_compressed_when_asked_for() {
    let (pods, nodes) = resources();
    let api = api_of(&["v1"], Arc::clone(&pods), nodes);
    let path = "GET /apis/metrics.k8s.io/v1/pods";
    for (count, large) in [(500, false), (3000, true)] {
        *pods.items.write().unwrap() = many(count);
        for accept in ["application/json", "application/yaml", PROTOBUF[0].1] {
            let plain = ask(&api, path, &[("accept", accept)]);
            assert_eq!(plain.header("content-encoding"), "");
            assert_eq!(plain.body.len() > 128 * 1024, large, "{accept}");
            let headers = [("accept", accept), ("accept-encoding", "gzip")];
            let answered = ask(&api, path, &headers);
            if !large {
                assert_eq!(answered.header("content-encoding"), "", "{accept}");
                assert_eq!(answered.body, plain.body, "{accept}");
                continue;
            }
            assert_eq!(answered.header("content-encoding"), "gzip", "{accept}");
            assert_eq!(answered.header("vary"), "Accept-Encoding");
            assert!(answered.body.len() < plain.body.len() / 5);
            let mut unpacked = Vec::new();
            let mut decoder = flate2::read::GzDecoder::new(answered.body.as_slice());
            decoder.read_to_end(&mut unpacked).unwrap();
            assert_eq!(unpacked, plain.body, "{accept}");
        }
    }
}

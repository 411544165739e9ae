//! Objects and lists, in each form.

use super::*;

/// The samples were asked for with curl, which gets indented JSON. They are met byte for byte.
#[test]
fn replies_are_those_of_metrics_server() {
    const BETA: &str = "/apis/metrics.k8s.io/v1beta1";
    const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
    const METADATA: &str = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let cases = [
        ("nodes.json", "GET", "/nodes", "*/*", 200),
        ("node.json", "GET", "/nodes/node-a", "*/*", 200),
        ("node-404.json", "GET", "/nodes/none", "*/*", 404),
        ("nodes.table.json", "GET", "/nodes", TABLE, 200),
        ("pods.json", "GET", "/pods", "*/*", 200),
        (
            "pods.json",
            "GET",
            "/namespaces/kube-system/pods",
            "application/json,application/vnd.kubernetes.protobuf",
            200,
        ),
        ("pods.json", "GET", "/pods/", "application/json;stream=watch", 200),
        ("pods-limit.json", "GET", "/pods?limit=0", "*/*", 200),
        (
            "pods-selector.json",
            "GET",
            "/pods?labelSelector=tier%3Dcontrol-plane",
            "*/*",
            200,
        ),
        (
            "pods-field.json",
            "GET",
            "/pods?fieldSelector=metadata.name%3Detcd-node-a",
            "*/*",
            200,
        ),
        (
            "pods-badfield.json",
            "GET",
            "/pods?fieldSelector=spec.x%3D1",
            "*/*",
            400,
        ),
        (
            "pods-badselector.json",
            "GET",
            "/pods?labelSelector=!!",
            "*/*",
            400,
        ),
        ("pods-watch.json", "GET", "/pods?watch=true", "*/*", 405),
        (
            "delete.json",
            "DELETE",
            "/namespaces/kube-system/pods/etcd-node-a",
            "*/*",
            405,
        ),
        ("delete.json", "POST", "/nodes", "text/html", 405),
        ("delete.json", "HEAD", "/nodes", "*/*", 405),
        (
            "pod.json",
            "GET",
            "/namespaces/kube-system/pods/etcd-node-a",
            "*/*",
            200,
        ),
        (
            "pod-404.json",
            "GET",
            "/namespaces/kube-system/pods/none",
            "*/*",
            404,
        ),
        ("pods.table.json", "GET", "/pods", TABLE, 200),
        ("metadata-only.json", "GET", "/pods", METADATA, 200),
        ("pods-406.json", "GET", "/pods", "text/html", 406),
        ("pods-cbor-406.json", "GET", "/pods", "application/cbor", 406),
        ("resources.json", "GET", "", "*/*", 200),
        ("resources.json", "GET", "/", "application/json", 200),
    ];
    let api = api();
    for (sample, method, path, accept, code) in cases {
        let request = format!("{method} {BETA}{path}");
        let headers = [
            ("accept", accept),
            ("user-agent", "curl/8.14.1"),
            ("audit-id", "706cf266"),
        ];
        let answered = ask(&api, &request, &headers);
        assert_eq!(answered.text(), fixture(sample), "{request}");
        assert_eq!(answered.code, code, "{request}");
        assert_eq!(answered.header("content-type"), "application/json", "{request}");
        assert_eq!(answered.header("cache-control"), "no-cache, private", "{request}");
        assert_eq!(answered.header("audit-id"), "706cf266", "{request}");
        assert_eq!(answered.headers.len(), 3, "{request}: {:?}", answered.headers);

        let headers = [("accept", accept)];
        let compact = ask(&api, &request, &headers);
        let minimal = answered.json().to_string().len() + 1;
        assert_eq!(compact.body.len(), minimal, "{request}: compact, and a newline");
        assert_eq!(compact.json(), answered.json(), "{request}");
        let stable = ask(&api, &request.replace("v1beta1", "v1"), &headers);
        let renamed = compact
            .text()
            .replace("metrics.k8s.io/v1beta1", "metrics.k8s.io/v1");
        assert_eq!(stable.text(), renamed, "{request}");
    }
    let (pods, nodes) = resources();
    let beta_only = api_of(&["v1beta1"], pods, nodes);
    let group = ask(
        &beta_only,
        "GET /apis/metrics.k8s.io",
        &[("user-agent", "curl/8")],
    );
    assert_eq!(group.text(), fixture("group.json"));
}

#[test]
fn paths_that_lead_nowhere_are_not_found() {
    let api = api();
    for path in [
        "/api",
        "/api/v1/pods",
        "/apis/other.k8s.io",
        "/apis/other.k8s.io/v1/pods",
        "/apis/metrics.k8s.io/v2",
        "/apis/metrics.k8s.io/v2/pods",
        "/apis/metrics.k8s.io/v1/things",
        "/apis/metrics.k8s.io/v1/pods/etcd-node-a",
        "/apis/metrics.k8s.io/v1/namespaces",
        "/apis/metrics.k8s.io/v1/namespaces/kube-system",
        "/apis/metrics.k8s.io/v1/namespaces/kube-system/nodes",
        "/apis/metrics.k8s.io/v1/namespaces/kube-system/nodes/node-a",
        "/apis/metrics.k8s.io/v1/namespaces//pods",
        "/apis/metrics.k8s.io/v1/namespaces//pods/etcd-node-a",
        "/apis/metrics.k8s.io/v1//pods",
        "/apis/metrics.k8s.io/v1/pods//",
        "//apis/metrics.k8s.io/v1/pods",
        "/apis/metrics.k8s.io/v1/nodes/node-a/status",
        "/apis/metrics.k8s.io/v1/watch/pods",
        "/apis/metrics.k8s.io/v1/proxy/nodes/node-a",
        "/openapi",
        "/openapi/v4",
        "/openapi/v3/apis/metrics.k8s.io/v2",
        "/readyz/none",
        "/livez/shutdown",
        "/report/more",
        "/metrics/more",
    ] {
        for method in ["GET", "DELETE"] {
            let answered = ask(&api, &format!("{method} {path}"), &[]);
            let code = answered.code.as_u16();
            assert!(
                code == 404 || (method == "DELETE" && code == 405),
                "{method} {path}: {code}"
            );
            assert_eq!(answered.json()["code"], code, "{method} {path}");
        }
    }
}

#[test]
fn forms_are_negotiated_as_by_kube_apiserver() {
    let api = api();
    let outcome = |path: &str, accept: &str| {
        let answered = ask(
            &api,
            &format!("GET /apis/metrics.k8s.io/v1{path}"),
            &[("accept", accept)],
        );
        let (kind, api_version, message) = answered.told();
        let media = answered.header("content-type").trim_start_matches("application/");
        if answered.code == 200 {
            format!("{media}: {api_version} {kind}")
        } else {
            format!("{media}: {} {message}", answered.code.as_u16())
        }
    };
    let mut outcomes = Vec::new();
    for accept in [
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
        "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
        "application/json; as=Table; v=v9; g=meta.k8s.io, application/json",
        "application/json;as=Table;v=v9;g=meta.k8s.io",
        "application/json;as=Other;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        "application/json;as=PartialObjectMetadataList;v=v1beta1;g=meta.k8s.io,application/json;q=0.9",
        "application/vnd.kubernetes.protobuf",
        "application/vnd.kubernetes.protobuf, */*",
        "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io, application/json",
        "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io",
        "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        "application/vnd.kubernetes.protobuf, application/json",
        "application/yaml",
        "application/yaml;as=Table;v=v1;g=meta.k8s.io",
        "application/yaml;q=0.5,application/json;q=0.4",
        "application/json;q=0.1,application/json;as=Table;v=v1;g=meta.k8s.io;q=0.2",
        "application/json;q=0",
        "application/*",
        "application/json;stream=other",
        "*",
        "application",
        ",",
    ] {
        outcomes.push(format!(
            "{accept}\n  list: {}\n  get:  {}",
            outcome("/pods", accept),
            outcome("/nodes/node-a", accept)
        ));
    }
    insta::assert_snapshot!(outcomes.join("\n"));
}

#[test]
fn table_rows_carry_what_is_asked_for() {
    let api = api();
    let table = [("accept", "application/json;as=Table;v=v1beta1;g=meta.k8s.io")];
    let row = |include: &str| {
        let request = format!("GET /apis/metrics.k8s.io/v1/nodes/node-a?includeObject={include}");
        ask(&api, &request, &table).json()
    };
    assert_eq!(row("None")["rows"][0]["object"], Value::Null);
    assert_eq!(row("None")["rows"][0].as_object().unwrap().len(), 2);
    assert_eq!(
        row("Metadata")["rows"][0]["object"]["apiVersion"],
        "meta.k8s.io/v1beta1"
    );
    assert_eq!(row(""), row("Metadata"));
    let whole = ask(&api, "GET /apis/metrics.k8s.io/v1/nodes/node-a", &[]).json();
    assert_eq!(row("Object")["rows"][0]["object"], whole);
    assert_eq!(
        row("x")["message"],
        "Unable to convert to Table as requested: includeObject: Invalid value: \"x\": must be 'Metadata', 'Object', \
         'None', or empty"
    );
    let empty = ask(&api, "GET /apis/metrics.k8s.io/v1/namespaces/none/pods", &table).json();
    assert_eq!(empty["rows"], serde_json::json!([]));
    assert_eq!(empty["columnDefinitions"].as_array().unwrap().len(), 4);
}

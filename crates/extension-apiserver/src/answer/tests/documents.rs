//! Discovery, `OpenAPI`, health and what else is not a resource.

use super::*;

#[test]
fn discovery_is_kept_by_its_tag() {
    let api = api();
    let content_type = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let accept = format!("{content_type},application/json");
    let first = ask(&api, "GET /apis", &[("accept", &accept)]);
    assert_eq!(first.header("content-type"), content_type);
    assert_eq!(first.header("cache-control"), "public");
    assert_eq!(first.header("vary"), "Accept");
    insta::assert_json_snapshot!("aggregated", first.json());
    let known = [
        ("accept", accept.as_str()),
        ("if-none-match", first.header("etag")),
    ];
    let second = ask(&api, "GET /apis", &known);
    assert_eq!((second.code.as_u16(), second.body.len()), (304, 0));
    let older = accept.replace("v=v2", "v=v2beta1");
    let older = ask(&api, "GET /apis", &[("accept", &older)]);
    assert_eq!(older.json()["apiVersion"], "apidiscovery.k8s.io/v2beta1");
    assert_eq!(older.json()["items"], first.json()["items"]);
    insta::assert_json_snapshot!("groups", ask(&api, "GET /apis", &[]).json());
    assert_eq!(ask(&api, "GET /apis", &[("accept", "text/html")]).code, 406);
}

#[test]
fn openapi_describes_every_path_and_resolves() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let api = api();
    let root = ask(&api, "GET /openapi/v3", &[]).json();
    let url = root["paths"]["apis/metrics.k8s.io/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    let third = ask(&api, &format!("GET {url}"), &[]);
    assert!(third.header("cache-control").starts_with("public, immutable"));
    let moved = ask(&api, "GET /openapi/v3/apis/metrics.k8s.io/v1?hash=OLD", &[]);
    assert_eq!((moved.code.as_u16(), moved.header("location")), (301, url));
    let second = ask(&api, "GET /openapi/v2", &[]);
    for document in [third.json(), second.json()] {
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
    let protobuf = [(
        "accept",
        "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    )];
    assert_eq!(ask(&api, "GET /openapi/v2", &protobuf).code, 406);
    assert_eq!(second.json()["paths"].as_object().unwrap().len(), 12);
    insta::assert_json_snapshot!(
        "openapi_v2_pods",
        second.json()["paths"]["/apis/metrics.k8s.io/v1/pods"]["get"]
    );
    let definitions = &second.json()["definitions"];
    let pods = &definitions["io.k8s.metrics.pkg.apis.metrics.v1.PodMetrics"]["properties"];
    assert_eq!(
        pods["metadata"]["$ref"],
        "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    let quantity = &definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"];
    assert_eq!(
        (&quantity["type"], &quantity["oneOf"]),
        (&"string".into(), &Value::Null)
    );
    let text = second.text();
    assert!(!text.contains("allOf") && !text.contains("components"));
}

#[test]
fn openapi_is_what_metrics_server_describes() {
    let mut expected: Value = serde_json::from_str(&fixture("openapi-v3.json")).unwrap();
    let mut found = ask(&api(), "GET /openapi/v3/apis/metrics.k8s.io/v1beta1", &[]).json();
    // Where it comes from is not what it says.
    assert_eq!(found["info"].take()["title"], "metrics.k8s.io");
    expected["info"].take();
    for kind in ["Node", "Pod"] {
        let items = format!(
            "/components/schemas/io.k8s.metrics.pkg.apis.metrics.v1beta1.{kind}MetricsList/properties/items/description"
        );
        *expected.pointer_mut(&items).unwrap() = format!("List of {kind}Metrics.").into();
    }
    for part in ["paths", "components"] {
        for (name, expected) in expected[part].as_object().unwrap() {
            assert_eq!(&found[part][name], expected, "{part} {name}");
        }
    }
    assert_eq!(found, expected);
}

#[test]
fn health_says_which_check_failed_but_not_why() {
    let api = api();
    let report = |request: &str| {
        let answered = ask(&api, request, &[]);
        assert_eq!(
            answered.header("content-type"),
            "text/plain; charset=utf-8",
            "{request}"
        );
        assert_eq!(answered.header("x-content-type-options"), "nosniff", "{request}");
        (answered.code.as_u16(), answered.text().to_owned())
    };
    let ok = || (200, "ok".to_owned());
    assert_eq!(report("GET /livez"), ok());
    assert_eq!(report("GET /healthz/"), ok());
    assert_eq!(report("GET /readyz/ping"), ok());
    assert_eq!(report("GET /readyz?exclude=store/ready"), ok());
    assert_eq!(
        report("GET /livez?verbose"),
        (200, "[+]ping ok\nlivez check passed\n".to_owned())
    );
    let failed = "[+]ping ok\n[-]store/ready failed: reason withheld\n[+]shutdown ok\nreadyz check failed\n";
    assert_eq!(report("GET /readyz"), (500, failed.to_owned()));
    let excluded = "[+]ping ok\n[+]store/ready excluded: ok\n[+]shutdown ok\n\
                    warn: some health checks cannot be excluded: no matches for \"a\",\"b\"\nreadyz check passed\n";
    let request = "GET /readyz?verbose=true&exclude=store%2Fready&exclude=b&exclude=a&exclude=b";
    assert_eq!(report(request), (200, excluded.to_owned()));
    let reason = "internal server error: no metrics to serve\n";
    assert_eq!(report("GET /readyz/store/ready"), (500, reason.to_owned()));
    assert_eq!(ask(&api, "POST /readyz", &[]).code, 405);
}

#[test]
fn other_documents_are_served() {
    let api = api();
    let version = ask(&api, "GET /version", &[]);
    assert!(
        version.text().starts_with("{\n  \"major\": \"0\",\n"),
        "{}",
        version.text()
    );
    assert_eq!(
        ask(&api, "GET /report", &[]).json(),
        serde_json::json!({"nodes": []})
    );
    assert_eq!(ask(&api, "GET /broken", &[]).code, 503);
    let paths = ask(&api, "GET /", &[]).json();
    assert!(
        paths["paths"]
            .as_array()
            .unwrap()
            .contains(&"/apis/metrics.k8s.io/v1".into())
    );
    let busy = read(refuse(&Status::too_many_requests(1), &HeaderMap::new()));
    assert_eq!((busy.code.as_u16(), busy.header("retry-after")), (429, "1"));
}

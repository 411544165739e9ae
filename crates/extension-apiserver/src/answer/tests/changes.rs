//! Objects created, replaced, patched, deleted and watched.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;

use super::*;
use crate::memory::{Kind, Memory};
use crate::status::Cause;

const NOTES: &str = "/apis/example.dev/v1/namespaces/a/notes";
const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const PATCH: &str = "application/json-patch+json";

struct Note;

impl Kind for Note {
    fn validate(&self, object: &Value, _: Option<&Value>) -> Vec<Cause> {
        match object.pointer("/spec/text") {
            Some(Value::String(_)) => Vec::new(),
            Some(found) => vec![Cause::invalid("spec.text", found, "must be a string")],
            None => vec![Cause::required("spec.text", "a note says something")],
        }
    }

    fn write_cells(&self, object: &Value, cells: &mut JsonArray<'_>) {
        for pointer in ["/metadata/name", "/spec/text"] {
            cells.string(
                object
                    .pointer(pointer)
                    .and_then(Value::as_str)
                    .unwrap_or_default(),
            );
        }
    }
}

fn notes(history: usize) -> Api {
    let info = ResourceInfo::namespaced("notes", "Note")
        .singular("note")
        .columns([Column::NAME, Column::string("Text", "")]);
    let group = ApiGroup {
        name: "example.dev",
        versions: vec!["v1"],
        resources: vec![Arc::new(Memory::new("example.dev", info, Note, history))],
    };
    let ending = CancellationToken::new();
    Api::new(group, VersionInfo::default(), BTreeMap::new(), Vec::new(), ending)
}

fn begin(api: &Api, request: &str, content_type: &str, body: &str, accept: &str) -> Response<Body> {
    let (method, uri) = request.split_once(' ').unwrap();
    let builder = Request::builder()
        .method(method)
        .uri(uri)
        .header("accept", accept);
    let request = builder.header("content-type", content_type).body(()).unwrap();
    let (parts, ()) = request.into_parts();
    let info = request_info(&parts.method, &parts.uri);
    assert_eq!(
        super::super::wants_body(api, &info, &parts),
        method != "GET",
        "{uri}"
    );
    respond(api, &info, &parts, &Bytes::copy_from_slice(body.as_bytes()))
}

/// Code and document.
fn send(api: &Api, request: &str, content_type: &str, body: &str) -> (u16, Value) {
    let answered = read(begin(api, request, content_type, body, JSON));
    (answered.code.as_u16(), answered.json())
}

fn note(name: &str, text: &str) -> String {
    json!({"metadata": {"name": name, "labels": {"text": text}}, "spec": {"text": text}}).to_string()
}

fn post(api: &Api, name: &str, text: &str) -> Value {
    let (code, created) = send(api, &format!("POST {NOTES}"), JSON, &note(name, text));
    assert_eq!(code, 201, "{created}");
    created
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn verbs_in_discovery_are_those_that_there_are() {
    let api = notes(10);
    let (_, resources) = send(&api, "GET /apis/example.dev/v1", JSON, "");
    let all = json!([
        "create",
        "delete",
        "deletecollection",
        "get",
        "list",
        "patch",
        "update",
        "watch"
    ]);
    assert_eq!(resources["resources"][0]["verbs"], all);
}

#[test]
fn changes_are_described_and_every_reference_resolves() {
    let api = notes(10);
    let third = read(start(&api, "GET /openapi/v3/apis/example.dev/v1", &[])).json();
    let second = read(start(&api, "GET /openapi/v2", &[])).json();
    for document in [&third, &second] {
        let text = document.to_string();
        for reference in text.split("\"$ref\":\"#").skip(1) {
            let pointer = reference.split('"').next().unwrap();
            assert!(document.pointer(pointer).is_some(), "{pointer}");
        }
        let one = &document["paths"]["/apis/example.dev/v1/namespaces/{namespace}/notes/{name}"];
        let methods: Vec<_> = one.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(methods, ["delete", "get", "parameters", "patch", "put"]);
        assert_eq!(one["put"]["operationId"], "replaceExampleV1NamespacedNote");
    }
    let collection = "/apis/example.dev/v1/namespaces/{namespace}/notes";
    insta::assert_json_snapshot!([
        &third["paths"][collection]["post"],
        &second["paths"][collection]["post"]
    ]);
}

#[test]
fn an_object_lives_from_its_creation_to_its_end() {
    let api = notes(10);
    let created = post(&api, "x", "one");
    assert_eq!(
        (&created["kind"], &created["apiVersion"]),
        (&json!("Note"), &json!("example.dev/v1"))
    );
    let metadata = &created["metadata"];
    assert_eq!(
        (&metadata["namespace"], &metadata["generation"]),
        (&json!("a"), &json!(1))
    );
    assert_eq!(metadata["uid"].as_str().unwrap().len(), 36);
    let path = format!("{NOTES}/x");
    assert_eq!(
        send(&api, &format!("GET {path}"), JSON, ""),
        (200, created.clone())
    );

    let (code, replaced) = send(&api, &format!("PUT {path}"), JSON, &note("x", "two"));
    assert_eq!(
        (code, &replaced["spec"]["text"]),
        (200, &json!("two")),
        "{replaced}"
    );
    assert_eq!(replaced["metadata"]["uid"], metadata["uid"]);
    assert_eq!(
        replaced["metadata"]["creationTimestamp"],
        metadata["creationTimestamp"]
    );
    assert_eq!(replaced["metadata"]["generation"], 2);
    assert!(version(&replaced) > version(&created));
    // What changes nothing is no change.
    let same = send(&api, &format!("PUT {path}"), JSON, &note("x", "two"));
    assert_eq!(same, (200, replaced.clone()));

    let (code, conflict) = send(&api, &format!("PUT {path}"), JSON, &created.to_string());
    assert_eq!((code, &conflict["reason"]), (409, &json!("Conflict")));
    let (code, list) = send(
        &api,
        "GET /apis/example.dev/v1/notes?labelSelector=text%3Dtwo",
        JSON,
        "",
    );
    assert_eq!((code, names(&list)), (200, vec!["x".to_owned()]));
    assert_eq!(version(&list), version(&replaced));

    let stale = json!({"preconditions": {"uid": "other"}}).to_string();
    assert_eq!(send(&api, &format!("DELETE {path}"), JSON, &stale).0, 409);
    let options = json!({"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"});
    let (code, done) = send(&api, &format!("DELETE {path}"), JSON, &options.to_string());
    assert_eq!((code, &done["status"]), (200, &json!("Success")));
    assert_eq!(done["details"]["uid"], metadata["uid"]);
    for request in [
        format!("GET {path}"),
        format!("PUT {path}"),
        format!("DELETE {path}"),
    ] {
        let (code, status) = send(&api, &request, JSON, &note("x", "two"));
        assert_eq!(
            (code, status["message"].as_str()),
            (404, Some("notes.example.dev \"x\" not found"))
        );
    }
}

#[test]
fn patches_change_parts() {
    let api = notes(10);
    post(&api, "x", "one");
    let request = format!("PATCH {NOTES}/x");
    let merge = json!({"metadata": {"annotations": {"a": "b"}}, "spec": {"text": "two"}});
    let (code, patched) = send(&api, &request, MERGE, &merge.to_string());
    assert_eq!(
        (code, &patched["spec"]["text"]),
        (200, &json!("two")),
        "{patched}"
    );
    assert_eq!(patched["metadata"]["annotations"], json!({"a": "b"}));
    let operations = json!([
        {"op": "test", "path": "/spec/text", "value": "two"},
        {"op": "copy", "from": "/spec/text", "path": "/spec/more"},
        {"op": "remove", "path": "/metadata/annotations"},
    ]);
    let (code, patched) = send(&api, &request, PATCH, &operations.to_string());
    assert_eq!(
        (code, &patched["spec"]["more"]),
        (200, &json!("two")),
        "{patched}"
    );
    assert_eq!(patched["metadata"].get("annotations"), None);

    let stale = json!({"metadata": {"resourceVersion": "1"}, "spec": {"text": "three"}});
    assert_eq!(send(&api, &request, MERGE, &stale.to_string()).0, 409);
    let failing = json!([{"op": "test", "path": "/spec/text", "value": "other"}]);
    assert_eq!(send(&api, &request, PATCH, &failing.to_string()).0, 422);
    assert_eq!(send(&api, &request, PATCH, "{}").0, 400);
    let growing: Vec<_> =
        std::iter::once(json!({"op": "add", "path": "/spec/a", "value": ["x".repeat(1000)]}))
            .chain((0..40).map(|_| json!({"op": "copy", "from": "/spec/a", "path": "/spec/a/-"})))
            .collect();
    let (code, status) = send(&api, &request, PATCH, &json!(growing).to_string());
    assert_eq!(code, 422);
    assert!(
        status["message"].as_str().unwrap().contains("copies more than"),
        "{status}"
    );
    for other in [
        "application/strategic-merge-patch+json",
        "application/apply-patch+yaml",
        "",
    ] {
        let (code, status) = send(&api, &request, other, "{}");
        assert_eq!((code, &status["reason"]), (415, &json!("UnsupportedMediaType")));
        assert!(status["message"].as_str().unwrap().contains(MERGE), "{status}");
    }
    assert_eq!(send(&api, &format!("PATCH {NOTES}/none"), MERGE, "{}").0, 404);
}

#[test]
fn what_is_wrong_with_an_object_is_told() {
    let api = notes(10);
    post(&api, "x", "one");
    let create = format!("POST {NOTES}");
    let cases = [
        (note("x", "one"), 409, "notes.example.dev \"x\" already exists"),
        (
            r#"{"metadata": {"name": "y"}}"#.to_owned(),
            422,
            "Note.example.dev \"y\" is invalid: spec.text: Required value: a note says something",
        ),
        (
            r#"{"metadata": {"name": "y"}, "spec": {"text": 1}}"#.to_owned(),
            422,
            "Invalid value: 1",
        ),
        (
            r#"{"spec": {"text": ""}}"#.to_owned(),
            422,
            "name or generateName is required",
        ),
        (note("Not_A_Name", ""), 422, "a lowercase RFC 1123 subdomain"),
        (
            r#"{"kind": "Other", "metadata": {"name": "y"}}"#.to_owned(),
            400,
            "the kind \"Other\"",
        ),
        (
            r#"{"apiVersion": "v2", "metadata": {"name": "y"}}"#.to_owned(),
            400,
            "the apiVersion \"v2\"",
        ),
        (
            r#"{"metadata": {"name": "y", "namespace": "b"}}"#.to_owned(),
            400,
            "does not match the namespace",
        ),
        (
            r#"{"metadata": {"name": 7}}"#.to_owned(),
            400,
            "metadata.name of the provided object is not a string",
        ),
        (
            r#"{"metadata": {"name": "y", "labels": {"a": 1}}}"#.to_owned(),
            400,
            "not a map of strings",
        ),
        (
            r#"{"metadata": []}"#.to_owned(),
            400,
            "metadata of the provided object is not a JSON object",
        ),
        ("[]".to_owned(), 400, "not a JSON object"),
        ("{".to_owned(), 400, "cannot be read"),
    ];
    for (body, code, told) in cases {
        let (found, status) = send(&api, &create, JSON, &body);
        assert_eq!(found, code, "{body}: {status}");
        assert!(
            status["message"].as_str().unwrap().contains(told),
            "{body}: {status}"
        );
    }
    let (_, invalid) = send(&api, &create, JSON, r#"{"metadata": {"name": "y"}}"#);
    let told = json!([{
        "reason": "FieldValueRequired", "message": "Required value: a note says something", "field": "spec.text",
    }]);
    assert_eq!(invalid["details"]["causes"], told);
    let (code, status) = send(&api, &format!("PUT {NOTES}/y"), JSON, &note("x", ""));
    assert_eq!(
        (
            code,
            status["message"]
                .as_str()
                .unwrap()
                .contains("does not match the name on the URL")
        ),
        (400, true)
    );
    let (code, status) = send(&api, &create, "text/plain", "x");
    assert_eq!(
        (
            code,
            status["message"].as_str().unwrap().contains("application/yaml")
        ),
        (415, true)
    );
    assert_eq!(
        send(&api, "POST /apis/example.dev/v1/notes", JSON, &note("y", "")).0,
        405
    );
}

#[test]
fn names_are_made_yaml_is_read_and_dry_runs_keep_nothing() {
    let api = notes(10);
    let body = "metadata:\n  generateName: some-\nspec:\n  text: \"on\"\n";
    let (code, created) = send(&api, &format!("POST {NOTES}"), "application/yaml", body);
    let name = created["metadata"]["name"].as_str().unwrap();
    assert_eq!((code, name.len(), name.starts_with("some-")), (201, 10, true));
    let dry = format!("POST {NOTES}?dryRun=All");
    assert_eq!(send(&api, &dry, JSON, &note("dry", "")).0, 201);
    assert_eq!(send(&api, &format!("GET {NOTES}/dry"), JSON, "").0, 404);
    assert_eq!(
        send(&api, &format!("DELETE {NOTES}/{name}?dryRun=All"), JSON, "").0,
        200
    );
    assert_eq!(send(&api, &format!("GET {NOTES}/{name}"), JSON, "").0, 200);
    assert_eq!(
        send(&api, &format!("POST {NOTES}?dryRun=x"), JSON, &note("dry", "")).0,
        422
    );
}

#[test]
fn collections_are_deleted_by_selector_and_finalizers_are_waited_for() {
    let api = notes(100);
    for (name, text) in [("a", "one"), ("b", "two"), ("c", "one")] {
        post(&api, name, text);
    }
    let held = json!({"metadata": {"finalizers": ["example.dev/x"]}}).to_string();
    assert_eq!(send(&api, &format!("PATCH {NOTES}/c"), MERGE, &held).0, 200);
    let (code, done) = send(
        &api,
        &format!("DELETE {NOTES}?labelSelector=text%3Done"),
        JSON,
        "",
    );
    assert_eq!((code, &done["status"]), (200, &json!("Success")));
    let (_, list) = send(&api, &format!("GET {NOTES}"), JSON, "");
    assert_eq!(names(&list), ["b", "c"]);
    let (_, ending) = send(&api, &format!("GET {NOTES}/c"), JSON, "");
    assert!(ending["metadata"]["deletionTimestamp"].is_string());
    let freed = json!({"metadata": {"finalizers": null}}).to_string();
    assert_eq!(send(&api, &format!("PATCH {NOTES}/c"), MERGE, &freed).0, 200);
    assert_eq!(send(&api, &format!("GET {NOTES}/c"), JSON, "").0, 404);
}

/// A watch that is read one event at a time.
struct Watched {
    body: Body,
    text: String,
}

impl Watched {
    fn begin(api: &Api, query: &str, accept: &str) -> Self {
        let response = begin(api, &format!("GET {NOTES}?watch=true&{query}"), JSON, "", accept);
        assert_eq!(response.status(), 200);
        let (body, text) = (response.into_body(), String::new());
        Self { body, text }
    }

    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let event = serde_json::from_str(line).unwrap();
                self.text = rest.to_owned();
                return Some(event);
            }
            let part = self.body.frame().await?.unwrap().into_data().unwrap();
            self.text.push_str(str::from_utf8(&part).unwrap());
        }
    }

    /// Type and name of the next event.
    async fn told(&mut self) -> (String, String) {
        let event = self.next().await.unwrap();
        let name = &event["object"]["metadata"]["name"];
        (
            event["type"].as_str().unwrap().to_owned(),
            name.as_str().unwrap_or_default().to_owned(),
        )
    }
}

fn event(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_watch_tells_what_there_is_and_what_changes() {
    let api = notes(100);
    let before = post(&api, "x", "one");
    let mut all = Watched::begin(&api, "", JSON);
    let mut ones = Watched::begin(&api, "labelSelector=text%3Done", JSON);
    let mut after = Watched::begin(&api, &format!("resourceVersion={}", version(&before)), JSON);
    assert_eq!(all.told().await, event("ADDED", "x"));
    assert_eq!(ones.told().await, event("ADDED", "x"));

    post(&api, "y", "two");
    send(&api, &format!("PUT {NOTES}/x"), JSON, &note("x", "two"));
    send(&api, &format!("PUT {NOTES}/y"), JSON, &note("y", "one"));
    send(&api, &format!("DELETE {NOTES}/y"), JSON, "");
    for watched in [&mut all, &mut after] {
        assert_eq!(watched.told().await, event("ADDED", "y"));
        assert_eq!(watched.told().await, event("MODIFIED", "x"));
        assert_eq!(watched.told().await, event("MODIFIED", "y"));
        assert_eq!(watched.told().await, event("DELETED", "y"));
    }
    // For a selector, what does not match any more is gone.
    assert_eq!(ones.told().await, event("DELETED", "x"));
    assert_eq!(ones.told().await, event("ADDED", "y"));
    let gone = ones.next().await.unwrap();
    assert_eq!(gone["type"], "DELETED");
    assert!(version(&gone["object"]) > version(&before));
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_comes_too_late_has_to_list_again() {
    let api = notes(2);
    let first = version(&post(&api, "x", "0"));
    let mut slow = Watched::begin(&api, &format!("resourceVersion={first}"), JSON);
    for text in ["1", "2", "3"] {
        send(&api, &format!("PUT {NOTES}/x"), JSON, &note("x", text));
    }
    let late = begin(
        &api,
        &format!("GET {NOTES}?watch=true&resourceVersion={first}"),
        JSON,
        "",
        JSON,
    );
    let late = read(late);
    assert_eq!(
        (late.code.as_u16(), &late.json()["reason"]),
        (410, &json!("Expired"))
    );
    let error = slow.next().await.unwrap();
    assert_eq!(
        (&error["type"], &error["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
    assert_eq!(slow.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn bookmarks_tell_what_has_been_seen() {
    let api = notes(10);
    let created = post(&api, "x", "one");
    let query = "allowWatchBookmarks=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&timeoutSeconds=100";
    let mut watched = Watched::begin(&api, query, JSON);
    assert_eq!(watched.told().await, event("ADDED", "x"));
    let bookmark = watched.next().await.unwrap();
    assert_eq!(
        (&bookmark["type"], &bookmark["object"]["kind"]),
        (&json!("BOOKMARK"), &json!("Note"))
    );
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    assert_eq!(version(&bookmark["object"]), version(&created));
    let begun = tokio::time::Instant::now();
    let later = watched.next().await.unwrap();
    assert_eq!(
        (&later["type"], begun.elapsed()),
        (&json!("BOOKMARK"), Duration::from_mins(1))
    );
    assert_eq!(later["object"]["metadata"].get("annotations"), None);
    assert_eq!(watched.next().await, None, "the time is over");
    assert_eq!(begun.elapsed(), Duration::from_secs(100));
    for query in [
        "sendInitialEvents=true",
        "resourceVersion=x",
        "resourceVersionMatch=Exact",
    ] {
        let refused = begin(&api, &format!("GET {NOTES}?watch=true&{query}"), JSON, "", JSON);
        assert_eq!(refused.status(), 422, "{query}");
    }
}

#[tokio::test(start_paused = true)]
async fn watches_come_as_tables_and_end_with_the_server() {
    let api = notes(10);
    post(&api, "x", "one");
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut watched = Watched::begin(&api, "", table);
    let event = watched.next().await.unwrap();
    assert_eq!(
        (&event["type"], &event["object"]["kind"]),
        (&json!("ADDED"), &json!("Table"))
    );
    assert_eq!(event["object"]["rows"][0]["cells"], json!(["x", "one"]));
    assert!(event["object"]["rows"][0]["object"]["metadata"]["resourceVersion"].is_string());
    api.ending.cancel();
    assert_eq!(watched.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_long_beginning_comes_in_parts() {
    let api = notes(10);
    for at in 0..2000 {
        post(&api, &format!("note-{at:05}"), "text");
    }
    let mut watched = Watched::begin(&api, "", JSON);
    for at in 0..2000 {
        assert_eq!(watched.told().await, event("ADDED", &format!("note-{at:05}")));
    }
}

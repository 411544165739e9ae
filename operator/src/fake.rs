//! A kube-apiserver in memory, as far as the tests of the effects need one: objects by path, lists by label and name,
//! apply and merge patches, finalizers; and a log of every write.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    /// Answers that are given whatever the objects are, by method and path.
    answers: BTreeMap<String, (u16, Value)>,
    /// The same, for the next call only.
    once: BTreeMap<String, (u16, Value)>,
    writes: Vec<String>,
    calls: Vec<String>,
    /// How many more writes are taken before nothing is answered any more.
    writes_left: Option<usize>,
    /// Whether a call waits for an answer in vain.
    hangs: bool,
    version: u64,
}

const COLLECTIONS: [&str; 19] = [
    "apiservices",
    "certificatesigningrequests",
    "clusterrolebindings",
    "clusterroles",
    "configmaps",
    "deployments",
    "endpointslices",
    "events",
    "metricsstacks",
    "namespaces",
    "networkpolicies",
    "nodes",
    "poddisruptionbudgets",
    "pods",
    "rolebindings",
    "roles",
    "secrets",
    "serviceaccounts",
    "services",
];

impl Fake {
    pub(crate) fn client(&self) -> Client {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let fake = fake.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let body = if body.is_empty() {
                    Value::Null
                } else {
                    serde_json::from_slice(&body).unwrap()
                };
                if fake.counts_down(&parts.method) {
                    std::future::pending::<()>().await;
                }
                let (status, answer) = fake.answer(
                    &parts.method,
                    parts.uri.path(),
                    parts.uri.query().unwrap_or_default(),
                    body,
                );
                let response = Response::builder()
                    .status(status)
                    .body(Body::from(answer.to_string().into_bytes()));
                Ok::<_, Infallible>(response.unwrap())
            }
        });
        Client::new(service, "default")
    }

    /// Puts an object there, as somebody else would.
    pub(crate) fn put(&self, path: &str, object: Value) {
        let mut state = self.0.lock().unwrap();
        let version = state.next_version();
        state.objects.insert(path.to_owned(), stamped(object, version));
    }

    /// Removes an object, as somebody else would.
    pub(crate) fn remove(&self, path: &str) {
        self.0.lock().unwrap().objects.remove(path);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().objects.get(path).cloned()
    }

    /// Answers `call`, such as `PATCH /api/v1/nodes/a`, in this way from now on.
    pub(crate) fn always(&self, call: &str, status: u16, body: Value) {
        self.0
            .lock()
            .unwrap()
            .answers
            .insert(call.to_owned(), (status, body));
    }

    /// Answers `call` in this way one time.
    pub(crate) fn once(&self, call: &str, status: u16, body: Value) {
        self.0
            .lock()
            .unwrap()
            .once
            .insert(call.to_owned(), (status, body));
    }

    /// Answers `call` from the objects again.
    pub(crate) fn answer_again(&self, call: &str) {
        self.0.lock().unwrap().answers.remove(call);
    }

    /// Takes `writes` more writes; then whoever writes waits for ever.
    pub(crate) fn hang_after(&self, writes: usize) {
        self.0.lock().unwrap().writes_left = Some(writes);
    }

    /// Whether somebody waits for ever.
    pub(crate) fn hangs(&self) -> bool {
        self.0.lock().unwrap().hangs
    }

    /// Answers again.
    pub(crate) fn go_on(&self) {
        let mut state = self.0.lock().unwrap();
        (state.writes_left, state.hangs) = (None, false);
    }

    fn counts_down(&self, method: &Method) -> bool {
        let mut state = self.0.lock().unwrap();
        if *method != Method::GET {
            match &mut state.writes_left {
                Some(0) => state.hangs = true,
                Some(left) => *left -= 1,
                None => {}
            }
        }
        state.hangs
    }

    /// Every call, as method, path and query.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.0.lock().unwrap().calls.clone()
    }

    /// Where there is an object.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.0.lock().unwrap().objects.keys().cloned().collect()
    }

    /// Every write since the last call, as method and path.
    pub(crate) fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().writes)
    }

    fn answer(&self, method: &Method, path: &str, query: &str, body: Value) -> (u16, Value) {
        let mut state = self.0.lock().unwrap();
        let call = format!("{method} {path}");
        state.calls.push(format!("{call}?{query}"));
        if method != Method::GET {
            state.writes.push(call.clone());
        }
        if let Some(answer) = state.once.remove(&call) {
            return answer;
        }
        if let Some(answer) = state.answers.get(&call) {
            return answer.clone();
        }
        let last = path.rsplit('/').next().unwrap_or_default();
        match *method {
            Method::GET if COLLECTIONS.contains(&last) => (200, state.list(path, query)),
            Method::GET => state
                .objects
                .get(path)
                .map_or_else(not_found, |object| (200, object.clone())),
            Method::PATCH => state.patch(path, body),
            Method::DELETE => state.delete(path),
            _ => (201, body),
        }
    }
}

impl State {
    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    fn list(&self, path: &str, query: &str) -> Value {
        let wanted =
            |object: &Value| {
                query
                    .split('&')
                    .filter_map(|pair| pair.split_once('='))
                    .all(|(key, value)| {
                        let value = value.replace("%3D", "=").replace("%2F", "/").replace("%2C", ",");
                        match key {
                            "labelSelector" => value.split(',').filter_map(|term| term.split_once('=')).all(
                                |(key, value)| {
                                    object
                                        .pointer("/metadata/labels")
                                        .is_some_and(|labels| labels[key] == value)
                                },
                            ),
                            "fieldSelector" if value.starts_with("spec.signerName=") => true,
                            "fieldSelector" if value.starts_with("status.phase=") => {
                                let phase = object.pointer("/status/phase").and_then(Value::as_str);
                                phase == value.strip_prefix("status.phase=")
                            }
                            "fieldSelector" => value
                                .strip_prefix("metadata.name=")
                                .is_some_and(|name| object.pointer("/metadata/name").unwrap() == name),
                            _ => true,
                        }
                    })
            };
        let items: Vec<_> = self
            .objects
            .iter()
            .filter(|(at, object)| {
                at.rsplit_once('/').is_some_and(|(parent, _)| parent == path) && wanted(object)
            })
            .map(|(_, object)| object.clone())
            .collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": self.version.to_string()}, "items": items})
    }

    fn patch(&mut self, path: &str, mut body: Value) -> (u16, Value) {
        let path = path.strip_suffix("/status").unwrap_or(path);
        body.pointer_mut("/metadata")
            .and_then(Value::as_object_mut)
            .map(|fields| fields.remove("resourceVersion"));
        let version = self.next_version();
        let object = self.objects.entry(path.to_owned()).or_insert_with(|| json!({}));
        match body {
            // A JSON patch, of which only the whole status is written.
            Value::Array(mut operations) => {
                let [operation] = operations.as_mut_slice() else {
                    panic!("{operations:?}")
                };
                assert_eq!(
                    (&operation["op"], &operation["path"]),
                    (&json!("add"), &json!("/status"))
                );
                object["status"] = operation["value"].take();
            }
            body => merge(object, body),
        }
        *object = stamped(object.take(), version);
        let object = object.clone();
        self.drop_released(path, &object);
        (200, object)
    }

    fn delete(&mut self, path: &str) -> (u16, Value) {
        let Some(object) = self.objects.get_mut(path) else {
            return not_found();
        };
        object["metadata"]["deletionTimestamp"] = json!("2026-11-24T00:00:00Z");
        let object = object.clone();
        self.drop_released(path, &object);
        (200, object)
    }

    fn drop_released(&mut self, path: &str, object: &Value) {
        let metadata = &object["metadata"];
        if metadata.get("deletionTimestamp").is_some()
            && metadata
                .get("finalizers")
                .and_then(Value::as_array)
                .is_none_or(Vec::is_empty)
        {
            self.objects.remove(path);
        }
    }
}

fn stamped(mut object: Value, version: u64) -> Value {
    let metadata = &mut object["metadata"];
    if metadata.get("uid").is_none() {
        metadata["uid"] = json!(format!("uid-{version}"));
    }
    metadata["resourceVersion"] = json!(version.to_string());
    object
}

fn merge(into: &mut Value, patch: Value) {
    match (into, patch) {
        (Value::Object(into), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    into.remove(&key);
                    continue;
                }
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, patch) => *into = patch,
    }
}

fn not_found() -> (u16, Value) {
    (404, status(404, "NotFound", "not found"))
}

/// A `metav1.Status`.
pub(crate) fn status(code: u16, reason: &str, message: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": message})
}

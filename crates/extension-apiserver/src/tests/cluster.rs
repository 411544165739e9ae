//! A scripted kube-apiserver: the authentication `ConfigMap` with its watch, and both reviews.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

const CONFIG_MAPS: &str = "/api/v1/namespaces/kube-system/configmaps";
const CONFIG_MAP: &str = "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication";

type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// What the `ConfigMap` holds: data, or the code and message it is refused with.
pub(crate) type Content = Result<BTreeMap<String, String>, (u16, &'static str)>;

/// The cluster, as tests see it.
pub(crate) struct Cluster {
    content: watch::Sender<(u64, Content)>,
    /// Every review asked, in order.
    reviews: Mutex<Vec<Value>>,
    /// Whether watches say nothing.
    deaf: Mutex<bool>,
    /// Whether reviews fail.
    failing: Mutex<bool>,
    /// How many access reviews may still be answered.
    gate: Semaphore,
}

impl Cluster {
    pub(crate) fn new(content: Content) -> Arc<Self> {
        Arc::new(Self {
            content: watch::Sender::new((1, content)),
            reviews: Mutex::default(),
            deaf: Mutex::default(),
            failing: Mutex::default(),
            gate: Semaphore::new(1_000_000),
        })
    }

    pub(crate) fn client(self: &Arc<Self>) -> kube::Client {
        let cluster = Arc::clone(self);
        let service = tower::service_fn(move |request| {
            let cluster = Arc::clone(&cluster);
            async move { Ok::<_, Infallible>(cluster.answer(request).await) }
        });
        kube::Client::new(service, "default")
    }

    /// Replaces the `ConfigMap`.
    pub(crate) fn publish(&self, content: Content) {
        self.content.send_modify(|now| *now = (now.0 + 1, content));
    }

    /// From now on watches say nothing, as those whose connection has died.
    pub(crate) fn deafen(&self) {
        *self.deaf.lock().unwrap() = true;
    }

    pub(crate) fn fail_reviews(&self, failing: bool) {
        *self.failing.lock().unwrap() = failing;
    }

    /// Holds access reviews back; `release` lets one through.
    pub(crate) fn hold(&self) {
        self.gate.forget_permits(usize::MAX);
    }

    pub(crate) fn release(&self) {
        self.gate.add_permits(1);
    }

    /// Reviews of that kind so far.
    pub(crate) fn reviews(&self, kind: &str) -> Vec<Value> {
        let reviews = self.reviews.lock().unwrap();
        reviews
            .iter()
            .filter(|review| review["kind"] == kind)
            .cloned()
            .collect()
    }

    async fn answer(&self, request: Request<Body>) -> Reply {
        let (parts, body) = request.into_parts();
        let query = parts.uri.query().unwrap_or_default();
        let (path, only) = (
            parts.uri.path(),
            "fieldSelector=metadata.name%3Dextension-apiserver-authentication",
        );
        match path {
            CONFIG_MAP => self.get(),
            CONFIG_MAPS if !query.contains(only) => {
                refusal(403, "only that one name may be listed or watched")
            }
            CONFIG_MAPS if query.contains("watch=true") => self.watch(query),
            CONFIG_MAPS => self.list(),
            _ => {
                let body = body.collect().await.unwrap().to_bytes();
                let review: Value = serde_json::from_slice(&body).unwrap();
                self.reviews.lock().unwrap().push(review.clone());
                if *self.failing.lock().unwrap() {
                    return refusal(403, "reviews are forbidden");
                }
                match path {
                    "/apis/authentication.k8s.io/v1/tokenreviews" => reply(&token_review(review)),
                    "/apis/authorization.k8s.io/v1/subjectaccessreviews" => {
                        self.gate.acquire().await.unwrap().forget();
                        reply(&access_review(review))
                    }
                    _ => refusal(404, "not found"),
                }
            }
        }
    }

    fn get(&self) -> Reply {
        match &*self.content.borrow() {
            (version, Ok(data)) => reply(&config_map(*version, data)),
            (_, Err((code, message))) => refusal(*code, message),
        }
    }

    fn list(&self) -> Reply {
        let (version, items) = match &*self.content.borrow() {
            (version, Ok(data)) => (*version, vec![config_map(*version, data)]),
            (version, Err((404, _))) => (*version, Vec::new()),
            (_, Err((code, message))) => return refusal(*code, message),
        };
        reply(&json!({
            "kind": "ConfigMapList",
            "apiVersion": "v1",
            "metadata": {"resourceVersion": version.to_string()},
            "items": items,
        }))
    }

    fn watch(&self, query: &str) -> Reply {
        if *self.deaf.lock().unwrap() {
            let nothing = futures::stream::pending::<Result<Frame<Bytes>, Infallible>>();
            return Response::new(StreamBody::new(nothing).boxed_unsync());
        }
        let version = query
            .split('&')
            .find_map(|field| field.strip_prefix("resourceVersion="));
        let seen: u64 = version.unwrap().parse().unwrap();
        let content = self.content.subscribe();
        let events = futures::stream::unfold((seen, content), |(seen, mut content)| async move {
            let (version, data) = loop {
                match &*content.borrow_and_update() {
                    (version, Ok(data)) if *version > seen => break (*version, data.clone()),
                    _ => {}
                }
                content.changed().await.ok()?;
            };
            let mut line = json!({"type": "MODIFIED", "object": config_map(version, &data)}).to_string();
            line.push('\n');
            let frame = Ok::<_, Infallible>(Frame::data(Bytes::from(line)));
            Some((frame, (version, content)))
        });
        Response::new(StreamBody::new(events).boxed_unsync())
    }
}

fn config_map(version: u64, data: &BTreeMap<String, String>) -> Value {
    json!({
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": {
            "name": "extension-apiserver-authentication",
            "namespace": "kube-system",
            "resourceVersion": version.to_string(),
        },
        "data": data,
    })
}

/// `token-NAME` is NAME's.
fn token_review(mut review: Value) -> Value {
    let name = review["spec"]["token"].as_str().unwrap().strip_prefix("token-");
    review["status"] = match name {
        Some(name) => json!({"authenticated": true, "user": {"username": name, "groups": ["tokens"]}}),
        None => json!({"authenticated": false, "error": "not a token"}),
    };
    review
}

/// jane may do everything.
fn access_review(mut review: Value) -> Value {
    let allowed = review["spec"]["user"] == "jane";
    review["status"] = json!({"allowed": allowed});
    review
}

fn reply(value: &Value) -> Reply {
    Response::new(Full::from(value.to_string()).boxed_unsync())
}

fn refusal(code: u16, message: &str) -> Reply {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "reason": "", "code": code,
    });
    let mut response = reply(&status);
    *response.status_mut() = code.try_into().unwrap();
    response
}

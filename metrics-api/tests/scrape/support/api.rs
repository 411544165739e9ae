//! An API server in memory: ConfigMaps with resource versions, tokens, and nodes.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response, StatusCode};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::{Api, Client, client::Body};
use serde_json::{Value, json};

#[derive(Clone, Default)]
pub(crate) struct FakeApi(Arc<Mutex<State>>);

/// Requests by method and path for which this returns a status are answered with it.
type Refuse = Box<dyn Fn(&Method, &str) -> Option<u16> + Send>;
type Act = Box<dyn FnOnce(&FakeApi) + Send>;

#[derive(Default)]
struct State {
    config_maps: BTreeMap<String, ConfigMap>,
    version: u64,
    tokens: u64,
    token_life: i64,
    reads: usize,
    writes: usize,
    refuse: Option<Refuse>,
    /// Done once, before the next write is looked at.
    before_write: Option<Act>,
}

impl FakeApi {
    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.handle(request).await) }
        });
        Client::new(service, "apart")
    }

    pub(crate) fn config_maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client(), "apart")
    }

    pub(crate) fn service_accounts(&self) -> Api<ServiceAccount> {
        Api::namespaced(self.client(), "apart")
    }

    pub(crate) fn refuse(&self, refuse: impl Fn(&Method, &str) -> Option<u16> + Send + 'static) {
        self.0.lock().unwrap().refuse = Some(Box::new(refuse));
    }

    pub(crate) fn allow_all(&self) {
        self.0.lock().unwrap().refuse = None;
    }

    pub(crate) fn before_next_write(&self, act: impl FnOnce(&Self) + Send + 'static) {
        self.0.lock().unwrap().before_write = Some(Box::new(act));
    }

    pub(crate) fn set_token_life(&self, seconds: i64) {
        self.0.lock().unwrap().token_life = seconds;
    }

    pub(crate) fn writes(&self) -> usize {
        self.0.lock().unwrap().writes
    }

    pub(crate) fn reads(&self) -> usize {
        self.0.lock().unwrap().reads
    }

    /// All records of all ConfigMaps.
    pub(crate) fn records(&self) -> BTreeMap<String, String> {
        let state = self.0.lock().unwrap();
        state
            .config_maps
            .values()
            .flat_map(|map| map.data.clone().unwrap_or_default())
            .collect()
    }

    pub(crate) fn config_map(&self, name: &str) -> Option<ConfigMap> {
        self.0.lock().unwrap().config_maps.get(name).cloned()
    }

    /// As an administrator, or another replica, would.
    pub(crate) fn put_record(&self, uid: &str, record: Option<&str>) {
        let mut state = self.0.lock().unwrap();
        let name = contract::trust::config_map_name(uid);
        state.version += 1;
        let version = state.version.to_string();
        let map = state.config_maps.entry(name.clone()).or_default();
        map.metadata.name = Some(name);
        map.metadata.resource_version = Some(version);
        let data = map.data.get_or_insert_default();
        match record {
            Some(record) => drop(data.insert(uid.to_owned(), record.to_owned())),
            None => drop(data.remove(uid)),
        }
    }

    async fn handle(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.unwrap();
        let path = parts.uri.path().to_owned();
        if parts.method != Method::GET {
            let act = self.0.lock().unwrap().before_write.take();
            if let Some(act) = act {
                act(self);
            }
        }
        let mut state = self.0.lock().unwrap();
        if let Some(code) = state
            .refuse
            .as_ref()
            .and_then(|refuse| refuse(&parts.method, &path))
        {
            return status(code);
        }
        let rest = path
            .strip_prefix("/api/v1/namespaces/apart/")
            .unwrap_or(&path)
            .to_owned();
        match (&parts.method, rest.split('/').collect::<Vec<_>>().as_slice()) {
            (&Method::GET, ["configmaps", name]) => state.get(name),
            (&Method::POST, ["configmaps"]) => state.create(&body),
            (&Method::PUT, ["configmaps", name]) => state.replace(name, &body),
            (&Method::POST, ["serviceaccounts", _, "token"]) => state.token(),
            _ => status(404),
        }
    }
}

impl State {
    fn get(&mut self, name: &str) -> Response<Body> {
        self.reads += 1;
        self.config_maps
            .get(name)
            .map_or_else(|| status(404), |map| reply(200, &json!(map)))
    }

    fn create(&mut self, body: &[u8]) -> Response<Body> {
        let map: ConfigMap = serde_json::from_slice(body).unwrap();
        let name = map.metadata.name.clone().unwrap();
        if self.config_maps.contains_key(&name) {
            return status(409);
        }
        self.store(name, map)
    }

    fn replace(&mut self, name: &str, body: &[u8]) -> Response<Body> {
        let map: ConfigMap = serde_json::from_slice(body).unwrap();
        assert!(
            map.metadata.resource_version.is_some(),
            "never written over what was not read"
        );
        match self.config_maps.get(name) {
            None => status(404),
            Some(known) if known.metadata.resource_version != map.metadata.resource_version => status(409),
            Some(_) => self.store(name.to_owned(), map),
        }
    }

    fn store(&mut self, name: String, mut map: ConfigMap) -> Response<Body> {
        self.version += 1;
        self.writes += 1;
        map.metadata.resource_version = Some(self.version.to_string());
        self.config_maps.insert(name, map.clone());
        reply(200, &json!(map))
    }

    fn token(&mut self) -> Response<Body> {
        self.tokens += 1;
        let token = format!("token-{}", self.tokens);
        let spec = json!({"expirationSeconds": self.token_life, "audiences": []});
        reply(
            201,
            &json!({"spec": spec, "status": {"token": token, "expirationTimestamp": "2026-11-24T06:00:00Z"}}),
        )
    }
}

fn status(code: u16) -> Response<Body> {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        _ => "Refused",
    };
    reply(
        code,
        &json!({"kind": "Status", "status": "Failure", "message": "no", "reason": reason, "code": code}),
    )
}

fn reply(code: u16, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(serde_json::to_vec(body).unwrap()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

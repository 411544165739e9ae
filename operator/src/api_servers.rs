//! Each kube-apiserver singly: what one of them knows and answers, the others need not.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use http::StatusCode;
use k8s_openapi::ByteString;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{GetParams, ListParams};
use kube::client::Body;
use kube::{Api, Client, Config, ResourceExt as _};

use crate::cluster;

/// Where kube-apiservers publish their addresses: the endpoints of Service `default/kubernetes`.
const NAMESPACE: &str = "default";
const SERVICE: &str = "kubernetes";
/// A name that every kube-apiserver's certificate has, whatever its address is.
const SERVER_NAME: &str = "kubernetes.default.svc";
/// Time for one to answer anything at all.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Makes a client of the kube-apiserver at an address.
type Connect = Arc<dyn Fn(SocketAddr) -> Result<Client, kube::Error> + Send + Sync>;

/// One kube-apiserver.
#[derive(Clone)]
pub struct ApiServer {
    /// Its address; `None` for whichever answers.
    pub address: Option<SocketAddr>,
    /// The way to it; `None` if it cannot be reached singly.
    pub client: Option<Client>,
}

/// The kube-apiservers of the cluster.
pub struct ApiServers {
    client: Client,
    connect: Connect,
    singly: BTreeMap<SocketAddr, Client>,
}

impl ApiServers {
    /// `client` reaches whichever answers, and `config` says how.
    #[must_use]
    pub fn new(client: Client, config: &Config) -> Self {
        let config = config.clone();
        Self::with(
            client,
            Arc::new(move |address| {
                let mut config = config.clone();
                config.cluster_url = format!("https://{address}")
                    .parse()
                    .map_err(|error: http::uri::InvalidUri| kube::Error::Service(error.into()))?;
                config.tls_server_name = Some(SERVER_NAME.to_owned());
                cluster::calls(&config)
            }),
        )
    }

    pub(crate) fn with(client: Client, connect: Connect) -> Self {
        Self {
            client,
            connect,
            singly: BTreeMap::new(),
        }
    }

    /// All of them; the one that answers if the others cannot be told apart.
    pub async fn find(&mut self) -> Vec<ApiServer> {
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), NAMESPACE);
        let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={SERVICE}"));
        let addresses = match slices.list(&of_service).await {
            Ok(slices) => addresses(&slices.items),
            Err(error) => {
                tracing::debug!(
                    error = cluster::describe(&error),
                    "failed to read the addresses of kube-apiservers"
                );
                Vec::new()
            }
        };
        self.singly.retain(|address, _| addresses.contains(address));
        for address in &addresses {
            if !self.singly.contains_key(address)
                && let Ok(client) = (self.connect)(*address)
            {
                self.singly.insert(*address, client);
            }
        }
        let each = addresses.into_iter().map(|address| {
            let client = self.singly.get(&address);
            async move {
                let reached = match client {
                    Some(client) => is_reached(client).await,
                    None => false,
                };
                ApiServer {
                    address: Some(address),
                    client: client.filter(|_| reached).cloned(),
                }
            }
        });
        let mut found = join_all(each).await;
        if found.iter().all(|server| server.client.is_none()) {
            found.push(ApiServer {
                address: None,
                client: Some(self.client.clone()),
            });
        }
        found
    }
}

impl ApiServer {
    /// Whether it knows these `APIServices` as they are, or as they became later with the same caBundle. There is no
    /// better acknowledgement: "not older than" a resourceVersion is answered when its cache has got that far.
    pub async fn knows(&self, services: &[APIService]) -> bool {
        let Some(client) = &self.client else {
            return false;
        };
        let api: Api<APIService> = Api::all(client.clone());
        for service in services {
            let at_least = GetParams {
                resource_version: service.resource_version(),
            };
            let name = service.name_any();
            let known = tokio::time::timeout(TIMEOUT, api.get_with(&name, &at_least)).await;
            match known {
                Ok(Ok(known)) if bundle(&known) == bundle(service) => {}
                _ => return false,
            }
        }
        true
    }
}

/// The authorities that an `APIService` says to trust.
pub(crate) fn bundle(service: &APIService) -> Option<&ByteString> {
    service.spec.as_ref()?.ca_bundle.as_ref()
}

/// Whether it answers, and neither starts nor ends. Whether it may be asked is not the question.
async fn is_reached(client: &Client) -> bool {
    let Ok(request) = http::Request::get("/readyz").body(Body::empty()) else {
        return false;
    };
    let answer = tokio::time::timeout(TIMEOUT, client.send(request)).await;
    let may_not = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
    matches!(answer, Ok(Ok(answer)) if answer.status().is_success() || may_not.contains(&answer.status()))
}

/// Every address with its port, each once, in order.
fn addresses(slices: &[EndpointSlice]) -> Vec<SocketAddr> {
    let mut addresses = Vec::new();
    for slice in slices {
        let ports = slice.ports.iter().flatten();
        let ports: Vec<_> = ports.filter_map(|port| u16::try_from(port.port?).ok()).collect();
        for address in slice
            .endpoints
            .iter()
            .flatten()
            .flat_map(|endpoint| &endpoint.addresses)
        {
            if let Ok(address) = address.parse::<IpAddr>() {
                addresses.extend(ports.iter().map(|&port| SocketAddr::new(address, port)));
            }
        }
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake::Fake;

    const SERVICE_PATH: &str = "/apis/apiregistration.k8s.io/v1/apiservices/v1.metrics.k8s.io";

    /// A control plane of two, the second of which is not ready.
    fn control_plane() -> (Fake, ApiServers) {
        let fake = Fake::default();
        // Not everybody may ask.
        fake.always("GET /readyz", 403, json!("no"));
        fake.put(
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes",
            json!({"metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
                "addressType": "IPv4", "ports": [{"name": "https", "port": 6443}],
                "endpoints": [{"addresses": ["10.0.0.2"]}, {"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.1"]}]}),
        );
        let starting = Fake::default();
        starting.always("GET /readyz", 503, json!("not yet"));
        let (first, second) = (fake.client(), starting.client());
        let connect = move |address: SocketAddr| {
            let is_first = address == "10.0.0.1:6443".parse().unwrap();
            Ok(if is_first { first.clone() } else { second.clone() })
        };
        let servers = ApiServers::with(fake.client(), Arc::new(connect));
        (fake, servers)
    }

    #[tokio::test]
    async fn each_is_found_once_and_known_to_be_unreachable() {
        let (fake, mut servers) = control_plane();
        let found = servers.find().await;
        let found: Vec<_> = found
            .iter()
            .map(|server| (server.address.unwrap().to_string(), server.client.is_some()))
            .collect();
        assert_eq!(
            found,
            [
                ("10.0.0.1:6443".to_owned(), true),
                ("10.0.0.2:6443".to_owned(), false)
            ]
        );
        fake.remove("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes");
        let found = servers.find().await;
        assert_eq!(found.len(), 1);
        assert!(found[0].address.is_none() && found[0].client.is_some());
    }

    #[tokio::test]
    async fn what_has_another_bundle_or_no_answer_does_not_know() {
        let (fake, mut servers) = control_plane();
        let found = servers.find().await;
        let service = |bundle: &str| {
            json!({"metadata": {"name": "v1.metrics.k8s.io"}, "spec": {"caBundle": bundle,
            "groupPriorityMinimum": 1, "versionPriority": 1}})
        };
        let wanted: APIService = serde_json::from_value(service("bmV3")).unwrap();
        for (stored, known) in [(None, false), (Some("b2xk"), false), (Some("bmV3"), true)] {
            if let Some(stored) = stored {
                fake.put(SERVICE_PATH, service(stored));
            }
            assert_eq!(
                found[0].knows(std::slice::from_ref(&wanted)).await,
                known,
                "{stored:?}"
            );
            assert!(!found[1].knows(std::slice::from_ref(&wanted)).await);
        }
    }
}

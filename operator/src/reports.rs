//! What each replica of metrics-api says about the kubelets: its node report, read from the Pod itself, since one that
//! is not ready has the most to tell.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use contract::names;
use contract::report::NodeReport;
use futures::future::join_all;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use kube::api::PostParams;
use kube::config::AuthInfo;
use kube::{Api, Client, Config, ResourceExt as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use secrecy::SecretString;
use tokio::time::Instant;

use crate::observe::{self, Replica};
use crate::{cluster, verify};

/// Time for one replica to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of a report: some 50 000 nodes, all failing.
const BODY_LIMIT: usize = 32 << 20;

/// How long a token is asked for: the shortest that kube-apiserver gives.
const TOKEN_SECONDS: i64 = 600;
/// How long a token is used, well before its end.
const TOKEN_FRESH: Duration = Duration::from_mins(5);

/// Reads node reports. What it shows to Pods is a token of the account that kubelets get to see, never the operator's
/// own: whoever takes over metrics-api must not win the operator's rights, and that token he can get anyway.
pub struct Reader {
    client: Client,
    namespace: String,
    server_name: String,
    identity: Option<(Instant, AuthInfo)>,
}

impl Reader {
    /// For metrics-api in `namespace`. `client` asks for tokens.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            server_name: format!("{}.{namespace}.svc", names::METRICS_API),
            identity: None,
        }
    }

    /// The report of each Pod that runs, or why there is none. `bundle` has the authorities, PEM, that their
    /// certificates come from.
    pub async fn read(&mut self, pods: &[Pod], bundle: Option<&[u8]>) -> Vec<Replica> {
        let running: Vec<_> = pods
            .iter()
            .filter_map(|pod| {
                let address = SocketAddr::new(address(pod)?, observe::serving_port(pod));
                Some((pod.name_any(), address))
            })
            .collect();
        if running.is_empty() {
            return Vec::new();
        }
        let access = match roots(bundle) {
            Ok(roots) => self.identity().await.map(|identity| (roots, identity)),
            Err(reason) => Err(reason.to_owned()),
        };
        let replicas: Vec<_> = join_all(running.into_iter().map(|(pod, address)| {
            let (access, server_name) = (&access, &self.server_name);
            async move {
                let report = match access {
                    Ok((roots, identity)) => {
                        read_one(settings(address, server_name, roots.clone(), identity.clone())).await
                    }
                    Err(reason) => Err(reason.clone()),
                };
                Replica { pod, report }
            }
        }))
        .await;
        let refused = |replica: &Replica| {
            replica
                .report
                .as_ref()
                .is_err_and(|reason| reason.ends_with("(401)"))
        };
        if replicas.iter().any(refused) {
            // The account may have been made anew: its tokens are then others.
            self.identity = None;
        }
        replicas
    }

    async fn identity(&mut self) -> Result<AuthInfo, String> {
        if let Some((since, identity)) = &self.identity
            && since.elapsed() < TOKEN_FRESH
        {
            return Ok(identity.clone());
        }
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &self.namespace);
        let request = TokenRequest {
            spec: Some(TokenRequestSpec {
                expiration_seconds: Some(TOKEN_SECONDS),
                ..TokenRequestSpec::default()
            }),
            ..TokenRequest::default()
        };
        let account = names::KUBELET_SERVICE_ACCOUNT;
        let since = Instant::now();
        let answer = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .map_err(|error| format!("no token of {account}: {}", cluster::describe(&error)))?;
        let token = answer
            .status
            .and_then(|status| status.token)
            .filter(|token| !token.is_empty())
            .ok_or_else(|| format!("no token of {account}: the answer has none"))?;
        let identity = AuthInfo {
            token: Some(SecretString::from(token)),
            ..AuthInfo::default()
        };
        self.identity = Some((since, identity.clone()));
        Ok(identity)
    }
}

/// How a replica is reached.
fn settings(
    address: SocketAddr,
    server_name: &str,
    roots: Vec<Vec<u8>>,
    identity: AuthInfo,
) -> Result<Config, String> {
    let url = format!("https://{address}");
    let mut config = Config::new(url.parse().map_err(|error| format!("{url}: {error}"))?);
    config.root_cert = Some(roots);
    config.tls_server_name = Some(server_name.to_owned());
    config.auth_info = identity;
    config.connect_timeout = Some(TIMEOUT);
    config.read_timeout = Some(TIMEOUT);
    config.default_retry = false;
    Ok(config)
}

async fn read_one(settings: Result<Config, String>) -> Result<NodeReport, String> {
    let config = settings?;
    let url = config.cluster_url.to_string().trim_end_matches('/').to_owned();
    let client = Client::try_from(config).map_err(|error| format!("{url}: {}", cluster::describe(&error)))?;
    let get = verify::get(&client, names::DEBUG_NODES_PATH, BODY_LIMIT);
    let body = tokio::time::timeout(TIMEOUT, get)
        .await
        .map_err(|_| format!("{url}: no answer within {} s", TIMEOUT.as_secs()))?
        .map_err(|reason| format!("{url}: {reason}"))?;
    serde_json::from_slice(&body).map_err(|error| format!("{url}: no node report: {error}"))
}

/// Where to reach a Pod that runs and is not about to end.
fn address(pod: &Pod) -> Option<IpAddr> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let status = pod.status.as_ref()?;
    let started = status.container_statuses.iter().flatten().any(|container| {
        container
            .state
            .as_ref()
            .is_some_and(|state| state.running.is_some())
    });
    if !started {
        return None;
    }
    status.pod_ip.as_ref()?.parse().ok()
}

fn roots(bundle: Option<&[u8]>) -> Result<Vec<Vec<u8>>, &'static str> {
    let pem = bundle.ok_or("there is no certificate authority yet to verify it with")?;
    CertificateDer::pem_slice_iter(pem)
        .map(|certificate| certificate.map(|certificate| certificate.to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|_| "the Secret with the authorities holds no PEM certificate")
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;
    use serde_json::json;

    use super::*;
    use crate::fake::{Fake, status};

    fn pod(value: serde_json::Value) -> Pod {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_pods_that_run_are_asked() {
        let running = json!({"podIP": "10.1.2.3", "containerStatuses": [
            {"name": "a", "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": {"running": {}}}
        ]});
        assert_eq!(
            address(&pod(json!({"status": running}))),
            Some("10.1.2.3".parse().unwrap())
        );
        let ending = json!({"metadata": {"deletionTimestamp": "2026-11-24T00:00:00Z"}, "status": running});
        assert_eq!(address(&pod(ending)), None);
        assert_eq!(address(&pod(json!({"status": {"podIP": "10.1.2.3"}}))), None);
        assert_eq!(address(&pod(json!({}))), None);
    }

    fn running() -> Pod {
        pod(
            json!({"metadata": {"name": "metrics-api-0"}, "status": {"podIP": "127.0.0.1", "containerStatuses": [
                {"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}}
            ]}}),
        )
    }

    #[tokio::test]
    async fn without_an_authority_nobody_is_asked() {
        let fake = Fake::default();
        let replicas = Reader::new(fake.client(), "ns").read(&[running()], None).await;
        assert_eq!(replicas.len(), 1);
        assert_eq!(
            replicas[0].report,
            Err("there is no certificate authority yet to verify it with".to_owned())
        );
        assert_eq!(fake.writes(), [""; 0], "no token is asked for");
    }

    #[tokio::test(start_paused = true)]
    async fn pods_get_to_see_a_token_of_the_kubelets_account_which_is_used_for_a_while() {
        const TOKEN: &str = "POST /api/v1/namespaces/ns/serviceaccounts/metrics-api-kubelet/token";
        let fake = Fake::default();
        let status =
            json!({"token": "of-the-kubelets-account", "expirationTimestamp": "2026-11-24T00:10:00Z"});
        fake.always(TOKEN, 201, json!({"spec": {"audiences": []}, "status": status}));
        let mut reader = Reader::new(fake.client(), "ns");
        let identity = reader.identity().await.unwrap();
        let config = settings(
            "[::1]:10250".parse().unwrap(),
            "metrics-api.ns.svc",
            Vec::new(),
            identity,
        )
        .unwrap();
        assert_eq!(config.cluster_url.to_string(), "https://[::1]:10250/");
        let shown = config.auth_info.token.unwrap();
        assert_eq!(shown.expose_secret(), "of-the-kubelets-account");
        reader.identity().await.unwrap();
        assert_eq!(fake.writes(), [TOKEN]);
        tokio::time::advance(TOKEN_FRESH).await;
        reader.identity().await.unwrap();
        assert_eq!(fake.writes(), [TOKEN]);
    }

    #[tokio::test]
    async fn without_a_token_nobody_is_asked() {
        let fake = Fake::default();
        let call = "POST /api/v1/namespaces/ns/serviceaccounts/metrics-api-kubelet/token";
        fake.always(call, 403, status(403, "Forbidden", "no right"));
        let replicas = Reader::new(fake.client(), "ns")
            .read(&[running()], Some(b""))
            .await;
        assert_eq!(
            replicas[0].report,
            Err("no token of metrics-api-kubelet: no right (403)".to_owned())
        );
    }
}

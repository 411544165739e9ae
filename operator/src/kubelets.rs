//! What each replica of metrics-api says about the kubelets: its node report, read from the Pod itself, since one that
//! is not ready has the most to tell.

use std::net::IpAddr;
use std::time::Duration;

use contract::names;
use contract::report::NodeReport;
use futures::future::join_all;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::{Client, Config, ResourceExt as _};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::certificates::BUNDLE;
use crate::observe::Replica;
use crate::{cluster, verify};

/// Time for one replica to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of a report: some 50 000 nodes, all failing.
const BODY_LIMIT: usize = 32 << 20;

/// Reads node reports with the operator's own identity.
pub struct Reader {
    /// How the operator shows who it is.
    identity: kube::config::AuthInfo,
    server_name: String,
}

impl Reader {
    /// `config` is how kube-apiserver is reached, whose identity is used here too.
    #[must_use]
    pub fn new(config: &Config, namespace: &str) -> Self {
        Self {
            identity: config.auth_info.clone(),
            server_name: format!("{}.{namespace}.svc", names::METRICS_API),
        }
    }

    /// The report of each Pod that runs, or why there is none. `ca` is the Secret with the authority that their
    /// certificates come from.
    pub async fn read(&self, pods: &[Pod], ca: Option<&Secret>) -> Vec<Replica> {
        let roots = roots(ca);
        let running = pods
            .iter()
            .filter_map(|pod| Some((pod.name_any(), address(pod)?)));
        join_all(running.map(|(pod, address)| {
            let roots = &roots;
            async move {
                let report = match roots {
                    Ok(roots) => self.read_one(address, roots.clone()).await,
                    Err(reason) => Err((*reason).to_owned()),
                };
                Replica { pod, report }
            }
        }))
        .await
    }

    async fn read_one(&self, address: IpAddr, roots: Vec<Vec<u8>>) -> Result<NodeReport, String> {
        let host = match address {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let url = format!("https://{host}:{}", names::METRICS_API_PORT);
        let mut config = Config::new(url.parse().map_err(|error| format!("{url}: {error}"))?);
        config.root_cert = Some(roots);
        config.tls_server_name = Some(self.server_name.clone());
        config.auth_info = self.identity.clone();
        config.connect_timeout = Some(TIMEOUT);
        config.read_timeout = Some(TIMEOUT);
        config.default_retry = false;
        let client =
            Client::try_from(config).map_err(|error| format!("{url}: {}", cluster::describe(&error)))?;
        let get = verify::get(&client, names::DEBUG_NODES_PATH, BODY_LIMIT);
        let body = tokio::time::timeout(TIMEOUT, get)
            .await
            .map_err(|_| format!("{url}: no answer within {} s", TIMEOUT.as_secs()))?
            .map_err(|reason| format!("{url}: {reason}"))?;
        serde_json::from_slice(&body).map_err(|error| format!("{url}: no node report: {error}"))
    }
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

fn roots(ca: Option<&Secret>) -> Result<Vec<Vec<u8>>, &'static str> {
    let pem = ca
        .and_then(|secret| secret.data.as_ref())
        .and_then(|data| data.get(BUNDLE).or_else(|| data.get(names::TLS_CERTIFICATE)))
        .ok_or("there is no certificate authority yet to verify it with")?;
    CertificateDer::pem_slice_iter(&pem.0)
        .map(|certificate| certificate.map(|certificate| certificate.to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|_| "the certificate authority's Secret holds no PEM certificate")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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

    #[tokio::test]
    async fn without_an_authority_nobody_is_asked() {
        let config = Config::new("https://127.0.0.1:1".parse().unwrap());
        let running = json!({"metadata": {"name": "metrics-api-0"}, "status": {"podIP": "127.0.0.1", "containerStatuses": [
            {"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}}
        ]}});
        let replicas = Reader::new(&config, "ns").read(&[pod(running)], None).await;
        assert_eq!(replicas.len(), 1);
        assert_eq!(
            replicas[0].report,
            Err("there is no certificate authority yet to verify it with".to_owned())
        );
    }
}

//! What a rotation of certificates has to see before it goes on: which authorities each kube-apiserver knows, and which
//! certificate each replica serves. And what makes it quick: kubelet is told that there is another certificate.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use contract::names;
use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::api_servers::{self, ApiServer};
use crate::certificates::{Certificates, Observations, Usage};
use crate::cluster;
use crate::observe::{self, Observed, Read};
use crate::plan::Plan;

/// Time for a replica to show its certificate.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Annotation of a Pod. A change of it makes kubelet look at the Pod's Secrets at once instead of within a minute and a
/// half (<https://kubernetes.io/docs/tasks/configure-pod-container/configure-pod-configmap/>).
const ANNOTATION: &str = "metricsstack.dev/certificate-renewed-at";
/// Field manager of that annotation.
const MANAGER: &str = "metricsstack-operator-certificates";
/// How often is looked how far a rotation is, and for how long.
const LOOK: Duration = Duration::from_secs(5);
const EAGER_FOR: Duration = Duration::from_mins(10);
/// How long kubelet gets after it was told.
const TOLD: Duration = Duration::from_secs(10);

/// What one replica serves: its Pod's name, and the certificate, DER, or why it is not seen, in one line.
pub type Served = (String, Result<CertificateDer<'static>, String>);

/// Follows the certificates to their clients and servers.
pub struct Rotation {
    minimum_age: Duration,
    observations: Observations,
    /// Whether the last read was answered through every kube-apiserver.
    accepted: bool,
    /// When kubelet was told, by Pod.
    told: BTreeMap<String, Instant>,
    /// Since when one authority is taking over from another.
    begun: Option<Instant>,
}

impl Rotation {
    /// Where every state lasts for `minimum_age` before the next one.
    #[must_use]
    pub fn new(minimum_age: Duration) -> Self {
        Self {
            minimum_age,
            observations: Observations::default(),
            accepted: false,
            told: BTreeMap::new(),
            begun: None,
        }
    }

    /// How soon is looked again at a rotation that is under way. One that does not come to its end is no reason to hurry
    /// for ever.
    pub fn next_look(&mut self, certificates: Option<&Certificates>) -> Option<Duration> {
        if !certificates?.rotates() {
            self.begun = None;
            return None;
        }
        let begun = *self.begun.get_or_insert_with(Instant::now);
        (begun.elapsed() < EAGER_FOR).then_some(LOOK)
    }

    /// Who knows and uses the certificates, as far as has been seen. `published` are the authorities that
    /// kube-apiserver is told to trust.
    pub fn usage(&mut self, published: String, observed: &Observed) -> Usage {
        let now = Instant::now();
        let stored = stored(observed);
        let served = stored.as_ref().filter(|stored| {
            let is_it = |(_, served): &Served| served.as_ref().is_ok_and(|served| served == *stored);
            self.accepted && !observed.served.is_empty() && observed.served.iter().all(is_it)
        });
        self.observations.served(served.map(AsRef::as_ref), now);
        self.observations
            .usage(published, self.minimum_age, now, Timestamp::now())
    }

    /// After an apply: whether the bundle has come to each kube-apiserver that can be reached.
    pub async fn acknowledge(&mut self, plan: &Plan, observed: &Observed, servers: &[ApiServer]) {
        let bundle = plan.certificates.bundle();
        let services: Vec<_> = observed
            .api_services
            .iter()
            .filter(|service| {
                let published = api_servers::bundle(service);
                observed.owns(service) && published.is_some_and(|published| published.0 == bundle.as_bytes())
            })
            .cloned()
            .collect();
        let complete = services.len() == names::METRICS_VERSIONS.len();
        if !complete {
            self.observations.acknowledged(None, Instant::now());
        } else if !self.observations.has(&bundle) {
            let reached = servers.iter().filter(|server| server.client.is_some());
            let known = join_all(reached.map(|server| server.knows(&services))).await;
            let all = !known.is_empty() && known.into_iter().all(|knows| knows);
            self.observations
                .acknowledged(all.then_some(bundle), Instant::now());
        }
    }

    /// After a read: whether the certificate that is served is accepted.
    pub fn read(&mut self, read: &Read, certificates: Option<&Certificates>) {
        self.accepted = *read == Read::Succeeded;
        let switched = certificates.is_some_and(|certificates| certificates.previous.is_some());
        if switched && matches!(read, Read::Failed { reason, .. } if reason.contains("x509: ")) {
            tracing::warn!("the new serving certificate is refused: the one before is served again");
            self.observations.refused(Instant::now());
        }
    }

    /// Tells kubelet of a certificate that a replica does not serve yet. Says how many Pods were written.
    pub async fn deliver(&mut self, client: &Client, observed: &Observed) -> u64 {
        let Some(stored) = stored(observed) else { return 0 };
        let pods: Api<Pod> = Api::namespaced(client.clone(), &observed.namespace);
        let mut written = 0;
        self.told
            .retain(|pod, _| observed.pods.iter().any(|known| known.name_any() == *pod));
        for (pod, served) in &observed.served {
            let is_late = served.as_ref().is_ok_and(|served| *served != stored);
            let is_told = self.told.get(pod).is_some_and(|told| told.elapsed() < TOLD);
            if !is_late || is_told {
                continue;
            }
            let patch = json!({"metadata": {"annotations": {ANNOTATION: Timestamp::now()}}});
            let parameters = PatchParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PatchParams::default()
            };
            self.told.insert(pod.clone(), Instant::now());
            match pods.patch_metadata(pod, &parameters, &Patch::Merge(patch)).await {
                Ok(_) => written += 1,
                Err(error) => tracing::info!(
                    pod,
                    error = cluster::describe(&error),
                    "kubelet is not told of the new certificate: it takes up to a minute and a half"
                ),
            }
        }
        written
    }
}

/// The serving certificate that is stored.
fn stored(observed: &Observed) -> Option<CertificateDer<'static>> {
    let data = observed.serving_secret.as_ref()?.data.as_ref()?;
    CertificateDer::from_pem_slice(&data.get(names::TLS_CERTIFICATE)?.0).ok()
}

/// What each Pod that runs serves, one that is about to end too. `bundle` are the authorities that it may be from, PEM.
pub(crate) async fn served(pods: &[Pod], namespace: &str, bundle: &[u8]) -> Vec<Served> {
    let connector = connector(bundle);
    let name = ServerName::try_from(format!("{}.{namespace}.svc", names::METRICS_API)).ok();
    join_all(pods.iter().filter_map(|pod| {
        let address: IpAddr = pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()?;
        if !runs(pod) {
            return None;
        }
        let (connector, name) = (connector.clone(), name.clone());
        Some(async move {
            let shown = match (connector, name) {
                (Ok(connector), Some(name)) => {
                    let address = SocketAddr::new(address, observe::serving_port(pod));
                    match tokio::time::timeout(TIMEOUT, shown(address, name, connector)).await {
                        Ok(shown) => shown.map_err(|error| format!("{address}: {error}")),
                        Err(_) => Err(format!("{address}: no answer within {TIMEOUT:?}")),
                    }
                }
                (Err(error), _) => Err(error),
                (_, None) => Err(format!("{namespace:?} is no part of a DNS name")),
            };
            (pod.name_any(), shown)
        })
    }))
    .await
}

/// Whether a container of it runs.
fn runs(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let mut containers = status
        .iter()
        .filter_map(|status| status.container_statuses.as_ref())
        .flatten();
    containers.any(|container| {
        container
            .state
            .as_ref()
            .is_some_and(|state| state.running.is_some())
    })
}

fn connector(bundle: &[u8]) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(bundle) {
        let authority = authority.map_err(|error| error.to_string())?;
        roots.add(authority).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .build()
        .map_err(|error| error.to_string())?;
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_webpki_verifier(verifier)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn shown(
    address: SocketAddr,
    name: ServerName<'static>,
    connector: TlsConnector,
) -> Result<CertificateDer<'static>, String> {
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())?;
    let tls = connector
        .connect(name, stream)
        .await
        .map_err(|error| error.to_string())?;
    let shown = tls.get_ref().1.peer_certificates().and_then(<[_]>::first);
    Ok(shown.ok_or("no certificate was shown")?.clone().into_owned())
}

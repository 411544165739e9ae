//! What wakes the reconcile loop: a change of anything that it makes or depends on. Objects come as metadata, are not
//! kept, and only say that it is time to look.

use std::fmt::Debug;
use std::sync::Arc;

use contract::names;
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::api::MetricsStack;
use crate::cluster::{self, KUBE_SYSTEM};
use crate::{kubelet_certificates, observe};

/// Starts every watch. They end when the set is dropped.
#[must_use]
pub(crate) fn start(client: &Client, namespace: &str, wake: &Arc<Notify>) -> JoinSet<()> {
    let mut watches = Watches {
        client,
        namespace,
        wake,
        tasks: JoinSet::new(),
    };
    let ours = watcher::Config::default().labels(&cluster::our_label());
    let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));

    let stacks: Api<PartialObjectMeta<MetricsStack>> = Api::all(client.clone());
    let stack = watch(stacks, named(names::STACK_NAME), Arc::clone(wake), Wakes::Asked);
    watches.tasks.spawn(stack);
    for name in cluster::api_service_names() {
        // By name: one of somebody else counts too.
        watches.cluster_wide::<APIService>(named(&name));
    }
    watches.cluster_wide::<ClusterRole>(ours.clone());
    watches.cluster_wide::<ClusterRoleBinding>(ours.clone());
    watches.within::<RoleBinding>(KUBE_SYSTEM, ours.clone());
    watches.within::<ConfigMap>(KUBE_SYSTEM, named(names::AUTHENTICATION_CONFIG_MAP));
    watches.own::<Role>(ours.clone());
    watches.own::<RoleBinding>(ours.clone());
    watches.own::<ServiceAccount>(ours.clone());
    for name in cluster::SECRETS {
        // By name: the operator may see no other Secrets.
        watches.own::<Secret>(named(name));
    }
    watches.own::<ConfigMap>(ours.clone());
    watches.own::<Service>(ours.clone());
    watches.own::<PodDisruptionBudget>(ours.clone());
    watches.own::<NetworkPolicy>(ours.clone());
    watches.own::<Deployment>(ours);
    watches.own::<EndpointSlice>(watcher::Config::default().labels(&observe::endpoint_labels()));
    watches.tasks
}

/// The watch of kubelets' requests for certificates: only where they are decided on.
#[derive(Default)]
pub(crate) struct Requests(JoinSet<()>);

impl Requests {
    /// Starts or ends it, unless it is as `wanted`.
    pub(crate) fn follow(&mut self, wanted: bool, client: &Client, wake: &Arc<Notify>) {
        if !wanted {
            self.0 = JoinSet::new();
        } else if self.0.is_empty() {
            let kubelets = format!("spec.signerName={}", kubelet_certificates::SIGNER);
            let config = watcher::Config::default().fields(&kubelets);
            let api: Api<PartialObjectMeta<CertificateSigningRequest>> = Api::all(client.clone());
            self.0.spawn(watch(api, config, Arc::clone(wake), Wakes::Any));
        }
    }
}

/// What a watch takes of a kind.
trait Watched: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static {}

impl<K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static> Watched for K {}

struct Watches<'a> {
    client: &'a Client,
    namespace: &'a str,
    wake: &'a Arc<Notify>,
    tasks: JoinSet<()>,
}

impl Watches<'_> {
    fn own<K>(&mut self, config: watcher::Config)
    where
        K: Watched + Resource<Scope = NamespaceResourceScope>,
    {
        self.within::<K>(self.namespace, config);
    }

    fn within<K>(&mut self, namespace: &str, config: watcher::Config)
    where
        K: Watched + Resource<Scope = NamespaceResourceScope>,
    {
        let api: Api<PartialObjectMeta<K>> = Api::namespaced(self.client.clone(), namespace);
        self.tasks
            .spawn(watch(api, config, Arc::clone(self.wake), Wakes::Any));
    }

    fn cluster_wide<K>(&mut self, config: watcher::Config)
    where
        K: Watched + Resource<Scope = ClusterResourceScope>,
    {
        let api: Api<PartialObjectMeta<K>> = Api::all(self.client.clone());
        self.tasks
            .spawn(watch(api, config, Arc::clone(self.wake), Wakes::Any));
    }
}

/// Which changes of an object wake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wakes {
    Any,
    /// Not its status, which is our own word: a status that differs from turn to turn must not make the turns.
    Asked,
}

/// What is asked of an object: its identity, its spec, its end and who waits for that.
fn asked(metadata: &ObjectMeta) -> impl PartialEq + use<> {
    (
        metadata.uid.clone(),
        metadata.generation,
        metadata.deletion_timestamp.is_some(),
        metadata.finalizers.clone(),
    )
}

async fn watch<K>(api: Api<PartialObjectMeta<K>>, config: watcher::Config, wake: Arc<Notify>, wakes: Wakes)
where
    K: Watched,
{
    let kind = K::kind(&());
    let mut events = std::pin::pin!(watcher(api, config).default_backoff());
    let mut known = None;
    while let Some(event) = events.next().await {
        match event {
            // A list that is complete again may lack what was deleted meanwhile.
            Ok(Event::Apply(object)) => {
                let now = Some(asked(&object.metadata));
                if wakes == Wakes::Any || known != now {
                    wake.notify_one();
                }
                known = now;
            }
            Ok(Event::Delete(_) | Event::InitDone) => wake.notify_one(),
            Ok(Event::Init | Event::InitApply(_)) => {}
            Err(error) => {
                tracing::warn!(kind = kind.as_ref(), %error, "a watch broke off; it is started again");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use kube::client::Body;
    use serde_json::json;

    use super::*;
    use crate::fake::Fake;

    #[tokio::test]
    async fn requests_are_watched_only_while_they_are_decided_on() {
        let fake = Fake::default();
        let (client, wake) = (fake.client(), Arc::new(Notify::new()));
        let listed = || {
            let calls = fake.calls();
            calls
                .iter()
                .filter(|call| call.contains("certificatesigningrequests"))
                .count()
        };
        let mut requests = Requests::default();
        requests.follow(false, &client, &wake);
        assert!(requests.0.is_empty());
        requests.follow(true, &client, &wake);
        // What was asked for before is heard of too.
        wake.notified().await;
        let before = listed();
        assert!(before > 0);
        requests.follow(true, &client, &wake);
        assert_eq!(requests.0.len(), 1);
        requests.follow(false, &client, &wake);
        assert!(requests.0.is_empty());
    }

    /// What a watch is told whose resourceVersion etcd has compacted.
    #[tokio::test(start_paused = true)]
    async fn a_compacted_history_is_listed_anew_and_wakes() {
        const EXPIRED: &str = r#"{"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "reason": "Expired", "code": 410, "message": "too old resource version: 7 (42)"}}"#;
        let (lists, watches) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let service = tower::service_fn({
            let (lists, watches) = (Arc::clone(&lists), Arc::clone(&watches));
            move |request: http::Request<Body>| {
                let is_watch = request.uri().query().unwrap_or_default().contains("watch=");
                let before = if is_watch { &watches } else { &lists }.fetch_add(1, Ordering::Relaxed);
                async move {
                    let body = match (is_watch, before) {
                        (false, _) => {
                            let version = ["7", "42"].get(before).unwrap_or(&"43");
                            json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": version}, "items": []})
                                .to_string()
                        }
                        (true, 0) => EXPIRED.replace('\n', "") + "\n",
                        (true, _) => std::future::pending().await,
                    };
                    Ok::<_, std::convert::Infallible>(http::Response::new(Body::from(body.into_bytes())))
                }
            }
        });
        let api: Api<PartialObjectMeta<Service>> = Api::namespaced(Client::new(service, "default"), "ns");
        let wake = Arc::new(Notify::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(watch(
            api,
            watcher::Config::default(),
            Arc::clone(&wake),
            Wakes::Any,
        ));
        // Once for the first list, and once for the one after the refusal: something may have changed meanwhile.
        for _ in 0..2 {
            wake.notified().await;
        }
        while watches.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        assert_eq!(lists.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_status_asks_for_nothing() {
        let metadata = |version: &str, generation: i64, finalizers: &[&str]| -> ObjectMeta {
            serde_json::from_value(
                json!({"uid": "a", "resourceVersion": version, "generation": generation,
                "finalizers": finalizers}),
            )
            .unwrap()
        };
        let before = asked(&metadata("1", 1, &["f"]));
        assert!(before == asked(&metadata("2", 1, &["f"])));
        assert!(before != asked(&metadata("2", 2, &["f"])));
        assert!(before != asked(&metadata("2", 1, &[])));
        let mut ending = metadata("2", 1, &["f"]);
        ending.deletion_timestamp = serde_json::from_value(json!("2026-11-24T00:00:00Z")).unwrap();
        assert!(before != asked(&ending));
    }
}

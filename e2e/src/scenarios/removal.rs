//! Every way to be rid of us leaves nothing behind, and never a registration without a server.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use futures::TryStreamExt as _;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Api, ResourceExt as _};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::objects::{Object, our_label};
use super::stack::GONE_WITHIN;
use super::wait::eventually;
use crate::test::install_yaml::{NAMESPACE, RELEASE};

const REGISTRATION: &str = "APIService";
/// Time between two looks at what the cluster can do.
const DISCOVERY_PAUSE: Duration = Duration::from_millis(300);

/// The MetricsStack deleted in each of the three ways.
pub(super) async fn of_the_stack(context: &Context) -> Result<()> {
    for cascade in ["background", "foreground", "orphan"] {
        context.working_stack().await?;
        let removal = context.delete_stack(cascade);
        watched(context, removal)
            .await
            .with_context(|| format!("--cascade={cascade}"))?;
    }
    Ok(())
}

/// `helm uninstall` while there is a MetricsStack.
pub(super) async fn of_the_release(context: &Context) -> Result<()> {
    context.working_stack().await?;
    let removal = async {
        let args = [
            "uninstall",
            RELEASE,
            "--namespace",
            NAMESPACE,
            "--wait",
            "--timeout",
            "150s",
        ];
        context.helm(&args).await.map(drop)
    };
    watched(context, removal).await?;
    let selector = format!("app.kubernetes.io/instance={RELEASE}");
    let kinds =
        "deployments,services,serviceaccounts,clusterroles,clusterrolebindings,roles,rolebindings,jobs";
    let args = [
        "get",
        kinds,
        "--all-namespaces",
        "--selector",
        &selector,
        "--output=name",
    ];
    let left = context.kubectl(&args).await?;
    ensure!(left.is_empty(), "left of the release:\n{left}");
    context
        .kubectl(&["get", "crd", "metricsstacks.metricsstack.dev"])
        .await
        .context("the definition must stay")?;
    namespace_goes(context).await
}

/// `kubectl delete namespace` of the operator's namespace while there is a MetricsStack.
pub(super) async fn of_the_namespace(context: &Context) -> Result<()> {
    context.working_stack().await?;
    watched(context, namespace_goes(context)).await?;
    let stack = context
        .stack()
        .await
        .context("the MetricsStack is no part of the namespace")?;
    let finalizers = &stack.0["metadata"]["finalizers"];
    ensure!(
        finalizers.is_null(),
        "nobody is left to remove the finalizers {finalizers}"
    );
    context.remove_everything().await
}

async fn namespace_goes(context: &Context) -> Result<()> {
    context
        .kubectl(&["delete", "namespace", NAMESPACE, "--timeout=150s"])
        .await?;
    Ok(())
}

/// Runs a removal. Nothing of ours may be left, the registrations must have gone before everything else, and
/// discovery must have worked all the time.
async fn watched(context: &Context, removal: impl Future<Output = Result<()>>) -> Result<()> {
    let objects = context.our_objects().await?;
    let deletions = Deletions::watch(context, &objects).await?;
    let began = Instant::now();
    let stop = CancellationToken::new();
    let discovery = discovery_works(context, &stop);
    let removing = async {
        let _stop = stop.clone().drop_guard();
        removal.await?;
        context.nothing_left(GONE_WITHIN).await
    };
    let (looks, ()) = futures::future::try_join(discovery, removing).await?;
    deletions.in_order(&objects).await?;
    let seconds = began.elapsed().as_secs_f64();
    context.say(format_args!(
        "{} objects gone after {seconds:.1} s, {looks} looks at discovery",
        objects.len()
    ));
    Ok(())
}

/// `kubectl api-resources` succeeds until stopped. Gives how often.
async fn discovery_works(context: &Context, stop: &CancellationToken) -> Result<usize> {
    let mut looks = 0;
    while !stop.is_cancelled() {
        let listed = context.kubectl(&["api-resources", "--output=name"]).await;
        listed.with_context(|| format!("discovery, look {looks}"))?;
        looks += 1;
        tokio::time::sleep(DISCOVERY_PAUSE).await;
    }
    Ok(looks)
}

/// The revisions at which objects vanished. Revisions are counted over all kinds, so they tell the order.
struct Deletions {
    seen: Arc<Mutex<Vec<Deletion>>>,
    watches: Vec<AbortHandle>,
}

#[derive(Clone, Debug)]
struct Deletion {
    kind: String,
    name: String,
    revision: u64,
}

impl Deletions {
    async fn watch(context: &Context, objects: &[Object]) -> Result<Self> {
        let mut deletions = Self {
            seen: Arc::default(),
            watches: Vec::new(),
        };
        let types: BTreeSet<_> = objects
            .iter()
            .map(|object| {
                (
                    object.0["apiVersion"].as_str().unwrap_or_default().to_owned(),
                    object.kind().to_owned(),
                )
            })
            .collect();
        for (version, kind) in types {
            let (group, version) = version.split_once('/').unwrap_or(("", &version));
            let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &kind));
            let api = Api::<DynamicObject>::all_with(context.client.clone(), &resource);
            let selector = our_label();
            let listed = api
                .list_metadata(&ListParams::default().labels(&selector))
                .await?;
            let revision = listed
                .metadata
                .resource_version
                .context("a list without a revision")?;
            let watch = follow(api, kind, selector, revision, Arc::clone(&deletions.seen));
            deletions.watches.push(tokio::spawn(watch).abort_handle());
        }
        Ok(deletions)
    }

    fn seen(&self) -> Vec<Deletion> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for the news of all deletions and compares their order.
    async fn in_order(&self, objects: &[Object]) -> Result<()> {
        let seen = eventually("every deletion was seen", Duration::from_secs(10), async || {
            let seen = self.seen();
            let unseen: Vec<_> = objects
                .iter()
                .filter(|object| {
                    !seen
                        .iter()
                        .any(|d| d.kind == object.kind() && d.name == object.name())
                })
                .map(Object::to_string)
                .collect();
            ensure!(unseen.is_empty(), "unseen: {}", unseen.join(", "));
            Ok(seen)
        })
        .await?;
        let (registrations, others): (Vec<_>, Vec<_>) = seen.iter().partition(|d| d.kind == REGISTRATION);
        let last = registrations.iter().max_by_key(|deletion| deletion.revision);
        let last = last.ok_or_else(|| anyhow!("there was no {REGISTRATION}"))?;
        match others.iter().find(|deletion| deletion.revision < last.revision) {
            Some(early) => bail!("{early:?} was deleted before {last:?}"),
            None => Ok(()),
        }
    }
}

impl Drop for Deletions {
    fn drop(&mut self) {
        self.watches.iter().for_each(AbortHandle::abort);
    }
}

/// Follows one kind, over as many watches as that takes.
async fn follow(
    api: Api<DynamicObject>,
    kind: String,
    selector: String,
    mut revision: String,
    seen: Arc<Mutex<Vec<Deletion>>>,
) -> Result<()> {
    let params = WatchParams::default().labels(&selector).timeout(40);
    loop {
        let mut events = std::pin::pin!(api.watch_metadata(&params, &revision).await?);
        while let Some(event) = events.try_next().await? {
            let object = match &event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                    object
                }
                WatchEvent::Bookmark(bookmark) => {
                    revision.clone_from(&bookmark.metadata.resource_version);
                    continue;
                }
                WatchEvent::Error(error) => bail!("{error}"),
            };
            revision = object.resource_version().context("an event without a revision")?;
            if matches!(event, WatchEvent::Deleted(_)) {
                let deletion = Deletion {
                    kind: kind.clone(),
                    name: object.name_any(),
                    revision: revision.parse()?,
                };
                seen.lock().unwrap_or_else(PoisonError::into_inner).push(deletion);
            }
        }
    }
}

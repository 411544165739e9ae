//! What the API server says there is: nodes, running pods, and which trust records are of nobody any more.

use std::{collections::HashSet, pin::pin, sync::Arc, time::Duration};

use futures::{StreamExt as _, TryStream, TryStreamExt as _};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client,
    api::ListParams,
    core::PartialObjectMeta,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};

use crate::{
    index::{NodeIndex, PodIndex},
    kubelet::records::Records,
    scrape::fleet::{Ask, Fleet},
    time::MonotonicClock,
};

/// Whole Nodes are large (each lists the images on it), so a page of them is short.
const NODE_PAGE: u32 = 100;
/// Time after the start, and after a Node went, until records are pruned.
const PRUNE_SOON: Duration = Duration::from_mins(2);
/// Time between two turns when nothing is known to have gone: a Node may go while nobody watches.
const PRUNE_EVERY: Duration = Duration::from_hours(6);

/// Keeps the index and the fleet as the cluster's nodes are. `gone` hears of each that went.
pub async fn nodes<A: Ask>(
    client: Client,
    selector: Option<String>,
    index: Arc<NodeIndex>,
    fleet: Fleet<A>,
    gone: Arc<Notify>,
) {
    let config = watcher::Config {
        label_selector: selector,
        page_size: Some(NODE_PAGE),
        ..watcher::Config::default()
    };
    let stream = watcher(Api::<Node>::all(client), config);
    follow("nodes", stream, |event| match event {
        Event::Init => index.begin(),
        Event::InitApply(node) | Event::Apply(node) => {
            if let Some((info, change)) = index.apply(&node) {
                fleet.apply(&info, change);
            }
        }
        Event::InitDone => {
            for node in index.finish() {
                fleet.remove(&node.name);
                gone.notify_one();
            }
            fleet.listed();
        }
        Event::Delete(node) => {
            if let Some(name) = node.metadata.name.filter(|name| index.delete(name)) {
                fleet.remove(&name);
                gone.notify_one();
            }
        }
    })
    .await;
}

/// Keeps the index as the cluster's running pods are. Only metadata is asked for.
pub async fn pods(client: Client, index: Arc<PodIndex>, clock: MonotonicClock) {
    let config = watcher::Config::default().fields("status.phase=Running");
    let stream = watcher(Api::<PartialObjectMeta<Pod>>::all(client), config);
    follow("pods", stream, |event| match event {
        Event::Init => index.begin(),
        Event::InitApply(pod) | Event::Apply(pod) => index.apply(&pod.metadata, clock.now()),
        Event::InitDone => index.finish(),
        Event::Delete(pod) => index.delete(&pod.metadata),
    })
    .await;
}

/// Hands on what a watch delivers. It begins anew by itself when it breaks; that is told once, and once that it works
/// again.
async fn follow<K>(
    what: &str,
    stream: impl TryStream<Ok = Event<K>, Error = watcher::Error> + Send,
    mut take: impl FnMut(Event<K>),
) {
    let mut failing = false;
    let mut stream = pin!(stream.into_stream().default_backoff());
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => {
                // The start of a list comes before anything was asked.
                if failing && !matches!(event, Event::Init) {
                    failing = false;
                    tracing::info!("{what} are watched again");
                }
                take(event);
            }
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%error, "{what} cannot be watched, trying again");
            }
            Err(error) => tracing::debug!(%error, "{what} still cannot be watched"),
        }
    }
}

/// Removes the trust records of nodes that are gone, by a complete list of its own: what is scraped may be a
/// selection.
pub async fn prune_records(client: Client, records: Arc<Records>, gone: Arc<Notify>) {
    let nodes: Api<PartialObjectMeta<Node>> = Api::all(client);
    sleep(PRUNE_SOON).await;
    loop {
        let started = Instant::now();
        match records.prune(|| all_uids(&nodes)).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(removed, "removed the trust records of nodes that are gone"),
            Err(error) => {
                let error = anyhow::Error::new(error);
                tracing::warn!("trust records of nodes that are gone stay until the next turn: {error:#}");
            }
        }
        // Either way the next turn comes; a node that went only brings it forward.
        let _ = timeout(PRUNE_EVERY, gone.notified()).await;
        sleep(PRUNE_SOON.saturating_sub(started.elapsed())).await;
    }
}

/// The UIDs of all Nodes there are. An error anywhere in the list is one of the whole.
async fn all_uids(nodes: &Api<PartialObjectMeta<Node>>) -> Result<HashSet<String>, kube::Error> {
    let mut params = ListParams::default().limit(500);
    let mut uids = HashSet::new();
    loop {
        let page = nodes.list(&params).await?;
        uids.extend(page.items.into_iter().filter_map(|node| node.metadata.uid));
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Ok(uids),
        }
    }
}

//! The newest usage of every node and container, and the samples that the next ones are measured from. The scrape
//! side puts in one node's answer at a time, the moment it arrives; the answer side reads. Neither waits for a
//! kubelet.
//!
//! A node's entry owns its pods, ordered as in its answers, so that taking in an answer is one walk along both and
//! allocates nothing for what is known. Beside the entries stands one ordered set of all pods, which changes only when
//! pods come and go.

mod clock;
mod freshness;
pub mod series;
mod view;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{PoisonError, RwLock, RwLockWriteGuard},
};

use crate::{
    decode::{self, Batch},
    index::PodKey,
    names::{Name, Names},
    time::{Monotonic, UnixMillis},
};
pub use clock::Arrival;
use clock::NodeClock;
pub use freshness::{Ages, Freshness};
use series::{Clock, Reading, Rules, Series};
pub(crate) use view::{PodUsage, View};

/// Usages of all nodes and containers.
#[derive(Debug)]
pub struct Store {
    rules: Rules,
    names: Names,
    inner: RwLock<Inner>,
    freshness: Freshness,
}

/// A node's place in [`Inner::entries`].
type NodeId = u32;

#[derive(Debug, Default)]
struct Inner {
    ids: HashMap<Name, NodeId>,
    entries: Vec<Option<Entry>>,
    /// Places in `entries` that are empty.
    free: Vec<NodeId>,
    /// Every pod of every entry. A pod that two kubelets report (it was moved, and one of them does not know yet)
    /// is in here twice.
    pods: BTreeSet<(PodKey, NodeId)>,
}

/// What one kubelet reports.
#[derive(Debug, Default)]
struct Entry {
    node: Series,
    clock: NodeClock,
    /// Ordered by key.
    pods: Vec<Pod>,
}

/// A pod as one kubelet reports it.
#[derive(Debug)]
struct Pod {
    key: PodKey,
    /// Those that run, ordered by name. Never empty outside of [`Entry::merge`].
    containers: Vec<Container>,
}

#[derive(Debug)]
struct Container {
    name: Name,
    series: Series,
    /// When an answer first held it.
    since: Monotonic,
    /// When an answer last held it.
    seen: Monotonic,
}

/// For how long a container without a usage is one to come back for early: the longest that two samples take.
const NEW: u64 = 25_000;

/// How many usages there are to answer with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Points {
    /// Of nodes.
    pub nodes: usize,
    /// Of containers.
    pub containers: usize,
}

impl Store {
    /// An empty store. Its names are shared with whoever else has `names`.
    #[must_use]
    pub fn new(rules: Rules, names: Names) -> Self {
        Self {
            rules,
            names,
            inner: RwLock::default(),
            freshness: Freshness::default(),
        }
    }

    /// Counts how old the usages are that are answered.
    #[must_use]
    pub fn freshness(&self) -> &Freshness {
        &self.freshness
    }

    /// Takes in the answer of `node`'s kubelet. Returns whether there are containers that a second sample would soon
    /// make a usage of.
    pub fn put(&self, node: &str, batch: &Batch<'_>, arrival: impl Into<Arrival>) -> bool {
        let arrival = arrival.into();
        let mut inner = self.write();
        let id = match inner.ids.get(node) {
            Some(id) => *id,
            None => inner.add(self.names.intern(node)),
        };
        let Inner { entries, pods, .. } = &mut *inner;
        let Some(entry) = entries.get_mut(id as usize).and_then(Option::as_mut) else {
            return false;
        };
        if entry.clock.observe(&arrival, batch.untimed) {
            entry.forget_baselines();
        }
        let taking = Taking {
            complete: batch.complete,
            at: arrival.at,
            clock: entry.clock.of(&arrival, batch.untimed),
            rules: self.rules,
            names: &self.names,
        };
        if let Some(reading) = Reading::of(batch.node) {
            entry
                .node
                .observe(&reading, taking.at, taking.clock, taking.rules);
        }
        entry.merge(batch, &taking, &mut |change| match change {
            Change::Came(key) => drop(pods.insert((key.clone(), id))),
            Change::Went(key) => drop(pods.remove(&(key.clone(), id))),
        });
        entry
            .containers()
            .any(|container| container.series.usage().is_none() && arrival.at.since(container.since) < NEW)
    }

    /// Forgets a node and what its kubelet reported. The caller no longer puts in answers of it.
    pub fn remove(&self, node: &str) {
        let mut inner = self.write();
        let Some(id) = inner.ids.remove(node) else { return };
        let Some(entry) = inner.entries.get_mut(id as usize).and_then(Option::take) else {
            return;
        };
        inner.free.push(id);
        for pod in entry.pods {
            inner.pods.remove(&(pod.key, id));
        }
    }

    /// Whether there is something to answer with: the usage of at least one node and one container.
    #[must_use]
    pub fn is_ready(&self, now: Monotonic) -> bool {
        let view = self.read();
        let mut entries = view.inner.entries.iter().flatten();
        let fresh = |series: &Series| view.fresh(series, now).is_some();
        entries.clone().any(|entry| fresh(&entry.node))
            && entries.any(|entry| entry.containers().any(|c| fresh(&c.series)))
    }

    /// How many usages there are to answer with.
    #[must_use]
    pub fn points(&self, now: Monotonic) -> Points {
        let view = self.read();
        let fresh = |series: &Series| usize::from(view.fresh(series, now).is_some());
        let mut points = Points::default();
        for entry in view.inner.entries.iter().flatten() {
            points.nodes += fresh(&entry.node);
            points.containers += entry.containers().map(|c| fresh(&c.series)).sum::<usize>();
        }
        points
    }

    /// Holds the store for as long as the answer is made.
    pub(crate) fn read(&self) -> View<'_> {
        View::new(
            self.rules,
            self.inner.read().unwrap_or_else(PoisonError::into_inner),
        )
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Makes an empty entry for a node that has none.
    fn add(&mut self, node: Name) -> NodeId {
        let id = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            NodeId::try_from(self.entries.len() - 1).unwrap_or(NodeId::MAX)
        });
        if let Some(slot) = self.entries.get_mut(id as usize) {
            *slot = Some(Entry::default());
        }
        self.ids.insert(node, id);
        id
    }
}

/// A pod came into an entry or left it.
enum Change<'a> {
    Came(&'a PodKey),
    Went(&'a PodKey),
}

impl Entry {
    fn containers(&self) -> impl Iterator<Item = &Container> {
        self.pods.iter().flat_map(|pod| &pod.containers)
    }

    /// The node's clock was set.
    fn forget_baselines(&mut self) {
        self.node.forget_baseline();
        let containers = self.pods.iter_mut().flat_map(|pod| &mut pod.containers);
        containers.for_each(|container| container.series.forget_baseline());
    }

    /// Takes in what an answer says of pods. Both sides are ordered by the same key.
    fn merge(&mut self, batch: &Batch<'_>, taking: &Taking<'_>, changed: &mut dyn FnMut(Change<'_>)) {
        let mut gone = false;
        let mut came = Vec::new();
        let mut known = self.pods.iter_mut().peekable();
        for group in batch.containers.chunk_by(|a, b| a.pod_key() == b.pod_key()) {
            let Some(key) = group.first().map(decode::Container::pod_key) else {
                continue;
            };
            while let Some(pod) = known.next_if(|pod| pod.key.as_strs() < key) {
                taking.drop_from(&mut pod.containers);
                gone |= pod.containers.is_empty();
            }
            if let Some(pod) = known.next_if(|pod| pod.key.as_strs() == key) {
                pod.merge(group, taking);
            } else {
                let key = PodKey {
                    namespace: taking.names.intern(key.0),
                    name: taking.names.intern(key.1),
                };
                changed(Change::Came(&key));
                let mut pod = Pod {
                    key,
                    containers: Vec::with_capacity(group.len()),
                };
                pod.merge(group, taking);
                came.push(pod);
            }
        }
        for pod in known {
            taking.drop_from(&mut pod.containers);
            gone |= pod.containers.is_empty();
        }
        if gone {
            self.pods.retain(|pod| {
                let stays = !pod.containers.is_empty();
                if !stays {
                    changed(Change::Went(&pod.key));
                }
                stays
            });
        }
        if !came.is_empty() {
            self.pods.extend(came);
            self.pods.sort_by(|a, b| a.key.cmp(&b.key));
        }
    }
}

impl Pod {
    /// Takes in the containers that an answer names, which are at least one.
    fn merge(&mut self, group: &[decode::Container<'_>], taking: &Taking<'_>) {
        for told in group {
            let at = match self
                .containers
                .binary_search_by(|known| (*known.name).cmp(&told.name))
            {
                Ok(at) => at,
                Err(at) => {
                    let name = taking.names.intern(&told.name);
                    self.containers.insert(
                        at,
                        Container {
                            name,
                            series: Series::default(),
                            since: taking.at,
                            seen: taking.at,
                        },
                    );
                    at
                }
            };
            let Some(container) = self.containers.get_mut(at) else {
                continue;
            };
            container.seen = taking.at;
            if let Some(reading) = Reading::of(told.parts) {
                let Taking { at, clock, rules, .. } = *taking;
                container.series.observe(&reading, at, clock, rules);
            }
        }
        taking.drop_from(&mut self.containers);
    }

    /// When its newest container started.
    fn start(&self) -> Option<UnixMillis> {
        self.containers
            .iter()
            .filter_map(|container| container.series.start())
            .max()
    }
}

/// How one answer is taken in.
struct Taking<'a> {
    /// It names all containers that run.
    complete: bool,
    /// When it arrived.
    at: Monotonic,
    /// How its samples compare with those before.
    clock: Clock,
    rules: Rules,
    names: &'a Names,
}

impl Taking<'_> {
    /// What becomes of containers that the answer does not name. A complete answer says that they run no longer. After an incomplete one they stay for as long as a usage does.
    fn drop_from(&self, containers: &mut Vec<Container>) {
        let keep = if self.complete { 0 } else { self.rules.keep() };
        containers.retain(|container| self.at.since(container.seen) <= keep);
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod truth;

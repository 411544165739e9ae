//! The answer side of the store.

use std::{ops::Bound, sync::RwLockReadGuard};

use super::{
    Container, Entry, Inner, NodeId, Pod,
    series::{Rules, Series, Usage},
};
use crate::{
    index::PodKey,
    time::{Monotonic, UnixMillis},
};

/// The store, held for reading.
pub(crate) struct View<'a> {
    rules: Rules,
    pub(super) inner: RwLockReadGuard<'a, Inner>,
}

impl<'g> View<'g> {
    pub(super) fn new(rules: Rules, inner: RwLockReadGuard<'g, Inner>) -> Self {
        Self { rules, inner }
    }

    /// The usage of a node.
    pub(crate) fn node(&self, name: &str, now: Monotonic) -> Option<&Usage> {
        let id = self.inner.ids.get(name)?;
        self.fresh(&self.entry(*id)?.node, now)
    }

    /// The usage of a pod that there is since `since`.
    pub(crate) fn pod(&self, key: &PodKey, since: Monotonic, now: Monotonic) -> Option<PodUsage<'_>> {
        let all = (key.clone(), NodeId::MIN)..=(key.clone(), NodeId::MAX);
        let ids = self.inner.pods.range(all).map(|(_, id)| *id);
        self.newest(key, ids, since, now)
    }

    /// The keys of all pods from `start` on, in order, with the nodes that report them.
    pub(crate) fn pods_from(&self, start: Bound<PodKey>) -> impl Iterator<Item = (&PodKey, NodeId)> {
        let start = match start {
            Bound::Included(key) => Bound::Included((key, NodeId::MIN)),
            Bound::Excluded(key) => Bound::Excluded((key, NodeId::MAX)),
            Bound::Unbounded => Bound::Unbounded,
        };
        self.inner
            .pods
            .range((start, Bound::Unbounded))
            .map(|(key, id)| (key, *id))
    }

    /// The usage of a pod that these nodes report. Of several it is the one that started last.
    pub(crate) fn newest(
        &self,
        key: &PodKey,
        ids: impl Iterator<Item = NodeId>,
        since: Monotonic,
        now: Monotonic,
    ) -> Option<PodUsage<'_>> {
        let reports = ids.filter_map(|id| {
            let pods = &self.entry(id)?.pods;
            let pod = pods.get(pods.binary_search_by(|pod| pod.key.cmp(key)).ok()?)?;
            Some((pod.start(), self.whole(pod, since, now)?))
        });
        reports
            .max_by_key(|(start, usage)| (*start, usage.time))
            .map(|(_, usage)| usage)
    }

    /// The pod's usage if each of its containers has one. A part of it would be taken for less than is used.
    fn whole<'a>(&self, pod: &'a Pod, since: Monotonic, now: Monotonic) -> Option<PodUsage<'a>> {
        let mut earliest: Option<&Usage> = None;
        for container in &pod.containers {
            let usage = self
                .fresh(&container.series, now)
                .filter(|usage| usage.received >= since)?;
            if earliest.is_none_or(|earliest| usage.time < earliest.time) {
                earliest = Some(usage);
            }
        }
        earliest.map(|usage| PodUsage {
            time: usage.time,
            window: usage.window,
            containers: &pod.containers,
        })
    }

    pub(super) fn fresh<'s>(&self, series: &'s Series, now: Monotonic) -> Option<&'s Usage> {
        series.usage().filter(|usage| usage.is_fresh(now, self.rules))
    }

    fn entry(&self, id: NodeId) -> Option<&Entry> {
        self.inner.entries.get(id as usize)?.as_ref()
    }
}

/// The usage of a whole pod. Its time and window are those of the container whose sample is the oldest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PodUsage<'a> {
    pub(crate) time: UnixMillis,
    pub(crate) window: u64,
    containers: &'a [Container],
}

impl<'a> PodUsage<'a> {
    /// Each container's name and usage, ordered by name.
    pub(crate) fn containers(&self) -> impl Iterator<Item = (&'a str, &'a Usage)> + use<'a> {
        self.containers
            .iter()
            .filter_map(|container| Some((&*container.name, container.series.usage()?)))
    }
}

//! The running pods.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    ops::Bound,
    sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::{LabelSets, Labels, PodKey};
use crate::{names::Names, time::Monotonic};

/// What is kept of a pod.
#[derive(Clone, Debug)]
pub struct PodInfo {
    /// Its labels.
    pub labels: Labels,
    /// Hash of its UID: all that is asked of a UID is whether it changed.
    uid: u64,
    created: Option<i64>,
    /// When this pod was first seen; the beginning for those that the first full list held.
    since: Monotonic,
    /// The full list that held it last.
    list: u32,
}

impl PodInfo {
    /// When it was created.
    #[must_use]
    pub fn created(&self) -> Option<Timestamp> {
        Timestamp::from_second(self.created?).ok()
    }

    /// Usages that were renewed before this are those of an earlier pod of the same name.
    #[must_use]
    pub fn since(&self) -> Monotonic {
        self.since
    }
}

/// The running pods, ordered by namespace and name.
///
/// A watch delivers a full list page by page: [`begin`](Self::begin), [`apply`](Self::apply) for each pod,
/// [`finish`](Self::finish). What the index holds stays answered meanwhile, and no second copy is built.
#[derive(Debug)]
pub struct PodIndex {
    names: Names,
    labels: LabelSets,
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    pods: BTreeMap<PodKey, PodInfo>,
    /// Number of the full list that is being received or was received last.
    list: u32,
    synced: bool,
}

impl PodIndex {
    /// An empty index. Its names are shared with whoever else has `names`.
    #[must_use]
    pub fn new(names: Names) -> Self {
        Self {
            labels: LabelSets::new(names.clone()),
            names,
            inner: RwLock::default(),
        }
    }

    /// A full list begins.
    pub fn begin(&self) {
        let mut inner = self.write();
        inner.list = inner.list.wrapping_add(1);
    }

    /// A pod is in a full list, or was created or changed.
    pub fn apply(&self, pod: &ObjectMeta, at: Monotonic) {
        let Some(key) = self.key(pod) else { return };
        let labels = self.labels.intern(pod.labels.as_ref());
        let uid = hash(pod.uid.as_deref().unwrap_or_default());
        let created = pod.creation_timestamp.as_ref().map(|time| time.0.as_second());
        let mut inner = self.write();
        let (list, since) = (inner.list, if inner.synced { at } else { Monotonic::default() });
        let info = PodInfo {
            labels,
            uid,
            created,
            since,
            list,
        };
        inner
            .pods
            .entry(key)
            .and_modify(|known| {
                let since = if known.uid == uid { known.since } else { since };
                *known = PodInfo {
                    since,
                    ..info.clone()
                };
            })
            .or_insert(info);
    }

    /// A pod was deleted, or runs no longer.
    pub fn delete(&self, pod: &ObjectMeta) {
        if let Some(key) = self.key(pod) {
            self.write().pods.remove(&key);
        }
    }

    /// A full list ended: pods that it did not hold are gone.
    pub fn finish(&self) {
        let mut inner = self.write();
        let list = inner.list;
        inner.pods.retain(|_, pod| pod.list == list);
        inner.synced = true;
    }

    /// Whether a full list was received since the start.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.read().inner.synced
    }

    /// How many pods there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.read().inner.pods.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Holds the index for as long as the answer is made.
    pub(crate) fn read(&self) -> View<'_> {
        View {
            inner: self.inner.read().unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn key(&self, pod: &ObjectMeta) -> Option<PodKey> {
        Some(PodKey {
            namespace: self.names.intern(pod.namespace.as_deref()?),
            name: self.names.intern(pod.name.as_deref()?),
        })
    }
}

/// The index, held for reading.
pub(crate) struct View<'a> {
    inner: RwLockReadGuard<'a, Inner>,
}

impl View<'_> {
    /// One pod.
    pub(crate) fn get(&self, key: &PodKey) -> Option<&PodInfo> {
        self.inner.pods.get(key)
    }

    /// The pods from `start` on.
    pub(crate) fn from(&self, start: Bound<PodKey>) -> impl Iterator<Item = (&PodKey, &PodInfo)> {
        self.inner.pods.range((start, Bound::Unbounded))
    }
}

fn hash(uid: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    hasher.finish()
}

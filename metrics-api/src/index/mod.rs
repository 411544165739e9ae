//! Which nodes and pods there are, as the API server last said: what is answered for, with its labels. Fed event by
//! event from a watch; of each object only what an answer or a scrape needs is kept.

mod nodes;
mod pods;

use std::{collections::BTreeMap, sync::Arc};

pub use nodes::{METRICS_PATH_ANNOTATION, MetricsPath, NodeChange, NodeIndex, NodeInfo};
pub use pods::{PodIndex, PodInfo};

use crate::names::{Interner, Name, Names};

/// Where a pod is. Ordered as the API orders pods: by namespace, then name, both as bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    /// Its namespace.
    pub namespace: Name,
    /// Its name.
    pub name: Name,
}

impl PodKey {
    /// The key of that pod, with names of its own: for look-ups.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }

    /// The same as borrowed texts.
    #[must_use]
    pub fn as_strs(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }
}

/// The labels of an object, ordered by key. Pods of one controller share them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels(Arc<[(Name, Name)]>);

impl Labels {
    /// The value of one label.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self.0.binary_search_by(|(other, _)| (**other).cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| &**value)
    }

    /// All labels, ordered by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

/// Makes [`Labels`] that share what is equal.
#[derive(Clone, Debug, Default)]
struct LabelSets {
    names: Names,
    sets: Interner<[(Name, Name)]>,
}

impl LabelSets {
    fn new(names: Names) -> Self {
        Self {
            names,
            sets: Interner::default(),
        }
    }

    fn intern(&self, labels: Option<&BTreeMap<String, String>>) -> Labels {
        let pairs: Vec<_> = labels
            .into_iter()
            .flatten()
            .map(|(key, value)| (self.names.intern(key), self.names.intern(value)))
            .collect();
        Labels(self.sets.intern(&pairs))
    }
}

#[cfg(test)]
mod tests;

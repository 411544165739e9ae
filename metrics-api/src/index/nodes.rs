//! The nodes.

use std::{
    collections::BTreeMap,
    ops::Bound,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use http::uri::PathAndQuery;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

use super::{LabelSets, Labels};
use crate::names::{Name, Names};

/// Annotation by which a virtual node says where its metrics are.
pub const METRICS_PATH_ANNOTATION: &str = "metrics.k8s.io/resource-metrics-path";
/// Longest path that is taken from it.
const LONGEST_PATH: usize = 1024;

/// Where the metrics of a node are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum MetricsPath {
    /// Where kubelets have them.
    #[default]
    Usual,
    /// Where the Node says.
    At(Box<str>),
    /// The Node says something that is no path.
    Invalid,
}

impl MetricsPath {
    /// Reads the annotation. Whoever may write a Node may write this: it must not lead to another host, as
    /// `http://host/`, `//host/` and `*` might, nor say more than a path.
    fn of(annotation: Option<&str>) -> Self {
        let Some(path) = annotation.filter(|path| !path.is_empty()) else {
            return Self::Usual;
        };
        let is_path = path.len() <= LONGEST_PATH
            && path.starts_with('/')
            && !path.starts_with("//")
            && path
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#' | b'\\'))
            && path
                .parse::<PathAndQuery>()
                .is_ok_and(|parsed| parsed.path() == path);
        if is_path {
            Self::At(path.into())
        } else {
            Self::Invalid
        }
    }
}

/// What is kept of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name.
    pub name: Name,
    /// Its UID, which trust is recorded by.
    pub uid: String,
    /// Its labels.
    pub labels: Labels,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Its addresses as type (`InternalIP`, `Hostname`, ...) and address, in the Node's order.
    pub addresses: Vec<(Name, String)>,
    /// Port of its kubelet, if the Node tells.
    pub kubelet_port: Option<u16>,
    /// Where its metrics are.
    pub metrics_path: MetricsPath,
    /// Whether its condition `Ready` is `True`.
    pub ready: bool,
}

/// What an event made of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeChange {
    /// There was none of that name.
    Added,
    /// What is kept of it changed.
    Changed,
    /// Another node of the same name: its UID changed.
    Replaced,
    /// Nothing that is kept of it changed (a kubelet renews its Node's status all the time).
    Unchanged,
}

/// The nodes, ordered by name.
///
/// A watch delivers a full list page by page: [`begin`](Self::begin), [`apply`](Self::apply) for each node,
/// [`finish`](Self::finish).
#[derive(Debug)]
pub struct NodeIndex {
    names: Names,
    labels: LabelSets,
    inner: RwLock<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    nodes: BTreeMap<Name, Entry>,
    list: u32,
    synced: bool,
}

#[derive(Debug)]
struct Entry {
    node: Arc<NodeInfo>,
    list: u32,
}

impl NodeIndex {
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

    /// A node is in a full list, or was created or changed. Nothing for an object without a name, which no API
    /// server sends.
    pub fn apply(&self, node: &Node) -> Option<(Arc<NodeInfo>, NodeChange)> {
        let info = self.info(node)?;
        let mut inner = self.write();
        let list = inner.list;
        let change = match inner.nodes.get_mut(&info.name) {
            Some(known) if *known.node == info => {
                known.list = list;
                return Some((Arc::clone(&known.node), NodeChange::Unchanged));
            }
            Some(known) if known.node.uid == info.uid => NodeChange::Changed,
            Some(_) => NodeChange::Replaced,
            None => NodeChange::Added,
        };
        let node = Arc::new(info);
        inner.nodes.insert(
            Arc::clone(&node.name),
            Entry {
                node: Arc::clone(&node),
                list,
            },
        );
        Some((node, change))
    }

    /// A node was deleted. Tells whether it was known.
    pub fn delete(&self, name: &str) -> bool {
        self.write().nodes.remove(name).is_some()
    }

    /// A full list ended: returns the nodes that it did not hold, which are gone.
    pub fn finish(&self) -> Vec<Arc<NodeInfo>> {
        let mut inner = self.write();
        let list = inner.list;
        let gone = inner
            .nodes
            .extract_if(.., |_, entry| entry.list != list)
            .map(|(_, entry)| entry.node)
            .collect();
        inner.synced = true;
        gone
    }

    /// Whether a full list was received since the start.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.read().inner.synced
    }

    /// One node.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<NodeInfo>> {
        self.read().get(name).map(Arc::clone)
    }

    /// All nodes as they are now, ordered by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<NodeInfo>> {
        self.read().after(None).map(Arc::clone).collect()
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

    fn info(&self, node: &Node) -> Option<NodeInfo> {
        let (meta, status) = (&node.metadata, node.status.as_ref());
        let conditions = status
            .and_then(|status| status.conditions.as_deref())
            .unwrap_or_default();
        Some(NodeInfo {
            name: self.names.intern(meta.name.as_deref()?),
            uid: meta.uid.clone().unwrap_or_default(),
            labels: self.labels.intern(meta.labels.as_ref()),
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
            addresses: status
                .and_then(|status| status.addresses.as_deref())
                .unwrap_or_default()
                .iter()
                .map(|address| (self.names.intern(&address.type_), address.address.clone()))
                .collect(),
            kubelet_port: status
                .and_then(|status| status.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref())
                .and_then(|endpoint| u16::try_from(endpoint.port).ok())
                .filter(|port| *port != 0),
            metrics_path: MetricsPath::of(
                meta.annotations
                    .as_ref()
                    .and_then(|annotations| annotations.get(METRICS_PATH_ANNOTATION))
                    .map(String::as_str),
            ),
            ready: conditions
                .iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True"),
        })
    }
}

/// The index, held for reading.
pub(crate) struct View<'a> {
    inner: RwLockReadGuard<'a, Inner>,
}

impl View<'_> {
    /// One node.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<NodeInfo>> {
        self.inner.nodes.get(name).map(|entry| &entry.node)
    }

    /// The nodes whose names are greater than `name`, ordered by name.
    pub(crate) fn after(&self, name: Option<&str>) -> impl Iterator<Item = &Arc<NodeInfo>> {
        let start = name.map_or(Bound::Unbounded, Bound::Excluded);
        self.inner
            .nodes
            .range::<str, _>((start, Bound::Unbounded))
            .map(|(_, entry)| &entry.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_is_a_path_and_nothing_else() {
        let long = format!("/{}", "a".repeat(LONGEST_PATH));
        for (text, expected) in [
            ("", MetricsPath::Usual),
            ("/", MetricsPath::At("/".into())),
            ("/a/b%20c", MetricsPath::At("/a/b%20c".into())),
            ("metrics", MetricsPath::Invalid),
            ("*", MetricsPath::Invalid),
            ("http://169.254.169.254/", MetricsPath::Invalid),
            ("169.254.169.254:80", MetricsPath::Invalid),
            ("//169.254.169.254/", MetricsPath::Invalid),
            ("/a?b", MetricsPath::Invalid),
            ("/a#b", MetricsPath::Invalid),
            ("/a b", MetricsPath::Invalid),
            ("/a\r\nhost: b", MetricsPath::Invalid),
            ("/\u{e9}", MetricsPath::Invalid),
            (&long, MetricsPath::Invalid),
        ] {
            assert_eq!(MetricsPath::of(Some(text)), expected, "{text}");
        }
        assert_eq!(MetricsPath::of(None), MetricsPath::Usual);
    }
}

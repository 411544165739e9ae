//! `pods.metrics.k8s.io`.

use std::{
    ops::{Bound, ControlFlow},
    sync::Arc,
};

use extension_apiserver::{
    Item, Key, ListScope, Resource, ResourceInfo, Status,
    json::{JsonArray, JsonObject},
    protobuf::Message,
};
use jiff::Timestamp;
use serde_json::json;

use super::{
    COLUMNS, MODELS, schema, usage_schema, write_cells, write_protobuf_time_and_window, write_protobuf_usage,
    write_time_and_window, write_usage,
};
use crate::{
    index::{PodIndex, PodInfo, PodKey},
    store::{Freshness, PodUsage, Store},
    time::MonotonicClock,
};

/// `PodMetrics`: each running pod of the index whose containers all have a usage.
#[derive(Debug)]
pub struct PodMetrics {
    info: ResourceInfo,
    store: Arc<Store>,
    pods: Arc<PodIndex>,
    clock: MonotonicClock,
}

impl PodMetrics {
    /// The resource over that store and index.
    #[must_use]
    pub fn new(store: Arc<Store>, pods: Arc<PodIndex>, clock: MonotonicClock) -> Self {
        let containers = json!({
            "type": "array",
            "description": "The pod's running containers, ordered by name.",
            "items": {"$ref": "ContainerMetrics"},
        });
        let container = json!({
            "type": "object",
            "description": "Resource usage of a container.",
            "required": ["name", "usage"],
            "properties": {
                "name": {"type": "string", "description": "Name of the container, as in the Pod's spec."},
                "usage": usage_schema("container"),
            },
        });
        let info = ResourceInfo::namespaced("pods", "PodMetrics")
            .columns(COLUMNS)
            .protobuf()
            .model_package(MODELS)
            .schema(schema("Resource usage of a pod.", ("containers", containers)))
            .model("ContainerMetrics", container);
        Self {
            info,
            store,
            pods,
            clock,
        }
    }
}

impl Resource for PodMetrics {
    fn info(&self) -> &ResourceInfo {
        &self.info
    }

    fn get(&self, key: Key<'_>, visit: &mut dyn FnMut(&dyn Item)) -> Result<(), Status> {
        let Key { namespace, name } = key;
        let namespace = namespace.unwrap_or_default();
        let key = PodKey::new(namespace, name);
        let pods = self.pods.read();
        // The two refusals are metrics-server's: of the Pod, and of its metrics.
        let pod = pods
            .get(&key)
            .ok_or_else(|| Status::not_found("", "pods", name))?;
        let store = self.store.read();
        let usage = store.pod(&key, pod.since(), self.clock.now()).ok_or_else(|| {
            Status::not_found(
                contract::names::METRICS_GROUP,
                "podmetrics",
                &format!("{namespace}/{name}"),
            )
        })?;
        visit(&PodItem {
            key: &key,
            pod,
            usage,
            freshness: self.store.freshness(),
        });
        Ok(())
    }

    fn list(
        &self,
        scope: ListScope<'_>,
        visit: &mut dyn FnMut(&dyn Item) -> ControlFlow<()>,
    ) -> Result<(), Status> {
        let start = start(scope);
        let pods = self.pods.read();
        let store = self.store.read();
        let now = self.clock.now();
        // Both sides have the same order: one walk along both.
        let mut reports = store.pods_from(start.clone()).peekable();
        for (key, pod) in pods.from(start) {
            if scope
                .namespace
                .is_some_and(|namespace| *key.namespace != *namespace)
            {
                break;
            }
            while reports.next_if(|(reported, _)| *reported < key).is_some() {}
            let ids = std::iter::from_fn(|| {
                reports
                    .next_if(|(reported, _)| *reported == key)
                    .map(|(_, id)| id)
            });
            let Some(usage) = store.newest(key, ids, pod.since(), now) else {
                continue;
            };
            if visit(&PodItem {
                key,
                pod,
                usage,
                freshness: self.store.freshness(),
            })
            .is_break()
            {
                break;
            }
        }
        Ok(())
    }
}

/// Where a list begins: after the key it goes on from, but not before its namespace.
fn start(scope: ListScope<'_>) -> Bound<PodKey> {
    let after = scope
        .after
        .map(|key| PodKey::new(key.namespace.unwrap_or_default(), key.name));
    let namespace = scope.namespace.map(|namespace| PodKey::new(namespace, ""));
    match (after, namespace) {
        (Some(after), Some(namespace)) if after < namespace => Bound::Included(namespace),
        (Some(after), _) => Bound::Excluded(after),
        (None, Some(namespace)) => Bound::Included(namespace),
        (None, None) => Bound::Unbounded,
    }
}

struct PodItem<'a> {
    key: &'a PodKey,
    pod: &'a PodInfo,
    usage: PodUsage<'a>,
    freshness: &'a Freshness,
}

impl Item for PodItem<'_> {
    fn name(&self) -> &str {
        &self.key.name
    }

    fn namespace(&self) -> Option<&str> {
        Some(&self.key.namespace)
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.pod.labels.get(key)
    }

    fn visit_labels(&self, visit: &mut dyn FnMut(&str, &str)) {
        self.pod.labels.iter().for_each(|(key, value)| visit(key, value));
    }

    fn creation_timestamp(&self) -> Option<Timestamp> {
        self.pod.created()
    }

    fn write_fields(&self, object: &mut JsonObject<'_>) {
        self.freshness.observe(self.usage.time);
        write_time_and_window(object, self.usage.time, self.usage.window);
        object.array("containers", |containers| {
            for (name, usage) in self.usage.containers() {
                containers.object(|container| {
                    container.string("name", name);
                    write_usage(container, usage);
                });
            }
        });
    }

    fn write_protobuf(&self, message: &mut Message<'_>) {
        self.freshness.observe(self.usage.time);
        write_protobuf_time_and_window(message, self.usage.time, self.usage.window);
        for (name, usage) in self.usage.containers() {
            message.message(4, |container| {
                container.string(1, name);
                write_protobuf_usage(container, 2, usage);
            });
        }
    }

    fn write_cells(&self, cells: &mut JsonArray<'_>) {
        self.freshness.observe(self.usage.time);
        let sum = self
            .usage
            .containers()
            .fold((0_u64, 0_u64), |(cpu, memory), (_, usage)| {
                (cpu.saturating_add(usage.cpu), memory.saturating_add(usage.memory))
            });
        write_cells(cells, self.name(), sum, self.usage.window);
    }
}

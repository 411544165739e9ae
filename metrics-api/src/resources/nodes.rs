//! `nodes.metrics.k8s.io`.

use std::{ops::ControlFlow, sync::Arc};

use extension_apiserver::{
    Item, Key, ListScope, Resource, ResourceInfo, Status,
    json::{JsonArray, JsonObject},
    protobuf::Message,
};
use jiff::Timestamp;

use super::{
    COLUMNS, MODELS, schema, usage_schema, write_cells, write_protobuf_time_and_window, write_protobuf_usage,
    write_time_and_window, write_usage,
};
use crate::{
    index::{NodeIndex, NodeInfo},
    store::{Freshness, Store, series::Usage},
    time::MonotonicClock,
};

/// `NodeMetrics`: each node of the index that has a usage.
#[derive(Debug)]
pub struct NodeMetrics {
    info: ResourceInfo,
    store: Arc<Store>,
    nodes: Arc<NodeIndex>,
    clock: MonotonicClock,
}

impl NodeMetrics {
    /// The resource over that store and index.
    #[must_use]
    pub fn new(store: Arc<Store>, nodes: Arc<NodeIndex>, clock: MonotonicClock) -> Self {
        let info = ResourceInfo::cluster_scoped("nodes", "NodeMetrics")
            .columns(COLUMNS)
            .protobuf()
            .model_package(MODELS)
            .schema(schema(
                "Resource usage of a node.",
                ("usage", usage_schema("node")),
            ));
        Self {
            info,
            store,
            nodes,
            clock,
        }
    }
}

impl Resource for NodeMetrics {
    fn info(&self) -> &ResourceInfo {
        &self.info
    }

    fn get(&self, key: Key<'_>, visit: &mut dyn FnMut(&dyn Item)) -> Result<(), Status> {
        // The two refusals are metrics-server's: of the Node, and of its metrics.
        let nodes = self.nodes.read();
        let node = nodes
            .get(key.name)
            .ok_or_else(|| Status::not_found("", "node", key.name))?;
        let store = self.store.read();
        let usage = store
            .node(&node.name, self.clock.now())
            .ok_or_else(|| Status::not_found(contract::names::METRICS_GROUP, "nodemetrics", key.name))?;
        visit(&NodeItem {
            node,
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
        let nodes = self.nodes.read();
        let store = self.store.read();
        let now = self.clock.now();
        for node in nodes.after(scope.after.map(|key| key.name)) {
            let Some(usage) = store.node(&node.name, now) else {
                continue;
            };
            if visit(&NodeItem {
                node,
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

struct NodeItem<'a> {
    node: &'a NodeInfo,
    usage: &'a Usage,
    freshness: &'a Freshness,
}

impl Item for NodeItem<'_> {
    fn name(&self) -> &str {
        &self.node.name
    }

    fn namespace(&self) -> Option<&str> {
        None
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.node.labels.get(key)
    }

    fn visit_labels(&self, visit: &mut dyn FnMut(&str, &str)) {
        self.node.labels.iter().for_each(|(key, value)| visit(key, value));
    }

    fn creation_timestamp(&self) -> Option<Timestamp> {
        self.node.created
    }

    fn write_fields(&self, object: &mut JsonObject<'_>) {
        self.freshness.observe(self.usage.time);
        write_time_and_window(object, self.usage.time, self.usage.window);
        write_usage(object, self.usage);
    }

    fn write_protobuf(&self, message: &mut Message<'_>) {
        self.freshness.observe(self.usage.time);
        write_protobuf_time_and_window(message, self.usage.time, self.usage.window);
        write_protobuf_usage(message, 4, self.usage);
    }

    fn write_cells(&self, cells: &mut JsonArray<'_>) {
        self.freshness.observe(self.usage.time);
        write_cells(
            cells,
            self.name(),
            (self.usage.cpu, self.usage.memory),
            self.usage.window,
        );
    }
}

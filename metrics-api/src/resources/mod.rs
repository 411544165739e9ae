//! The two resources of `metrics.k8s.io`.
//!
//! A timestamp is printed to the millisecond, as kubelets give it, while metrics-server cuts it to whole seconds: only so can
//! an observer find the two samples behind a usage, at `timestamp` and `timestamp - window`. RFC 3339 allows a
//! fraction, and Go's `time.Parse`, by which kubectl and the controller of autoscalers read
//! `metav1.Time`, accepts one. Protobuf has the whole seconds only, as from Go.

mod nodes;
mod pods;

pub use nodes::NodeMetrics;
pub use pods::PodMetrics;

use extension_apiserver::{
    Column,
    json::{JsonArray, JsonObject},
    protobuf::Message,
};
use serde_json::json;

use crate::{
    quantity::{Cpu, Memory},
    store::series::Usage,
    time::{GoDuration, UnixMillis},
};

/// The printed table, the same for both.
const COLUMNS: [Column; 4] = [
    Column::NAME,
    Column::string("cpu", "quantity"),
    Column::string("memory", "quantity"),
    Column::string("Window", "duration"),
];

/// The Go package of the types, which schemas are named after: clients are generated with the names they have there.
const MODELS: &str = "io.k8s.metrics.pkg.apis.metrics";

/// The schema of what both resources have, and of `more` beside it. The descriptions are those of the types in
/// k8s.io/metrics.
fn schema(description: &str, more: (&str, serde_json::Value)) -> serde_json::Value {
    let mut schema = json!({
        "description": description,
        "required": ["timestamp", "window", more.0],
        "properties": {
            "timestamp": {
                "description": "When the usage was read: the end of the window.",
                "allOf": [{"$ref": "io.k8s.apimachinery.pkg.apis.meta.v1.Time"}],
            },
            "window": {
                "description": "How long before `timestamp` the interval starts that the CPU usage is the average of.",
                "allOf": [{"$ref": "io.k8s.apimachinery.pkg.apis.meta.v1.Duration"}],
            },
        },
    });
    if let Some(properties) = schema
        .pointer_mut("/properties")
        .and_then(serde_json::Value::as_object_mut)
    {
        properties.insert(more.0.to_owned(), more.1);
    }
    schema
}

/// The schema of a `usage`.
fn usage_schema(of: &str) -> serde_json::Value {
    json!({
        "type": "object",
        "description": format!("What the {of} uses: `cpu` in cores, `memory` (the working set) in bytes."),
        "additionalProperties": {"$ref": "io.k8s.apimachinery.pkg.api.resource.Quantity"},
    })
}

fn write_time_and_window(object: &mut JsonObject<'_>, time: UnixMillis, window: u64) {
    object.display("timestamp", &time);
    object.display("window", &GoDuration { millis: window });
}

/// Swap is told where any is used: without it, which is nearly everywhere, answers are those of metrics-server.
fn write_usage(object: &mut JsonObject<'_>, of: &Usage) {
    object.object("usage", |usage| {
        usage.display("cpu", &Cpu(of.cpu));
        usage.display("memory", &Memory(of.memory));
        if let Some(swap) = of.swap.filter(|swap| *swap > 0) {
            usage.display("swap", &Memory(swap));
        }
    });
}

/// Fields 2 and 3 of both messages of `k8s.io/metrics`.
fn write_protobuf_time_and_window(message: &mut Message<'_>, time: UnixMillis, window: u64) {
    message.message(2, |message| {
        // As from Go, whose metav1.Time drops the fraction in protobuf.
        message.integer(1, time.0.div_euclid(1000));
        message.integer(2, 0);
    });
    let nanos = i64::try_from(window.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
    message.message(3, |message| message.integer(1, nanos));
}

/// A `usage` map of quantities.
fn write_protobuf_usage(message: &mut Message<'_>, field: u32, of: &Usage) {
    message.entry(field, "cpu", |quantity| quantity.display(1, &Cpu(of.cpu)));
    message.entry(field, "memory", |quantity| {
        quantity.display(1, &Memory(of.memory));
    });
    if let Some(swap) = of.swap.filter(|swap| *swap > 0) {
        message.entry(field, "swap", |quantity| quantity.display(1, &Memory(swap)));
    }
}

fn write_cells(cells: &mut JsonArray<'_>, name: &str, (cpu, memory): (u64, u64), window: u64) {
    cells.string(name);
    cells.display(&Cpu(cpu));
    cells.display(&Memory(memory));
    cells.display(&GoDuration { millis: window });
}

#[cfg(test)]
mod tests;

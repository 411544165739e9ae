//! The operator's own metrics.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters and gauges. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Turns, by how they ended.
    pub reconciles: Family<Outcome, Counter>,
    /// Objects created, changed or deleted.
    pub writes: Counter,
    /// 1 while this replica holds the Lease.
    pub leader: Gauge,
}

/// Label of [`Metrics::reconciles`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// How a turn ended.
    pub result: TurnResult,
}

/// How a turn ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the label's values")]
pub enum TurnResult {
    /// As it should.
    success,
    /// Early: it is done again.
    error,
}

impl Metrics {
    /// Registers everything.
    pub fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("metricsstack_operator");
        registry.register(
            "reconciles",
            "Turns of the reconcile loop",
            self.reconciles.clone(),
        );
        registry.register(
            "object_writes",
            "Objects created, changed or deleted",
            self.writes.clone(),
        );
        registry.register("leader", "Whether this replica reconciles", self.leader.clone());
    }

    /// Counts one turn.
    pub fn turn(&self, result: TurnResult) {
        self.reconciles.get_or_create(&Outcome { result }).inc();
    }
}

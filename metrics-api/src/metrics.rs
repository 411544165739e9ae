//! Own metrics. Those that metrics-server has too keep its names, so that dashboards and alerts go on working;
//! what is ours begins with `metrics_api_`.

use std::{fmt, sync::Arc, time::Duration};

use contract::report::{ErrorClass, NodeError};
use jiff::Timestamp;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, NoLabelSet},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::Registry,
};

use crate::{
    decode::Skipped,
    index::PodIndex,
    scrape::board::Board,
    store::{Ages, Store},
    time::MonotonicClock,
};

/// An answer of the largest nodes takes a few milliseconds.
const DECODE_BUCKETS: [f64; 8] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.01, 0.05, 0.25];
/// metrics-server's buckets, in seconds.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabel {
    node: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SuccessLabel {
    success: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ClassLabel {
    class: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

/// What is counted while scraping.
#[derive(Debug)]
pub struct Metrics {
    duration: Family<NodeLabel, Histogram, fn() -> Histogram>,
    last_request: Family<NodeLabel, Gauge<f64, std::sync::atomic::AtomicU64>>,
    requests: Family<SuccessLabel, Counter>,
    errors: Family<ClassLabel, Counter>,
    skipped: Family<ReasonLabel, Counter>,
    turn: Histogram,
    decode: Histogram,
    restarts: Counter,
}

impl Metrics {
    /// Registers all of them.
    #[must_use]
    pub fn register(registry: &mut Registry, resolution: Duration) -> Self {
        let metrics = Self {
            duration: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            last_request: Family::default(),
            requests: Family::default(),
            errors: Family::default(),
            skipped: Family::default(),
            turn: Histogram::new(turn_buckets(resolution)),
            decode: Histogram::new(DECODE_BUCKETS),
            restarts: Counter::default(),
        };
        registry.register(
            "metrics_server_kubelet_request_duration_seconds",
            "Duration of requests to the kubelet of a node, from dialling to the last byte",
            metrics.duration.clone(),
        );
        registry.register(
            "metrics_server_kubelet_last_request_time_seconds",
            "Time of the last request to the kubelet of a node, in Unix seconds",
            metrics.last_request.clone(),
        );
        registry.register(
            "metrics_server_kubelet_request",
            "Requests to kubelets, by whether the answer could be used",
            metrics.requests.clone(),
        );
        registry.register(
            "metrics_server_manager_tick_duration_seconds",
            "Time from when a node was due to be scraped until its answer was stored",
            metrics.turn.clone(),
        );
        registry.register(
            "metrics_api_kubelet_errors",
            "Scrapes that failed, by class",
            metrics.errors.clone(),
        );
        registry.register(
            "metrics_api_skipped_samples",
            "Lines of kubelets' answers that were not used, by reason",
            metrics.skipped.clone(),
        );
        registry.register(
            "metrics_api_decode_duration_seconds",
            "Time to read the answer of a kubelet",
            metrics.decode.clone(),
        );
        registry.register(
            "metrics_api_scrape_task_restarts",
            "Times that a bug ended the scraping of a node, which began anew",
            metrics.restarts.clone(),
        );
        metrics
    }

    /// A scrape of a node ended: with an answer that was taken in, except for what was skipped, or an error, or both.
    pub fn observe(&self, node: &str, took: Duration, taken: Option<&Skipped>, error: Option<&NodeError>) {
        let label = NodeLabel {
            node: node.to_owned(),
        };
        self.duration.get_or_create(&label).observe(took.as_secs_f64());
        #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 fit a double")]
        self.last_request
            .get_or_create(&label)
            .set(Timestamp::now().as_millisecond() as f64 / 1e3);
        let success = if taken.is_some() { "true" } else { "false" };
        self.requests.get_or_create(&SuccessLabel { success }).inc();
        let skipped = taken.copied().unwrap_or_default();
        for (reason, count) in [
            ("malformed", skipped.malformed),
            ("bad_value", skipped.bad_value),
            ("duplicate", skipped.duplicate),
        ] {
            if count > 0 {
                self.skipped.get_or_create(&ReasonLabel { reason }).inc_by(count);
            }
        }
        if let Some(error) = error {
            let class = ErrorClass::as_str(error.class);
            self.errors.get_or_create(&ClassLabel { class }).inc();
        }
    }

    /// An answer was read, or could not be.
    pub fn observe_decode(&self, took: Duration) {
        self.decode.observe(took.as_secs_f64());
    }

    /// The task of a node began anew.
    pub fn restarted(&self) {
        self.restarts.inc();
    }

    /// A node's turn ended, so many milliseconds after it was due.
    pub fn observe_turn(&self, millis: u64) {
        self.turn.observe(Duration::from_millis(millis).as_secs_f64());
    }

    /// A node is gone: its series go with it.
    pub fn remove(&self, node: &str) {
        let label = NodeLabel {
            node: node.to_owned(),
        };
        self.duration.remove(&label);
        self.last_request.remove(&label);
    }
}

/// metrics-server's: those of requests, and some around the resolution.
fn turn_buckets(resolution: Duration) -> Vec<f64> {
    let resolution = resolution.as_secs_f64();
    let around = [
        10.0 + (resolution - 10.0) / 2.0,
        resolution,
        resolution * 1.5,
        resolution * 2.0,
    ];
    // None at all up to a resolution of 10 s, as there.
    let above = around.into_iter().filter(|_| resolution > 10.0);
    BUCKETS.into_iter().chain(above).collect()
}

/// Sizes that are read when somebody asks.
pub struct Sizes {
    /// Usages.
    pub store: Arc<Store>,
    /// Running pods.
    pub pods: Arc<PodIndex>,
    /// Nodes.
    pub board: Arc<Board>,
    /// For how old usages are.
    pub clock: MonotonicClock,
}

impl Collector for Sizes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let points = self.store.points(self.clock.now());
        let mut family = encoder.encode_descriptor(
            "metrics_server_storage_points",
            "Usages that can be answered with",
            None,
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        for (kind, count) in [("node", points.nodes), ("container", points.containers)] {
            ConstGauge::new(count as u64).encode(family.encode_family(&[("type", kind)])?)?;
        }
        if let Some(Ages { sum, count, buckets }) = self.store.freshness().ages() {
            let mut family = encoder.encode_descriptor(
                "metrics_server_api_metric_freshness_seconds",
                "How old the usages were that were answered",
                None,
                prometheus_client::metrics::MetricType::Histogram,
            )?;
            family.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
        }
        let mut family = encoder.encode_descriptor(
            "metrics_api_nodes",
            "Nodes that are scraped, by how the certificate of the kubelet was judged",
            None,
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        for (state, count) in self.board.tls_states() {
            let state = format!("{state:?}");
            ConstGauge::new(count as u64).encode(family.encode_family(&[("tls", state.as_str())])?)?;
        }
        let mut family = encoder.encode_descriptor(
            "metrics_api_nodes_failing",
            "Nodes whose last scrape failed, by class",
            None,
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        for (class, count) in self.board.failing() {
            ConstGauge::new(count as u64).encode(family.encode_family(&[("class", class.as_str())])?)?;
        }
        let pods = encoder.encode_descriptor(
            "metrics_api_running_pods",
            "Running pods that are known",
            None,
            prometheus_client::metrics::MetricType::Gauge,
        )?;
        ConstGauge::new(self.pods.len() as u64).encode(pods)
    }
}

impl fmt::Debug for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sizes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_leaves_no_series_behind() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry, Duration::from_secs(15));
        let error = NodeError {
            class: ErrorClass::Timeout,
            message: String::new(),
        };
        metrics.observe("node-a", Duration::from_millis(20), None, Some(&error));
        metrics.observe(
            "node-b",
            Duration::from_millis(20),
            Some(&Skipped {
                malformed: 2,
                ..Skipped::default()
            }),
            None,
        );
        metrics.remove("node-a");
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        assert!(!page.contains("node-a"), "{page}");
        for line in [
            "metrics_server_kubelet_request_total{success=\"true\"} 1",
            "metrics_server_kubelet_request_total{success=\"false\"} 1",
            "metrics_api_kubelet_errors_total{class=\"Timeout\"} 1",
            "metrics_api_skipped_samples_total{reason=\"malformed\"} 2",
            "metrics_server_kubelet_request_duration_seconds_count{node=\"node-b\"} 1",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn what_is_answered_is_counted_once_there_is_any() {
        let names = crate::names::Names::default();
        let rules = crate::store::series::Rules { resolution: 15_000 };
        let store = Arc::new(Store::new(rules, names.clone()));
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Sizes {
            store: Arc::clone(&store),
            pods: Arc::new(PodIndex::new(names)),
            board: Arc::default(),
            clock: MonotonicClock::start(),
        }));
        let page = || {
            let mut page = String::new();
            prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
            page
        };
        assert!(!page().contains("freshness"));
        store.freshness().observe(Timestamp::now().into());
        let page = page();
        for line in [
            "# TYPE metrics_server_api_metric_freshness_seconds histogram",
            "metrics_server_api_metric_freshness_seconds_count 1",
            "metrics_server_api_metric_freshness_seconds_bucket{le=\"1.0\"} 1",
            "metrics_server_api_metric_freshness_seconds_bucket{le=\"+Inf\"} 1",
            "metrics_api_nodes_failing{class=\"Timeout\"} 0",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn turns_have_the_buckets_of_metrics_server() {
        let around = |seconds| turn_buckets(Duration::from_secs(seconds)).split_off(BUCKETS.len());
        assert_eq!(around(15), [12.5, 15.0, 22.5, 30.0]);
        assert_eq!(around(60), [35.0, 60.0, 90.0, 120.0]);
        assert!(around(10).is_empty());
    }
}

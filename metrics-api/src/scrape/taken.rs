//! What becomes of one answer: read, stored, and told.

use contract::report::{ErrorClass, NodeError, Source, TlsState};
use tokio::time::Instant;

use super::board::Change;
use crate::{
    decode::{DecodeError, Skipped, decode, decode_summary},
    index::NodeInfo,
    metrics::Metrics,
    store::{Arrival, Store},
};

/// What became of an answer.
pub(super) struct Taken {
    pub(super) skipped: Skipped,
    /// Whether new containers wait for a second sample.
    pub(super) waiting: bool,
    /// What the kubelet says of itself.
    pub(super) error: Option<NodeError>,
}

/// Reads an answer and puts it into the store.
pub(super) fn take_in(
    store: &Store,
    metrics: &Metrics,
    node: &str,
    (source, body): (Source, &[u8]),
    arrival: &Arrival,
) -> Result<Taken, NodeError> {
    let begun = Instant::now();
    let decoded = match source {
        Source::ResourceMetrics => decode(body, arrival.asked),
        Source::Summary => decode_summary(body, arrival.asked),
    };
    metrics.observe_decode(begun.elapsed());
    let batch = decoded.map_err(|error| NodeError {
        class: match error {
            DecodeError::Malformed => ErrorClass::Malformed,
            DecodeError::TooManyContainers => ErrorClass::TooLarge,
        },
        message: error.to_string(),
    })?;
    let waiting = store.put(node, &batch, *arrival);
    let error = batch.kubelet_error.then(|| NodeError {
        class: ErrorClass::KubeletError,
        message: "the kubelet could not collect everything (resource_scrape_error): see its log".to_owned(),
    });
    Ok(Taken {
        skipped: batch.skipped,
        waiting,
        error,
    })
}

/// Says what changed, once. Nothing here comes from the kubelet.
pub(super) fn log(node: &NodeInfo, change: Change, tls: TlsState) {
    let name = &*node.name;
    match change {
        Change::None => {}
        Change::Failing(NodeError { class, message }) if class == ErrorClass::KubeletError => {
            tracing::warn!(node = name, %class, "node is scraped in part: {message}");
        }
        Change::Failing(NodeError { class, message }) if node.ready => {
            tracing::warn!(node = name, %class, "node cannot be scraped: {message}");
        }
        // Its kubelet is known to be away: no news.
        Change::Failing(NodeError { class, message }) => {
            tracing::info!(node = name, %class, "node, which is not ready, cannot be scraped: {message}");
        }
        Change::Recovered(class) => {
            tracing::info!(node = name, was = %class, ?tls, "node can be scraped again");
        }
    }
}

//! Which of a kubelet's two statistics is asked for, and where.
//!
//! `/metrics/resource` is the smaller one and is what metrics-server reads. Where a kubelet answers 404 for it, mode
//! `Auto` turns to `/stats/summary`, remembers that for a while, and then looks again.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use contract::report::{ErrorClass, NodeError, Source};
use tokio::time::Instant;

use super::fleet::{Ask, Asked};
use crate::{
    index::{METRICS_PATH_ANNOTATION, MetricsPath, NodeInfo},
    kubelet::{
        address::{AddressRules, Endpoint},
        client::{Answer, Kept, KubeletClient, RESOURCE_METRICS},
    },
};

/// Path of the Summary API, without what is not needed of it.
pub const SUMMARY: &str = "/stats/summary?only_cpu_and_memory=true";
/// How long a kubelet without `/metrics/resource` is not asked for it again: an upgrade is noticed soon enough.
const REMEMBERED: Duration = Duration::from_mins(10);
/// A part of [`REMEMBERED`] that differs from node to node.
const SPREAD: Duration = Duration::from_mins(2);

/// What is read of kubelets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum KubeletSource {
    /// /metrics/resource, and /stats/summary of a kubelet that has no such path.
    #[default]
    #[value(name = "Auto")]
    Auto,
    /// /metrics/resource.
    #[value(name = "ResourceMetrics")]
    ResourceMetrics,
    /// /stats/summary.
    #[value(name = "Summary")]
    Summary,
}

/// Kubelets at the addresses of their Nodes.
#[derive(Debug)]
pub struct Kubelets {
    /// Asks them.
    pub client: KubeletClient,
    /// Which address is dialled.
    pub addresses: AddressRules,
    /// What is read of them.
    pub source: KubeletSource,
}

impl Ask for Kubelets {
    async fn ask(&self, kept: &mut Kept, node: &NodeInfo) -> Asked {
        let known = node.addresses.iter().map(|(kind, value)| (&**kind, &**value));
        match self
            .addresses
            .choose(&known, node.kubelet_port.unwrap_or_default())
        {
            Ok(endpoint) => {
                let answer = self.answer(kept, node, &endpoint).await;
                (Some(endpoint), answer)
            }
            Err(error) => (None, Err(error)),
        }
    }
}

impl Kubelets {
    async fn answer(
        &self,
        kept: &mut Kept,
        node: &NodeInfo,
        endpoint: &Endpoint,
    ) -> Result<Answer, NodeError> {
        let deadline = Instant::now() + self.client.timeout();
        let path = match &node.metrics_path {
            MetricsPath::Usual => RESOURCE_METRICS,
            MetricsPath::At(path) => path,
            MetricsPath::Invalid => {
                kept.sources.source = Source::ResourceMetrics;
                return Err(NodeError {
                    class: ErrorClass::NoAddress,
                    message: format!(
                        "the Node's annotation {METRICS_PATH_ANNOTATION} is no path: expected one that begins with one \
                         slash, has neither ? nor #, and is no longer than 1024 bytes"
                    ),
                });
            }
        };
        let stands_in = kept.sources.until.is_some_and(|until| Instant::now() < until);
        let first = match self.source {
            KubeletSource::Summary => Source::Summary,
            KubeletSource::Auto if stands_in => Source::Summary,
            KubeletSource::Auto | KubeletSource::ResourceMetrics => Source::ResourceMetrics,
        };
        kept.sources.source = first;
        let path = match first {
            Source::ResourceMetrics => path,
            Source::Summary => SUMMARY,
        };
        let answer = self
            .client
            .get_by(deadline, kept, &node.uid, endpoint, path)
            .await;
        let missing = matches!(&answer, Err(error) if error.class == ErrorClass::NotFound);
        if !missing || self.source != KubeletSource::Auto {
            return answer;
        }
        if first == Source::Summary {
            // It is there no longer: the next turn begins at the beginning.
            kept.sources.until = None;
            return answer;
        }
        kept.sources.source = Source::Summary;
        let second = self
            .client
            .get_by(deadline, kept, &node.uid, endpoint, SUMMARY)
            .await;
        match second {
            Ok(second) => {
                kept.sources.until = Some(Instant::now() + REMEMBERED + spread(&node.name));
                Ok(second)
            }
            Err(error) if error.class == ErrorClass::Forbidden => Err(NodeError {
                class: ErrorClass::SummaryForbidden,
                message: "the kubelet has no /metrics/resource, and answered 403 for /stats/summary: our identity may \
                          not get nodes/stats; see the ClusterRole of its ServiceAccount"
                    .to_owned(),
            }),
            // Neither: what counts is that the first is missing.
            Err(error) if error.class == ErrorClass::NotFound => {
                kept.sources.source = Source::ResourceMetrics;
                answer
            }
            Err(error) => Err(error),
        }
    }
}

/// The node's own part of [`SPREAD`].
fn spread(node: &str) -> Duration {
    let mut hasher = DefaultHasher::new();
    node.hash(&mut hasher);
    SPREAD.mul_f64(f64::from(u8::try_from(hasher.finish() % 256).unwrap_or_default()) / 256.0)
}

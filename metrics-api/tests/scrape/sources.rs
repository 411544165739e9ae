//! Which of a kubelet's statistics is read.

use std::time::Duration;

use contract::report::{ErrorClass, Source};
use k8s_openapi::api::core::v1::Node;
use metrics_api::{
    index::{NodeIndex, NodeInfo},
    kubelet::{
        address::{AddressRules, AddressType},
        client::Kept,
        tls::TlsMode,
    },
    names::Names,
    scrape::{
        fleet::Ask as _,
        kubelets::{KubeletSource, Kubelets},
    },
};
use serde_json::json;
use tokio::time::{advance, pause, resume};

use crate::support::{
    client,
    kubelet::{Answer, FakeKubelet},
    pki::Authority,
};

const RESOURCE: &str = "GET /metrics/resource";
const SUMMARY: &str = "GET /stats/summary?only_cpu_and_memory=true";

struct Setup {
    kubelet: FakeKubelet,
    kubelets: Kubelets,
    node: NodeInfo,
    kept: Kept,
}

impl Setup {
    async fn new(source: KubeletSource, path: Option<&str>) -> Self {
        let authority = Authority::new("cluster");
        let kubelet = FakeKubelet::start(&authority.leaf(|_| {})).await;
        let node: Node = serde_json::from_value(json!({
            "metadata": {
                "name": "node-a", "uid": "u",
                "annotations": path.map(|path| json!({"metrics.k8s.io/resource-metrics-path": path})),
            },
            "status": {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": kubelet.endpoint.port}},
            },
        }))
        .unwrap();
        let (node, _) = NodeIndex::new(Names::default()).apply(&node).unwrap();
        Self {
            kubelet,
            kubelets: Kubelets {
                client: client(TlsMode::Verify, &authority),
                addresses: AddressRules {
                    types: vec![AddressType::InternalIP],
                    port: 1,
                    use_node_status_port: true,
                    loopback: true,
                },
                source,
            },
            node: (*node).clone(),
            kept: Kept::default(),
        }
    }

    /// One scrape: which source it ended with, and what was asked for.
    async fn ask(&mut self) -> (Result<Source, ErrorClass>, Vec<String>) {
        let before = self.kubelet.seen().len();
        let (_, answer) = self.kubelets.ask(&mut self.kept, &self.node).await;
        let asked = self.kubelet.seen().split_off(before);
        (
            answer.map(|_| self.kept.source()).map_err(|error| error.class),
            asked.into_iter().map(|seen| seen.line).collect(),
        )
    }
}

/// Only clocks that are asked for move: with sockets in use time must run by itself.
async fn minutes(count: u64) {
    pause();
    advance(Duration::from_mins(count)).await;
    resume();
}

#[tokio::test]
async fn auto_turns_to_the_summary_where_there_is_nothing_else_and_looks_again_later() {
    let mut setup = Setup::new(KubeletSource::Auto, None).await;
    setup.kubelet.answer(Answer::Paths("/nothing", 200));
    let both = vec![RESOURCE.to_owned(), SUMMARY.to_owned()];
    let summary = vec![SUMMARY.to_owned()];
    assert_eq!(setup.ask().await, (Ok(Source::Summary), both.clone()));
    assert_eq!(setup.ask().await, (Ok(Source::Summary), summary.clone()));
    minutes(9).await;
    assert_eq!(setup.ask().await, (Ok(Source::Summary), summary));
    minutes(4).await;
    assert_eq!(setup.ask().await, (Ok(Source::Summary), both));
    minutes(13).await;
    setup.kubelet.answer(Answer::Paths("/metrics/resource", 200));
    let resource = vec![RESOURCE.to_owned()];
    assert_eq!(setup.ask().await, (Ok(Source::ResourceMetrics), resource));
}

#[tokio::test]
async fn a_summary_that_is_gone_again_is_not_remembered() {
    let mut setup = Setup::new(KubeletSource::Auto, None).await;
    setup.kubelet.answer(Answer::Paths("/nothing", 200));
    setup.ask().await.0.unwrap();
    setup.kubelet.answer(Answer::Paths("/metrics/resource", 404));
    assert_eq!(setup.ask().await.0, Err(ErrorClass::NotFound));
    assert_eq!(setup.ask().await.0, Ok(Source::ResourceMetrics));
}

#[tokio::test]
async fn what_is_refused_has_a_class_of_its_own() {
    for (source, summary, expected) in [
        (KubeletSource::Auto, 403, ErrorClass::SummaryForbidden),
        (KubeletSource::Auto, 404, ErrorClass::NotFound),
        (KubeletSource::Auto, 500, ErrorClass::BadStatus),
        (KubeletSource::ResourceMetrics, 200, ErrorClass::NotFound),
        (KubeletSource::Summary, 403, ErrorClass::Forbidden),
    ] {
        let mut setup = Setup::new(source, None).await;
        setup.kubelet.answer(Answer::Paths("/nothing", summary));
        assert_eq!(setup.ask().await.0, Err(expected), "{source:?} {summary}");
    }
    let mut setup = Setup::new(KubeletSource::Summary, None).await;
    setup.kubelet.answer(Answer::Paths("/metrics/resource", 200));
    assert_eq!(setup.ask().await, (Ok(Source::Summary), vec![SUMMARY.to_owned()]));
    // What is refused before is no reason to look elsewhere.
    let mut setup = Setup::new(KubeletSource::Auto, None).await;
    setup.kubelet.answer(Answer::Full(403, Vec::new()));
    assert_eq!(
        setup.ask().await,
        (Err(ErrorClass::Forbidden), vec![RESOURCE.to_owned()])
    );
}

#[tokio::test]
async fn a_node_may_name_a_path_and_no_more() {
    let mut setup = Setup::new(KubeletSource::Auto, Some("/virtual/metrics")).await;
    setup.kubelet.answer(Answer::Paths("/virtual/metrics", 404));
    let asked = vec!["GET /virtual/metrics".to_owned()];
    assert_eq!(setup.ask().await, (Ok(Source::ResourceMetrics), asked));

    let mut setup = Setup::new(KubeletSource::Auto, Some("http://169.254.169.254/SECRET")).await;
    let (_, answer) = setup.kubelets.ask(&mut setup.kept, &setup.node).await;
    let error = answer.unwrap_err();
    assert_eq!(error.class, ErrorClass::NoAddress);
    assert!(
        error.message.contains("resource-metrics-path") && !error.message.contains("SECRET"),
        "{}",
        error.message
    );
    assert!(setup.kubelet.seen().is_empty());
}

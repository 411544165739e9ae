//! What all replicas together say about the kubelets.

use std::collections::{BTreeMap, BTreeSet};

use contract::report::{ErrorClass, NodeReport, NodeState, TlsState};
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;

use super::pods;
use crate::observe::{Observed, Replica};
use crate::plan::Plan;

/// How many nodes are named of those that fail alike.
pub(super) const EXAMPLES: usize = 3;
/// A node that answered within this many resolutions is not called failing: metrics-api still answers for it.
const PATIENCE: u32 = 3;

/// The kubelets, counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kubelets {
    /// Those that are scraped, or would be.
    pub total: usize,
    /// Those that every replica that is ready has metrics of.
    pub answering: usize,
    /// Names of those that are trusted by a pinned key.
    pub pinned: BTreeSet<String>,
    /// Those that fail, by kind.
    pub failing: Vec<FailingGroup>,
    /// Whether a replica said anything.
    pub reported: bool,
}

/// Kubelets that fail alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailingGroup {
    /// How.
    pub class: ErrorClass,
    /// Names of the nodes, with what metrics-api says about each.
    pub nodes: BTreeMap<String, String>,
}

impl FailingGroup {
    /// Up to three of them, as `node: message`.
    #[must_use]
    pub fn examples(&self) -> Vec<String> {
        self.nodes
            .iter()
            .take(EXAMPLES)
            .map(|(node, message)| format!("{node}: {message}"))
            .collect()
    }
}

/// What one node comes down to over all replicas.
#[derive(Default)]
struct Verdict<'a> {
    pinned: bool,
    pending: bool,
    failure: Option<(ErrorClass, &'a str)>,
}

/// Counts what the replicas report.
pub(super) fn survey(observed: &Observed, plan: Option<&Plan>) -> Kubelets {
    let resolution = plan.map_or(15, |plan| plan.metrics_api.resolution.as_secs());
    let patience = SignedDuration::from_secs(
        i64::try_from(resolution)
            .unwrap_or(i64::MAX)
            .saturating_mul(PATIENCE.into()),
    );
    let reports = reports(observed);
    let mut verdicts = BTreeMap::<&str, Verdict<'_>>::new();
    for state in reports.iter().flat_map(|report| &report.nodes) {
        let verdict = verdicts.entry(&state.name).or_default();
        verdict.pinned |= state.tls == TlsState::Pinned;
        match &state.error {
            Some(error) if !answered_within(state, patience) => {
                // One kind a node, the same whichever replica comes first.
                let found = (error.class, error.message.as_str());
                verdict.failure = Some(verdict.failure.map_or(found, |other| other.min(found)));
            }
            _ => verdict.pending |= state.last_success.is_none(),
        }
    }

    let mut kubelets = Kubelets {
        reported: !reports.is_empty(),
        ..Kubelets::default()
    };
    kubelets.total = if kubelets.reported {
        verdicts.len()
    } else {
        expected(observed, plan)
    };
    let mut failing = BTreeMap::<ErrorClass, BTreeMap<String, String>>::new();
    for (name, verdict) in verdicts {
        if verdict.pinned {
            kubelets.pinned.insert(name.to_owned());
        }
        match verdict.failure {
            Some((class, message)) => {
                failing
                    .entry(class)
                    .or_default()
                    .insert(name.to_owned(), message.to_owned());
            }
            None => kubelets.answering += usize::from(!verdict.pending),
        }
    }
    kubelets.failing = failing
        .into_iter()
        .map(|(class, nodes)| FailingGroup { class, nodes })
        .collect();
    // The kind that most nodes share comes first.
    kubelets
        .failing
        .sort_by_key(|group| std::cmp::Reverse(group.nodes.len()));
    kubelets
}

/// The reports that count: those of replicas that answer requests. One that starts has no metrics of any node yet. As
/// long as none answers, all have something to tell: why that is so.
fn reports(observed: &Observed) -> Vec<&NodeReport> {
    let is_ready = |replica: &Replica| {
        let mut pods = observed.pods.iter();
        pods.any(|pod| pod.name_any() == replica.pod && pods::is_ready(pod))
    };
    let of = |counts: &dyn Fn(&Replica) -> bool| {
        let replicas = observed.replicas.iter().filter(|replica| counts(replica));
        replicas
            .filter_map(|replica| replica.report.as_ref().ok())
            .collect::<Vec<_>>()
    };
    let ready = of(&is_ready);
    if ready.is_empty() { of(&|_| true) } else { ready }
}

/// By metrics-api's own clock: the last answer against the last attempt.
fn answered_within(state: &NodeState, patience: SignedDuration) -> bool {
    let time = |text: &Option<String>| text.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
    match (time(&state.last_success), time(&state.last_attempt)) {
        (Some(success), Some(attempt)) => attempt.duration_since(success) < patience,
        _ => false,
    }
}

/// How many kubelets there are to scrape before a replica has said so.
fn expected(observed: &Observed, plan: Option<&Plan>) -> usize {
    observed
        .nodes
        .iter()
        .filter(|node| {
            plan.is_none_or(|plan| {
                plan.kubelet
                    .node_selector
                    .iter()
                    .all(|(key, value)| node.labels.get(key) == Some(value))
            })
        })
        .count()
}

//! What is known about every node that is scraped: the source of the node report, of log lines and of metrics.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use contract::report::{ErrorClass, NodeError, NodeReport, NodeState, Source, TlsState};
use jiff::Timestamp;

use crate::{kubelet::address::Endpoint, names::Name, time::Monotonic};

/// All nodes, ordered by name.
#[derive(Debug, Default)]
pub struct Board {
    entries: Mutex<BTreeMap<Name, Entry>>,
    /// When the last scrape of any node began, or the first node came.
    began: AtomicU64,
    /// Whether all nodes have come that there were at the start.
    listed: AtomicBool,
}

#[derive(Debug, Default)]
struct Entry {
    endpoint: Option<Endpoint>,
    tls: TlsState,
    source: Option<Source>,
    last_success: Option<Timestamp>,
    last_attempt: Option<Timestamp>,
    latency: Option<Duration>,
    error: Option<NodeError>,
    settled: bool,
}

/// One scrape that has ended.
#[derive(Clone, Debug)]
pub struct Attempt {
    /// What was dialled, if there was anything to dial.
    pub endpoint: Option<Endpoint>,
    /// How the certificate was judged.
    pub tls: TlsState,
    /// What was asked for.
    pub source: Source,
    /// When it ended.
    pub ended: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// Why it failed.
    pub error: Option<NodeError>,
    /// Whether nothing more is to be expected of this node soon: it and its containers have a usage, or it has failed,
    /// or has answered often enough.
    pub settled: bool,
}

/// What an attempt changed that somebody should hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing: it went as it did before.
    None,
    /// It failed, and the one before did not, or for a reason of another class.
    Failing(NodeError),
    /// It succeeded, and the one before did not: the class of that.
    Recovered(ErrorClass),
}

impl Board {
    /// A node is scraped from now on.
    pub fn add(&self, node: &Name, now: Monotonic) {
        let mut entries = self.entries();
        if entries.is_empty() {
            self.began(now);
        }
        entries.entry(Name::clone(node)).or_insert_with(|| Entry {
            settled: self.listed.load(Ordering::Relaxed),
            ..Entry::default()
        });
    }

    /// All nodes have come that there were at the start. Those that come later are as new to everybody: where one does
    /// every few seconds, nobody would ever be ready otherwise.
    pub fn listed(&self) {
        self.listed.store(true, Ordering::Relaxed);
    }

    /// Nothing is to be expected of this node soon.
    pub fn settle(&self, node: &str) {
        if let Some(entry) = self.entries().get_mut(node) {
            entry.settled = true;
        }
    }

    /// The scrape of some node begins.
    pub fn began(&self, now: Monotonic) {
        self.began.fetch_max(now.0, Ordering::Relaxed);
    }

    /// For how many milliseconds no scrape has begun, where there are nodes to scrape.
    #[must_use]
    pub fn idle(&self, now: Monotonic) -> u64 {
        if self.entries().is_empty() {
            return 0;
        }
        now.since(Monotonic(self.began.load(Ordering::Relaxed)))
    }

    /// How many nodes fail, of each class.
    #[must_use]
    pub fn failing(&self) -> Vec<(ErrorClass, usize)> {
        let mut counts: BTreeMap<_, _> = ErrorClass::ALL.iter().map(|class| (*class, 0)).collect();
        for error in self.entries().values().filter_map(|entry| entry.error.as_ref()) {
            *counts.entry(error.class).or_default() += 1;
        }
        counts.into_iter().collect()
    }

    /// A node is scraped no more.
    pub fn remove(&self, node: &str) {
        self.entries().remove(node);
    }

    /// Takes down how a scrape ended.
    pub fn record(&self, node: &str, attempt: Attempt) -> Change {
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(node) else {
            return Change::None;
        };
        let Attempt {
            endpoint,
            tls,
            source,
            ended,
            took,
            error,
            settled,
        } = attempt;
        let change = match (&entry.error, &error) {
            (Some(before), Some(now)) if before.class == now.class => Change::None,
            (_, Some(now)) => Change::Failing(now.clone()),
            (Some(before), None) => Change::Recovered(before.class),
            (None, None) => Change::None,
        };
        if error.is_none() {
            entry.last_success = Some(ended);
        }
        entry.endpoint = endpoint;
        entry.tls = tls;
        if error.is_none() || entry.source.is_some() {
            entry.source = Some(source);
        }
        entry.last_attempt = Some(ended);
        entry.latency = Some(took);
        entry.error = error;
        entry.settled |= settled;
        change
    }

    /// Whether every node that there was at the start has had its chance. An answer given before would lack what only
    /// needs a moment more, and to an autoscaler a Pod that is left out has no metrics.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.entries().values().all(|entry| entry.settled)
    }

    /// How many nodes there are of each judgement.
    #[must_use]
    pub fn tls_states(&self) -> [(TlsState, usize); 5] {
        let entries = self.entries();
        [
            TlsState::Unknown,
            TlsState::Verified,
            TlsState::Pinned,
            TlsState::Insecure,
            TlsState::Refused,
        ]
        .map(|state| (state, entries.values().filter(|entry| entry.tls == state).count()))
    }

    /// The node report.
    #[must_use]
    pub fn report(&self) -> NodeReport {
        let nodes = self
            .entries()
            .iter()
            .map(|(name, entry)| entry.state(name))
            .collect();
        NodeReport {
            nodes,
            ..NodeReport::default()
        }
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<Name, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn state(&self, name: &str) -> NodeState {
        let rfc3339 = |time: &Timestamp| format!("{time:.3}");
        NodeState {
            name: name.to_owned(),
            address: self.endpoint.as_ref().map(ToString::to_string),
            tls: self.tls,
            last_success: self.last_success.as_ref().map(rfc3339),
            last_attempt: self.last_attempt.as_ref().map(rfc3339),
            latency_ms: self
                .latency
                .map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
            source: self.source,
            error: self.error.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubelet::address::Host;

    fn attempt(class: Option<ErrorClass>) -> Attempt {
        Attempt {
            endpoint: Some(Endpoint {
                host: Host::Ip([10, 0, 0, 1].into()),
                port: 10250,
            }),
            tls: TlsState::Verified,
            source: Source::ResourceMetrics,
            ended: "2026-11-24T05:00:00.25Z".parse().unwrap(),
            took: Duration::from_millis(12),
            error: class.map(|class| NodeError {
                class,
                message: "why".to_owned(),
            }),
            settled: false,
        }
    }

    #[test]
    fn only_a_change_of_class_is_told() {
        let board = Board::default();
        board.add(&"a".into(), Monotonic(5));
        let steps = [
            (None, "None"),
            (Some(ErrorClass::Timeout), "Failing"),
            (Some(ErrorClass::Timeout), "None"),
            (Some(ErrorClass::Forbidden), "Failing"),
            (None, "Recovered(Forbidden)"),
            (None, "None"),
        ];
        for (class, expected) in steps {
            let change = format!("{:?}", board.record("a", attempt(class)));
            assert!(
                change.starts_with(expected),
                "{class:?}: {change}, expected {expected}"
            );
        }
    }

    #[test]
    fn a_node_that_is_gone_leaves_nothing() {
        let board = Board::default();
        board.add(&"a".into(), Monotonic(5));
        board.remove("a");
        assert_eq!(board.record("a", attempt(None)), Change::None);
        assert_eq!(board.report(), NodeReport::default());
    }

    #[test]
    fn a_fleet_that_does_nothing_is_seen_once_there_is_a_node() {
        let board = Board::default();
        assert_eq!(board.idle(Monotonic(90_000)), 0);
        board.add(&"a".into(), Monotonic(1_000));
        assert_eq!(board.idle(Monotonic(90_000)), 89_000);
        board.began(Monotonic(80_000));
        board.began(Monotonic(70_000));
        assert_eq!(board.idle(Monotonic(90_000)), 10_000);
    }

    #[test]
    fn nodes_are_counted_by_how_they_fail() {
        let board = Board::default();
        for (node, class) in [
            ("a", Some(ErrorClass::Timeout)),
            ("b", None),
            ("c", Some(ErrorClass::Timeout)),
        ] {
            board.add(&node.into(), Monotonic(0));
            board.record(node, attempt(class));
        }
        let failing = board.failing();
        assert_eq!(failing.len(), ErrorClass::ALL.len());
        assert!(
            failing
                .iter()
                .all(|(class, count)| *count == if *class == ErrorClass::Timeout { 2 } else { 0 })
        );
    }

    #[test]
    fn all_nodes_must_be_settled() {
        let board = Board::default();
        assert!(board.is_settled());
        board.add(&"a".into(), Monotonic(5));
        board.add(&"b".into(), Monotonic(5));
        board.record(
            "a",
            Attempt {
                settled: true,
                ..attempt(None)
            },
        );
        assert!(!board.is_settled());
        board.record(
            "b",
            Attempt {
                settled: true,
                ..attempt(Some(ErrorClass::Timeout))
            },
        );
        board.record("a", attempt(None));
        assert!(board.is_settled(), "a node stays settled");
    }

    #[test]
    fn the_report_is_what_the_contract_says() {
        let board = Board::default();
        board.add(&"b".into(), Monotonic(5));
        board.add(&"a".into(), Monotonic(5));
        board.record("a", attempt(None));
        board.record("a", attempt(Some(ErrorClass::Timeout)));
        insta::assert_json_snapshot!(board.report(), @r#"
        {
          "nodes": [
            {
              "name": "a",
              "address": "10.0.0.1:10250",
              "tls": "Verified",
              "lastSuccess": "2026-11-24T05:00:00.250Z",
              "lastAttempt": "2026-11-24T05:00:00.250Z",
              "latencyMs": 12,
              "source": "ResourceMetrics",
              "error": {
                "class": "Timeout",
                "message": "why"
              }
            },
            {
              "name": "b",
              "tls": "Unknown"
            }
          ]
        }
        "#);
    }
}

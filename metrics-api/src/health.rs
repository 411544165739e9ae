//! Health checks, named and ordered as metrics-server's: its end-to-end tests, and what others have built on its probes,
//! compare the whole list.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use extension_apiserver::{
    HealthCheck,
    HealthEndpoint::{Health, Live},
};

use crate::{
    index::{NodeIndex, PodIndex},
    scrape::board::Board,
    store::Store,
    time::{Monotonic, MonotonicClock},
};

/// How often the pulse beats.
const BEAT: Duration = Duration::from_secs(1);
/// Silence after which the process counts as stuck. A busy machine can be slow; only a restart mends what this
/// is about.
const STUCK: u64 = 30_000;
/// The same for scrapes of any node, in resolutions.
const IDLE_RESOLUTIONS: u64 = 4;

/// What the checks look at.
#[derive(Clone, Debug)]
pub struct Checks {
    /// Usages.
    pub store: Arc<Store>,
    /// How each node is doing.
    pub board: Arc<Board>,
    /// Nodes.
    pub nodes: Arc<NodeIndex>,
    /// Pods.
    pub pods: Arc<PodIndex>,
    /// Now.
    pub clock: MonotonicClock,
    /// Time between two scrapes of a node.
    pub resolution: Duration,
}

impl Checks {
    /// All checks, in metrics-server's order. Starts the pulse that one of them feels.
    #[must_use]
    pub fn checks(self) -> Vec<HealthCheck> {
        let pulse = Arc::new(AtomicU64::new(self.clock.now().0));
        tokio::spawn(beat(Arc::clone(&pulse), self.clock));
        let (clock, board) = (self.clock, Arc::clone(&self.board));
        // Some kubelet is asked in every resolution, however slow all of them are.
        let longest = u64::try_from(self.resolution.as_millis())
            .unwrap_or(u64::MAX)
            .saturating_mul(IDLE_RESOLUTIONS)
            .max(STUCK);
        let (nodes, pods) = (Arc::clone(&self.nodes), Arc::clone(&self.pods));
        let listed = |synced: bool| {
            if synced {
                Ok(())
            } else {
                Err("no complete list yet".to_owned())
            }
        };
        let ready = Latch::default();
        let passes = || Ok(());
        vec![
            // Those of k8s.io/apiserver that cannot fail here: lines are written at once, and there is nothing that
            // begins after the start.
            HealthCheck::live("log", passes),
            HealthCheck::live("poststarthook/max-in-flight-filter", passes),
            HealthCheck::live("poststarthook/storage-object-count-tracker-hook", passes),
            HealthCheck::ready("metric-storage-ready", move || ready.check(&self)),
            HealthCheck::ready("metric-informer-sync", move || listed(nodes.is_synced())),
            HealthCheck::at(&[Live], "metric-collection-timely", move || {
                let silence = clock.now().since(Monotonic(pulse.load(Ordering::Relaxed)));
                let idle = board.idle(clock.now());
                if silence > STUCK {
                    Err(format!("nothing ran for {silence} ms"))
                } else if idle > longest {
                    Err(format!("no scrape has begun for {idle} ms"))
                } else {
                    Ok(())
                }
            }),
            HealthCheck::ready("metadata-informer-sync", move || listed(pods.is_synced())),
            // metrics-server answers nothing at all before it has its lists, and does not lose them again. A restart
            // would not make one come sooner.
            HealthCheck::at(&[Live, Health], "metadata-informer-sync", passes),
        ]
    }

    fn storage(&self) -> Result<(), String> {
        if !self.store.is_ready(self.clock.now()) {
            return Err("no metrics to serve".to_owned());
        }
        // Before all nodes are known, those that are could be settled.
        if !self.nodes.is_synced() || !self.board.is_settled() {
            return Err("some nodes have not been scraped yet".to_owned());
        }
        Ok(())
    }
}

/// Fails until there is something to serve; passes ever after. When no kubelet can be reached, an API that answers
/// with nothing is better than one that is gone: discovery, and with it namespace deletion, would break in the whole
/// cluster. The node report and the metrics tell.
#[derive(Debug, Default)]
struct Latch(AtomicBool);

impl Latch {
    fn check(&self, health: &Checks) -> Result<(), String> {
        if self.0.load(Ordering::Relaxed) {
            return Ok(());
        }
        health.storage()?;
        self.0.store(true, Ordering::Relaxed);
        Ok(())
    }
}

async fn beat(pulse: Arc<AtomicU64>, clock: MonotonicClock) {
    let mut ticks = tokio::time::interval(BEAT);
    loop {
        ticks.tick().await;
        pulse.store(clock.now().0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use extension_apiserver::HealthEndpoint;

    use super::*;
    use crate::{
        decode::decode,
        names::Names,
        scrape::board::{Attempt, Board},
        store::series::Rules,
        time::UnixMillis,
    };

    fn health() -> Checks {
        let names = Names::default();
        Checks {
            store: Arc::new(Store::new(Rules { resolution: 15_000 }, names.clone())),
            board: Arc::new(Board::default()),
            nodes: Arc::new(NodeIndex::new(names.clone())),
            pods: Arc::new(PodIndex::new(names)),
            clock: MonotonicClock::start(),
            resolution: Duration::from_secs(15),
        }
    }

    fn put(health: &Checks, sample: i64) {
        let body = format!(
            "node_cpu_usage_seconds_total {sample} {sample}000\nnode_memory_working_set_bytes 1 {sample}000\n\
             container_cpu_usage_seconds_total{{container=\"c\",namespace=\"n\",pod=\"p\"}} {sample} {sample}000\n\
             container_memory_working_set_bytes{{container=\"c\",namespace=\"n\",pod=\"p\"}} 1 {sample}000\n"
        );
        let batch = decode(body.as_bytes(), UnixMillis(0)).unwrap();
        let at = Monotonic(health.clock.now().0 + u64::try_from(sample).unwrap() * 1000);
        health.store.put("node-a", &batch, at);
    }

    fn settle(health: &Checks) {
        let attempt = Attempt {
            endpoint: None,
            tls: contract::report::TlsState::Verified,
            source: contract::report::Source::ResourceMetrics,
            ended: jiff::Timestamp::UNIX_EPOCH,
            took: Duration::ZERO,
            error: None,
            settled: true,
        };
        health.board.record("node-a", attempt);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fleet_that_scrapes_nothing_is_not_alive() {
        let health = health();
        let (board, clock) = (Arc::clone(&health.board), health.clock);
        let checks = health.checks();
        let timely = || {
            let check = checks
                .iter()
                .find(|check| check.name() == "metric-collection-timely")
                .unwrap();
            check.run()
        };
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(timely(), Ok(()), "there is no node");
        board.add(&"node-a".into(), clock.now());
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert_eq!(timely(), Ok(()));
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(timely().unwrap_err().contains("no scrape has begun"));
        board.began(clock.now());
        assert_eq!(timely(), Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn names_and_order_are_those_of_metrics_server() {
        let checks = health().checks();
        let at = |endpoint| -> Vec<_> {
            let asked = checks.iter().filter(|check| check.is_at(endpoint));
            asked.map(HealthCheck::name).collect()
        };
        // The library's `ping` comes before them, and its `shutdown` ends those of readyz.
        let hooks = [
            "log",
            "poststarthook/max-in-flight-filter",
            "poststarthook/storage-object-count-tracker-hook",
        ];
        let with_hooks = |more: &[&'static str]| [&hooks[..], more].concat();
        assert_eq!(
            at(HealthEndpoint::Ready),
            with_hooks(&[
                "metric-storage-ready",
                "metric-informer-sync",
                "metadata-informer-sync"
            ])
        );
        assert_eq!(
            at(Live),
            with_hooks(&["metric-collection-timely", "metadata-informer-sync"])
        );
        assert_eq!(at(Health), with_hooks(&["metadata-informer-sync"]));
    }

    #[tokio::test(start_paused = true)]
    async fn ready_needs_a_usage_and_every_node_s_chance_and_is_not_lost_again() {
        let (health, latch) = (health(), Latch::default());
        health.board.add(&"node-a".into(), Monotonic(0));
        assert_eq!(latch.check(&health), Err("no metrics to serve".to_owned()));
        put(&health, 10);
        put(&health, 20);
        assert_eq!(
            latch.check(&health),
            Err("some nodes have not been scraped yet".to_owned())
        );
        settle(&health);
        assert!(latch.check(&health).is_err(), "there may be other nodes");
        health.nodes.finish();
        assert_eq!(latch.check(&health), Ok(()));
        health.store.remove("node-a");
        assert_eq!(latch.check(&health), Ok(()));
        assert!(health.storage().is_err());
    }
}

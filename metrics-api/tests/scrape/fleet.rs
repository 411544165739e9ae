//! The rhythm of many nodes, on a clock that only moves when everybody waits.

use std::{
    collections::HashMap,
    fmt::Write as _,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use contract::report::{ErrorClass, NodeError, NodeReport};
use k8s_openapi::api::core::v1::Node;
use metrics_api::{
    index::{NodeChange, NodeIndex, NodeInfo},
    kubelet::client::Kept,
    metrics::Metrics,
    names::Names,
    scrape::{
        board::Board,
        fleet::{Ask, Asked, Fleet, Scraper},
    },
    store::{Store, series::Rules},
    time::MonotonicClock,
};
use prometheus_client::registry::Registry;
use serde_json::json;
use tokio::time::{Instant, sleep};

const RESOLUTION: Duration = Duration::from_secs(15);

/// A body, by the second in which it is asked for.
type Body = fn(u64) -> String;
/// One scrape, from when to when.
type Scrape = (Duration, Duration);

/// Kubelets that take as long as they are told, and renew their samples every ten seconds.
#[derive(Clone)]
struct Scripted(Arc<Script>);

struct Script {
    began: Instant,
    slow: Mutex<HashMap<String, Duration>>,
    failing: Mutex<HashMap<String, ErrorClass>>,
    /// Answered instead of the node's own series.
    bodies: Mutex<HashMap<String, Body>>,
    /// Ends the task of the node, so many times.
    panics: Mutex<HashMap<String, usize>>,
    scrapes: Mutex<HashMap<String, Vec<Scrape>>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Ask for Scripted {
    async fn ask(&self, _: &mut Kept, node: &NodeInfo) -> Asked {
        let script = &self.0;
        let begun = script.began.elapsed();
        let now = script.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        script.most_at_once.fetch_max(now, Ordering::SeqCst);
        let takes = script.slow.lock().unwrap().get(&*node.name).copied();
        sleep(takes.unwrap_or(Duration::from_millis(20))).await;
        script.at_once.fetch_sub(1, Ordering::SeqCst);
        let scrape = (begun, script.began.elapsed());
        script
            .scrapes
            .lock()
            .unwrap()
            .entry(node.name.to_string())
            .or_default()
            .push(scrape);
        let panics = script
            .panics
            .lock()
            .unwrap()
            .get_mut(&*node.name)
            .is_some_and(|left| {
                let panics = *left > 0;
                *left = left.saturating_sub(1);
                panics
            });
        assert!(!panics, "the bug of this test");
        if let Some(class) = script.failing.lock().unwrap().get(&*node.name) {
            return (
                None,
                Err(NodeError {
                    class: *class,
                    message: String::new(),
                }),
            );
        }
        let body = script.bodies.lock().unwrap().get(&*node.name).copied();
        if let Some(body) = body {
            return (None, Ok(body(begun.as_secs()).into_bytes().into()));
        }
        // Samples of every whole ten seconds, on a node that uses one core.
        let sample = begun.as_secs() / 10 * 10;
        let (node_cpu, millis) = (1000 + sample, 1_800_000_000_000 + sample * 1000);
        let body = format!(
            "node_cpu_usage_seconds_total {node_cpu} {millis}\nnode_memory_working_set_bytes 1e9 {millis}\n"
        );
        (None, Ok(body.into_bytes().into()))
    }
}

struct Setup {
    fleet: Fleet<Scripted>,
    kubelets: Scripted,
    nodes: NodeIndex,
    store: Arc<Store>,
    board: Arc<Board>,
    clock: MonotonicClock,
}

impl Setup {
    fn new() -> Self {
        let names = Names::default();
        let kubelets = Scripted(Arc::new(Script {
            began: Instant::now(),
            slow: Mutex::default(),
            failing: Mutex::default(),
            bodies: Mutex::default(),
            panics: Mutex::default(),
            scrapes: Mutex::default(),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
        }));
        let store = Arc::new(Store::new(Rules { resolution: 15_000 }, names.clone()));
        let (board, clock) = (Arc::new(Board::default()), MonotonicClock::start());
        let fleet = Fleet::new(Scraper {
            kubelets: kubelets.clone(),
            resolution: RESOLUTION,
            store: Arc::clone(&store),
            board: Arc::clone(&board),
            metrics: Arc::new(Metrics::register(&mut Registry::default(), RESOLUTION)),
            clock,
        });
        Self {
            fleet,
            kubelets,
            nodes: NodeIndex::new(names),
            store,
            board,
            clock,
        }
    }

    fn apply(&self, name: &str, uid: &str, address: &str) -> NodeChange {
        let node: Node = serde_json::from_value(json!({
            "metadata": {"name": name, "uid": uid},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        }))
        .unwrap();
        let (info, change) = self.nodes.apply(&node).unwrap();
        self.fleet.apply(&info, change);
        change
    }

    fn add(&self, name: &str) {
        assert_eq!(self.apply(name, name, "10.0.0.1"), NodeChange::Added);
    }

    fn slow(&self, name: &str, takes: u64) {
        self.kubelets
            .0
            .slow
            .lock()
            .unwrap()
            .insert(name.to_owned(), Duration::from_secs(takes));
    }

    fn fail(&self, name: &str, class: Option<ErrorClass>) {
        let mut failing = self.kubelets.0.failing.lock().unwrap();
        match class {
            Some(class) => drop(failing.insert(name.to_owned(), class)),
            None => drop(failing.remove(name)),
        }
    }

    fn body(&self, name: &str, body: Body) {
        self.kubelets
            .0
            .bodies
            .lock()
            .unwrap()
            .insert(name.to_owned(), body);
    }

    fn scrapes(&self, name: &str) -> Vec<Scrape> {
        self.kubelets
            .0
            .scrapes
            .lock()
            .unwrap()
            .get(name)
            .cloned()
            .unwrap_or_default()
    }

    fn usages(&self) -> usize {
        self.store.points(self.clock.now()).nodes
    }
}

/// Of a node and of a container on it, read in those seconds.
fn text(node: u64, container: u64) -> String {
    let mut text = String::new();
    let labels = "{container=\"c\",namespace=\"n\",pod=\"p\"}";
    for (of, labels, second) in [("node", "", node), ("container", labels, container)] {
        let millis = 1_800_000_000_000 + second * 1000;
        let _ = writeln!(
            text,
            "{of}_cpu_usage_seconds_total{labels} {second} {millis}\n{of}_memory_working_set_bytes{labels} 1 {millis}"
        );
    }
    text
}

async fn seconds(count: u64) {
    sleep(Duration::from_secs(count)).await;
}

#[tokio::test(start_paused = true)]
async fn a_new_node_has_a_usage_soon_and_then_keeps_its_place() {
    let setup = Setup::new();
    setup.add("node-a");
    seconds(16).await;
    assert_eq!(setup.usages(), 1);
    assert!(setup.board.is_settled());
    seconds(600).await;
    let begun: Vec<_> = setup
        .scrapes("node-a")
        .into_iter()
        .map(|(begun, _)| begun)
        .collect();
    assert!(begun[0] < Duration::from_secs(1), "{begun:?}");
    let gaps: Vec<_> = begun
        .windows(2)
        .map(|pair| pair[1].abs_diff(pair[0]).as_millis())
        .skip(4)
        .collect();
    assert!(
        gaps.len() > 30 && gaps.iter().all(|gap| gap.abs_diff(15_000) < 50),
        "{gaps:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_new_node_is_settled_once_its_containers_have_a_usage_too() {
    let setup = Setup::new();
    setup.body("node-a", |second| text(second / 10 * 10, second / 15 * 15));
    setup.add("node-a");
    seconds(11).await;
    let points = || setup.store.points(setup.clock.now());
    assert_eq!((points().nodes, points().containers), (1, 0));
    assert!(!setup.board.is_settled());
    seconds(5).await;
    assert_eq!((points().nodes, points().containers), (1, 1));
    assert!(setup.board.is_settled());
}

#[tokio::test(start_paused = true)]
async fn a_container_that_never_has_a_usage_keeps_its_node_unsettled_for_twenty_seconds() {
    let setup = Setup::new();
    setup.body("node-a", |second| text(second / 10 * 10, 0));
    setup.add("node-a");
    seconds(19).await;
    assert!(!setup.board.is_settled());
    seconds(2).await;
    assert!(setup.board.is_settled());
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_collects_nothing_keeps_its_node_unsettled_for_twenty_seconds() {
    let setup = Setup::new();
    setup.body("node-a", |_| "resource_scrape_error 1\n".to_owned());
    setup.add("node-a");
    seconds(21).await;
    assert!(setup.board.is_settled());
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_whose_errors_come_and_go_does_not_keep_its_node_unsettled_either() {
    let setup = Setup::new();
    setup.body("node-a", |second| {
        format!("resource_scrape_error {}\n", second / 5 % 2)
    });
    setup.add("node-a");
    seconds(60).await;
    assert!(setup.board.is_settled());
}

#[tokio::test(start_paused = true)]
async fn what_we_lack_ourselves_settles_no_node_the_first_time() {
    for (class, settled) in [
        (ErrorClass::TokenUnavailable, false),
        (ErrorClass::TlsRecordUnavailable, false),
        (ErrorClass::Unreachable, true),
    ] {
        let setup = Setup::new();
        setup.fail("node-a", Some(class));
        setup.add("node-a");
        seconds(1).await;
        assert_eq!(setup.board.is_settled(), settled, "{class}");
        seconds(60).await;
        assert!(setup.board.is_settled(), "{class}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_nodes_that_there_were_at_the_start_are_waited_for() {
    let setup = Setup::new();
    setup.add("node-a");
    setup.slow("node-b", 9);
    setup.add("node-b");
    setup.fleet.listed();
    seconds(18).await;
    assert!(!setup.board.is_settled(), "node-b needs two answers");
    seconds(20).await;
    assert!(setup.board.is_settled());
    setup.add("node-c");
    assert!(setup.board.is_settled());
}

#[tokio::test(start_paused = true)]
async fn a_node_is_never_scraped_twice_at_once() {
    let setup = Setup::new();
    setup.add("slow");
    setup.slow("slow", 20);
    seconds(600).await;
    let scrapes = setup.scrapes("slow");
    assert!(scrapes.len() > 15, "{}", scrapes.len());
    assert!(
        scrapes.windows(2).all(|pair| pair[0].1 <= pair[1].0),
        "{scrapes:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn any_number_of_hung_nodes_leaves_the_others_on_time() {
    let setup = Setup::new();
    for i in 0..600 {
        let name = format!("hung-{i}");
        setup.slow(&name, 10);
        let classes = [ErrorClass::Timeout, ErrorClass::NameNotResolved];
        setup.fail(&name, Some(classes[i % 2]));
        setup.add(&name);
    }
    setup.add("well");
    seconds(120).await;
    let before = setup.scrapes("well").len();
    seconds(300).await;
    assert_eq!(setup.scrapes("well").len() - before, 20);
    assert!(setup.kubelets.0.most_at_once.load(Ordering::SeqCst) <= 256 + 64 + 2048);
    let tried = (0..600)
        .filter(|i| setup.scrapes(&format!("hung-{i}")).len() > 1)
        .count();
    assert_eq!(tried, 600, "each of them is tried again");
    let latencies = setup
        .board
        .report()
        .nodes
        .into_iter()
        .map(|node| node.latency_ms.unwrap());
    let most = latencies.max().unwrap();
    assert!(
        most <= 10_100,
        "{most}: waiting for one's turn is no slowness of the kubelet"
    );
}

#[tokio::test(start_paused = true)]
async fn when_many_nodes_begin_to_hang_at_once_the_others_stay_on_time() {
    const NODES: usize = 5000;
    const HUNG: usize = 2000;
    let setup = Setup::new();
    let name = |i: usize| format!("node-{i}");
    for i in 0..NODES {
        setup.add(&name(i));
    }
    seconds(60).await;
    for i in 0..HUNG {
        setup.slow(&name(i), 10);
        setup.fail(&name(i), Some(ErrorClass::Timeout));
    }
    seconds(120).await;
    let end = setup.kubelets.0.began.elapsed();
    for i in HUNG..NODES {
        let scrapes = setup.scrapes(&name(i));
        let ends = scrapes
            .iter()
            .map(|(_, ended)| *ended)
            .filter(|ended| *ended >= Duration::from_secs(30))
            .chain([end]);
        let ends: Vec<_> = ends.collect();
        assert!(
            ends.windows(2)
                .all(|pair| pair[1].abs_diff(pair[0]) <= 2 * RESOLUTION),
            "{ends:?}"
        );
    }
    for i in 0..HUNG {
        setup.fail(&name(i), None);
        setup.kubelets.0.slow.lock().unwrap().clear();
    }
    seconds(90).await;
    assert_eq!(setup.usages(), NODES, "all of them are back");
}

#[tokio::test(start_paused = true)]
async fn a_bug_costs_its_node_a_pause_and_nothing_else() {
    let setup = Setup::new();
    setup
        .kubelets
        .0
        .panics
        .lock()
        .unwrap()
        .insert("node-a".to_owned(), 3);
    setup.add("node-a");
    seconds(1).await;
    assert!(
        setup.board.is_settled(),
        "nothing is to be expected of node-a soon"
    );
    setup.add("node-b");
    seconds(60).await;
    assert_eq!(setup.usages(), 2);
    let begun: Vec<_> = setup
        .scrapes("node-a")
        .iter()
        .map(|(begun, _)| begun.as_secs())
        .collect();
    assert!(begun.starts_with(&[0, 1, 3, 7]), "{begun:?}");
    setup.fleet.remove("node-a");
    seconds(60).await;
    assert_eq!(setup.usages(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_node_that_comes_back_has_a_usage_as_soon_as_a_new_one() {
    let setup = Setup::new();
    setup.add("node-a");
    seconds(30).await;
    setup.fail("node-a", Some(ErrorClass::Unreachable));
    seconds(300).await;
    assert_eq!(setup.usages(), 0);
    setup.fail("node-a", None);
    let before = setup.scrapes("node-a").len();
    while setup.scrapes("node-a").len() == before {
        sleep(Duration::from_millis(100)).await;
    }
    seconds(16).await;
    assert_eq!(setup.usages(), 1);
    let scrapes = setup.scrapes("node-a").len() - before;
    assert!(scrapes <= 5, "{scrapes}");
}

#[tokio::test(start_paused = true)]
async fn what_a_kubelet_could_collect_is_answered_and_its_error_told() {
    let setup = Setup::new();
    setup.body("node-a", |now| {
        let millis = 1_800_000_000_000 + now * 1000;
        format!(
            "node_cpu_usage_seconds_total {now} {millis}\nnode_memory_working_set_bytes 1e9 {millis}\nresource_scrape_error 1\n"
        )
    });
    setup.add("node-a");
    seconds(40).await;
    assert_eq!(setup.usages(), 1);
    let error = setup.board.report().nodes[0].error.clone().unwrap();
    assert_eq!(error.class, ErrorClass::KubeletError);
    assert!(setup.board.is_settled());
}

#[tokio::test(start_paused = true)]
async fn new_containers_bring_the_next_scrape_forward() {
    let setup = Setup::new();
    setup.body("node-a", |now| {
        let millis = 1_800_000_000_000 + now * 1000;
        let mut text = format!(
            "node_cpu_usage_seconds_total {now} {millis}\nnode_memory_working_set_bytes 1e9 {millis}\n"
        );
        for container in if now > 100 { ["old", "new"].iter() } else { ["old"].iter() } {
            let labels = format!("{{container=\"{container}\",namespace=\"n\",pod=\"{container}\"}}");
            let _ = write!(
                text,
                "container_cpu_usage_seconds_total{labels} {now} {millis}\ncontainer_memory_working_set_bytes{labels} 1 {millis}\n"
            );
        }
        text
    });
    setup.add("node-a");
    seconds(100).await;
    let before = setup.scrapes("node-a").len();
    seconds(100).await;
    let begun: Vec<_> = setup.scrapes("node-a").split_off(before);
    let gaps: Vec<_> = begun
        .windows(2)
        .map(|pair| pair[1].0.abs_diff(pair[0].0).as_secs_f64().round())
        .collect();
    assert!(gaps.starts_with(&[10.0, 5.0, 15.0, 15.0]), "{gaps:?}");
    assert_eq!(setup.store.points(setup.clock.now()).containers, 2);
}

#[tokio::test(start_paused = true)]
async fn what_arrives_is_stored_while_others_hang() {
    let setup = Setup::new();
    setup.slow("hung", 10);
    setup.fail("hung", Some(ErrorClass::Timeout));
    setup.add("hung");
    setup.add("well");
    seconds(1).await;
    let report = setup.board.report();
    assert_eq!(report.nodes[0].last_attempt, None);
    assert!(report.nodes[1].last_success.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_gone_leaves_nothing_even_while_it_is_asked() {
    let setup = Setup::new();
    setup.add("node-a");
    seconds(30).await;
    assert_eq!(setup.usages(), 1);
    setup.slow("node-a", 9);
    // Some moment within a scrape.
    while setup.kubelets.0.at_once.load(Ordering::SeqCst) == 0 {
        sleep(Duration::from_millis(100)).await;
    }
    setup.nodes.delete("node-a");
    setup.fleet.remove("node-a");
    let scrapes = setup.scrapes("node-a").len();
    seconds(60).await;
    assert_eq!(setup.usages(), 0);
    assert_eq!(setup.board.report(), NodeReport::default());
    assert_eq!(setup.scrapes("node-a").len(), scrapes);
}

#[tokio::test(start_paused = true)]
async fn another_node_of_the_same_name_starts_anew() {
    let setup = Setup::new();
    setup.add("node-a");
    seconds(30).await;
    assert_eq!(setup.apply("node-a", "another", "10.0.0.1"), NodeChange::Replaced);
    assert_eq!(setup.usages(), 0);
    seconds(16).await;
    assert_eq!(setup.usages(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_failing_node_whose_address_changes_is_asked_at_once() {
    let setup = Setup::new();
    setup.fail("node-a", Some(ErrorClass::NoAddress));
    setup.add("node-a");
    seconds(100).await;
    let before = setup.scrapes("node-a").len();
    setup.fail("node-a", None);
    assert_eq!(setup.apply("node-a", "node-a", "10.0.0.2"), NodeChange::Changed);
    seconds(6).await;
    assert!(setup.scrapes("node-a").len() > before);
    assert_eq!(setup.board.report().nodes[0].error, None);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_nodes_are_spread_over_the_resolution() {
    let setup = Setup::new();
    for i in 0..1000 {
        setup.add(&format!("node-{i}"));
    }
    seconds(60).await;
    setup.kubelets.0.scrapes.lock().unwrap().clear();
    setup.kubelets.0.most_at_once.store(0, Ordering::SeqCst);
    seconds(15).await;
    let total: usize = (0..1000).map(|i| setup.scrapes(&format!("node-{i}")).len()).sum();
    assert!((950..=1050).contains(&total), "{total}");
    // 1000 x 20 ms in 15 s are 1.3 at once on average.
    let most = setup.kubelets.0.most_at_once.load(Ordering::SeqCst);
    assert!(most < 12, "{most} at once");
}

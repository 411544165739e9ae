//! One task for each node. A node that hangs or sends nonsense costs its own task's time and nobody else's.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use contract::report::{ErrorClass, NodeError};
use jiff::Timestamp;
use tokio::{
    sync::{Semaphore, watch},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    board::{Attempt, Board, Change},
    rhythm::{QUICK_SCRAPES, Rhythm},
};
use crate::{
    decode::{Skipped, decode},
    index::{NodeChange, NodeInfo},
    kubelet::{
        address::{AddressRules, Endpoint},
        client::{Kept, KubeletClient, RESOURCE_METRICS},
    },
    metrics::Metrics,
    names::Name,
    store::Store,
    time::{Monotonic, MonotonicClock, UnixMillis},
};

/// Scrapes at once: what bounds sockets in use and bodies in memory.
const AT_ONCE: usize = 256;
/// The same for nodes whose last scrape timed out. They wait in a queue of their own, so that any number of hung
/// kubelets leaves the others on time.
const HUNG_AT_ONCE: usize = 64;

/// Asks the kubelet of a node, by whatever way. The rhythm does not depend on it.
pub trait Ask: Send + Sync + 'static {
    /// Returns what was dialled and what came of it. `kept` is the node's own, from one time to the next.
    fn ask(&self, kept: &mut Kept, node: &NodeInfo) -> impl Future<Output = Asked> + Send;
}

/// What was dialled, if there was anything to dial, and the answer's body.
pub type Asked = (Option<Endpoint>, Result<Vec<u8>, NodeError>);

/// Kubelets at the addresses of their Nodes.
#[derive(Debug)]
pub struct Kubelets {
    /// Asks them.
    pub client: KubeletClient,
    /// Which address is dialled.
    pub addresses: AddressRules,
}

impl Ask for Kubelets {
    async fn ask(&self, kept: &mut Kept, node: &NodeInfo) -> Asked {
        let known = node.addresses.iter().map(|(kind, value)| (&**kind, &**value));
        match self
            .addresses
            .choose(&known, node.kubelet_port.unwrap_or_default())
        {
            Ok(endpoint) => {
                let path = node.metrics_path.as_deref().unwrap_or(RESOURCE_METRICS);
                let answer = self.client.get(kept, &node.uid, &endpoint, path).await;
                (Some(endpoint), answer)
            }
            Err(error) => (None, Err(error)),
        }
    }
}

/// What all tasks share.
#[derive(Debug)]
pub struct Scraper<A> {
    /// Asks kubelets.
    pub kubelets: A,
    /// Time between two scrapes of a node.
    pub resolution: Duration,
    /// Takes what arrives.
    pub store: Arc<Store>,
    /// Takes what happened.
    pub board: Arc<Board>,
    /// Counts what happened.
    pub metrics: Arc<Metrics>,
    /// Measures how old things are.
    pub clock: MonotonicClock,
}

/// The nodes that are scraped.
pub struct Fleet<A> {
    shared: Arc<Shared<A>>,
    nodes: Mutex<HashMap<Name, Member>>,
}

struct Shared<A> {
    scraper: Scraper<A>,
    prompt: Semaphore,
    hung: Semaphore,
}

struct Member {
    node: watch::Sender<Arc<NodeInfo>>,
    scraped: Arc<Mutex<bool>>,
    /// Ends the task when the node goes.
    task: AbortOnDropHandle<()>,
}

impl<A: Ask> Fleet<A> {
    /// No nodes yet.
    #[must_use]
    pub fn new(scraper: Scraper<A>) -> Self {
        let (prompt, hung) = (Semaphore::new(AT_ONCE), Semaphore::new(HUNG_AT_ONCE));
        Self {
            shared: Arc::new(Shared {
                scraper,
                prompt,
                hung,
            }),
            nodes: Mutex::default(),
        }
    }

    /// A node came or changed.
    pub fn apply(&self, node: &Arc<NodeInfo>, change: NodeChange) {
        match change {
            NodeChange::Unchanged => {}
            NodeChange::Changed => {
                if let Some(member) = self.nodes().get(&node.name) {
                    member.node.send_replace(Arc::clone(node));
                }
            }
            NodeChange::Replaced => {
                self.remove(&node.name);
                self.add(node);
            }
            NodeChange::Added => self.add(node),
        }
    }

    /// A node is gone. What it reported is answered no longer.
    pub fn remove(&self, name: &str) {
        if let Some(member) = self.nodes().remove(name) {
            member.task.abort();
            // From here on its task takes down nothing, even if it is just now at it on another thread.
            *member.scraped.lock().unwrap_or_else(PoisonError::into_inner) = false;
        }
        let Scraper {
            store,
            board,
            metrics,
            ..
        } = &self.shared.scraper;
        store.remove(name);
        board.remove(name);
        metrics.remove(name);
    }

    fn add(&self, node: &Arc<NodeInfo>) {
        let mut nodes = self.nodes();
        self.shared.scraper.board.add(&node.name);
        let scraped = Arc::new(Mutex::new(true));
        let (sender, receiver) = watch::channel(Arc::clone(node));
        let work = Task {
            shared: Arc::clone(&self.shared),
            rhythm: Rhythm::of(&node.name, self.shared.scraper.resolution),
            node: receiver,
            scraped: Arc::clone(&scraped),
            kept: Kept::default(),
            scrapes: 0,
        };
        let task = AbortOnDropHandle::new(tokio::spawn(work.run(nodes.len())));
        nodes.insert(
            Name::clone(&node.name),
            Member {
                node: sender,
                scraped,
                task,
            },
        );
    }
}

impl<A> Fleet<A> {
    fn nodes(&self) -> std::sync::MutexGuard<'_, HashMap<Name, Member>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Task<A> {
    shared: Arc<Shared<A>>,
    rhythm: Rhythm,
    node: watch::Receiver<Arc<NodeInfo>>,
    /// Whether this node is still scraped. Held while something is taken down, so that nothing is once it is false.
    scraped: Arc<Mutex<bool>>,
    kept: Kept,
    scrapes: u32,
}

impl<A: Ask> Task<A> {
    /// Scrapes until the node is gone, which ends this task at any await.
    async fn run(mut self, others: usize) {
        let clock = self.shared.scraper.clock;
        let mut due = self.rhythm.first(clock.now(), others);
        let mut failed = None;
        loop {
            let wait = Duration::from_millis(due.since(clock.now()));
            tokio::select! {
                biased;
                changed = self.node.changed(), if failed.is_some() => {
                    if changed.is_err() {
                        return;
                    }
                    // Perhaps that mends it: a node that joins has no address for a moment.
                    self.scrapes = 0;
                    due = self.rhythm.next(clock.now(), clock.now(), true).min(due);
                    failed = None;
                    continue;
                }
                () = tokio::time::sleep(wait) => {}
            }
            let shared = Arc::clone(&self.shared);
            let lane = if failed == Some(ErrorClass::Timeout) {
                &shared.hung
            } else {
                &shared.prompt
            };
            // The semaphores are never closed.
            let Ok(_permit) = lane.acquire().await else { return };
            let started = clock.now();
            // Boxed, so that a node between two scrapes takes a pointer and not the room of a TLS handshake.
            let (class, quick) = Box::pin(self.scrape(due, started)).await;
            failed = class;
            due = self.rhythm.next(started, clock.now(), quick);
        }
    }

    /// One scrape. Returns the class of its error and whether the next one should follow quickly.
    async fn scrape(&mut self, due: Monotonic, started: Monotonic) -> (Option<ErrorClass>, bool) {
        let shared = Arc::clone(&self.shared);
        let Scraper {
            store,
            board,
            metrics,
            clock,
            ..
        } = &shared.scraper;
        let node = Arc::clone(&self.node.borrow_and_update());
        let asked = UnixMillis::from(Timestamp::now());
        let begun = Instant::now();
        let (endpoint, answer) = shared.scraper.kubelets.ask(&mut self.kept, &node).await;
        let took = begun.elapsed();
        self.scrapes = self.scrapes.saturating_add(1);

        let scraped = self.scraped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*scraped {
            return (None, false);
        }
        let arrived = clock.now();
        let outcome = answer.and_then(|body| take_in(store, &node.name, &body, asked, arrived));
        let has_usage = store.read().node(&node.name, clock.now()).is_some();
        let quick = outcome.is_ok() && !has_usage && self.scrapes < QUICK_SCRAPES;
        metrics.observe(&node.name, took, outcome.as_ref());
        metrics.observe_turn(clock.now().since(due.min(started)));
        let error = outcome.err();
        let class = error.as_ref().map(|error| error.class);
        let attempt = Attempt {
            endpoint,
            tls: self.kept.tls,
            ended: Timestamp::now(),
            took,
            error,
            settled: !quick,
        };
        log(&node, board.record(&node.name, attempt), self.kept.tls);
        (class, quick)
    }
}

fn take_in(
    store: &Store,
    node: &str,
    body: &[u8],
    asked: UnixMillis,
    arrived: Monotonic,
) -> Result<Skipped, NodeError> {
    let batch = decode(body, asked).map_err(|error| NodeError {
        class: ErrorClass::Malformed,
        message: error.to_string(),
    })?;
    store.put(node, &batch, arrived);
    Ok(batch.skipped)
}

/// Says what changed, once. Nothing here comes from the kubelet.
fn log(node: &NodeInfo, change: Change, tls: contract::report::TlsState) {
    let name = &*node.name;
    match change {
        Change::None => {}
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

impl<A> fmt::Debug for Fleet<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet")
            .field("nodes", &self.nodes().len())
            .finish_non_exhaustive()
    }
}

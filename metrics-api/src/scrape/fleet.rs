//! One task for each node. A node that hangs or sends nonsense costs its own task's time and nobody else's.

use std::{
    collections::HashMap,
    fmt,
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use contract::report::{ErrorClass, NodeError};
use futures::FutureExt as _;
use jiff::Timestamp;
use tokio::{
    sync::{Semaphore, SemaphorePermit, watch},
    time::timeout,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    board::{Attempt, Board},
    rhythm::{Pace, QUICK_SCRAPES, Rhythm},
    taken::{Taken, log, take_in},
};
use crate::{
    index::{NodeChange, NodeInfo},
    kubelet::{
        address::Endpoint,
        client::{Answer, Kept},
    },
    metrics::Metrics,
    names::Name,
    store::{Arrival, Store},
    time::{Monotonic, MonotonicClock, UnixMillis},
};

/// First tries at once. A node that takes longer than [`PROMPT`] makes way for the next one.
const AT_ONCE: usize = 256;
/// The same for nodes whose last scrape timed out. They wait in a queue of their own, so that any number of hung
/// kubelets leaves the others on time.
const HUNG_AT_ONCE: usize = 64;
/// Scrapes at once that take longer than [`PROMPT`]. With the other two this bounds sockets in use and bodies in
/// memory.
const SLOW_AT_ONCE: usize = 2048;
/// How long a scrape holds up others. Ten times what a busy kubelet takes.
const PROMPT: Duration = Duration::from_secs(1);
/// Pause before the task of a node that met a bug starts anew; doubled each time ...
const RESTART: Duration = Duration::from_secs(1);
/// ... up to this.
const LONGEST_RESTART: Duration = Duration::from_mins(5);

/// Asks the kubelet of a node, by whatever way. The rhythm does not depend on it.
pub trait Ask: Send + Sync + 'static {
    /// Returns what was dialled and what came of it. `kept` is the node's own, from one time to the next.
    fn ask(&self, kept: &mut Kept, node: &NodeInfo) -> impl Future<Output = Asked> + Send;
}

/// What was dialled, if there was anything to dial, and the answer.
pub type Asked = (Option<Endpoint>, Result<Answer, NodeError>);

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
    slow: Semaphore,
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
        Self {
            shared: Arc::new(Shared {
                scraper,
                prompt: Semaphore::new(AT_ONCE),
                hung: Semaphore::new(HUNG_AT_ONCE),
                slow: Semaphore::new(SLOW_AT_ONCE),
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

    /// All nodes have come that there are so far.
    pub fn listed(&self) {
        self.shared.scraper.board.listed();
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
        let Scraper { board, clock, .. } = &self.shared.scraper;
        board.add(&node.name, clock.now());
        let scraped = Arc::new(Mutex::new(true));
        let (sender, receiver) = watch::channel(Arc::clone(node));
        let work = supervise(
            Arc::clone(&self.shared),
            receiver,
            Arc::clone(&scraped),
            nodes.len(),
        );
        let task = AbortOnDropHandle::new(tokio::spawn(work));
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

impl<A: Ask> Shared<A> {
    /// Asks, and makes way for others if that takes long.
    async fn ask(&self, permit: SemaphorePermit<'_>, kept: &mut Kept, node: &NodeInfo) -> Asked {
        let mut asking = pin!(self.scraper.kubelets.ask(kept, node));
        if let Ok(asked) = timeout(PROMPT, &mut asking).await {
            return asked;
        }
        drop(permit);
        let Ok(_permit) = self.slow.try_acquire() else {
            let message = format!("no answer within {PROMPT:?}, and {SLOW_AT_ONCE} others are as slow");
            let class = ErrorClass::Timeout;
            return (None, Err(NodeError { class, message }));
        };
        asking.await
    }
}

/// Scrapes a node for as long as it is there. What a bug ends is begun anew: the node would be gone for good
/// otherwise, without a word.
async fn supervise<A: Ask>(
    shared: Arc<Shared<A>>,
    node: watch::Receiver<Arc<NodeInfo>>,
    scraped: Arc<Mutex<bool>>,
    others: usize,
) {
    let mut pause = RESTART;
    loop {
        let task = Task::new(Arc::clone(&shared), node.clone(), Arc::clone(&scraped));
        let name = Name::clone(&task.node.borrow().name);
        if AssertUnwindSafe(task.run(others)).catch_unwind().await.is_ok() {
            return;
        }
        let Scraper {
            store,
            board,
            metrics,
            ..
        } = &shared.scraper;
        metrics.restarted();
        {
            let scraped = scraped.lock().unwrap_or_else(PoisonError::into_inner);
            if *scraped {
                // What was half taken in is not answered, and nobody's readiness waits for what comes of it.
                store.remove(&name);
                board.settle(&name);
            }
        }
        tracing::error!(
            node = &*name,
            "a bug ended the scraping of this node; it begins anew in {pause:?}"
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_RESTART);
    }
}

struct Task<A> {
    shared: Arc<Shared<A>>,
    rhythm: Rhythm,
    node: watch::Receiver<Arc<NodeInfo>>,
    /// Whether this node is still scraped. Held while something is taken down, so that nothing is once it is false.
    scraped: Arc<Mutex<bool>>,
    kept: Kept,
    /// Scrapes since it was new, or came back.
    scrapes: u32,
    /// All scrapes: readiness waits for no more than some of them, whatever counts the others anew.
    all: u32,
    failed: Option<ErrorClass>,
}

impl<A: Ask> Task<A> {
    fn new(shared: Arc<Shared<A>>, node: watch::Receiver<Arc<NodeInfo>>, scraped: Arc<Mutex<bool>>) -> Self {
        let rhythm = Rhythm::of(&node.borrow().name, shared.scraper.resolution);
        Self {
            shared,
            rhythm,
            node,
            scraped,
            kept: Kept::default(),
            scrapes: 0,
            all: 0,
            failed: None,
        }
    }

    /// Scrapes until the node is gone, which ends this task at any await.
    async fn run(mut self, others: usize) {
        let clock = self.shared.scraper.clock;
        let mut due = self.rhythm.first(clock.now(), others);
        let mut pace = Pace::Quick;
        loop {
            let wait = Duration::from_millis(due.since(clock.now()));
            tokio::select! {
                biased;
                changed = self.node.changed(), if self.failed.is_some() => {
                    if changed.is_err() {
                        return;
                    }
                    // Perhaps that mends it: a node that joins has no address for a moment.
                    self.scrapes = 0;
                    due = self.rhythm.next(clock.now(), clock.now(), Pace::Quick, pace).min(due);
                    self.failed = None;
                    continue;
                }
                () = tokio::time::sleep(wait) => {}
            }
            let started = clock.now();
            // Boxed, so that a node between two scrapes takes a pointer and not the room of a TLS handshake.
            let Some(next) = Box::pin(self.scrape(due)).await else {
                return;
            };
            due = self.rhythm.next(started, clock.now(), next, pace);
            pace = next;
        }
    }

    /// One scrape. Returns how soon the next one should follow, and nothing when there is none.
    async fn scrape(&mut self, due: Monotonic) -> Option<Pace> {
        let shared = Arc::clone(&self.shared);
        // DNS that does not answer keeps a scrape as long as a kubelet that does not.
        let hangs = matches!(
            self.failed,
            Some(ErrorClass::Timeout | ErrorClass::NameNotResolved)
        );
        let lane = if hangs { &shared.hung } else { &shared.prompt };
        // The semaphores are never closed.
        let permit = lane.acquire().await.ok()?;
        let node = Arc::clone(&self.node.borrow_and_update());
        let asked = UnixMillis::from(Timestamp::now());
        let sent = shared.scraper.clock.now();
        shared.scraper.board.began(sent);
        let (endpoint, answer) = shared.ask(permit, &mut self.kept, &node).await;
        self.scrapes = self.scrapes.saturating_add(1);
        self.all = self.all.saturating_add(1);

        let Scraper {
            store,
            board,
            metrics,
            clock,
            ..
        } = &shared.scraper;
        let scraped = self.scraped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*scraped {
            return None;
        }
        let arrived = clock.now();
        let took = Duration::from_millis(arrived.since(sent));
        let source = self.kept.source();
        let outcome = answer.and_then(|answer| {
            let arrival = Arrival {
                sent,
                at: arrived,
                asked,
                date: answer.date,
            };
            take_in(store, metrics, &node.name, (source, &answer.body), &arrival)
        });
        let has_usage = store.read().node(&node.name, clock.now()).is_some();
        let whole = matches!(&outcome, Ok(taken) if taken.error.is_none());
        if self.failed.is_some() && whole && !has_usage {
            // It was away for long: two samples are as urgent as for a new one.
            self.scrapes = 1;
        }
        let pace = match &outcome {
            // The kubelet renews containers' samples at other times than the node's.
            Ok(taken) if (taken.waiting || !has_usage) && self.scrapes < QUICK_SCRAPES => Pace::Quick,
            Ok(taken) if taken.waiting && has_usage => Pace::Early,
            _ => Pace::Place,
        };
        metrics.observe_turn(clock.now().since(due.min(sent)));
        let error = match outcome {
            Ok(Taken { skipped, error, .. }) => {
                metrics.observe(&node.name, took, Some(&skipped), error.as_ref());
                error
            }
            Err(error) => {
                metrics.observe(&node.name, took, None, Some(&error));
                Some(error)
            }
        };
        self.failed = error.as_ref().map(|error| error.class);
        // What we lacked ourselves, every node waited for: the first time it says nothing of this one.
        let excused = self.all == 1
            && matches!(
                self.failed,
                Some(ErrorClass::TokenUnavailable | ErrorClass::TlsRecordUnavailable)
            );
        let attempt = Attempt {
            endpoint,
            tls: self.kept.tls,
            source,
            ended: Timestamp::now(),
            took,
            error,
            settled: !excused && (pace != Pace::Quick || self.all >= QUICK_SCRAPES),
        };
        log(&node, board.record(&node.name, attempt), self.kept.tls);
        Some(pace)
    }
}

impl<A> fmt::Debug for Fleet<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet")
            .field("nodes", &self.nodes().len())
            .finish_non_exhaustive()
    }
}

//! A steady load of reads through kube-apiserver, of which each failure is kept.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::access::{Connection, Server};
use super::boundaries::{pods, token};
use super::context::Context;
use super::wait::eventually;

/// Time between two reads. They do not wait for one another: one that hangs holds up none.
const PAUSE: Duration = Duration::from_millis(100);
/// A read that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);
/// kube-apiserver closes connections that are idle for long, perhaps under the next read.
const FRESH: Duration = Duration::from_secs(10);
/// What is read, and a name that the answer must hold, of something that is always there. A replica that answers before
/// it has that loses an autoscaler its metrics, though it answers.
type Read = (&'static str, &'static str);
const NODES: Read = ("/apis/metrics.k8s.io/v1beta1/nodes", "node-1");
const PODS: Read = (
    "/apis/metrics.k8s.io/v1beta1/namespaces/kube-system/pods",
    "etcd-node-1",
);
const READY_WITHIN: Duration = Duration::from_secs(40);
const ACCOUNT: &str = "steady-reader";

/// What became of a load.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Number of reads that were answered with what is always there.
    pub(super) answered: usize,
    /// The others: when each was begun, and why it failed.
    pub(super) failed: Vec<(Instant, String)>,
    /// The longest that an answered read took.
    pub(super) slowest: Duration,
    began: Option<Instant>,
}

impl Outcome {
    /// An error if any read failed.
    pub(super) fn expect_no_failure(&self) -> Result<()> {
        ensure!(self.answered > 0, "nothing was read");
        if let (Some((at, why)), Some(began)) = (self.failed.first(), self.began) {
            bail!(
                "{} of {} reads failed, the first after {:.1} s: {why}",
                self.failed.len(),
                self.answered + self.failed.len(),
                at.duration_since(began).as_secs_f64()
            );
        }
        Ok(())
    }

    /// How often a read failed, by reason.
    pub(super) fn reasons(&self) -> BTreeMap<&str, usize> {
        let mut reasons = BTreeMap::new();
        for (_, why) in &self.failed {
            *reasons.entry(why.as_str()).or_default() += 1;
        }
        reasons
    }

    fn add(&mut self, begun: Instant, result: Result<()>) {
        match result {
            Ok(()) => {
                self.answered += 1;
                self.slowest = self.slowest.max(begun.elapsed());
            }
            Err(error) => self.failed.push((begun, format!("{error:#}"))),
        }
    }
}

/// Reads nodes and Pods in turn until `work` is done and some more. Nothing is tried again: what fails here fails for
/// everybody.
pub(super) async fn during<T>(
    context: &Context,
    work: impl Future<Output = Result<T>>,
) -> Result<(T, Outcome)> {
    of(context, &[NODES, PODS], Box::pin(work)).await
}

/// The same for nodes alone.
pub(super) async fn of_nodes_during<T>(
    context: &Context,
    work: impl Future<Output = Result<T>>,
) -> Result<(T, Outcome)> {
    of(context, &[NODES], Box::pin(work)).await
}

async fn of<T>(
    context: &Context,
    reads: &[Read],
    work: impl Future<Output = Result<T>>,
) -> Result<(T, Outcome)> {
    let reader = Arc::new(Reader::new(context, reads).await?);
    let stop = CancellationToken::new();
    let reading = read(&reader, reads, &stop);
    let working = async {
        let _stop = stop.clone().drop_guard();
        let done = work.await?;
        // Whatever the work has broken shows within this time.
        tokio::time::sleep(PATIENCE).await;
        anyhow::Ok(done)
    };
    let (done, outcome) = tokio::join!(working, reading);
    Ok((done?, outcome))
}

async fn read(reader: &Arc<Reader>, reads: &[Read], stop: &CancellationToken) -> Outcome {
    let mut outcome = Outcome {
        began: Some(Instant::now()),
        ..Outcome::default()
    };
    let mut open = JoinSet::new();
    let mut reads = reads.iter().copied().cycle();
    let mut ticks = tokio::time::interval(PAUSE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = ticks.tick() => {
                let Some(next) = reads.next() else { break };
                let reader = Arc::clone(reader);
                open.spawn(async move { (Instant::now(), reader.read(next).await) });
            }
            Some(Ok((begun, result))) = open.join_next() => outcome.add(begun, result),
        }
    }
    while let Some(ended) = open.join_next().await {
        if let Ok((begun, result)) = ended {
            outcome.add(begun, result);
        }
    }
    outcome.failed.sort_by_key(|(begun, _)| *begun);
    outcome
}

/// Waits until each replica of metrics-api, asked directly, answers with what is always there, as one of a former load.
pub(super) async fn each_replica_answers(context: &Context) -> Result<()> {
    let token = token(context, ACCOUNT).await?;
    eventually("each replica has nodes and Pods", READY_WITHIN, async || {
        for server in pods(context).await? {
            for read in [NODES, PODS] {
                let answer = server.get(None, read.0, &[("authorization", &token)]).await?;
                expect(&answer.json()?, read)?;
            }
        }
        Ok(())
    })
    .await
}

fn expect(answer: &Value, (path, name): Read) -> Result<()> {
    let items = answer["items"].as_array().context("no list")?;
    ensure!(
        items.iter().any(|item| item["metadata"]["name"] == name),
        "{name} is not among the {} of {path}",
        items.len()
    );
    Ok(())
}

/// An account that may read metrics, and its connections to kube-apiserver.
struct Reader {
    server: Server,
    token: String,
    idle: Mutex<Vec<(Instant, Connection)>>,
}

impl Reader {
    async fn new(context: &Context, reads: &[Read]) -> Result<Self> {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": ACCOUNT, "namespace": "default"}});
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": ACCOUNT},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": "default"}],
        });
        for object in [account, binding] {
            context.apply(&object.to_string()).await?;
        }
        let authority = context.control_plane_file("/etc/kubernetes/pki/ca.crt").await?;
        let server = Server::new(
            (context.cluster.node_ip(1), 6443).into(),
            "kubernetes".to_owned(),
            authority.as_bytes(),
        )?;
        let reader = Self {
            server,
            token: token(context, ACCOUNT).await?,
            idle: Mutex::default(),
        };
        eventually("the reader may read", READY_WITHIN, async || {
            for read in reads {
                reader.read(*read).await?;
            }
            Ok(())
        })
        .await
        .context("before the load")?;
        Ok(reader)
    }

    async fn read(&self, (path, name): Read) -> Result<()> {
        let answering = async {
            let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = match kept {
                Some((since, connection)) if since.elapsed() < FRESH => connection,
                _ => self.server.connect(None, &rustls::version::TLS13).await?,
            };
            let answer = connection.get(path, &[("authorization", &self.token)]).await?;
            expect(&answer.json()?, (path, name))?;
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push((Instant::now(), connection));
            Ok(())
        };
        let answered = tokio::time::timeout(PATIENCE, answering).await;
        answered.with_context(|| format!("no answer within {PATIENCE:?}"))?
    }
}

//! Who reconciles, and when: leader election, watches, the end of the process and of its namespace.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use kube::{Api, Client, Config};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseParams};
use process::shutdown::CancellationToken;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::cluster::{self, LEASE};
use crate::finalize;
use crate::metrics::{Metrics, TurnResult};
use crate::plan::Environment;
use crate::reconcile::Reconciler;
use crate::reports;
use crate::watches;

/// How long a Lease is good for after its last renewal, and how long before its end it is renewed, in seconds.
const LEASE_DURATION: u64 = 15;
const LEASE_GRACE: u64 = 5;
/// Time to give the Lease back, so that the next leader need not wait for its end.
const RELEASE: Duration = Duration::from_secs(3);
/// Events come in bursts; this long after the first, one turn sees them all.
const BURST: Duration = Duration::from_millis(200);
/// Longest pause after failed turns.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// Longest turn: a hung one must not stop all others.
const TURN: Duration = Duration::from_mins(3);
/// How long a process that was told to end goes on trying to clean up after its namespace. Less than the Pod's grace
/// period of 30 s.
const LAST_CHANCE: Duration = Duration::from_secs(25);

/// How a term of office ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Term {
    /// With the process or its namespace.
    Over,
    /// Somebody deleted the Lease.
    LeaseGone,
}

/// One replica of the operator.
#[derive(Clone, Debug)]
pub struct Operator {
    /// How kube-apiserver is reached.
    pub config: Config,
    /// Where the operator runs, and with what.
    pub environment: Environment,
    /// Name of this Pod.
    pub instance: String,
    /// Its metrics.
    pub metrics: Metrics,
}

impl Operator {
    /// Reconciles whenever this replica holds the Lease, until `shutdown`. An error is the end of the process: it was
    /// the leader and is not any more.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let watching =
            Client::try_from(self.config.clone()).context("failed to set up a client for watches")?;
        let client = cluster::calls(&self.config).context("failed to set up a client for calls")?;
        let namespace = self.environment.namespace.clone();

        let ends = CancellationToken::new();
        // Before any turn: no finalizer may be added any more.
        if finalize::namespace_ends(&client, &namespace)
            .await
            .unwrap_or(false)
        {
            ends.cancel();
        }
        let watch = tokio::spawn(watch_namespace(watching.clone(), namespace.clone(), ends.clone()));
        let result = tokio::select! {
            biased;
            () = ends.cancelled() => Ok(()),
            () = shutdown.cancelled() => Ok(()),
            result = self.serve(&client, &watching, &shutdown, &ends) => result,
        };
        // Read once more: a Pod of a namespace that is being deleted may get its signal before the watch its event.
        if ends.is_cancelled()
            || finalize::namespace_ends(&client, &namespace)
                .await
                .unwrap_or(false)
        {
            leave(&client, &namespace, &shutdown).await;
        }
        watch.abort();
        result
    }

    /// Stands for election until the end.
    async fn serve(
        &self,
        client: &Client,
        watching: &Client,
        shutdown: &CancellationToken,
        ends: &CancellationToken,
    ) -> anyhow::Result<()> {
        while self.lead(client, watching, shutdown, ends).await? == Term::LeaseGone {
            tracing::warn!(lease = LEASE, "the Lease was deleted: there is another election");
        }
        Ok(())
    }

    /// Waits for the Lease, and reconciles as long as it is held.
    async fn lead(
        &self,
        client: &Client,
        watching: &Client,
        shutdown: &CancellationToken,
        ends: &CancellationToken,
    ) -> anyhow::Result<Term> {
        let stop = async {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = ends.cancelled() => {}
            }
        };
        let lease = self.lease(client).await;
        let (mut leading, mut task) = lease.watch().await;
        let result = tokio::select! {
            () = stop => Ok(Term::Over),
            () = self.lease_gone(client) => Ok(Term::LeaseGone),
            result = async {
                leading.wait_for(|leading| *leading).await.context("the election ended")?;
                tracing::info!(lease = LEASE, instance = self.instance, "this replica reconciles now");
                self.metrics.leader.set(1);
                tokio::select! {
                    lost = leading.wait_for(|leading| !*leading) => {
                        lost.context("the election ended")?;
                        anyhow::bail!("lost the Lease {LEASE}: another replica reconciles");
                    }
                    () = self.reconcile_for_ever(client, watching) => Ok(Term::Over),
                }
            } => result,
        };
        self.metrics.leader.set(0);
        drop(leading);
        if matches!(result, Ok(Term::LeaseGone)) {
            // There is nothing to give back, and later it would give back the Lease of our next term.
            task.abort();
        } else if tokio::time::timeout(RELEASE, &mut task).await.is_err() {
            tracing::warn!(
                lease = LEASE,
                "failed to give the Lease back in time; it ends by itself"
            );
        }
        result
    }

    async fn lease(&self, client: &Client) -> LeaseManager {
        let parameters = LeaseParams::new(self.instance.clone(), LEASE_DURATION, LEASE_GRACE);
        let mut backoff = Backoff::default();
        loop {
            let manager = LeaseManagerBuilder::new(client.clone(), LEASE)
                .with_namespace(self.environment.namespace.clone())
                .with_parameters(parameters.clone())
                .build()
                .await;
            match manager {
                Ok(manager) => return manager,
                Err(error) => {
                    let pause = backoff.next();
                    tracing::warn!(lease = LEASE, %error, ?pause, "failed to read or create the Lease");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Returns when there is no Lease: whoever watches one goes on failing and never makes another.
    async fn lease_gone(&self, client: &Client) {
        let api: Api<Lease> = Api::namespaced(client.clone(), &self.environment.namespace);
        loop {
            tokio::time::sleep(Duration::from_secs(LEASE_DURATION)).await;
            if let Ok(None) = api.get_metadata_opt(LEASE).await {
                return;
            }
        }
    }

    async fn reconcile_for_ever(&self, client: &Client, watching: &Client) {
        let wake = Arc::new(Notify::new());
        let _watches = watches::start(watching, &self.environment.namespace, &wake);
        let reports = reports::Reader::new(client.clone(), &self.environment.namespace);
        let metrics = self.metrics.clone();
        let mut reconciler =
            Reconciler::new(client, self.environment.clone(), reports, &self.instance, metrics);
        let mut backoff = Backoff::default();
        loop {
            let turn = tokio::time::timeout(TURN, Box::pin(reconciler.reconcile())).await;
            let failure = match turn {
                Ok(Ok(wait)) => Ok(wait),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("not done within {TURN:?}")),
            };
            match failure {
                Ok(wait) => {
                    backoff = Backoff::default();
                    self.metrics.turn(TurnResult::success);
                    // `notified` is cancel-safe: a wake-up during a turn is kept for the next wait.
                    if tokio::time::timeout(wait, wake.notified()).await.is_ok() {
                        tokio::time::sleep(BURST).await;
                    }
                }
                Err(error) => {
                    self.metrics.turn(TurnResult::error);
                    let pause = backoff.next();
                    tracing::warn!(error, ?pause, "failed to reconcile; it is tried again");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// Cancels `ends` when the namespace is being deleted.
async fn watch_namespace(client: Client, namespace: String, ends: CancellationToken) {
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(client);
    let mut states = std::pin::pin!(watch_object(api, &namespace).default_backoff());
    while let Some(state) = states.next().await {
        match state {
            Ok(found) => {
                if found.is_none_or(|object| object.metadata.deletion_timestamp.is_some()) {
                    tracing::info!(namespace, "the operator's namespace is being deleted");
                    ends.cancel();
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "the watch of the operator's namespace broke off; it is started again");
            }
        }
    }
}

/// Cleans up after a namespace that is being deleted. Every replica does, whoever leads: it is harmless twice, and
/// there is no time for an election. What a turn had under way may arrive late, so it is done again until the end.
async fn leave(client: &Client, namespace: &str, shutdown: &CancellationToken) {
    let mut left = false;
    let mut deadline = None;
    loop {
        match finalize::leave(client, namespace).await {
            Ok(()) => {
                if !left {
                    tracing::info!("the registration and everything else outside the namespace is gone");
                }
                left = true;
            }
            Err(error) => {
                tracing::warn!(%error, "failed to clean up before the namespace is gone; it is tried again");
            }
        }
        if shutdown.is_cancelled() {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + LAST_CHANCE);
            if left || Instant::now() >= deadline {
                return;
            }
            tokio::time::sleep(BURST).await;
        } else {
            let _signal = tokio::time::timeout(Duration::from_secs(1), shutdown.cancelled()).await;
        }
    }
}

/// Pauses that double up to [`LONGEST_BACKOFF`].
#[derive(Debug, Default)]
struct Backoff(u32);

impl Backoff {
    fn next(&mut self) -> Duration {
        let pause = Duration::from_secs(1)
            .saturating_mul(2_u32.saturating_pow(self.0))
            .min(LONGEST_BACKOFF);
        self.0 = self.0.saturating_add(1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end_somewhere() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..7).map(|_| backoff.next().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    }
}

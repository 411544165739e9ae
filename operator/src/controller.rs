//! Who reconciles, and when: leader election, watches, the end of the process and of its namespace.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use kube::{Client, Config};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseParams};
use process::shutdown::CancellationToken;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::api_servers::ApiServers;
use crate::cluster::{self, LEASE};
use crate::finalize;
use crate::home::Home;
use crate::lease::{self, Loss};
use crate::metrics::{Metrics, TurnResult};
use crate::plan::Environment;
use crate::reconcile::{BURST, Reconciler};
use crate::reports;
use crate::watches;

/// Time to give the Lease back, so that the next leader need not wait for its end.
const RELEASE: Duration = Duration::from_secs(3);
/// Shortest pause after a failed turn.
const SOONEST: Duration = Duration::from_secs(1);
/// Longest pause after failed turns.
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// Longest turn: a hung one must not stop all others.
const TURN: Duration = Duration::from_mins(3);
/// How long a process that was told to end goes on trying to clean up after its namespace. Less than the Pod's grace
/// period of 30 s.
const LAST_CHANCE: Duration = Duration::from_secs(25);

/// How a term of office ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Term {
    /// With the process or its namespace.
    Over,
    /// With the Lease: there is another election.
    Lost(Loss),
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
    /// Reconciles whenever this replica holds the Lease, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) -> anyhow::Result<()> {
        let watching =
            Client::try_from(self.config.clone()).context("failed to set up a client for watches")?;
        let client = cluster::calls(&self.config).context("failed to set up a client for calls")?;
        self.run_with(client, watching, shutdown).await
    }

    async fn run_with(
        self,
        client: Client,
        watching: Client,
        shutdown: CancellationToken,
    ) -> anyhow::Result<()> {
        let home = Home::new(&self.environment.namespace);
        // Before any turn: no finalizer may be added any more where the namespace ends.
        home.enter(&client).await?;
        let watch = tokio::spawn(home.clone().watch(watching.clone()));
        // What ends it is looked at inside, so that the Lease is given back.
        let result = self.serve(&client, &watching, &shutdown, home.ends()).await;
        // Read once more: a Pod of a namespace that is being deleted may get its signal before the watch its event.
        home.look(&client).await;
        if home.ends().is_cancelled() {
            leave(&client, &self.environment.namespace, &shutdown).await;
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
        while let Term::Lost(loss) = self.lead(client, watching, shutdown, ends).await? {
            tracing::warn!(lease = LEASE, %loss, "the Lease is lost: this replica stands for election again");
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
        let told = async || {
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = ends.cancelled() => {}
            }
        };
        let lease = tokio::select! {
            biased;
            () = told() => return Ok(Term::Over),
            lease = self.lease(client) => lease,
        };
        let (mut leading, mut task) = lease.watch().await;
        let term = tokio::select! {
            biased;
            () = told() => Ok(Term::Over),
            term = self.hold(client, watching, &mut leading) => term,
        };
        self.metrics.leader.set(0);
        self.metrics.forget();
        // Nobody listens any more: that gives the Lease back.
        drop(leading);
        if !matches!(term, Ok(Term::Over)) || ends.is_cancelled() {
            // There is nothing to give back, and later it would be the Lease of our next term. One that goes with its
            // namespace is not worth the time either.
            task.abort();
        } else if tokio::time::timeout(RELEASE, &mut task).await.is_err() {
            tracing::warn!(
                lease = LEASE,
                "failed to give the Lease back in time; it ends by itself"
            );
        }
        term
    }

    /// Waits until `leading`, then reconciles until the Lease is lost.
    async fn hold(
        &self,
        client: &Client,
        watching: &Client,
        leading: &mut watch::Receiver<bool>,
    ) -> anyhow::Result<Term> {
        let namespace = &self.environment.namespace;
        tokio::select! {
            ready = leading.wait_for(|leading| *leading) => {
                ready.context("the election ended")?;
            }
            () = lease::gone(client, namespace) => return Ok(Term::Lost(Loss::Gone)),
        }
        tracing::info!(
            lease = LEASE,
            instance = self.instance,
            "this replica reconciles now"
        );
        self.metrics.leader.set(1);
        tokio::select! {
            biased;
            lost = leading.wait_for(|leading| !*leading) => {
                lost.context("the election ended")?;
                Ok(Term::Lost(Loss::Taken("another replica".to_owned())))
            }
            loss = lease::lost(client, namespace, &self.instance) => Ok(Term::Lost(loss)),
            () = self.reconcile_for_ever(client, watching) => Ok(Term::Over),
        }
    }

    async fn lease(&self, client: &Client) -> LeaseManager {
        let (duration, grace) = (lease::DURATION.as_secs(), lease::GRACE.as_secs());
        let parameters = LeaseParams::new(self.instance.clone(), duration, grace);
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

    async fn reconcile_for_ever(&self, client: &Client, watching: &Client) {
        let wake = Arc::new(Notify::new());
        let _watches = watches::start(watching, &self.environment.namespace, &wake);
        let mut requests = watches::Requests::default();
        let reports = reports::Reader::new(client.clone(), &self.environment.namespace);
        let metrics = self.metrics.clone();
        let api_servers = ApiServers::new(client.clone(), &self.config);
        let environment = self.environment.clone();
        let mut reconciler =
            Reconciler::new(client, api_servers, environment, reports, &self.instance, metrics);
        let mut backoff = Backoff::default();
        loop {
            let begun = Instant::now();
            let turn = tokio::time::timeout(TURN, Box::pin(reconciler.reconcile())).await;
            requests.follow(reconciler.approves(), watching, &wake);
            let failure = match turn {
                Ok(Ok(wait)) => Ok(wait),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("not done within {TURN:?}")),
            };
            match failure {
                Ok(wait) => {
                    backoff = Backoff::default();
                    self.metrics.turn(TurnResult::success, begun.elapsed());
                    // `notified` is cancel-safe: a wake-up during a turn is kept for the next wait.
                    if tokio::time::timeout(wait, wake.notified()).await.is_ok() {
                        tokio::time::sleep(reconciler.burst()).await;
                    }
                }
                Err(error) => {
                    self.metrics.turn(TurnResult::error, begun.elapsed());
                    let pause = backoff.next();
                    tracing::warn!(error, ?pause, "failed to reconcile; it is tried again");
                    after_failure(&wake, pause).await;
                }
            }
        }
    }
}

/// Waits `pause` or until something changes, which may be what mends it. Not less than a second: what a failed turn
/// wrote is heard as a change too.
async fn after_failure(wake: &Notify, pause: Duration) {
    let earliest = Instant::now() + SOONEST;
    let _changed = tokio::time::timeout(pause, wake.notified()).await;
    tokio::time::sleep_until(earliest).await;
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
        let pause = SOONEST
            .saturating_mul(2_u32.saturating_pow(self.0))
            .min(LONGEST_BACKOFF);
        self.0 = self.0.saturating_add(1);
        pause
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fake::Fake;

    const LEASE_PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/ns/leases/metricsstack-operator";

    /// A cluster without a stack, and an operator in it.
    fn cluster() -> (Fake, Operator) {
        let fake = Fake::default();
        fake.put("/api/v1/namespaces/ns", json!({"metadata": {"name": "ns"}}));
        fake.put(LEASE_PATH, json!({"metadata": {"name": LEASE}, "spec": {}}));
        let operator = Operator {
            config: Config::new("https://127.0.0.1:1".parse().unwrap()),
            environment: Environment::new("ns", "image"),
            instance: "us".to_owned(),
            metrics: Metrics::default(),
        };
        (fake, operator)
    }

    fn holder(fake: &Fake) -> Value {
        fake.get(LEASE_PATH).unwrap()["spec"]["holderIdentity"].clone()
    }

    async fn until(what: &str, holds: impl Fn() -> bool) {
        let held = tokio::time::timeout(Duration::from_mins(5), async {
            while !holds() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        assert!(held.await.is_ok(), "{what}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_lease_is_given_back_at_the_end() {
        let (fake, operator) = cluster();
        let shutdown = CancellationToken::new();
        let run = operator.run_with(fake.client(), fake.client(), shutdown.clone());
        let told = async {
            until("the Lease is ours", || holder(&fake) == "us").await;
            shutdown.cancel();
        };
        let (result, ()) = tokio::join!(run, told);
        result.unwrap();
        assert_eq!(holder(&fake), Value::Null);
    }

    #[tokio::test(start_paused = true)]
    async fn with_a_wrong_namespace_a_live_installation_is_left_alone() {
        let (fake, mut operator) = cluster();
        let registration = "/apis/apiregistration.k8s.io/v1/apiservices/v1.metrics.k8s.io";
        let ours = json!({"app.kubernetes.io/managed-by": "metricsstack-operator"});
        fake.put(
            registration,
            json!({"metadata": {"name": "v1.metrics.k8s.io", "labels": ours}}),
        );
        operator.environment.namespace = "typo".to_owned();
        let shutdown = CancellationToken::new();
        let error = operator
            .run_with(fake.client(), fake.client(), shutdown)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("\"typo\""), "{error}");
        assert_eq!(fake.writes(), [""; 0]);
        assert!(fake.get(registration).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_lost_the_lease_stops_and_waits_for_it() {
        let (fake, operator) = cluster();
        let shutdown = CancellationToken::new();
        let metrics = operator.metrics.clone();
        let run = operator.run_with(fake.client(), fake.client(), shutdown.clone());
        let leads = |wanted: i64| {
            let leader = metrics.leader.clone();
            move || leader.get() == wanted
        };
        let others = async {
            until("it leads", leads(1)).await;
            let theirs = json!({"holderIdentity": "them", "leaseDurationSeconds": 3600,
                "renewTime": "2226-11-24T05:00:00.000000Z"});
            fake.put(LEASE_PATH, json!({"metadata": {"name": LEASE}, "spec": theirs}));
            until("it stops", leads(0)).await;
            shutdown.cancel();
        };
        let (result, ()) = tokio::join!(run, others);
        result.unwrap();
        assert_eq!(holder(&fake), "them");
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_heard_during_a_pause_after_a_failure() {
        let pause = Duration::from_secs(30);
        for (change, waited) in [(None, 30), (Some(5), 5), (Some(0), 1)] {
            let (wake, start) = (Notify::new(), Instant::now());
            let change = async {
                if let Some(after) = change {
                    tokio::time::sleep(Duration::from_secs(after)).await;
                    wake.notify_one();
                }
            };
            tokio::join!(after_failure(&wake, pause), change);
            assert_eq!(start.elapsed(), Duration::from_secs(waited));
        }
    }

    #[test]
    fn pauses_double_and_end_somewhere() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..7).map(|_| backoff.next().as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
    }
}

//! One turn: observe, plan, desired, apply, verify, diagnose, status.

mod authority;
mod tell;

use std::net::SocketAddr;
use std::time::Duration;

use contract::names;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use tokio::time::Instant;

use crate::api::{MetricsStack, MetricsStackSpec, MetricsStackStatus};
use crate::api_servers::{ApiServer, ApiServers};
use crate::apply::{Applied, Applier};
use crate::desired;
use crate::diagnose;
use crate::events::Publisher;
use crate::finalize::{self, Extent, FinalizeError};
use crate::metrics::Metrics;
use crate::observe::{NodeFacts, ObserveError, Observed, Observer, Read};
use crate::plan::{self, Environment, Plan, Refusal, Registration};
use crate::rotation::Rotation;
use crate::{adopt, cluster, kubelet_certificates, reports, restart, status, verify};

/// Time between turns when all is well: metrics are read, kubelets looked at, and objects compared that often.
const QUIET: Duration = Duration::from_secs(30);
/// The shortest time between turns while something is not as it shall be.
const EAGER: Duration = Duration::from_secs(2);
/// Time that kube-aggregator gets to find out about a new APIService before the first read counts as failed.
const REGISTERED: Duration = Duration::from_secs(10);
/// How many reads must fail before that is said.
const TRIES: u32 = 2;
/// Events come in bursts; this long after the first, one turn sees them all.
pub(crate) const BURST: Duration = Duration::from_millis(200);
/// The same while somebody else keeps changing an object of ours.
const CONTESTED: Duration = Duration::from_secs(5);
/// How soon is looked again at kubelets' requests that cannot be decided yet: a Node's addresses may come late.
const UNDECIDED: Duration = Duration::from_secs(5);
/// Pause between reads.
const PAUSE: Duration = Duration::from_millis(250);

/// Why a turn ended early. It is done again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReconcileError {
    /// Something could not be read.
    #[error(transparent)]
    Observe(#[from] ObserveError),
    /// The stack could not be read or written.
    #[error("failed to {action} MetricsStack {}: {}", names::STACK_NAME, cluster::describe(.source))]
    Stack {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        source: kube::Error,
    },
    /// The stack is being deleted, and something of it stays.
    #[error(transparent)]
    Finalize(#[from] FinalizeError),
}

/// Does turns.
pub struct Reconciler {
    client: Client,
    environment: Environment,
    observer: Observer,
    applier: Applier,
    api_servers: ApiServers,
    rotation: Rotation,
    publisher: Publisher,
    metrics: Metrics,
    /// The certificate authority's Secret as it was last written or found good. With this, one that is deleted or
    /// spoilt comes back as it was; a new one would leave metrics-api with a certificate that nobody trusts until
    /// kubelet has brought it another.
    authority: Option<Secret>,
    /// The last spec without a fault: what runs is kept by it while a later one has faults.
    last_good: Option<MetricsStackSpec>,
    /// How many turns in a row could not read what all else rests on.
    blind: u32,
    /// Whether somebody else keeps changing an object of ours.
    contested: bool,
    /// Whether kubelets' requests for certificates are decided on.
    approves: bool,
    /// Since when something is not as it shall be.
    unready: Option<Instant>,
}

impl Reconciler {
    /// `instance` is the name of this Pod.
    #[must_use]
    pub fn new(
        client: &Client,
        api_servers: ApiServers,
        environment: Environment,
        reports: reports::Reader,
        instance: &str,
        metrics: Metrics,
    ) -> Self {
        Self {
            observer: Observer::new(client.clone(), &environment.namespace, reports),
            applier: Applier::new(client.clone(), &environment.namespace),
            api_servers,
            rotation: Rotation::new(environment.certificate_minimum_age),
            publisher: Publisher::new(client.clone(), instance),
            client: client.clone(),
            environment,
            metrics,
            authority: None,
            last_good: None,
            blind: 0,
            contested: false,
            approves: false,
            unready: None,
        }
    }

    /// One turn. Returns how long the next one can wait if nothing happens.
    pub async fn reconcile(&mut self) -> Result<Duration, ReconcileError> {
        let api: Api<MetricsStack> = Api::all(self.client.clone());
        let stack = api.get_opt(names::STACK_NAME).await.map_err(on_stack("read"));
        let stack = stack.inspect_err(|_| self.metrics.forget())?;
        let Some(stack) = stack else {
            self.unready = None;
            self.forget();
            return Ok(QUIET);
        };
        if stack.metadata.deletion_timestamp.is_some() {
            if finalize::holds(&stack) {
                tracing::info!("the stack is being deleted: removing what is ours, the registration first");
                if let Err(error) = self.finalize().await {
                    self.publisher.still_there(&stack, &error.to_string()).await;
                    return Err(error.into());
                }
                self.forget();
                tracing::info!("the stack and everything of it is gone");
            }
            return Ok(QUIET);
        }
        if !finalize::holds(&stack) {
            // First of all: from here on there is something to clean up.
            finalize::hold(&self.client, &stack)
                .await
                .map_err(on_stack("add the finalizer to"))?;
        }
        let (status, next_check) = Box::pin(self.turn(&stack)).await?;
        Ok(self.wait(&status, next_check))
    }

    /// How long a turn waits after a change was heard. Not every write of somebody who keeps changing what is ours is
    /// worth a turn.
    #[must_use]
    pub fn burst(&self) -> Duration {
        if self.contested { CONTESTED } else { BURST }
    }

    /// Whether a new request of a kubelet for a certificate is worth a turn.
    #[must_use]
    pub(crate) fn approves(&self) -> bool {
        self.approves
    }

    /// Another stack gets another authority, and has another spec. Who changed the objects of this one is forgotten.
    fn forget(&mut self) {
        self.authority = None;
        self.last_good = None;
        self.contested = false;
        self.approves = false;
        self.metrics.forget();
        self.applier = Applier::new(self.client.clone(), &self.environment.namespace);
        self.rotation = Rotation::new(self.environment.certificate_minimum_age);
    }

    async fn finalize(&self) -> Result<(), FinalizeError> {
        finalize::remove(&self.client, &self.environment.namespace, Extent::Everything).await?;
        finalize::release(&self.client).await
    }

    async fn turn(
        &mut self,
        stack: &MetricsStack,
    ) -> Result<(MetricsStackStatus, Option<Timestamp>), ReconcileError> {
        let mut observed = match Box::pin(self.observer.observe()).await {
            Ok(observed) => observed,
            Err(error) => {
                self.blind = self.blind.saturating_add(1);
                // One hiccup is no news.
                if error.is_refusal() || self.blind > 1 {
                    self.tell_blind(stack, &error).await?;
                }
                return Err(error.into());
            }
        };
        self.blind = 0;
        self.observer.named(&mut observed, &stack.spec).await;
        if observed.given_secret.is_some() {
            self.authority = None;
        }
        let put_back = authority::recall(self.authority.as_ref(), &mut observed);
        self.observer.reports(&mut observed).await;
        observed.usage = self.rotation.usage(plan::published(&observed), &observed);
        let servers = self.api_servers.find().await;
        let singly = servers.iter().filter_map(|server| server.address);
        observed.api_servers = singly.map(|address| (address, None)).collect();
        let now = Timestamp::now();
        let last_good = self.last_good.as_ref();
        let outcome = plan::plan(stack, last_good, &observed, &self.environment, now);
        if outcome.as_ref().is_ok_and(|plan| plan.problems.is_empty()) {
            self.last_good = Some(stack.spec.clone());
        }
        let applied = match &outcome {
            Ok(plan) => {
                let objects = desired::objects(plan);
                let applied = self.applier.apply(&objects).await;
                if applied.authority {
                    self.authority = authority::of(&objects);
                }
                self.tell_of_repairs(stack, plan, &applied, put_back).await;
                applied
            }
            // There is nothing to do, or no way to do it.
            Err(_) => Applied::default(),
        };
        self.metrics.writes.inc_by(applied.writes);
        let mut undecided = 0;
        if let Ok(plan) = &outcome {
            self.restart(&observed).await;
            self.approves = plan.kubelet.approves.is_some();
            undecided = self.approve(stack, plan, &observed.nodes).await;
        }
        let told = self.rotation.deliver(&self.client, &observed).await;
        self.metrics.writes.inc_by(told);
        (observed.read, observed.api_servers) = self.verify(&outcome, &observed, &applied, &servers).await;
        let certificates = outcome.as_ref().ok().map(|plan| &plan.certificates);
        self.rotation.read(&observed.read, certificates);
        if applied.writes > 0 {
            self.observer.deployment(&mut observed).await;
        }
        // Now with what kube-aggregator says of what was just written.
        if let Ok(api_services) = cluster::api_services(&self.client).await {
            observed.api_services = api_services;
        }
        if let Ok(plan) = &outcome {
            self.rotation.acknowledge(plan, &observed, &servers).await;
        }
        match adopt::former_servers(&self.client, &observed.api_services).await {
            Ok(servers) => observed.former_servers = servers,
            Err(error) => tracing::warn!(
                error = cluster::describe(&error),
                "failed to see whether the former metrics server still runs"
            ),
        }
        self.observer.trouble(&mut observed).await;
        observed.conflicts = applied.conflicts;
        observed.monitoring_errors = applied.monitoring_errors;
        self.contested = !applied.contests.is_empty();
        observed.contests = applied.contests;
        observed.certificates_unstored = outcome.is_ok() && !applied.certificates;
        observed.apply_error = (!applied.errors.is_empty()).then(|| applied.errors.join(". "));

        let outcome = outcome.as_ref();
        let diagnosis = diagnose::diagnose(&observed, outcome);
        let status = status::status(
            stack.status.as_ref(),
            stack.metadata.generation,
            &observed,
            outcome,
            &diagnosis,
            Timestamp::now(),
        );
        self.tell(stack, &status, &diagnosis.findings).await?;
        let plan = outcome.ok();
        let look = self.rotation.next_look(plan.map(|plan| &plan.certificates));
        let undecided = (undecided > 0).then_some(UNDECIDED);
        let soon = [look, undecided].into_iter().flatten().min();
        let soon = soon.and_then(|soon| Timestamp::now().saturating_add(soon).ok());
        let next_check = plan.and_then(|plan| plan.next_check);
        Ok((status, next_check.into_iter().chain(soon).min()))
    }

    async fn restart(&self, observed: &Observed) {
        let namespace = &self.environment.namespace;
        let deployment = observed.deployment.as_ref();
        match restart::for_new_account(&self.client, namespace, deployment, &observed.pods).await {
            Ok(restarted) => {
                self.metrics.writes.inc_by(u64::from(restarted));
            }
            Err(error) => {
                tracing::warn!(
                    error = cluster::describe(&error),
                    "failed to start metrics-api again; it is tried again"
                );
            }
        }
    }

    /// Decides on kubelets' requests for certificates, if the stack says so. Returns how many to look at again soon.
    async fn approve(&self, stack: &MetricsStack, plan: &Plan, nodes: &[NodeFacts]) -> usize {
        let Some(prefixes) = &plan.kubelet.approves else {
            return 0;
        };
        let rules = kubelet_certificates::Rules {
            prefixes,
            nodes,
            service: self.environment.api_service,
        };
        match kubelet_certificates::decide(&self.client, &rules).await {
            Ok(outcome) => {
                self.metrics
                    .writes
                    .inc_by(outcome.approved + outcome.denied.len() as u64);
                self.publisher.denied(stack, &outcome.denied).await;
                outcome.waiting
            }
            Err(error) => {
                tracing::warn!(
                    error = cluster::describe(&error),
                    "failed to decide on kubelets' requests for certificates; it is tried again"
                );
                1
            }
        }
    }

    async fn verify(
        &self,
        outcome: &Result<Plan, Refusal>,
        observed: &Observed,
        applied: &Applied,
        servers: &[ApiServer],
    ) -> (Read, Vec<(SocketAddr, Option<Read>)>) {
        let due = match outcome {
            Ok(plan) => plan.registration == Registration::Register,
            Err(_) => {
                !observed.api_services.is_empty()
                    && observed.api_services.iter().all(|service| observed.owns(service))
            }
        };
        if !due {
            let each = servers.iter().filter_map(|server| server.address);
            return (Read::NotTried, each.map(|address| (address, None)).collect());
        }
        let deadline = Instant::now() + REGISTERED;
        let mut tries = 0;
        loop {
            let (read, each) = verify::through(servers).await;
            tries += 1;
            // A connection may break once: that is not worth a word.
            let enough = tries >= TRIES && (!applied.registered || Instant::now() >= deadline);
            if read == Read::Succeeded || enough {
                return (read, each);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Eager while something is wrong, less so the longer it lasts, and in time for the next certificate.
    fn wait(&mut self, status: &MetricsStackStatus, next_check: Option<Timestamp>) -> Duration {
        let ready = status
            .conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True");
        let wait = if ready {
            self.unready = None;
            QUIET
        } else {
            let since = *self.unready.get_or_insert_with(Instant::now);
            (since.elapsed() / 10).clamp(EAGER, QUIET)
        };
        let due = next_check.map_or(QUIET, |at| {
            Duration::try_from(at.duration_since(Timestamp::now()))
                .unwrap_or(Duration::ZERO)
                .max(EAGER)
        });
        wait.min(due)
    }
}

fn on_stack(action: &'static str) -> impl FnOnce(kube::Error) -> ReconcileError {
    move |source| ReconcileError::Stack { action, source }
}

#[cfg(test)]
mod tests;

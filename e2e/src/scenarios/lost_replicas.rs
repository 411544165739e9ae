//! How long reads fail when a replica is drained, killed, or cut off from the network.

use std::fmt::{Display, Formatter};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use contract::names::{METRICS_API, METRICS_API_PORT};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;

use super::access::NODES;
use super::context::Context;
use super::load::{self, Outcome};
use super::pod::RunningPod;
use super::wait::eventually;
use crate::test::install_yaml::NAMESPACE;

const DEPLOYMENT: &str = "deployment/metrics-api";
const OPERATOR: &str = "deployment/metricsstack-operator";
const REPLICAS: usize = 2;
/// Time for two replicas to be back. A new one is ready when it has two samples of every kubelet.
const BACK_WITHIN: Duration = Duration::from_mins(2);
/// Time for a lost replica's endpoint to go: three failed probes, five seconds apart, each cut off after a while.
const REMOVED_WITHIN: Duration = Duration::from_mins(1);
/// Time for reads to be as they were once the endpoint is gone. A client of HTTP/2 in Go finds out after 45 s that nobody
/// answers.
const SETTLED_WITHIN: Duration = Duration::from_secs(100);
/// Quick answers, one after the other, that show that nothing hangs any more.
const SETTLED_READS: u32 = 20;
const QUICK: Duration = Duration::from_secs(1);
/// Time for what was removed to reach every kube-proxy, and for reads that were under way.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(100);

/// What happens to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// Its node is drained.
    Drained,
    /// Its process ends at once.
    Killed,
    /// Every packet from and to it is dropped.
    CutOff,
}

impl Display for Loss {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Drained => "drained",
            Self::Killed => "killed",
            Self::CutOff => "cut off",
        })
    }
}

/// What was seen of a loss.
struct Seen {
    outcome: Outcome,
    /// From the loss until its endpoint was not ready any more.
    removed_after: Duration,
    /// From the loss until the last read was begun that failed.
    failed_until: Option<Duration>,
}

impl Display for Seen {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        let failed = self.outcome.failed.len();
        write!(f, "{failed} of {} reads failed", failed + self.outcome.answered)?;
        if let Some(until) = self.failed_until {
            write!(f, ", the last {:.1} s after it", until.as_secs_f64())?;
        }
        write!(
            f,
            "; the endpoint was removed after {:.1} s, the slowest answer took {:.1} s",
            self.removed_after.as_secs_f64(),
            self.outcome.slowest.as_secs_f64()
        )?;
        for (why, number) in self.outcome.reasons() {
            write!(f, "; {number} times: {why}")?;
        }
        Ok(())
    }
}

/// As it is installed: nobody notices a drain, and every other loss is over when the endpoint is gone.
pub(super) async fn are_survived(context: &Context) -> Result<()> {
    context.working_stack().await?;
    for loss in [Loss::Drained, Loss::Killed, Loss::CutOff] {
        let seen = lose(context, loss).await.with_context(|| loss.to_string())?;
        context.say(format_args!("{loss}: {seen}"));
        if loss == Loss::Drained {
            seen.outcome.expect_no_failure().context("drained")?;
        }
        if let Some(until) = seen.failed_until {
            ensure!(
                until <= seen.removed_after + NOTICED_WITHIN,
                "{loss}: reads failed longer than its endpoint was there: {seen}; the last: {:?}",
                seen.outcome.failed.last()
            );
        }
    }
    context.ready().await?;
    Ok(())
}

/// Flags of metrics-api, and what they are for.
const PROTOCOLS: [(&str, &[&str]); 3] = [
    (
        "HTTP/2",
        &["--disable-http2-serving=false", "--max-connection-age=0s"],
    ),
    (
        "HTTP/2, GOAWAY after 30 s",
        &["--disable-http2-serving=false", "--max-connection-age=30s"],
    ),
    ("HTTP/1.1", &["--disable-http2-serving=true"]),
];

/// Every loss with every protocol: the figures of docs/operations.md.
pub(super) async fn are_measured(context: &Context) -> Result<()> {
    context.working_stack().await?;
    for (protocol, flags) in PROTOCOLS {
        serve_with(context, flags).await?;
        for loss in [Loss::Drained, Loss::Killed, Loss::CutOff] {
            let seen = lose(context, loss).await;
            let seen = seen.with_context(|| format!("{protocol}, {loss}"))?;
            expect_flags(context, flags).await?;
            context.say(format_args!("{protocol}, {loss}: {seen}"));
        }
    }
    scale_operator(context, 1).await?;
    context.working_stack().await?;
    Ok(())
}

/// Runs metrics-api with further flags, which the operator would take away.
async fn serve_with(context: &Context, flags: &[&str]) -> Result<()> {
    scale_operator(context, 0).await?;
    let mut deployment = deployment(context).await?;
    let names: Vec<_> = PROTOCOLS
        .iter()
        .flat_map(|(_, flags)| *flags)
        .map(|flag| name(flag))
        .collect();
    let args = args(&mut deployment)?;
    args.retain(|arg| !names.contains(&name(arg)));
    args.extend(flags.iter().map(|&flag| flag.to_owned()));
    let patch =
        json!({"spec": {"template": {"spec": {"containers": [{"name": METRICS_API, "args": args}]}}}});
    let namespace = format!("--namespace={NAMESPACE}");
    for args in [
        ["patch", DEPLOYMENT, "--patch", &patch.to_string()].as_slice(),
        &["rollout", "status", DEPLOYMENT, "--timeout=150s"],
    ] {
        context.kubectl(&[args, &[&namespace]].concat()).await?;
    }
    both_serve(context).await
}

/// The name of a flag.
fn name(flag: &str) -> &str {
    flag.split('=').next().unwrap_or(flag)
}

async fn deployment(context: &Context) -> Result<Deployment> {
    let api: Api<Deployment> = Api::namespaced(context.client.clone(), NAMESPACE);
    Ok(api.get(METRICS_API).await?)
}

fn args(deployment: &mut Deployment) -> Result<&mut Vec<String>> {
    let spec = deployment.spec.template.spec.as_mut();
    let container = spec.and_then(|spec| spec.containers.first_mut());
    container
        .and_then(|container| container.args.as_mut())
        .context("a Deployment without arguments")
}

/// An error if what was measured was not what was meant.
async fn expect_flags(context: &Context, flags: &[&str]) -> Result<()> {
    let mut deployment = deployment(context).await?;
    let args = args(&mut deployment)?;
    ensure!(
        flags.iter().all(|flag| args.iter().any(|arg| arg == flag)),
        "{flags:?} are not in {args:?}"
    );
    Ok(())
}

/// Waits until the last of its pods has gone, too: it writes until then.
async fn scale_operator(context: &Context, replicas: usize) -> Result<()> {
    let (namespace, wanted) = (
        format!("--namespace={NAMESPACE}"),
        format!("--replicas={replicas}"),
    );
    context.kubectl(&["scale", OPERATOR, &wanted, &namespace]).await?;
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), NAMESPACE);
    let its = ListParams::default().labels("app.kubernetes.io/name=metricsstack-operator");
    eventually("the operator is scaled", BACK_WITHIN, async || {
        let found = pods.list(&its).await?.items.len();
        ensure!(found == replicas, "{found} pods instead of {replicas}");
        Ok(())
    })
    .await
}

/// Loses the replica that most reads go to, under load, and brings it back.
async fn lose(context: &Context, loss: Loss) -> Result<Seen> {
    both_serve(context).await?;
    let work = async {
        let replica = busiest(context).await?;
        let since = Instant::now();
        let losing = async { replica.lose(context, loss).await };
        // A drain ends when the pod has; its endpoint is removed long before.
        let (removed_after, ()) = tokio::try_join!(endpoint_removed(context, &replica, since), losing)?;
        settled(context).await?;
        Ok((replica, since, removed_after))
    };
    let worked = load::during(context, work).await;
    let replica = match &worked {
        Ok(((replica, ..), _)) => Some(replica),
        Err(_) => None,
    };
    // What is left of a failed attempt would spoil whatever comes next.
    bring_back(context, replica).await?;
    let ((_, since, removed_after), outcome) = worked?;
    let last = outcome.failed.last().map(|(begun, _)| *begun);
    Ok(Seen {
        removed_after,
        failed_until: last.map(|begun| begun.saturating_duration_since(since)),
        outcome,
    })
}

/// A replica of metrics-api.
#[derive(Debug)]
struct Replica(RunningPod);

impl Replica {
    async fn lose(&self, context: &Context, loss: Loss) -> Result<()> {
        match loss {
            Loss::Drained => {
                let node = format!("node-{}", self.0.node);
                let pods = format!("--pod-selector=app.kubernetes.io/name={METRICS_API}");
                let args = ["drain", &node, &pods, "--delete-emptydir-data", "--timeout=90s"];
                context.kubectl(&args).await?;
            }
            Loss::Killed => {
                self.0.kill(context, METRICS_API).await?;
            }
            Loss::CutOff => {
                for rule in self.rules() {
                    self.0.run(context, &rule).await?;
                }
            }
        }
        Ok(())
    }

    /// Packets that its network namespace has received.
    async fn received(&self, context: &Context) -> Result<u64> {
        let table = format!("/proc/{}/net/dev", self.0.process(context, METRICS_API).await?);
        let table = self.0.run(context, &["cat", &table]).await?;
        let line = table.lines().find_map(|line| line.trim().strip_prefix("eth0:"));
        let packets = line.and_then(|line| line.split_whitespace().nth(1));
        packets
            .and_then(|packets| packets.parse().ok())
            .with_context(|| format!("no eth0 in {table}"))
    }

    /// Rules that drop its packets on its node. kubelet's probes do not get through either.
    fn rules(&self) -> Vec<Vec<String>> {
        let chains = [
            ("INPUT", "-s"),
            ("OUTPUT", "-d"),
            ("FORWARD", "-s"),
            ("FORWARD", "-d"),
        ];
        let rule = |(chain, which): (&str, &str)| {
            let address = self.0.address.to_string();
            ["iptables", "-w", "-I", chain, which, &address, "-j", "DROP"]
                .map(str::to_owned)
                .to_vec()
        };
        chains.into_iter().map(rule).collect()
    }
}

async fn replicas(context: &Context) -> Result<Vec<Replica>> {
    let pods = context.metrics_api_pods().await?;
    let replicas = pods
        .into_iter()
        .map(|(_, address)| RunningPod::at(address).map(Replica));
    replicas.collect()
}

/// The one to which most packets go: over HTTP/2 one connection carries all reads of a version.
async fn busiest(context: &Context) -> Result<Replica> {
    let mut busiest = None;
    let replicas = replicas(context).await?;
    let before =
        futures::future::try_join_all(replicas.iter().map(|replica| replica.received(context))).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    for (replica, before) in replicas.into_iter().zip(before) {
        let received = replica.received(context).await?.saturating_sub(before);
        if busiest.as_ref().is_none_or(|(most, _)| received > *most) {
            busiest = Some((received, replica));
        }
    }
    busiest.map(|(_, replica)| replica).context("no replica")
}

/// Addresses to which the Service leads.
async fn endpoints(context: &Context) -> Result<Vec<String>> {
    let api: Api<EndpointSlice> = Api::namespaced(context.client.clone(), NAMESPACE);
    let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={METRICS_API}"));
    let slices = api.list(&of_service).await?;
    let endpoints = slices
        .into_iter()
        .flat_map(|slice| slice.endpoints.unwrap_or_default());
    let ready = endpoints.filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|conditions| conditions.ready) == Some(true)
    });
    Ok(ready.flat_map(|endpoint| endpoint.addresses).collect())
}

async fn endpoint_removed(context: &Context, replica: &Replica, since: Instant) -> Result<Duration> {
    let address = replica.0.address.to_string();
    let deadline = since + REMOVED_WITHIN;
    loop {
        let looked = since.elapsed();
        if !endpoints(context).await?.contains(&address) {
            return Ok(looked);
        }
        ensure!(
            Instant::now() < deadline,
            "the endpoint {address} is still there after {REMOVED_WITHIN:?}"
        );
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until reads are answered quickly again.
async fn settled(context: &Context) -> Result<()> {
    let request = || http::Request::get(NODES).body(Vec::new());
    eventually("reads are as before", SETTLED_WITHIN, async || {
        for read in 1..=SETTLED_READS {
            let answer = tokio::time::timeout(QUICK, context.client.request_text(request()?)).await;
            answer.with_context(|| format!("read {read} takes longer than {QUICK:?}"))??;
        }
        Ok(())
    })
    .await
}

async fn bring_back(context: &Context, replica: Option<&Replica>) -> Result<()> {
    for node in 1..=context.cluster.nodes() {
        context.kubectl(&["uncordon", &format!("node-{node}")]).await?;
    }
    for rule in replica.map(Replica::rules).into_iter().flatten() {
        let undo: Vec<_> = rule
            .into_iter()
            .map(|word| if word == "-I" { "-D".to_owned() } else { word })
            .collect();
        if let Some(replica) = replica {
            // There is none unless it was cut off.
            let _ = replica.0.run(context, &undo).await;
        }
    }
    both_serve(context).await
}

/// Waits until both replicas are ready, and endpoints of the Service.
async fn both_serve(context: &Context) -> Result<()> {
    eventually("both replicas serve", BACK_WITHIN, async || {
        let pods = context.metrics_api_pods().await?;
        let endpoints = endpoints(context).await?;
        let served = pods
            .iter()
            .filter(|(_, address)| endpoints.contains(&address.to_string()));
        ensure!(
            served.count() == REPLICAS && endpoints.len() == REPLICAS,
            "pods {pods:?}, endpoints {endpoints:?}, port {METRICS_API_PORT}"
        );
        Ok(())
    })
    .await
}

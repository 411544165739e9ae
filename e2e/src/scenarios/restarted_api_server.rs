//! kube-apiserver dies and comes back. Whatever followed objects before asks for changes since a version that is too old
//! by then, as after a compaction of etcd.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use contract::names::{MANAGED_BY, READER_CLUSTER_ROLE};

use super::context::Context;
use super::pod::RunningPod;
use super::wait::eventually;
use crate::test::install_yaml::NAMESPACE;

const PROGRAM: &str = "kube-apiserver";
/// kubelet starts it again.
const BACK_WITHIN: Duration = Duration::from_mins(2);
const GONE_WITHIN: Duration = Duration::from_mins(1);
/// Sooner than the operator looks by itself.
const SEEN_WITHIN: Duration = Duration::from_secs(20);

/// The operator hears of changes again, without a restart, and the stack is ready.
pub(super) async fn is_followed_again(context: &Context) -> Result<()> {
    context.working_stack().await?;
    // Replicas that a scenario before has replaced take their time to end.
    eventually("only the new replicas are left", GONE_WITHIN, async || {
        let containers = context.metrics_api_containers().await?;
        let wanted = usize::from(context.cluster.nodes());
        ensure!(containers.split_whitespace().count() == wanted, "{containers}");
        Ok(())
    })
    .await?;
    let operator = ["get", "pods", "--namespace", NAMESPACE, "--selector"];
    let selector = format!("app.kubernetes.io/name={MANAGED_BY}");
    let restarts = "--output=jsonpath={.items[*].status.containerStatuses[*].containerID}";
    let operator = [operator.as_slice(), &[&selector, restarts]].concat();
    let before = (
        context.kubectl(&operator).await?,
        context.metrics_api_containers().await?,
    );
    let control_plane = RunningPod::of_control_plane(context);
    control_plane.kill(context, PROGRAM).await?;
    let began = Instant::now();
    eventually("kube-apiserver is back", BACK_WITHIN, async || {
        context.kubectl(&["get", "--raw", "/readyz"]).await
    })
    .await?;
    context.ready().await?;
    context.say(format_args!(
        "ready again after {:.1} s",
        began.elapsed().as_secs_f64()
    ));

    let role = ["clusterrole", READER_CLUSTER_ROLE];
    context.kubectl(&["delete", role[0], role[1]]).await?;
    let began = Instant::now();
    eventually("what is deleted comes back", SEEN_WITHIN, async || {
        context.kubectl(&["get", role[0], role[1]]).await
    })
    .await?;
    context.say(format_args!(
        "put right after {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    let after = (
        context.kubectl(&operator).await?,
        context.metrics_api_containers().await?,
    );
    ensure!(after == before, "containers were {before:?}, are {after:?}");
    let args = [
        "logs",
        "--namespace",
        NAMESPACE,
        "--selector",
        &selector,
        "--tail=-1",
    ];
    let log = context.kubectl(&args).await?;
    let broken = log
        .lines()
        .filter(|line| line.contains("a watch broke off"))
        .count();
    ensure!(broken > 0, "no watch broke off, so nothing was tried");
    context.say(format_args!("{broken} times the operator began a watch again"));
    context.ready().await.map(drop).context("in the end")
}

//! metrics-api in the network of its nodes, and behind a `NetworkPolicy`: there and back under load.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use contract::names::METRICS_API;
use serde_json::{Value, json};

use super::context::Context;
use super::load;
use super::wait::eventually;
use crate::test::install_yaml::NAMESPACE;

/// Time for every replica to be replaced, one after the other.
const REPLACED_WITHIN: Duration = Duration::from_secs(150);

pub(super) async fn there_and_back_fails_no_read(context: &Context) -> Result<()> {
    context.working_stack().await?;
    let nodes: Vec<_> = (1..=context.cluster.nodes())
        .map(|node| context.cluster.node_ip(node))
        .collect();
    let work = async {
        let policy = json!({"networkPolicy": "Enabled"});
        let both = json!({"networkPolicy": "Enabled", "metricsApi": {"hostNetwork": true}});
        context.apply_stack(&both).await?;
        moved(context, |address| nodes.contains(&address))
            .await
            .context("to the nodes' network")?;
        let found = network_policies(context).await?;
        ensure!(
            found.is_empty(),
            "a NetworkPolicy has no meaning there: {found:?}"
        );

        context.apply_stack(&policy).await?;
        moved(context, |address| !nodes.contains(&address))
            .await
            .context("back")?;
        let found = network_policies(context).await?;
        let [policy] = found.as_slice() else {
            anyhow::bail!("expected one NetworkPolicy: {found:?}");
        };
        let ports = policy["spec"]["egress"].to_string();
        ensure!(ports.contains("10250") && ports.contains("6443"), "{ports}");

        context.apply_stack(&Value::Null).await?;
        eventually("the NetworkPolicy is gone", REPLACED_WITHIN, async || {
            let found = network_policies(context).await?;
            ensure!(found.is_empty(), "{found:?}");
            Ok(())
        })
        .await
    };
    let ((), outcome) = load::during(context, work).await?;
    context.say(format_args!(
        "replicas replaced twice, {} reads answered, {} failed",
        outcome.answered,
        outcome.failed.len()
    ));
    outcome.expect_no_failure()
}

/// Waits until the address of every replica is as wanted, and the stack ready.
async fn moved(context: &Context, is_wanted: impl Fn(IpAddr) -> bool) -> Result<()> {
    eventually("every replica has moved", REPLACED_WITHIN, async || {
        let pods = context.metrics_api_pods().await?;
        ensure!(
            pods.len() == 2 && pods.iter().all(|(_, address)| is_wanted(*address)),
            "{pods:?}"
        );
        Ok(())
    })
    .await?;
    context.ready().await?;
    Ok(())
}

async fn network_policies(context: &Context) -> Result<Vec<Value>> {
    let selector = format!("--field-selector=metadata.name={METRICS_API}");
    let args = [
        "get",
        "networkpolicies",
        "--namespace",
        NAMESPACE,
        &selector,
        "--output=json",
    ];
    let list: Value = serde_json::from_str(&context.kubectl(&args).await?)?;
    Ok(list["items"].as_array().cloned().unwrap_or_default())
}

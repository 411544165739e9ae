//! Kubelets that misbehave hide nobody but themselves, and are named once a change.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use contract::report::ErrorClass;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::access::NODES;
use super::boundaries::authority;
use super::context::Context;
use super::fake_kubelet::{self, Behaviour, FakeKubelet};
use super::wait::eventually;
use crate::test::install_yaml::NAMESPACE;

/// Time for a turn of every node and the operator's look at the report: the slowest answer is a timeout.
const SEEN_WITHIN: Duration = Duration::from_secs(90);
/// Requests after which a log that repeats itself would show.
const REPEATS: usize = 2;

/// One of every sickness beside the real kubelets.
pub(super) async fn only_they_are_affected(context: &Context) -> Result<()> {
    context.working_stack().await?;
    let began = Timestamp::now();
    let ca = authority(context, "ca").await?;
    let mut fakes = Vec::new();
    for (name, behaviour, class) in [
        ("401", Behaviour::Status(401), ErrorClass::Unauthorized),
        ("403", Behaviour::Status(403), ErrorClass::Forbidden),
        ("404", Behaviour::Status(404), ErrorClass::NotFound),
        ("500", Behaviour::Status(500), ErrorClass::BadStatus),
        ("garbage", Behaviour::Garbage, ErrorClass::Malformed),
        ("endless", Behaviour::Endless, ErrorClass::TooLarge),
        ("silent", Behaviour::Silent, ErrorClass::Timeout),
    ] {
        // A name of its own for each run, so that logs of earlier ones are not counted.
        let node = format!("fake-{name}-{}", began.as_second());
        let identity = ca.kubelet(&node, context.own_address()?.into())?;
        fakes.push((
            FakeKubelet::start(context, node, identity, behaviour).await?,
            class,
        ));
    }
    let deserted = [
        (
            format!("fake-refused-{}", began.as_second()),
            json!([{"type": "InternalIP", "address": context.own_address()?}]),
            ErrorClass::Unreachable,
        ),
        (
            format!("fake-unknown-{}", began.as_second()),
            json!([{"type": "Hostname", "address": "kubelet.invalid"}]),
            ErrorClass::NameNotResolved,
        ),
        (
            format!("fake-nowhere-{}", began.as_second()),
            json!([]),
            ErrorClass::NoAddress,
        ),
    ];
    for (node, addresses, _) in &deserted {
        fake_kubelet::create_deserted(context, node, addresses).await?;
    }
    let fake = fakes.iter().map(|(fake, class)| (&fake.node, class));
    let sick: Vec<_> = fake
        .chain(deserted.iter().map(|(node, _, class)| (node, class)))
        .collect();
    eventually(
        "the status names each sick kubelet with its class",
        SEEN_WITHIN,
        async || {
            let stack = context.stack().await?;
            for (node, class) in &sick {
                ensure!(
                    names(stack.failing(), class.as_str(), node),
                    "{node}, {class}: {}",
                    stack.failing()
                );
                stack.expect_finding(&format!("Kubelet{class}"))?;
            }
            ensure!(
                stack.0["status"]["kubelets"]["answering"] == 2,
                "{}",
                stack.0["status"]["kubelets"]
            );
            stack.expect("Available", "True", "").map(drop)
        },
    )
    .await?;
    healthy_ones_go_on(context, Timestamp::now()).await?;
    logged_once(context, &fakes).await?;
    changes_are_logged(context, &fakes).await?;
    recovers(context, &fakes).await
}

/// Whether the class has this node among its examples.
fn names(failing: &Value, class: &str, node: &str) -> bool {
    let entries = failing.as_array().map_or(&[] as &[Value], Vec::as_slice);
    entries.iter().any(|entry| {
        let examples = entry["examples"]
            .as_array()
            .map_or(&[] as &[Value], Vec::as_slice);
        let named = examples
            .iter()
            .any(|example| example.as_str().is_some_and(|text| text.starts_with(node)));
        entry["reason"]
            .as_str()
            .is_some_and(|reason| reason.ends_with(class))
            && named
    })
}

/// The real nodes and their pods are answered with samples that are newer than `since`.
async fn healthy_ones_go_on(context: &Context, since: Timestamp) -> Result<()> {
    eventually("the real nodes have newer samples", SEEN_WITHIN, async || {
        let list: Value = serde_json::from_str(&context.kubectl(&["get", "--raw", NODES]).await?)?;
        let items = list["items"].as_array().context("no items")?;
        let found: Vec<_> = items
            .iter()
            .filter_map(|item| item["metadata"]["name"].as_str())
            .collect();
        ensure!(found == ["node-1", "node-2"], "the list has {found:?}");
        for item in items {
            let time: Timestamp = item["timestamp"].as_str().unwrap_or_default().parse()?;
            ensure!(time > since, "{} is of {time}", item["metadata"]["name"]);
        }
        Ok(())
    })
    .await?;
    context
        .kubectl(&["top", "pod", "--namespace=kube-system", "etcd-node-1"])
        .await?;
    Ok(())
}

/// What each replica says about a node, one line a change.
async fn lines(context: &Context, node: &str) -> Result<Vec<(String, Vec<String>)>> {
    let mut found = Vec::new();
    for (pod, _) in context.metrics_api_pods().await? {
        let log = context.kubectl(&["logs", "--namespace", NAMESPACE, &pod]).await?;
        let about = |line: &&str| line.contains(node);
        found.push((pod, log.lines().filter(about).map(str::to_owned).collect()));
    }
    Ok(found)
}

/// Waits until every replica has asked `fake` some more times.
async fn asked_again(context: &Context, fake: &FakeKubelet) -> Result<()> {
    let replicas = context.metrics_api_pods().await?;
    let before = fake.requests().by_peer;
    eventually(
        format_args!("{} is asked again and again", fake.node),
        Duration::from_mins(2),
        async || {
            let now = fake.requests().by_peer;
            for (pod, address) in &replicas {
                let count = |asked: &BTreeMap<IpAddr, usize>| asked.get(address).copied().unwrap_or_default();
                let more = count(&now) - count(&before);
                ensure!(more >= REPEATS, "{pod} asked {more} times more of {REPEATS}");
            }
            Ok(())
        },
    )
    .await
}

async fn logged_once(context: &Context, fakes: &[(FakeKubelet, ErrorClass)]) -> Result<()> {
    futures::future::try_join_all(fakes.iter().map(|(fake, _)| asked_again(context, fake))).await?;
    for (fake, class) in fakes {
        for (pod, lines) in lines(context, &fake.node).await? {
            let once = matches!(lines.as_slice(), [line] if line.contains(class.as_str()));
            ensure!(
                once,
                "{pod} should say {class} of {} once, it says {lines:#?}",
                fake.node
            );
        }
    }
    Ok(())
}

async fn changes_are_logged(context: &Context, fakes: &[(FakeKubelet, ErrorClass)]) -> Result<()> {
    let (fake, _) = fakes.first().context("no fake kubelet")?;
    fake.behave(Behaviour::Status(500));
    asked_again(context, fake).await?;
    for (pod, lines) in lines(context, &fake.node).await? {
        let twice = matches!(lines.as_slice(), [_, line] if line.contains(ErrorClass::BadStatus.as_str()));
        ensure!(
            twice,
            "{pod} should say one line more of {}, it says {lines:#?}",
            fake.node
        );
    }
    Ok(())
}

/// A kubelet that is well again is answered. It reports swap, which the real ones do not have.
async fn recovers(context: &Context, fakes: &[(FakeKubelet, ErrorClass)]) -> Result<()> {
    let (fake, _) = fakes.first().context("no fake kubelet")?;
    fake.create_pod(context).await?;
    fake.behave(Behaviour::Metrics);
    eventually(
        "a kubelet that is well again is served",
        SEEN_WITHIN,
        async || {
            let list: Value = serde_json::from_str(&context.kubectl(&["get", "--raw", NODES]).await?)?;
            let item = list["items"]
                .as_array()
                .into_iter()
                .flatten()
                .find(|item| item["metadata"]["name"] == fake.node);
            let usage = &item.context("it has no usage yet")?["usage"];
            ensure!(
                usage["memory"] == "1048576Ki" || usage["memory"] == "1Gi",
                "its memory is 1 GiB, served is {usage}"
            );
            shows_swap(context, "node", &fake.node, &["512Mi", "25%"]).await?;
            shows_swap(context, "pod", &fake.node, &["512Mi"]).await
        },
    )
    .await
}

async fn shows_swap(context: &Context, kind: &str, name: &str, last: &[&str]) -> Result<()> {
    let top = context
        .kubectl(&["top", kind, name, "--show-swap", "--no-headers"])
        .await?;
    let columns: Vec<_> = top.split_whitespace().collect();
    ensure!(
        columns.ends_with(last),
        "kubectl top {kind} --show-swap: {columns:?} instead of {last:?}"
    );
    Ok(())
}

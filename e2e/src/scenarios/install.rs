//! From nothing to `kubectl top`, by Helm and by the one manifest.

use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use contract::names::{METRICS_GROUP, METRICS_VERSIONS};
use http::StatusCode;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::access::Connection;
use super::context::Context;
use super::wait::eventually;
use crate::paths;
use crate::test::install_yaml::{NAMESPACE, PATH};

/// Time for pods that started just before to get a usage.
const USAGE_WITHIN: Duration = Duration::from_secs(90);

/// `helm install`, a MetricsStack without a spec, and every way to read metrics.
pub(super) async fn by_helm(context: &Context) -> Result<()> {
    context.remove_everything().await?;
    let began = Instant::now();
    context.install().await?;
    context.say(format_args!(
        "helm install: {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    apply_and_look(context).await
}

/// `kubectl apply` of install.yaml and of a MetricsStack without a spec, and every way to read metrics.
pub(super) async fn by_manifest(context: &Context) -> Result<()> {
    context.remove_everything().await?;
    let file = paths::workspace().join(PATH);
    let file = file.to_str().context("the repository's path is not UTF-8")?;
    context
        .kubectl(&["apply", "--server-side", "--filename", file])
        .await?;
    context
        .kubectl(&[
            "rollout",
            "status",
            "--namespace",
            NAMESPACE,
            "deployment",
            "--timeout=90s",
        ])
        .await?;
    apply_and_look(context).await?;
    context.remove_everything().await?;
    context.nothing_left(Duration::from_secs(30)).await
}

async fn apply_and_look(context: &Context) -> Result<()> {
    let began = Instant::now();
    context.apply_stack(&Value::Null).await?;
    context.ready().await?;
    context.say(format_args!(
        "from apply to Ready: {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    let pods = eventually("kubectl top knows every container", USAGE_WITHIN, || top(context)).await?;
    let ours = pods.lines().filter(|line| line.starts_with(NAMESPACE));
    ours.for_each(|line| context.say(line));
    raw(context).await.context("kubectl get --raw")?;
    through_proxy(context).await.context("kubectl proxy")?;
    let table = context
        .kubectl(&["get", "podmetrics", "--all-namespaces"])
        .await?;
    let namespaces: Vec<_> = table
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let complete = namespaces.first() == Some(&"NAMESPACE") && namespaces.contains(&"kube-system");
    ensure!(
        complete && namespaces.contains(&NAMESPACE),
        "kubectl get podmetrics -A:\n{table}"
    );
    Ok(())
}

/// `kubectl top node` and `kubectl top pod` show every node and every container of every pod that runs, with numbers.
async fn top(context: &Context) -> Result<String> {
    let nodes = context.kubectl(&["top", "node", "--no-headers"]).await?;
    for number in 1..=context.cluster.nodes() {
        let node = format!("node-{number}");
        let line = nodes
            .lines()
            .find(|line| line.split_whitespace().next() == Some(&node));
        let columns: Vec<_> = line.unwrap_or_default().split_whitespace().collect();
        let [_, cpu, cpu_share, memory, memory_share] = columns.as_slice() else {
            anyhow::bail!("kubectl top node does not tell of {node}:\n{nodes}");
        };
        let complete = cpu.ends_with('m') && memory.ends_with("Mi");
        ensure!(
            complete && cpu_share.ends_with('%') && memory_share.ends_with('%'),
            "no numbers:\n{nodes}"
        );
    }
    let pods = context
        .kubectl(&["top", "pod", "--all-namespaces", "--containers", "--no-headers"])
        .await?;
    for (namespace, pod, container) in running_containers(context).await? {
        let shown = pods.lines().any(|line| {
            let columns: Vec<_> = line.split_whitespace().collect();
            let [a, b, c, cpu, memory] = columns.as_slice() else {
                return false;
            };
            (*a, *b, *c) == (&namespace, &pod, &container) && cpu.ends_with('m') && memory.ends_with("Mi")
        });
        ensure!(
            shown,
            "kubectl top pod does not tell of {namespace}/{pod}/{container}:\n{pods}"
        );
    }
    Ok(pods)
}

/// Namespace, pod and container of everything that runs.
async fn running_containers(context: &Context) -> Result<Vec<(String, String, String)>> {
    let args = [
        "get",
        "pods",
        "--all-namespaces",
        "--field-selector=status.phase=Running",
        "--output=json",
    ];
    let pods: Value = serde_json::from_str(&context.kubectl(&args).await?)?;
    let mut found = Vec::new();
    for pod in pods["items"].as_array().into_iter().flatten() {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ending = !pod["metadata"]["deletionTimestamp"].is_null();
        for container in pod["status"]["containerStatuses"]
            .as_array()
            .into_iter()
            .flatten()
        {
            if !ending && !container["state"]["running"].is_null() {
                let metadata = &pod["metadata"];
                found.push((
                    text(&metadata["namespace"]),
                    text(&metadata["name"]),
                    text(&container["name"]),
                ));
            }
        }
    }
    ensure!(
        found.len() >= 5,
        "{} containers run, the control plane alone has four",
        found.len()
    );
    Ok(found)
}

/// The lists of both versions: path and kind.
fn lists() -> impl Iterator<Item = (String, &'static str)> {
    METRICS_VERSIONS.into_iter().flat_map(|version| {
        [("nodes", "NodeMetricsList"), ("pods", "PodMetricsList")]
            .map(|(resource, kind)| (format!("/apis/{METRICS_GROUP}/{version}/{resource}"), kind))
    })
}

/// An error unless `list` is a list of this kind, of the version in `path`, with complete items.
fn expect_list(list: &Value, path: &str, kind: &str) -> Result<()> {
    let version = path
        .trim_start_matches("/apis/")
        .rsplit_once('/')
        .map(|(version, _)| version);
    let items = list["items"].as_array().map_or(&[] as &[Value], Vec::as_slice);
    let right = list["kind"] == kind && list["apiVersion"].as_str() == version && !items.is_empty();
    let complete = items.iter().all(|item| {
        let usages: Vec<_> = match item["containers"].as_array() {
            Some(containers) => containers.iter().map(|container| &container["usage"]).collect(),
            None => vec![&item["usage"]],
        };
        let timed = item["timestamp"].is_string() && item["window"].is_string();
        timed
            && !usages.is_empty()
            && usages
                .iter()
                .all(|u| u["cpu"].is_string() && u["memory"].is_string())
    });
    ensure!(right && complete, "{path}: no {kind} with usages: {list}");
    Ok(())
}

async fn raw(context: &Context) -> Result<()> {
    for (path, kind) in lists() {
        let list = serde_json::from_str(&context.kubectl(&["get", "--raw", &path]).await?)?;
        expect_list(&list, &path, kind)?;
    }
    Ok(())
}

/// The same URIs by plain HTTP, through `kubectl proxy`.
async fn through_proxy(context: &Context) -> Result<()> {
    let mut proxy = context.kubectl_command(&["proxy", "--port=0"]);
    let mut proxy = proxy
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(proxy.stdout.take().context("kubectl proxy has no output")?)
        .read_line(&mut line)
        .await?;
    let address = line.trim().rsplit(' ').next().unwrap_or_default();
    let address = address
        .parse()
        .with_context(|| format!("kubectl proxy says no address: {line:?}"))?;
    let mut connection = Connection::plain(address).await?;
    for (path, kind) in lists() {
        let answer = connection.get(&path, &[]).await?;
        expect_list(&answer.json()?, &path, kind)?;
    }
    let absent = format!("/apis/{METRICS_GROUP}/v1/nodes/absent");
    connection
        .get(&absent, &[])
        .await?
        .expect_status(StatusCode::NOT_FOUND, "absent")?;
    proxy.kill().await?;
    Ok(())
}

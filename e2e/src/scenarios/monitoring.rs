//! What Prometheus and Grafana are told, with the Prometheus operator's own kinds.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use contract::names::{DASHBOARD_CONFIG_MAP, MANAGED_BY, METRICS_API, METRICS_API_PORT, NAME_LABEL};
use serde_json::{Value, json};

use super::access::{Connection, Server};
use super::admission;
use super::boundaries::token;
use super::context::Context;
use super::secrets;
use super::wait::eventually;
use crate::go_module::PROMETHEUS_OPERATOR;
use crate::test::install_yaml::NAMESPACE;
use crate::{command, tools};

/// The operator looks for the kinds twice a minute.
const WITHIN: Duration = Duration::from_secs(75);
const KINDS: [&str; 3] = ["servicemonitors", "podmonitors", "prometheusrules"];
/// The policy by which rules are refused.
const REFUSAL: &str = "e2e-no-rules";
/// Who scrapes.
const ACCOUNT: &str = "scraper";

/// The objects come with their kinds and go with them. What they say where to scrape is there, and has each metric that
/// an alert or a panel asks for. The alerts fire when they should, and not else. One that is refused is named.
pub(super) async fn comes_and_goes_with_its_kinds(context: &Context) -> Result<()> {
    context.working_stack().await?;
    // As it is where nobody installed them, whatever an earlier run left.
    remove_kinds(context).await?;
    let rules = json!([{"apiGroups": ["monitoring.coreos.com"], "apiVersions": ["v1"],
        "resources": ["prometheusrules"], "operations": ["CREATE"]}]);
    admission::refuse(context, REFUSAL, rules, "false", &[]).await?;
    let folder = PROMETHEUS_OPERATOR.downloaded().await?;
    let folder = folder.join("example/prometheus-operator-crd");
    let files = KINDS.map(|kind| folder.join(format!("monitoring.coreos.com_{kind}.yaml")));
    for file in &files {
        let file = file.to_str().context("the module's path is not UTF-8")?;
        let args = ["apply", "--server-side", "--filename", file];
        context.kubectl(&args).await?;
    }
    let refused = eventually("a refused rule is named", WITHIN, async || {
        let stack = context.stack().await?;
        stack.expect("Ready", "True", "")?;
        let finding = stack.expect_finding("MonitoringFailed")?.to_string();
        ensure!(finding.contains(REFUSAL), "{finding}");
        get(context, "podmonitors", MANAGED_BY).await.map(drop)
    })
    .await;
    admission::allow(context, REFUSAL).await?;
    refused.context("while PrometheusRules are refused")?;
    let [service_monitor, pod_monitor, rule] = eventually("monitoring has come", WITHIN, async || {
        Ok([
            get(context, "servicemonitors", METRICS_API).await?,
            get(context, "podmonitors", MANAGED_BY).await?,
            get(context, "prometheusrules", METRICS_API).await?,
        ])
    })
    .await?;
    let dashboard = get(context, "configmaps", DASHBOARD_CONFIG_MAP).await?;
    // The last that a new stack learns, and the operator measures nothing that it does not know.
    eventually(
        "the front proxy's certificate is in the status",
        WITHIN,
        async || {
            let aggregation = &context.stack().await?.0["status"]["aggregation"];
            ensure!(aggregation["proxyClient"].is_object(), "{aggregation}");
            Ok(())
        },
    )
    .await?;
    let mut pages = scraped(context, &service_monitor).await?;
    pages.push_str(&of_operator(context, &pod_monitor).await?);
    let asked = metrics_asked_for(&rule, &dashboard)?;
    let has = |name: &String| pages.lines().any(|line| line.starts_with(name.as_str()));
    let missing: Vec<_> = asked.iter().filter(|name| !has(name)).collect();
    ensure!(missing.is_empty(), "no pod has {missing:?}");
    context.say(format_args!(
        "alerts and panels ask for {} metrics, and get them",
        asked.len()
    ));

    let mut alerts = context.cluster.command(tools::ALERTS);
    alerts.arg("/dev/stdin");
    let evaluated = command::output_of_input(alerts, rule["spec"].to_string().as_bytes()).await?;
    context.say(format_args!(
        "as Prometheus evaluates them: {}",
        evaluated.trim_end()
    ));

    let disabled = ["serviceMonitor", "rules", "dashboard"].map(|part| (part.to_owned(), json!("Disabled")));
    let disabled: serde_json::Map<_, _> = disabled.into_iter().collect();
    context.apply_stack(&json!({"monitoring": disabled})).await?;
    eventually("what is disabled goes", WITHIN, async || {
        for (kind, name) in [
            ("servicemonitors", METRICS_API),
            ("podmonitors", MANAGED_BY),
            ("prometheusrules", METRICS_API),
            ("configmaps", DASHBOARD_CONFIG_MAP),
        ] {
            ensure!(
                get(context, kind, name).await.is_err(),
                "{kind} {name} is still there"
            );
        }
        Ok(())
    })
    .await?;
    context.apply_stack(&Value::Null).await?;
    eventually("the dashboard is back", WITHIN, async || {
        get(context, "configmaps", DASHBOARD_CONFIG_MAP).await.map(drop)
    })
    .await?;
    remove_kinds(context).await?;
    eventually("the dashboard goes with the last kind", WITHIN, async || {
        let left = get(context, "configmaps", DASHBOARD_CONFIG_MAP).await;
        ensure!(left.is_err(), "it is still there");
        Ok(())
    })
    .await?;
    context.ready().await?;
    Ok(())
}

async fn remove_kinds(context: &Context) -> Result<()> {
    let names = KINDS.map(|kind| format!("{kind}.monitoring.coreos.com"));
    let mut delete = vec!["delete", "customresourcedefinitions", "--ignore-not-found"];
    delete.extend(names.iter().map(String::as_str));
    context.kubectl(&delete).await.map(drop)
}

async fn get(context: &Context, kind: &str, name: &str) -> Result<Value> {
    let args = ["get", kind, name, "--namespace", NAMESPACE, "--output=json"];
    Ok(serde_json::from_str(&context.kubectl(&args).await?)?)
}

/// Scrapes metrics-api's Pods as a Prometheus does that follows the `ServiceMonitor`.
async fn scraped(context: &Context, monitor: &Value) -> Result<String> {
    let endpoint = &monitor["spec"]["endpoints"][0];
    let labels = &monitor["spec"]["selector"]["matchLabels"];
    let services: Value = serde_json::from_str(&labelled(context, "services", labels).await?)?;
    let ports = services["items"][0]["spec"]["ports"]
        .as_array()
        .context("no Service is selected")?;
    ensure!(
        ports.iter().any(|port| port["name"] == endpoint["port"]),
        "the Service has no port {}: {ports:?}",
        endpoint["port"]
    );
    let tls = &endpoint["tlsConfig"];
    let secret = &tls["ca"]["secret"];
    let key = secret["key"].as_str().context("no key")?;
    let secret = secrets::read(context, secret["name"].as_str().context("no Secret")?).await?;
    let authority = secrets::entry(&secret, key)?;
    let name = tls["serverName"].as_str().context("no name")?;
    let path = endpoint["path"].as_str().context("no path")?;
    let token = scraper(context, path).await?;
    // All of them: what was not asked of a replica yet it does not measure.
    let pages = async {
        let mut pages = String::new();
        for (_, address) in context.metrics_api_pods().await? {
            let socket = (address, METRICS_API_PORT).into();
            let server = Server::new(socket, name.to_owned(), authority.as_bytes())?;
            let page = eventually("a page for who may read it", WITHIN, async || {
                let answer = server.get(None, path, &[("authorization", &token)]).await?;
                answer.expect(http::StatusCode::OK)?;
                Ok(answer.body)
            });
            pages.push_str(&page.await?);
        }
        Ok(pages)
    }
    .await;
    context
        .kubectl(&["delete", "serviceaccount,clusterrole,clusterrolebinding", ACCOUNT])
        .await?;
    pages
}

/// A token of somebody who may read the page, as Prometheus may.
async fn scraper(context: &Context, path: &str) -> Result<String> {
    let rbac = "rbac.authorization.k8s.io";
    let objects = [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT, "namespace": "default"}}),
        json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": {"name": ACCOUNT},
            "rules": [{"nonResourceURLs": [path], "verbs": ["get"]}]}),
        json!({"apiVersion": format!("{rbac}/v1"), "kind": "ClusterRoleBinding", "metadata": {"name": ACCOUNT},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": "default"}]}),
    ];
    for object in objects {
        context.apply(&object.to_string()).await?;
    }
    token(context, ACCOUNT).await
}

/// Scrapes the operator as a Prometheus does that follows the `PodMonitor`.
async fn of_operator(context: &Context, monitor: &Value) -> Result<String> {
    let endpoint = &monitor["spec"]["podMetricsEndpoints"][0];
    let labels = &monitor["spec"]["selector"]["matchLabels"];
    ensure!(
        labels[NAME_LABEL] == MANAGED_BY,
        "the PodMonitor selects {labels}"
    );
    let pods: Value = serde_json::from_str(&labelled(context, "pods", labels).await?)?;
    for pod in pods["items"].as_array().into_iter().flatten() {
        let ports = pod["spec"]["containers"][0]["ports"].as_array();
        let Some(port) = ports
            .into_iter()
            .flatten()
            .find(|port| port["name"] == endpoint["port"])
        else {
            continue;
        };
        let port = u16::try_from(port["containerPort"].as_u64().context("no number")?)?;
        let Some(address) = pod["status"]["podIP"].as_str() else {
            continue;
        };
        let address: IpAddr = address.parse()?;
        let path = endpoint["path"].as_str().context("no path")?;
        let mut connection = Connection::plain((address, port).into()).await?;
        let answer = connection.get(path, &[]).await?;
        answer.expect(http::StatusCode::OK)?;
        return Ok(answer.body);
    }
    bail!("no pod with the labels {labels} has a port {}", endpoint["port"])
}

async fn labelled(context: &Context, kind: &str, labels: &Value) -> Result<String> {
    let labels = labels.as_object().context("no labels")?;
    let labels: Vec<_> = labels
        .iter()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    let selector = labels.join(",");
    let args = [
        "get",
        kind,
        "--namespace",
        NAMESPACE,
        "--selector",
        &selector,
        "--output=json",
    ];
    context.kubectl(&args).await
}

/// Names of metrics in the expressions of alerts and panels.
fn metrics_asked_for(rule: &Value, dashboard: &Value) -> Result<BTreeSet<String>> {
    let board = dashboard["data"]["metrics-api.json"]
        .as_str()
        .context("no dashboard")?;
    let board: Value = serde_json::from_str(board)?;
    let alerts = rule["spec"]["groups"][0]["rules"]
        .as_array()
        .context("no rules")?;
    let panels = board["panels"].as_array().context("no panels")?;
    let expressions = alerts
        .iter()
        .map(|rule| &rule["expr"])
        .chain(panels.iter().map(|panel| &panel["targets"][0]["expr"]));
    let mut names = BTreeSet::new();
    for expression in expressions {
        let expression = expression.as_str().context("an expression is no text")?;
        let is_word = |char: char| char.is_ascii_alphanumeric() || char == '_';
        let prefixes = ["metricsstack_", "metrics_api_", "metrics_server_", "process_"];
        let words = expression.split(|char| !is_word(char));
        names.extend(
            words
                .filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)))
                .map(str::to_owned),
        );
    }
    ensure!(names.len() >= alerts.len(), "only {names:?} are asked for");
    Ok(names)
}

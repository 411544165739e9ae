//! Installing, applying, waiting for and removing the stack.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use contract::names::{METRICS_API, STACK_NAME};
use serde_json::{Value, json};

use super::context::Context;
use super::objects::our_label;
use super::wait::eventually;
use crate::paths;
use crate::test::install_yaml::{CHART, NAMESPACE, PATH as INSTALL_YAML, RELEASE};

/// Time within which a stack must be ready. The first usage needs two samples of the kubelet.
pub(super) const READY_WITHIN: Duration = Duration::from_mins(2);
/// Time within which everything that belongs to a stack must be gone.
pub(super) const GONE_WITHIN: Duration = Duration::from_secs(90);

/// A MetricsStack with this spec; without one for `Null`.
pub(super) fn manifest(spec: &Value) -> Value {
    let mut stack = json!({
        "apiVersion": "metricsstack.dev/v1alpha1",
        "kind": "MetricsStack",
        "metadata": {"name": STACK_NAME},
    });
    if !spec.is_null() {
        stack["spec"] = spec.clone();
    }
    stack
}

impl Context {
    /// Installs the chart by Helm. What is installed already is brought up to date.
    pub(super) async fn install(&self) -> Result<()> {
        self.install_from(&paths::workspace(), &[]).await
    }

    /// The same with the chart of this checkout and these arguments of Helm.
    pub(super) async fn install_from(&self, checkout: &Path, arguments: &[&str]) -> Result<()> {
        let releases = self
            .helm(&["list", "--namespace", NAMESPACE, "--deployed", "--short"])
            .await?;
        if !releases.lines().any(|release| release == RELEASE) {
            self.remove_everything().await?;
        }
        let chart = checkout.join(CHART);
        let chart = chart.to_str().context("the repository's path is not UTF-8")?;
        let args = [
            "upgrade",
            "--install",
            RELEASE,
            chart,
            "--namespace",
            NAMESPACE,
            "--create-namespace",
            // Else those of the release before stay where none are given.
            "--reset-values",
            "--wait",
        ];
        self.helm(&[args.as_slice(), &["--timeout", "90s"], arguments].concat())
            .await?;
        Ok(())
    }

    /// Applies a MetricsStack with this spec; without one for `Null`.
    pub(super) async fn apply_stack(&self, spec: &Value) -> Result<()> {
        self.apply(&manifest(spec).to_string()).await?;
        Ok(())
    }

    /// The MetricsStack as it is.
    pub(super) async fn stack(&self) -> Result<Stack> {
        let args = [
            "get",
            "metricsstacks.metricsstack.dev",
            STACK_NAME,
            "--output",
            "json",
        ];
        let text = self.kubectl(&args).await?;
        Ok(Stack(serde_json::from_str(&text)?))
    }

    /// Waits until the stack that was applied last is ready and every kubelet answers.
    pub(super) async fn ready(&self) -> Result<Stack> {
        eventually("the stack is ready", READY_WITHIN, async || {
            let stack = self.stack().await?;
            stack.expect_current()?;
            stack.expect("Ready", "True", "")?;
            stack.expect("Available", "True", "")?;
            let kubelets = &stack.0["status"]["kubelets"];
            ensure!(
                kubelets["answering"] == kubelets["total"] && kubelets["total"] == self.cluster.nodes(),
                "kubelets: {kubelets}"
            );
            Ok(stack)
        })
        .await
    }

    /// Makes sure that a stack without a spec is installed and ready. Quick if it is.
    pub(super) async fn working_stack(&self) -> Result<Stack> {
        let began = Instant::now();
        self.install().await?;
        self.apply_stack(&Value::Null).await?;
        let stack = self.ready().await?;
        if began.elapsed() > Duration::from_secs(10) {
            self.say(format_args!(
                "a working stack after {:.1} s",
                began.elapsed().as_secs_f64()
            ));
        }
        Ok(stack)
    }

    /// Removes stack, release, manifest and namespace, whichever there are and whatever state they are in.
    pub(super) async fn remove_everything(&self) -> Result<()> {
        if let Err(error) = self.delete_stack("background").await {
            // Left by a scenario that failed: what the operator would have done is done for it.
            self.say(format_args!("the stack does not go by itself: {error:#}"));
            let ours = our_label();
            let registrations = ["delete", "apiservices", "--selector", &ours, "--ignore-not-found"];
            self.kubectl(&registrations).await?;
            let release = r#"--patch={"metadata": {"finalizers": null}}"#;
            let args = [
                "patch",
                "metricsstacks.metricsstack.dev",
                STACK_NAME,
                "--type=merge",
                release,
            ];
            // It may be gone by now, which the next line checks.
            let _ = self.kubectl(&args).await;
            self.delete_stack("background").await?;
        }
        let releases = self
            .helm(&["list", "--namespace", NAMESPACE, "--all", "--short"])
            .await?;
        if releases.lines().any(|release| release == RELEASE) {
            self.helm(&["uninstall", RELEASE, "--namespace", NAMESPACE, "--wait"])
                .await?;
        }
        let file = paths::workspace().join(INSTALL_YAML);
        let file = file.to_str().context("the repository's path is not UTF-8")?;
        let timeout = ["--ignore-not-found", "--timeout", "90s"];
        self.kubectl(&[["delete", "--filename", file].as_slice(), &timeout].concat())
            .await?;
        Ok(())
    }

    /// Deletes the stack, if there is one, and waits until it is gone.
    pub(super) async fn delete_stack(&self, cascade: &str) -> Result<()> {
        let crds = [
            "get",
            "customresourcedefinitions",
            "metricsstacks.metricsstack.dev",
            "--ignore-not-found",
        ];
        if self.kubectl(&crds).await?.is_empty() {
            return Ok(());
        }
        let cascade = format!("--cascade={cascade}");
        let args = [
            "delete",
            "metricsstacks.metricsstack.dev",
            STACK_NAME,
            "--ignore-not-found",
            "--timeout",
            "90s",
        ];
        self.kubectl(&[args.as_slice(), &[&cascade]].concat()).await?;
        Ok(())
    }

    /// What identifies metrics-api's containers: others come with a restart.
    pub(super) async fn metrics_api_containers(&self) -> Result<String> {
        let selector = format!("app.kubernetes.io/name={METRICS_API}");
        let args = [
            "get",
            "pods",
            "--namespace",
            NAMESPACE,
            "--selector",
            &selector,
            "--output=jsonpath={.items[*].status.containerStatuses[*].containerID}",
        ];
        let containers = self.kubectl(&args).await?;
        ensure!(!containers.is_empty(), "metrics-api has no containers");
        Ok(containers)
    }

    /// The running pods of metrics-api, ready ones only: name and address.
    pub(super) async fn metrics_api_pods(&self) -> Result<Vec<(String, std::net::IpAddr)>> {
        let selector = format!("app.kubernetes.io/name={METRICS_API}");
        let args = [
            "get",
            "pods",
            "--namespace",
            NAMESPACE,
            "--selector",
            &selector,
            "--output",
            "json",
        ];
        let pods: Value = serde_json::from_str(&self.kubectl(&args).await?)?;
        let mut found = Vec::new();
        for pod in pods["items"].as_array().into_iter().flatten() {
            let conditions = pod["status"]["conditions"].as_array();
            let ready = conditions
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Ready" && c["status"] == "True");
            let name = pod["metadata"]["name"].as_str().unwrap_or_default();
            if ready && pod["metadata"]["deletionTimestamp"].is_null() {
                let address = pod["status"]["podIP"].as_str().unwrap_or_default();
                found.push((
                    name.to_owned(),
                    address
                        .parse()
                        .with_context(|| format!("{name} has no address"))?,
                ));
            }
        }
        ensure!(!found.is_empty(), "no pod of metrics-api is ready");
        Ok(found)
    }
}

/// A MetricsStack as kube-apiserver shows it.
#[derive(Debug)]
pub(super) struct Stack(pub(super) Value);

impl Stack {
    /// A condition, if it is there.
    pub(super) fn condition(&self, kind: &str) -> Option<&Value> {
        let conditions = self.0["status"]["conditions"].as_array()?;
        conditions.iter().find(|condition| condition["type"] == kind)
    }

    /// An error unless the status is about the newest spec.
    pub(super) fn expect_current(&self) -> Result<()> {
        let (observed, newest) = (
            &self.0["status"]["observedGeneration"],
            &self.0["metadata"]["generation"],
        );
        ensure!(
            observed == newest,
            "the status is about generation {observed}, the spec's is {newest}"
        );
        Ok(())
    }

    /// An error unless the condition has this status, and this reason unless that is empty.
    pub(super) fn expect(&self, kind: &str, status: &str, reason: &str) -> Result<&Value> {
        let Some(condition) = self.condition(kind) else {
            bail!("no condition {kind}")
        };
        let right = condition["status"] == status && (reason.is_empty() || condition["reason"] == reason);
        ensure!(
            right,
            "expected {kind} to be {status} {reason}, it is {condition}"
        );
        Ok(condition)
    }

    /// An error unless some finding's reason, message or remedy contains `part`.
    pub(super) fn expect_finding(&self, part: &str) -> Result<&Value> {
        let findings = self.0["status"]["findings"].as_array();
        let found = findings
            .into_iter()
            .flatten()
            .find(|finding| finding.to_string().contains(part));
        found.with_context(|| format!("no finding with {part:?}: {}", self.0["status"]["findings"]))
    }

    /// The classes of failing kubelets with their examples.
    pub(super) fn failing(&self) -> &Value {
        &self.0["status"]["kubelets"]["failing"]
    }
}

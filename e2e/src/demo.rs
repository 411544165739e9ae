//! `cargo e2e demo`: from nothing to `kubectl top`, on a cluster of its own or on one that is there already.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use tokio::process::Command;

use crate::cluster::{Cluster, ClusterSpec};
use crate::progress::Progress;
use crate::test::install_yaml::{CHART, NAMESPACE, RELEASE};
use crate::tools::{Clients, Tools};
use crate::{command, images, paths};

const CLUSTER: &str = "demo";
const READY_WITHIN: &str = "--timeout=180s";
const ROLLED_OUT_WITHIN: &str = "--timeout=120s";
const STACK: &str =
    r#"{"apiVersion": "metricsstack.dev/v1alpha1", "kind": "MetricsStack", "metadata": {"name": "default"}}"#;

/// One line a condition.
const CONDITIONS: &str =
    "jsonpath={range .status.conditions[*]}{.type}={.status} {.reason}: {.message}{\"\\n\"}{end}";

/// What `cargo e2e demo` takes.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Use the cluster of this kubeconfig instead of making one
    #[arg(long, requires = "image")]
    kubeconfig: Option<PathBuf>,
    /// The image, in a registry that the cluster of --kubeconfig can pull from
    #[arg(long, requires = "kubeconfig")]
    image: Option<String>,
}

/// Where the demo happens.
enum Target {
    /// A cluster of ours, and whether its nodes had another image before.
    Own { cluster: Box<Cluster>, new_image: bool },
    Existing {
        clients: Clients,
        kubeconfig: PathBuf,
        /// Where the clients keep what they cache, so that the caller's home is left alone.
        cache: PathBuf,
        image: String,
    },
}

/// Installs everything, waits until it works and shows it.
pub async fn run(arguments: &Arguments, progress: &Progress) -> Result<()> {
    let target = match (&arguments.kubeconfig, &arguments.image) {
        (Some(kubeconfig), Some(image)) => Target::Existing {
            kubeconfig: absolute(kubeconfig)?,
            clients: Clients::prepare(progress).await?,
            cache: paths::cache()?.join("clients"),
            image: image.clone(),
        },
        _ => own_cluster(progress).await?,
    };
    progress.step("helm install", install(&target)).await?;
    // Until the definition is established, kube-apiserver knows no MetricsStack.
    let established = target.kubectl(&[
        "wait",
        "--for=condition=Established",
        "crd/metricsstacks.metricsstack.dev",
        ROLLED_OUT_WITHIN,
    ]);
    command::output(established).await?;
    let applied = std::time::Instant::now();
    let apply = target.kubectl(&["apply", "-f", "-"]);
    command::output_of_input(apply, STACK.as_bytes()).await?;
    let wait = target.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "metricsstack/default",
        READY_WITHIN,
    ]);
    if let Err(error) = progress
        .step("waiting for the MetricsStack to be ready", command::output(wait))
        .await
    {
        for shown in [
            ["describe", "metricsstack", "default"].as_slice(),
            &["--namespace", NAMESPACE, "get", "pods", "-o", "wide"],
            &[
                "--namespace",
                NAMESPACE,
                "logs",
                "--all-pods",
                "deployment/metricsstack-operator",
            ],
        ] {
            // What cannot be shown is no news beside the error.
            let _ = target.show(shown).await;
        }
        return Err(error.context(
            "the MetricsStack did not become ready: its status, pods and the operator's log are above",
        ));
    }
    progress.say(format_args!(
        "from apply to Ready: {:.1} s",
        applied.elapsed().as_secs_f64()
    ));
    for shown in [
        ["top", "nodes"].as_slice(),
        &["top", "pods", "-A"],
        &["get", "metricsstack", "-o", "wide"],
    ] {
        target.show(shown).await?;
    }
    println!("\nIts conditions:");
    let status =
        command::status(target.kubectl(&["get", "metricsstack", "default", "-o", CONDITIONS])).await?;
    ensure!(status.success(), "kubectl get metricsstack: {status}");
    target.explain();
    Ok(())
}

async fn own_cluster(progress: &Progress) -> Result<Target> {
    let tools = Tools::prepare(progress).await?;
    let spec = ClusterSpec::new(CLUSTER);
    let output = images::default_output();
    let (cluster, image) = tokio::try_join!(
        Cluster::up(&spec, &tools, progress),
        images::metricsstack(&output, progress)
    )?;
    let loading = cluster.import_image(&image.archive);
    let new_image = progress.step("loading the image", loading).await?;
    Ok(Target::Own {
        cluster: Box::new(cluster),
        new_image,
    })
}

async fn install(target: &Target) -> Result<()> {
    let installed = command::output(target.helm(&["status", RELEASE, "--namespace", NAMESPACE]))
        .await
        .is_ok();
    let chart = paths::workspace().join(CHART);
    let mut helm = target.helm(&["upgrade", "--install", RELEASE]);
    helm.arg(chart)
        .args(["--namespace", NAMESPACE, "--create-namespace"]);
    if let Target::Existing { image, .. } = target {
        helm.args(["--set", &format!("image={image}")]);
    }
    command::output(helm).await?;
    if installed && matches!(target, Target::Own { new_image: true, .. }) {
        // A new image under the name of the one before changes no object: the pods are told.
        for arguments in [
            ["rollout", "restart", "deployment"].as_slice(),
            &["rollout", "status", "deployment", ROLLED_OUT_WITHIN],
        ] {
            let mut rollout = target.kubectl(&["--namespace", NAMESPACE]);
            rollout.args(arguments);
            command::output(rollout).await?;
        }
    }
    Ok(())
}

fn absolute(file: &Path) -> Result<PathBuf> {
    if !file.is_file() {
        bail!("--kubeconfig is {}, which is not a file", file.display());
    }
    std::path::absolute(file).with_context(|| format!("--kubeconfig is {}", file.display()))
}

/// A client of a cluster that somebody else made.
fn existing(program: &Path, kubeconfig: &Path, cache: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .env("KUBECONFIG", kubeconfig)
        .env("KUBECACHEDIR", cache)
        .env("HELM_CACHE_HOME", cache.join("helm"))
        .env("HELM_CONFIG_HOME", cache.join("helm"))
        .env("HELM_DATA_HOME", cache.join("helm"));
    command
}

impl Target {
    fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = match self {
            Self::Own { cluster, .. } => cluster.command("kubectl"),
            Self::Existing {
                clients,
                kubeconfig,
                cache,
                ..
            } => existing(&clients.kubectl, kubeconfig, cache),
        };
        command.args(arguments);
        command
    }

    fn helm(&self, arguments: &[&str]) -> Command {
        let mut command = match self {
            Self::Own { cluster, .. } => cluster.command("helm"),
            Self::Existing {
                clients,
                kubeconfig,
                cache,
                ..
            } => existing(&clients.helm, kubeconfig, cache),
        };
        command.args(arguments);
        command
    }

    /// Runs kubectl on the terminal, under the command that a person would type.
    async fn show(&self, arguments: &[&str]) -> Result<()> {
        let shown = arguments.join(" ").replace('\n', " ");
        println!("\n$ kubectl {shown}");
        let status = command::status(self.kubectl(arguments)).await?;
        ensure!(status.success(), "kubectl {shown}: {status}");
        Ok(())
    }

    fn explain(&self) {
        let (kubectl, helm) = match self {
            Self::Own { .. } => (
                format!("cargo e2e kubectl --cluster {CLUSTER}"),
                format!("cargo e2e helm --cluster {CLUSTER}"),
            ),
            Self::Existing { kubeconfig, .. } => {
                let kubeconfig = kubeconfig.display();
                (
                    format!("kubectl --kubeconfig {kubeconfig}"),
                    format!("helm --kubeconfig {kubeconfig}"),
                )
            }
        };
        println!("\nUse it:\n  {kubectl} top pods -A --containers\n  {kubectl} describe mstack default");
        println!("Remove MetricsStack:\n  {helm} uninstall {RELEASE} --namespace {NAMESPACE}");
        if let Self::Own { .. } = self {
            println!("Remove the cluster:\n  cargo e2e down --cluster {CLUSTER}");
        }
    }
}

//! Our image in metrics-server's place: its manifests and its chart, with nothing changed but the image.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::context::Context;
use super::pki::Authority;
use super::wait::eventually;
use crate::go_module::METRICS_SERVER;
use crate::images::metricsstack_reference;

/// Where metrics-server is installed by its manifests, and by most who use its chart.
const NAMESPACE: &str = "kube-system";
const NAME: &str = "metrics-server";
/// The name that kube-apiserver expects in the serving certificate.
const SERVER_NAME: &str = "metrics-server.kube-system.svc";
const SECRET: &str = "metrics-server-given";
/// The chart's readiness probe begins after 20 s.
const READY_WITHIN: Duration = Duration::from_mins(2);
const ROLLED_OUT_WITHIN: &str = "--timeout=120s";

/// `manifests/base`, and the chart with each type of serving certificate, on kubelets whose certificates are verified as
/// metrics-server verifies them.
pub(super) async fn by_image_only(context: &Context) -> Result<()> {
    context.remove_everything().await?;
    let folder = METRICS_SERVER.downloaded().await?;
    by_manifests(context).await.context("manifests/base")?;
    let chart = folder.join("charts/metrics-server");
    for (kind, values) in kinds(context).await? {
        by_chart(context, &chart, &values)
            .await
            .with_context(|| format!("the chart with tls.type={kind}"))?;
    }
    cert_manager_makes_the_same_pod(context, &chart).await
}

/// metrics-server's manifests with another image.
pub(super) async fn manifests(context: &Context, image: &str) -> Result<String> {
    let base = path(&METRICS_SERVER.downloaded().await?.join("manifests/base"))?;
    let rendered = context.kubectl(&["kustomize", &base]).await?;
    let manifest: String = rendered.lines().fold(String::new(), |mut manifest, line| {
        match line.split_once("image: ") {
            Some((indent, _)) => manifest.extend([indent, "image: ", image]),
            None => manifest.push_str(line),
        }
        manifest.push('\n');
        manifest
    });
    Ok(manifest)
}

async fn by_manifests(context: &Context) -> Result<()> {
    let manifest = manifests(context, &metricsstack_reference()).await?;
    context.apply(&manifest).await?;
    let works = works(context).await;
    let delete = ["delete", "--ignore-not-found", "--filename", "-"];
    let deleted = context.cluster.kubectl_stdin(delete, &manifest).await;
    works.and(deleted.map(drop))
}

/// Each type of serving certificate that needs nothing but the chart, with the values that it takes.
async fn kinds(context: &Context) -> Result<Vec<(&'static str, Vec<String>)>> {
    let authority = Authority::new("somebody's CA")?;
    let (certificate, key) = authority.server(SERVER_NAME)?;
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SECRET, "namespace": NAMESPACE},
        "type": "kubernetes.io/tls",
        "stringData": {"tls.crt": certificate, "tls.key": key},
    });
    context.apply(&secret.to_string()).await?;
    // kube-apiserver takes no APIService that has both.
    let verified = "apiService.insecureSkipTLSVerify=false".to_owned();
    Ok(vec![
        ("metrics-server", vec!["tls.type=metrics-server".to_owned()]),
        ("helm", vec!["tls.type=helm".to_owned(), verified.clone()]),
        (
            "existingSecret",
            vec![
                "tls.type=existingSecret".to_owned(),
                format!("tls.existingSecret.name={SECRET}"),
                format!("apiService.caBundle={}", authority.pem),
                verified,
            ],
        ),
    ])
}

async fn by_chart(context: &Context, chart: &Path, values: &[String]) -> Result<()> {
    let chart = path(chart)?;
    let mut args = vec!["upgrade", "--install", NAME, &chart, "--namespace", NAMESPACE];
    let values = [image_values().as_slice(), values].concat();
    for value in &values {
        args.extend(["--set-string", value]);
    }
    // A boolean that is a string would be true whatever it says.
    let text = args.iter().position(|arg| arg.starts_with("apiService.insecure"));
    if let Some(flag) = text.and_then(|at| args.get_mut(at - 1)) {
        *flag = "--set";
    }
    context.helm(&args).await?;
    let works = works(context).await;
    let uninstalled = context
        .helm(&["uninstall", NAME, "--namespace", NAMESPACE, "--wait"])
        .await;
    works.and(uninstalled.map(drop))
}

/// The only values that name the image.
fn image_values() -> Vec<String> {
    let reference = metricsstack_reference();
    let (repository, tag) = reference.rsplit_once(':').unwrap_or((&reference, "latest"));
    vec![
        format!("image.repository={repository}"),
        format!("image.tag={tag}"),
    ]
}

/// `kubectl top` works, and nothing was asked that metrics-server's roles forbid.
pub(super) async fn works(context: &Context) -> Result<()> {
    let deployment = format!("deployment/{NAME}");
    let namespace = ["--namespace", NAMESPACE];
    let status = ["rollout", "status", &deployment, ROLLED_OUT_WITHIN];
    context.kubectl(&[status.as_slice(), &namespace].concat()).await?;
    eventually("kubectl top works", READY_WITHIN, async || {
        let nodes = context.kubectl(&["top", "node", "--no-headers"]).await?;
        ensure!(nodes.contains("node-1"), "nodes: {nodes}");
        let pods = context
            .kubectl(&["top", "pod", "--all-namespaces", "--containers", "--no-headers"])
            .await?;
        for pod in ["etcd-node-1", NAME] {
            ensure!(pods.contains(pod), "{pod} is not among {pods}");
        }
        Ok(())
    })
    .await?;
    let log = context
        .kubectl(&[["logs", &deployment].as_slice(), &namespace].concat())
        .await?;
    let forbidden = log
        .lines()
        .find(|line| line.contains("forbidden") || line.contains("answered 403"));
    ensure!(forbidden.is_none(), "it lacks a right: {forbidden:?}");
    Ok(())
}

/// Without cert-manager, which would have to be built for it: it was tried by hand. With it the pod is that of `existingSecret`, but for the Secret's name.
async fn cert_manager_makes_the_same_pod(context: &Context, chart: &Path) -> Result<()> {
    let given = rendered_pod(
        context,
        chart,
        &[
            "tls.type=existingSecret",
            "tls.existingSecret.name=metrics-server",
        ],
    );
    let issued = rendered_pod(context, chart, &["tls.type=cert-manager"]);
    let (given, issued) = (given.await?, issued.await?);
    ensure!(
        given == issued,
        "cert-manager's: {issued}\nexistingSecret's: {given}"
    );
    Ok(())
}

async fn rendered_pod(context: &Context, chart: &Path, values: &[&str]) -> Result<Value> {
    let chart = path(chart)?;
    let mut args = vec!["template", NAME, &chart, "--namespace", NAMESPACE];
    args.extend(["--show-only", "templates/deployment.yaml"]);
    for value in values {
        args.extend(["--set", value]);
    }
    let rendered: Value = serde_yaml::from_str(&context.helm(&args).await?)?;
    Ok(rendered["spec"]["template"]["spec"].clone())
}

fn path(path: &Path) -> Result<String> {
    let path = path
        .to_str()
        .context("Go's module cache has a path that is not UTF-8")?;
    Ok(path.to_owned())
}

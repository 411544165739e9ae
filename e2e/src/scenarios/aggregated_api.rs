//! The library's example, an API that can be changed and watched, in a cluster: what people do with kubectl works.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::context::Context;
use super::pki::Authority;
use super::wait::eventually;
use crate::images::notes_reference;

/// Where the server runs.
const NAMESPACE: &str = "notes";
/// Where the notes are.
const USERS: &str = "notes-of-users";
const NAME: &str = "notes";
const SERVER_NAME: &str = "notes.notes.svc";
const PORT: u16 = 8443;
const API_SERVICE: &str = "v1.notes.example.dev";
const DISCOVERED_WITHIN: Duration = Duration::from_secs(40);
const EXPLAINED_WITHIN: Duration = Duration::from_secs(90);
/// A watch must tell at once; this leaves room for a busy machine.
const TOLD_WITHIN: Duration = Duration::from_secs(20);

/// Client-side `kubectl apply`, `get --watch`, `describe`, `explain`, `delete`, and deleting the namespace.
pub(super) async fn works_with_kubectl(context: &Context) -> Result<()> {
    // What a killed run left would be in the way.
    remove(context).await?;
    let used = async {
        install(context).await?;
        changes(context).await?;
        the_namespace_goes(context).await
    };
    let used = used.await;
    used.and(remove(context).await)
}

async fn install(context: &Context) -> Result<()> {
    let authority = Authority::new("notes' CA")?;
    let (certificate, key) = authority.server(SERVER_NAME)?;
    let labels = json!({"app": NAME});
    let account = json!([{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}]);
    let metadata = json!({"name": NAME, "namespace": NAMESPACE});
    let role =
        |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    for object in [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": USERS}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": NAME}, "subjects": account,
            "roleRef": role("ClusterRole", "system:auth-delegator")}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": NAME, "namespace": "kube-system"}, "subjects": account,
            "roleRef": role("Role", "extension-apiserver-authentication-reader")}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls",
            "stringData": {"tls.crt": certificate, "tls.key": key}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {"selector": labels, "ports": [{"port": 443, "targetPort": PORT}]}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {
                "serviceAccountName": NAME,
                "containers": [{
                    "name": NAME, "image": notes_reference(), "imagePullPolicy": "IfNotPresent",
                    "args": ["/tls/tls.crt", "/tls/tls.key", format!("0.0.0.0:{PORT}")],
                    "readinessProbe": {"httpGet": {"path": "/readyz", "port": PORT, "scheme": "HTTPS"},
                        "periodSeconds": 1},
                    "volumeMounts": [{"name": "tls", "mountPath": "/tls", "readOnly": true}],
                }],
                "volumes": [{"name": "tls", "secret": {"secretName": NAME}}],
            }},
        }}),
    ] {
        context.apply(&object.to_string()).await?;
    }
    context
        .kubectl(&[
            "rollout",
            "status",
            "deployment",
            NAME,
            "--namespace",
            NAMESPACE,
            "--timeout=60s",
        ])
        .await?;
    let registration = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": API_SERVICE},
        "spec": {"group": "notes.example.dev", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": {"namespace": NAMESPACE, "name": NAME, "port": 443}}});
    let mut registration = registration;
    registration["spec"]["caBundle"] =
        serde_json::to_value(k8s_openapi::ByteString(authority.pem.into_bytes()))?;
    context.apply(&registration.to_string()).await?;
    context
        .kubectl(&[
            "wait",
            "--for=condition=Available",
            "apiservice",
            API_SERVICE,
            "--timeout=60s",
        ])
        .await?;
    Ok(())
}

fn note(name: &str, text: &Value) -> String {
    json!({"apiVersion": "notes.example.dev/v1", "kind": "Note",
        "metadata": {"name": name, "namespace": USERS}, "spec": {"text": text}})
    .to_string()
}

async fn changes(context: &Context) -> Result<()> {
    // kube-apiserver takes a while to publish what an aggregated API says of itself.
    let first = note("first", &json!("hello"));
    eventually("the first note is created", DISCOVERED_WITHIN, async || {
        let said = context.apply(&first).await?;
        ensure!(said.contains("created") || said.contains("unchanged"), "{said}");
        Ok(())
    })
    .await?;
    let mut watch = Watch::start(context)?;
    watch.tells("hello").await?;
    let again = context.apply(&first).await?;
    ensure!(again.contains("unchanged"), "the same once more: {again}");
    let said = context.apply(&note("first", &json!("goodbye"))).await?;
    ensure!(said.contains("configured"), "another text: {said}");
    watch.tells("goodbye").await?;
    let refused = context.apply(&note("first", &json!(7))).await;
    let refused = refused.err().context("a number as text was taken")?;
    ensure!(format!("{refused:#}").contains("spec.text"), "{refused:#}");

    context.apply(&note("second", &json!("too"))).await?;
    watch.tells("second").await?;
    let users = ["--namespace", USERS];
    for (args, part) in [
        (["describe", "note", "first"].as_slice(), "goodbye"),
        (&["get", "notes", "--output=yaml"], "text: goodbye"),
    ] {
        let shown = context.kubectl(&[args, &users].concat()).await?;
        ensure!(shown.contains(part), "kubectl {}: {shown}", args.join(" "));
    }
    // It publishes the schemas after the resources: where its first look came too early, a minute later.
    eventually("the schema is explained", EXPLAINED_WITHIN, async || {
        let shown = context.kubectl(&["explain", "notes.spec"]).await?;
        ensure!(shown.contains("text"), "{shown}");
        Ok(())
    })
    .await?;
    context
        .kubectl(&[["delete", "note", "second"].as_slice(), &users].concat())
        .await?;
    let left = context
        .kubectl(&[["get", "notes", "--output=name"].as_slice(), &users].concat())
        .await?;
    ensure!(left.trim() == "note.notes.example.dev/first", "{left}");
    Ok(())
}

/// The namespace controller lists and deletes what is in a namespace, here as everywhere.
async fn the_namespace_goes(context: &Context) -> Result<()> {
    context
        .kubectl(&["delete", "namespace", USERS, "--timeout=60s"])
        .await?;
    let left = context
        .kubectl(&["get", "notes", "--all-namespaces", "--output=name"])
        .await?;
    ensure!(left.is_empty(), "notes outlived their namespace: {left}");
    Ok(())
}

/// The registration goes first, for with it and without a server no namespace could be deleted.
async fn remove(context: &Context) -> Result<()> {
    for args in [
        ["delete", "apiservice", API_SERVICE].as_slice(),
        &["delete", "clusterrolebinding", NAME],
        &["delete", "rolebinding", NAME, "--namespace=kube-system"],
        &["delete", "namespace", USERS, NAMESPACE, "--timeout=90s"],
    ] {
        context.kubectl(&[args, &["--ignore-not-found"]].concat()).await?;
    }
    Ok(())
}

/// `kubectl get notes --watch`.
struct Watch {
    lines: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    _kubectl: tokio::process::Child,
}

impl Watch {
    fn start(context: &Context) -> Result<Self> {
        let mut kubectl = context
            .kubectl_command(&["get", "notes", "--watch", "--namespace", USERS])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let stdout = kubectl.stdout.take().context("kubectl has no output")?;
        Ok(Self {
            lines: BufReader::new(stdout).lines(),
            _kubectl: kubectl,
        })
    }

    /// Waits for a line with these words.
    async fn tells(&mut self, part: &str) -> Result<()> {
        let telling = async {
            while let Some(line) = self.lines.next_line().await? {
                if line.contains(part) {
                    return Ok(());
                }
            }
            anyhow::bail!("the watch ended")
        };
        let told = tokio::time::timeout(TOLD_WITHIN, telling).await;
        told.with_context(|| format!("the watch says nothing of {part:?}"))?
    }
}

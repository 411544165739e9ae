//! Who is answered, through kube-apiserver and by those who go around it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use contract::names::{METRICS_API, METRICS_API_PORT};
use http::StatusCode;
use serde_json::json;

use super::access::{Connection, NODES, Server, TLS_VERSIONS};
use super::context::Context;
use super::pki::{Authority, Identity};
use super::wait::eventually;
use crate::test::install_yaml::NAMESPACE;

/// Time for a role or a binding to reach the authorizer, and for a cached refusal to end.
const RIGHTS_WITHIN: Duration = Duration::from_secs(40);

/// A user who may read everything that `view` lets people read.
const READER: &str = "reader@example.com";
/// A user who may do nothing.
const STRANGER: &str = "stranger@example.com";

/// Who has no rights gets 403, who has `view` gets 200: through kube-apiserver, and with a token at the pod itself.
pub(super) async fn rights(context: &Context) -> Result<()> {
    context.working_stack().await?;
    for account in ["rights-none", "rights-view"] {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"name": account, "namespace": "default"}});
        context.apply(&account.to_string()).await?;
    }
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "rights-view", "namespace": "kube-system"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "rights-view", "namespace": "default"}],
    });
    context.apply(&binding.to_string()).await?;
    let apiserver = Server::new(
        (context.cluster.node_ip(1), 6443).into(),
        "kubernetes".to_owned(),
        context
            .control_plane_file("/etc/kubernetes/pki/ca.crt")
            .await?
            .as_bytes(),
    )?;
    for server in [apiserver, pod(context).await?] {
        for version in ["v1", "v1beta1"] {
            let allowed = format!("/apis/metrics.k8s.io/{version}/namespaces/kube-system/pods");
            let elsewhere = format!("/apis/metrics.k8s.io/{version}/namespaces/default/pods");
            let view = token(context, "rights-view").await?;
            let none = token(context, "rights-none").await?;
            let what = format!("view lets read {allowed} at {}", server.address);
            eventually(what, RIGHTS_WITHIN, async || {
                server
                    .get(None, &allowed, &[("authorization", &view)])
                    .await?
                    .json()
            })
            .await?;
            for (token, path, user) in [
                (&view, &elsewhere, "system:serviceaccount:default:rights-view"),
                (
                    &view,
                    &NODES.to_owned(),
                    "system:serviceaccount:default:rights-view",
                ),
                (&none, &allowed, "system:serviceaccount:default:rights-none"),
            ] {
                let answer = server.get(None, path, &[("authorization", token)]).await?;
                answer
                    .expect_status(StatusCode::FORBIDDEN, user)
                    .with_context(|| path.clone())?;
            }
        }
        let answer = server
            .get(None, NODES, &[("authorization", "Bearer of-nothing")])
            .await?;
        answer.expect_status(StatusCode::UNAUTHORIZED, "")?;
    }
    context
        .kubectl(&["delete", "serviceaccount", "rights-none", "rights-view"])
        .await?;
    context
        .kubectl(&[
            "delete",
            "rolebinding",
            "rights-view",
            "--namespace",
            "kube-system",
        ])
        .await?;
    Ok(())
}

/// What somebody can present at the pod, and what it is worth there.
struct Attempt {
    what: &'static str,
    identity: Option<Identity>,
    user: Option<&'static str>,
    expected: Expected,
}

/// How a client sees that the server broke the handshake off. In TLS 1.3 it may be writing its request already, and then
/// it depends on who is quicker whether it reads the alert.
const HUNG_UP: [&str; 5] = ["fatal alert", "closed", "reset", "broken pipe", "eof"];

enum Expected {
    Answered,
    /// 403 that names this user.
    Forbidden(&'static str),
    /// 401.
    Unauthorized,
    /// No connection.
    NoHandshake,
}

/// Headers of the front proxy count only with a certificate of the front proxy, and the key to it.
pub(super) async fn front_proxy(context: &Context) -> Result<()> {
    context.working_stack().await?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "front-proxy-reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": READER}],
    });
    context.apply(&binding.to_string()).await?;
    let server = pod(context).await?;
    let genuine = identity(context, "front-proxy-client").await?;
    eventually(
        "the front proxy's certificate speaks for its users",
        RIGHTS_WITHIN,
        async || {
            server
                .get(Some(&genuine), NODES, &[("x-remote-user", READER)])
                .await?
                .json()
        },
    )
    .await?;
    let attempts = attempts(context, genuine).await?;
    for (version_name, version) in TLS_VERSIONS {
        for attempt in &attempts {
            let connecting = server.connect(attempt.identity.as_ref(), version).await;
            let judged = judge(attempt, connecting).await;
            judged.with_context(|| format!("{}, {version_name}", attempt.what))?;
        }
    }
    // A certificate that is worth nothing does not spoil a token that is.
    let other = Authority::new("somebody else's")?.client("front-proxy-client")?;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "front-proxy-token", "namespace": "default"}});
    context.apply(&account.to_string()).await?;
    let token = token(context, "front-proxy-token").await?;
    let answer = server
        .get(
            Some(&other),
            NODES,
            &[("authorization", &token), ("x-remote-user", READER)],
        )
        .await?;
    answer.expect_status(
        StatusCode::FORBIDDEN,
        "system:serviceaccount:default:front-proxy-token",
    )?;
    context
        .kubectl(&["delete", "serviceaccount", "front-proxy-token"])
        .await?;
    context
        .kubectl(&["delete", "clusterrolebinding", "front-proxy-reader"])
        .await?;
    Ok(())
}

async fn attempts(context: &Context, genuine: Identity) -> Result<Vec<Attempt>> {
    let front_proxy = authority(context, "front-proxy-ca").await?;
    let clients = authority(context, "ca").await?;
    let other = Authority::new("front-proxy-ca")?;
    let attempt = |what, identity, user, expected| Attempt {
        what,
        identity,
        user,
        expected,
    };
    let reader = Some(READER);
    Ok(vec![
        attempt(
            "the key is not the certificate's",
            Some(genuine.without_its_key()?),
            reader,
            Expected::NoHandshake,
        ),
        attempt(
            "the front proxy for a reader",
            Some(genuine.clone()),
            reader,
            Expected::Answered,
        ),
        attempt(
            "the front proxy for a stranger",
            Some(genuine.clone()),
            Some(STRANGER),
            Expected::Forbidden(STRANGER),
        ),
        attempt(
            "no certificate",
            None,
            reader,
            Expected::Forbidden("system:anonymous"),
        ),
        attempt(
            "another authority's",
            Some(other.client("front-proxy-client")?),
            reader,
            Expected::Unauthorized,
        ),
        attempt(
            "expired",
            Some(front_proxy.expired_client("front-proxy-client")?),
            reader,
            Expected::Unauthorized,
        ),
        attempt(
            "wrongly named",
            Some(front_proxy.client("somebody")?),
            reader,
            Expected::Unauthorized,
        ),
        attempt(
            "a reader's own certificate",
            Some(clients.client(READER)?),
            None,
            Expected::Answered,
        ),
        attempt(
            "a stranger's own certificate, and the headers of a reader",
            Some(clients.client(STRANGER)?),
            reader,
            Expected::Forbidden(STRANGER),
        ),
    ])
}

async fn judge(attempt: &Attempt, connecting: Result<Connection>) -> Result<()> {
    let masters = ("x-remote-group", "system:masters");
    let headers: Vec<_> = match attempt.user {
        // Rights of the reader only: with the group of the almighty, the front proxy would be answered for anybody.
        Some(user)
            if matches!(
                attempt.expected,
                Expected::Answered | Expected::Forbidden(STRANGER)
            ) =>
        {
            vec![("x-remote-user", user)]
        }
        Some(user) => vec![("x-remote-user", user), masters],
        None => Vec::new(),
    };
    let answering = async { connecting?.get(NODES, &headers).await };
    match (&attempt.expected, answering.await) {
        // In TLS 1.3 the client learns of the refusal with its first read.
        (Expected::NoHandshake, Err(error)) => {
            let refusal = format!("{error:#}").to_lowercase();
            ensure!(
                HUNG_UP.iter().any(|sign| refusal.contains(sign)),
                "refused by something else than TLS: {refusal}"
            );
            Ok(())
        }
        (Expected::NoHandshake, Ok(answer)) => bail!("there was a handshake, and an answer: {answer:?}"),
        (Expected::Answered, answer) => answer?.json().map(drop),
        (Expected::Forbidden(user), answer) => answer?.expect_status(StatusCode::FORBIDDEN, user),
        (Expected::Unauthorized, answer) => answer?.expect_status(StatusCode::UNAUTHORIZED, "nauthorized"),
    }
}

/// One pod of metrics-api, dialled directly.
pub(super) async fn pod(context: &Context) -> Result<Server> {
    pods(context).await?.into_iter().next().context("no pod")
}

/// Every ready pod of metrics-api, dialled directly.
pub(super) async fn pods(context: &Context) -> Result<Vec<Server>> {
    let pods = context.metrics_api_pods().await?;
    let template = "--output=go-template={{.spec.caBundle | base64decode}}";
    let bundle = context
        .kubectl(&["get", "apiservices", "v1.metrics.k8s.io", template])
        .await?;
    let name = format!("{METRICS_API}.{NAMESPACE}.svc");
    let servers = pods.into_iter().map(|(_, address)| {
        Server::new(
            (address, METRICS_API_PORT).into(),
            name.clone(),
            bundle.as_bytes(),
        )
    });
    servers.collect()
}

/// The value of an Authorization header for a ServiceAccount of the default namespace.
pub(super) async fn token(context: &Context, account: &str) -> Result<String> {
    let token = context
        .kubectl(&["create", "token", account, "--namespace=default"])
        .await?;
    Ok(format!("Bearer {}", token.trim()))
}

/// One of the control plane's authorities.
pub(super) async fn authority(context: &Context, name: &str) -> Result<Authority> {
    let (certificate, key) = pair(context, name).await?;
    Authority::from_pem(certificate, &key)
}

/// One of the control plane's certificates.
async fn identity(context: &Context, name: &str) -> Result<Identity> {
    let (certificate, key) = pair(context, name).await?;
    Identity::from_pem(&certificate, &key)
}

async fn pair(context: &Context, name: &str) -> Result<(String, String)> {
    let file = async |kind: &str| {
        let path = format!("/etc/kubernetes/pki/{name}.{kind}");
        context.control_plane_file(&path).await
    };
    Ok((file("crt").await?, file("key").await?))
}

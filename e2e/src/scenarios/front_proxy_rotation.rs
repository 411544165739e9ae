//! The front proxy gets another authority and another certificate, and its allowed names change, while metrics are read
//! all the time: no read fails, and who is trusted no longer is refused, on connections that are open already too.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use contract::names::AUTHENTICATION_CONFIG_MAP;
use http::StatusCode;
use rustls::version::TLS13;
use serde_json::{Value, json};

use super::access::{Connection, NODES, Server};
use super::boundaries::pods;
use super::context::Context;
use super::front_proxy_files::{CERTIFICATE_FILE, FrontProxy, write_authority, write_certificate};
use super::load;
use super::pki::{Authority, Identity};
use super::wait::eventually;

/// What kube-apiserver publishes of its flags.
const AUTHORITIES: &str = "requestheader-client-ca-file";
const ALLOWED_NAMES: &str = "requestheader-allowed-names";
/// Time for a change to be read by kube-apiserver and metrics-api.
const WITHIN: Duration = Duration::from_mins(1);
const HEADERS: [(&str, &str); 2] = [
    ("x-remote-user", "system:kube-aggregator"),
    ("x-remote-group", "system:masters"),
];

pub(super) async fn fails_no_read(context: &Context) -> Result<()> {
    context.working_stack().await?;
    let before = context.metrics_api_containers().await?;
    let original = FrontProxy::read(context).await?;
    let authority = Authority::new("a second front-proxy-ca")?;
    let (certificate, key) = authority.client_pem("front-proxy-client")?;
    let another = FrontProxy {
        authority: authority.pem.clone(),
        certificate,
        key,
    };
    let rotations = async {
        let rotated = async {
            rotate(context, &original, &another).await.context("there")?;
            allowed_names(context, &authority).await?;
            rotate(context, &another, &original).await.context("and back")
        };
        let rotated = rotated.await;
        if rotated.is_err() {
            restore(context, &original).await?;
        }
        rotated
    };
    // With that it says when it uses another certificate.
    verbosity(context, "2").await?;
    let rotated = load::during(context, rotations).await;
    verbosity(context, "0").await?;
    let ((), outcome) = rotated?;
    outcome.expect_no_failure()?;
    let after = context.metrics_api_containers().await?;
    ensure!(
        after == before,
        "metrics-api's Pods are {after:?}, before {before:?}"
    );
    context.say(format_args!(
        "{} reads meanwhile, 0 failed, the slowest {} ms",
        outcome.answered,
        outcome.slowest.as_millis()
    ));
    Ok(())
}

/// From one front proxy to another as an administrator does it: both authorities, the new certificate, the new
/// authority alone. An identity of the old one is refused at the end.
async fn rotate(context: &Context, from: &FrontProxy, to: &FrontProxy) -> Result<()> {
    let servers = pods(context).await?;
    let both = format!("{}{}", from.authority, to.authority);
    write_authority(context, &both).await?;
    for server in &servers {
        connection(server, &to.identity()?).await?;
    }
    let mut open = Vec::new();
    for server in &servers {
        open.push(connection(server, &from.identity()?).await?);
    }

    let loaded = certificates_loaded(context).await?;
    write_certificate(context, &to.certificate, &to.key).await?;
    eventually(
        "kube-apiserver takes up the new certificate",
        WITHIN,
        async || {
            let now = certificates_loaded(context).await?;
            ensure!(now > loaded, "loaded {now} times");
            Ok(())
        },
    )
    .await?;

    write_authority(context, &to.authority).await?;
    // kube-apiserver keeps what is in its list already.
    eventually("the old authority is no longer published", WITHIN, async || {
        set(context, AUTHORITIES, &to.authority).await?;
        let published = published(context, AUTHORITIES).await?;
        ensure!(
            !published.contains(from.authority.trim()),
            "it is there once more"
        );
        Ok(())
    })
    .await?;
    for connection in &mut open {
        refused(connection).await?;
    }
    for server in &servers {
        let again = server.get(Some(&from.identity()?), NODES, &HEADERS).await?;
        again.expect_status(StatusCode::UNAUTHORIZED, "nauthorized")?;
    }
    Ok(())
}

/// A name is allowed, and not allowed any more.
async fn allowed_names(context: &Context, authority: &Authority) -> Result<()> {
    let server = pods(context).await?.into_iter().next().context("no Pod")?;
    let identity = authority.client("another-proxy")?;
    let refusal = server.get(Some(&identity), NODES, &HEADERS).await?;
    refusal.expect_status(StatusCode::UNAUTHORIZED, "nauthorized")?;
    let before = published(context, ALLOWED_NAMES).await?;
    let mut names: Vec<String> = serde_json::from_str(&before)?;
    names.push("another-proxy".to_owned());
    set(context, ALLOWED_NAMES, &serde_json::to_string(&names)?).await?;
    let mut open = connection(&server, &identity)
        .await
        .context("of a name that is allowed now")?;
    set(context, ALLOWED_NAMES, &before).await?;
    refused(&mut open)
        .await
        .context("of a name that is not allowed any more")
}

/// A connection that is answered.
async fn connection(server: &Server, identity: &Identity) -> Result<Connection> {
    eventually("a front proxy is believed", WITHIN, async || {
        let mut connection = server.connect(Some(identity), &TLS13).await?;
        connection.get(NODES, &HEADERS).await?.json()?;
        Ok(connection)
    })
    .await
}

/// Waits until a connection that is open is closed, or what is asked on it refused.
async fn refused(connection: &mut Connection) -> Result<()> {
    eventually(
        "the open connection is good for nothing",
        WITHIN,
        async || match connection.get(NODES, &HEADERS).await {
            Ok(answer) => answer.expect_status(StatusCode::UNAUTHORIZED, "nauthorized"),
            Err(_closed) => Ok(()),
        },
    )
    .await
}

async fn restore(context: &Context, original: &FrontProxy) -> Result<()> {
    write_certificate(context, &original.certificate, &original.key).await?;
    write_authority(context, &original.authority).await?;
    set(context, AUTHORITIES, &original.authority).await
}

/// How often kube-apiserver has said that it uses another certificate towards extension API servers.
async fn certificates_loaded(context: &Context) -> Result<usize> {
    let args = [
        "logs",
        "--namespace=kube-system",
        "--selector=component=kube-apiserver",
        "--tail=-1",
    ];
    let log = context.kubectl(&args).await?;
    let is_it = |line: &&str| line.contains("Loaded a new cert/key pair") && line.contains(CERTIFICATE_FILE);
    Ok(log.lines().filter(is_it).count())
}

/// How much kube-apiserver logs.
async fn verbosity(context: &Context, level: &str) -> Result<()> {
    let args = ["replace", "--raw", "/debug/flags/v", "--filename", "-"];
    context.cluster.kubectl_stdin(args, level).await?;
    Ok(())
}

async fn published(context: &Context, key: &str) -> Result<String> {
    let args = [
        "get",
        "configmap",
        AUTHENTICATION_CONFIG_MAP,
        "--namespace=kube-system",
        "--output=json",
    ];
    let map: Value = serde_json::from_str(&context.kubectl(&args).await?)?;
    let value = map["data"][key].as_str();
    Ok(value.with_context(|| format!("no {key}"))?.to_owned())
}

async fn set(context: &Context, key: &str, value: &str) -> Result<()> {
    let patch = json!({"data": {key: value}}).to_string();
    let args = [
        "patch",
        "configmap",
        AUTHENTICATION_CONFIG_MAP,
        "--namespace=kube-system",
        "--patch",
        &patch,
    ];
    context.kubectl(&args).await?;
    Ok(())
}

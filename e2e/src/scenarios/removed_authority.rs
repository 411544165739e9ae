//! Who is trusted no longer is refused, on connections that are open already too.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use contract::names::AUTHENTICATION_CONFIG_MAP;
use http::StatusCode;
use rustls::version::TLS13;
use serde_json::{Value, json};

use super::access::NODES;
use super::boundaries::pod;
use super::context::Context;
use super::pki::Authority;
use super::wait::eventually;

/// Time for a changed authority to be read by kube-apiserver and metrics-api.
const AUTHORITY_WITHIN: Duration = Duration::from_mins(1);

/// A connection is judged by the authorities of each request's moment, not of its handshake's.
pub(super) async fn is_refused(context: &Context) -> Result<()> {
    context.working_stack().await?;
    let server = pod(context).await?;
    let authority = Authority::new("a second front-proxy-ca")?;
    let identity = authority.client("front-proxy-client")?;
    let headers = [
        ("x-remote-user", "system:kube-aggregator"),
        ("x-remote-group", "system:masters"),
    ];
    let before = front_proxy_authorities(context).await?;

    // kube-apiserver keeps what others add to its list.
    set_front_proxy_authorities(context, &format!("{before}{}", authority.pem)).await?;
    let mut connection = eventually("a second authority is accepted", AUTHORITY_WITHIN, async || {
        let mut connection = server.connect(Some(&identity), &TLS13).await?;
        connection.get(NODES, &headers).await?.json()?;
        Ok(connection)
    })
    .await?;

    eventually(
        "a removed authority is refused on the open connection",
        AUTHORITY_WITHIN,
        async || {
            if front_proxy_authorities(context)
                .await?
                .contains(authority.pem.trim())
            {
                set_front_proxy_authorities(context, &before).await?;
            }
            connection
                .get(NODES, &headers)
                .await?
                .expect_status(StatusCode::UNAUTHORIZED, "nauthorized")
        },
    )
    .await?;
    let again = server.get(Some(&identity), NODES, &headers).await?;
    again.expect_status(StatusCode::UNAUTHORIZED, "nauthorized")?;
    context
        .kubectl(&["get", "--raw", NODES])
        .await
        .context("the genuine front proxy after that")?;
    Ok(())
}

const FRONT_PROXY_AUTHORITIES: &str = "requestheader-client-ca-file";

async fn front_proxy_authorities(context: &Context) -> Result<String> {
    let args = [
        "get",
        "configmap",
        AUTHENTICATION_CONFIG_MAP,
        "--namespace=kube-system",
        "--output=json",
    ];
    let map: Value = serde_json::from_str(&context.kubectl(&args).await?)?;
    let authorities = map["data"][FRONT_PROXY_AUTHORITIES]
        .as_str()
        .context("no front-proxy authorities")?;
    ensure!(
        authorities.ends_with('\n'),
        "the front-proxy authorities have no newline at their end"
    );
    Ok(authorities.to_owned())
}

async fn set_front_proxy_authorities(context: &Context, authorities: &str) -> Result<()> {
    let patch = json!({"data": {FRONT_PROXY_AUTHORITIES: authorities}}).to_string();
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

//! What makes kube-apiserver's reads fail is named: a front-proxy certificate that ends soon while they still succeed, each
//! fault of such a certificate, an authority that signs clients too or is not published, a Service that selects nobody, a
//! caBundle that does not fit, and a closed way to the Pods, with the namespaces that cannot be deleted meanwhile.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use contract::names::{AUTHENTICATION_CONFIG_MAP, MANAGED_BY, METRICS_API, METRICS_API_PORT, METRICS_GROUP};
use http::header::ACCEPT;
use jiff::Timestamp;
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use super::admission;
use super::boundaries::authority;
use super::context::Context;
use super::front_proxy_files::{FrontProxy, write_authority, write_certificate};
use super::pki::Authority;
use super::pod::RunningPod;
use super::wait::eventually;
use crate::test::install_yaml::NAMESPACE;

/// Time for kube-apiserver to take up what changed, and for two turns of the operator.
const WITHIN: Duration = Duration::from_mins(2);
const NAME: &str = "front-proxy-client";
/// Less than a third of the lifetime of one that began an hour ago.
const ENDS_SOON: Duration = Duration::from_mins(20);
/// The form of discovery that controllers ask for.
const DISCOVERY: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
/// The policy that keeps kube-apiserver or the operator from writing.
const KEEPER: &str = "e2e-unwritten";
/// A change that matters to nobody.
const TOUCH: &str = r#"--patch={"metadata": {"annotations": {"e2e.metricsstack.dev/touched": ""}}}"#;
/// A namespace that is deleted while nothing answers.
const STUCK: &str = "e2e-stuck";

pub(super) async fn are_explained(context: &Context) -> Result<()> {
    context.working_stack().await?;
    let original = FrontProxy::read(context).await?;
    let named = front_proxies(context).await;
    write_certificate(context, &original.certificate, &original.key).await?;
    named?;
    let named = shared_authority(context, &original.authority).await;
    write_authority(context, &original.authority).await?;
    named?;
    let named = unpublished_authority(context).await;
    admission::allow(context, KEEPER).await?;
    named?;
    // What kube-apiserver publishes is written again when the ConfigMap is gone.
    context
        .kubectl(&[
            "delete",
            "configmap",
            "--namespace=kube-system",
            AUTHENTICATION_CONFIG_MAP,
        ])
        .await?;
    context
        .ready()
        .await
        .context("with the right front proxy again")?;
    let service = ["service", "--namespace", NAMESPACE, METRICS_API];
    let nobody = json!({"spec": {"selector": {"app.kubernetes.io/name": "nobody"}}});
    let kind = ("", "v1", "services");
    unmended(context, kind, &service, &nobody, "ServiceWithoutEndpoints").await?;
    let service = ["apiservice", "v1.metrics.k8s.io"];
    let authority = ByteString(Authority::new("another authority")?.pem.into_bytes());
    let another = json!({"spec": {"caBundle": authority}});
    let kind = ("apiregistration.k8s.io", "v1", "apiservices");
    unmended(context, kind, &service, &another, "ServingCertificateNotTrusted").await?;
    closed_way(context).await
}

/// Each certificate that is not the front proxy's.
async fn front_proxies(context: &Context) -> Result<()> {
    let authority = authority(context, "front-proxy-ca").await?;
    let (certificate, key) = authority.client_pem_for(NAME, ENDS_SOON)?;
    write_certificate(context, &certificate, &key).await?;
    finding(context, "FrontProxyCertificateExpires").await?;
    let stack = context.stack().await?;
    stack.expect("Available", "True", "")?;
    let shown = &stack.0["status"]["aggregation"]["proxyClient"];
    let ends: Timestamp = shown["notAfter"].as_str().context("no notAfter")?.parse()?;
    ensure!(
        shown["commonName"] == NAME && ends.duration_since(Timestamp::now()) <= ENDS_SOON.try_into()?,
        "it is shown {shown}"
    );
    let cases = [
        ("NameNotAllowed", authority.client_pem("somebody")?),
        ("Expired", authority.expired_client_pem(NAME)?),
        ("WrongUsage", authority.server(NAME)?),
        (
            "UnknownAuthority",
            Authority::new("kubernetes-front-proxy-ca")?.client_pem(NAME)?,
        ),
    ];
    for (fault, (certificate, key)) in cases {
        write_certificate(context, &certificate, &key).await?;
        finding(context, &format!("FrontProxy{fault}")).await?;
    }
    Ok(())
}

/// One that signs every client's certificate.
async fn shared_authority(context: &Context, own: &str) -> Result<()> {
    let of_clients = context.control_plane_file("/etc/kubernetes/pki/ca.crt").await?;
    write_authority(context, &format!("{own}{of_clients}")).await?;
    finding(context, "FrontProxyAuthorityShared").await
}

/// As it is without the front-proxy flags. A kube-apiserver that has them publishes them again at once, unless it may not.
async fn unpublished_authority(context: &Context) -> Result<()> {
    let published = json!([{
        "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"], "operations": ["UPDATE"],
        "resourceNames": [AUTHENTICATION_CONFIG_MAP],
    }]);
    let patch = [
        "patch",
        "configmap",
        "--namespace=kube-system",
        AUTHENTICATION_CONFIG_MAP,
    ];
    let keeps = [
        "--as=system:apiserver",
        "--as-group=system:masters",
        "--dry-run=server",
        TOUCH,
    ];
    let by_others = "request.userInfo.username != 'system:apiserver'";
    let probe = [patch.as_slice(), &keeps].concat();
    admission::refuse(context, KEEPER, published, by_others, &probe).await?;
    let without = r#"--patch={"data": {"requestheader-client-ca-file": null}}"#;
    context.kubectl(&[patch.as_slice(), &[without]].concat()).await?;
    finding(context, "AggregationDisabled").await
}

/// Something of the operator's is changed that it may not put right.
async fn unmended(
    context: &Context,
    (group, version, resource): (&str, &str, &str),
    object: &[&str],
    patch: &Value,
    reason: &str,
) -> Result<()> {
    let rules = json!([{
        "apiGroups": [group], "apiVersions": [version], "resources": [resource], "operations": ["UPDATE"],
    }]);
    let operator = format!("system:serviceaccount:{NAMESPACE}:{MANAGED_BY}");
    let by_others = format!("request.userInfo.username != '{operator}'");
    let merge = [&["patch", "--type=merge"], object].concat();
    let impersonation = format!("--as={operator}");
    let probe = [merge.as_slice(), &[&impersonation, "--dry-run=server", TOUCH]].concat();
    let named = async {
        admission::refuse(context, KEEPER, rules, &by_others, &probe).await?;
        let patch = format!("--patch={patch}");
        context.kubectl(&[merge.as_slice(), &[&patch]].concat()).await?;
        finding(context, reason).await?;
        context.stack().await?.expect_finding("ApplyFailed").map(drop)
    }
    .await;
    admission::allow(context, KEEPER).await?;
    named.with_context(|| format!("{object:?} changed"))?;
    context
        .ready()
        .await
        .with_context(|| format!("{object:?} as it was"))?;
    Ok(())
}

/// The control plane's way to the Pods is closed, while the operator's is open.
async fn closed_way(context: &Context) -> Result<()> {
    let pods = context.metrics_api_pods().await?;
    let control_plane = RunningPod::of_control_plane(context);
    let rule = |action: &'static str, address: String| {
        let port = METRICS_API_PORT.to_string();
        let words = [
            "iptables", "-w", action, "OUTPUT", "-d", &address, "-p", "tcp", "--dport", &port,
        ];
        let mut words: Vec<_> = words.map(str::to_owned).into();
        // What Pods send is forwarded, and kubelet's probes go to the Pods of its own node only.
        words.extend(["-j", "REJECT"].map(str::to_owned));
        words
    };
    let explained = async {
        for (_, address) in &pods {
            let closed = rule("-I", address.to_string());
            control_plane.run(context, &closed).await?;
        }
        while_closed(context).await
    }
    .await;
    let mut opened = Ok(());
    for (_, address) in &pods {
        let open = rule("-D", address.to_string());
        opened = opened.and(control_plane.run(context, &open).await.map(drop));
    }
    explained?;
    opened?;
    context.ready().await.context("with the way open again")?;
    context
        .kubectl(&["wait", "--for=delete", "namespace", STUCK, "--timeout=60s"])
        .await?;
    Ok(())
}

async fn while_closed(context: &Context) -> Result<()> {
    finding(context, "ControlPlaneCannotReachPods").await?;
    eventually(
        "kube-apiserver's discovery has the group as stale",
        WITHIN,
        async || {
            let request = http::Request::get("/apis")
                .header(ACCEPT, DISCOVERY)
                .body(Vec::new())?;
            let groups: Value = serde_json::from_str(&context.client.request_text(request).await?)?;
            let groups = groups["items"].as_array().context("no groups")?;
            let ours = groups
                .iter()
                .find(|group| group["metadata"]["name"] == METRICS_GROUP);
            let versions = ours
                .and_then(|group| group["versions"].as_array())
                .context("no versions")?;
            ensure!(
                versions.iter().all(|version| version["freshness"] == "Stale"),
                "{versions:?}"
            );
            Ok(())
        },
    )
    .await?;
    context.kubectl(&["create", "namespace", STUCK]).await?;
    context
        .kubectl(&["delete", "namespace", STUCK, "--wait=false"])
        .await?;
    finding(context, "NamespacesStuck").await?;
    let findings = context.stack().await?.0["status"]["findings"].to_string();
    ensure!(findings.contains(STUCK), "{findings}");
    Ok(())
}

async fn finding(context: &Context, reason: &str) -> Result<()> {
    let began = Instant::now();
    eventually(format!("the finding {reason}"), WITHIN, async || {
        let stack = context.stack().await?;
        stack.expect_finding(reason)?;
        Ok(())
    })
    .await?;
    context.say(format_args!(
        "{reason} after {:.1} s",
        began.elapsed().as_secs_f64()
    ));
    Ok(())
}

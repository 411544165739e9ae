//! How kubelets prove who they are, in each mode.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use contract::names::{KUBELET_SERVICE_ACCOUNT, TRUST_LABEL};
use contract::report::ErrorClass;
use contract::trust::TrustRecord;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::boundaries::authority;
use super::context::Context;
use super::fake_kubelet::{Behaviour, FakeKubelet};
use super::pki::self_signed_kubelet;
use super::wait::eventually;
use crate::test::install_yaml::NAMESPACE;

/// A ConfigMap with kubelets' authorities.
const AUTHORITIES: &str = "kubelet-authorities";
/// The finding about one that holds none.
const UNFIT: &str = "KubeletAuthoritiesUnfit";
const SEEN_WITHIN: Duration = Duration::from_secs(90);

/// Mode `Auto`: who was verified or pinned and then shows something else is refused, and so is who chains wrongly.
pub(super) async fn changes_are_refused(context: &Context) -> Result<()> {
    context.working_stack().await?;
    let ca = authority(context, "ca").await?;
    let address = context.own_address()?.into();
    let start = async |name: &str, identity| {
        let node = format!("fake-{name}-{}", Timestamp::now().as_second());
        FakeKubelet::start(context, node, identity, Behaviour::Metrics).await
    };
    let verified = start("verified", ca.kubelet("verified", address)?).await?;
    let pinned = start("pinned", self_signed_kubelet("pinned")?).await?;
    let misnamed = start("misnamed", ca.kubelet_of_another_address("misnamed")?).await?;

    eventually(
        "a chain is verified, a self-signed certificate pinned, a wrong name refused",
        SEEN_WITHIN,
        async || {
            ensure!(
                record(context, &verified).await? == Some(TrustRecord::Verified),
                "the chain is not recorded"
            );
            let pin = record(context, &pinned).await?;
            ensure!(matches!(pin, Some(TrustRecord::Pinned(_))), "the pin is {pin:?}");
            fails(context, &misnamed, ErrorClass::TlsNameMismatch).await?;
            answering(context, 4).await
        },
    )
    .await?;
    ensure!(
        record(context, &misnamed).await?.is_none(),
        "a certificate with the wrong name was recorded"
    );
    let pin = record(context, &pinned).await?;
    shows_the_second_account(context, &verified).await?;

    verified.present(self_signed_kubelet("verified")?);
    pinned.present(self_signed_kubelet("pinned")?);
    eventually("both changes are refused", SEEN_WITHIN, async || {
        fails(context, &verified, ErrorClass::TlsDowngrade).await?;
        fails(context, &pinned, ErrorClass::TlsKeyChanged).await
    })
    .await?;
    ensure!(
        record(context, &verified).await? == Some(TrustRecord::Verified),
        "the record was changed"
    );
    ensure!(record(context, &pinned).await? == pin, "the pin was changed");
    tokio::try_join!(nothing_is_sent(&verified), nothing_is_sent(&pinned))?;
    let stack = context.stack().await?;
    for class in [ErrorClass::TlsDowngrade, ErrorClass::TlsKeyChanged] {
        stack.expect_finding(class.as_str())?;
    }

    verified.present(ca.kubelet("verified", address)?);
    eventually("a good chain is accepted again", SEEN_WITHIN, async || {
        answering(context, 3).await
    })
    .await
}

/// What kubelets see is a token of the account that may do nothing else.
async fn shows_the_second_account(context: &Context, fake: &FakeKubelet) -> Result<()> {
    let token = fake.requests().token.context("a request without a token")?;
    let review =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let args = ["create", "--filename", "-", "--output", "json"];
    let review: Value =
        serde_json::from_str(&context.cluster.kubectl_stdin(args, &review.to_string()).await?)?;
    let user = &review["status"]["user"]["username"];
    let expected = format!("system:serviceaccount:{NAMESPACE}:{KUBELET_SERVICE_ACCOUNT}");
    ensure!(*user == expected, "the token is of {user}, expected {expected}");
    Ok(())
}

/// Connections to a kubelet that is refused go on being tried, and none carries a request, which would show a token.
async fn nothing_is_sent(fake: &FakeKubelet) -> Result<()> {
    let (connections, requests) = (fake.connections(), fake.requests().count());
    eventually("it is dialled again", SEEN_WITHIN, async || {
        let more = fake.connections() - connections;
        ensure!(more >= 4, "{more} connections more");
        Ok(())
    })
    .await?;
    let sent = fake.requests().count() - requests;
    ensure!(sent == 0, "{sent} requests to {}, which is refused", fake.node);
    Ok(())
}

/// Mode `Verify` with certificates that kubelets signed themselves: not ready, and the status says why and what to do.
pub(super) async fn self_signed_are_not_verified(context: &Context) -> Result<()> {
    context.install().await?;
    context.delete_stack("background").await?;
    context
        .apply_stack(&json!({"kubelet": {"tls": {"mode": "Verify"}}}))
        .await?;
    eventually("the status names the cause", SEEN_WITHIN, async || {
        let stack = context.stack().await?;
        stack.expect_current()?;
        stack.expect("Ready", "False", "")?;
        stack.expect("KubeletsReachable", "False", "")?;
        // No replica gets ready either, for the same reason.
        let cause = format!("Kubelet{}", ErrorClass::TlsUnknownAuthority);
        stack.expect("MetricsApiReady", "False", &cause)?;
        let failing = stack.failing().to_string();
        ensure!(
            failing.contains(ErrorClass::TlsUnknownAuthority.as_str()),
            "{failing}"
        );
        let finding = stack.expect_finding(ErrorClass::TlsUnknownAuthority.as_str())?;
        let remedy = finding["remedy"].as_str().unwrap_or_default();
        ensure!(
            remedy.contains("serverTLSBootstrap") && remedy.contains("Auto"),
            "no way out in {finding}"
        );
        ensure!(
            finding["message"]
                .as_str()
                .is_some_and(|text| text.contains("x509")),
            "no x509 cause in {finding}"
        );
        Ok(())
    })
    .await?;
    context
        .kubectl(&["get", "metricsstacks", "default"])
        .await
        .map(|shown| context.say(shown.trim_end()))?;
    context.apply_stack(&json!({})).await?;
    context.ready().await.context("with mode Auto again")?;
    Ok(())
}

/// Certificates of the cluster's CA: mode `Verify` works by authorities from a ConfigMap, as long as it holds any; mode `Auto`
/// verifies, and nobody is pinned.
pub(super) async fn signed_are_verified(context: &Context) -> Result<()> {
    context.install().await?;
    // One that an earlier run left would be there too early.
    delete_authorities(context).await?;
    let result = authorities_of_a_config_map(context).await;
    delete_authorities(context).await?;
    result?;
    // With the cluster's authority, as is the default; approval sees to mode Verify with that.
    context.apply_stack(&Value::Null).await?;
    let stack = context.ready().await.context("mode Auto")?;
    let kubelets = &stack.0["status"]["kubelets"];
    ensure!(
        kubelets["total"] == 1 && kubelets["pinned"] == 0,
        "mode Auto: {kubelets}"
    );
    let trust = records(context).await?;
    let pins: Vec<_> = trust
        .iter()
        .filter(|(_, record)| record.starts_with("pinned"))
        .collect();
    ensure!(pins.is_empty(), "mode Auto: {pins:?}");
    context.kubectl(&["top", "node", "node-1"]).await?;
    let uid = context
        .kubectl(&["get", "node", "node-1", "--output=jsonpath={.metadata.uid}"])
        .await?;
    eventually(
        "mode Auto remembers that the node was verified",
        SEEN_WITHIN,
        async || {
            let trust = records(context).await?;
            ensure!(
                trust
                    .iter()
                    .any(|(node, record)| *node == uid && record == "verified"),
                "{trust:?}"
            );
            Ok(())
        },
    )
    .await
}

async fn delete_authorities(context: &Context) -> Result<()> {
    let delete = [
        "delete",
        "configmap",
        AUTHORITIES,
        "--ignore-not-found",
        "--namespace",
        NAMESPACE,
    ];
    context.kubectl(&delete).await.map(drop)
}

async fn authorities_of_a_config_map(context: &Context) -> Result<()> {
    let of_cluster = context.control_plane_file("/etc/kubernetes/pki/ca.crt").await?;
    let hold = async |text: &str| {
        let map = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": AUTHORITIES, "namespace": NAMESPACE},
            "data": {"kubelets.pem": text},
        });
        let args = ["apply", "--server-side", "--filename", "-"];
        context.cluster.kubectl_stdin(args, &map.to_string()).await
    };
    let reference = json!({"name": AUTHORITIES, "key": "kubelets.pem"});
    context
        .apply_stack(&json!({"kubelet": {"tls": {"mode": "Verify", "caBundle": {"configMap": reference}}}}))
        .await?;
    eventually(
        "a ConfigMap that is not there is named",
        SEEN_WITHIN,
        async || {
            let stack = context.stack().await?;
            let finding = stack.expect_finding(UNFIT)?;
            ensure!(finding["message"].to_string().contains(AUTHORITIES), "{finding}");
            Ok(())
        },
    )
    .await?;
    hold(&of_cluster).await?;
    context
        .ready()
        .await
        .context("by the cluster's authority in a ConfigMap")?;
    let pods = context.metrics_api_containers().await?;

    hold("garbage").await?;
    eventually("what is no bundle is named", SEEN_WITHIN, async || {
        let stack = context.stack().await?;
        stack.expect("Available", "True", "")?;
        stack.expect("Ready", "True", "")?;
        let finding = stack.expect_finding(UNFIT)?;
        let message = finding["message"].as_str().unwrap_or_default();
        ensure!(
            message.contains("found no PEM certificate in kubelets.pem of ConfigMap"),
            "{message}"
        );
        Ok(())
    })
    .await?;
    answering(context, 1).await?;

    hold(&of_cluster).await?;
    eventually("and no longer once it is one", SEEN_WITHIN, async || {
        let stack = context.stack().await?;
        stack.expect("Ready", "True", "")?;
        ensure!(stack.expect_finding(UNFIT).is_err(), "it is named still");
        Ok(())
    })
    .await?;
    let after = context.metrics_api_containers().await?;
    ensure!(after == pods, "metrics-api's Pods are {after:?}, before {pods:?}");
    Ok(())
}

/// Trust records by UID of the Node.
async fn records(context: &Context) -> Result<Vec<(String, String)>> {
    let args = [
        "get",
        "configmaps",
        "--namespace",
        NAMESPACE,
        "--selector",
        TRUST_LABEL,
        "--output=json",
    ];
    let maps: Value = serde_json::from_str(&context.kubectl(&args).await?)?;
    let entries = maps["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|map| map["data"].as_object())
        .flatten();
    Ok(entries
        .map(|(uid, record)| (uid.clone(), record.as_str().unwrap_or_default().to_owned()))
        .collect())
}

async fn record(context: &Context, fake: &FakeKubelet) -> Result<Option<TrustRecord>> {
    let uid = fake.uid(context).await?;
    let found = records(context).await?.into_iter().find(|(node, _)| *node == uid);
    found
        .map(|(_, record)| {
            record
                .parse()
                .with_context(|| format!("the record of {} is {record:?}", fake.node))
        })
        .transpose()
}

/// An error unless the status says that this kubelet fails in this way.
async fn fails(context: &Context, fake: &FakeKubelet, class: ErrorClass) -> Result<()> {
    let stack = context.stack().await?;
    let entries = stack.failing().as_array().map_or(&[] as &[Value], Vec::as_slice);
    let of_class = entries.iter().find(|entry| {
        entry["reason"]
            .as_str()
            .is_some_and(|r| r.ends_with(class.as_str()))
    });
    let named = of_class.is_some_and(|entry| entry["examples"].to_string().contains(&fake.node));
    ensure!(
        named,
        "{} should fail with {class}: {}",
        fake.node,
        stack.failing()
    );
    Ok(())
}

/// An error unless so many kubelets answer.
async fn answering(context: &Context, count: u32) -> Result<()> {
    let stack = context.stack().await?;
    let kubelets = &stack.0["status"]["kubelets"];
    ensure!(
        kubelets["answering"] == count,
        "{count} should answer: {kubelets}"
    );
    Ok(())
}

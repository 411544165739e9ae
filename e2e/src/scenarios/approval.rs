//! Kubelets that wait for serving certificates get them, and nobody else does.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::ByteString;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};
use serde_json::{Value, json};

use super::context::Context;
use super::rights_used;
use super::wait::eventually;

const WITHIN: Duration = Duration::from_mins(1);
const NODE_USER: &str = "system:node:node-1";

/// A cluster with `serverTLSBootstrap: true` in which nobody approves anything is told so, and comes to mode `Verify` by
/// itself if the stack says so; then
/// forged requests of each kind are denied, and one for an address that the Node does not have waits.
pub(super) async fn of_kubelets_only(context: &Context) -> Result<()> {
    clean(context).await?;
    context.install().await?;
    context.apply_stack(&Value::Null).await?;
    eventually("requests that nobody approves are named", WITHIN, async || {
        context
            .stack()
            .await?
            .expect_finding("KubeletCertificatesPending")?;
        Ok(())
    })
    .await?;
    let spec = json!({"kubelet": {"approveServingCertificates": true, "tls": {"mode": "Verify"}}});
    context.apply_stack(&spec).await?;
    let stack = context.ready().await?;
    let kubelets = &stack.0["status"]["kubelets"];
    ensure!(
        kubelets["answering"] == 1 && kubelets["pinned"] == 0,
        "the kubelets are {kubelets}"
    );
    forgeries(context).await?;
    // What may come true later waits; what is true is approved.
    let elsewhere = SanType::IpAddress("203.0.113.7".parse()?);
    ask(context, &own_request("elsewhere", vec![elsewhere])).await?;
    ask(context, &own_request("own", own(context))).await?;
    eventually("its own address is approved", WITHIN, async || {
        let condition = decision(context, "own").await?;
        ensure!(condition["type"] == "Approved", "{condition}");
        Ok(())
    })
    .await?;
    let waiting = decision(context, "elsewhere").await?;
    ensure!(
        waiting.is_null(),
        "what may come true later was decided on: {waiting}"
    );
    rights_used::by_approval(context).await?;
    clean(context).await
}

async fn clean(context: &Context) -> Result<()> {
    let args = ["delete", "certificatesigningrequests", "--selector=e2e=approval"];
    context.kubectl(&args).await?;
    Ok(())
}

/// Requests that are denied, each for its reason, of which an event tells. One for another node's name is refused by
/// kube-apiserver's `NodeRestriction` already.
async fn forgeries(context: &Context) -> Result<()> {
    let email = SanType::Rfc822Name("a@example.com".try_into()?);
    let masters = Request {
        group: "system:masters",
        ..own_request("masters", own(context))
    };
    let client = Request {
        usage: "client auth",
        ..own_request("client", own(context))
    };
    let nobody = Request {
        asks: "somebody",
        ..own_request("no-node", own(context))
    };
    let mut with_email = own(context);
    with_email.push(email);
    // Lines that end in a carriage return alone are none to Go: kube-controller-manager would sign the second block.
    let harmless = pem(&own_request("harmless", own(context)))?;
    let another = SanType::DnsName("another.example".try_into()?);
    let two_readings = Request {
        front: harmless.replace('\n', "\r") + "\n",
        ..own_request("two-readings", vec![another])
    };
    let cases = [
        (masters, "organization"),
        (client, "usages"),
        (nobody, "expected a node"),
        (own_request("e-mail", with_email), "DNS names and addresses only"),
        (own_request("no-names", Vec::new()), "does not name"),
        (two_readings, "nothing else"),
    ];
    for (request, _) in &cases {
        ask(context, request).await?;
    }
    for (request, reason) in &cases {
        eventually("a forgery is denied", WITHIN, async || {
            let condition = decision(context, request.name).await?;
            ensure!(condition["type"] == "Denied", "{}: {condition}", request.name);
            let message = condition["message"].as_str().unwrap_or_default();
            ensure!(message.contains(reason), "{}: {message}", request.name);
            Ok(())
        })
        .await?;
    }
    eventually("denials are events", WITHIN, async || {
        let selector = "--field-selector=reason=KubeletCertificateDenied";
        let events = context
            .kubectl(&["get", "events", "--output=json", selector])
            .await?;
        ensure!(
            events.contains("e2e-masters") && events.contains("organization"),
            "{events}"
        );
        Ok(())
    })
    .await
}

/// What is asked for, and by whom.
struct Request {
    name: &'static str,
    asks: &'static str,
    user: &'static str,
    group: &'static str,
    usage: &'static str,
    names: Vec<SanType>,
    /// What stands before it.
    front: String,
}

/// As the kubelet of the node asks.
fn own_request(name: &'static str, names: Vec<SanType>) -> Request {
    Request {
        name,
        asks: NODE_USER,
        user: NODE_USER,
        group: "system:nodes",
        usage: "server auth",
        names,
        front: String::new(),
    }
}

fn own(context: &Context) -> Vec<SanType> {
    vec![SanType::IpAddress(context.cluster.node_ip(1))]
}

fn pem(request: &Request) -> Result<String> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, request.user);
    params
        .distinguished_name
        .push(DnType::OrganizationName, request.group);
    params.subject_alt_names.clone_from(&request.names);
    Ok(params.serialize_request(&KeyPair::generate()?)?.pem()?)
}

async fn ask(context: &Context, request: &Request) -> Result<()> {
    let bytes = (request.front.clone() + &pem(request)?).into_bytes();
    let manifest = json!({
        "apiVersion": "certificates.k8s.io/v1",
        "kind": "CertificateSigningRequest",
        "metadata": {"name": format!("e2e-{}", request.name), "labels": {"e2e": "approval"}},
        "spec": {
            "signerName": "kubernetes.io/kubelet-serving",
            "usages": [request.usage, "digital signature"],
            "request": ByteString(bytes),
        },
    });
    let args = ["create", "--filename=-", "--as", request.asks];
    // The second group is allowed to ask, whoever it is.
    let groups = ["--as-group=system:nodes", "--as-group=system:masters"];
    context
        .cluster
        .kubectl_stdin([args.as_slice(), &groups].concat(), &manifest.to_string())
        .await
        .with_context(|| format!("the request {}", request.name))?;
    Ok(())
}

/// The condition that decides on a request, or null.
async fn decision(context: &Context, name: &str) -> Result<Value> {
    let name = format!("e2e-{name}");
    let args = ["get", "certificatesigningrequests", &name, "--output=json"];
    let request: Value = serde_json::from_str(&context.kubectl(&args).await?)?;
    Ok(request["status"]["conditions"][0].clone())
}

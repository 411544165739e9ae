//! Certificate authorities and serving certificates come and go under a steady load of reads, of which none fails.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use contract::names::{CA_SECRET, METRICS_API, SERVING_SECRET, TLS_CERTIFICATE};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;

use super::boundaries::pods;
use super::context::Context;
use super::load;
use super::pki::Authority;
use super::secrets;
use super::wait::eventually;
use crate::test::install_yaml::NAMESPACE;

/// How long each state of a rotation lasts at least. A minute is the default.
const MINIMUM_AGE: &str = "CERTIFICATE_MINIMUM_AGE";
/// The Secret that somebody else keeps: the one that the operator may read by default.
const GIVEN: &str = "metrics-api-tls";
/// How long a certificate is good for that should have been renewed: less than a sixth of its lifetime.
const LATE: Duration = Duration::from_mins(8);
/// How often is looked at the certificates.
const LOOK: Duration = Duration::from_secs(1);
/// Time for an authority to be replaced after it is due.
const SLACK: Duration = Duration::from_secs(90);

/// The shortest lifetimes, one rotation of the authority.
pub(super) async fn fails_no_read(context: &Context) -> Result<()> {
    Box::pin(rotations(
        context,
        1,
        Duration::from_mins(3),
        Duration::from_mins(1),
    ))
    .await
}

/// Two rotations in half an hour.
pub(super) async fn is_measured(context: &Context) -> Result<()> {
    Box::pin(rotations(
        context,
        2,
        Duration::from_mins(15),
        Duration::from_mins(3),
    ))
    .await
}

async fn rotations(context: &Context, wanted: usize, authority: Duration, leaf: Duration) -> Result<()> {
    context.install().await?;
    minimum_age(context, &format!("{MINIMUM_AGE}=5s")).await?;
    context.delete_stack("background").await?;
    let seconds = |time: Duration| format!("{}s", time.as_secs());
    let spec = json!({"certificates": {"caValidity": seconds(authority), "leafValidity": seconds(leaf)}});
    context.apply_stack(&spec).await?;
    context.ready().await?;
    let containers = context.metrics_api_containers().await?;
    let count = u32::try_from(wanted)?;
    let within = authority * count + SLACK;
    let following = async {
        let seen = tokio::time::timeout(within, follow(context, wanted)).await;
        seen.with_context(|| format!("not rotated {wanted} times within {within:?}"))?
    };
    let (seen, outcome) = load::during(context, async {
        let seen = Box::pin(following).await?;
        Box::pin(somebody_elses(context)).await.context("issuer Secret")?;
        Ok(seen)
    })
    .await?;
    outcome.expect_no_failure()?;
    let stack = context.stack().await?;
    ensure!(
        stack.expect_finding("ObjectContested").is_err(),
        "the operator takes its own renewals for somebody else's"
    );
    ensure!(
        context.metrics_api_containers().await? == containers,
        "metrics-api was restarted"
    );
    context.say(format_args!(
        "{} authorities and {} serving certificates one after the other, {} reads meanwhile, 0 failed, the slowest {} ms; \
         a new certificate was served everywhere after at most {:.1} s",
        seen.authorities.len(),
        seen.certificates.len(),
        outcome.answered,
        outcome.slowest.as_millis(),
        seen.slowest.as_secs_f64(),
    ));
    minimum_age(context, &format!("{MINIMUM_AGE}-")).await?;
    context.apply_stack(&json!({})).await?;
    context.ready().await?;
    Ok(())
}

/// From the operator's certificates to somebody else's, past a bad one, and back.
async fn somebody_elses(context: &Context) -> Result<()> {
    let name = format!("{METRICS_API}.{NAMESPACE}.svc");
    let spec = json!({"certificates": {"issuer": "Secret", "secretName": GIVEN}});
    let authority = Authority::new("somebody else's")?;
    let (certificate, key) = authority.server_for(&name, LATE)?;
    give(context, &certificate, &key, &authority.pem).await?;
    context.apply_stack(&spec).await?;
    served(context, &certificate).await.context("somebody else's")?;
    eventually("that it was not renewed in time is named", SLACK, async || {
        context.stack().await?.expect_finding("CertificateExpires")?;
        Ok(())
    })
    .await?;
    eventually("only its authority is trusted", SLACK, async || {
        let stored = secrets::read(context, SERVING_SECRET).await?;
        ensure!(
            secrets::entry(&stored, "ca.crt")?.trim() == authority.pem.trim(),
            "others are too"
        );
        Ok(())
    })
    .await?;
    let (_, another_key) = authority.server(&name)?;
    give(context, &certificate, &another_key, &authority.pem).await?;
    eventually("a key of another certificate is named", SLACK, async || {
        let stack = context.stack().await?;
        let condition = stack.expect("CertificatesReady", "False", "GivenCertificateUnfit")?;
        let message = condition["message"].to_string();
        ensure!(message.contains("tls.key is not the key of tls.crt"), "{message}");
        Ok(())
    })
    .await?;
    served(context, &certificate).await.context("the last good one")?;
    context.apply_stack(&json!({})).await?;
    context.ready().await?;
    eventually("the operator's own certificate is served", SLACK, async || {
        let authority = secrets::read(context, CA_SECRET).await?;
        ensure!(
            secrets::entry(&authority, "ca.crt")? == secrets::entry(&authority, TLS_CERTIFICATE)?,
            "not alone"
        );
        let leaf = secrets::entry(&secrets::read(context, SERVING_SECRET).await?, TLS_CERTIFICATE)?;
        let expected = CertificateDer::from_pem_slice(leaf.as_bytes())?;
        for server in pods(context).await? {
            ensure!(server.certificate().await? == expected, "another one is");
        }
        Ok(())
    })
    .await?;
    context
        .kubectl(&["delete", "secret", GIVEN, "--namespace", NAMESPACE])
        .await?;
    Ok(())
}

/// Puts a serving certificate where somebody else keeps it.
async fn give(context: &Context, certificate: &str, key: &str, authority: &str) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/tls",
        "metadata": {"name": GIVEN, "namespace": NAMESPACE},
        "stringData": {"tls.crt": certificate, "tls.key": key, "ca.crt": authority},
    });
    context.apply(&secret.to_string()).await?;
    Ok(())
}

#[derive(Default)]
struct Seen {
    authorities: BTreeSet<String>,
    certificates: BTreeSet<String>,
    /// The longest from the Secret to the last replica.
    slowest: Duration,
}

/// Looks on until `wanted` authorities have been replaced and only the last one is trusted.
async fn follow(context: &Context, wanted: usize) -> Result<Seen> {
    let mut seen = Seen::default();
    loop {
        let authority = secrets::read(context, CA_SECRET).await?;
        let leaf = secrets::read(context, SERVING_SECRET).await?;
        seen.authorities
            .insert(secrets::entry(&authority, TLS_CERTIFICATE)?);
        let certificate = secrets::entry(&leaf, TLS_CERTIFICATE)?;
        if seen.certificates.insert(certificate.clone()) {
            let since = Instant::now();
            served(context, &certificate).await?;
            seen.slowest = seen.slowest.max(since.elapsed());
        }
        let trusted = secrets::entry(&authority, "ca.crt")?
            .matches("BEGIN CERTIFICATE")
            .count();
        if seen.authorities.len() > wanted && trusted == 1 {
            ensure!(
                leaf["data"]["previous.key"].is_null(),
                "the key before is still kept"
            );
            return Ok(seen);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until every replica serves it.
async fn served(context: &Context, certificate: &str) -> Result<()> {
    let expected = CertificateDer::from_pem_slice(certificate.as_bytes())?;
    eventually("the new certificate is served", SLACK, async || {
        // With the authority of the moment.
        for server in pods(context).await? {
            ensure!(server.certificate().await? == expected, "another one is");
        }
        Ok(())
    })
    .await
}

async fn minimum_age(context: &Context, variable: &str) -> Result<()> {
    let operator = "deployment/metricsstack-operator";
    context
        .kubectl(&["set", "env", operator, "--namespace", NAMESPACE, variable])
        .await?;
    context
        .kubectl(&[
            "rollout",
            "status",
            operator,
            "--namespace",
            NAMESPACE,
            "--timeout=90s",
        ])
        .await?;
    Ok(())
}

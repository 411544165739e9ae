//! Whatever is changed or deleted comes back.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use contract::names::{
    AUTH_READER_BINDING, CA_SECRET, KUBELET_CLUSTER_ROLE, MANAGED_BY, METRICS_API, NAME_LABEL,
    SERVING_SECRET, TLS_CERTIFICATE, TLS_KEY,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::access::{NODES, Server};
use super::boundaries::pods;
use super::context::Context;
use super::load;
use super::objects::Object;
use super::pki::Authority;
use super::pod::RunningPod;
use super::secrets;
use super::wait::eventually;
use crate::test::install_yaml::NAMESPACE;

/// A turn of the operator may be reading through an aggregator whose server was just scaled to nothing.
const BACK_WITHIN: Duration = Duration::from_mins(1);
/// A mounted Secret changes up to a minute and a half late.
const SERVED_WITHIN: Duration = Duration::from_secs(150);

/// How many leaders are killed.
const KILLED: usize = 3;

/// The serving certificate under constant questions, then each object, changed and deleted.
pub(super) async fn everything_comes_back(context: &Context) -> Result<()> {
    context.working_stack().await?;
    serving_certificate(context)
        .await
        .context("the serving certificate deleted")?;
    let mut objects = context.our_objects().await?;
    ensure!(objects.len() >= 10, "only {} objects are ours", objects.len());
    // What stops metrics-api or starts a rotation comes last.
    objects.sort_by_key(|object| (object.kind() == "Deployment", object.name() == CA_SECRET));
    let mut slowest = Duration::ZERO;
    for object in &objects {
        for patch in changes(object) {
            let took = changed(context, object, &patch)
                .await
                .with_context(|| format!("{object}, {patch}"))?;
            slowest = slowest.max(took);
        }
        // That one has been, and more often in a row would be a fight.
        if object.name() != SERVING_SECRET {
            let took = deleted(context, object)
                .await
                .with_context(|| format!("{object} deleted"))?;
            slowest = slowest.max(took);
        }
    }
    context.ready().await.context("after all changes")?;
    events(context).await?;
    expired_leaf(context).await.context("an expired leaf")?;
    context.say(format_args!(
        "{} objects came back, the slowest after {:.1} s",
        objects.len(),
        slowest.as_secs_f64()
    ));
    let (taken_over, outcome) = load::during(context, killed_leaders(context)).await?;
    context.say(format_args!(
        "{KILLED} leaders killed while objects were deleted, all of which were back after at most {:.1} s; {} reads \
         meanwhile, {} failed",
        taken_over.as_secs_f64(),
        outcome.answered,
        outcome.failed.len()
    ));
    outcome.expect_no_failure().context("while leaders were killed")
}

/// What was found in the place of what was spoilt is told.
async fn events(context: &Context) -> Result<()> {
    eventually("events tell of what was found", BACK_WITHIN, async || {
        let args = ["get", "events", "--namespace=default", "--output=json"];
        let events: Value = serde_json::from_str(&context.kubectl(&args).await?)?;
        let tells = |reason: &str, name: &str, what: &str| {
            let mut events = events["items"].as_array().into_iter().flatten();
            events.any(|event| {
                let message = event["message"].as_str().unwrap_or_default();
                event["reason"] == reason && event["related"]["name"] == name && message.contains(what)
            })
        };
        for (reason, name, what) in [
            ("CertificateRenewed", SERVING_SECRET, "there is none"),
            ("CertificateRestored", CA_SECRET, "comes back as it was"),
            ("CaBundleRepaired", "v1.metrics.k8s.io", "a caBundle that is not"),
            ("ObjectRepaired", METRICS_API, "changed by"),
            ("ObjectRestored", METRICS_API, "What to do:"),
        ] {
            ensure!(tells(reason, name, what), "no event {reason} of {name}, {what}");
        }
        Ok(())
    })
    .await
}

/// A serving certificate of the right authority whose time is over is replaced.
async fn expired_leaf(context: &Context) -> Result<()> {
    let secret = secrets::read(context, CA_SECRET).await?;
    let entry = |key: &str| secrets::entry(&secret, key);
    let authority = Authority::from_pem(entry(TLS_CERTIFICATE)?, &entry(TLS_KEY)?)?;
    let (certificate, key) = authority.expired_server(&format!("{METRICS_API}.{NAMESPACE}.svc"))?;
    let data = json!({"stringData": {TLS_CERTIFICATE: certificate, TLS_KEY: key}});
    let patch = ["patch", "secret", SERVING_SECRET, "--namespace", NAMESPACE];
    context
        .kubectl(&[patch.as_slice(), &[&format!("--patch={data}")]].concat())
        .await?;
    eventually("another one is stored", BACK_WITHIN, async || {
        let stored = secrets::entry(&secrets::read(context, SERVING_SECRET).await?, TLS_CERTIFICATE)?;
        ensure!(stored != certificate, "it is still there");
        Ok(())
    })
    .await?;
    context.ready().await.map(drop)
}

/// Kills the operator, time and again, while objects are deleted. Gives the longest time until all were there again.
async fn killed_leaders(context: &Context) -> Result<Duration> {
    let objects = context.our_objects().await?;
    // Those that no read needs.
    let kinds = ["PodDisruptionBudget", "RoleBinding", "ClusterRole"];
    let objects: Vec<_> = objects
        .into_iter()
        .filter(|object| kinds.contains(&object.kind()))
        .filter(|object| object.kind() != "ClusterRole" || object.name() == KUBELET_CLUSTER_ROLE)
        .filter(|object| object.name() != AUTH_READER_BINDING)
        .collect();
    ensure!(objects.len() >= kinds.len(), "only {objects:?}");
    let mut slowest = Duration::ZERO;
    for _ in 0..KILLED {
        let (name, leader) = leader(context).await?;
        let began = Instant::now();
        let deleting = async {
            for object in &objects {
                let args = object.args();
                let mut all = vec!["delete", "--wait=false"];
                all.extend(args.iter().map(String::as_str));
                context.kubectl(&all).await?;
            }
            Ok(())
        };
        // Some it may put right, others it may not hear of.
        futures::future::try_join(deleting, leader.kill(context, MANAGED_BY)).await?;
        // Its container would be started again in the same pod, later from time to time.
        let args = [
            "delete",
            "pod",
            &name,
            "--namespace",
            NAMESPACE,
            "--force",
            "--grace-period=0",
        ];
        context.kubectl(&args).await?;
        for object in &objects {
            back(context, object, object)
                .await
                .with_context(|| object.to_string())?;
        }
        slowest = slowest.max(began.elapsed());
        eventually("another leads", BACK_WITHIN, async || {
            let (now, _) = self::leader(context).await?;
            ensure!(now != name, "it is still {name}");
            Ok(())
        })
        .await?;
    }
    context.ready().await?;
    Ok(slowest)
}

/// The pod that holds the operator's Lease.
async fn leader(context: &Context) -> Result<(String, RunningPod)> {
    let namespace = ["--namespace", NAMESPACE];
    let lease = [
        "get",
        "lease",
        MANAGED_BY,
        "--output=jsonpath={.spec.holderIdentity}",
    ];
    let name = context.kubectl(&[lease.as_slice(), &namespace].concat()).await?;
    let pod = ["get", "pod", &name, "--output=jsonpath={.status.podIP}"];
    let address = context.kubectl(&[pod.as_slice(), &namespace].concat()).await?;
    let address = address
        .parse()
        .with_context(|| format!("{name} has the address {address:?}"))?;
    Ok((name, RunningPod::at(address)?))
}

/// Questions that must be answered after the last replica took up the new certificate.
const ANSWERS_AFTER: u32 = 50;

/// Deletes the certificate and asks until every replica serves another one: no question may fail, then and after.
async fn serving_certificate(context: &Context) -> Result<()> {
    let servers = pods(context).await?;
    let before = futures::future::try_join_all(servers.iter().map(Server::certificate)).await?;
    let stop = CancellationToken::new();
    let asking = async {
        let (mut answered, mut after) = (0_u32, 0_u32);
        while after < ANSWERS_AFTER {
            after += u32::from(stop.is_cancelled());
            context
                .kubectl(&["get", "--raw", NODES])
                .await
                .with_context(|| format!("after {answered} answers"))?;
            answered += 1;
        }
        Ok::<_, anyhow::Error>(answered)
    };
    let replacing = async {
        let _stop = stop.clone().drop_guard();
        context
            .kubectl(&["delete", "secret", SERVING_SECRET, "--namespace", NAMESPACE])
            .await?;
        let began = Instant::now();
        eventually("another certificate is served", SERVED_WITHIN, async || {
            for (server, before) in servers.iter().zip(&before) {
                ensure!(
                    server.certificate().await? != *before,
                    "{} still serves the old one",
                    server.address
                );
            }
            Ok(())
        })
        .await?;
        context.say(format_args!(
            "every replica serves another certificate after {:.1} s",
            began.elapsed().as_secs_f64()
        ));
        Ok(())
    };
    let (answered, ()) = futures::future::try_join(asking, replacing).await?;
    context.say(format_args!(
        "{answered} questions meanwhile and after, all answered"
    ));
    context.ready().await?;
    Ok(())
}

/// JSON patches that change what matters about an object.
fn changes(object: &Object) -> Vec<Value> {
    let replace = |path: &str, value: Value| json!([{"op": "replace", "path": path, "value": value}]);
    let label = replace(
        &format!("/metadata/labels/{}", NAME_LABEL.replace('/', "~1")),
        json!("changed"),
    );
    let mut changes = match object.kind() {
        "ClusterRole" | "Role" => vec![replace("/rules", json!([]))],
        "ClusterRoleBinding" | "RoleBinding" => vec![json!([{"op": "remove", "path": "/subjects"}])],
        "Service" => vec![
            replace("/spec/selector", json!({"app": "another"})),
            replace(
                "/spec/ports",
                json!([{"name": "https", "port": 444, "targetPort": 1}]),
            ),
        ],
        "Deployment" => vec![
            replace("/spec/template/spec/containers/0/args", json!(["--no-such-flag"])),
            replace("/spec/replicas", json!(0)),
        ],
        "APIService" => vec![
            replace("/spec/groupPriorityMinimum", json!(1)),
            replace("/spec/caBundle", json!("Cg==")),
        ],
        "Secret" => vec![replace("/data/tls.crt", json!("Cg=="))],
        _ => Vec::new(),
    };
    if object.0["metadata"]["labels"][NAME_LABEL].is_string() {
        changes.push(label);
    }
    changes
}

async fn changed(context: &Context, object: &Object, patch: &Value) -> Result<Duration> {
    let before = context.object(object).await?;
    let args = object.args();
    let patch = patch.to_string();
    let mut all = vec!["patch", "--type=json", "--patch", &patch];
    all.extend(args.iter().map(String::as_str));
    context.kubectl(&all).await?;
    let began = Instant::now();
    back(context, object, &before).await?;
    if object.kind() == "Secret" {
        eventually("the content is whole again", BACK_WITHIN, async || {
            ensure!(
                context.object(object).await?.0["data"]["tls.crt"] != "Cg==",
                "it is still what it was changed to"
            );
            Ok(())
        })
        .await?;
    }
    Ok(began.elapsed())
}

async fn deleted(context: &Context, object: &Object) -> Result<Duration> {
    let before = context.object(object).await?;
    let args = object.args();
    let mut all = vec!["delete"];
    all.extend(args.iter().map(String::as_str));
    context.kubectl(&all).await?;
    let began = Instant::now();
    let after = back(context, object, &before).await?;
    ensure!(after.uid() != before.uid(), "it was not deleted");
    Ok(began.elapsed())
}

/// Waits until the object is what it was.
async fn back(context: &Context, object: &Object, before: &Object) -> Result<Object> {
    eventually("it is back as it was", BACK_WITHIN, async || {
        let now = context.object(object).await?;
        let (expected, found) = (before.essence(), now.essence());
        ensure!(found == expected, "it is {found}, expected {expected}");
        Ok(now)
    })
    .await
}

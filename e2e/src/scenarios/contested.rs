//! Another controller that keeps writing objects of the operator's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::wait::eventually;
use crate::test::install_yaml::NAMESPACE;

const MEDDLER: &str = "meddler";
const NAMED_WITHIN: Duration = Duration::from_mins(1);
/// How long the two are looked at, less than the operator's first pause.
const LOOK: Duration = Duration::from_secs(20);
/// Versions of an object in that time: at most one more repair of two writes, and the other one's answer.
const MOST_VERSIONS: usize = 4;
/// What is contested, and how. Of the certificate each repair is another one.
const CONTESTED: [(&str, &str, &str); 2] = [
    (
        "service",
        "metrics-api",
        r#"{"spec": {"publishNotReadyAddresses": true}}"#,
    ),
    (
        "secret",
        "metrics-api-serving",
        r#"{"data": {"tls.crt": "c3BvaWxlZA=="}}"#,
    ),
];

/// It is named, and not fought: after a few repairs the objects are left alone, and metrics are served all the same.
pub(super) async fn is_named_and_left_alone(context: &Context) -> Result<()> {
    context.working_stack().await?;
    let stop = CancellationToken::new();
    let meddling = async {
        while !stop.is_cancelled() {
            for (kind, name, patch) in CONTESTED {
                let (patch, manager) = (format!("--patch={patch}"), format!("--field-manager={MEDDLER}"));
                let args = ["patch", kind, name, "--type=merge", &patch, &manager];
                let namespace = ["--namespace", NAMESPACE];
                context.kubectl(&[args.as_slice(), &namespace].concat()).await?;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        anyhow::Ok(())
    };
    let looking = async {
        let _stop = stop.clone().drop_guard();
        look(context).await
    };
    let (meddled, looked) = tokio::join!(meddling, looking);
    // The operator forgets the fight with the stack.
    let deleted = context.delete_stack("background").await;
    meddled.and(looked).and(deleted)
}

async fn look(context: &Context) -> Result<()> {
    eventually("the status names the other one", NAMED_WITHIN, async || {
        let stack = context.stack().await?;
        stack.expect("Degraded", "True", "ObjectContested")?;
        stack.expect("Available", "True", "")?;
        for (_, name, _) in CONTESTED {
            let finding = stack.expect_finding(&format!("{NAMESPACE}/{name} is changed by"))?;
            let finding = finding.to_string();
            ensure!(
                finding.contains("ObjectContested") && finding.contains(MEDDLER),
                "{finding}"
            );
        }
        Ok(())
    })
    .await?;
    let began = Instant::now();
    let mut versions: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    while began.elapsed() < LOOK {
        for (kind, name, _) in CONTESTED {
            let version = "--output=jsonpath={.metadata.resourceVersion}";
            let args = ["get", kind, name, "--namespace", NAMESPACE, version];
            let version = context.kubectl(&args).await?;
            versions.entry(kind).or_default().insert(version);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    ensure!(
        versions.values().all(|versions| versions.len() <= MOST_VERSIONS),
        "they were written more than {MOST_VERSIONS} times within {LOOK:?}: {versions:?}"
    );
    context.stack().await?.expect("Available", "True", "").map(drop)
}

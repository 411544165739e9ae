//! Another controller that keeps writing an object of the operator's.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::wait::eventually;
use crate::test::install_yaml::NAMESPACE;

const MEDDLER: &str = "meddler";
const NAMED_WITHIN: Duration = Duration::from_mins(1);
/// How long the two are looked at, less than the operator's first pause.
const LOOK: Duration = Duration::from_secs(20);
/// Versions of the object in that time: at most one more repair of two writes, and the other one's answer.
const MOST_VERSIONS: usize = 4;

/// It is named, and not fought: after a few repairs the object is left alone, and metrics are served all the same.
pub(super) async fn is_named_and_left_alone(context: &Context) -> Result<()> {
    context.working_stack().await?;
    let stop = CancellationToken::new();
    let meddling = async {
        while !stop.is_cancelled() {
            let patch = r#"--patch={"spec": {"publishNotReadyAddresses": true}}"#;
            let manager = format!("--field-manager={MEDDLER}");
            let args = ["patch", "service", "metrics-api", "--type=merge", patch, &manager];
            let namespace = ["--namespace", NAMESPACE];
            context.kubectl(&[args.as_slice(), &namespace].concat()).await?;
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
        let finding = stack.expect_finding("ObjectContested")?.to_string();
        ensure!(finding.contains(MEDDLER), "{finding}");
        Ok(())
    })
    .await?;
    let began = Instant::now();
    let mut versions = BTreeSet::new();
    while began.elapsed() < LOOK {
        let namespace = ["--namespace", NAMESPACE];
        let args = ["get", "service", "metrics-api", "--output=json"];
        let text = context.kubectl(&[args.as_slice(), &namespace].concat()).await?;
        let service: Value = serde_json::from_str(&text)?;
        versions.insert(service["metadata"]["resourceVersion"].to_string());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    ensure!(
        versions.len() <= MOST_VERSIONS,
        "it was written {} times within {LOOK:?}",
        versions.len()
    );
    Ok(())
}

//! An upgrade that nobody notices.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::context::Context;
use super::load;
use super::wait::eventually;
use crate::test::install_yaml::NAMESPACE;

const DEPLOYMENT: &str = "deployment/metrics-api";
/// Label of the pods that are replaced.
const OLD: &str = "e2e.metricsstack.dev/old=true";
/// Time for a pod to end: its delay, and its last requests.
const GONE_WITHIN: Duration = Duration::from_mins(1);
const ROLLED_OUT_WITHIN: &str = "--timeout=150s";

/// Every replica is replaced while metrics are read all the time: no read fails.
pub(super) async fn fails_no_read(context: &Context) -> Result<()> {
    context.working_stack().await?;
    let namespace = ["--namespace", NAMESPACE];
    let restart = async {
        for args in [
            ["rollout", "restart", DEPLOYMENT].as_slice(),
            &["rollout", "status", DEPLOYMENT, ROLLED_OUT_WITHIN],
        ] {
            context.kubectl(&[args, &namespace].concat()).await?;
        }
        eventually("the old pods are gone", GONE_WITHIN, async || {
            let left = ["get", "pods", "--selector", OLD, "--output=name"];
            let left = context.kubectl(&[left.as_slice(), &namespace].concat()).await?;
            ensure!(left.is_empty(), "{left}");
            Ok(())
        })
        .await
    };
    let old = context.metrics_api_pods().await?;
    for (pod, _) in &old {
        let label = ["label", "pod", pod, OLD];
        context.kubectl(&[label.as_slice(), &namespace].concat()).await?;
    }
    let ((), outcome) = load::during(context, restart).await?;
    context.say(format_args!(
        "{} replicas replaced, {} reads answered, {} failed",
        old.len(),
        outcome.answered,
        outcome.failed.len()
    ));
    outcome
        .expect_no_failure()
        .context("while the replicas were replaced")
}

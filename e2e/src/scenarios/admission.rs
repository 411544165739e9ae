//! Writes that kube-apiserver refuses, by a `ValidatingAdmissionPolicy`.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::context::Context;
use super::wait::eventually;

const KINDS: &str = "validatingadmissionpolicies,validatingadmissionpolicybindings";
const LABEL: &str = "e2e.metricsstack.dev/refusal";
/// Time for kube-apiserver to hear of a policy.
const HEARD_WITHIN: Duration = Duration::from_secs(30);

/// Refuses what `resources`, rules of a policy, match and `allowed`, an expression in CEL, does not allow, until
/// [`allow`]. Waits until kubectl with the arguments `probe`, a dry run, is refused; without any nothing is waited for.
pub(super) async fn refuse(
    context: &Context,
    name: &str,
    resources: Value,
    allowed: &str,
    probe: &[&str],
) -> Result<()> {
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name, "labels": {LABEL: "true"}},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": resources},
            "validations": [{"expression": allowed}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name, "labels": {LABEL: "true"}},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    context.apply(&policy.to_string()).await?;
    context.apply(&binding.to_string()).await?;
    if probe.is_empty() {
        return Ok(());
    }
    eventually(
        format!("{name} is in force"),
        HEARD_WITHIN,
        async || match context.kubectl(probe).await {
            Err(error) if error.to_string().contains(name) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => bail!("it was not refused"),
        },
    )
    .await
}

/// Refuses it no longer.
pub(super) async fn allow(context: &Context, name: &str) -> Result<()> {
    context
        .kubectl(&["delete", KINDS, name, "--ignore-not-found"])
        .await?;
    Ok(())
}

/// Refuses nothing any more, whatever a scenario left.
pub(super) async fn allow_all(context: &Context) -> Result<()> {
    context
        .kubectl(&["delete", KINDS, "--selector", LABEL, "--ignore-not-found"])
        .await?;
    Ok(())
}

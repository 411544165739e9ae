//! Writes that kube-apiserver refuses, by a `ValidatingAdmissionPolicy`.

use anyhow::Result;
use serde_json::{Value, json};

use super::context::Context;

const KINDS: &str = "validatingadmissionpolicies,validatingadmissionpolicybindings";

/// From a moment later on refuses what `resources`, rules of a policy, match and `allowed`, an expression in CEL, does not
/// allow. [`allow`] ends it.
pub(super) async fn refuse(context: &Context, name: &str, resources: Value, allowed: &str) -> Result<()> {
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": resources},
            "validations": [{"expression": allowed}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    context.apply(&policy.to_string()).await?;
    context.apply(&binding.to_string()).await?;
    Ok(())
}

/// Refuses it no longer.
pub(super) async fn allow(context: &Context, name: &str) -> Result<()> {
    context
        .kubectl(&["delete", KINDS, name, "--ignore-not-found"])
        .await?;
    Ok(())
}

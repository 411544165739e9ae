//! The chart's rights against what was asked of kube-apiserver in all scenarios before.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::rbac::v1::PolicyRule;
use serde::Deserialize as _;

use super::audit::{self, Call, Caller};
use super::context::Context;
use super::{ClusterKind, SCENARIOS};
use crate::paths;
use crate::test::install_yaml::PATH;

/// The last scenario of its cluster.
pub(super) const NAME: &str = "rights-used";
/// Rights that the audit log of this cluster cannot show in use: group, resource, verb.
const NOT_SHOWN: [(&str, &str, &str); 7] = [
    // Kubelets ask whether metrics-api may.
    ("", "nodes/metrics", "get"),
    ("", "nodes/stats", "get"),
    // Held for the role that lets users read.
    ("metrics.k8s.io", "nodes", "get"),
    ("metrics.k8s.io", "nodes", "list"),
    ("metrics.k8s.io", "pods", "get"),
    ("metrics.k8s.io", "pods", "list"),
    // kube-apiserver asks whether whoever approves may.
    ("certificates.k8s.io", "signers", "approve"),
];
/// Those that are used where kubelets' certificates are approved, which is another cluster.
const OF_APPROVAL: [(&str, &str, &str); 4] = [
    ("", "nodes", "get"),
    ("certificates.k8s.io", "certificatesigningrequests", "list"),
    ("certificates.k8s.io", "certificatesigningrequests", "watch"),
    (
        "certificates.k8s.io",
        "certificatesigningrequests/approval",
        "update",
    ),
];
/// Verbs that kube-apiserver asks for at other calls: a create at an apply, a bind at a binding.
const ASKED_AT_OTHERS: [&str; 2] = ["create", "bind"];

/// One right: group, resource and verb.
type Right = (String, String, String);

/// No call was refused that the chart does not allow, and no right of the chart is without use.
pub(super) async fn are_those_of_the_chart(context: &Context) -> Result<()> {
    let rules = rules()?;
    let calls = audit::calls(context).await?;
    let of_operator: Vec<_> = calls
        .iter()
        .filter(|call| call.caller == Caller::Operator)
        .collect();
    ensure!(
        !of_operator.is_empty(),
        "the audit log has nothing of the operator"
    );
    let missing: BTreeSet<_> = of_operator
        .iter()
        // While the chart is being removed even what it allows is refused.
        .filter(|call| !call.allowed && !rules.iter().any(|rule| allows(rule, call)))
        .map(|call| call.describe())
        .collect();
    ensure!(missing.is_empty(), "the chart does not allow: {missing:?}");
    if let Some(scenario) = first_not_run(context) {
        context.say(format_args!(
            "{} calls; rights without use are not looked for, since {scenario} was not run before",
            calls.len()
        ));
        return Ok(());
    }
    // What the operator only holds to grant it is used by whom it is granted to.
    let used = used(&calls);
    let given: BTreeSet<Right> = rules.iter().flat_map(rights).collect();
    let shown = |(group, resource, verb): &&Right| {
        let right = (group.as_str(), resource.as_str(), verb.as_str());
        !ASKED_AT_OTHERS.contains(&right.2) && !NOT_SHOWN.contains(&right) && !OF_APPROVAL.contains(&right)
    };
    let unused: Vec<_> = given
        .iter()
        .filter(shown)
        .filter(|right| !used.contains(*right))
        .collect();
    ensure!(unused.is_empty(), "the chart gives what nobody used: {unused:?}");
    context.say(format_args!(
        "{} rights, all in use, in {} calls",
        given.len(),
        calls.len()
    ));
    Ok(())
}

/// The rights that only approving kubelets' certificates takes are used where the operator does.
pub(super) async fn by_approval(context: &Context) -> Result<()> {
    let calls = audit::calls(context).await?;
    let by_operator = calls.iter().filter(|call| call.caller == Caller::Operator);
    let used = used(by_operator);
    let is_used = |right: &&(&str, &str, &str)| {
        let (group, resource, verb) = **right;
        used.contains(&(group.to_owned(), resource.to_owned(), verb.to_owned()))
    };
    let unused: Vec<_> = OF_APPROVAL.iter().filter(|right| !is_used(right)).collect();
    ensure!(unused.is_empty(), "the chart gives what nobody used: {unused:?}");
    Ok(())
}

/// What was done with success.
fn used<'a>(calls: impl IntoIterator<Item = &'a Call>) -> BTreeSet<Right> {
    let allowed = calls.into_iter().filter(|call| call.allowed);
    allowed
        .map(|call| (call.group.clone(), call.resource.clone(), call.verb.clone()))
        .collect()
}

/// A scenario of this cluster that was not run.
fn first_not_run(context: &Context) -> Option<&'static str> {
    let mut before = SCENARIOS
        .iter()
        .filter(|scenario| scenario.cluster == ClusterKind::Default)
        .map(|scenario| scenario.name);
    before.find(|name| *name != NAME && !context.ran.iter().any(|ran| ran == name))
}

/// The rules of every role of the chart.
fn rules() -> Result<Vec<PolicyRule>> {
    let chart = std::fs::read_to_string(paths::workspace().join(PATH))?;
    let mut rules = Vec::new();
    for document in serde_yaml::Deserializer::from_str(&chart) {
        let document = serde_yaml::Value::deserialize(document)?;
        if document["kind"]
            .as_str()
            .is_some_and(|kind| kind.ends_with("Role"))
        {
            let found: Vec<PolicyRule> =
                serde_yaml::from_value(document["rules"].clone()).context("a role has no rules")?;
            rules.extend(found);
        }
    }
    ensure!(!rules.is_empty(), "{PATH} has no roles");
    Ok(rules)
}

fn rights(rule: &PolicyRule) -> Vec<Right> {
    let mut rights = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            let verbs = rule.verbs.iter();
            rights.extend(verbs.map(|verb| (group.clone(), resource.clone(), verb.clone())));
        }
    }
    rights
}

fn allows(rule: &PolicyRule, call: &Call) -> bool {
    let named = rule.resource_names.as_ref();
    rights(rule).contains(&(call.group.clone(), call.resource.clone(), call.verb.clone()))
        && named.is_none_or(|names| names.contains(&call.name))
}

//! The objects that the operator makes: found by their label, whatever their kind.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use contract::names::{CA_SECRET, MANAGED_BY, MANAGED_BY_LABEL, METRICS_GROUP, TRUST_LABEL};
use serde_json::Value;

use super::context::Context;
use super::wait::eventually;

/// Kinds whose objects get our labels from somewhere else: they belong to what controls them.
const DERIVED: [&str; 5] = [
    "Pod",
    "ReplicaSet",
    "EndpointSlice",
    "Endpoints",
    "ControllerRevision",
];
/// Fields that change by themselves or with each write.
const VOLATILE: [&str; 6] = [
    "managedFields",
    "resourceVersion",
    "generation",
    "uid",
    "creationTimestamp",
    "annotations",
];

/// Selects what the operator made.
pub(super) fn our_label() -> String {
    format!("{MANAGED_BY_LABEL}={MANAGED_BY}")
}

/// One object.
#[derive(Clone, Debug)]
pub(super) struct Object(pub(super) Value);

impl Object {
    fn field(&self, pointer: &str) -> &str {
        self.0
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// Its kind.
    pub(super) fn kind(&self) -> &str {
        self.field("/kind")
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        self.field("/metadata/name")
    }

    /// Its uid.
    pub(super) fn uid(&self) -> &str {
        self.field("/metadata/uid")
    }

    /// How kubectl names it: type with version and group, name, and the flag for the namespace.
    pub(super) fn args(&self) -> Vec<String> {
        let (group, version) = match self.field("/apiVersion").split_once('/') {
            Some((group, version)) => (group, version),
            None => ("", self.field("/apiVersion")),
        };
        let mut args = vec![
            format!("{}.{version}.{group}", self.kind()),
            self.name().to_owned(),
        ];
        let namespace = self.field("/metadata/namespace");
        if !namespace.is_empty() {
            args.push(format!("--namespace={namespace}"));
        }
        args
    }

    /// What must be the same after a repair: everything but what changes by itself, and the
    /// serving certificate.
    pub(super) fn essence(&self) -> Value {
        let mut essence = self.0.clone();
        if let Some(metadata) = essence.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.retain(|field, _| !VOLATILE.contains(&field.as_str()));
        }
        if let Some(fields) = essence.as_object_mut() {
            fields.remove("status");
            // A new serving certificate is as good as the old one. An authority is what others trust.
            if self.kind() == "Secret" && self.name() != CA_SECRET {
                fields.remove("data");
            }
        }
        // Such as those by which pods are started again; they say when, not what.
        let template = essence.pointer_mut("/spec/template/metadata");
        if let Some(template) = template.and_then(Value::as_object_mut) {
            template.remove("annotations");
        }
        if let Some(spec) = essence.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove("clusterIP");
            spec.remove("clusterIPs");
        }
        essence
    }
}

impl std::fmt::Display for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.kind(), self.name())
    }
}

impl Context {
    /// Every object with the operator's label, but those that some controller derived from one.
    pub(super) async fn our_objects(&self) -> Result<Vec<Object>> {
        let mut objects = self.labelled(&our_label()).await?;
        objects.retain(|object| !DERIVED.contains(&object.kind()));
        Ok(objects)
    }

    async fn labelled(&self, selector: &str) -> Result<Vec<Object>> {
        let types = self
            .kubectl(&["api-resources", "--verbs=list", "--output=name"])
            .await?;
        // metrics.k8s.io repeats the labels of pods, and is not there in between.
        let types: Vec<_> = types
            .lines()
            .filter(|name| !name.ends_with(METRICS_GROUP))
            .collect();
        ensure!(!types.is_empty(), "kubectl api-resources names no type");
        let types = types.join(",");
        let args = [
            "get",
            &types,
            "--all-namespaces",
            "--selector",
            selector,
            "--output",
            "json",
        ];
        let found: Value = serde_json::from_str(&self.kubectl(&args).await?)?;
        let items = found["items"].as_array().context("kubectl get gave no list")?;
        let objects = items.iter().map(|item| Object(item.clone()));
        // Events tell what was; they are not ours.
        Ok(objects.filter(|object| object.kind() != "Event").collect())
    }

    /// Waits until no object with the operator's label is left, derived ones included, and none of what metrics-api
    /// keeps for itself.
    pub(super) async fn nothing_left(&self, within: Duration) -> Result<()> {
        eventually("nothing of ours is left", within, async || {
            let mut left = Vec::new();
            for label in [our_label(), TRUST_LABEL.to_owned()] {
                left.extend(self.labelled(&label).await?.iter().map(Object::to_string));
            }
            ensure!(left.is_empty(), "left: {}", left.join(", "));
            Ok(())
        })
        .await
    }

    /// An object as it is now.
    pub(super) async fn object(&self, object: &Object) -> Result<Object> {
        let args = object.args();
        let mut all = vec!["get", "--output=json"];
        all.extend(args.iter().map(String::as_str));
        Ok(Object(serde_json::from_str(&self.kubectl(&all).await?)?))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_named_with_version_and_group() {
        let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "a"}});
        assert_eq!(
            Object(role).args(),
            ["ClusterRole.v1.rbac.authorization.k8s.io", "a"]
        );
        let service =
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s", "namespace": "n"}});
        assert_eq!(Object(service).args(), ["Service.v1.", "s", "--namespace=n"]);
    }

    #[test]
    fn the_essence_has_neither_versions_nor_keys() {
        let secret = json!({"kind": "Secret", "metadata": {"name": "s", "uid": "u", "labels": {"a": "b"}},
            "data": {"tls.key": "…"}, "type": "kubernetes.io/tls"});
        let essence = json!({"kind": "Secret", "metadata": {"name": "s", "labels": {"a": "b"}}, "type": "kubernetes.io/tls"});
        assert_eq!(Object(secret).essence(), essence);
    }
}

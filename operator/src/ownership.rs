//! Who owns the fields of an object: pure.
//!
//! Server-side apply puts back a value that we ask for, but it leaves what another manager has added beside it: an
//! environment variable, a port, a key of a selector. In objects of ours that is as much a change as any other. So such
//! fields are made ours first, and the apply then removes them, for we do not ask for them.

use contract::names;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use serde_json::Value;

/// Fields that others may write: labels and annotations of the object, its status, and the annotations of a Pod
/// template, which is how `kubectl rollout restart` works; and what registries and older clusters give to a
/// ServiceAccount.
const FREE: [&[&str]; 5] = [
    &["f:metadata"],
    &["f:status"],
    &["f:spec", "f:template", "f:metadata", "f:annotations"],
    &["f:imagePullSecrets"],
    &["f:secrets"],
];

/// The object's `managedFields` with everything that others have no business with made ours, or none if there is no
/// such field.
pub(crate) fn taken_over(entries: &[ManagedFieldsEntry]) -> Option<Vec<ManagedFieldsEntry>> {
    let mut taken = Value::Null;
    let mut result = Vec::new();
    for entry in entries {
        let mut entry = entry.clone();
        if is_other(&entry)
            && let Some(FieldsV1(fields)) = entry.fields_v1.take()
        {
            let free = FREE
                .iter()
                .filter_map(|path| project(&fields, path))
                .reduce(union);
            let rest = contested(fields);
            if !is_empty(&rest) {
                taken = union(taken, rest);
            }
            let Some(free) = free else {
                continue;
            };
            entry.fields_v1 = Some(FieldsV1(free));
        }
        result.push(entry);
    }
    if taken.is_null() {
        return None;
    }
    let ours = result.iter_mut().find(|entry| is_ours(entry))?;
    let own = ours
        .fields_v1
        .take()
        .map_or(Value::Null, |FieldsV1(fields)| fields);
    ours.fields_v1 = Some(FieldsV1(union(own, taken)));
    Some(result)
}

/// The fields that others have no business with.
fn contested(fields: Value) -> Value {
    FREE.iter().fold(fields, |fields, path| without(fields, path))
}

/// Whether this entry holds such fields.
pub(crate) fn interferes(entry: &ManagedFieldsEntry) -> bool {
    entry
        .fields_v1
        .as_ref()
        .is_some_and(|FieldsV1(fields)| !is_empty(&contested(fields.clone())))
}

/// Whether this entry is our own.
pub(crate) fn is_ours(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(names::MANAGED_BY)
        && entry.operation.as_deref() == Some("Apply")
        && !is_sub(entry)
}

/// Whether this entry is somebody else's word about the object, not about its status or scale.
pub(crate) fn is_other(entry: &ManagedFieldsEntry) -> bool {
    !is_ours(entry) && !is_sub(entry)
}

fn is_sub(entry: &ManagedFieldsEntry) -> bool {
    entry
        .subresource
        .as_ref()
        .is_some_and(|subresource| !subresource.is_empty())
}

/// What `fields` has at `path`, with the way there.
fn project(fields: &Value, path: &[&str]) -> Option<Value> {
    let Some((key, rest)) = path.split_first() else {
        return Some(fields.clone());
    };
    let inner = project(fields.get(key)?, rest)?;
    Some(Value::Object([((*key).to_owned(), inner)].into_iter().collect()))
}

/// `fields` but what is at `path`, and but an ancestor that is named only for that.
fn without(mut fields: Value, path: &[&str]) -> Value {
    if let Some((key, rest)) = path.split_first()
        && let Some(object) = fields.as_object_mut()
        && let Some(inner) = object.remove(*key)
        && !rest.is_empty()
    {
        let inner = without(inner, rest);
        if !is_empty(&inner) {
            object.insert((*key).to_owned(), inner);
        }
    }
    fields
}

fn is_empty(fields: &Value) -> bool {
    fields.as_object().is_none_or(serde_json::Map::is_empty)
}

fn union(into: Value, other: Value) -> Value {
    match (into, other) {
        (Value::Object(mut into), Value::Object(other)) => {
            for (key, value) in other {
                let old = into.remove(&key).unwrap_or(Value::Null);
                into.insert(key, union(old, value));
            }
            Value::Object(into)
        }
        (Value::Null, other) => other,
        (into, _) => into,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(manager: &str, operation: &str, subresource: &str, fields: Value) -> ManagedFieldsEntry {
        ManagedFieldsEntry {
            manager: Some(manager.to_owned()),
            operation: Some(operation.to_owned()),
            subresource: Some(subresource.to_owned()),
            fields_v1: Some(FieldsV1(fields)),
            ..ManagedFieldsEntry::default()
        }
    }

    fn ours() -> ManagedFieldsEntry {
        entry(
            names::MANAGED_BY,
            "Apply",
            "",
            json!({"f:spec": {"f:ports": {"k:443": {".": {}}}}}),
        )
    }

    #[test]
    fn a_field_that_somebody_added_becomes_ours_and_what_is_free_stays_theirs() {
        let theirs = entry(
            "kubectl-patch",
            "Update",
            "",
            json!({
                "f:metadata": {"f:labels": {"f:team": {}}},
                "f:spec": {"f:ports": {"k:81": {".": {}}}, "f:template": {"f:metadata": {"f:annotations": {"f:a": {}}}}}
            }),
        );
        let taken = taken_over(&[ours(), theirs]).unwrap();
        assert_eq!(
            taken[0].fields_v1,
            Some(FieldsV1(
                json!({"f:spec": {"f:ports": {"k:443": {".": {}}, "k:81": {".": {}}}}})
            ))
        );
        assert_eq!(
            taken[1].fields_v1,
            Some(FieldsV1(json!({
                "f:metadata": {"f:labels": {"f:team": {}}},
                "f:spec": {"f:template": {"f:metadata": {"f:annotations": {"f:a": {}}}}}
            })))
        );
    }

    #[test]
    fn labels_restarts_and_the_status_are_nobodys_business() {
        let entries = [
            ours(),
            entry(
                "kubectl-label",
                "Update",
                "",
                json!({"f:metadata": {"f:labels": {"f:team": {}}}}),
            ),
            entry(
                "kubectl-rollout",
                "Update",
                "",
                json!({"f:spec": {"f:template": {"f:metadata": {"f:annotations": {".": {}, "f:restartedAt": {}}}}}}),
            ),
            entry(
                "kube-controller-manager",
                "Update",
                "status",
                json!({"f:status": {"f:replicas": {}}}),
            ),
            entry(
                "kube-controller-manager",
                "Update",
                "scale",
                json!({"f:spec": {"f:replicas": {}}}),
            ),
        ];
        assert_eq!(taken_over(&entries), None);
        assert_eq!(taken_over(&[]), None);
    }

    #[test]
    fn what_others_give_to_a_service_account_stays_theirs() {
        for field in ["f:imagePullSecrets", "f:secrets"] {
            let theirs = entry(
                "openshift",
                "Update",
                "",
                json!({field: {"k:{\"name\":\"x\"}": {}}}),
            );
            assert_eq!(taken_over(&[ours(), theirs]), None, "{field}");
        }
    }

    #[test]
    fn an_entry_with_nothing_else_goes() {
        let theirs = entry("kubectl-edit", "Update", "", json!({"f:data": {"f:x": {}}}));
        let taken = taken_over(&[ours(), theirs]).unwrap();
        assert_eq!(taken.len(), 1);
        assert_eq!(
            taken[0].fields_v1.as_ref().unwrap().0["f:data"],
            json!({"f:x": {}})
        );
    }
}

//! Whether an object is as it shall be: pure.
//!
//! kube-apiserver adds defaults and other people add fields of their own, so live and desired are never equal. What
//! counts is that every value that we ask for is there.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use serde_json::Value;

/// Whether `live` holds every value of `desired`. A list of another length differs: somebody added or removed an item.
pub(crate) fn holds(desired: &Value, live: &Value) -> bool {
    match (desired, live) {
        (Value::Object(desired), Value::Object(live)) => desired.iter().all(|(key, value)| {
            live.get(key)
                .map_or_else(|| is_empty(value), |live| holds(value, live))
        }),
        (Value::Array(desired), Value::Array(live)) => {
            desired.len() == live.len()
                && desired
                    .iter()
                    .zip(live)
                    .all(|(desired, live)| holds(desired, live))
        }
        _ => desired == live,
    }
}

/// kube-apiserver leaves out what is empty.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        _ => false,
    }
}

/// A digest of what `desired` asks for and of what `live` has in those places. kube-apiserver may write a value in
/// another way than we do (`0.1` becomes `100m`): when this digest is the same as right after an apply, nobody has
/// changed anything since.
pub(crate) fn digest(desired: &Value, live: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    desired.to_string().hash(&mut hasher);
    project(desired, live, &mut hasher);
    hasher.finish()
}

fn project(desired: &Value, live: &Value, hasher: &mut DefaultHasher) {
    match (desired, live) {
        (Value::Object(desired), Value::Object(live)) => {
            for (key, value) in desired {
                match live.get(key) {
                    Some(live) => project(value, live, hasher),
                    None => key.hash(hasher),
                }
            }
        }
        (Value::Array(desired), Value::Array(live)) if desired.len() == live.len() => {
            for (desired, live) in desired.iter().zip(live) {
                project(desired, live, hasher);
            }
        }
        _ => live.to_string().hash(hasher),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn defaults_and_other_peoples_fields_are_no_drift() {
        let desired =
            json!({"spec": {"ports": [{"port": 443}], "selector": {"a": "b"}, "extra": {}, "list": []}});
        let live = json!({
            "spec": {"ports": [{"port": 443, "protocol": "TCP"}], "selector": {"a": "b", "c": "d"}, "clusterIP": "10.0.0.1"},
            "status": {}
        });
        assert!(holds(&desired, &live));
    }

    #[test]
    fn a_changed_value_a_missing_one_and_an_added_item_are_drift() {
        let desired = json!({"rules": [{"verbs": ["get", "list"]}], "replicas": 2});
        for live in [
            json!({"rules": [{"verbs": ["get", "list"]}], "replicas": 3}),
            json!({"rules": [{"verbs": ["get", "list"]}]}),
            json!({"rules": [{"verbs": ["get", "list", "watch"]}], "replicas": 2}),
            json!({"rules": [{"verbs": ["get", "list"]}, {"verbs": ["get"]}], "replicas": 2}),
            json!({"rules": {}, "replicas": 2}),
        ] {
            assert!(!holds(&desired, &live), "{live}");
        }
    }

    #[test]
    fn a_value_written_in_another_way_is_known_again_by_its_digest() {
        let desired = json!({"cpu": "0.1"});
        let after_apply = digest(&desired, &json!({"cpu": "100m", "status": 1}));
        assert_eq!(
            digest(&desired, &json!({"cpu": "100m", "status": 2})),
            after_apply
        );
        assert_ne!(digest(&desired, &json!({"cpu": "200m"})), after_apply);
        assert_ne!(
            digest(&json!({"cpu": "0.2"}), &json!({"cpu": "100m"})),
            after_apply
        );
    }
}

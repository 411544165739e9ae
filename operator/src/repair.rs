//! What somebody else did to an object of ours, for the event that tells of it.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::DynamicObject;
use serde_json::Value;

use crate::desired::Object;

/// An object that was put right, though nothing else was asked of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Repair {
    /// The object.
    pub about: ObjectReference,
    /// The event's reason: events about one object and with one reason become one, whatever they say.
    pub reason: &'static str,
    /// What was found in its place.
    pub found: String,
}

impl Repair {
    /// `live` is what was there, `by` who made it so.
    pub(crate) fn of(object: &Object, live: Option<&DynamicObject>, by: &str) -> Self {
        let name = object.describe();
        let bundle = |object: &DynamicObject| object.data.pointer("/spec/caBundle").cloned();
        let (reason, found) = match live {
            None => ("ObjectRestored", format!("{name} was deleted")),
            Some(live) if bundle(live) != bundle(&object.object) => {
                let what = match bundle(live) {
                    Some(Value::String(found)) if !found.is_empty() => {
                        "a caBundle that is not of metrics-api's authorities"
                    }
                    _ => "no caBundle",
                };
                ("CaBundleRepaired", format!("{name} had {what}, by {by}"))
            }
            Some(_) => ("ObjectRepaired", format!("{name} was changed by {by}")),
        };
        Self {
            about: ObjectReference {
                api_version: Some(object.resource.api_version.clone()),
                kind: Some(object.resource.kind.clone()),
                namespace: object.namespace().map(str::to_owned),
                name: Some(object.name().to_owned()),
                ..ObjectReference::default()
            },
            reason,
            found,
        }
    }
}

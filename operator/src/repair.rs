//! What somebody else did to an object of ours, for the event that tells of it.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::core::DynamicObject;
use serde_json::Value;

use crate::desired::Object;
use crate::{contest, ownership};

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
    /// `live` is what was there.
    pub(crate) fn of(object: &Object, live: Option<&DynamicObject>) -> Self {
        let name = object.describe();
        let by = live.map_or_else(String::new, by);
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
                ("CaBundleRepaired", format!("{name} had {what}{by}"))
            }
            Some(_) => ("ObjectRepaired", format!("{name} was changed{by}")),
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

/// By whom, if `managedFields` show somebody who holds what is ours. Who takes a field away leaves no trace there.
fn by(live: &DynamicObject) -> String {
    let entries = live.metadata.managed_fields.as_deref().unwrap_or_default();
    let held = |entry: &&ManagedFieldsEntry| ownership::is_other(entry) && ownership::interferes(entry);
    let others: Vec<_> = entries.iter().filter(held).cloned().collect();
    if others.is_empty() {
        String::new()
    } else {
        format!(" by {}", contest::opponent(Some(&others)))
    }
}

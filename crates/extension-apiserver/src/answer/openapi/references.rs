//! References between schemas.

use std::collections::BTreeSet;

use serde_json::Value;

/// Shows the name in every reference.
pub(super) fn each_reference(value: &mut Value, change: &impl Fn(&mut String)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(reference) if name == "$ref" => change(reference),
                    value => each_reference(value, change),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| each_reference(value, change)),
        _ => {}
    }
}

pub(super) fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            let reference = fields.get("$ref").and_then(Value::as_str);
            found.extend(reference.map(str::to_owned));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

pub(super) fn link(value: &mut Value, place: &str) {
    each_reference(value, &|name| name.insert_str(0, place));
}

//! Reading and setting what is in the metadata of an object.

use jiff::Timestamp;
use serde_json::Value;

use crate::json::Time;
use crate::resource::Key;

/// Namespace and name.
pub(super) type Name = (String, String);

pub(super) fn name_of(object: &Value) -> Name {
    let part = |pointer| text(object, pointer).unwrap_or_default().to_owned();
    (part("/metadata/namespace"), part("/metadata/name"))
}

pub(super) fn name_at(key: Key<'_>) -> Name {
    (key.namespace.unwrap_or_default().to_owned(), key.name.to_owned())
}

pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer)?.as_str()
}

/// Sets or, with `null`, removes a field of `metadata`.
pub(super) fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(Value::Object(metadata)) = object.pointer_mut("/metadata") {
        if value.is_null() {
            metadata.remove(field);
        } else {
            metadata.insert(field.to_owned(), value);
        }
    }
}

pub(super) fn has_finalizers(object: &Value) -> bool {
    let finalizers = object.pointer("/metadata/finalizers").and_then(Value::as_array);
    finalizers.is_some_and(|finalizers| !finalizers.is_empty())
}

pub(super) fn time(at: Timestamp) -> Value {
    Value::from(Time(at).to_string())
}

/// A random UUID (version 4) of these bits.
pub(super) fn uuid(high: u64, low: u64) -> String {
    let (high, low) = (high & !0xf000 | 0x4000, low & (u64::MAX >> 2) | 1 << 63);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uuid_says_that_it_is_random() {
        assert_eq!(uuid(0, 0), "00000000-0000-4000-8000-000000000000");
        assert_eq!(uuid(u64::MAX, u64::MAX), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}

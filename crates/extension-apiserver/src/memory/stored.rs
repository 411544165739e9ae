//! An object that is kept as JSON.

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::Kind;
use super::metadata::text;
use crate::json::{JsonArray, JsonObject};
use crate::resource::Item;

/// An object while it is shown.
pub(super) struct Stored<'a> {
    pub(super) object: &'a Value,
    pub(super) kind: &'a dyn Kind,
}

impl Stored<'_> {
    fn labels(&self) -> Option<&Map<String, Value>> {
        self.object.pointer("/metadata/labels")?.as_object()
    }
}

impl Item for Stored<'_> {
    fn name(&self) -> &str {
        text(self.object, "/metadata/name").unwrap_or_default()
    }

    fn namespace(&self) -> Option<&str> {
        text(self.object, "/metadata/namespace")
    }

    fn label(&self, key: &str) -> Option<&str> {
        self.labels()?.get(key)?.as_str()
    }

    fn visit_labels(&self, visit: &mut dyn FnMut(&str, &str)) {
        for (key, value) in self.labels().into_iter().flatten() {
            visit(key, value.as_str().unwrap_or_default());
        }
    }

    fn creation_timestamp(&self) -> Option<Timestamp> {
        text(self.object, "/metadata/creationTimestamp")?.parse().ok()
    }

    fn write_metadata(&self, metadata: &mut JsonObject<'_>) {
        for (name, value) in self
            .object
            .pointer("/metadata")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            // A value can always be written.
            let _ = metadata.value(name, value);
        }
    }

    fn write_fields(&self, object: &mut JsonObject<'_>) {
        for (name, value) in self.object.as_object().into_iter().flatten() {
            if !matches!(name.as_str(), "apiVersion" | "kind" | "metadata") {
                let _ = object.value(name, value);
            }
        }
    }

    fn write_cells(&self, cells: &mut JsonArray<'_>) {
        self.kind.write_cells(self.object, cells);
    }
}

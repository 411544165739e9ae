//! The seam between this library and an API server's own resources.
//!
//! A [`Resource`] shows its objects one at a time as borrowed [`Item`]s; everything around them (envelope, chunks,
//! Table and metadata framing, selectors, authorization, errors) is the library's. Neither method waits: a resource
//! answers from memory. A list is visited in key order and can be stopped and resumed after any key, so the library
//! never holds a resource's lock while a client reads.

use std::ops::ControlFlow;

use jiff::Timestamp;

use crate::json::{JsonArray, JsonObject};
use crate::protobuf::Message;
use crate::status::Status;
use crate::write::{Create, Delete, Update, Watch};

/// A read-only API resource: it can be got and listed.
pub trait Resource: Send + Sync + 'static {
    /// What the resource is called and how it prints.
    fn info(&self) -> &ResourceInfo;

    /// Shows the object of that key to `visit`, once; or says why not (usually [`Status::not_found`]).
    fn get(&self, key: Key<'_>, visit: &mut dyn FnMut(&dyn Item)) -> Result<(), Status>;

    /// Shows the objects in `scope` to `visit`, in the order of their [`Key`]s, until `visit` breaks or there are
    /// no more. Locks taken inside are released on return.
    fn list(
        &self,
        scope: ListScope<'_>,
        visit: &mut dyn FnMut(&dyn Item) -> ControlFlow<()>,
    ) -> Result<(), Status>;

    /// The version of the last change, which lists carry so that a watch can go on from there. `None`: there are no
    /// versions.
    fn version(&self) -> Option<String> {
        None
    }

    /// How objects are created, if they can be.
    fn creates(&self) -> Option<&dyn Create> {
        None
    }

    /// How objects are replaced and patched, if they can be.
    fn updates(&self) -> Option<&dyn Update> {
        None
    }

    /// How objects are deleted, if they can be.
    fn deletes(&self) -> Option<&dyn Delete> {
        None
    }

    /// How changes are followed, if they can be.
    fn watches(&self) -> Option<&dyn Watch> {
        None
    }
}

/// Where an object is: its namespace (none for cluster-scoped resources) and name. Ordered by namespace, then name,
/// both as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key<'a> {
    /// Namespace; `None` for cluster-scoped resources.
    pub namespace: Option<&'a str>,
    /// Name.
    pub name: &'a str,
}

/// Which part of a resource a list is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ListScope<'a> {
    /// Only this namespace; `None` means all (and is the only value for cluster-scoped resources).
    pub namespace: Option<&'a str>,
    /// Only objects whose key is greater than this one, which need not exist any more.
    pub after: Option<Key<'a>>,
}

/// One object, borrowed from its resource while it is visited.
pub trait Item {
    /// `metadata.name`.
    fn name(&self) -> &str;
    /// `metadata.namespace`; `None` for cluster-scoped resources.
    fn namespace(&self) -> Option<&str>;
    /// Value of one label, for selectors.
    fn label(&self, key: &str) -> Option<&str>;
    /// Shows all labels, ordered by key.
    fn visit_labels(&self, visit: &mut dyn FnMut(&str, &str));
    /// `metadata.creationTimestamp`.
    fn creation_timestamp(&self) -> Option<Timestamp>;
    /// Appends the fields of `metadata`. Only objects that have more than the above write their own.
    fn write_metadata(&self, metadata: &mut JsonObject<'_>) {
        metadata.string("name", self.name());
        if let Some(namespace) = self.namespace() {
            metadata.string("namespace", namespace);
        }
        if let Some(time) = self.creation_timestamp() {
            metadata.time("creationTimestamp", time);
        }
        metadata.object_unless_empty("labels", |labels| {
            self.visit_labels(&mut |key, value| labels.string(key, value));
        });
    }
    /// Appends the fields that come after `metadata`.
    fn write_fields(&self, object: &mut JsonObject<'_>);
    /// Appends the fields that come after `metadata`, which is field 1, in protobuf's form. Only asked of resources that
    /// say so ([`ResourceInfo::protobuf`]).
    fn write_protobuf(&self, _message: &mut Message<'_>) {}
    /// Appends one cell for each of [`ResourceInfo::columns`].
    fn write_cells(&self, cells: &mut JsonArray<'_>);
}

/// What a resource is called and how it prints.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ResourceInfo {
    /// Name in paths, lower-case plural: `pods`.
    pub plural: &'static str,
    /// Lower-case singular; may be empty.
    pub singular: &'static str,
    /// Kind of one object: `PodMetrics`.
    pub kind: &'static str,
    /// Kind of a list: the kind with `List` at its end.
    pub list_kind: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Short names for kubectl.
    pub short_names: Vec<&'static str>,
    /// Whether items write themselves as protobuf too, which clients in Go prefer.
    pub protobuf: bool,
    /// Columns of the printed table.
    pub columns: Vec<Column>,
    /// What the names of its `OpenAPI` schemas begin with, before version and kind: `io.k8s.metrics.pkg.apis.metrics`.
    /// Empty: the group's labels, reversed.
    pub model_package: &'static str,
    /// `OpenAPI` schema of one object, with `description`, `properties` and `required` of the fields after `metadata`.
    pub schema: serde_json::Value,
    /// Further `OpenAPI` schemas that it refers to, by name.
    pub models: Vec<(&'static str, serde_json::Value)>,
}

impl ResourceInfo {
    /// A resource whose objects live in namespaces.
    #[must_use]
    pub fn namespaced(plural: &'static str, kind: &'static str) -> Self {
        Self {
            plural,
            singular: "",
            kind,
            list_kind: format!("{kind}List"),
            namespaced: true,
            short_names: Vec::new(),
            protobuf: false,
            columns: Vec::new(),
            model_package: "",
            // Until it is told, nothing is promised.
            schema: serde_json::json!({"x-kubernetes-preserve-unknown-fields": true}),
            models: Vec::new(),
        }
    }

    /// A resource whose objects belong to the cluster.
    #[must_use]
    pub fn cluster_scoped(plural: &'static str, kind: &'static str) -> Self {
        Self {
            namespaced: false,
            ..Self::namespaced(plural, kind)
        }
    }

    /// Sets the singular name.
    #[must_use]
    pub fn singular(self, singular: &'static str) -> Self {
        Self { singular, ..self }
    }

    /// Sets the short names.
    #[must_use]
    pub fn short_names(self, short_names: impl Into<Vec<&'static str>>) -> Self {
        Self {
            short_names: short_names.into(),
            ..self
        }
    }

    /// Sets the `OpenAPI` schema: a JSON object with `description`, `properties` and `required` of the fields after
    /// `metadata`, as `OpenAPI` 3 has it. What holds the fields (`apiVersion`, `kind`, `metadata`, lists) is added by the
    /// library. References are names alone: `{"$ref": "ContainerMetrics"}` for one of [`Self::model`],
    /// `{"$ref": "io.k8s.apimachinery.pkg.api.resource.Quantity"}` for one of Kubernetes' own, of which the library has
    /// those that metadata and metrics are made of.
    #[must_use]
    pub fn schema(self, schema: serde_json::Value) -> Self {
        Self { schema, ..self }
    }

    /// Adds an `OpenAPI` schema that that one refers to.
    #[must_use]
    pub fn model(mut self, name: &'static str, schema: serde_json::Value) -> Self {
        self.models.push((name, schema));
        self
    }

    /// Sets what the names of its `OpenAPI` schemas begin with.
    #[must_use]
    pub fn model_package(self, model_package: &'static str) -> Self {
        Self {
            model_package,
            ..self
        }
    }

    /// Says that items write themselves as protobuf too.
    #[must_use]
    pub fn protobuf(self) -> Self {
        Self {
            protobuf: true,
            ..self
        }
    }

    /// Sets the columns of the table.
    #[must_use]
    pub fn columns(self, columns: impl Into<Vec<Column>>) -> Self {
        Self {
            columns: columns.into(),
            ..self
        }
    }
}

/// `metav1.TableColumnDefinition`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// `OpenAPI` type of the cell: `string`, `integer`, ...
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// `OpenAPI` format: `name` marks the object's name.
    pub format: &'static str,
    /// What it says.
    pub description: &'static str,
    /// 0 is always shown, more only in wide tables.
    pub priority: i32,
}

impl Column {
    /// The column of names, which every table starts with.
    pub const NAME: Self = Self {
        name: "Name",
        kind: "string",
        format: "name",
        description: "Name of the resource",
        priority: 0,
    };

    /// A column of strings with that format.
    #[must_use]
    pub const fn string(name: &'static str, format: &'static str) -> Self {
        Self {
            name,
            kind: "string",
            format,
            description: "",
            priority: 0,
        }
    }
}

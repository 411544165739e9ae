//! Objects in each form that they are asked for in, written straight into the output.

use super::negotiate::Form;
use crate::json::JsonObject;
use crate::request::Query;
use crate::resource::{Item, ResourceInfo};
use crate::status::{Quoted, Status};

/// What the rows of a table carry beside their cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Include {
    None,
    Metadata,
    Object,
}

impl Include {
    /// Reads `includeObject`.
    pub(super) fn of(query: &Query) -> Result<Self, Status> {
        match query.first("includeObject").unwrap_or_default() {
            "None" => Ok(Self::None),
            "Metadata" | "" => Ok(Self::Metadata),
            "Object" => Ok(Self::Object),
            other => Err(Status::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {}: must be 'Metadata', \
                 'Object', 'None', or empty",
                Quoted(other)
            ))),
        }
    }
}

/// How the objects of one answer are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) form: Form,
    pub(super) include: Include,
}

/// What objects of one resource and version are called.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// `PodMetrics`.
    pub(super) kind: &'static str,
    /// `metrics.k8s.io/v1`.
    pub(super) api_version: String,
}

impl Shape {
    /// The answer to a get.
    pub(super) fn single(self, out: &mut Vec<u8>, info: &ResourceInfo, names: &Names, item: &dyn Item) {
        match self.form {
            Form::Table(_) => {
                self.open_list(out, info, names);
                self.item(out, names, item);
                Self::close_list(out);
            }
            Form::Metadata(version) | Form::MetadataList(version) => {
                JsonObject::write(out, |object| partial(object, version, item));
                out.push(b'\n');
            }
            Form::Own => {
                JsonObject::write(out, |object| whole(object, Some(names), item));
                out.push(b'\n');
            }
        }
    }

    /// Everything of a list before its first item.
    pub(super) fn open_list(self, out: &mut Vec<u8>, info: &ResourceInfo, names: &Names) {
        let (kind, api_version, items) = match self.form {
            Form::Own => (info.list_kind.as_str(), names.api_version.clone(), "items"),
            Form::Table(version) => ("Table", meta(version), "rows"),
            Form::Metadata(version) | Form::MetadataList(version) => {
                ("PartialObjectMetadataList", meta(version), "items")
            }
        };
        JsonObject::write(out, |list| {
            list.string("kind", kind);
            list.string("apiVersion", &api_version);
            list.object("metadata", |_| {});
            if let Form::Table(_) = self.form {
                list.array("columnDefinitions", |columns| {
                    for column in &info.columns {
                        columns.object(|object| {
                            object.string("name", column.name);
                            object.string("type", column.kind);
                            object.string("format", column.format);
                            object.string("description", column.description);
                            object.integer("priority", column.priority.into());
                        });
                    }
                });
            }
            list.array(items, |_| {});
        });
        // The items come one by one, and `close_list` writes these two again.
        out.truncate(out.len().saturating_sub(b"]}".len()));
    }

    /// One item of a list.
    pub(super) fn item(self, out: &mut Vec<u8>, names: &Names, item: &dyn Item) {
        JsonObject::write(out, |object| match self.form {
            Form::Own => whole(object, None, item),
            Form::Metadata(version) | Form::MetadataList(version) => partial(object, version, item),
            Form::Table(version) => {
                object.array("cells", |cells| item.write_cells(cells));
                match self.include {
                    Include::None => object.null("object"),
                    Include::Metadata => object.object("object", |object| partial(object, version, item)),
                    Include::Object => object.object("object", |object| whole(object, Some(names), item)),
                }
            }
        });
    }

    /// Everything of a list after its last item.
    pub(super) fn close_list(out: &mut Vec<u8>) {
        out.extend_from_slice(b"]}\n");
    }
}

/// An object of the resource's own kind. In a list it does not say which kind that is.
fn whole(object: &mut JsonObject<'_>, names: Option<&Names>, item: &dyn Item) {
    if let Some(names) = names {
        object.string("kind", names.kind);
        object.string("apiVersion", &names.api_version);
    }
    metadata(object, item);
    item.write_fields(object);
}

fn partial(object: &mut JsonObject<'_>, version: &str, item: &dyn Item) {
    object.string("kind", "PartialObjectMetadata");
    object.display("apiVersion", &format_args!("meta.k8s.io/{version}"));
    metadata(object, item);
}

fn metadata(object: &mut JsonObject<'_>, item: &dyn Item) {
    object.object("metadata", |metadata| {
        metadata.string("name", item.name());
        if let Some(namespace) = item.namespace() {
            metadata.string("namespace", namespace);
        }
        if let Some(time) = item.creation_timestamp() {
            metadata.time("creationTimestamp", time);
        }
        metadata.object_unless_empty("labels", |labels| {
            item.visit_labels(&mut |key, value| labels.string(key, value));
        });
    });
}

fn meta(version: &str) -> String {
    format!("meta.k8s.io/{version}")
}

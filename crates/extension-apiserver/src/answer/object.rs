//! Objects in each form that they are asked for in, written straight into the output.

use super::binary;
use super::negotiate::Form;
use crate::json::JsonObject;
use crate::protobuf::Message;
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

/// How the objects of one answer are written. JSON is also what YAML is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) form: Form,
    pub(super) include: Include,
    pub(super) protobuf: bool,
}

/// What objects of one resource and version are called.
#[derive(Debug, Clone)]
pub(super) struct Names {
    /// `PodMetrics`.
    pub(super) kind: &'static str,
    /// `metrics.k8s.io/v1`.
    pub(super) api_version: String,
}

/// What a list says of itself; what is empty is left out.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ListMeta<'a> {
    pub(super) version: &'a str,
    pub(super) token: &'a str,
}

impl ListMeta<'_> {
    fn write(self, object: &mut JsonObject<'_>) {
        for (name, value) in [("resourceVersion", self.version), ("continue", self.token)] {
            if !value.is_empty() {
                object.string(name, value);
            }
        }
    }
}

impl Shape {
    /// Objects as they are.
    pub(super) fn own() -> Self {
        Self {
            form: Form::Own,
            include: Include::Metadata,
            protobuf: false,
        }
    }

    /// The answer to a get.
    pub(super) fn single(self, out: &mut Vec<u8>, info: &ResourceInfo, names: &Names, item: &dyn Item) {
        if self.protobuf {
            let mut raw = Vec::new();
            self.item_fields(&mut Message::new(&mut raw), item);
            let (kind, api_version) = self.kind(info, names);
            out.extend(binary::unknown(&api_version, kind, &raw));
            return;
        }
        match self.form {
            Form::Table(_) => {
                self.open_list(out, info, names, Some(ListMeta::default()));
                self.item(out, names, item);
                self.close_list(out, None);
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

    /// Kind and version of an object in that form.
    fn kind(self, info: &ResourceInfo, names: &Names) -> (&'static str, String) {
        match self.form {
            Form::Own => (info.kind, names.api_version.clone()),
            Form::Table(version) => ("Table", meta(version)),
            Form::Metadata(version) | Form::MetadataList(version) => ("PartialObjectMetadata", meta(version)),
        }
    }

    /// Kind and version of a list in that form.
    pub(super) fn list_kind<'a>(self, info: &'a ResourceInfo, names: &Names) -> (&'a str, String) {
        match self.form {
            Form::Own => (&info.list_kind, names.api_version.clone()),
            Form::Table(version) => ("Table", meta(version)),
            Form::Metadata(version) | Form::MetadataList(version) => {
                ("PartialObjectMetadataList", meta(version))
            }
        }
    }

    /// Everything of a list before its first item. What a page says of the next one is known only at its end, so that
    /// its metadata comes there.
    pub(super) fn open_list(
        self,
        out: &mut Vec<u8>,
        info: &ResourceInfo,
        names: &Names,
        metadata: Option<ListMeta<'_>>,
    ) {
        if self.protobuf {
            if let Some(ListMeta { version, token }) = metadata {
                binary::list_meta(&mut Message::new(out), version, token);
            }
            return;
        }
        let (kind, api_version) = self.list_kind(info, names);
        let items = match self.form {
            Form::Table(_) => "rows",
            _ => "items",
        };
        JsonObject::write(out, |list| {
            list.string("kind", kind);
            list.string("apiVersion", &api_version);
            if let Some(metadata) = metadata {
                list.object("metadata", |object| metadata.write(object));
            }
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
        if self.protobuf {
            Message::new(out).message(binary::ITEMS, |message| self.item_fields(message, item));
            return;
        }
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

    fn item_fields(self, message: &mut Message<'_>, item: &dyn Item) {
        binary::object_meta(message, item);
        if self.form == Form::Own {
            item.write_protobuf(message);
        }
    }

    /// What stands between two items.
    pub(super) fn separate(self, out: &mut Vec<u8>) {
        if !self.protobuf {
            out.push(b',');
        }
    }

    /// Everything of a list after its last item, and for a page its metadata, with what the next page is asked for by.
    pub(super) fn close_list(self, out: &mut Vec<u8>, page: Option<ListMeta<'_>>) {
        if self.protobuf {
            if let Some(ListMeta { version, token }) = page {
                binary::list_meta(&mut Message::new(out), version, token);
            }
            return;
        }
        out.push(b']');
        if let Some(metadata) = page {
            out.extend_from_slice(b",\"metadata\":");
            JsonObject::write(out, |object| metadata.write(object));
        }
        out.extend_from_slice(b"}\n");
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
    object.object("metadata", |metadata| item.write_metadata(metadata));
}

fn meta(version: &str) -> String {
    format!("meta.k8s.io/{version}")
}

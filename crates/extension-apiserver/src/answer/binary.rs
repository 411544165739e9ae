//! What Kubernetes wraps its messages in, and the messages that are not a resource's own. Numbers and order of the fields
//! are those of the `generated.proto` files of k8s.io/apimachinery and k8s.io/api.

use jiff::Timestamp;

use super::discovery::{sorted, verbs};
use crate::options::ApiGroup;
use crate::protobuf::{Message, varint};
use crate::resource::{Item, Resource};
use crate::status::Status;

/// What every document begins with.
const MAGIC: &[u8] = b"k8s\0";
/// The items of any list.
pub(super) const ITEMS: u32 = 2;

/// A document around a message: `runtime.Unknown`.
pub(super) fn unknown(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = head(api_version, kind, raw.len());
    out.extend_from_slice(raw);
    out.extend_from_slice(&tail());
    out
}

/// What comes before a message of that length.
pub(super) fn head(api_version: &str, kind: &str, length: usize) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    Message::new(&mut out).message(1, |type_meta| {
        type_meta.string(1, api_version);
        type_meta.string(2, kind);
    });
    // The tag of `raw`, which is field 2, bytes.
    out.push(2 << 3 | 2);
    varint(&mut out, length as u64);
    out
}

/// What comes after it.
pub(super) fn tail() -> Vec<u8> {
    let mut out = Vec::new();
    let mut unknown = Message::new(&mut out);
    // contentEncoding and contentType.
    unknown.string(3, "");
    unknown.string(4, "");
    out
}

fn document(api_version: &str, kind: &str, write: impl FnOnce(&mut Message<'_>)) -> Vec<u8> {
    let mut raw = Vec::new();
    write(&mut Message::new(&mut raw));
    unknown(api_version, kind, &raw)
}

/// The metadata of an object: `metav1.ObjectMeta`, as field 1.
pub(super) fn object_meta(message: &mut Message<'_>, item: &dyn Item) {
    message.message(1, |meta| {
        meta.string(1, item.name());
        meta.string(2, "");
        meta.string(3, item.namespace().unwrap_or_default());
        for empty in [4, 5, 6] {
            meta.string(empty, "");
        }
        meta.integer(7, 0);
        meta.message(8, |time| {
            if let Some(at) = item.creation_timestamp() {
                write_time(time, at);
            }
        });
        item.visit_labels(&mut |key, value| {
            meta.message(11, |entry| {
                entry.string(1, key);
                entry.string(2, value);
            });
        });
    });
}

/// The metadata of a list: `metav1.ListMeta`, as field 1.
pub(super) fn list_meta(message: &mut Message<'_>, version: &str, token: &str) {
    message.message(1, |meta| {
        meta.string(1, "");
        meta.string(2, version);
        meta.string(3, token);
    });
}

/// `metav1.Time`, which has whole seconds only.
fn write_time(message: &mut Message<'_>, at: Timestamp) {
    message.integer(1, at.as_second());
    message.integer(2, 0);
}

/// `metav1.Status`.
pub(super) fn status(status: &Status) -> Vec<u8> {
    document("v1", "Status", |message| {
        list_meta(message, "", "");
        message.string(2, "Failure");
        message.string(3, &status.message);
        message.string(4, status.reason);
        if let Some(details) = &status.details {
            message.message(5, |message| {
                message.string(1, &details.name);
                message.string(2, &details.group);
                message.string(3, &details.kind);
                for cause in &details.causes {
                    message.message(4, |message| {
                        message.string(1, cause.reason);
                        message.string(2, &cause.message);
                        message.string(3, &cause.field);
                    });
                }
                message.integer(5, details.retry_after_seconds.unwrap_or_default().into());
                message.string(6, "");
            });
        }
        message.integer(6, status.code.into());
    })
}

/// `APIGroupList` with the one group.
pub(super) fn group_list(group: &ApiGroup) -> Vec<u8> {
    document("v1", "APIGroupList", |list| {
        list.message(1, |message| write_group(message, group));
    })
}

/// `APIGroup`.
pub(super) fn group(group: &ApiGroup) -> Vec<u8> {
    document("v1", "APIGroup", |message| write_group(message, group))
}

fn write_group(message: &mut Message<'_>, group: &ApiGroup) {
    let version = |message: &mut Message<'_>, version: &str| {
        message.display(1, &format_args!("{}/{version}", group.name));
        message.string(2, version);
    };
    message.string(1, group.name);
    for name in &group.versions {
        message.message(2, |message| version(message, name));
    }
    if let Some(preferred) = group.versions.first() {
        message.message(3, |message| version(message, preferred));
    }
}

/// `APIResourceList` of one version.
pub(super) fn resource_list(group: &ApiGroup, version: &str) -> Vec<u8> {
    document("v1", "APIResourceList", |list| {
        list.display(1, &format_args!("{}/{version}", group.name));
        for resource in sorted(group) {
            list.message(2, |message| write_resource(message, resource));
        }
    })
}

fn write_resource(message: &mut Message<'_>, resource: &dyn Resource) {
    let info = resource.info();
    message.string(1, info.plural);
    message.boolean(2, info.namespaced);
    message.string(3, info.kind);
    message.message(4, |message| {
        for verb in verbs(resource) {
            message.string(1, verb);
        }
    });
    for name in &info.short_names {
        message.string(5, name);
    }
    message.string(6, info.singular);
    for empty in [8, 9, 10] {
        message.string(empty, "");
    }
}

/// `APIGroupDiscoveryList` in that version of `apidiscovery.k8s.io`.
pub(super) fn aggregated(group: &ApiGroup, discovery_version: &str) -> Vec<u8> {
    let api_version = format!("apidiscovery.k8s.io/{discovery_version}");
    document(&api_version, "APIGroupDiscoveryList", |list| {
        list_meta(list, "", "");
        list.message(ITEMS, |item| {
            item.message(1, |meta| {
                meta.string(1, group.name);
                for empty in 2..=6 {
                    meta.string(empty, "");
                }
                meta.integer(7, 0);
                meta.message(8, |_| {});
            });
            for version in &group.versions {
                item.message(2, |message| {
                    message.string(1, version);
                    for resource in sorted(group) {
                        message.message(2, |message| write_discovered(message, resource));
                    }
                    message.string(3, "Current");
                });
            }
        });
    })
}

fn write_discovered(message: &mut Message<'_>, resource: &dyn Resource) {
    let info = resource.info();
    message.string(1, info.plural);
    message.message(2, |kind| {
        kind.string(1, "");
        kind.string(2, "");
        kind.string(3, info.kind);
    });
    message.string(3, if info.namespaced { "Namespaced" } else { "Cluster" });
    message.string(4, info.singular);
    for verb in verbs(resource) {
        message.string(5, verb);
    }
    for name in &info.short_names {
        message.string(6, name);
    }
}

//! Discovery documents: `/apis`, `/apis/GROUP` and `/apis/GROUP/VERSION`.

use crate::json::{JsonArray, JsonObject};
use crate::options::ApiGroup;
use crate::resource::Resource;

/// What a resource can do.
pub(super) fn verbs(resource: &dyn Resource) -> Vec<&'static str> {
    let deletes = resource.deletes().is_some();
    let updates = resource.updates().is_some();
    let all = [
        ("create", resource.creates().is_some()),
        ("delete", deletes),
        ("deletecollection", deletes),
        ("get", true),
        ("list", true),
        ("patch", updates),
        ("update", updates),
        ("watch", resource.watches().is_some()),
    ];
    all.into_iter()
        .filter(|(_, can)| *can)
        .map(|(verb, _)| verb)
        .collect()
}

/// `APIGroupList` with the one group.
pub(super) fn group_list(group: &ApiGroup) -> Vec<u8> {
    document("APIGroupList", "v1", |list| {
        list.array("groups", |groups| {
            groups.object(|object| write_group(object, group));
        });
    })
}

/// `APIGroup`.
pub(super) fn group(group: &ApiGroup) -> Vec<u8> {
    document("APIGroup", "v1", |object| write_group(object, group))
}

/// `APIResourceList` of one version.
pub(super) fn resource_list(group: &ApiGroup, version: &str) -> Vec<u8> {
    document("APIResourceList", "v1", |list| {
        list.display("groupVersion", &format_args!("{}/{version}", group.name));
        list.array("resources", |resources| {
            for resource in sorted(group) {
                let info = resource.info();
                resources.object(|object| {
                    object.string("name", info.plural);
                    object.string("singularName", info.singular);
                    object.boolean("namespaced", info.namespaced);
                    object.string("kind", info.kind);
                    write_verbs(object, resource);
                });
            }
        });
    })
}

/// `APIGroupDiscoveryList` in that version of `apidiscovery.k8s.io`.
pub(super) fn aggregated(group: &ApiGroup, discovery_version: &str) -> Vec<u8> {
    let api_version = format!("apidiscovery.k8s.io/{discovery_version}");
    document("APIGroupDiscoveryList", &api_version, |list| {
        list.object("metadata", |_| {});
        list.array("items", |items| {
            items.object(|item| {
                item.object("metadata", |metadata| metadata.string("name", group.name));
                item.array("versions", |versions| {
                    for version in &group.versions {
                        versions.object(|object| write_version(object, group, version));
                    }
                });
            });
        });
    })
}

fn write_version(object: &mut JsonObject<'_>, group: &ApiGroup, version: &str) {
    object.string("version", version);
    object.array("resources", |resources| {
        for resource in sorted(group) {
            let info = resource.info();
            resources.object(|object| {
                object.string("resource", info.plural);
                // Group and version are empty where they are those of the list.
                object.object("responseKind", |kind| {
                    kind.string("group", "");
                    kind.string("version", "");
                    kind.string("kind", info.kind);
                });
                object.string("scope", if info.namespaced { "Namespaced" } else { "Cluster" });
                object.string("singularResource", info.singular);
                write_verbs(object, resource);
            });
        }
    });
    object.string("freshness", "Current");
}

fn write_group(object: &mut JsonObject<'_>, group: &ApiGroup) {
    let version = |object: &mut JsonObject<'_>, version: &str| {
        object.display("groupVersion", &format_args!("{}/{version}", group.name));
        object.string("version", version);
    };
    object.string("name", group.name);
    object.array("versions", |versions| {
        for name in &group.versions {
            versions.object(|object| version(object, name));
        }
    });
    if let Some(preferred) = group.versions.first() {
        object.object("preferredVersion", |object| version(object, preferred));
    }
}

fn write_verbs(object: &mut JsonObject<'_>, resource: &dyn Resource) {
    let info = resource.info();
    let strings =
        |array: &mut JsonArray<'_>, values: &[&str]| values.iter().for_each(|value| array.string(value));
    object.array("verbs", |array| strings(array, &verbs(resource)));
    if !info.short_names.is_empty() {
        object.array("shortNames", |names| strings(names, &info.short_names));
    }
}

pub(super) fn sorted(group: &ApiGroup) -> Vec<&dyn Resource> {
    let mut resources: Vec<_> = group.resources.iter().map(AsRef::as_ref).collect();
    resources.sort_by_key(|resource| resource.info().plural);
    resources
}

fn document(kind: &str, api_version: &str, write: impl FnOnce(&mut JsonObject<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    JsonObject::write(&mut out, |object| {
        object.string("kind", kind);
        object.string("apiVersion", api_version);
        write(object);
    });
    out.push(b'\n');
    out
}

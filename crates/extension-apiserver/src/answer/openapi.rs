//! `OpenAPI` documents, version 2 and 3: enough for `kubectl explain` and for kube-apiserver to merge.
//!
//! Schemas are named as those of custom resources are: the group's labels reversed, version, kind. Everything
//! but the items of a list is written in place, so that merging meets no other definition of the same name.

use serde_json::{Map, Value, json};

use super::negotiate::Media;
use crate::options::ApiGroup;
use crate::resource::ResourceInfo;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flavour {
    V2,
    V3,
}

/// The document of all versions as `OpenAPI` 2 ("Swagger").
pub(super) fn v2(group: &ApiGroup, server_version: &str) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for version in &group.versions {
        add_version(Flavour::V2, group, version, &mut paths, &mut schemas);
    }
    json!({
        "swagger": "2.0",
        "info": info(group, server_version),
        "paths": paths,
        "definitions": schemas,
    })
}

/// The document of one version as `OpenAPI` 3.
pub(super) fn v3(group: &ApiGroup, version: &str, server_version: &str) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    add_version(Flavour::V3, group, version, &mut paths, &mut schemas);
    json!({
        "openapi": "3.0.0",
        "info": info(group, server_version),
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

fn info(group: &ApiGroup, server_version: &str) -> Value {
    json!({"title": group.name, "version": server_version})
}

fn add_version(
    flavour: Flavour,
    group: &ApiGroup,
    version: &str,
    paths: &mut Map<String, Value>,
    schemas: &mut Map<String, Value>,
) {
    let prefix: Vec<_> = group.name.rsplit('.').collect();
    let prefix = format!("{}.{version}", prefix.join("."));
    for resource in &group.resources {
        let info = resource.info();
        let operations = Operations {
            flavour,
            info,
            // As in Kubernetes' own identifiers: the group's first label and the version.
            area: capitalized(group.name.split('.').next().unwrap_or_default()) + &capitalized(version),
            gvk: json!({"group": group.name, "kind": info.kind, "version": version}),
            object: format!("{prefix}.{}", info.kind),
            list: format!("{prefix}.{}", info.list_kind),
        };
        let root = format!("/apis/{}/{version}", group.name);
        operations.add_paths(&root, paths);
        operations.add_schemas(group, version, schemas);
    }
}

struct Operations<'a> {
    flavour: Flavour,
    info: &'a ResourceInfo,
    area: String,
    gvk: Value,
    object: String,
    list: String,
}

impl Operations<'_> {
    fn add_paths(&self, root: &str, paths: &mut Map<String, Value>) {
        let ResourceInfo { plural, kind, .. } = self.info;
        let area = &self.area;
        let name = self.path_parameter("name", &format!("name of the {kind}"));
        if self.info.namespaced {
            let namespace = self.path_parameter(
                "namespace",
                "object name and auth scope, such as for teams and projects",
            );
            let scoped = format!("{root}/namespaces/{{namespace}}/{plural}");
            let all = self.list(&format!("list{area}{kind}ForAllNamespaces"), &[]);
            let some = self.list(
                &format!("list{area}Namespaced{kind}"),
                std::slice::from_ref(&namespace),
            );
            let one = self.get(&format!("read{area}Namespaced{kind}"), &[name, namespace]);
            paths.insert(format!("{root}/{plural}"), all);
            paths.insert(format!("{scoped}/{{name}}"), one);
            paths.insert(scoped, some);
        } else {
            let all = self.list(&format!("list{area}{kind}"), &[]);
            paths.insert(format!("{root}/{plural}"), all);
            let one = self.get(&format!("read{area}{kind}"), &[name]);
            paths.insert(format!("{root}/{plural}/{{name}}"), one);
        }
    }

    fn list(&self, operation: &str, parameters: &[Value]) -> Value {
        let selector = |by: &str| {
            format!(
                "A selector to restrict the list of returned objects by their {by}. Defaults to everything."
            )
        };
        let mut parameters = parameters.to_vec();
        parameters.push(self.query_parameter("fieldSelector", &selector("fields")));
        parameters.push(self.query_parameter("labelSelector", &selector("labels")));
        self.path_item("list", operation, &self.list, parameters)
    }

    fn get(&self, operation: &str, parameters: &[Value]) -> Value {
        self.path_item("get", operation, &self.object, parameters.to_vec())
    }

    fn path_item(&self, action: &str, operation: &str, schema: &str, mut parameters: Vec<Value>) -> Value {
        let verb = if action == "list" {
            "list objects of kind"
        } else {
            "read the specified"
        };
        parameters.push(self.query_parameter("pretty", "If 'true', then the output is pretty printed."));
        let schema = self.reference(schema);
        let mut get = json!({
            "description": format!("{verb} {}", self.info.kind),
            "operationId": operation,
            "tags": [self.area],
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": self.gvk,
        });
        let ok = match self.flavour {
            Flavour::V2 => {
                set(&mut get, "produces", json!(self.served()));
                set(&mut get, "schemes", json!(["https"]));
                json!({"description": "OK", "schema": schema})
            }
            Flavour::V3 => {
                let served = self.served().into_iter();
                let content: Map<_, _> = served
                    .map(|served| (served.to_owned(), json!({"schema": schema})))
                    .collect();
                json!({"description": "OK", "content": content})
            }
        };
        set(
            &mut get,
            "responses",
            json!({"200": ok, "401": {"description": "Unauthorized"}}),
        );
        json!({"get": get, "parameters": parameters})
    }

    fn served(&self) -> Vec<&'static str> {
        let served = Media::of(self.info);
        served.iter().map(|media| media.name()).collect()
    }

    fn add_schemas(&self, group: &ApiGroup, version: &str, schemas: &mut Map<String, Value>) {
        let ResourceInfo { kind, list_kind, .. } = self.info;
        let mut object = self.info.schema.clone();
        set(&mut object, "type", json!("object"));
        set(&mut object, "x-kubernetes-group-version-kind", json!([self.gvk]));
        let own = object.get_mut("properties").map(Value::take);
        let mut properties = type_properties();
        properties.insert("metadata".to_owned(), object_metadata(self.info.namespaced));
        if let Some(Value::Object(own)) = own {
            properties.extend(own);
        }
        set(&mut object, "properties", Value::Object(properties));
        schemas.insert(self.object.clone(), object);

        let mut properties = type_properties();
        let metadata = json!({"type": "object", "description": "Standard list metadata."});
        properties.insert("metadata".to_owned(), metadata);
        let items = json!({
            "type": "array", "description": format!("List of {kind}."), "items": self.reference(&self.object),
        });
        properties.insert("items".to_owned(), items);
        let list = json!({
            "description": format!("{list_kind} is a list of {kind}."),
            "type": "object",
            "required": ["items"],
            "properties": properties,
            "x-kubernetes-group-version-kind": [{"group": group.name, "kind": list_kind, "version": version}],
        });
        schemas.insert(self.list.clone(), list);
    }

    fn reference(&self, schema: &str) -> Value {
        let place = match self.flavour {
            Flavour::V2 => "definitions",
            Flavour::V3 => "components/schemas",
        };
        json!({"$ref": format!("#/{place}/{schema}")})
    }

    fn path_parameter(&self, name: &str, description: &str) -> Value {
        self.parameter(json!({"name": name, "in": "path", "required": true, "description": description}))
    }

    fn query_parameter(&self, name: &str, description: &str) -> Value {
        self.parameter(json!({"name": name, "in": "query", "description": description}))
    }

    fn parameter(&self, mut parameter: Value) -> Value {
        match self.flavour {
            Flavour::V2 => {
                set(&mut parameter, "type", json!("string"));
                set(&mut parameter, "uniqueItems", json!(true));
            }
            Flavour::V3 => set(
                &mut parameter,
                "schema",
                json!({"type": "string", "uniqueItems": true}),
            ),
        }
        parameter
    }
}

fn type_properties() -> Map<String, Value> {
    let string = |description: &str| json!({"type": "string", "description": description});
    let api_version = string("APIVersion defines the versioned schema of this representation of an object.");
    let kind = string("Kind is a string value representing the REST resource this object represents.");
    Map::from_iter([("apiVersion".to_owned(), api_version), ("kind".to_owned(), kind)])
}

/// What objects carry of `ObjectMeta`.
fn object_metadata(namespaced: bool) -> Value {
    let string = |description: &str| json!({"type": "string", "description": description});
    let mut properties = json!({
        "name": string("Name of the object."),
        "creationTimestamp": {"type": "string", "format": "date-time", "description": "When the object was created."},
        "labels": {
            "type": "object", "additionalProperties": {"type": "string"}, "description": "Labels of the object.",
        },
    });
    if namespaced {
        set(&mut properties, "namespace", string("Namespace of the object."));
    }
    json!({"type": "object", "description": "Standard object's metadata.", "properties": properties})
}

fn set(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(fields) = object {
        fields.insert(name.to_owned(), value);
    }
}

fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}

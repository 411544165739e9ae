//! `OpenAPI` documents, version 2 and 3: what `kubectl explain` and client generators read, and kube-apiserver merges.
//!
//! `models.json` holds what all of Kubernetes shares: the schemas of k8s.io/apimachinery and the parameters of lists, as
//! version 3 has them, with bare names for references. Only what is referred to gets into a document.

mod older;
mod references;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use self::older::older;
use self::references::{each_reference, link, references};
use super::negotiate::Media;
use crate::options::ApiGroup;
use crate::resource::{Resource, ResourceInfo};

const SHARED: &str = include_str!("models.json");
const API_RESOURCES: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flavour {
    V2,
    V3,
}

/// The document of all versions as `OpenAPI` 2 ("Swagger").
pub(super) fn v2(group: &ApiGroup, server_version: &str) -> Value {
    let mut document = Document::new();
    for version in &group.versions {
        document.add_version(group, version);
    }
    let (mut paths, mut schemas) = document.finish(Flavour::V2);
    older(&mut paths);
    older(&mut schemas);
    json!({
        "swagger": "2.0",
        "info": info(group, server_version),
        "paths": paths,
        "definitions": schemas,
    })
}

/// The document of one version as `OpenAPI` 3.
pub(super) fn v3(group: &ApiGroup, version: &str, server_version: &str) -> Value {
    let mut document = Document::new();
    document.add_version(group, version);
    let (paths, schemas) = document.finish(Flavour::V3);
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

/// A document of version 3 in the making. References are bare names of schemas.
struct Document {
    shared: Value,
    paths: Map<String, Value>,
    schemas: Map<String, Value>,
}

impl Document {
    fn new() -> Self {
        Self {
            // It is part of the program, and tested.
            shared: serde_json::from_str(SHARED).unwrap_or_default(),
            paths: Map::new(),
            schemas: Map::new(),
        }
    }

    fn shared(&self, name: &str) -> Value {
        self.shared.get(name).cloned().unwrap_or_default()
    }

    fn list_parameters(&self) -> Vec<Value> {
        let mut parameters = match self.shared("listParameters") {
            Value::Array(parameters) => parameters,
            _ => Vec::new(),
        };
        parameters.push(self.shared("pretty"));
        parameters
    }

    fn add_version(&mut self, group: &ApiGroup, version: &str) {
        let short = group.name.split('.').next().unwrap_or_default();
        let root = format!("/apis/{}/{version}", group.name);
        let area = capitalized(short) + &capitalized(version);
        let tag = format!("{short}_{version}");
        let discovery = json!({
            "tags": [tag],
            "description": "get available resources",
            "operationId": format!("get{area}APIResources"),
            "responses": ok(&names(&Media::ALL, false), API_RESOURCES),
        });
        self.paths.insert(format!("{root}/"), json!({"get": discovery}));
        for resource in &group.resources {
            let info = resource.info();
            let package = match info.model_package {
                "" => group.name.rsplit('.').collect::<Vec<_>>().join("."),
                package => package.to_owned(),
            };
            let operations = Operations {
                resource: resource.as_ref(),
                info,
                area: &area,
                tag: &tag,
                gvk: json!({"group": group.name, "kind": info.kind, "version": version}),
                models: format!("{package}.{version}"),
            };
            operations.add_paths(&root, self);
            operations.add_schemas(group, version, self);
        }
    }

    /// Paths and schemas with those that are referred to, and references that lead there.
    fn finish(mut self, flavour: Flavour) -> (Value, Value) {
        let mut paths = Value::Object(std::mem::take(&mut self.paths));
        let mut wanted = BTreeSet::new();
        references(&paths, &mut wanted);
        self.schemas
            .values()
            .for_each(|schema| references(schema, &mut wanted));
        while let Some(name) = wanted.pop_first() {
            let shared = self
                .shared
                .pointer("/models")
                .and_then(|models| models.get(&name));
            if let Some(schema) = shared.filter(|_| !self.schemas.contains_key(&name)) {
                references(schema, &mut wanted);
                self.schemas.insert(name, schema.clone());
            }
        }
        let mut schemas = Value::Object(self.schemas);
        let place = match flavour {
            Flavour::V2 => "#/definitions/",
            Flavour::V3 => "#/components/schemas/",
        };
        link(&mut paths, place);
        link(&mut schemas, place);
        (paths, schemas)
    }
}

struct Operations<'a> {
    resource: &'a dyn Resource,
    info: &'a ResourceInfo,
    area: &'a str,
    tag: &'a str,
    gvk: Value,
    /// What the names of the resource's own schemas begin with.
    models: String,
}

impl Operations<'_> {
    fn model(&self, name: &str) -> String {
        format!("{}.{name}", self.models)
    }

    fn add_paths(&self, root: &str, document: &mut Document) {
        let ResourceInfo { plural, kind, .. } = self.info;
        let area = self.area;
        let name = path_parameter("name", &format!("name of the {kind}"));
        let list = |operation: &str, own: &[Value]| {
            let parameters = [&document.list_parameters()[..], own].concat();
            self.path_item("list", operation, &self.model(&self.info.list_kind), parameters)
        };
        let get = |operation: &str, own: &[Value]| {
            let parameters = [&[document.shared("pretty")], own].concat();
            self.path_item("get", operation, &self.model(kind), parameters)
        };
        let items = if self.info.namespaced {
            let namespace = path_parameter(
                "namespace",
                "object name and auth scope, such as for teams and projects",
            );
            let scoped = format!("{root}/namespaces/{{namespace}}/{plural}");
            let all = list(&format!("list{area}{kind}ForAllNamespaces"), &[]);
            let mut some = list(
                &format!("list{area}Namespaced{kind}"),
                std::slice::from_ref(&namespace),
            );
            let mut one = get(&format!("read{area}Namespaced{kind}"), &[name, namespace]);
            self.add_changes(&format!("{area}Namespaced"), &mut some, &mut one);
            vec![
                (format!("{root}/{plural}"), all),
                (format!("{scoped}/{{name}}"), one),
                (scoped, some),
            ]
        } else {
            let mut all = list(&format!("list{area}{kind}"), &[]);
            let mut one = get(&format!("read{area}{kind}"), &[name]);
            self.add_changes(area, &mut all, &mut one);
            vec![
                (format!("{root}/{plural}"), all),
                (format!("{root}/{plural}/{{name}}"), one),
            ]
        };
        document.paths.extend(items);
    }

    /// Adds what changes objects to the paths of a collection and of one object.
    fn add_changes(&self, area: &str, collection: &mut Value, one: &mut Value) {
        const JSON: [&str; 2] = ["application/json", "application/yaml"];
        const PATCH: [&str; 2] = ["application/json-patch+json", "application/merge-patch+json"];
        const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
        const OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
        const ANY: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
        let kind = self.info.kind;
        let model = self.model(kind);
        let add = |item: &mut Value,
                   method: &str,
                   action: &str,
                   verb: &str,
                   what: &str,
                   body: (&[&str], &str)| {
            let media = names(&Media::TEXT, false);
            let answered = if method == "delete" { STATUS } else { &model };
            let content = body
                .0
                .iter()
                .map(|media| ((*media).to_owned(), json!({"schema": {"$ref": body.1}})));
            let content: Map<_, _> = content.collect();
            let operation = json!({
                "tags": [self.tag],
                "description": format!("{what} {kind}"),
                "operationId": format!("{verb}{area}{kind}"),
                "parameters": [query_parameter("dryRun", "With 'All' everything is checked, but nothing is kept.")],
                "requestBody": {"content": content},
                "responses": ok(&media, answered),
                "x-kubernetes-action": action,
                "x-kubernetes-group-version-kind": self.gvk,
            });
            set(item, method, operation);
        };
        if self.resource.creates().is_some() {
            add(collection, "post", "post", "create", "create a", (&JSON, &model));
        }
        if self.resource.updates().is_some() {
            add(
                one,
                "put",
                "put",
                "replace",
                "replace the specified",
                (&JSON, &model),
            );
            add(
                one,
                "patch",
                "patch",
                "patch",
                "partially update the specified",
                (&PATCH, ANY),
            );
        }
        if self.resource.deletes().is_some() {
            add(one, "delete", "delete", "delete", "delete a", (&JSON, OPTIONS));
            let verb = "deleteCollection";
            add(
                collection,
                "delete",
                "deletecollection",
                verb,
                "delete collection of",
                (&JSON, OPTIONS),
            );
        }
    }

    fn path_item(&self, action: &str, operation: &str, model: &str, mut parameters: Vec<Value>) -> Value {
        let name = |parameter: &Value| parameter.get("name").map(Value::to_string);
        parameters.sort_by_key(name);
        let verb = if action == "list" {
            "list objects of kind"
        } else {
            "read the specified"
        };
        let get = json!({
            "tags": [self.tag],
            "description": format!("{verb} {}", self.info.kind),
            "operationId": operation,
            "responses": ok(&names(Media::of(self.info), action == "list"), model),
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": self.gvk,
        });
        json!({"get": get, "parameters": parameters})
    }

    fn add_schemas(&self, group: &ApiGroup, version: &str, document: &mut Document) {
        let ResourceInfo { kind, list_kind, .. } = self.info;
        let mut object = self.info.schema.clone();
        set(&mut object, "type", json!("object"));
        set(&mut object, "x-kubernetes-group-version-kind", json!([self.gvk]));
        let mut properties = document.shared("objectProperties");
        if let Some(Value::Object(own)) = object.get_mut("properties").map(Value::take) {
            own.into_iter()
                .for_each(|(name, schema)| set(&mut properties, &name, schema));
        }
        set(&mut object, "properties", properties);
        self.add_schema(kind, object, document);

        let mut properties = document.shared("listProperties");
        let items = json!({
            "description": format!("List of {kind}."), "type": "array", "items": {"$ref": self.model(kind)},
        });
        set(&mut properties, "items", items);
        let list = json!({
            "description": format!("{list_kind} is a list of {kind}."),
            "type": "object",
            "required": ["items"],
            "properties": properties,
            "x-kubernetes-group-version-kind": [{"group": group.name, "kind": list_kind, "version": version}],
        });
        self.add_schema(list_kind, list, document);
        for (name, schema) in &self.info.models {
            self.add_schema(name, schema.clone(), document);
        }
    }

    fn add_schema(&self, name: &str, mut schema: Value, document: &mut Document) {
        each_reference(&mut schema, &|name| {
            // Without a package it is one of the same version.
            if !name.contains('.') {
                *name = self.model(name);
            }
        });
        document.schemas.insert(self.model(name), schema);
    }
}

/// Media types as they are listed in descriptions.
fn names(served: &[Media], watches: bool) -> Vec<String> {
    let mut names: Vec<_> = served.iter().map(|media| media.name().to_owned()).collect();
    if watches {
        // Described wherever there are lists, also where there is no watch, as by k8s.io/apiserver.
        let streamed = served.iter().filter(|media| **media != Media::Yaml);
        names.extend(streamed.map(|media| format!("{};stream=watch", media.name())));
    }
    names
}

fn ok(media: &[String], model: &str) -> Value {
    let content = media
        .iter()
        .map(|media| (media.clone(), json!({"schema": {"$ref": model}})));
    let content: Map<_, _> = content.collect();
    json!({"200": {"description": "OK", "content": content}})
}

fn path_parameter(name: &str, description: &str) -> Value {
    json!({
        "name": name, "in": "path", "description": description, "required": true,
        "schema": {"type": "string", "uniqueItems": true},
    })
}

fn query_parameter(name: &str, description: &str) -> Value {
    json!({
        "name": name, "in": "query", "description": description,
        "schema": {"type": "string", "uniqueItems": true},
    })
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

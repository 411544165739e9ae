//! Requests that change objects: what holds of every object is checked here, everything else by the resource.

use bytes::Bytes;
use http::{HeaderMap, StatusCode, request};
use serde_json::{Map, Value};

use super::negotiate::Accepted;
use super::object::{Names, Shape};
use super::patch::{Change, media_type};
use super::reply::Answer;
use crate::request::{Query, ResourceRequest};
use crate::resource::{Item, Key, ListScope, Resource};
use crate::selector::Selection;
use crate::status::{Cause, Quoted, Status};
use crate::write::Preconditions;

/// How often a patch is made again because the object was changed meanwhile (`maxRetryWhenPatchConflicts` of k8s.io/apiserver).
const TRIES: u32 = 5;
/// What a change is about, besides the object.
pub(super) struct ChangeRequest<'a> {
    pub(super) resource: &'a dyn Resource,
    pub(super) names: Names,
    pub(super) accepted: Accepted,
    pub(super) shape: Shape,
    pub(super) request: &'a ResourceRequest,
    pub(super) query: &'a Query,
    pub(super) parts: &'a request::Parts,
}

impl ChangeRequest<'_> {
    fn dry_run(&self) -> Result<bool, Status> {
        match self.query.first("dryRun") {
            None | Some("") => Ok(false),
            Some("All") => Ok(true),
            Some(other) => {
                let supported = "supported values: \"All\"";
                let cause = Cause {
                    reason: "FieldValueNotSupported",
                    message: format!("Unsupported value: {}: {supported}", Quoted(other)),
                    field: "dryRun".to_owned(),
                };
                Err(Status::invalid("meta.k8s.io", "CreateOptions", "", vec![cause]))
            }
        }
    }

    fn kind(&self) -> &'static str {
        self.resource.info().kind
    }

    fn answer(&self, shown: Vec<u8>, code: StatusCode) -> Answer {
        Answer::text_document(shown, self.accepted.encoding).with_code(code)
    }

    fn write(&self, out: &mut Vec<u8>, item: &dyn Item) {
        self.shape.single(out, self.resource.info(), &self.names, item);
    }

    /// Creates an object.
    pub(super) fn create(&self, body: &Bytes) -> Result<Answer, Status> {
        let creates = self.resource.creates().ok_or_else(Status::method_not_allowed)?;
        let mut object = self.object(body)?;
        let metadata = metadata(&mut object)?;
        let generate = text(metadata, "generateName")?.to_owned();
        if text(metadata, "name")?.is_empty() && !generate.is_empty() {
            let name = format!("{generate}{}", suffix());
            metadata.insert("name".to_owned(), name.into());
        }
        if !text(metadata, "resourceVersion")?.is_empty() {
            return Err(Status::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        let name = text(metadata, "name")?.to_owned();
        self.check_name(&name)?;
        let mut shown = Vec::new();
        creates.create(object, self.dry_run()?, &mut |item| self.write(&mut shown, item))?;
        Ok(self.answer(shown, StatusCode::CREATED))
    }

    /// Replaces an object.
    pub(super) fn update(&self, key: Key<'_>, body: &Bytes) -> Result<Answer, Status> {
        let updates = self.resource.updates().ok_or_else(Status::method_not_allowed)?;
        let object = self.object(body)?;
        let object = same_name(object, key)?;
        let mut shown = Vec::new();
        updates.update(object, self.dry_run()?, &mut |item| self.write(&mut shown, item))?;
        Ok(self.answer(shown, StatusCode::OK))
    }

    /// Replaces an object by what a patch makes of it.
    pub(super) fn patch(&self, key: Key<'_>, body: &Bytes) -> Result<Answer, Status> {
        let updates = self.resource.updates().ok_or_else(Status::method_not_allowed)?;
        let patch = Change::read(&self.parts.headers, body)?;
        let dry_run = self.dry_run()?;
        let mut tries = 1..TRIES;
        loop {
            let before = self.current(key)?;
            let mut object = before.clone();
            patch.apply(&mut object).map_err(|error| {
                let cause = Cause::invalid("patch", &"the patch", &error);
                Status::invalid(&self.request.group, self.kind(), key.name, vec![cause])
            })?;
            let version = |object: &Value| object.pointer("/metadata/resourceVersion").cloned();
            let own_version = version(&object) != version(&before);
            let object = same_name(self.checked(object)?, key)?;
            let mut shown = Vec::new();
            match updates.update(object, dry_run, &mut |item| self.write(&mut shown, item)) {
                // Whoever names a version wants that one.
                Err(status) if status.reason == "Conflict" && !own_version && tries.next().is_some() => {}
                changed => return changed.map(|()| self.answer(shown, StatusCode::OK)),
            }
        }
    }

    /// Deletes an object.
    pub(super) fn delete(&self, key: Key<'_>, body: &Bytes) -> Result<Answer, Status> {
        let deletes = self.resource.deletes().ok_or_else(Status::method_not_allowed)?;
        let preconditions = self.preconditions(body)?;
        let uid = self.current(key)?;
        let uid = uid.pointer("/metadata/uid").and_then(Value::as_str);
        deletes.delete(key, &preconditions, self.dry_run()?)?;
        Ok(self.done(Some((key.name, uid.unwrap_or_default()))))
    }

    /// Deletes those objects of a collection that are selected.
    pub(super) fn delete_all(&self, selection: &Selection, body: &Bytes) -> Result<Answer, Status> {
        let deletes = self.resource.deletes().ok_or_else(Status::method_not_allowed)?;
        let (preconditions, dry_run) = (self.preconditions(body)?, self.dry_run()?);
        let namespace = Some(self.request.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let scope = ListScope {
            namespace,
            after: None,
        };
        let mut keys = Vec::new();
        self.resource.list(scope, &mut |item| {
            if selection.matches(item) {
                keys.push((item.namespace().map(str::to_owned), item.name().to_owned()));
            }
            std::ops::ControlFlow::Continue(())
        })?;
        for (namespace, name) in &keys {
            let namespace = namespace.as_deref();
            match deletes.delete(Key { namespace, name }, &preconditions, dry_run) {
                // Somebody else was faster.
                Err(status) if status.code == 404 => {}
                outcome => outcome?,
            }
        }
        Ok(self.done(None))
    }

    fn done(&self, about: Option<(&str, &str)>) -> Answer {
        let ResourceRequest { group, resource, .. } = self.request;
        let details = about.map(
            |(name, uid)| serde_json::json!({"name": name, "group": group, "kind": resource, "uid": uid}),
        );
        let mut status = serde_json::json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        });
        if let (Some(details), Value::Object(status)) = (details, &mut status) {
            status.insert("details".to_owned(), details);
        }
        let mut json = status.to_string().into_bytes();
        json.push(b'\n');
        Answer::text_document(json, self.accepted.encoding)
    }

    fn preconditions(&self, body: &Bytes) -> Result<Preconditions, Status> {
        #[derive(Default, serde::Deserialize)]
        #[serde(default)]
        struct DeleteOptions {
            preconditions: Option<Preconditions>,
        }
        if body.is_empty() {
            return Ok(Preconditions::default());
        }
        let options: DeleteOptions = serde_json::from_value(read(&self.parts.headers, body)?)
            .map_err(|error| Status::bad_request(format!("DeleteOptions cannot be read: {error}")))?;
        Ok(options.preconditions.unwrap_or_default())
    }

    /// The object in its own form, as it is now.
    fn current(&self, key: Key<'_>) -> Result<Value, Status> {
        let own = Shape::own();
        let mut json = Vec::new();
        self.resource.get(key, &mut |item| {
            own.single(&mut json, self.resource.info(), &self.names, item);
        })?;
        serde_json::from_slice(&json).map_err(|error| Status::internal(&error))
    }

    /// The object in the body.
    fn object(&self, body: &Bytes) -> Result<Value, Status> {
        self.checked(read(&self.parts.headers, body)?)
    }

    /// Checks what holds of every object, and puts its namespace where it belongs.
    fn checked(&self, mut object: Value) -> Result<Value, Status> {
        let (group, version) = (&self.request.group, &self.request.version);
        let Value::Object(fields) = &mut object else {
            return Err(Status::bad_request("the object provided is not a JSON object"));
        };
        let expected = [
            ("kind", self.kind()),
            ("apiVersion", self.names.api_version.as_str()),
        ];
        for (field, expected) in expected {
            match fields.get(field) {
                None => {
                    fields.insert(field.to_owned(), expected.into());
                }
                Some(Value::String(found)) if found.is_empty() || found == expected => {
                    fields.insert(field.to_owned(), expected.into());
                }
                Some(found) => {
                    return Err(Status::bad_request(format!(
                        "the {field} {found} of the provided object is not {} of {group}/{version}",
                        Quoted(expected)
                    )));
                }
            }
        }
        let namespaced = self.resource.info().namespaced;
        let metadata = metadata(&mut object)?;
        let namespace = text(metadata, "namespace")?;
        if !namespace.is_empty() && namespace != self.request.namespace {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the request",
            ));
        }
        if namespaced {
            metadata.insert("namespace".to_owned(), self.request.namespace.clone().into());
        }
        for map in ["labels", "annotations"] {
            let strings = |map: &Value| match map {
                Value::Null => true,
                Value::Object(entries) => entries.values().all(Value::is_string),
                _ => false,
            };
            if !metadata.get(map).is_none_or(strings) {
                return Err(Status::bad_request(format!(
                    "metadata.{map} of the provided object is not a map of strings"
                )));
            }
        }
        Ok(object)
    }

    /// A DNS subdomain, as apimachinery demands of names.
    fn check_name(&self, name: &str) -> Result<(), Status> {
        let invalid = |cause| Status::invalid(&self.request.group, self.kind(), name, vec![cause]);
        if name.is_empty() {
            return Err(invalid(Cause::required(
                "metadata.name",
                "name or generateName is required",
            )));
        }
        let label = |label: &str| {
            let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            let ends = [label.bytes().next(), label.bytes().next_back()];
            ends.into_iter().all(|byte| byte.is_some_and(fine))
                && label.bytes().all(|byte| fine(byte) || byte == b'-')
        };
        if name.len() <= 253 && name.split('.').all(label) {
            return Ok(());
        }
        let rule = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must \
                    start and end with an alphanumeric character";
        Err(invalid(Cause::invalid("metadata.name", &Quoted(name), rule)))
    }
}

fn metadata(object: &mut Value) -> Result<&mut Map<String, Value>, Status> {
    let metadata = object.as_object_mut().map(|fields| {
        let metadata = fields.entry("metadata").or_insert(Value::Null);
        if metadata.is_null() {
            *metadata = Value::Object(Map::new());
        }
        metadata
    });
    metadata
        .and_then(Value::as_object_mut)
        .ok_or_else(|| Status::bad_request("metadata of the provided object is not a JSON object"))
}

fn text<'a>(metadata: &'a Map<String, Value>, field: &str) -> Result<&'a str, Status> {
    match metadata.get(field) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text),
        Some(_) => Err(Status::bad_request(format!(
            "metadata.{field} of the provided object is not a string"
        ))),
    }
}

fn same_name(mut object: Value, key: Key<'_>) -> Result<Value, Status> {
    let metadata = metadata(&mut object)?;
    let name = text(metadata, "name")?;
    if name.is_empty() {
        metadata.insert("name".to_owned(), key.name.into());
    } else if name != key.name {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({})",
            key.name
        )));
    }
    Ok(object)
}

fn read(headers: &HeaderMap, body: &Bytes) -> Result<Value, Status> {
    match media_type(headers) {
        "" | "application/json" => serde_json::from_slice(body).map_err(|error| error.to_string()),
        "application/yaml" => serde_yaml::from_slice(body).map_err(|error| error.to_string()),
        _ => {
            return Err(Status::unsupported_media_type(&[
                "application/json",
                "application/yaml",
            ]));
        }
    }
    .map_err(|error| Status::bad_request(format!("the body of the request cannot be read: {error}")))
}

/// Five letters and digits that make no words.
fn suffix() -> String {
    use std::hash::BuildHasher as _;
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut random = std::hash::RandomState::new().hash_one(std::time::Instant::now());
    let mut suffix = String::new();
    for _ in 0..5 {
        let at = usize::try_from(random % 27).unwrap_or_default();
        suffix.extend(ALPHABET.get(at).map(|&letter| char::from(letter)));
        random /= 27;
    }
    suffix
}

/// Whether the request comes with a body that is looked at.
pub(super) fn wants_body(resource: &dyn Resource, method: &http::Method) -> bool {
    match method.as_str() {
        "POST" => resource.creates().is_some(),
        "PUT" | "PATCH" => resource.updates().is_some(),
        "DELETE" => resource.deletes().is_some(),
        _ => false,
    }
}

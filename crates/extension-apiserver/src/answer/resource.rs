//! Answers about the group's resources.

use std::num::IntErrorKind;
use std::sync::Arc;

use http::{Method, request};

use super::negotiate::{self, Form};
use super::object::{Include, Names, Shape};
use super::pretty::{Indent, Indented};
use super::reply::Answer;
use super::{Api, list::List};
use crate::body::{Body, Chunks};
use crate::request::{Query, RequestInfo, ResourceRequest};
use crate::resource::{Key, Resource};
use crate::selector::{FieldSelector, LabelSelector, Selection};
use crate::status::{Quoted, Status};

/// Answers a request whose path leads to a resource.
pub(super) fn respond(
    api: &Api,
    info: &RequestInfo,
    request: &ResourceRequest,
    parts: &request::Parts,
) -> Result<Answer, Status> {
    let (resource, key) = find(api, info, request).ok_or_else(Status::no_such_path)?;
    if parts.method != Method::GET {
        return Err(Status::method_not_allowed());
    }
    let query = Query::of(&parts.uri);
    let accepted = negotiate::resource_form(&parts.headers, &query)?;
    let names = Names {
        kind: resource.info().kind,
        api_version: format!("{}/{}", request.group, request.version),
    };
    let include = match accepted.form {
        Form::Table(_) => Include::of(&query),
        _ => Ok(Include::Metadata),
    };
    let Some(key) = key else {
        let selection = selection(&query)?;
        if info.verb == "watch" {
            return Err(Status::verb_not_supported(
                &request.group,
                &request.resource,
                "watch",
            ));
        }
        if let Form::Metadata(_) = accepted.form {
            return Err(Status::form_not_acceptable(format!(
                "you requested PartialObjectMetadata, but the requested object is a list ({})",
                resource.info().list_kind
            )));
        }
        let shape = Shape {
            form: accepted.form,
            include: include?,
        };
        return list(resource, names, shape, request, selection, accepted.pretty);
    };
    if let Form::MetadataList(_) = accepted.form {
        return Err(Status::form_not_acceptable(format!(
            "you requested PartialObjectMetadataList, but the requested object is not a list ({})",
            names.kind
        )));
    }
    let shape = Shape {
        form: accepted.form,
        include: include?,
    };
    let mut out = Vec::new();
    resource.get(key, &mut |item| {
        shape.single(&mut out, resource.info(), &names, item);
    })?;
    Ok(Answer::json(out, accepted.pretty))
}

/// The resource and, unless it is about the collection, the object that the path leads to. The path must be exactly
/// the one that the request was authorized by.
fn find<'a>(
    api: &'a Api,
    info: &RequestInfo,
    request: &'a ResourceRequest,
) -> Option<(&'a Arc<dyn Resource>, Option<Key<'a>>)> {
    let group = &api.group;
    if request.group != group.name || !group.versions.contains(&request.version.as_str()) {
        return None;
    }
    let mut resources = group.resources.iter();
    let resource = resources.find(|resource| resource.info().plural == request.resource)?;
    let path = info.path.strip_suffix('/').unwrap_or(&info.path);
    let rest = path
        .strip_prefix("/apis/")?
        .strip_prefix(group.name)?
        .strip_prefix('/')?
        .strip_prefix(request.version.as_str())?
        .strip_prefix('/')?;
    let segments: Vec<_> = rest.split('/').collect();
    let namespaced = resource.info().namespaced;
    let (namespace, rest) = match segments.as_slice() {
        ["namespaces", namespace, rest @ ..] if namespaced && !namespace.is_empty() => {
            (Some(*namespace), rest)
        }
        rest => (None, rest),
    };
    let name = match rest {
        [plural] if *plural == request.resource => None,
        [plural, name] if *plural == request.resource && !name.is_empty() => Some(*name),
        _ => return None,
    };
    if namespace.unwrap_or_default() != request.namespace || name.is_some_and(|name| name != request.name) {
        return None;
    }
    match name {
        None => Some((resource, None)),
        // An object that lives in a namespace is not found without one.
        Some(_) if namespaced && namespace.is_none() => None,
        Some(_) => {
            let namespace = namespaced.then_some(request.namespace.as_str());
            let name = request.name.as_str();
            Some((resource, Some(Key { namespace, name })))
        }
    }
}

/// Reads the parameters of a list. Paging is not offered: a list is made from memory while the client reads it.
fn selection(query: &Query) -> Result<Selection, Status> {
    for number in ["timeoutSeconds", "limit"] {
        let value = query.first(number).unwrap_or("0");
        if let Err(error) = value.parse::<i64>() {
            let problem = match error.kind() {
                IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
                _ => "invalid syntax",
            };
            let value = Quoted(value);
            return Err(Status::bad_request(format!(
                "strconv.ParseInt: parsing {value}: {problem}"
            )));
        }
    }
    let labels = query.first("labelSelector").unwrap_or_default();
    let fields = query.first("fieldSelector").unwrap_or_default();
    let labels = LabelSelector::parse(labels).map_err(Status::bad_request)?;
    let fields = FieldSelector::parse(fields).map_err(Status::bad_request)?;
    let fields = fields.of_objects().map_err(Status::bad_request)?;
    Ok(Selection { labels, fields })
}

fn list(
    resource: &Arc<dyn Resource>,
    names: Names,
    shape: Shape,
    request: &ResourceRequest,
    selection: Selection,
    pretty: bool,
) -> Result<Answer, Status> {
    let namespace = Some(request.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let selected = selection
        .fields
        .namespace()
        .filter(|_| resource.info().namespaced);
    let namespace = namespace.or(selected).map(str::to_owned);
    let mut list = List::new(Arc::clone(resource), names, shape, namespace, selection);
    // The first part is made at once: it may fail with a status, and most lists have no second.
    let first = list.next()?.unwrap_or_default();
    if list.is_done() {
        return Ok(Answer::json(first, pretty));
    }
    if !pretty {
        return Ok(Answer::body(Body::streamed(first, Box::new(list))));
    }
    let mut indent = Indent::default();
    let first = indent.part(&first).into();
    let rest = Indented {
        indent,
        compact: list,
    };
    Ok(Answer::body(Body::streamed(first, Box::new(rest))))
}

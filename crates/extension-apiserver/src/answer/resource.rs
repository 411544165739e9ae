//! Answers about the group's resources.

use std::sync::Arc;

use bytes::Bytes;
use http::{Method, request};

use super::change::{self, ChangeRequest};
use super::list::{Framed, List, PART};
use super::negotiate::{self, Accepted, Encoding, Form, Media};
use super::object::{Include, Names, Shape};
use super::paging::{OwnedKey, Page};
use super::pretty::{Indent, Transform, Transformed};
use super::reply::Answer;
use super::watch::{self, WatchRequest};
use super::yaml::Yaml;
use super::{Api, binary, gzip, options};
use crate::body::{After, Body, Chunks};
use crate::request::{Query, RequestInfo, ResourceRequest};
use crate::resource::{Key, Resource};
use crate::selector::Selection;
use crate::status::Status;

/// Answers a request whose path leads to a resource.
pub(super) fn respond(
    api: &Api,
    info: &RequestInfo,
    request: &ResourceRequest,
    parts: &request::Parts,
    body: &Bytes,
) -> Result<Answer, Status> {
    let (resource, key) = find(api, info, request).ok_or_else(Status::no_such_path)?;
    let query = Query::of(&parts.uri);
    if parts.method != Method::GET {
        if !change::wants_body(resource.as_ref(), &parts.method) {
            return Err(Status::method_not_allowed());
        }
        return change(resource, key, request, &query, parts, body);
    }
    let served = Media::of(resource.info());
    let accepted = negotiate::resource_form(&parts.headers, &query, served)?;
    let names = names(resource.as_ref(), request);
    let include = match accepted.form {
        Form::Table(_) => Include::of(&query),
        _ => Ok(Include::Metadata),
    };
    let Some(key) = key else {
        let selection = options::read(&query, info.verb == "watch")?;
        if info.verb == "watch" && resource.watches().is_none() {
            return Err(Status::verb_not_supported(
                &request.group,
                &request.resource,
                "watch",
            ));
        }
        if info.verb == "watch" {
            let shape = Shape {
                form: accepted.form,
                include: include?,
                protobuf: false,
            };
            let ask = WatchRequest {
                namespace: scope(resource.as_ref(), request, &selection),
                names,
                shape,
                selection,
                accepted,
            };
            return watch::answer(resource, ask, &query, api.ending.clone());
        }
        if let Form::Metadata(_) = accepted.form {
            return Err(Status::form_not_acceptable(format!(
                "you requested PartialObjectMetadata, but the requested object is a list ({})",
                resource.info().list_kind
            )));
        }
        let include = include?;
        let ask = |accepted: Accepted| {
            let ask = ListRequest {
                names: names.clone(),
                include,
                selection: selection.clone(),
                pages: Page::of(request, &query)?,
                accepted,
            };
            list(api, resource, ask, request, parts)
        };
        return match ask(accepted) {
            // Too many lists are in memory as a whole, as protobuf has to be: most clients take text too.
            Err(status) if status.code == 429 => {
                let text = negotiate::resource_form(&parts.headers, &query, &Media::TEXT);
                text.map_err(|_| status).and_then(ask)
            }
            answer => answer,
        };
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
        protobuf: accepted.encoding.media == Media::Protobuf,
    };
    let mut out = Vec::new();
    resource.get(key, &mut |item| {
        shape.single(&mut out, resource.info(), &names, item);
    })?;
    Ok(if shape.protobuf {
        Answer::body(Body::full(out), Media::Protobuf)
    } else {
        Answer::text_document(out, accepted.encoding)
    })
}

/// The namespace that objects must be in, if there is one.
fn scope(resource: &dyn Resource, request: &ResourceRequest, selection: &Selection) -> Option<String> {
    let namespace = Some(request.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let selected = selection
        .fields
        .namespace()
        .filter(|_| resource.info().namespaced);
    namespace.or(selected).map(str::to_owned)
}

/// Changes an object, or deletes several.
fn change(
    resource: &Arc<dyn Resource>,
    key: Option<Key<'_>>,
    request: &ResourceRequest,
    query: &Query,
    parts: &request::Parts,
    body: &Bytes,
) -> Result<Answer, Status> {
    // What is changed is told as text: there is no protobuf of objects that come as JSON.
    let accepted = negotiate::resource_form(&parts.headers, query, &Media::TEXT)?;
    let change = ChangeRequest {
        resource: resource.as_ref(),
        names: names(resource.as_ref(), request),
        shape: Shape {
            form: accepted.form,
            include: Include::of(query)?,
            protobuf: false,
        },
        accepted,
        request,
        query,
        parts,
    };
    let namespaced = resource.info().namespaced;
    match (parts.method.as_str(), key) {
        ("POST", None) if !namespaced || !request.namespace.is_empty() => change.create(body),
        ("PUT", Some(key)) => change.update(key, body),
        ("PATCH", Some(key)) => change.patch(key, body),
        ("DELETE", Some(key)) => change.delete(key, body),
        ("DELETE", None) => change.delete_all(&options::read(query, false)?, body),
        _ => Err(Status::method_not_allowed()),
    }
}

fn names(resource: &dyn Resource, request: &ResourceRequest) -> Names {
    Names {
        kind: resource.info().kind,
        api_version: format!("{}/{}", request.group, request.version),
    }
}

/// The resource and, unless it is about the collection, the object that the path leads to. The path must be exactly
/// the one that the request was authorized by.
pub(super) fn find<'a>(
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

/// What a list is asked for by.
struct ListRequest {
    names: Names,
    include: Include,
    selection: Selection,
    pages: (Option<Page>, Option<OwnedKey>),
    accepted: Accepted,
}

fn list(
    api: &Api,
    resource: &Arc<dyn Resource>,
    ask: ListRequest,
    request: &ResourceRequest,
    parts: &request::Parts,
) -> Result<Answer, Status> {
    let namespace = scope(resource.as_ref(), request, &ask.selection);
    let Encoding { media, pretty } = ask.accepted.encoding;
    let shape = Shape {
        form: ask.accepted.form,
        include: ask.include,
        protobuf: media == Media::Protobuf,
    };
    let (resource, names) = (Arc::clone(resource), ask.names);
    let mut list = List::new(resource, names, shape, namespace, ask.selection, ask.pages);
    // The first part is made at once: it may fail with a status, and most lists have no second.
    let first = list.next()?.unwrap_or_default();
    if list.is_done() {
        return Ok(if shape.protobuf {
            let (kind, api_version) = list.kind();
            Answer::body(
                Body::full(binary::unknown(&api_version, kind, &first)),
                Media::Protobuf,
            )
        } else {
            Answer::text_document(first, ask.accepted.encoding)
        });
    }
    // Protobuf is written as a whole before it is known how much it is, so a guess must do.
    let large = shape.protobuf && first.len() >= PART;
    let whole: Box<dyn Chunks> = match media {
        Media::Protobuf => {
            let permit = Arc::clone(&api.whole_lists)
                .try_acquire_owned()
                .map_err(|_| Status::too_many_requests(1))?;
            Box::new(Framed::new(list, first, permit))
        }
        Media::Yaml => Box::new(transformed(first, list, Yaml::default())),
        Media::Json if pretty => Box::new(transformed(first, list, Indent::default())),
        Media::Json => Box::new(After::new(first, list)),
    };
    gzip::answer(whole, media, &parts.headers, large)
}

fn transformed<T: Transform + Send>(first: Bytes, list: List, transform: T) -> Transformed<After<List>, T> {
    Transformed {
        compact: After::new(first, list),
        transform,
    }
}

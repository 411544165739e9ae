//! Everything that is answered once a client may have it.

mod binary;
mod change;
mod discovery;
mod documents;
mod gzip;
mod list;
mod negotiate;
mod object;
mod openapi;
mod options;
pub(crate) mod paging;
mod patch;
mod pretty;
mod reply;
mod resource;
#[cfg(test)]
mod tests;
pub(crate) mod watch;
mod yaml;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, Method, Response, request};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::documents::Documents;
use self::negotiate::Media;
use self::reply::Answer;
use crate::body::Body;
use crate::health::{self, HealthCheck};
use crate::json::JsonObject;
use crate::options::{ApiGroup, VersionInfo};
use crate::request::{Query, RequestInfo};
use crate::server::Endpoint;
use crate::status::Status;

/// What can be answered.
pub(crate) struct Api {
    /// The group served.
    group: ApiGroup,
    /// `/version`.
    version: VersionInfo,
    /// Extra JSON documents by path.
    endpoints: BTreeMap<&'static str, Endpoint>,
    /// Checks in the order they are shown, the library's own included.
    checks: Vec<HealthCheck>,
    documents: Documents,
    /// Places for lists that have to be in memory as a whole.
    whole_lists: Arc<Semaphore>,
    /// Cancelled when watches are to end.
    ending: CancellationToken,
}

/// Lists that may be in memory as a whole at once.
const WHOLE_LISTS: usize = 16;

impl Api {
    /// Puts together what is answered, discovery documents included.
    pub(crate) fn new(
        group: ApiGroup,
        version: VersionInfo,
        endpoints: BTreeMap<&'static str, Endpoint>,
        checks: Vec<HealthCheck>,
        ending: CancellationToken,
    ) -> Self {
        let documents = Documents::new(&group, &version.git_version);
        Self {
            group,
            version,
            endpoints,
            checks,
            documents,
            whole_lists: Arc::new(Semaphore::new(WHOLE_LISTS)),
            ending,
        }
    }

    /// The paths that `/` lists.
    fn paths(&self) -> Vec<u8> {
        let group = self.group.name;
        let mut paths = vec!["/apis".to_owned(), format!("/apis/{group}")];
        paths.extend(
            self.group
                .versions
                .iter()
                .map(|version| format!("/apis/{group}/{version}")),
        );
        let known = [
            "/healthz",
            "/livez",
            "/metrics",
            "/openapi/v2",
            "/openapi/v3",
            "/readyz",
            "/version",
        ];
        paths.extend(known.map(str::to_owned));
        paths.extend(self.endpoints.keys().map(|path| (*path).to_owned()));
        paths.sort();
        let mut out = Vec::new();
        JsonObject::write(&mut out, |object| {
            object.array("paths", |array| paths.iter().for_each(|path| array.string(path)));
        });
        out
    }
}

/// Whether the request comes with a body that is looked at. No other is read.
pub(crate) fn wants_body(api: &Api, info: &RequestInfo, parts: &request::Parts) -> bool {
    info.resource
        .as_ref()
        .and_then(|request| resource::find(api, info, request))
        .is_some_and(|(resource, _)| change::wants_body(resource.as_ref(), &parts.method))
}

/// Answers an authorized request. Never waits.
pub(crate) fn respond(api: &Api, info: &RequestInfo, parts: &request::Parts, body: &Bytes) -> Response<Body> {
    let answer = match &info.resource {
        Some(request) => resource::respond(api, info, request, parts, body),
        None => other_path(api, info, parts),
    };
    match answer {
        Ok(answer) => answer.into_response(&parts.headers),
        Err(status) => {
            let pretty = negotiate::wants_pretty(&parts.headers, &Query::of(&parts.uri));
            let encoding = negotiate::refusal(&parts.headers, pretty);
            Answer::refusal(&status, encoding).into_response(&parts.headers)
        }
    }
}

/// Answers with a refusal, in the form that the request's headers ask for.
pub(crate) fn refuse(status: &Status, headers: &HeaderMap) -> Response<Body> {
    let encoding = negotiate::refusal(headers, negotiate::wants_pretty_by_agent(headers));
    Answer::refusal(status, encoding).into_response(headers)
}

fn other_path(api: &Api, info: &RequestInfo, parts: &request::Parts) -> Result<Answer, Status> {
    let query = Query::of(&parts.uri);
    let group = &api.group;
    let path = info.path.strip_prefix('/').unwrap_or(&info.path);
    let segments: Vec<_> = path.strip_suffix('/').unwrap_or(path).split('/').collect();
    let is_get = parts.method == Method::GET;
    let is_read = is_get || parts.method == Method::HEAD;
    let allowed = |allowed: bool| {
        if allowed {
            Ok(())
        } else {
            Err(Status::method_not_allowed())
        }
    };
    let document = |json: &dyn Fn() -> Vec<u8>, protobuf: &dyn Fn() -> Vec<u8>| {
        allowed(is_get)?;
        let encoding = negotiate::document(&parts.headers, &query, &Media::ALL)?;
        Ok(Answer::document(encoding, json, protobuf))
    };
    match segments.as_slice() {
        [""] => {
            allowed(is_read)?;
            Ok(Answer::json(api.paths(), true))
        }
        ["apis"] => match negotiate::aggregated_discovery(&parts.headers) {
            Some((version, media)) => {
                allowed(is_get)?;
                Ok(Answer::aggregated(&api.documents, version, media, &parts.headers))
            }
            None => document(&|| discovery::group_list(group), &|| binary::group_list(group)),
        },
        ["apis", name] if *name == group.name => {
            document(&|| discovery::group(group), &|| binary::group(group))
        }
        ["apis", name, version] if *name == group.name && group.versions.contains(version) => {
            document(&|| discovery::resource_list(group, version), &|| {
                binary::resource_list(group, version)
            })
        }
        ["openapi", rest @ ..] => {
            allowed(is_read)?;
            negotiate::document(&parts.headers, &query, &[Media::Json])?;
            openapi_answer(api, rest, &query, &parts.headers).ok_or_else(Status::no_such_path)
        }
        ["version"] => {
            allowed(is_get)?;
            let version = serde_json::to_vec(&api.version).map_err(|error| Status::internal(&error))?;
            Ok(Answer::json(version, true))
        }
        [endpoint @ ("livez" | "readyz" | "healthz"), rest @ ..] => {
            allowed(is_read)?;
            let (well, text) = if rest.is_empty() {
                let exclude: Vec<_> = query.all("exclude").collect();
                health::report(&api.checks, endpoint, query.first("verbose").is_some(), &exclude)
            } else {
                health::report_one(&api.checks, endpoint, &rest.join("/")).ok_or_else(Status::no_such_path)?
            };
            Ok(Answer::text(well, text))
        }
        _ => {
            let path = info.path.as_str();
            let endpoint = api.endpoints.get(path).ok_or_else(Status::no_such_path)?;
            allowed(is_read)?;
            Ok(Answer::json(
                endpoint()?,
                negotiate::wants_pretty(&parts.headers, &query),
            ))
        }
    }
}

fn openapi_answer(api: &Api, rest: &[&str], query: &Query, headers: &HeaderMap) -> Option<Answer> {
    let documents = &api.documents;
    match rest {
        ["v2"] => Some(Answer::tagged(&documents.openapi_v2, headers)),
        ["v3"] => Some(Answer::tagged(&documents.openapi_v3, headers)),
        ["v3", "apis", group, version] if *group == api.group.name => {
            let document = documents.openapi_v3_versions.get(version)?;
            let answer = match query.first("hash") {
                None | Some("") => Answer::tagged(document, headers),
                Some(hash) if hash == document.hash => Answer::tagged(document, headers).with(
                    CACHE_CONTROL,
                    HeaderValue::from_static("public, immutable, max-age=31536000"),
                ),
                Some(_) => {
                    let url = format!("/openapi/v3/apis/{group}/{version}?hash={}", document.hash);
                    Answer::moved(&url)
                }
            };
            Some(answer)
        }
        _ => None,
    }
}

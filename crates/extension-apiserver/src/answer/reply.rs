//! Responses, and the headers that all of them carry.

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, LOCATION, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::binary;
use super::documents::{Documents, Tagged};
use super::negotiate::{Encoding, Media};
use super::pretty::{Indent, Transform as _};
use super::yaml::Yaml;
use crate::body::Body;
use crate::status::Status;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// An answer before what all answers share is added.
pub(super) struct Answer(Response<Body>);

impl Answer {
    fn new(code: StatusCode, content_type: HeaderValue, body: Body) -> Self {
        let mut response = Response::new(body);
        *response.status_mut() = code;
        Self(response).with(CONTENT_TYPE, content_type)
    }

    /// A JSON document that is there as a whole, written in one of the forms of text.
    pub(super) fn text_document(compact: impl Into<Bytes>, encoding: Encoding) -> Self {
        let compact = compact.into();
        let body = match encoding.media {
            Media::Yaml => Yaml::default().part(&compact).into(),
            _ if encoding.pretty => Indent::default().part(&compact).into(),
            _ => compact,
        };
        Self::body(Body::full(body), encoding.media)
    }

    /// A JSON document, indented or not.
    pub(super) fn json(compact: impl Into<Bytes>, pretty: bool) -> Self {
        let media = Media::Json;
        Self::text_document(compact, Encoding { media, pretty })
    }

    /// A document that is there as a whole.
    pub(super) fn document(
        encoding: Encoding,
        json: impl FnOnce() -> Vec<u8>,
        protobuf: impl FnOnce() -> Vec<u8>,
    ) -> Self {
        match encoding.media {
            Media::Protobuf => Self::body(Body::full(protobuf()), Media::Protobuf),
            Media::Json | Media::Yaml => Self::text_document(json(), encoding),
        }
    }

    /// An answer of that kind.
    pub(super) fn body(body: Body, media: Media) -> Self {
        Self::new(StatusCode::OK, HeaderValue::from_static(media.name()), body)
    }

    pub(super) fn refusal(status: &Status, encoding: Encoding) -> Self {
        let json = || {
            let mut json = status.to_json();
            json.push(b'\n');
            json
        };
        let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let answer = Self::document(encoding, json, || binary::status(status)).with_code(code);
        match status
            .details
            .as_ref()
            .and_then(|details| details.retry_after_seconds)
        {
            Some(seconds) => answer.with(RETRY_AFTER, HeaderValue::from(seconds)),
            None => answer,
        }
    }

    pub(super) fn text(well: bool, text: String) -> Self {
        let code = if well {
            StatusCode::OK
        } else {
            StatusCode::INTERNAL_SERVER_ERROR
        };
        Self::new(code, TEXT, Body::full(text))
            .with(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"))
    }

    /// A document that clients may keep: not sent again to whoever has it.
    pub(super) fn tagged(document: &Tagged, headers: &HeaderMap) -> Self {
        let tag = format!("\"{}\"", document.hash);
        let known = headers
            .get(IF_NONE_MATCH)
            .is_some_and(|known| known.as_bytes() == tag.as_bytes());
        let answer = if known {
            let mut response = Response::new(Body::full(Bytes::new()));
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            Self(response)
        } else {
            Self::body(Body::full(document.bytes.clone()), Media::Json)
        };
        // Hexadecimal digits and quotes are fine in a header.
        let answer = answer.with(VARY, HeaderValue::from_static("Accept"));
        match HeaderValue::try_from(tag) {
            Ok(tag) => answer.with(ETAG, tag),
            Err(_) => answer,
        }
    }

    pub(super) fn aggregated(
        documents: &Documents,
        version: &str,
        media: Media,
        headers: &HeaderMap,
    ) -> Self {
        let document = match (version, media) {
            ("v2", Media::Protobuf) => &documents.aggregated_v2_protobuf,
            (_, Media::Protobuf) => &documents.aggregated_v2beta1_protobuf,
            ("v2", _) => &documents.aggregated_v2,
            _ => &documents.aggregated_v2beta1,
        };
        let answer = Self::tagged(document, headers).with(CACHE_CONTROL, HeaderValue::from_static("public"));
        let content_type = format!(
            "{};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList",
            media.name()
        );
        match HeaderValue::try_from(content_type) {
            Ok(content_type) if answer.0.status() != StatusCode::NOT_MODIFIED => {
                answer.with(CONTENT_TYPE, content_type)
            }
            _ => answer,
        }
    }

    pub(super) fn moved(url: &str) -> Self {
        let mut response = Response::new(Body::full(Bytes::new()));
        *response.status_mut() = StatusCode::MOVED_PERMANENTLY;
        match HeaderValue::try_from(url) {
            Ok(url) => Self(response).with(LOCATION, url),
            Err(_) => Self(response),
        }
    }

    pub(super) fn with_code(mut self, code: StatusCode) -> Self {
        *self.0.status_mut() = code;
        self
    }

    pub(super) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers_mut().insert(name, value);
        self
    }

    /// Adds what every answer carries: nothing is kept by caches unless said otherwise, and the identifier that
    /// kube-apiserver's audit log knows the request by comes back.
    pub(super) fn into_response(self, request: &HeaderMap) -> Response<Body> {
        let mut response = self.0;
        let headers = response.headers_mut();
        headers
            .entry(CACHE_CONTROL)
            .or_insert(HeaderValue::from_static("no-cache, private"));
        if let Some(audit_id) = request.get(AUDIT_ID) {
            headers.insert(AUDIT_ID, audit_id.clone());
        }
        response
    }
}

//! `metav1.Status`: how every refusal is answered. Codes, reasons and messages are those of
//! `k8s.io/apimachinery/pkg/api/errors`, so that clients that match on them keep working.

use std::fmt::{self, Display};

use serde::Serialize;

/// A refusal, as clients get it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// HTTP status code.
    pub code: u16,
    /// Machine-readable reason, one of `metav1.StatusReason`; empty where apimachinery sends none.
    pub reason: &'static str,
    /// What a person reads.
    pub message: String,
    /// What it is about.
    pub details: Option<Box<Details>>,
}

/// `metav1.StatusDetails`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Name of the object.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// API group of the resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub group: String,
    /// The resource (apimachinery puts the resource's name here, not the kind).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Single causes, messages only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<Cause>,
    /// Seconds to wait before another try; also sent as the header `Retry-After`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

/// `metav1.StatusCause`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cause {
    /// Machine-readable reason, one of `metav1.CauseType`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: &'static str,
    /// What happened.
    pub message: String,
    /// The field it is about: `spec.replicas`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub field: String,
}

impl Cause {
    /// The value of a field is not allowed.
    #[must_use]
    pub fn invalid(field: &str, found: &dyn Display, expected: &str) -> Self {
        Self {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {found}: {expected}"),
            field: field.to_owned(),
        }
    }

    /// A field has to be there.
    #[must_use]
    pub fn required(field: &str, why: &str) -> Self {
        Self {
            reason: "FieldValueRequired",
            message: format!("Required value: {why}"),
            field: field.to_owned(),
        }
    }
}

impl Status {
    /// 404: `pods.metrics.k8s.io "x" not found`. With an empty `group` the resource stands alone.
    #[must_use]
    pub fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let message = format!("{} {} not found", Qualified { group, resource }, Quoted(name));
        Self::about(404, "NotFound", message, Details::of(group, resource, name))
    }

    /// 404 for a path that leads nowhere.
    #[must_use]
    pub fn no_such_path() -> Self {
        let message = "the server could not find the requested resource".to_owned();
        Self::about(404, "NotFound", message, Details::default())
    }

    /// 401, said without a cause: whoever cannot prove who they are learns nothing.
    #[must_use]
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized".to_owned())
    }

    /// 403. `cause` says who may not do what.
    #[must_use]
    pub fn forbidden(group: &str, resource: &str, name: &str, cause: &str) -> Self {
        let qualified = Qualified { group, resource };
        let message = match (resource.is_empty(), name.is_empty()) {
            (true, _) => format!("forbidden: {cause}"),
            (false, true) => format!("{qualified} is forbidden: {cause}"),
            (false, false) => format!("{qualified} {} is forbidden: {cause}", Quoted(name)),
        };
        Self::about(403, "Forbidden", message, Details::of(group, resource, name))
    }

    /// 400.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message.into())
    }

    /// 405 for a method that no path here knows.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource".to_owned();
        Self::about(405, "MethodNotAllowed", message, Details::default())
    }

    /// 405: `watch is not supported on resources of kind "pods.metrics.k8s.io"`.
    #[must_use]
    pub fn verb_not_supported(group: &str, resource: &str, verb: &str) -> Self {
        let kind = Qualified { group, resource }.to_string();
        let message = format!("{verb} is not supported on resources of kind {}", Quoted(&kind));
        Self::about(405, "MethodNotAllowed", message, Details::of(group, resource, ""))
    }

    /// 406. `served` lists the media types there are.
    #[must_use]
    pub fn not_acceptable(served: &[&str]) -> Self {
        let served = served.join(", ");
        let message = format!("406: Not Acceptable\n\nAvailable representations: {served}");
        Self::about(406, "NotAcceptable", message, Details::default())
    }

    /// 406 for a media type that is served, but not with the parameters asked for.
    #[must_use]
    pub fn form_not_acceptable(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message.into())
    }

    /// 409: there is one of that name already.
    #[must_use]
    pub fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let message = format!(
            "{} {} already exists",
            Qualified { group, resource },
            Quoted(name)
        );
        Self::about(409, "AlreadyExists", message, Details::of(group, resource, name))
    }

    /// 409: the object is not what the client believed it to be.
    #[must_use]
    pub fn conflict(group: &str, resource: &str, name: &str) -> Self {
        let (qualified, quoted) = (Qualified { group, resource }, Quoted(name));
        let message = format!(
            "Operation cannot be fulfilled on {qualified} {quoted}: the object has been modified; please apply your \
             changes to the latest version and try again"
        );
        Self::about(409, "Conflict", message, Details::of(group, resource, name))
    }

    /// 410: what came after that version is not known any more.
    #[must_use]
    pub fn expired(version: u64, oldest: u64) -> Self {
        let message = format!("too old resource version: {version} ({oldest})");
        Self::new(410, "Expired", message)
    }

    /// 415: the body is of none of these media types.
    #[must_use]
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let accepted = accepted.join(", ");
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {accepted}"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 422: the object is not valid, and why.
    #[must_use]
    pub fn invalid(group: &str, kind: &str, name: &str, causes: Vec<Cause>) -> Self {
        let told: Vec<_> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let told = match told.as_slice() {
            [one] => one.clone(),
            several => format!("[{}]", several.join(", ")),
        };
        let resource = kind;
        let message = format!(
            "{} {} is invalid: {told}",
            Qualified { group, resource },
            Quoted(name)
        );
        let details = Details {
            causes,
            ..Details::of(group, kind, name)
        };
        Self::about(422, "Invalid", message, details)
    }

    /// 413: the body is over `limit` bytes.
    #[must_use]
    pub fn too_large(limit: usize) -> Self {
        let message = format!("Request entity is too large: limit is {limit}");
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 429, to be tried again after so many seconds.
    #[must_use]
    pub fn too_many_requests(retry_after_seconds: u32) -> Self {
        let message = "Too many requests, please try again later.".to_owned();
        let details = Details {
            retry_after_seconds: Some(retry_after_seconds),
            ..Details::default()
        };
        Self::about(429, "TooManyRequests", message, details)
    }

    /// 429 of a server that is about to end, to be tried again after so many seconds.
    #[must_use]
    pub fn shutting_down(retry_after_seconds: u32) -> Self {
        Self {
            message: "The apiserver is shutting down, please try again later.".to_owned(),
            ..Self::too_many_requests(retry_after_seconds)
        }
    }

    /// 500. `error` goes to the client: it must hold no secret.
    #[must_use]
    pub fn internal(error: &dyn Display) -> Self {
        let cause = Cause {
            message: error.to_string(),
            ..Cause::default()
        };
        let message = format!("Internal error occurred: {error}");
        Self::about(
            500,
            "InternalError",
            message,
            Details {
                causes: vec![cause],
                ..Details::default()
            },
        )
    }

    /// 503: not now.
    #[must_use]
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message.into())
    }

    /// 504: the answer was not ready in time.
    #[must_use]
    pub fn timeout(message: &str) -> Self {
        Self::about(504, "Timeout", format!("Timeout: {message}"), Details::default())
    }

    /// The JSON document, without a newline at its end.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Empty {}
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Document<'a> {
            kind: &'a str,
            api_version: &'a str,
            metadata: Empty,
            status: &'a str,
            message: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            reason: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            details: Option<&'a Details>,
            code: u16,
        }
        let document = Document {
            kind: "Status",
            api_version: "v1",
            metadata: Empty {},
            status: "Failure",
            message: &self.message,
            reason: self.reason,
            details: self.details.as_deref(),
            code: self.code,
        };
        // Strings and numbers only: there is nothing in it that serde_json could refuse.
        serde_json::to_vec(&document).unwrap_or_default()
    }

    fn new(code: u16, reason: &'static str, message: String) -> Self {
        Self {
            code,
            reason,
            message,
            details: None,
        }
    }

    fn about(code: u16, reason: &'static str, message: String, details: Details) -> Self {
        Self {
            code,
            reason,
            message,
            details: Some(Box::new(details)),
        }
    }
}

impl Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Status {}

impl Details {
    fn of(group: &str, resource: &str, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: resource.to_owned(),
            ..Self::default()
        }
    }
}

/// `resource.group`, or the resource alone in the core group.
pub(crate) struct Qualified<'a> {
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
}

impl Display for Qualified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            "" => f.write_str(self.resource),
            group => write!(f, "{}.{group}", self.resource),
        }
    }
}

/// Go's `%q`: what its messages quote names with.
pub(crate) struct Quoted<'a>(pub(crate) &'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"")?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '\r' => f.write_str("\\r")?,
                '\t' => f.write_str("\\t")?,
                '\u{7}' => f.write_str("\\a")?,
                '\u{8}' => f.write_str("\\b")?,
                '\u{b}' => f.write_str("\\v")?,
                '\u{c}' => f.write_str("\\f")?,
                c if c.is_ascii_control() => write!(f, "\\x{:02x}", u32::from(c))?,
                c => write!(f, "{c}")?,
            }
        }
        f.write_str("\"")
    }
}

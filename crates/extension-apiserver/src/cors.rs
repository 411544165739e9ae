//! Cross-origin requests of browsers, answered as k8s.io/apiserver's `WithCORS` does.

use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use regex::RegexSet;

use crate::body::Body;

const METHODS: HeaderValue = HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE, PATCH");
const HEADERS: HeaderValue = HeaderValue::from_static(
    "Content-Type, Content-Length, Accept-Encoding, X-CSRF-Token, Authorization, X-Requested-With, If-Modified-Since",
);
const EXPOSED: HeaderValue = HeaderValue::from_static("Date");

/// Origins whose scripts may read answers in a browser, by regular expressions.
#[derive(Debug, Clone)]
pub struct CorsOrigins(RegexSet);

impl CorsOrigins {
    /// Those that any of the expressions finds. Each must hold to where the host begins and ends, or else
    /// `https://example.com` would let in `https://example.com.attacker.dev` too (CVE-2022-1996).
    pub fn new<T: AsRef<str>>(expressions: &[T]) -> Result<Self, CorsError> {
        for expression in expressions.iter().map(AsRef::as_ref) {
            let (begins, host) = match expression.rsplit_once("//") {
                Some((_, host)) => (true, host),
                None => (expression.contains('^'), expression),
            };
            if !(begins && host.contains(['$', ':'])) {
                return Err(CorsError::Loose(expression.to_owned()));
            }
        }
        Ok(Self(RegexSet::new(expressions)?))
    }

    /// The origin of a request, if it is one of these.
    pub(crate) fn origin<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        let text = origin.to_str().ok().filter(|text| !text.is_empty())?;
        self.0.is_match(text).then_some(origin)
    }
}

/// Why expressions for origins cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CorsError {
    /// One finds more hosts than it is meant to.
    #[error(
        "{0:?} holds not to where the host begins and ends: expected ^ or // before it, and $ or : after it, as in \
         \"^https://example\\\\.com(:|$)\""
    )]
    Loose(String),
    /// One is no regular expression.
    #[error(transparent)]
    Syntax(#[from] regex::Error),
}

/// The answer to a browser that asks whether it may ask.
pub(crate) fn preflight() -> Response<Body> {
    let mut response = Response::new(Body::full(""));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Tells the browser that scripts of that origin may read this answer.
pub(crate) fn allow(origin: &HeaderValue, headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
        HeaderValue::from_static("true"),
    );
    headers.append(header::VARY, HeaderValue::from_static("Origin"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_found_by_any_expression() {
        let origins = CorsOrigins::new(&[r"^https://a\.example$", r"//b\.example(:|$)"]).unwrap();
        let found = |origin: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, origin.parse().unwrap());
            origins.origin(&headers).is_some()
        };
        for origin in ["https://a.example", "http://b.example", "https://b.example:8443"] {
            assert!(found(origin), "{origin}");
        }
        for origin in [
            "http://a.example",
            "https://a.example.attacker.dev",
            "",
            "null",
            "https://b.example.dev",
        ] {
            assert!(!found(origin), "{origin}");
        }
        assert!(origins.origin(&HeaderMap::new()).is_none());
    }

    #[test]
    fn expressions_hold_to_the_host_and_are_regular() {
        for loose in ["example.com", "^https://example", r"example\.com$", ".*"] {
            let error = CorsOrigins::new(&[loose]).unwrap_err().to_string();
            assert!(
                error.contains(&format!("{loose:?}")) && error.contains("(:|$)"),
                "{error}"
            );
        }
        let error = CorsOrigins::new(&["^https://(example$"]).unwrap_err();
        assert!(matches!(error, CorsError::Syntax(_)), "{error}");
    }
}

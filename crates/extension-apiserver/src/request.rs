//! What a request is about, read from its method and URI alone, as `RequestInfoFactory` of `k8s.io/apiserver` does.
//! The same reading is what is authorized and what is answered.

use http::{Method, Uri};

use crate::selector::FieldSelector;

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestInfo {
    /// Path with its escapes resolved, without the query.
    pub(crate) path: String,
    /// API verb for resources, lower-case method for other paths.
    pub(crate) verb: String,
    /// The resource, if the path leads to one.
    pub(crate) resource: Option<ResourceRequest>,
}

/// The resource part of a request. Missing parts are empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ResourceRequest {
    /// API group.
    pub(crate) group: String,
    /// Version.
    pub(crate) version: String,
    /// Plural name.
    pub(crate) resource: String,
    /// Subresource.
    pub(crate) subresource: String,
    /// Namespace.
    pub(crate) namespace: String,
    /// Name of one object: from the path, or for lists and watches what the field selector asks for.
    pub(crate) name: String,
}

/// Reads method and URI.
pub(crate) fn request_info(method: &Method, uri: &Uri) -> RequestInfo {
    let path = decode(uri.path(), false);
    let (verb, resource) = match resource_request(method, uri, &path) {
        Some((verb, resource)) => (verb.to_owned(), Some(resource)),
        None => (method.as_str().to_ascii_lowercase(), None),
    };
    RequestInfo { path, verb, resource }
}

fn resource_request(method: &Method, uri: &Uri, path: &str) -> Option<(&'static str, ResourceRequest)> {
    let trimmed = path.trim_matches('/');
    let mut parts = trimmed.split('/');
    let group = match parts.next()? {
        "api" => "",
        "apis" => parts.next()?,
        _ => return None,
    };
    let version = parts.next()?;
    let mut parts: &[&str] = &parts.collect::<Vec<_>>();
    let mut verb = match *parts.first()? {
        "proxy" if parts.len() > 1 => "proxy",
        "watch" if parts.len() > 1 => "watch",
        _ => match method.as_str() {
            "POST" => "create",
            "GET" | "HEAD" => "get",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            _ => "",
        },
    };
    if matches!(verb, "proxy" | "watch") {
        parts = parts.get(1..)?;
    }
    let mut namespace = "";
    if let ["namespaces", name, rest @ ..] = parts {
        namespace = name;
        if !matches!(rest, [] | ["status" | "finalize", ..]) {
            parts = rest;
        }
    }
    let part = |at: usize| parts.get(at).copied().unwrap_or_default().to_owned();
    let mut resource = ResourceRequest {
        group: group.to_owned(),
        version: version.to_owned(),
        resource: part(0),
        subresource: if verb == "proxy" { String::new() } else { part(2) },
        namespace: namespace.to_owned(),
        name: part(1),
    };
    if resource.name.is_empty() && verb == "get" {
        let query = Query::of(uri);
        verb = if query.flag("watch") { "watch" } else { "list" };
        // A selector that cannot be read is refused later; until then it names nothing.
        let fields = FieldSelector::parse(query.first("fieldSelector").unwrap_or_default()).ok();
        let name = fields.as_ref().and_then(|fields| fields.exact("metadata.name"));
        if let Some(name) = name.filter(|name| is_path_segment(name)) {
            name.clone_into(&mut resource.name);
        }
    }
    if resource.name.is_empty() && verb == "delete" {
        verb = "deletecollection";
    }
    Some((verb, resource))
}

fn is_path_segment(name: &str) -> bool {
    !matches!(name, "." | "..") && !name.contains(['/', '%'])
}

/// The parameters of a URI's query, escapes resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads the query of a URI.
    pub(crate) fn of(uri: &Uri) -> Self {
        let pairs = uri.query().unwrap_or_default().split('&');
        // A semicolon is no separator, and whatever holds one is dropped: what Go's net/url does.
        let pairs = pairs.filter(|pair| !pair.is_empty() && !pair.contains(';'));
        let read = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name, true), decode(value, true))
        });
        Self(read.collect())
    }

    /// The first value of a parameter.
    pub(crate) fn first(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a parameter.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let pairs = self.0.iter().filter(move |(found, _)| found == name);
        pairs.map(|(_, value)| value.as_str())
    }

    /// A boolean as apimachinery reads it: given, and neither `0` nor `false`.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.first(name)
            .is_some_and(|value| value != "0" && !value.eq_ignore_ascii_case("false"))
    }
}

/// Resolves `%xx`, and `+` in queries. What is no escape stays as it is, what is no UTF-8 is replaced.
fn decode(text: &str, query: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let escaped = match (byte, tail) {
            (b'%', [high, low, tail @ ..]) => hex(*high)
                .zip(hex(*low))
                .map(|(high, low)| (high << 4 | low, tail)),
            _ => None,
        };
        match escaped {
            Some((byte, tail)) => {
                bytes.push(byte);
                rest = tail;
            }
            None if byte == b'+' && query => bytes.push(b' '),
            None => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Case {
        request: String,
        verb: String,
        path: String,
        #[serde(default)]
        resource: Option<[String; 6]>,
    }

    #[test]
    fn requests_are_about_what_kube_apiserver_says() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/apimachinery-0.37/requests.json"
        );
        let cases: Vec<Case> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert!(cases.len() > 250);
        for case in cases {
            let (method, target) = case.request.split_once(' ').unwrap();
            // Only asked of in absolute form, which HTTP/2 has, a path can be empty.
            let uri: Uri = if target.is_empty() {
                "https://host".parse()
            } else {
                target.parse()
            }
            .unwrap();
            let info = request_info(&method.parse().unwrap(), &uri);
            let resource = info.resource.map(|resource| {
                let ResourceRequest {
                    group,
                    version,
                    resource,
                    subresource,
                    namespace,
                    name,
                } = resource;
                [group, version, namespace, resource, name, subresource]
            });
            assert_eq!(
                (info.verb, resource),
                (case.verb, case.resource),
                "{}",
                case.request
            );
            assert!(
                info.path == case.path || case.path.is_empty(),
                "{}: {}",
                case.request,
                info.path
            );
        }
    }

    #[test]
    fn parameters_are_read_as_by_net_url() {
        let query = Query::of(&"/?a=1&a=2&b=x+y%2B%zz&c&d;e=1&=f&%61=3".parse().unwrap());
        assert_eq!(query.all("a").collect::<Vec<_>>(), ["1", "2", "3"]);
        assert_eq!(query.first("b"), Some("x y+%zz"));
        assert!(query.flag("c") && !query.flag("e") && !query.flag("g"));
        assert_eq!(query.first(""), Some("f"));
    }
}

//! Which form of an answer a client accepts, by the rules of `k8s.io/apiserver`.

use http::HeaderMap;
use http::header::{ACCEPT, USER_AGENT};

use crate::request::Query;
use crate::status::Status;

/// What resources and discovery are served as.
pub(super) const SERVED: &[&str] = &["application/json"];

/// What an object or a list is turned into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Nothing: the resource's own kind.
    Own,
    /// `Table` of this version of `meta.k8s.io`.
    Table(&'static str),
    /// `PartialObjectMetadata`.
    Metadata(&'static str),
    /// `PartialObjectMetadataList`.
    MetadataList(&'static str),
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) form: Form,
    pub(super) pretty: bool,
}

/// Chooses the form of a resource's answer.
pub(super) fn resource_form(headers: &HeaderMap, query: &Query) -> Result<Accepted, Status> {
    let header = accept(headers);
    let clauses = clauses(&header);
    let pretty = wants_pretty(headers, query);
    if header.is_empty() {
        let form = Form::Own;
        return Ok(Accepted { form, pretty });
    }
    if !clauses.iter().any(Clause::names_served_type) {
        return Err(Status::not_acceptable(SERVED));
    }
    let mut accepted = clauses
        .iter()
        .filter(|clause| clause.covers_json())
        .filter_map(Clause::accepted);
    accepted
        .next()
        .map(|accepted| Accepted {
            pretty: accepted.pretty || pretty,
            ..accepted
        })
        .ok_or_else(|| {
            let served = SERVED.join(", ");
            Status::form_not_acceptable(format!("only the following media types are accepted: {served}"))
        })
}

/// Checks that a document without other forms is acceptable.
pub(super) fn document(headers: &HeaderMap) -> Result<(), Status> {
    let header = accept(headers);
    if header.is_empty() || clauses(&header).iter().any(Clause::names_served_type) {
        return Ok(());
    }
    Err(Status::not_acceptable(SERVED))
}

/// The version of aggregated discovery that is asked for, if any.
pub(super) fn aggregated_discovery(headers: &HeaderMap) -> Option<&'static str> {
    let header = accept(headers);
    clauses(&header)
        .iter()
        .filter(|clause| clause.covers_json())
        .find_map(|clause| match clause.conversion()? {
            ("apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList") => Some("v2"),
            ("apidiscovery.k8s.io", "v2beta1", "APIGroupDiscoveryList") => Some("v2beta1"),
            _ => None,
        })
}

/// Whether the answer is for a person: `?pretty`, or a browser, curl or Wget without it.
pub(super) fn wants_pretty(headers: &HeaderMap, query: &Query) -> bool {
    match query.first("pretty").filter(|pretty| !pretty.is_empty()) {
        Some(pretty) => matches!(pretty, "1" | "t" | "T" | "TRUE" | "true" | "True"),
        None => wants_pretty_by_agent(headers),
    }
}

/// Whether the client is one that people read from.
pub(super) fn wants_pretty_by_agent(headers: &HeaderMap) -> bool {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok());
    agent.is_some_and(|agent| {
        ["curl", "Wget", "Mozilla/5.0"]
            .iter()
            .any(|known| agent.starts_with(known))
    })
}

fn accept(headers: &HeaderMap) -> String {
    let values = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values.collect::<Vec<_>>().join(",")
}

#[derive(Debug, Clone, PartialEq)]
struct Clause<'a> {
    kind: &'a str,
    subtype: &'a str,
    quality: f32,
    parameters: Vec<(&'a str, &'a str)>,
}

fn clauses(header: &str) -> Vec<Clause<'_>> {
    let mut clauses: Vec<_> = header.split(',').filter_map(Clause::parse).collect();
    let wildcards =
        |clause: &Clause<'_>| usize::from(clause.kind == "*") + usize::from(clause.subtype == "*");
    // Stable: among equals the client's order counts.
    clauses.sort_by(|a, b| {
        b.quality
            .total_cmp(&a.quality)
            .then(wildcards(a).cmp(&wildcards(b)))
    });
    clauses
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';');
        let media_type = parts.next()?.trim();
        let (kind, subtype) = match media_type.split_once('/') {
            Some((kind, subtype)) => (kind.trim(), subtype.trim()),
            None if media_type == "*" => ("*", "*"),
            None => return None,
        };
        let parameters: Vec<_> = parts
            .filter_map(|parameter| parameter.split_once('='))
            .map(|(name, value)| (name.trim(), value.trim()))
            .collect();
        let quality = parameters.iter().find(|(name, _)| *name == "q");
        let quality = quality.map_or(1.0, |(_, value)| value.parse().unwrap_or(0.0));
        // A quality of zero says "not this".
        (!subtype.contains('/') && quality > 0.0).then_some(Self {
            kind,
            subtype,
            quality,
            parameters,
        })
    }

    /// Whether the router of k8s.io/apiserver would let the clause through: full wildcard or a type by name.
    fn names_served_type(&self) -> bool {
        matches!((self.kind, self.subtype), ("*", "*") | ("application", "json"))
    }

    fn covers_json(&self) -> bool {
        self.names_served_type() || (self.kind, self.subtype) == ("application", "*")
    }

    fn parameter(&self, name: &str) -> Option<&'a str> {
        let mut named = self.parameters.iter().filter(|(found, _)| *found == name);
        named.next_back().map(|(_, value)| *value)
    }

    /// Group, version and kind to convert to; `None` when no conversion is asked for.
    fn conversion(&self) -> Option<(&'a str, &'a str, &'a str)> {
        let (group, version, kind) = (self.parameter("g"), self.parameter("v"), self.parameter("as"));
        (group.is_some() || version.is_some() || kind.is_some()).then(|| {
            let [group, version, kind] = [group, version, kind].map(Option::unwrap_or_default);
            (group, version, kind)
        })
    }

    fn accepted(&self) -> Option<Accepted> {
        if !matches!(self.parameter("stream"), None | Some("" | "watch"))
            || !matches!(self.parameter("sv"), None | Some("" | "v1"))
        {
            return None;
        }
        let form = match self.conversion() {
            None => Form::Own,
            Some(("meta.k8s.io", version, kind)) => {
                let version = ["v1", "v1beta1"].into_iter().find(|known| *known == version)?;
                match kind {
                    "Table" => Form::Table(version),
                    "PartialObjectMetadata" => Form::Metadata(version),
                    "PartialObjectMetadataList" => Form::MetadataList(version),
                    _ => return None,
                }
            }
            Some(_) => return None,
        };
        let pretty = self.parameter("pretty") == Some("1");
        Some(Accepted { form, pretty })
    }
}

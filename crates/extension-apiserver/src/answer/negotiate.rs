//! Which form of an answer a client accepts, by the rules of `k8s.io/apiserver`.

use http::HeaderMap;
use http::header::{ACCEPT, USER_AGENT};

use crate::request::Query;
use crate::resource::ResourceInfo;
use crate::status::Status;

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Media {
    Json,
    Yaml,
    Protobuf,
}

impl Media {
    /// All, preferred first.
    pub(super) const ALL: [Self; 3] = [Self::Json, Self::Yaml, Self::Protobuf];
    /// What is not there for resources that have no form in protobuf.
    pub(super) const TEXT: [Self; 2] = [Self::Json, Self::Yaml];

    /// What a resource is served as.
    pub(super) fn of(info: &ResourceInfo) -> &'static [Self] {
        if info.protobuf { &Self::ALL } else { &Self::TEXT }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    fn subtype(self) -> &'static str {
        self.name().trim_start_matches("application/")
    }
}

/// How one answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Encoding {
    pub(super) media: Media,
    /// Whether JSON is indented.
    pub(super) pretty: bool,
}

fn names(served: &[Media]) -> Vec<&'static str> {
    served.iter().map(|media| media.name()).collect()
}

/// What the router of k8s.io/apiserver says when nothing that is served is named. For resources it counts the forms of
/// watches too, also where there is no watch.
fn not_served(served: &[Media], watches: bool) -> Status {
    let mut names: Vec<_> = names(served).into_iter().map(str::to_owned).collect();
    if watches {
        let streamed = served.iter().filter(|media| **media != Media::Yaml);
        names.extend(streamed.map(|media| format!("{};stream=watch", media.name())));
    }
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    Status::not_acceptable(&names)
}

fn not_in_that_form(served: &[Media]) -> Status {
    let served = names(served).join(", ");
    Status::form_not_acceptable(format!("only the following media types are accepted: {served}"))
}

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

/// What is answered to a request for a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) form: Form,
    pub(super) encoding: Encoding,
}

/// Chooses the form of a resource's answer.
pub(super) fn resource_form(
    headers: &HeaderMap,
    query: &Query,
    served: &[Media],
) -> Result<Accepted, Status> {
    let header = accept(headers);
    let clauses = clauses(&header);
    let pretty = wants_pretty(headers, query);
    if header.is_empty() {
        let (form, media) = (Form::Own, Media::Json);
        let encoding = Encoding { media, pretty };
        return Ok(Accepted { form, encoding });
    }
    if !clauses.iter().any(|clause| clause.is_served(served)) {
        return Err(not_served(served, true));
    }
    let mut accepted = clauses.iter().flat_map(|clause| {
        let covered = served.iter().filter(|media| clause.covers(**media));
        covered.filter_map(|media| clause.accepted(*media))
    });
    let mut accepted = accepted.next().ok_or_else(|| not_in_that_form(served))?;
    accepted.encoding.pretty |= pretty;
    Ok(accepted)
}

/// How a document without other forms is written.
pub(super) fn document(headers: &HeaderMap, query: &Query, served: &[Media]) -> Result<Encoding, Status> {
    let header = accept(headers);
    let clauses = clauses(&header);
    if !header.is_empty() && !clauses.iter().any(|clause| clause.is_served(served)) {
        return Err(not_served(served, false));
    }
    let media = plain(&header, &clauses, served).ok_or_else(|| not_in_that_form(served))?;
    let pretty = wants_pretty(headers, query);
    Ok(Encoding { media, pretty })
}

/// How a refusal is written. Whatever is asked for, it is told.
pub(super) fn refusal(headers: &HeaderMap, pretty: bool) -> Encoding {
    let header = accept(headers);
    let media = plain(&header, &clauses(&header), &Media::ALL).unwrap_or(Media::Json);
    Encoding { media, pretty }
}

/// The first that is accepted as it is.
fn plain(header: &str, clauses: &[Clause<'_>], served: &[Media]) -> Option<Media> {
    if header.is_empty() {
        return Some(Media::Json);
    }
    let mut plain = clauses.iter().filter(|clause| clause.conversion().is_none());
    plain.find_map(|clause| served.iter().copied().find(|media| clause.covers(*media)))
}

/// The version and encoding of aggregated discovery that are asked for, if any.
pub(super) fn aggregated_discovery(headers: &HeaderMap) -> Option<(&'static str, Media)> {
    let header = accept(headers);
    clauses(&header).iter().find_map(|clause| {
        let version = match clause.conversion()? {
            ("apidiscovery.k8s.io", "v2", "APIGroupDiscoveryList") => "v2",
            ("apidiscovery.k8s.io", "v2beta1", "APIGroupDiscoveryList") => "v2beta1",
            _ => return None,
        };
        let mut served = [Media::Json, Media::Protobuf].into_iter();
        Some((version, served.find(|media| clause.covers(*media))?))
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
    fn is_served(&self, served: &[Media]) -> bool {
        let named = |media: &Media| self.kind == "application" && self.subtype == media.subtype();
        (self.kind, self.subtype) == ("*", "*") || served.iter().any(named)
    }

    fn covers(&self, media: Media) -> bool {
        self.is_served(&[media]) || (self.kind, self.subtype) == ("application", "*")
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

    fn accepted(&self, media: Media) -> Option<Accepted> {
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
                    "Table" if media != Media::Protobuf => Form::Table(version),
                    "PartialObjectMetadata" => Form::Metadata(version),
                    "PartialObjectMetadataList" => Form::MetadataList(version),
                    _ => return None,
                }
            }
            Some(_) => return None,
        };
        let pretty = self.parameter("pretty") == Some("1");
        let encoding = Encoding { media, pretty };
        Some(Accepted { form, encoding })
    }
}

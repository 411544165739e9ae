//! `/metrics`: `OpenMetrics` for those who ask for it, and for everybody else the text format 0.0.4, printed as Go's client
//! library prints it. prometheus-client writes only the former; the latter is made of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Response, request};
use prometheus_client::registry::Registry;

use crate::body::Body;
use crate::status::Status;

const OPENMETRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Answers `/metrics`.
pub(super) fn respond(registry: &Registry, parts: &request::Parts) -> Result<Response<Body>, Status> {
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Err(Status::method_not_allowed());
    }
    let mut page = String::new();
    prometheus_client::encoding::text::encode(&mut page, registry)
        .map_err(|error| Status::internal(&format_args!("failed to print the metrics: {error}")))?;
    let content_type = if wants_openmetrics(&parts.headers) {
        OPENMETRICS
    } else {
        page = text(&page);
        TEXT
    };
    let mut response = Response::new(Body::full(page));
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    Ok(response)
}

/// Whether `OpenMetrics` is named and nothing that comes here is named with a higher quality. A wildcard is no name.
fn wants_openmetrics(headers: &HeaderMap) -> bool {
    let (mut openmetrics, mut text) = (0.0_f32, 0.0_f32);
    let values = headers.get_all(ACCEPT).iter();
    for clause in values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
    {
        let mut parts = clause.split(';').map(str::trim);
        let media_type = parts.next().unwrap_or_default();
        let (mut quality, mut version) = (1.0, "");
        for (name, value) in parts.filter_map(|parameter| parameter.split_once('=')) {
            match name {
                "q" => quality = value.parse().unwrap_or(0.0),
                "version" => version = value,
                _ => {}
            }
        }
        match (media_type, version) {
            ("application/openmetrics-text", "" | "0.0.1" | "1.0.0") => {
                openmetrics = openmetrics.max(quality);
            }
            ("text/plain", "" | "0.0.4") => text = text.max(quality),
            _ => {}
        }
    }
    openmetrics > 0.0 && openmetrics >= text
}

/// The page in the text format 0.0.4: families by name, in them series by labels, as in Go.
fn text(openmetrics: &str) -> String {
    let mut families = BTreeMap::<&str, Family<'_>>::new();
    let mut current = "";
    for line in openmetrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            let (name, help) = described.split_once(' ').unwrap_or((described, ""));
            current = name;
            // prometheus-client has put the full stop there.
            families.entry(name).or_default().help = help.strip_suffix('.').unwrap_or(help);
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').unwrap_or((typed, ""));
            families.entry(name).or_default().kind = kind;
        } else if !line.starts_with('#')
            && let Some(sample) = Sample::parse(line)
        {
            families.entry(current).or_default().add(current, sample);
        }
    }
    let mut out = String::with_capacity(openmetrics.len());
    for (name, family) in families {
        family.print(name, &mut out);
    }
    out
}

#[derive(Debug, Default)]
struct Family<'a> {
    help: &'a str,
    kind: &'a str,
    /// By labels without `le`; each with its lines in the order that they are printed in.
    series: BTreeMap<String, Vec<(u8, String)>>,
}

impl<'a> Family<'a> {
    fn add(&mut self, family: &str, sample: Sample<'a>) {
        let order = match sample.name.strip_prefix(family) {
            Some("_sum") => 1,
            Some("_count") => 2,
            _ => 0,
        };
        let (le, mut labels): (Vec<_>, Vec<_>) =
            sample.labels.into_iter().partition(|(name, _)| *name == "le");
        labels.sort_unstable();
        let print = |labels: &[(&str, &str)]| {
            let labels = labels.iter().map(|(name, value)| format!("{name}=\"{value}\""));
            labels.collect::<Vec<_>>().join(",")
        };
        let key = print(&labels);
        let bound = le.first().map(|(_, bound)| number(bound));
        labels.extend(bound.as_deref().map(|bound| ("le", bound)));
        let mut line = sample.name.to_owned();
        if !labels.is_empty() {
            // Writing to a String does not fail.
            let _ = write!(line, "{{{}}}", print(&labels));
        }
        let _ = write!(line, " {}", number(sample.value));
        self.series.entry(key).or_default().push((order, line));
    }

    fn print(self, name: &str, out: &mut String) {
        if self.series.is_empty() {
            return;
        }
        let (kind, suffix) = match self.kind {
            "counter" => ("counter", "_total"),
            "info" => ("gauge", "_info"),
            "stateset" => ("gauge", ""),
            "unknown" | "" => ("untyped", ""),
            kind => (kind, ""),
        };
        let help = self.help;
        let _ = writeln!(out, "# HELP {name}{suffix} {help}\n# TYPE {name}{suffix} {kind}");
        for (_, mut lines) in self.series {
            // Stable: buckets stay in their order.
            lines.sort_by_key(|(order, _)| *order);
            for (_, line) in lines {
                let _ = writeln!(out, "{line}");
            }
        }
    }
}

#[derive(Debug)]
struct Sample<'a> {
    name: &'a str,
    /// Values as they are escaped.
    labels: Vec<(&'a str, &'a str)>,
    value: &'a str,
}

impl<'a> Sample<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, mut rest) = line.split_at_checked(end)?;
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while !rest.starts_with('}') {
                let (label, after) = rest.split_once("=\"")?;
                let end = end_of_value(after)?;
                labels.push((label.trim_start_matches(','), after.get(..end)?));
                rest = after.get(end + 1..)?;
            }
            rest = rest.strip_prefix('}')?;
        }
        // What may follow the value is a timestamp or an exemplar.
        let value = rest.split_ascii_whitespace().next()?;
        Some(Self { name, labels, value })
    }
}

/// Where the quote is that ends a label's value.
fn end_of_value(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let end = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        end
    })
}

/// A number as Go's `strconv.FormatFloat(f, 'g', -1, 64)` prints it.
fn number(text: &str) -> String {
    let Ok(number) = text.parse::<f64>() else {
        return text.to_owned();
    };
    if !number.is_finite() {
        return match (number.is_nan(), number > 0.0) {
            (true, _) => "NaN",
            (false, true) => "+Inf",
            (false, false) => "-Inf",
        }
        .to_owned();
    }
    let scientific = format!("{number:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        format!("{number}")
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_printed_as_go_prints_it() {
        let openmetrics = r#"# HELP b_request Requests answered.
# TYPE b_request counter
b_request_total{verb="list",code="200"} 3
b_request_total{code="404",verb="get"} 1234567
# HELP a_duration_seconds How long.
# TYPE a_duration_seconds histogram
# UNIT a_duration_seconds seconds
a_duration_seconds_sum{node="a\"}, b"} 0.25
a_duration_seconds_count{node="a\"}, b"} 2
a_duration_seconds_bucket{le="0.001",node="a\"}, b"} 0
a_duration_seconds_bucket{le="1.0",node="a\"}, b"} 1
a_duration_seconds_bucket{le="+Inf",node="a\"}, b"} 2 # {trace="x"} 1.0
# HELP c_empty Nothing yet.
# TYPE c_empty gauge
# HELP d_time When.
# TYPE d_time gauge
d_time 1795597330.5
# HELP e_build About this.
# TYPE e_build info
e_build_info{version="1"} 1
# EOF
"#;
        let expected = r#"# HELP a_duration_seconds How long
# TYPE a_duration_seconds histogram
a_duration_seconds_bucket{node="a\"}, b",le="0.001"} 0
a_duration_seconds_bucket{node="a\"}, b",le="1"} 1
a_duration_seconds_bucket{node="a\"}, b",le="+Inf"} 2
a_duration_seconds_sum{node="a\"}, b"} 0.25
a_duration_seconds_count{node="a\"}, b"} 2
# HELP b_request_total Requests answered
# TYPE b_request_total counter
b_request_total{code="200",verb="list"} 3
b_request_total{code="404",verb="get"} 1.234567e+06
# HELP d_time When
# TYPE d_time gauge
d_time 1.7955973305e+09
# HELP e_build_info About this
# TYPE e_build_info gauge
e_build_info{version="1"} 1
"#;
        assert_eq!(text(openmetrics), expected);
    }

    #[test]
    fn numbers_are_printed_as_by_strconv() {
        for (number_, printed) in [
            ("0.0", "0"),
            ("1.0", "1"),
            ("0.005", "0.005"),
            ("100000", "100000"),
            ("1000000.0", "1e+06"),
            ("0.0001", "0.0001"),
            ("0.00001", "1e-05"),
            ("123456.5", "123456.5"),
            ("-2.5", "-2.5"),
            ("364.3129", "364.3129"),
            ("inf", "+Inf"),
            ("NaN", "NaN"),
        ] {
            assert_eq!(number(number_), printed);
        }
    }

    #[test]
    fn openmetrics_is_for_those_who_ask_for_it() {
        let prometheus = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
                          application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,\
                          text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for (accept, openmetrics) in [
            (prometheus, true),
            ("application/openmetrics-text", true),
            (
                "text/plain;version=0.0.4, application/openmetrics-text;q=0.5",
                false,
            ),
            ("application/openmetrics-text;version=2.0.0, */*", false),
            ("application/openmetrics-text;q=0", false),
            ("*/*", false),
            ("text/plain", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(wants_openmetrics(&headers), openmetrics, "{accept}");
        }
        assert!(!wants_openmetrics(&HeaderMap::new()));
    }

    proptest::proptest! {
        #[test]
        fn every_sample_is_kept(
            values in proptest::collection::btree_map("[ -~]{0,8}", 0_u32..2_000_000, 0..8),
        ) {
            let mut openmetrics = "# HELP a A.\n# TYPE a gauge\n".to_owned();
            for (label, value) in &values {
                let label = label.replace('\\', "\\\\").replace('"', "\\\"");
                let _ = writeln!(openmetrics, "a{{l=\"{label}\"}} {value}");
            }
            let page = text(&openmetrics);
            let found = page.lines().filter(|line| !line.starts_with('#'));
            let mut found: Vec<_> = found.map(|line| line.rsplit_once(' ').unwrap().1.to_owned()).collect();
            let mut expected: Vec<_> = values.values().map(|value| number(&value.to_string())).collect();
            found.sort();
            expected.sort();
            proptest::prop_assert_eq!(found, expected);
        }
    }
}

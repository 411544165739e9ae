//! The parameters of lists and watches, checked as `ValidateListOptions` of `k8s.io/apimachinery` does.

use std::num::IntErrorKind;

use crate::request::Query;
use crate::selector::{FieldSelector, LabelSelector, Selection};
use crate::status::{Cause, Quoted, Status};

/// Checks the parameters, and reads which objects are wanted.
pub(super) fn read(query: &Query, watch: bool) -> Result<Selection, Status> {
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
    let labels = LabelSelector::parse(labels).map_err(Status::bad_request)?;
    let fields = query.first("fieldSelector").unwrap_or_default();
    let fields = FieldSelector::parse(fields).map_err(Status::bad_request)?;
    let causes = if watch { of_watch(query) } else { of_list(query) };
    if !causes.is_empty() {
        return Err(invalid(causes));
    }
    let fields = fields.of_objects().map_err(Status::bad_request)?;
    Ok(Selection { labels, fields })
}

/// 422 for parameters.
pub(super) fn invalid(causes: Vec<Cause>) -> Status {
    Status::invalid("meta.k8s.io", "ListOptions", "", causes)
}

fn forbidden(field: &str, why: &str) -> Cause {
    Cause {
        reason: "FieldValueForbidden",
        message: format!("Forbidden: {why}"),
        field: field.to_owned(),
    }
}

fn unsupported(field: &str, found: &str, supported: &[&str]) -> Cause {
    let supported: Vec<_> = supported.iter().map(|value| Quoted(value).to_string()).collect();
    Cause {
        reason: "FieldValueNotSupported",
        message: format!(
            "Unsupported value: {}: supported values: {}",
            Quoted(found),
            supported.join(", ")
        ),
        field: field.to_owned(),
    }
}

const MATCH: &str = "resourceVersionMatch";
const NOT_WITH_CONTINUE: &str = "resourceVersionMatch is forbidden when continue is provided";

/// A parameter that is given and not empty.
fn given<'a>(query: &'a Query, name: &str) -> Option<&'a str> {
    query.first(name).filter(|value| !value.is_empty())
}

fn of_list(query: &Query) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(matching) = given(query, MATCH) {
        let version = given(query, "resourceVersion");
        if version.is_none() {
            causes.push(forbidden(
                MATCH,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ));
        }
        if given(query, "continue").is_some() {
            causes.push(forbidden(MATCH, NOT_WITH_CONTINUE));
        }
        if !matches!(matching, "Exact" | "NotOlderThan") {
            causes.push(unsupported(MATCH, matching, &["Exact", "NotOlderThan", ""]));
        }
        if matching == "Exact" && version == Some("0") {
            causes.push(forbidden(
                MATCH,
                "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ));
        }
    }
    if given(query, "sendInitialEvents").is_some() {
        causes.push(forbidden(
            "sendInitialEvents",
            "sendInitialEvents is forbidden for list",
        ));
    }
    causes
}

fn of_watch(query: &Query) -> Vec<Cause> {
    let mut causes = Vec::new();
    let (matching, initial) = (given(query, MATCH), given(query, "sendInitialEvents"));
    if initial.is_some() && matching != Some("NotOlderThan") {
        causes.push(forbidden(
            MATCH,
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ));
    }
    if let Some(matching) = matching {
        if initial.is_none() {
            causes.push(forbidden(
                MATCH,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            ));
        }
        if matching != "NotOlderThan" {
            causes.push(unsupported(MATCH, matching, &["NotOlderThan"]));
        }
        if given(query, "continue").is_some() {
            causes.push(forbidden(MATCH, NOT_WITH_CONTINUE));
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(parameters: &str, watch: bool) -> String {
        let query = Query::of(&format!("/?{parameters}").parse().unwrap());
        match read(&query, watch) {
            Ok(_) => String::new(),
            Err(status) => {
                assert_eq!((status.code, status.reason), (422, "Invalid"));
                let message = status
                    .message
                    .strip_prefix("ListOptions.meta.k8s.io \"\" is invalid: ");
                message.unwrap().to_owned()
            }
        }
    }

    #[test]
    fn combinations_are_refused_as_by_apimachinery() {
        for (parameters, expected) in [
            ("", ""),
            ("resourceVersion=0&resourceVersionMatch=NotOlderThan", ""),
            ("resourceVersionMatch=&sendInitialEvents=", ""),
            (
                "resourceVersionMatch=Exact",
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            (
                "resourceVersionMatch=Exact&resourceVersion=0",
                "resourceVersionMatch: Forbidden: resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
            ),
            (
                "resourceVersionMatch=x&resourceVersion=1&continue=y",
                "[resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden when continue is provided, \
                 resourceVersionMatch: Unsupported value: \"x\": supported values: \"Exact\", \"NotOlderThan\", \"\"]",
            ),
            (
                "sendInitialEvents=true",
                "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list",
            ),
        ] {
            assert_eq!(told(parameters, false), expected, "{parameters}");
        }
        for (parameters, expected) in [
            ("", ""),
            ("sendInitialEvents=false&resourceVersionMatch=NotOlderThan", ""),
            (
                "sendInitialEvents=true",
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
            (
                "resourceVersionMatch=NotOlderThan",
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents \
                 is provided",
            ),
            (
                "resourceVersionMatch=Exact&sendInitialEvents=true",
                "[resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to \
                 NotOlderThan, resourceVersionMatch: Unsupported value: \"Exact\": supported values: \"NotOlderThan\"]",
            ),
        ] {
            assert_eq!(told(parameters, true), expected, "{parameters}");
        }
    }
}

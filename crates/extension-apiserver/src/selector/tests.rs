//! Selectors held against what apimachinery makes of them.

use jiff::Timestamp;
use proptest::prelude::*;
use serde::Deserialize;

use super::{FieldSelector, LabelSelector};
use crate::json::{JsonArray, JsonObject};
use crate::resource::Item;

#[derive(Deserialize)]
struct Case {
    selector: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    matches: String,
}

fn corpus(name: &str) -> Vec<Case> {
    let path = format!(
        "{}/tests/fixtures/apimachinery-0.37/{name}",
        env!("CARGO_MANIFEST_DIR")
    );
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn digits(matches: impl Iterator<Item = bool>) -> String {
    matches.map(|matches| if matches { '1' } else { '0' }).collect()
}

const LABELS: [&[(&str, &str)]; 8] = [
    &[],
    &[("a", "")],
    &[("a", "b")],
    &[("a", "c"), ("tier", "control-plane")],
    &[("a", "5")],
    &[("a", "-3"), ("in", "x")],
    &[("example.com/x", "y"), ("b", "c")],
    &[("notin", "in"), ("a", "10")],
];

#[test]
fn label_selectors_mean_what_apimachinery_says() {
    let cases = corpus("label-selectors.json");
    assert!(cases.len() > 400);
    for case in cases {
        let (error, matches) = match LabelSelector::parse(&case.selector) {
            Err(error) => (error, String::new()),
            Ok(selector) => {
                let lookup = |set: &&[(&str, &'static str)], key: &str| {
                    set.iter()
                        .find(|(found, _)| *found == key)
                        .map(|(_, value)| *value)
                };
                let matches = digits(LABELS.iter().map(|set| selector.matches(|key| lookup(set, key))));
                (String::new(), matches)
            }
        };
        assert_eq!(
            (error, matches),
            (case.error, case.matches),
            "{:?}",
            case.selector
        );
    }
}

struct Object(&'static str, &'static str);

impl Item for Object {
    fn name(&self) -> &str {
        self.0
    }
    fn namespace(&self) -> Option<&str> {
        Some(self.1).filter(|namespace| !namespace.is_empty())
    }
    fn label(&self, _: &str) -> Option<&str> {
        None
    }
    fn visit_labels(&self, _: &mut dyn FnMut(&str, &str)) {}
    fn creation_timestamp(&self) -> Option<Timestamp> {
        None
    }
    fn write_fields(&self, _: &mut JsonObject<'_>) {}
    fn write_cells(&self, _: &mut JsonArray<'_>) {}
}

#[test]
fn field_selectors_mean_what_apimachinery_says() {
    let objects = [
        Object("a", "n"),
        Object("b", "n"),
        Object("a", ""),
        Object("a,b", "m"),
    ];
    let cases = corpus("field-selectors.json");
    assert!(cases.len() > 150);
    for case in cases {
        let read = FieldSelector::parse(&case.selector).and_then(FieldSelector::of_objects);
        let (error, matches) = match read {
            Err(error) => (error, String::new()),
            Ok(fields) => (
                String::new(),
                digits(objects.iter().map(|object| fields.matches(object))),
            ),
        };
        assert_eq!(
            (error, matches),
            (case.error, case.matches),
            "{:?}",
            case.selector
        );
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(text in ".*", near in "[a!=,<>() in\\\\]{0,20}") {
        for text in [text, near] {
            let _ = LabelSelector::parse(&text);
            let _ = FieldSelector::parse(&text).and_then(FieldSelector::of_objects);
        }
    }

    #[test]
    fn what_selects_a_value_finds_it_and_nothing_else(
        key in "[a-z]([a-z0-9.-]{0,20}[a-z0-9])?",
        value in "[a-zA-Z0-9]([a-zA-Z0-9_.-]{0,20}[a-zA-Z0-9])?",
        other in "[a-zA-Z0-9]{1,9}",
    ) {
        prop_assume!(value != other);
        let matches = |selector: String, found: Option<&str>| {
            LabelSelector::parse(&selector).unwrap().matches(|asked| found.filter(|_| asked == key))
        };
        for equal in [format!("{key}={value}"), format!("{key} == {value}"), format!("{key} in ({value},)")] {
            prop_assert!(matches(equal.clone(), Some(&value)));
            prop_assert!(!matches(equal.clone(), Some(&other)));
            prop_assert!(!matches(equal, None));
        }
        for unequal in [format!("{key}!={value}"), format!("{key} notin ({value})")] {
            prop_assert!(!matches(unequal.clone(), Some(&value)));
            prop_assert!(matches(unequal.clone(), Some(&other)));
            prop_assert!(matches(unequal, None));
        }
    }
}

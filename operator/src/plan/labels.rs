//! Checks label selectors, which end up in a flag of metrics-api and in a Pod: what is wrong there would stop both.

use std::collections::BTreeMap;

/// Longest name and longest value of a label.
const LONGEST: usize = 63;
/// Longest prefix of a label's name.
const LONGEST_PREFIX: usize = 253;

/// The first label that is none, in words.
pub(super) fn fault(labels: &BTreeMap<String, String>) -> Option<String> {
    labels
        .iter()
        .find(|(key, value)| !is_key(key) || !(value.is_empty() || is_name(value)))
        .map(|(key, value)| format!("found {key:?}: {value:?}"))
}

fn is_key(key: &str) -> bool {
    match key.split_once('/') {
        Some((prefix, name)) => is_prefix(prefix) && is_name(name),
        None => is_name(key),
    }
}

fn is_name(name: &str) -> bool {
    name.len() <= LONGEST && is_framed(name, |byte| byte.is_ascii_alphanumeric(), b"-_.")
}

/// A DNS name, in lower case.
fn is_prefix(prefix: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    prefix.len() <= LONGEST_PREFIX && prefix.split('.').all(|part| is_framed(part, letter, b"-"))
}

/// Letters at both ends; letters and others between.
fn is_framed(text: &str, letter: impl Fn(u8) -> bool, others: &[u8]) -> bool {
    let ends = [text.bytes().next(), text.bytes().last()];
    ends.into_iter().all(|end| end.is_some_and(&letter))
        && text.bytes().all(|byte| letter(byte) || others.contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(key: &str, value: &str) -> Option<String> {
        fault(&BTreeMap::from([(key.to_owned(), value.to_owned())]))
    }

    #[test]
    fn labels_are_taken() {
        for (key, value) in [
            ("a", ""),
            ("zone", "on"),
            ("node-role.kubernetes.io/control-plane", ""),
            ("a_B.c-9", "1.2_3-x"),
            (&"k".repeat(63), &"v".repeat(63)),
        ] {
            assert_eq!(found(key, value), None);
        }
    }

    #[test]
    fn what_is_no_label_is_named() {
        for (key, value) in [
            ("", "a"),
            ("a b", "c"),
            ("a", "b,c=d"),
            ("a", "-b"),
            ("/a", "b"),
            ("a/", "b"),
            ("a/b/c", "d"),
            ("UPPER.example/a", "b"),
            ("a..b/c", "d"),
            (&"k".repeat(64), ""),
            ("a", &"v".repeat(64)),
        ] {
            let found = found(key, value).unwrap();
            assert!(found.contains(&format!("{key:?}: {value:?}")), "{found}");
        }
    }
}

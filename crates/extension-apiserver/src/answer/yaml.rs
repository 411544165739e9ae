//! JSON turned into YAML as it passes by.
//!
//! Readers differ in what a plain scalar is: YAML 1.1, which most of Kubernetes' world reads, takes `on`, `y`, `1_000`
//! and `1:30` for something else than a string. So only strings that no reader takes for anything else stand plain, and
//! all others in quotes, where JSON's escapes are YAML's.

use std::fmt::Write as _;

use super::pretty::Transform;

/// Turns one compact JSON document, given in parts cut anywhere, into YAML's block style.
#[derive(Debug, Default)]
pub(super) struct Yaml {
    levels: Vec<Level>,
    place: Place,
    /// The string or bare word that is being read, as JSON writes it.
    token: Vec<u8>,
    quoted: bool,
    escaped: bool,
}

#[derive(Debug)]
struct Level {
    object: bool,
    column: usize,
    empty: bool,
    /// In an object: whether a name comes next.
    name: bool,
}

/// What stands before the next thing.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Nothing.
    #[default]
    Start,
    /// A name and its colon.
    Name,
    /// The dash of an item.
    Dash,
    /// A value.
    Value,
}

impl Transform for Yaml {
    fn part(&mut self, json: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(json.len() + json.len() / 2);
        for &byte in json {
            self.byte(byte, &mut out);
        }
        out
    }
}

impl Yaml {
    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.quoted {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.quoted = false;
                    let token = std::mem::take(&mut self.token);
                    self.string(&scalar(&token), out);
                    return;
                }
                _ => {}
            }
            self.token.push(byte);
            return;
        }
        match byte {
            b'"' => self.quoted = true,
            b'{' | b'[' => self.open(byte == b'{', out),
            b'}' | b']' => {
                self.bare(out);
                self.close(out);
            }
            b',' => {
                self.bare(out);
                if let Some(level) = self.levels.last_mut() {
                    level.name = level.object;
                }
            }
            b':' | b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => self.token.push(byte),
        }
    }

    /// A number, `true`, `false` or `null` has ended.
    fn bare(&mut self, out: &mut Vec<u8>) {
        if !self.token.is_empty() {
            let token = std::mem::take(&mut self.token);
            let token = String::from_utf8_lossy(&token);
            self.value(&token, out);
        }
    }

    fn string(&mut self, text: &str, out: &mut Vec<u8>) {
        let Some(level) = self.levels.last_mut().filter(|level| level.name) else {
            return self.value(text, out);
        };
        (level.name, level.empty) = (false, false);
        let column = level.column;
        if matches!(self.place, Place::Name | Place::Value) {
            line(column, out);
        }
        out.extend_from_slice(text.as_bytes());
        out.push(b':');
        self.place = Place::Name;
    }

    fn value(&mut self, text: &str, out: &mut Vec<u8>) {
        self.item(out);
        if self.place == Place::Name {
            out.push(b' ');
        }
        out.extend_from_slice(text.as_bytes());
        self.ended(out);
    }

    /// Begins an item, if this is in an array.
    fn item(&mut self, out: &mut Vec<u8>) {
        let Some(level) = self.levels.last_mut().filter(|level| !level.object) else {
            return;
        };
        // The first item of an array in an array stands behind the dash of the outer one.
        if !(level.empty && matches!(self.place, Place::Dash | Place::Start)) {
            line(level.column, out);
        }
        level.empty = false;
        out.extend_from_slice(b"- ");
        self.place = Place::Dash;
    }

    fn open(&mut self, object: bool, out: &mut Vec<u8>) {
        self.item(out);
        let column = match self.levels.last() {
            None => 0,
            // Dashes stand under the name of their array.
            Some(outer) if outer.object && !object => outer.column,
            Some(outer) => outer.column + 2,
        };
        self.levels.push(Level {
            object,
            column,
            empty: true,
            name: object,
        });
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let Some(level) = self.levels.pop() else { return };
        if level.empty {
            if self.place == Place::Name {
                out.push(b' ');
            }
            out.extend_from_slice(if level.object { b"{}" } else { b"[]" });
        }
        self.ended(out);
    }

    fn ended(&mut self, out: &mut Vec<u8>) {
        self.place = Place::Value;
        if self.levels.is_empty() {
            out.push(b'\n');
        }
    }
}

fn line(column: usize, out: &mut Vec<u8>) {
    out.push(b'\n');
    out.resize(out.len() + column, b' ');
}

/// A string, given as JSON writes it between its quotes.
fn scalar(json: &[u8]) -> String {
    let text = String::from_utf8_lossy(json);
    if is_plain(&text) {
        return text.into_owned();
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            // Fine in JSON, but not printable in YAML, or the end of a line.
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                // Writing to a String does not fail.
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether every reader takes the text for a string without quotes.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 10] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan"];
    let bytes = text.as_bytes();
    let Some(first) = bytes.first() else {
        return false;
    };
    let known = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/');
    if first.is_ascii_digit() {
        // Quantities and durations: digits, dots and letters, none of which is one of a number's.
        let number = |byte: &u8| matches!(byte.to_ascii_lowercase(), b'b' | b'e' | b'o' | b'x');
        let fine = |byte: &u8| *byte == b'.' || byte.is_ascii_alphanumeric() && !number(byte);
        return bytes.iter().all(fine) && bytes.iter().any(u8::is_ascii_alphabetic);
    }
    (first.is_ascii_alphabetic() || *first == b'/')
        && bytes.iter().all(known)
        && !WORDS.iter().any(|word| text.eq_ignore_ascii_case(word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn yaml(json: &str, cut: usize) -> String {
        let mut yaml = Yaml::default();
        let mut out = Vec::new();
        for part in json.as_bytes().chunks(cut) {
            out.extend(yaml.part(part));
        }
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn it_looks_as_kubernetes_writes_it() {
        let json = json!({
            "apiVersion": "v1",
            "empty": {}, "none": [], "null": null, "number": -1.5, "yes": true,
            "items": [
                {"metadata": {"labels": {"a/b": "c", "on": "off"}, "name": "x"}, "cells": ["250m", "1Ki", 7]},
                [["a"], [], {}, [{"b": []}]],
                {},
            ],
            "time": "2026-11-23T16:42:10Z", "window": "1m0.5s", "words": "two words", "zero": "",
        });
        let expected = r#"apiVersion: v1
empty: {}
none: []
"null": null
number: -1.5
"yes": true
items:
- metadata:
    labels:
      a/b: c
      "on": "off"
    name: x
  cells:
  - 250m
  - 1Ki
  - 7
- - - a
  - []
  - {}
  - - b: []
- {}
time: "2026-11-23T16:42:10Z"
window: 1m0.5s
words: "two words"
zero: ""
"#;
        // serde_json sorts names here, so the parts are put together by hand.
        let source = r#"{"apiVersion":"v1","empty":{},"none":[],"null":null,"number":-1.5,"yes":true,"items":[{"metadata":{"labels":{"a/b":"c","on":"off"},"name":"x"},"cells":["250m","1Ki",7]},[["a"],[],{},[{"b":[]}]],{}],"time":"2026-11-23T16:42:10Z","window":"1m0.5s","words":"two words","zero":""}"#;
        assert_eq!(serde_json::from_str::<Value>(source).unwrap(), json);
        assert_eq!(yaml(source, 1000), expected);
    }

    #[test]
    fn what_yaml_1_1_takes_for_something_else_is_quoted() {
        for text in [
            "y",
            "N",
            "Yes",
            "no",
            "on",
            "OFF",
            "true",
            "False",
            "null",
            "Null",
            "~",
            "",
            "1",
            "-1",
            "+1",
            "1_000",
            "0x1F",
            "0o7",
            "0b1",
            "1e3",
            "1.5",
            ".5",
            "1:30",
            "190:20:30",
            ".inf",
            "-.INF",
            ".nan",
            "NaN",
            "2001-12-14",
            "=",
            "<<",
            "- a",
            "a: b",
            "a #b",
            "#",
            "&a",
            "*a",
            "!a",
            "|",
            ">",
            "%",
            "@",
            "`",
            "'",
            "\"",
            "[",
            "{",
            "?",
            ",",
            "12ef",
            "a\nb",
        ] {
            let json = Value::from(text).to_string();
            let quoted = scalar(json.trim_matches('"').as_bytes());
            assert!(quoted.starts_with('"'), "{text:?} became {quoted}");
        }
        for text in [
            "250m",
            "12345678n",
            "20Mi",
            "1k",
            "15.001s",
            "metrics.k8s.io/v1",
            "etcd-node-a",
            "yes-no",
            "/a",
        ] {
            assert_eq!(scalar(text.as_bytes()), text);
        }
        assert_eq!(
            scalar("a\u{85}\u{7f}\u{2028}ü".as_bytes()),
            "\"a\\u0085\\u007f\\u2028ü\""
        );
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let text = prop_oneof![
            ".{0,12}",
            "[yntfo0-9.eE_xXi:+-]{1,5}",
            "(yes|no|on|off|null|~|[0-9]{1,6}[nmkKMis]{0,2})"
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                proptest::collection::btree_map(text.clone(), inner, 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_reads_back_as_what_it_was_wherever_it_is_cut(value in any_json(), cut in 1_usize..9) {
            // A document is an object.
            let value = json!({"v": value});
            let yaml = yaml(&value.to_string(), cut);
            let read: Value = serde_yaml::from_str(&yaml).map_err(|error| TestCaseError::fail(format!("{error}: {yaml}")))?;
            prop_assert_eq!(read, value, "{}", yaml);
        }
    }
}

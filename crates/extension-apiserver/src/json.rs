//! Appending JSON to a byte buffer without building values first: what items are written with.
//!
//! The writer keeps commas and escapes right; it cannot produce a broken document. Names and values are borrowed,
//! and nothing is allocated but the buffer's growth.

use std::fmt::{self, Display, Write as _};

use jiff::Timestamp;

/// An open JSON object. Closed by whoever opened it.
#[derive(Debug)]
pub struct JsonObject<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl JsonObject<'_> {
    /// Writes `{`, what `write` adds, and `}` to `out`.
    pub fn write(out: &mut Vec<u8>, write: impl FnOnce(&mut JsonObject<'_>)) {
        out.push(b'{');
        write(&mut JsonObject { out, empty: true });
        out.push(b'}');
    }

    /// Appends a string field.
    pub fn string(&mut self, name: &str, value: &str) {
        self.name(name);
        write_string(self.out, value);
    }

    /// Appends a string field made of what `value` prints.
    pub fn display(&mut self, name: &str, value: &dyn Display) {
        self.name(name);
        write_display(self.out, value);
    }

    /// Appends a `metav1.Time`: RFC 3339 in UTC, cut to whole seconds.
    pub fn time(&mut self, name: &str, value: Timestamp) {
        self.display(name, &Time(value));
    }

    /// Appends an integer field.
    pub fn integer(&mut self, name: &str, value: i64) {
        self.name(name);
        write_bare(self.out, &value);
    }

    /// Appends a boolean field.
    pub fn boolean(&mut self, name: &str, value: bool) {
        self.name(name);
        write_bare(self.out, &value);
    }

    /// Appends a field that is `null`.
    pub fn null(&mut self, name: &str) {
        self.name(name);
        self.out.extend_from_slice(b"null");
    }

    /// Appends an object field, unless `write` adds nothing to it: `omitempty`.
    pub fn object_unless_empty(&mut self, name: &str, write: impl FnOnce(&mut JsonObject<'_>)) {
        let before = (self.out.len(), self.empty);
        self.name(name);
        self.out.push(b'{');
        let mut object = JsonObject {
            out: self.out,
            empty: true,
        };
        write(&mut object);
        if object.empty {
            self.out.truncate(before.0);
            self.empty = before.1;
        } else {
            self.out.push(b'}');
        }
    }

    /// Appends an object field.
    pub fn object(&mut self, name: &str, write: impl FnOnce(&mut JsonObject<'_>)) {
        self.name(name);
        JsonObject::write(self.out, write);
    }

    /// Appends an array field.
    pub fn array(&mut self, name: &str, write: impl FnOnce(&mut JsonArray<'_>)) {
        self.name(name);
        JsonArray::write(self.out, write);
    }

    /// Appends a field of any serializable type, for what is not written often.
    pub fn value(&mut self, name: &str, value: &impl serde::Serialize) -> Result<(), serde_json::Error> {
        let before = (self.out.len(), self.empty);
        self.name(name);
        let written = serde_json::to_writer(&mut *self.out, value);
        if written.is_err() {
            self.out.truncate(before.0);
            self.empty = before.1;
        }
        written
    }

    fn name(&mut self, name: &str) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        write_string(self.out, name);
        self.out.push(b':');
    }
}

/// An open JSON array. Closed by whoever opened it.
#[derive(Debug)]
pub struct JsonArray<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl JsonArray<'_> {
    /// Writes `[`, what `write` adds, and `]` to `out`.
    pub fn write(out: &mut Vec<u8>, write: impl FnOnce(&mut JsonArray<'_>)) {
        out.push(b'[');
        write(&mut JsonArray { out, empty: true });
        out.push(b']');
    }

    /// Appends a string.
    pub fn string(&mut self, value: &str) {
        self.comma();
        write_string(self.out, value);
    }

    /// Appends a string made of what `value` prints.
    pub fn display(&mut self, value: &dyn Display) {
        self.comma();
        write_display(self.out, value);
    }

    /// Appends an integer.
    pub fn integer(&mut self, value: i64) {
        self.comma();
        write_bare(self.out, &value);
    }

    /// Appends an object.
    pub fn object(&mut self, write: impl FnOnce(&mut JsonObject<'_>)) {
        self.comma();
        JsonObject::write(self.out, write);
    }

    fn comma(&mut self) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
    }
}

/// Prints a timestamp as `metav1.Time` does: RFC 3339, UTC, whole seconds.
#[derive(Debug, Clone, Copy)]
pub struct Time(pub Timestamp);

impl Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Seconds since the epoch always make a valid timestamp again: the range is the original's.
        let whole = Timestamp::from_second(self.0.as_second()).unwrap_or(self.0);
        write!(f, "{whole:.0}")
    }
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Escapes what is printed into it as the inside of a JSON string.
struct Escaped<'a>(&'a mut Vec<u8>);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut plain = 0;
        for (at, byte) in text.bytes().enumerate() {
            let escape: Option<&[u8]> = match byte {
                b'"' => Some(b"\\\""),
                b'\\' => Some(b"\\\\"),
                b'\n' => Some(b"\\n"),
                b'\r' => Some(b"\\r"),
                b'\t' => Some(b"\\t"),
                0..=0x1f => None,
                _ => continue,
            };
            self.0
                .extend_from_slice(text.as_bytes().get(plain..at).unwrap_or_default());
            plain = at + 1;
            if let Some(escape) = escape {
                self.0.extend_from_slice(escape);
            } else {
                self.0.extend_from_slice(b"\\u00");
                for digit in [byte >> 4, byte & 0xf] {
                    self.0.extend(HEX.get(usize::from(digit)));
                }
            }
        }
        self.0
            .extend_from_slice(text.as_bytes().get(plain..).unwrap_or_default());
        Ok(())
    }
}

/// Writes bytes as they are; only for numbers and booleans.
struct Bare<'a>(&'a mut Vec<u8>);

impl fmt::Write for Bare<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

fn write_string(out: &mut Vec<u8>, value: &str) {
    out.push(b'"');
    // Writing to a Vec does not fail.
    let _ = Escaped(out).write_str(value);
    out.push(b'"');
}

fn write_display(out: &mut Vec<u8>, value: &dyn Display) {
    out.push(b'"');
    // A Display that fails half-way leaves a shorter, still valid string.
    let _ = write!(Escaped(out), "{value}");
    out.push(b'"');
}

fn write_bare(out: &mut Vec<u8>, value: &dyn Display) {
    let _ = write!(Bare(out), "{value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_objects_and_arrays_have_commas_where_json_wants_them() {
        let mut out = Vec::new();
        JsonObject::write(&mut out, |object| {
            object.string("name", "a\"b\\c\u{1}\n");
            object.time("timestamp", "2026-11-23T16:42:02.9Z".parse().unwrap());
            object.object("usage", |_| {});
            object.object_unless_empty("labels", |_| {});
            object.object_unless_empty("annotations", |annotations| annotations.null("a"));
            object.array("containers", |containers| {
                containers.object(|container| container.integer("n", -1));
                containers.string("x");
                containers.display(&7);
            });
            object.boolean("last", true);
        });
        assert_eq!(
            String::from_utf8(out).unwrap(),
            r#"{"name":"a\"b\\c\u0001\n","timestamp":"2026-11-23T16:42:02Z","usage":{},"annotations":{"a":null},"containers":[{"n":-1},"x","7"],"last":true}"#
        );
    }

    proptest::proptest! {
        #[test]
        fn any_string_comes_back_as_it_was(text in ".*") {
            let mut out = Vec::new();
            JsonObject::write(&mut out, |object| object.string(&text, &text));
            let read: std::collections::BTreeMap<String, String> = serde_json::from_slice(&out).unwrap();
            proptest::prop_assert_eq!(read.get(&text), Some(&text));
        }
    }
}

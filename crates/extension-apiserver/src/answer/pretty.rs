//! Indenting JSON as it passes by, for `?pretty` and for people with curl.

use bytes::Bytes;

use crate::body::Chunks;
use crate::status::Status;

/// Turns compact JSON, given in parts cut anywhere, into what Go's `MarshalIndent` writes with two spaces.
#[derive(Debug, Default)]
pub(super) struct Indent {
    depth: usize,
    opened: bool,
    in_string: bool,
    escaped: bool,
}

impl Transform for Indent {
    fn part(&mut self, compact: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(compact.len() * 2);
        for &byte in compact {
            self.byte(byte, &mut out);
        }
        out
    }
}

impl Indent {
    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.in_string {
            out.push(byte);
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return;
        }
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => return,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if !self.opened {
                    self.line(out);
                }
                self.opened = false;
                out.push(byte);
                return;
            }
            _ => {}
        }
        if std::mem::take(&mut self.opened) {
            self.line(out);
        }
        out.push(byte);
        match byte {
            b'{' | b'[' => {
                self.depth += 1;
                self.opened = true;
            }
            b',' => self.line(out),
            b':' => out.push(b' '),
            b'"' => self.in_string = true,
            _ => {}
        }
    }

    fn line(&self, out: &mut Vec<u8>) {
        out.push(b'\n');
        out.resize(out.len() + 2 * self.depth, b' ');
    }
}

/// Turns compact JSON into another form as it passes by.
pub(super) trait Transform {
    /// The next part in that form.
    fn part(&mut self, compact: &[u8]) -> Vec<u8>;
}

/// Turns the parts of a body into another form.
pub(super) struct Transformed<C, T> {
    pub(super) compact: C,
    pub(super) transform: T,
}

impl<C: Chunks, T: Transform + Send> Chunks for Transformed<C, T> {
    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let part = self.compact.next()?;
        Ok(part.map(|part| self.transform.part(&part).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn indented(compact: &str, cut: usize) -> String {
        let mut indent = Indent::default();
        let mut out = Vec::new();
        for part in compact.as_bytes().chunks(cut) {
            out.extend(indent.part(part));
        }
        String::from_utf8(out).unwrap()
    }

    proptest::proptest! {
        #[test]
        fn it_is_what_serde_json_writes_wherever_it_is_cut(
            texts in proptest::collection::vec(".*", 0..4),
            number: i64,
            cut in 1_usize..9,
        ) {
            let value = serde_json::json!({
                "texts": texts, "none": {}, "empty": [], "nested": [{"number": number, "more": [[], {}]}], "null": null,
            });
            proptest::prop_assert_eq!(
                indented(&value.to_string(), cut),
                serde_json::to_string_pretty(&value).unwrap()
            );
        }
    }
}

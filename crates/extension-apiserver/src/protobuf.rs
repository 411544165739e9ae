//! Appending protobuf to a byte buffer without building messages first: what items are written with beside JSON.
//!
//! Kubernetes' messages are proto2, made by gogo/protobuf: fields that are no pointers in Go are written also when they
//! are empty, in the order of their numbers. Whoever writes a message keeps to that. Lengths are put in front of what was
//! written when it is known how long that is, so nothing is computed twice.

use std::fmt::{Display, Write as _};

/// An open message.
#[derive(Debug)]
pub struct Message<'a> {
    out: &'a mut Vec<u8>,
}

/// Wire types.
const VARINT: u64 = 0;
const BYTES: u64 = 2;

impl<'a> Message<'a> {
    /// A message at the end of `out`, without a length before it.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Appends a string field.
    pub fn string(&mut self, field: u32, value: &str) {
        self.bytes(field, |out| out.extend_from_slice(value.as_bytes()));
    }

    /// Appends a string field made of what `value` prints.
    pub fn display(&mut self, field: u32, value: &dyn Display) {
        self.bytes(field, |out| {
            // A Display that fails half-way leaves a shorter string.
            let _ = write!(Text(out), "{value}");
        });
    }

    /// Appends an `int32` or `int64` field.
    pub fn integer(&mut self, field: u32, value: i64) {
        self.tag(field, VARINT);
        varint(self.out, value.cast_unsigned());
    }

    /// Appends a boolean field.
    pub fn boolean(&mut self, field: u32, value: bool) {
        self.integer(field, value.into());
    }

    /// Appends a message field.
    pub fn message(&mut self, field: u32, write: impl FnOnce(&mut Message<'_>)) {
        self.bytes(field, |out| write(&mut Message { out }));
    }

    /// Appends one entry of a map from strings to messages.
    pub fn entry(&mut self, field: u32, key: &str, write: impl FnOnce(&mut Message<'_>)) {
        self.message(field, |entry| {
            entry.string(1, key);
            entry.message(2, write);
        });
    }

    fn tag(&mut self, field: u32, wire_type: u64) {
        varint(self.out, u64::from(field) << 3 | wire_type);
    }

    fn bytes(&mut self, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
        self.tag(field, BYTES);
        let at = self.out.len();
        // Most lengths take one byte.
        self.out.push(0);
        write(self.out);
        let length = self.out.len().saturating_sub(at + 1);
        if let (Ok(short @ 0..=0x7f), Some(place)) = (u8::try_from(length), self.out.get_mut(at)) {
            *place = short;
            return;
        }
        let mut bytes = Vec::with_capacity(10);
        varint(&mut bytes, length as u64);
        self.out.splice(at..=at, bytes);
    }
}

/// Appends a number, seven bits a byte.
pub(crate) fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Appends what is printed.
struct Text<'a>(&'a mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_written_as_the_encoding_guide_says() {
        let mut out = Vec::new();
        let mut message = Message::new(&mut out);
        message.integer(1, 150);
        message.string(2, "testing");
        message.message(3, |inner| inner.integer(1, 150));
        message.boolean(16, true);
        message.integer(1, -1);
        message.display(4, &7);
        message.entry(5, "k", |value| value.string(1, "v"));
        let expected = b"\x08\x96\x01\x12\x07testing\x1a\x03\x08\x96\x01\x80\x01\x01\
                         \x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x22\x017\x2a\x08\x0a\x01k\x12\x03\x0a\x01v";
        assert_eq!(out, expected);
    }

    #[test]
    fn lengths_of_any_size_come_first() {
        for length in [0, 1, 127, 128, 300, 20_000] {
            let mut out = Vec::new();
            Message::new(&mut out).message(1, |inner| inner.string(1, &"x".repeat(length)));
            let mut expected = Vec::new();
            let mut inner = vec![0x0a];
            varint(&mut inner, length as u64);
            inner.resize(inner.len() + length, b'x');
            expected.push(0x0a);
            varint(&mut expected, inner.len() as u64);
            expected.extend(inner);
            assert_eq!(out, expected, "{length}");
        }
    }
}

//! One line of an exposition.

use std::{borrow::Cow, str};

use crate::time::UnixMillis;

/// The families that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    NodeCpu,
    NodeMemory,
    ContainerCpu,
    ContainerMemory,
    ContainerStart,
    NodeSwap,
    ContainerSwap,
    /// Not 0 when kubelet could not collect everything.
    ScrapeError,
}

impl Family {
    /// The family of this line, and the line after its name; nothing for comments and unwanted families.
    pub(super) fn of(line: &[u8]) -> Option<(Self, &[u8])> {
        // The first byte decides for most lines that are not wanted.
        let (family, name): (Self, &[u8]) = match line.first()? {
            b'c' if line.starts_with(b"container_c") => {
                (Self::ContainerCpu, b"container_cpu_usage_seconds_total")
            }
            b'c' if line.starts_with(b"container_m") => {
                (Self::ContainerMemory, b"container_memory_working_set_bytes")
            }
            b'c' if line.starts_with(b"container_sw") => (Self::ContainerSwap, b"container_swap_usage_bytes"),
            b'c' => (Self::ContainerStart, b"container_start_time_seconds"),
            b'n' if line.starts_with(b"node_c") => (Self::NodeCpu, b"node_cpu_usage_seconds_total"),
            b'n' if line.starts_with(b"node_s") => (Self::NodeSwap, b"node_swap_usage_bytes"),
            b'n' => (Self::NodeMemory, b"node_memory_working_set_bytes"),
            b'r' => (Self::ScrapeError, b"resource_scrape_error"),
            // Its name until Kubernetes 1.29.
            b's' => (Self::ScrapeError, b"scrape_error"),
            _ => return None,
        };
        let rest = line.strip_prefix(name)?;
        // Otherwise it is a longer name that only starts alike.
        matches!(rest.first(), None | Some(b'{' | b' ' | b'\t')).then_some((family, rest))
    }

    /// Whether it is about the node, not about one container.
    pub(super) fn is_of_node(self) -> bool {
        matches!(self, Self::NodeCpu | Self::NodeMemory | Self::NodeSwap)
    }
}

/// Why a line gives no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    Malformed,
    BadValue,
}

/// The three labels that matter.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Labels<'a> {
    pub(super) namespace: Option<Cow<'a, str>>,
    pub(super) pod: Option<Cow<'a, str>>,
    pub(super) container: Option<Cow<'a, str>>,
}

impl<'a> Labels<'a> {
    /// Reads the labels, if there are any, that a line's name is followed by, and returns what follows them.
    pub(super) fn parse(rest: &'a [u8]) -> Option<(Self, &'a [u8])> {
        match rest.strip_prefix(b"{") {
            Some(inside) => parse_labels(inside),
            None => Some((Self::default(), rest)),
        }
    }
}

/// The end of a line: value and time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sample {
    /// Finite and not negative.
    pub(super) value: f64,
    pub(super) time: Option<UnixMillis>,
}

impl Sample {
    pub(super) fn parse(rest: &[u8]) -> Result<Self, Refused> {
        let rest = str::from_utf8(rest).map_err(|_| Refused::Malformed)?;
        let mut fields = rest.split_ascii_whitespace();
        let value = fields
            .next()
            .and_then(|value| value.parse::<f64>().ok())
            .ok_or(Refused::Malformed)?;
        let time = fields
            .next()
            .map(|time| time.parse::<i64>().map_err(|_| Refused::Malformed))
            .transpose()?;
        if fields.next().is_some() {
            return Err(Refused::Malformed);
        }
        // A time before 1970 is no time that a counter was read at.
        if !value.is_finite() || value < 0.0 || time.is_some_and(|time| time <= 0) {
            return Err(Refused::BadValue);
        }
        Ok(Self {
            value,
            time: time.map(UnixMillis),
        })
    }
}

/// Reads `name="value",...}` and returns what follows.
fn parse_labels(mut rest: &[u8]) -> Option<(Labels<'_>, &[u8])> {
    let mut labels = Labels::default();
    loop {
        rest = rest.trim_ascii_start();
        if let Some(after) = rest.strip_prefix(b"}") {
            return Some((labels, after));
        }
        let equals = rest.iter().position(|byte| *byte == b'=')?;
        let (name, after) = rest.split_at_checked(equals)?;
        let quoted = after.get(1..)?.trim_ascii_start().strip_prefix(b"\"")?;
        let (value, after) = split_quoted(quoted)?;
        let slot = match name.trim_ascii() {
            b"namespace" => Some(&mut labels.namespace),
            b"pod" => Some(&mut labels.pod),
            b"container" => Some(&mut labels.container),
            _ => None,
        };
        if let Some(slot) = slot {
            *slot = Some(unescape(value)?);
        }
        rest = after.trim_ascii_start();
        match rest.first()? {
            b',' => rest = rest.get(1..)?,
            b'}' => {}
            _ => return None,
        }
    }
}

/// Splits at the closing quote: the first that no backslash precedes.
fn split_quoted(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut escaped = false;
    let end = text.iter().position(|byte| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    })?;
    let (value, quote) = text.split_at_checked(end)?;
    Some((value, quote.get(1..)?))
}

/// A label's value. Borrowed unless it has escapes, which no name in Kubernetes needs.
fn unescape(value: &[u8]) -> Option<Cow<'_, str>> {
    let value = str::from_utf8(value).ok()?;
    if !value.contains('\\') {
        return Some(Cow::Borrowed(value));
    }
    let mut plain = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                'n' => plain.push('\n'),
                c @ ('\\' | '"') => plain.push(c),
                // As Prometheus does with an escape it does not know.
                c => plain.extend(['\\', c]),
            },
            c => plain.push(c),
        }
    }
    Some(Cow::Owned(plain))
}

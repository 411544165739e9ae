//! Compressing what is large, for those who ask for it, by the rules of k8s.io/apiserver.

use std::io::Write as _;

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, VARY};
use http::{HeaderMap, HeaderValue};

use super::negotiate::Media;
use super::reply::Answer;
use crate::body::{After, Body, Chunks};
use crate::status::Status;

/// What is smaller is sent as it is (`defaultGzipThresholdBytes` of k8s.io/apiserver).
const THRESHOLD: usize = 128 * 1024;
/// The level of k8s.io/apiserver (`defaultGzipContentEncodingLevel`).
const LEVEL: Compression = Compression::fast();

/// The answer with that body, compressed if that is asked for and worth it. `large`: it is known to be.
pub(super) fn answer(
    mut body: Box<dyn Chunks>,
    media: Media,
    headers: &HeaderMap,
    large: bool,
) -> Result<Answer, Status> {
    if !wants_gzip(headers) {
        return Ok(Answer::body(Body::streamed(Bytes::new(), body), media));
    }
    // Enough is made to know. An empty part says that others must have their turn: then it is not known, and what takes
    // that long to find is not much.
    let mut begun = BytesMut::new();
    while !large && begun.len() <= THRESHOLD {
        match body.next()? {
            Some(part) if part.is_empty() => {
                let whole = After::new(begun.freeze(), body);
                return Ok(Answer::body(Body::streamed(Bytes::new(), Box::new(whole)), media));
            }
            Some(part) => begun.extend_from_slice(&part),
            None => return Ok(Answer::body(Body::full(begun), media)),
        }
    }
    let whole = Gzip {
        plain: After::new(begun.freeze(), body),
        encoder: Some(GzEncoder::new(Vec::new(), LEVEL)),
    };
    let answer = Answer::body(Body::streamed(Bytes::new(), Box::new(whole)), media);
    Ok(answer
        .with(CONTENT_ENCODING, HeaderValue::from_static("gzip"))
        .with(VARY, HeaderValue::from_static("Accept-Encoding")))
}

/// Whether gzip is among the encodings that are accepted.
fn wants_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(ACCEPT_ENCODING).iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|encoding| {
        let mut parts = encoding.split(';').map(str::trim);
        parts.next() == Some("gzip")
            && !parts.any(|part| matches!(part, "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

/// Compresses the parts of a body.
struct Gzip<C> {
    plain: C,
    /// Gone when the end is written.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl<C: Chunks> Chunks for Gzip<C> {
    fn next(&mut self) -> Result<Option<Bytes>, Status> {
        let failed = |error| Status::internal(&format_args!("failed to compress the answer: {error}"));
        let Some(encoder) = &mut self.encoder else {
            return Ok(None);
        };
        if let Some(part) = self.plain.next()? {
            encoder.write_all(&part).map_err(failed)?;
            return Ok(Some(std::mem::take(encoder.get_mut()).into()));
        }
        let encoder = self.encoder.take();
        encoder
            .map(GzEncoder::finish)
            .transpose()
            .map_err(failed)
            .map(|end| end.map(Bytes::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_for_those_who_name_it() {
        for (accept, wanted) in [
            ("gzip", true),
            ("br, gzip;q=0.5", true),
            ("deflate,gzip", true),
            ("gzip;q=0", false),
            ("*", false),
            ("xgzip", false),
            ("identity", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, accept.parse().unwrap());
            assert_eq!(wants_gzip(&headers), wanted, "{accept}");
        }
    }
}

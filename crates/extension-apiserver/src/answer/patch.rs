//! JSON patches (RFC 6902) and JSON merge patches (RFC 7386).

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use json_patch::{Patch, PatchOperation};
use serde_json::Value;

use crate::status::Status;

/// Operations of one JSON patch (`maxJSONPatchOperations`), and bytes that they may copy.
const OPERATIONS: usize = 10_000;
const COPIED: usize = 3 * 1024 * 1024;

/// A patch.
pub(super) enum Change {
    Json(Patch),
    Merge(Value),
}

impl Change {
    pub(super) fn read(headers: &HeaderMap, body: &Bytes) -> Result<Self, Status> {
        let unreadable =
            |error: serde_json::Error| Status::bad_request(format!("error decoding patch: {error}"));
        match media_type(headers) {
            "application/json-patch+json" => {
                let patch: Patch = serde_json::from_slice(body).map_err(unreadable)?;
                if patch.0.len() > OPERATIONS {
                    let found = patch.0.len();
                    return Err(Status::bad_request(format!(
                        "the patch has {found} operations: at most {OPERATIONS} are allowed"
                    )));
                }
                Ok(Self::Json(patch))
            }
            "application/merge-patch+json" => {
                serde_json::from_slice(body).map(Self::Merge).map_err(unreadable)
            }
            _ => Err(Status::unsupported_media_type(&[
                "application/json-patch+json",
                "application/merge-patch+json",
            ])),
        }
    }

    pub(super) fn apply(&self, object: &mut Value) -> Result<(), String> {
        match self {
            Self::Merge(patch) => {
                json_patch::merge(object, patch);
                Ok(())
            }
            Self::Json(patch) => {
                let mut copied = 0;
                for operation in &patch.0 {
                    // Copies of copies grow beyond all bounds in a few operations.
                    if let PatchOperation::Copy(copy) = operation {
                        let from = object.pointer(copy.from.as_str());
                        copied += from.map_or(0, |value| value.to_string().len());
                        if copied > COPIED {
                            return Err(format!("it copies more than {COPIED} bytes"));
                        }
                    }
                    json_patch::patch(object, std::slice::from_ref(operation))
                        .map_err(|error| error.to_string())?;
                }
                Ok(())
            }
        }
    }
}

/// The media type of a body, without its parameters.
pub(super) fn media_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
}

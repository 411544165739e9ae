//! Documents that stay the same while the server runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use bytes::Bytes;
use sha2::{Digest, Sha512};

use super::{binary, discovery, openapi};
use crate::options::ApiGroup;

/// Documents that stay the same while the server runs.
pub(super) struct Documents {
    pub(super) aggregated_v2: Tagged,
    pub(super) aggregated_v2beta1: Tagged,
    pub(super) aggregated_v2_protobuf: Tagged,
    pub(super) aggregated_v2beta1_protobuf: Tagged,
    pub(super) openapi_v2: Tagged,
    pub(super) openapi_v3: Tagged,
    pub(super) openapi_v3_versions: BTreeMap<&'static str, Tagged>,
}

/// A document and its hash, which is its `ETag`.
pub(super) struct Tagged {
    pub(super) bytes: Bytes,
    pub(super) hash: String,
}

impl Tagged {
    fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let mut hash = String::new();
        for byte in Sha512::digest(&bytes) {
            // Writing to a String does not fail.
            let _ = write!(hash, "{byte:02X}");
        }
        Self { bytes, hash }
    }
}

impl Documents {
    pub(super) fn new(group: &ApiGroup, server_version: &str) -> Self {
        let versions = group.versions.iter().map(|version| {
            let document = openapi::v3(group, version, server_version);
            (*version, Tagged::new(document.to_string()))
        });
        let versions: BTreeMap<_, _> = versions.collect();
        let paths = versions.iter().map(|(version, document)| {
            let path = format!("apis/{}/{version}", group.name);
            let url = format!("/openapi/v3/{path}?hash={}", document.hash);
            (path, serde_json::json!({"serverRelativeURL": url}))
        });
        let paths: serde_json::Map<_, _> = paths.collect();
        Self {
            aggregated_v2: Tagged::new(discovery::aggregated(group, "v2")),
            aggregated_v2beta1: Tagged::new(discovery::aggregated(group, "v2beta1")),
            aggregated_v2_protobuf: Tagged::new(binary::aggregated(group, "v2")),
            aggregated_v2beta1_protobuf: Tagged::new(binary::aggregated(group, "v2beta1")),
            openapi_v2: Tagged::new(openapi::v2(group, server_version).to_string()),
            openapi_v3: Tagged::new(serde_json::json!({"paths": paths}).to_string()),
            openapi_v3_versions: versions,
        }
    }
}

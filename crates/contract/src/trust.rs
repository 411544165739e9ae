//! How the identity of a kubelet is recorded in mode `Auto`: one entry per Node UID in ConfigMaps of
//! metrics-api's namespace. A record is only ever added or turned from pinned into verified (by metrics-api, under
//! the ConfigMap's `resourceVersion`) or removed (by whoever resets trust on purpose, or with the Node).

use std::{fmt, str::FromStr};

/// Prefix of the ConfigMaps' names; a two-digit shard number follows.
pub const CONFIG_MAP_PREFIX: &str = "metrics-api-kubelet-trust-";
/// Number of shards. With [`MAX_RECORDS`] records each, 128 000 nodes fit.
pub const SHARDS: u32 = 64;
/// Most records in one ConfigMap: at some 110 bytes each, a quarter of the 1 MiB that etcd takes.
pub const MAX_RECORDS: usize = 2000;

/// Name of the ConfigMap that holds the record of the Node with this UID.
#[must_use]
pub fn config_map_name(node_uid: &str) -> String {
    // FNV-1a: stable over versions and platforms, which std's hasher does not promise.
    let hash = node_uid.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    format!("{CONFIG_MAP_PREFIX}{:02}", hash % SHARDS)
}

/// Names of all shards, for the rules that let metrics-api read and write these ConfigMaps and no others.
pub fn config_map_names() -> impl Iterator<Item = String> {
    (0..SHARDS).map(|shard| format!("{CONFIG_MAP_PREFIX}{shard:02}"))
}

/// What is known about a Node's kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustRecord {
    /// Its certificate once chained to the cluster's CA: it is never pinned again.
    Verified,
    /// SHA-256 of the public key (SubjectPublicKeyInfo, DER) it showed first, 64 lower-case hex digits.
    Pinned(String),
}

/// A record that is neither `verified` nor `pinned sha256:<64 hex digits>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidTrustRecord;

impl fmt::Display for InvalidTrustRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected \"verified\" or \"pinned sha256:<64 lower-case hex digits>\"")
    }
}

impl std::error::Error for InvalidTrustRecord {}

impl fmt::Display for TrustRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Verified => f.write_str("verified"),
            Self::Pinned(digest) => write!(f, "pinned sha256:{digest}"),
        }
    }
}

impl FromStr for TrustRecord {
    type Err = InvalidTrustRecord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "verified" {
            return Ok(Self::Verified);
        }
        let digest = text.strip_prefix("pinned sha256:").ok_or(InvalidTrustRecord)?;
        let hex = digest.len() == 64 && digest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        hex.then(|| Self::Pinned(digest.to_owned()))
            .ok_or(InvalidTrustRecord)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_as_written() {
        for record in [TrustRecord::Verified, TrustRecord::Pinned("0a".repeat(32))] {
            assert_eq!(record.to_string().parse(), Ok(record));
        }
    }

    #[test]
    fn other_records_are_refused() {
        for text in [
            "",
            "Verified",
            "pinned",
            "pinned sha256:",
            &format!("pinned sha256:{}", "0A".repeat(32)),
        ] {
            assert_eq!(text.parse::<TrustRecord>(), Err(InvalidTrustRecord), "{text}");
        }
    }

    #[test]
    fn shards_are_stable_and_spread() {
        assert_eq!(
            config_map_name("0b6f3a5e-7f0c-4a52-9a86-5a6c8d1a2b3c"),
            config_map_name("0b6f3a5e-7f0c-4a52-9a86-5a6c8d1a2b3c")
        );
        let names: std::collections::BTreeSet<_> = (0..10_000)
            .map(|i| config_map_name(&format!("uid-{i}")))
            .collect();
        assert_eq!(names, config_map_names().collect());
    }
}

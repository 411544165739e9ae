//! Pages of a list: `limit` and `continue`.
//!
//! The token says where the page before ended, and what was asked for, so that any replica can go on with it at any time.
//! It holds nothing that its bearer may not know, and needs no signature: what may be read is authorized anew. Objects
//! come and go between pages; each that is there throughout comes exactly once, for pages go on after a key.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde::{Deserialize, Serialize};

use crate::cache::KeyBuilder;
use crate::request::{Query, ResourceRequest};
use crate::resource::{Item, Key};
use crate::status::Status;

/// The version of the tokens. One of another version is refused as malformed.
const VERSION: u32 = 1;

/// A key that outlives its object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnedKey {
    namespace: Option<String>,
    name: String,
}

impl OwnedKey {
    pub(super) fn of(item: &dyn Item) -> Self {
        Self {
            namespace: item.namespace().map(str::to_owned),
            name: item.name().to_owned(),
        }
    }

    pub(super) fn borrow(&self) -> Key<'_> {
        Key {
            namespace: self.namespace.as_deref(),
            name: &self.name,
        }
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Token {
    v: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    name: String,
    hash: String,
}

/// One page of a list.
#[derive(Debug)]
pub(super) struct Page {
    /// How many more objects it may hold.
    pub(super) left: u64,
    /// The last one that it holds.
    pub(super) last: Option<OwnedKey>,
    hash: String,
}

impl Page {
    /// Which page is asked for, if not all, and after which key it begins.
    pub(super) fn of(
        request: &ResourceRequest,
        query: &Query,
    ) -> Result<(Option<Self>, Option<OwnedKey>), Status> {
        let limit: i64 = query.first("limit").unwrap_or_default().parse().unwrap_or(0);
        let hash = hash(request, query);
        let after = match query.first("continue") {
            None | Some("") => None,
            Some(token) => Some(read(token, &hash)?),
        };
        let page = (limit > 0).then(|| Self {
            left: limit.unsigned_abs(),
            last: None,
            hash,
        });
        Ok((page, after))
    }

    /// What the page after this one is asked for by.
    pub(super) fn token(&self) -> String {
        let Some(last) = &self.last else {
            return String::new();
        };
        let token = Token {
            v: VERSION,
            namespace: last.namespace.clone(),
            name: last.name.clone(),
            hash: self.hash.clone(),
        };
        // Strings and a number only: there is nothing in it that serde_json could refuse.
        BASE64.encode(serde_json::to_vec(&token).unwrap_or_default())
    }
}

/// The key that a token names, if it is of the list with this hash.
pub(crate) fn read(token: &str, hash: &str) -> Result<OwnedKey, Status> {
    let refuse = |found: &str| Status::bad_request(format!("continue key is not valid: {found}"));
    let json = BASE64.decode(token).map_err(|error| refuse(&error.to_string()))?;
    let token: Token = serde_json::from_slice(&json).map_err(|error| refuse(&error.to_string()))?;
    if token.v != VERSION {
        return Err(refuse("it has another version"));
    }
    if token.hash != hash {
        return Err(refuse(
            "it is of a list of another resource or namespace, or with other selectors",
        ));
    }
    Ok(OwnedKey {
        namespace: token.namespace,
        name: token.name,
    })
}

/// What a list is of. All versions are one: they have the same objects.
fn hash(request: &ResourceRequest, query: &Query) -> String {
    let mut key = KeyBuilder::default();
    key.list(&[&request.group, &request.resource, &request.namespace]);
    for selector in ["labelSelector", "fieldSelector"] {
        key.field(query.first(selector).unwrap_or_default());
    }
    let mut hash = String::new();
    for byte in key.build().into_iter().take(8) {
        // Writing to a String does not fail.
        let _ = write!(hash, "{byte:02x}");
    }
    hash
}

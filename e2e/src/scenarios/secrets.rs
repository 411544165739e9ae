//! Secrets of the operator's namespace.

use anyhow::{Context as _, Result};
use k8s_openapi::ByteString;
use serde_json::Value;

use super::context::Context;
use crate::test::install_yaml::NAMESPACE;

/// The Secret with this name.
pub(super) async fn read(context: &Context, name: &str) -> Result<Value> {
    let args = ["get", "secret", name, "--namespace", NAMESPACE, "--output=json"];
    Ok(serde_json::from_str(&context.kubectl(&args).await?)?)
}

/// What it has under this key.
pub(super) fn entry(secret: &Value, key: &str) -> Result<String> {
    let bytes: ByteString = serde_json::from_value(secret["data"][key].clone())
        .with_context(|| format!("the Secret has no {key}"))?;
    Ok(String::from_utf8(bytes.0)?)
}

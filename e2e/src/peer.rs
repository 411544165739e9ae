//! metrics-server's own chart and manifests, for trying whether our image takes its place in them. They come from its Go
//! module; nothing of them is kept in this repository.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tokio::process::Command;

use crate::command;

const MODULE: &str = "sigs.k8s.io/metrics-server@v0.9.0";
/// Hash of the module's files, as in a go.sum.
const SUM: &str = "h1:nlqqZ2H0Xfko8eJC/1qaNVVT17hu4rxndkOi22KTZ4w=";

/// What `go mod download -json` tells.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Download {
    dir: PathBuf,
    sum: String,
}

/// Fetches the module unless Go has it. Gives its folder.
pub async fn download() -> Result<PathBuf> {
    folder(&[]).await
}

/// The module's folder, without any access to a network.
pub async fn downloaded() -> Result<PathBuf> {
    folder(&[("GOPROXY", "off")]).await
}

async fn folder(environment: &[(&str, &str)]) -> Result<PathBuf> {
    let mut go = Command::new("go");
    go.args(["mod", "download", "-json", MODULE])
        .current_dir("/")
        // The hash is compared here.
        .env("GONOSUMDB", "*")
        .env("GOFLAGS", "-mod=mod")
        .envs(environment.iter().copied());
    let told = command::output(go).await?;
    let download: Download =
        serde_json::from_str(&told).with_context(|| format!("go mod download {MODULE}: {told}"))?;
    ensure!(
        download.sum == SUM,
        "{MODULE} has the hash {}, expected {SUM}",
        download.sum
    );
    Ok(download.dir)
}

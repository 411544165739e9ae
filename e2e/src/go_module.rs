//! Files of other projects that scenarios try ours with. They come from those projects' Go modules; nothing of them is
//! kept in this repository.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use tokio::process::Command;

use crate::command;

/// Files of another project.
#[derive(Clone, Copy, Debug)]
pub struct GoModule {
    /// What they are, for people.
    pub what: &'static str,
    module: &'static str,
    /// Hash of the module's files, as in a go.sum.
    sum: &'static str,
}

/// metrics-server's own chart and manifests.
pub const METRICS_SERVER: GoModule = GoModule {
    what: "metrics-server's manifests",
    module: "sigs.k8s.io/metrics-server@v0.9.0",
    sum: "h1:nlqqZ2H0Xfko8eJC/1qaNVVT17hu4rxndkOi22KTZ4w=",
};

/// The kinds of the Prometheus operator.
pub const PROMETHEUS_OPERATOR: GoModule = GoModule {
    what: "the Prometheus operator's kinds",
    module: "github.com/prometheus-operator/prometheus-operator@v0.82.0",
    sum: "h1:gqz+z31co8+qaEpsJKGfbrBuaMAPiAo/Z08dBIlSM+E=",
};

/// Each of them.
pub const ALL: [GoModule; 2] = [METRICS_SERVER, PROMETHEUS_OPERATOR];

/// What `go mod download -json` tells.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Download {
    dir: PathBuf,
    sum: String,
}

impl GoModule {
    /// Fetches the module unless Go has it. Gives its folder.
    pub async fn download(self) -> Result<PathBuf> {
        self.folder(&[]).await
    }

    /// The module's folder, without any access to a network.
    pub async fn downloaded(self) -> Result<PathBuf> {
        self.folder(&[("GOPROXY", "off")]).await
    }

    async fn folder(self, environment: &[(&str, &str)]) -> Result<PathBuf> {
        let Self { module, sum, .. } = self;
        let mut go = Command::new("go");
        go.args(["mod", "download", "-json", module])
            .current_dir("/")
            // The hash is compared here.
            .env("GONOSUMDB", "*")
            .env("GOFLAGS", "-mod=mod")
            .envs(environment.iter().copied());
        let told = command::output(go).await?;
        let download: Download =
            serde_json::from_str(&told).with_context(|| format!("go mod download {module}: {told}"))?;
        ensure!(
            download.sum == sum,
            "{module} has the hash {}, expected {sum}",
            download.sum
        );
        Ok(download.dir)
    }
}

//! Where things are kept: everything below one cache folder, so that nothing else of the machine is written.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The folder of everything the harness keeps: `$XDG_CACHE_HOME/metricsstack-e2e`, else below `~/.cache`.
pub fn cache() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|value| Path::new(value).is_absolute()) {
        Some(base) => PathBuf::from(base),
        None => std::env::home_dir()
            .context("neither XDG_CACHE_HOME nor HOME is set: set one of them")?
            .join(".cache"),
    };
    let cache = base.join("metricsstack-e2e");
    // Processes and control groups of a cluster are found by this path, so there must be one spelling of it.
    std::fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    std::fs::canonicalize(&cache).with_context(|| format!("cannot read {}", cache.display()))
}

/// The workspace's root, where `cargo` is run and the charts are.
#[must_use]
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// The Go modules whose programs make the cluster.
#[must_use]
pub fn tool_modules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools")
}

//! The version before this one, which upgrades begin with: its source out of the repository's history.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use crate::{command, paths};

/// What an installation is upgraded from. With each release it moves to that.
pub const COMMIT: &str = "fd71d1a003017e1b3127750ca28166deb8ff27ab";
/// The version its crates are built as. In one target directory Cargo tells the crates of two checkouts apart by their
/// names and versions only.
const VERSION: &str = "0.0.0-previous";

/// Where its source is kept, if [`source`] found it.
#[must_use]
pub fn folder() -> PathBuf {
    paths::workspace().join("target/previous").join(COMMIT)
}

/// Its source, ready to be built; `None` where the history does not have it, as in a shallow clone or without git.
pub async fn source() -> Result<Option<PathBuf>> {
    let folder = folder();
    if folder.is_dir() {
        return Ok(Some(folder));
    }
    let mut known = git();
    known.args(["cat-file", "-e", &format!("{COMMIT}^{{commit}}")]);
    if command::output(known).await.is_err() {
        return Ok(None);
    }
    let partial = folder.with_extension("partial");
    let archive = folder.with_extension("tar");
    std::fs::create_dir_all(&partial).with_context(|| format!("cannot make {}", partial.display()))?;
    let mut write = git();
    write
        .args(["archive", "--format=tar", "--output"])
        .arg(&archive)
        .arg(COMMIT);
    command::output(write).await?;
    unpack(&archive, &partial).with_context(|| format!("cannot unpack {}", archive.display()))?;
    std::fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))?;
    // From here on it is complete.
    std::fs::rename(&partial, &folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(Some(folder))
}

fn git() -> Command {
    let mut git = Command::new("git");
    git.current_dir(paths::workspace());
    git
}

fn unpack(archive: &Path, folder: &Path) -> Result<()> {
    tar::Archive::new(std::fs::File::open(archive)?).unpack(folder)?;
    let manifest = folder.join("Cargo.toml");
    let text = std::fs::read_to_string(&manifest)?;
    std::fs::write(
        &manifest,
        with_version(&text).context("Cargo.toml has no version")?,
    )?;
    Ok(())
}

/// A workspace's manifest with [`VERSION`] in the place of its own, which is the first one that it gives.
fn with_version(manifest: &str) -> Option<String> {
    let version = manifest.lines().find(|line| line.starts_with("version = "))?;
    Some(manifest.replacen(version, &format!("version = \"{VERSION}\""), 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspaces_version_is_replaced_and_no_other() {
        let manifest = "[workspace.package]\nversion = \"0.1.0\"\n\n[workspace.dependencies]\na = { version = \"0.1.0\" }\n";
        assert_eq!(
            with_version(manifest).unwrap(),
            "[workspace.package]\nversion = \"0.0.0-previous\"\n\n[workspace.dependencies]\na = { version = \"0.1.0\" }\n"
        );
        assert_eq!(with_version("[workspace]\n"), None);
    }
}

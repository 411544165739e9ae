//! Checks that need no cluster.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use super::command::capture;
use super::table::Counts;
use super::{install_yaml, interruption};
use crate::progress::Progress;
use crate::tools::Clients;

/// One check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// Everything is formatted.
    Fmt,
    /// No warning.
    Clippy,
    /// Documentation builds without a warning.
    Docs,
    /// There is one TLS implementation.
    Ring,
    /// Unit tests of all crates.
    UnitTests,
    /// The chart is sound, and `install.yaml` is what it renders.
    Chart,
    /// An interrupted `up` leaves nothing that `down` does not remove.
    Interruption,
}

impl Check {
    pub(super) const ALL: [Self; 7] = [
        Self::Fmt,
        Self::Ring,
        Self::Chart,
        Self::Clippy,
        Self::Docs,
        Self::UnitTests,
        Self::Interruption,
    ];

    /// Its name on the command line and in the table.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Fmt => "fmt",
            Self::Clippy => "clippy",
            Self::Docs => "docs",
            Self::Ring => "ring",
            Self::UnitTests => "unit-tests",
            Self::Chart => "chart",
            Self::Interruption => "interruption",
        }
    }

    /// Whether it needs a cluster's programs, and the machine to be fit for one.
    pub(super) fn needs_tools(self) -> bool {
        self == Self::Interruption
    }

    /// Runs it in the repository `root`. `line` sees the output as it comes.
    pub(super) async fn run(
        self,
        root: &Path,
        progress: &Progress,
        line: impl FnMut(&str),
    ) -> Result<Counts> {
        match self {
            Self::Fmt => cargo(root, "fmt --all --check", line).await,
            Self::Clippy => cargo(root, "clippy --workspace --all-targets -- -D warnings", line).await,
            Self::Docs => {
                let mut command = cargo_command(root, "doc --workspace --no-deps --document-private-items");
                command.env("RUSTDOCFLAGS", "-D warnings");
                capture(command, line).await?.ok()?;
                Ok(Counts::one(true))
            }
            Self::Ring => ring(root, line).await,
            Self::UnitTests => unit_tests(root, line).await,
            Self::Chart => {
                let helm = Clients::built_helm(progress).await?;
                chart(root, &helm, line).await
            }
            Self::Interruption => interruption::run(line).await,
        }
    }
}

/// The cargo that runs us, without what it tells about the package that it runs.
pub(super) fn cargo_command(root: &Path, args: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_")
            || text.starts_with("CARGO_MANIFEST_")
            || text.starts_with("CARGO_BIN_")
        {
            command.env_remove(&name);
        }
    }
    command.current_dir(root).args(args.split_whitespace());
    command
}

async fn cargo(root: &Path, args: &str, line: impl FnMut(&str)) -> Result<Counts> {
    capture(cargo_command(root, args), line).await?.ok()?;
    Ok(Counts::one(true))
}

/// `cargo tree -i ring` must print nothing: ring beside aws-lc-rs is a second TLS implementation, and which of
/// them is used then depends on who asks first.
async fn ring(root: &Path, line: impl FnMut(&str)) -> Result<Counts> {
    let captured = capture(cargo_command(root, "tree --workspace --locked -i ring"), line).await?;
    if !captured.stdout.trim().is_empty() {
        bail!(
            "a dependency brings ring; leave out the feature that does:\n{}",
            captured.stdout
        );
    }
    // Cargo calls it an error when no package has that name, which is what we want.
    if !captured.success && !captured.output.contains("did not match any packages") {
        captured.ok()?;
    }
    Ok(Counts::one(true))
}

/// Counts each test; a test program that fails to build or crashes counts as one failure.
async fn unit_tests(root: &Path, line: impl FnMut(&str)) -> Result<Counts> {
    let mut command = cargo_command(root, "test --workspace --no-fail-fast --locked");
    // Snapshots are compared, never renewed here.
    command
        .env("INSTA_UPDATE", "no")
        .env("INSTA_WORKSPACE_ROOT", root);
    let captured = capture(command, line).await?;
    let counts = Counts::of_test_output(&captured.output);
    if counts.failed > 0 {
        let failures: Vec<_> = captured
            .output
            .lines()
            .filter(|line| line.starts_with("test ") && line.ends_with("FAILED"))
            .collect();
        let output = super::command::last_lines(&captured.output, 300);
        return Err(Failures { counts }).with_context(|| format!("{output}\n{}", failures.join("\n")));
    }
    captured.ok()?;
    if counts.passed == 0 {
        bail!("cargo test ran no test");
    }
    Ok(counts)
}

/// Some unit tests failed.
#[derive(Debug)]
pub(super) struct Failures {
    pub(super) counts: Counts,
}

impl std::fmt::Display for Failures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} unit tests failed", self.counts.failed)
    }
}

impl std::error::Error for Failures {}

async fn chart(root: &Path, helm: &Path, mut line: impl FnMut(&str)) -> Result<Counts> {
    let mut check = Command::new(helm);
    check
        .current_dir(root)
        .args(["lint", "--strict", install_yaml::CHART]);
    check
        .args(["--namespace", install_yaml::NAMESPACE])
        .args(["--kube-version", install_yaml::KUBE_VERSION]);
    capture(check, &mut line).await?.ok()?;
    let rendered = install_yaml::render(root, helm).await?;
    let path = root.join(install_yaml::PATH);
    let found =
        std::fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
    if found != rendered {
        let at = found
            .lines()
            .zip(rendered.lines())
            .take_while(|(a, b)| a == b)
            .count();
        bail!(
            "{} is not what the chart renders (first difference in line {}): run `cargo e2e install-yaml --write`",
            install_yaml::PATH,
            at + 1,
        );
    }
    Ok(Counts::one(true))
}

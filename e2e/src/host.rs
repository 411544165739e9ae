//! What the machine must bring: Debian's packages, Go, root. Missing packages are installed where that is possible.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use tokio::process::Command;

use crate::command;
use crate::progress::Progress;

/// A program of the machine, and the Debian package that brings it.
struct Requirement {
    program: &'static str,
    package: &'static str,
}

const REQUIREMENTS: [Requirement; 10] = [
    Requirement {
        program: "runc",
        package: "runc",
    },
    Requirement {
        program: "nft",
        package: "nftables",
    },
    Requirement {
        program: "conntrack",
        package: "conntrack",
    },
    Requirement {
        program: "socat",
        package: "socat",
    },
    Requirement {
        program: "ethtool",
        package: "ethtool",
    },
    Requirement {
        program: "iptables",
        package: "iptables",
    },
    Requirement {
        program: "ip",
        package: "iproute2",
    },
    Requirement {
        program: "nsenter",
        package: "util-linux",
    },
    Requirement {
        program: "setsid",
        package: "util-linux",
    },
    Requirement {
        program: "mount",
        package: "mount",
    },
];
const CNI_PACKAGE: &str = "containernetworking-plugins";
/// Where CNI plugins are: Debian's place, then that of the projects' own releases.
const CNI_FOLDERS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];
const CNI_PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];
const SBIN: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// The first Go that builds the modules below e2e/tools: containerd asks for it.
const GO: (u32, u32, u32) = (1, 26, 8);
/// How to become root and keep the toolchains that are in the caller's PATH.
const SUDO: &str = "run it with `sudo -E env \"PATH=$PATH\" cargo e2e ...`";

/// The folder of the machine's CNI plugins, if it has all that a node needs.
#[must_use]
pub fn cni_plugins() -> Option<&'static Path> {
    CNI_FOLDERS
        .into_iter()
        .map(Path::new)
        .find(|folder| CNI_PLUGINS.iter().all(|plugin| folder.join(plugin).exists()))
}

/// Makes the machine ready for a cluster, or says in one message all that it lacks and how to get it.
pub async fn prepare(progress: &Progress) -> Result<()> {
    let mut lacking = Vec::new();
    if !is_root() {
        lacking.push(format!(
            "root: a node is made of namespaces, mounts and control groups: {SUDO}"
        ));
    }
    if let Some(problem) = go_problem().await {
        lacking.push(problem);
    }
    let mut packages = missing_packages();
    if !packages.is_empty() && is_root() && find("apt-get").is_some() {
        install(&packages, progress).await?;
        packages = missing_packages();
    }
    if !packages.is_empty() {
        let packages = packages.join(" ");
        lacking.push(format!(
            "packages: `apt-get install {packages}`, or what brings the same programs elsewhere"
        ));
    }
    if !lacking.is_empty() {
        bail!("this machine lacks\n  - {}", lacking.join("\n  - "));
    }
    Ok(())
}

/// An error unless root runs this.
pub fn require_root() -> Result<()> {
    if !is_root() {
        bail!("clusters are made of namespaces, which only root may make and enter: {SUDO}");
    }
    Ok(())
}

/// An error unless the machine has a Go that builds the programs.
pub(crate) async fn require_go() -> Result<()> {
    match go_problem().await {
        Some(problem) => bail!("this machine lacks {problem}"),
        None => Ok(()),
    }
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SBIN.iter().map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

fn missing_packages() -> Vec<&'static str> {
    let mut packages: Vec<_> = REQUIREMENTS
        .iter()
        .filter(|requirement| find(requirement.program).is_none())
        .map(|requirement| requirement.package)
        .collect();
    if cni_plugins().is_none() {
        packages.push(CNI_PACKAGE);
    }
    packages.dedup();
    packages
}

async fn install(packages: &[&str], progress: &Progress) -> Result<()> {
    progress.say(format_args!("installing Debian packages: {}", packages.join(" ")));
    let apt = |arguments: &[&str]| {
        let mut apt = Command::new("apt-get");
        apt.args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
        apt
    };
    let install: Vec<&str> = ["install", "--yes", "--no-install-recommends"]
        .into_iter()
        .chain(packages.iter().copied())
        .collect();
    let first = progress.step("apt-get install", command::output(apt(&install)));
    if first.await.is_err() {
        // The package lists are missing or old.
        progress
            .step("apt-get update", command::output(apt(&["update"])))
            .await?;
        progress
            .step("apt-get install", command::output(apt(&install)))
            .await?;
    }
    Ok(())
}

async fn go_problem() -> Option<String> {
    let wanted = format!("Go {}.{}.{} or newer: https://go.dev/dl/", GO.0, GO.1, GO.2);
    let mut go = Command::new("go");
    go.args(["env", "GOVERSION"]);
    let Ok(version) = command::output(go).await else {
        return Some(format!("{wanted} (`go env GOVERSION` does not run)"));
    };
    match go_version(&version) {
        Some(version) if version >= GO => None,
        _ => Some(format!("{wanted} (found {})", version.trim())),
    }
}

/// What `go env GOVERSION` prints, such as `go1.26.8`, as numbers. A release candidate counts as its minor's first.
fn go_version(printed: &str) -> Option<(u32, u32, u32)> {
    let mut parts = printed
        .trim()
        .strip_prefix("go")?
        .split(|c: char| !c.is_ascii_digit());
    let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let patch = parts.next().and_then(|patch| patch.parse().ok());
    Some((major, minor, patch.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_versions_are_read() {
        assert_eq!(go_version("go1.26.8\n"), Some((1, 26, 8)));
        assert_eq!(go_version("go1.27"), Some((1, 27, 0)));
        assert_eq!(go_version("devel"), None);
        assert!(go_version("go1.27rc1").unwrap() > GO && (1, 26, 7) < GO);
    }
}

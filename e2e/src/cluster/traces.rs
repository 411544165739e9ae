//! What a cluster could leave on the machine, listed so that two moments can be compared.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::{cgroup, processes};
use crate::paths;

/// Folders of the machine that Kubernetes' components write to where nobody keeps them from it.
const FOLDERS: [&str; 12] = [
    "/etc/cni",
    "/etc/containerd",
    "/etc/kubernetes",
    "/run/containerd",
    "/run/flannel",
    "/run/netns",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/log/containers",
    "/var/log/pods",
];

/// Each trace by a text that names it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Traces(BTreeSet<String>);

impl Traces {
    /// What there is now: processes and files of this cluster, and of the whole machine mounts, network namespaces
    /// with a process in them, network interfaces, control groups, and files where Kubernetes keeps its own.
    pub(crate) fn read(cluster: &Path) -> Result<Self> {
        let mut found = BTreeSet::new();
        found.extend(processes::of_cluster(cluster).map(|pid| format!("process {pid}")));
        if cluster.exists() {
            found.insert(format!("folder {}", cluster.display()));
        }
        found.extend(list(&paths::cache()?.join("clusters")));
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
        // The first fields are numbers that are given anew to every mount.
        let place = |line: &str| line.split_whitespace().nth(4).map(|path| format!("mount {path}"));
        found.extend(mounts.lines().filter_map(place));
        let namespaces =
            processes::all().filter_map(|pid| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok());
        found.extend(namespaces.map(|namespace| format!("network namespace {}", namespace.display())));
        found.extend(list(Path::new("/sys/class/net")));
        for root in cgroup::roots()? {
            found.extend(list(&root));
        }
        for folder in FOLDERS {
            found.extend(list(Path::new(folder)));
        }
        Ok(Self(found))
    }

    /// What is there that was not there before.
    pub(crate) fn since<'a>(&'a self, before: &'a Self) -> Vec<&'a str> {
        self.0.difference(&before.0).map(String::as_str).collect()
    }
}

/// A folder and what is in it; nothing if there is no such folder.
fn list(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let entries = entries.flatten().map(|entry| entry.path().display().to_string());
    std::iter::once(folder.display().to_string())
        .chain(entries)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_new_is_named() {
        let cluster = tempfile::tempdir().unwrap();
        let path = cluster.path().join("cluster");
        let before = Traces::read(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        let after = Traces::read(&path).unwrap();
        let expected = format!("folder {}", path.display());
        // Other tests make and end processes meanwhile.
        assert!(after.since(&before).contains(&expected.as_str()));
        assert!(!before.since(&after).contains(&expected.as_str()));
    }
}

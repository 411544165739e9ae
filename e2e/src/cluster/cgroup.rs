//! The control groups of nodes: one a node in every hierarchy, below which its kubelet keeps those of its pods.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// A killed process leaves its control group within moments.
const EMPTY_WITHIN: Duration = Duration::from_secs(15);
const POLL: Duration = Duration::from_millis(50);
const MOUNTS: &str = "/proc/self/mountinfo";

/// Where control groups are mounted.
#[derive(Debug, Default, PartialEq)]
struct Hierarchies {
    /// One folder a controller, or a few.
    v1: Vec<PathBuf>,
    /// One folder for all. Beside v1 it has no controller, but runc makes groups there too.
    v2: Option<PathBuf>,
}

impl Hierarchies {
    fn read() -> Result<Self> {
        let found =
            Self::of(&std::fs::read_to_string(MOUNTS).with_context(|| format!("cannot read {MOUNTS}"))?);
        if found == Self::default() {
            bail!("no cgroup file system is mounted: mount one at /sys/fs/cgroup");
        }
        Ok(found)
    }

    fn of(mountinfo: &str) -> Self {
        let mut found = Self::default();
        for line in mountinfo.lines() {
            // `mount-id parent major:minor root MOUNT-POINT options… - TYPE source options`
            let Some((before, after)) = line.split_once(" - ") else {
                continue;
            };
            let Some(path) = before.split_whitespace().nth(4).map(PathBuf::from) else {
                continue;
            };
            match after.split_whitespace().next() {
                Some("cgroup") => found.v1.push(path),
                Some("cgroup2") => found.v2 = Some(path),
                _ => {}
            }
        }
        found
    }
}

/// Makes a node's control group in every hierarchy.
pub(crate) fn create(name: &str) -> Result<()> {
    let hierarchies = Hierarchies::read()?;
    match hierarchies.v2 {
        Some(root) if hierarchies.v1.is_empty() => create_v2(&root, name),
        _ => hierarchies
            .v1
            .iter()
            .try_for_each(|hierarchy| create_v1(hierarchy, name)),
    }
}

fn create_v1(hierarchy: &Path, name: &str) -> Result<()> {
    let group = make(hierarchy, name)?;
    // A new group of the cpuset hierarchy has no CPU and no memory until it is given some.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let inherited = hierarchy.join(file);
        if inherited.is_file() {
            std::fs::copy(&inherited, group.join(file))
                .with_context(|| format!("cannot copy {}", inherited.display()))?;
        }
    }
    Ok(())
}

/// Untried: no machine on which this was developed has cgroup v2 alone.
fn create_v2(root: &Path, name: &str) -> Result<()> {
    // The kubelet refuses a root group that lacks a controller; it passes them on below by itself.
    let controllers = std::fs::read_to_string(root.join("cgroup.controllers"))?;
    let control = root.join("cgroup.subtree_control");
    for controller in controllers.split_whitespace() {
        std::fs::write(&control, format!("+{controller}"))
            .with_context(|| format!("cannot enable {controller} in {}", control.display()))?;
    }
    make(root, name).map(drop)
}

fn make(hierarchy: &Path, name: &str) -> Result<PathBuf> {
    let group = hierarchy.join(name);
    std::fs::create_dir_all(&group)
        .with_context(|| format!("cannot make the control group {}", group.display()))?;
    Ok(group)
}

/// Where each hierarchy is mounted.
pub(crate) fn roots() -> Result<Vec<PathBuf>> {
    let hierarchies = Hierarchies::read()?;
    Ok(hierarchies.v1.into_iter().chain(hierarchies.v2).collect())
}

/// Removes the control groups whose name is the prefix and a number, with all below them, once they are empty.
pub(crate) async fn remove(prefix: &str) -> Result<()> {
    let groups: Vec<PathBuf> = roots()?.iter().flat_map(|root| named(root, prefix)).collect();
    let deadline = Instant::now() + EMPTY_WITHIN;
    for group in groups {
        while let Err(error) = remove_tree(&group) {
            // A hierarchy that is mounted twice shows each group twice.
            if error.kind() == std::io::ErrorKind::NotFound && !group.exists() {
                break;
            }
            if Instant::now() > deadline {
                return Err(error)
                    .with_context(|| format!("cannot remove the control group {}", group.display()));
            }
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

fn named(root: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let numbered = |name: &String| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
    };
    names.filter(numbered).map(|name| root.join(name)).collect()
}

/// A control group is removed by rmdir, deepest first; its files go with it.
fn remove_tree(group: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    std::fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1: &str = "30 29 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      31 30 0:27 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n\
                      32 30 0:28 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory\n\
                      33 30 0:29 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    const V2: &str = "30 29 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn hierarchies_are_read_from_the_mounts() {
        let path = |path: &str| PathBuf::from(path);
        let hybrid = Hierarchies::of(V1);
        assert_eq!(
            hybrid.v1,
            [path("/sys/fs/cgroup/cpu"), path("/sys/fs/cgroup/memory")]
        );
        assert_eq!(hybrid.v2, Some(path("/sys/fs/cgroup/unified")));
        assert_eq!(
            Hierarchies::of(V2),
            Hierarchies {
                v1: vec![],
                v2: Some(path("/sys/fs/cgroup"))
            }
        );
        assert_eq!(Hierarchies::of(""), Hierarchies::default());
    }

    #[test]
    fn only_groups_of_the_prefix_and_a_number_are_ours() {
        let root = tempfile::tempdir().unwrap();
        for name in ["p-1", "p-12", "p-", "p-x", "p-1-1", "q-1"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        let mut found = named(root.path(), "p-");
        found.sort();
        assert_eq!(found, [root.path().join("p-1"), root.path().join("p-12")]);
    }

    #[test]
    fn trees_are_removed_deepest_first() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("group/kubepods/pod")).unwrap();
        remove_tree(&root.path().join("group")).unwrap();
        assert!(!root.path().join("group").exists());
    }
}

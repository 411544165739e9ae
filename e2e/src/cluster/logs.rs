//! The logs of a cluster: components of nodes and containers of pods.

use std::fmt::Write as _;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use crate::command::last_lines;

/// Enough for some hundred lines; a log may be of any size.
const TAIL_BYTES: i64 = 256 * 1024;
/// What a failure shows of each log.
const FAILURE_LINES: usize = 12;

/// The last lines of a file; empty if there is none.
pub(crate) fn tail(file: &Path, lines: usize) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(file)?;
        if file.metadata()?.len() > TAIL_BYTES.unsigned_abs() {
            file.seek(SeekFrom::End(-TAIL_BYTES))?;
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    last_lines(&String::from_utf8_lossy(&read().unwrap_or_default()), lines)
}

/// All log files of a cluster whose path below its folder contains the text, in order of their paths.
pub(crate) fn files(cluster: &Path, containing: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(cluster, 1, &mut found);
    for node in entries(cluster) {
        collect(&node.join("logs"), 1, &mut found);
        // var/log/pods/NAMESPACE_POD_UID/CONTAINER/RESTART.log
        collect(&node.join("var/log/pods"), 3, &mut found);
    }
    let matches = |file: &PathBuf| {
        file.strip_prefix(cluster)
            .is_ok_and(|below| below.to_string_lossy().contains(containing))
    };
    found.retain(matches);
    found.sort();
    found
}

fn collect(folder: &Path, depth: u8, found: &mut Vec<PathBuf>) {
    for entry in entries(folder) {
        if entry.is_file() && entry.extension().is_some_and(|extension| extension == "log") {
            found.push(entry);
        } else if depth > 1 && entry.is_dir() {
            collect(&entry, depth - 1, found);
        }
    }
}

fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}

/// The last lines of every log that matches, each under its path.
#[must_use]
pub fn show(cluster: &Path, containing: &str, lines: usize) -> String {
    files(cluster, containing)
        .into_iter()
        .fold(String::new(), |mut text, file| {
            let name = file.strip_prefix(cluster).unwrap_or(&file);
            // Writing to a string cannot fail.
            let _infallible = writeln!(text, "==> {} <==\n{}\n", name.display(), tail(&file, lines));
            text
        })
}

/// The last lines of the components that a failure may come from.
pub(crate) fn of_failure(cluster: &Path, components: &[&str]) -> String {
    components
        .iter()
        .map(|component| show(cluster, component, FAILURE_LINES))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_of_components_and_containers_are_found_by_a_part_of_their_path() {
        let cluster = tempfile::tempdir().unwrap();
        let pod = cluster
            .path()
            .join("node-1/var/log/pods/kube-system_kube-apiserver-node-1_1/kube-apiserver");
        std::fs::create_dir_all(cluster.path().join("node-1/logs")).unwrap();
        std::fs::create_dir_all(&pod).unwrap();
        std::fs::write(cluster.path().join("node-1/logs/kubelet.log"), "one\ntwo\n").unwrap();
        std::fs::write(pod.join("0.log"), "started\n").unwrap();
        std::fs::write(cluster.path().join("node-1/logs/kubelet.txt"), "no log").unwrap();
        assert_eq!(files(cluster.path(), "").len(), 2);
        assert_eq!(
            show(cluster.path(), "kubelet", 1),
            "==> node-1/logs/kubelet.log <==\ntwo\n\n"
        );
        assert!(show(cluster.path(), "kube-apiserver", 1).contains("started"));
    }

    #[test]
    fn a_long_log_is_read_from_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("long.log");
        std::fs::write(&file, format!("{}\nlast\n", "x".repeat(300 * 1024))).unwrap();
        assert_eq!(tail(&file, 1), "last");
        assert_eq!(tail(&folder.path().join("none"), 1), "");
    }
}

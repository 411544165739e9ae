//! Which processes of the machine belong to a cluster: those that carry its folder in their environment.
//!
//! Every process of a cluster inherits that variable, so that those of an interrupted `up` are found as well, before
//! anything about them was written down. Containers do not carry it; they end with their node's first process.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

/// The variable; its value is the cluster's folder.
pub(crate) const MARKER: &str = "METRICSSTACK_E2E_CLUSTER";
const GONE_WITHIN: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(50);
/// How often nothing must be found before nothing is there: a program that is just being started has no environment for
/// a moment.
const EMPTY_LOOKS: u32 = 3;

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// Clock ticks between the machine's start and the process's.
    started: u64,
}

impl Process {
    /// The process that has this number now.
    pub(crate) fn of(pid: u32) -> Result<Self> {
        let stat = stat(pid).with_context(|| format!("there is no process {pid}"))?;
        Ok(Self {
            pid,
            started: stat.started,
        })
    }

    /// Whether it still runs.
    pub(crate) fn is_alive(self) -> bool {
        stat(self.pid).is_some_and(|stat| stat.started == self.started && !stat.ended)
    }

    /// Its one child.
    pub(crate) fn child(self) -> Result<Self> {
        let child = all().find(|pid| stat(*pid).is_some_and(|stat| stat.parent == self.pid));
        Self::of(child.with_context(|| format!("process {} has no child", self.pid))?)
    }

    /// The file that stands for its network namespace.
    pub(crate) fn network(self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.pid))
    }
}

/// Ends every process of a cluster except this one and those that started it, and waits until they are gone.
pub(crate) async fn end_all(folder: &Path) -> Result<()> {
    let spared = ancestry(std::process::id());
    let deadline = Instant::now() + GONE_WITHIN;
    let mut empty_looks = 0;
    loop {
        let found: Vec<String> = of_cluster(folder)
            .filter(|pid| !spared.contains(pid))
            .map(|pid| pid.to_string())
            .collect();
        if found.is_empty() {
            empty_looks += 1;
            if empty_looks == EMPTY_LOOKS {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
            continue;
        }
        empty_looks = 0;
        if Instant::now() > deadline {
            bail!("processes {} of {} do not end", found.join(" "), folder.display());
        }
        let mut kill = tokio::process::Command::new("sh");
        // Some may have ended by themselves in between, which is no failure.
        kill.args(["-c", "kill -KILL \"$@\" 2>/dev/null || true", "sh"])
            .args(&found);
        crate::command::output(kill).await?;
        tokio::time::sleep(POLL).await;
    }
}

/// The processes that carry the cluster's folder in their environment.
pub(crate) fn of_cluster(folder: &Path) -> impl Iterator<Item = u32> {
    let wanted = [MARKER.as_bytes(), b"=", folder.as_os_str().as_encoded_bytes()].concat();
    all().filter(move |pid| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|variable| variable == wanted)
    })
}

fn ancestry(pid: u32) -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut next = pid;
    while next != 0 && found.insert(next) {
        next = stat(next).map_or(0, |stat| stat.parent);
    }
    found
}

/// Every process of the machine.
pub(crate) fn all() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

struct Stat {
    parent: u32,
    started: u64,
    ended: bool,
}

fn stat(pid: u32) -> Option<Stat> {
    parse_stat(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Reads `/proc/PID/stat`: the name in parentheses may hold anything, so the fields are counted behind the last one.
fn parse_stat(stat: &str) -> Option<Stat> {
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        ended: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_itself_and_its_parent_is_spared() {
        let own = Process::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        assert!(
            !Process {
                started: own.started + 1,
                ..own
            }
            .is_alive()
        );
        let spared = ancestry(own.pid);
        assert!(spared.contains(&own.pid) && spared.contains(&stat(own.pid).unwrap().parent));
    }

    #[test]
    fn a_name_with_parentheses_and_blanks_does_not_shift_the_fields() {
        let line = format!("12 (a) Z (b) S 7 {} 4242 0", ["0"; 17].join(" "));
        let stat = parse_stat(&line).unwrap();
        assert_eq!((stat.parent, stat.started, stat.ended), (7, 4242, false));
        assert!(parse_stat("12 (sh) S").is_none());
    }

    #[tokio::test]
    async fn marked_processes_are_ended_and_others_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let sleep = |marker: &Path| {
            let mut sleep = tokio::process::Command::new("sleep");
            sleep
                .arg("600")
                .env(MARKER, marker)
                .kill_on_drop(true)
                .spawn()
                .unwrap()
        };
        let mut marked = sleep(folder.path());
        let mut other = sleep(&folder.path().join("other"));
        end_all(folder.path()).await.unwrap();
        assert!(!marked.wait().await.unwrap().success());
        assert!(other.try_wait().unwrap().is_none());
    }
}

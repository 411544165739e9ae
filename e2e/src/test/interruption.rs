//! `up` may be killed at any moment: `down` removes what it left. `up` of what is up changes nothing.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::process::{Child, Command};

use super::table::Counts;
use crate::cluster::{Cluster, Traces};

const CLUSTER: &str = "test-killed";
/// Files of the cluster's folder that appear as `up` comes along, each a moment at which it is killed: with a switch
/// only, with containerd, with a control plane about to start, and with everything running.
const MOMENTS: [&str; 4] = [
    "switch.log",
    "node-2/logs/containerd.log",
    "node-1/upper-etc/kubernetes/manifests/kube-apiserver.yaml",
    "kubeconfig",
];
const COMES_WITHIN: Duration = Duration::from_mins(2);
/// The kernel takes its time to end namespaces.
const GONE_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

pub(super) async fn run(mut line: impl FnMut(&str)) -> Result<Counts> {
    Cluster::down(CLUSTER).await?;
    let folder = Cluster::folder(CLUSTER)?;
    let before = Traces::read(&folder)?;
    for moment in MOMENTS {
        line(moment);
        killed(&folder, moment)
            .await
            .with_context(|| format!("`up` killed when there was {moment}"))?;
        removed(&folder, &before)
            .await
            .with_context(|| format!("`down` after `up` was killed when there was {moment}"))?;
    }
    line("up twice");
    let twice = twice(&folder).await;
    let gone = removed(&folder, &before).await;
    twice.and(gone).map(|()| Counts::one(true))
}

fn up() -> Result<Child> {
    // The file may be replaced by a build meanwhile; this stays the program that is running.
    let this = format!("/proc/{}/exe", std::process::id());
    Command::new(this)
        .args(["up", "--cluster", CLUSTER])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start cargo e2e up")
}

/// Kills `up` as soon as the file is there.
async fn killed(folder: &Path, moment: &str) -> Result<()> {
    let mut up = up()?;
    let deadline = Instant::now() + COMES_WITHIN;
    while !folder.join(moment).exists() {
        if let Some(status) = up.try_wait()? {
            bail!("it ended before: {status}");
        }
        ensure!(
            Instant::now() < deadline,
            "it did not come within {COMES_WITHIN:?}"
        );
        tokio::time::sleep(POLL).await;
    }
    up.kill().await.context("cannot kill it")
}

/// Removes the cluster and waits until the machine is as before.
async fn removed(folder: &Path, before: &Traces) -> Result<()> {
    let existed = Cluster::down(CLUSTER).await?;
    ensure!(existed, "there was nothing to remove");
    let deadline = Instant::now() + GONE_WITHIN;
    loop {
        let now = Traces::read(folder)?;
        let left = now.since(before);
        if left.is_empty() {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "left on the machine: {}",
            left.join(", ")
        );
        tokio::time::sleep(POLL).await;
    }
}

/// The second `up` finds the first one's cluster and leaves it as it is.
async fn twice(folder: &Path) -> Result<()> {
    let state = || std::fs::read(folder.join("state.json")).context("no state of the cluster");
    ensure!(up()?.wait().await?.success(), "`up` failed");
    let first = state()?;
    ensure!(up()?.wait().await?.success(), "the second `up` failed");
    ensure!(state()? == first, "the second `up` made another cluster");
    Ok(())
}

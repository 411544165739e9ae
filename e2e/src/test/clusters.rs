//! The clusters of a run: made when the first scenario needs one, shared, removed at the end.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow, bail};

use super::command::capture;
use super::install_yaml::NAMESPACE;
use crate::cluster::Cluster;
use crate::image::Image;
use crate::progress::Progress;
use crate::scenarios::{ClusterKind, DEADLINE_GRACE, Scenario, diagnostics};
use crate::tools::Tools;

/// The clusters of a run.
#[derive(Default)]
pub(super) struct Clusters {
    images: Option<Vec<Image>>,
    made: BTreeMap<ClusterKind, Option<Cluster>>,
    /// What was run on each.
    ran: BTreeMap<ClusterKind, Vec<&'static str>>,
}

impl Clusters {
    /// What is loaded into each cluster.
    pub(super) fn set_images(&mut self, images: Option<Vec<Image>>) {
        self.images = images;
    }

    /// Makes the cluster unless that was tried before, which gives `None`.
    pub(super) async fn prepare(
        &mut self,
        kind: ClusterKind,
        tools: Option<&Tools>,
        progress: &Progress,
    ) -> Option<Result<()>> {
        if self.made.contains_key(&kind) {
            return None;
        }
        // Known from here on, so that what an interrupt leaves half made is removed.
        self.made.insert(kind, None);
        Some(self.up(kind, tools, progress).await)
    }

    async fn up(&mut self, kind: ClusterKind, tools: Option<&Tools>, progress: &Progress) -> Result<()> {
        let tools = tools.context("not made, for there are no tools")?;
        let images = self
            .images
            .as_deref()
            .context("not made, for there are no images")?;
        let cluster = Cluster::up(&kind.spec(), tools, progress).await?;
        for image in images {
            let importing = cluster.import_image(&image.archive);
            progress
                .step(format_args!("importing {}", image.reference), importing)
                .await?;
        }
        // A cluster that an earlier run kept may run pods of an older image.
        let pods = [
            "--namespace",
            NAMESPACE,
            "delete",
            "pods",
            "--all",
            "--wait=false",
        ];
        cluster.kubectl(&pods).await?;
        self.made.insert(kind, Some(cluster));
        Ok(())
    }

    /// Runs a scenario in a process of its own, within the network of its cluster.
    pub(super) async fn run(&mut self, scenario: &Scenario, progress: &Progress) -> Result<()> {
        let before = self.ran.entry(scenario.cluster).or_default();
        let ran = format!("--ran={}", before.join(","));
        before.push(scenario.name);
        let cluster = self
            .get(scenario.cluster)
            .ok_or_else(|| anyhow!("not run, for there is no cluster"))?;
        // The file may be replaced by a build meanwhile; this stays the program that is running.
        let this = format!("/proc/{}/exe", std::process::id());
        let mut command = cluster.command(&this);
        command.args([
            "scenario",
            "--cluster",
            scenario.cluster.name(),
            &ran,
            scenario.name,
        ]);
        progress.say(format_args!("{}/{}", scenario.group.name(), scenario.name));
        let ended = capture(command, |line| eprintln!("             {line}"));
        match tokio::time::timeout(scenario.deadline + DEADLINE_GRACE, ended).await {
            Ok(ended) if ended.as_ref().is_ok_and(|captured| captured.success) => Ok(()),
            Ok(ended) => ended.and_then(|captured| bail!("{}", captured.error())),
            Err(_) => bail!("no end within {:?}", scenario.deadline + DEADLINE_GRACE),
        }
    }

    /// Prints what helps to understand a failure.
    pub(super) async fn diagnose(&self, kind: ClusterKind) {
        if let Some(cluster) = self.get(kind) {
            eprintln!("{}", diagnostics::collect(cluster).await);
        }
    }

    /// Removes what no later scenario needs.
    pub(super) async fn remove_all_but(&mut self, needed: &[ClusterKind], progress: &Progress) -> Result<()> {
        let unneeded: Vec<_> = self
            .made
            .keys()
            .copied()
            .filter(|kind| !needed.contains(kind))
            .collect();
        let mut result = Ok(());
        for kind in unneeded {
            let removal = Cluster::down(kind.name());
            let removed = progress
                .step(format_args!("removing the cluster {}", kind.name()), removal)
                .await;
            if removed.is_ok() {
                self.made.remove(&kind);
            }
            result = result.and(removed.map(drop));
        }
        result
    }

    /// Says how to use and remove what is kept.
    pub(super) fn tell(&self, progress: &Progress) {
        for kind in self.made.keys() {
            let name = kind.name();
            progress.say(format_args!(
                "kept: cargo e2e kubectl --cluster {name} ..., remove it by cargo e2e down --cluster {name}"
            ));
        }
    }

    fn get(&self, kind: ClusterKind) -> Option<&Cluster> {
        self.made.get(&kind).and_then(Option::as_ref)
    }
}

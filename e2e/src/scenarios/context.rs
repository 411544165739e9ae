//! What every scenario works with.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tokio::process::Command;

use crate::cluster::Cluster;
use crate::command;
use crate::progress::Progress;

/// The cluster of a scenario, and ways to it.
pub(crate) struct Context {
    /// The cluster.
    pub(super) cluster: Cluster,
    /// kube-apiserver, as an administrator.
    pub(super) client: Client,
    /// Names of the scenarios that were run before on the cluster.
    pub(super) ran: Vec<String>,
    /// For lines about what is under way.
    pub(super) progress: Progress,
}

impl Context {
    pub(super) async fn new(cluster: &str, ran: Vec<String>) -> Result<Self> {
        // An error means that there is a provider already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let cluster = Cluster::find(cluster)?;
        let client = client(cluster.kubeconfig()).await?;
        Ok(Self {
            cluster,
            client,
            ran,
            progress: Progress::new(),
        })
    }

    /// Prints a line.
    pub(super) fn say(&self, line: impl std::fmt::Display) {
        self.progress.say(line);
    }

    /// Runs kubectl as an administrator; gives its standard output.
    pub(super) async fn kubectl(&self, args: &[&str]) -> Result<String> {
        self.cluster.kubectl(args).await
    }

    /// Pipes `manifest` into `kubectl apply`.
    pub(super) async fn apply(&self, manifest: &str) -> Result<String> {
        self.cluster
            .kubectl_stdin(["apply", "--filename", "-"], manifest)
            .await
    }

    /// kubectl, to be started.
    pub(super) fn kubectl_command(&self, args: &[&str]) -> Command {
        let mut command = self.cluster.command("kubectl");
        command.args(args).kill_on_drop(true);
        command
    }

    /// Runs Helm; gives its standard output.
    pub(super) async fn helm(&self, args: &[&str]) -> Result<String> {
        self.cluster.helm(args).await
    }

    /// The content of a file of node 1, where the control plane is.
    pub(super) async fn control_plane_file(&self, path: &str) -> Result<String> {
        let mut command = self.cluster.node_command(1, "cat")?;
        command.arg(path);
        command::output(command).await
    }

    /// Our own address towards nodes and pods.
    pub(super) fn own_address(&self) -> Result<Ipv4Addr> {
        // Connecting a datagram socket sends nothing; it only asks for the route.
        let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect((self.cluster.node_ip(1), 9))?;
        match socket.local_addr()?.ip() {
            IpAddr::V4(address) => Ok(address),
            IpAddr::V6(address) => {
                anyhow::bail!("the nodes' network is IPv4, yet our address there is {address}")
            }
        }
    }
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig)
        .with_context(|| format!("failed to read {}", kubeconfig.display()))?;
    let mut config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(Duration::from_secs(5));
    // Watches are given a shorter life than this.
    config.read_timeout = Some(Duration::from_mins(1));
    Ok(Client::try_from(config)?)
}

//! A node: network, mount, pid and uts namespaces, held by one process whose end ends everything in them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use super::config::TOOLS;
use super::logs;
use super::processes::{MARKER, Process};
use super::spec::{GATEWAY, node_address, node_name, node_routes, switch_routes};
use crate::command;
use crate::tools::Tools;

const SWITCH_SCRIPT: &str = include_str!("switch.sh");
const NODE_SCRIPT: &str = include_str!("node.sh");
const READY_WITHIN: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(300);
/// What a component's log says last, after its name and before its status, once the component has ended.
const ENDED: &str = "ended with status";
const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A node that runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Node {
    pub(crate) number: u8,
    /// The first process of its pid namespace.
    pub(crate) init: Process,
    /// The cluster's folder.
    pub(crate) cluster: PathBuf,
    path: String,
}

/// The folder of one node below its cluster's.
pub(crate) fn folder(cluster: &Path, node: u8) -> PathBuf {
    cluster.join(node_name(node))
}

/// Starts the switch: a network namespace with a bridge.
pub(crate) async fn start_switch(cluster: &Path, nodes: u8, tools: &Tools) -> Result<Process> {
    let mut arguments = vec![
        tools.program("pause")?.into_os_string(),
        GATEWAY.to_string().into(),
    ];
    for (range, via) in switch_routes(nodes) {
        arguments.extend([range.into(), via.to_string().into()]);
    }
    start(
        cluster,
        &["--net"],
        SWITCH_SCRIPT,
        &arguments,
        &cluster.join("switch.log"),
    )
    .await
}

/// Starts a node's namespaces and connects it to the switch. No component runs in it yet.
pub(crate) async fn start_node(
    cluster: &Path,
    number: u8,
    nodes: u8,
    switch: Process,
    tools: &Tools,
) -> Result<Node> {
    let folder = folder(cluster, number);
    for part in [
        "run",
        "files/cni",
        "logs",
        "upper-etc",
        "work-etc",
        "upper-usr",
        "work-usr",
        "var/lib",
        "var/log",
        "var/tmp",
        "var/cache",
    ] {
        let path = folder.join(part);
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    // The machine's name servers are out of reach, and its file may be a link into a folder that a node has not.
    std::fs::write(
        folder.join("upper-etc/resolv.conf"),
        "# No name server: the cluster's network leads nowhere else.\n",
    )?;
    let mut arguments = vec![folder.clone().into_os_string(), node_name(number).into()];
    arguments.extend(tools.folders().iter().map(|tools| tools.clone().into_os_string()));
    let namespaces = ["--net", "--mount", "--pid", "--uts", "--fork", "--mount-proc"];
    let outer = start(
        cluster,
        &namespaces,
        NODE_SCRIPT,
        &arguments,
        &folder.join("logs/init.log"),
    )
    .await?;
    let mut path: String = tools
        .folders()
        .iter()
        .filter_map(|tools| tools.file_name()?.to_str())
        .fold(String::new(), |mut path, tools| {
            path.extend([TOOLS, "/", tools, ":"]);
            path
        });
    path.push_str(SYSTEM_PATH);
    let node = Node {
        number,
        init: outer.child()?,
        cluster: cluster.to_path_buf(),
        path,
    };
    node.connect(nodes, switch).await?;
    Ok(node)
}

/// Starts a process in namespaces of its own and waits until its script says `ready`.
async fn start(
    cluster: &Path,
    namespaces: &[&str],
    script: &str,
    arguments: &[std::ffi::OsString],
    log: &Path,
) -> Result<Process> {
    let file = std::fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = Command::new("setsid")
        .arg("unshare")
        .args(namespaces)
        .args(["sh", "-c", script, "sh"])
        .args(arguments)
        .env("PATH", SYSTEM_PATH)
        .env(MARKER, cluster)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file)
        .spawn()
        .context("cannot start setsid unshare")?;
    let pid = child.id().context("unshare ended at once")?;
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        let mut stdout = BufReader::new(stdout);
        tokio::time::timeout(READY_WITHIN, stdout.read_line(&mut line))
            .await
            .with_context(|| {
                format!(
                    "unshare {} is not ready in time: see {}",
                    namespaces.join(" "),
                    log.display()
                )
            })??;
    }
    if line.trim() != "ready" {
        bail!("unshare {} failed\n{}", namespaces.join(" "), logs::tail(log, 10));
    }
    Process::of(pid)
}

impl Node {
    /// The node's folder, as the machine sees it.
    pub(crate) fn folder(&self) -> PathBuf {
        folder(&self.cluster, self.number)
    }

    /// The log file of one of its components.
    pub(crate) fn log(&self, component: &str) -> PathBuf {
        self.folder().join("logs").join(format!("{component}.log"))
    }

    /// A file of the node, as the machine sees it: what is below its /etc or /var.
    pub(crate) fn file(&self, path: &str) -> PathBuf {
        let relative = path.trim_start_matches('/');
        match relative.strip_prefix("etc/") {
            Some(below_etc) => self.folder().join("upper-etc").join(below_etc),
            None => self.folder().join(relative),
        }
    }

    /// A command inside the node.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.enter(&["--net", "--mount", "--pid", "--uts"]);
        command
            .arg(program)
            .env("PATH", &self.path)
            .env("HOME", "/run/metricsstack-e2e")
            .env("KUBECONFIG", "/etc/kubernetes/admin.conf");
        command
    }

    fn enter(&self, namespaces: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--target={}", self.init.pid))
            .args(namespaces)
            .arg("--")
            .env(MARKER, &self.cluster);
        command
    }

    async fn connect(&self, nodes: u8, switch: Process) -> Result<()> {
        let veth = node_name(self.number);
        let mut plug = Command::new("nsenter");
        plug.arg(format!("--net={}", switch.network().display()))
            .args(["sh", "-euc", "ip link add \"$1\" type veth peer name eth0 netns \"$2\"; ip link set \"$1\" master switch up"])
            .args(["sh", &veth, &self.init.pid.to_string()])
            .env(MARKER, &self.cluster);
        command::output(plug).await?;
        let routes = node_routes(self.number, nodes);
        let routes = routes
            .iter()
            .map(|(range, via)| format!("; ip route add {range} via {via}"));
        let script = format!(
            "ip link set lo up; ip addr add {}/24 dev eth0; ip link set eth0 up; ip route add default via {GATEWAY}{}",
            node_address(self.number),
            routes.collect::<String>()
        );
        let mut address = self.enter(&["--net"]);
        address.args(["sh", "-euc", &script]);
        command::output(address).await.map(drop)
    }

    /// Waits until a component ends, which none should: its end is an error with its last lines.
    pub(crate) async fn end_of(&self, component: &str) -> anyhow::Error {
        let log = self.log(component);
        while !logs::tail(&log, 1).starts_with(&format!("{component} {ENDED}")) {
            tokio::time::sleep(POLL).await;
        }
        anyhow!(
            "{component} on {} ended\n{}",
            node_name(self.number),
            logs::tail(&log, 10)
        )
    }

    /// Starts a component that outlives the harness; its node's first process becomes its parent.
    pub(crate) async fn spawn(&self, component: &str, program: &str, arguments: &[&str]) -> Result<()> {
        let log = self.log(component);
        let file = std::fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let status = self
            .command("sh")
            .args([
                "-c",
                &format!("setsid sh -c '\"$@\"; echo \"$0 {ENDED} $?\"' \"$@\" &"),
                "sh",
                component,
                program,
            ])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .status()
            .await
            .with_context(|| format!("cannot start {component}"))?;
        if !status.success() {
            bail!(
                "{component} on {}: {status}\n{}",
                node_name(self.number),
                logs::tail(&log, 10)
            );
        }
        Ok(())
    }
}

//! Kubernetes clusters on this machine: each node is a set of namespaces of its own.

mod bootstrap;
mod cgroup;
mod config;
mod logs;
mod node;
mod processes;
mod spec;
mod traces;

use std::ffi::OsStr;
use std::fs::File;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use futures::future::try_join_all;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

pub(crate) use self::config::AUDIT_LOG;
pub use self::logs::show as show_logs;
pub use self::spec::{ClusterSpec, ServingCertificates};
pub(crate) use self::traces::Traces;

use self::node::Node;
use self::processes::{MARKER, Process};
use crate::progress::Progress;
use crate::tools::{self, Tools};
use crate::{command, host, paths};

const STATE: &str = "state.json";
/// Time within which nobody writes any more to the folder of a cluster whose processes were killed.
const EMPTIED_WITHIN: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(50);

/// A cluster that runs.
#[derive(Clone, Debug)]
pub struct Cluster {
    dir: PathBuf,
    kubeconfig: PathBuf,
    state: State,
    nodes: Vec<Node>,
}

/// What is written down about a cluster, for the next command.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    spec: ClusterSpec,
    tools: Vec<PathBuf>,
    switch: Process,
    nodes: Vec<Node>,
    /// Whether `up` came to its end.
    complete: bool,
}

impl Cluster {
    /// Brings a cluster up. One that is up already and is what the spec says is left as it is; what an interrupted `up`
    /// left is removed first.
    pub async fn up(spec: &ClusterSpec, tools: &Tools, progress: &Progress) -> Result<Self> {
        host::require_root()?;
        spec.validate()?;
        let dir = folder(&spec.name)?;
        let _lock = progress
            .step("waiting for another command on this cluster", lock(&dir))
            .await?;
        match read_state(&dir) {
            Some(state) if state.complete && state.is_alive() => {
                return Self::existing(dir, state, spec).await;
            }
            _ if dir.exists() => {
                progress.say(format_args!("removing what is left of cluster {}", spec.name));
                remove(&spec.name, &dir).await?;
            }
            _ => {}
        }
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let switch = node::start_switch(&dir, spec.nodes, tools);
        let switch = progress.step("starting the switch", switch).await?;
        let numbers = 1..=spec.nodes;
        let starts = numbers.map(|number| node::start_node(&dir, number, spec.nodes, switch, tools));
        let nodes = progress.step("starting the nodes", try_join_all(starts)).await?;
        let state = State {
            spec: spec.clone(),
            tools: tools.folders().to_vec(),
            switch,
            nodes,
            complete: false,
        };
        let mut cluster = Self::of(dir, state);
        cluster.write_state()?;
        bootstrap::bootstrap(&cluster, tools, progress).await?;
        cluster.state.complete = true;
        cluster.write_state()?;
        Ok(cluster)
    }

    async fn existing(dir: PathBuf, state: State, wanted: &ClusterSpec) -> Result<Self> {
        let name = wanted.name.clone();
        if state.spec != *wanted {
            bail!(
                "cluster {name} is up with {}, asked for are {wanted}: `cargo e2e down --cluster {name}` removes it",
                state.spec
            );
        }
        let cluster = Self::of(dir, state);
        let nodes = ["wait", "nodes", "--all", "--for=condition=Ready", "--timeout=10s"];
        for question in [
            ["get", "--raw=/readyz", "--request-timeout=10s"].as_slice(),
            &nodes,
        ] {
            cluster.kubectl(question).await.with_context(|| {
                format!("cluster {name} is up but not well: `cargo e2e down --cluster {name}` removes it")
            })?;
        }
        Ok(cluster)
    }

    /// The cluster of that name, if it is up.
    pub fn find(name: &str) -> Result<Self> {
        spec::validate_name(name)?;
        host::require_root()?;
        let dir = folder(name)?;
        match read_state(&dir) {
            Some(state) if state.complete && state.is_alive() => Ok(Self::of(dir, state)),
            Some(_) => bail!("cluster {name} is not whole: `cargo e2e up --cluster {name}` makes it anew"),
            None => bail!("there is no cluster {name}: `cargo e2e up --cluster {name}` makes one"),
        }
    }

    /// Removes a cluster and all that is left of it: processes, namespaces, control groups, files. Harmless if there is
    /// none. Gives whether there was one.
    pub async fn down(name: &str) -> Result<bool> {
        spec::validate_name(name)?;
        host::require_root()?;
        let dir = folder(name)?;
        let lock = lock(&dir).await?;
        let existed = dir.exists();
        remove(name, &dir).await?;
        lock.remove()?;
        Ok(existed)
    }

    /// The names of all clusters of this cache, whole or not.
    pub fn names() -> Result<Vec<String>> {
        let folder = paths::cache()?.join("clusters");
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter(|entry| entry.path().is_dir())
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        Ok(names)
    }

    /// The folder that a cluster of that name has or would have.
    pub fn folder(name: &str) -> Result<PathBuf> {
        spec::validate_name(name)?;
        folder(name)
    }

    fn of(dir: PathBuf, state: State) -> Self {
        let nodes = state.nodes.clone();
        Self {
            kubeconfig: dir.join("kubeconfig"),
            dir,
            state,
            nodes,
        }
    }

    fn spec(&self) -> &ClusterSpec {
        &self.state.spec
    }

    /// The cluster's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.state.spec.name
    }

    /// How many nodes it has, numbered from one.
    #[must_use]
    pub fn nodes(&self) -> u8 {
        self.state.spec.nodes
    }

    /// The folder of its files, which vanishes with it.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// An administrator's kubeconfig. Its server's address is reached in the switch's network namespace only.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The address of a node, which exists in the switch's network namespace.
    #[must_use]
    pub fn node_ip(&self, node: u8) -> IpAddr {
        spec::node_address(node).into()
    }

    fn node(&self, number: u8) -> Result<&Node> {
        self.nodes
            .iter()
            .find(|node| node.number == number)
            .ok_or_else(|| {
                anyhow!(
                    "cluster {} has no node {number}, it has {}",
                    self.name(),
                    self.nodes()
                )
            })
    }

    /// A command in the switch's network namespace, from which nodes, pods and Services are reached. It finds the
    /// cluster's programs first, uses its kubeconfig, and leaves no file in the caller's home.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let own = self.state.tools.iter().cloned();
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(own.chain(std::env::split_paths(&inherited))).unwrap_or(inherited);
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.state.switch.network().display()))
            .arg("--")
            .arg(program)
            .env("PATH", path)
            .env(MARKER, &self.dir)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", self.dir.join("kubectl"))
            .env("HELM_CACHE_HOME", self.dir.join("helm/cache"))
            .env("HELM_CONFIG_HOME", self.dir.join("helm/config"))
            .env("HELM_DATA_HOME", self.dir.join("helm/data"));
        command
    }

    /// A command inside a node: in its network, its file system and among its processes.
    pub fn node_command(&self, node: u8, program: impl AsRef<OsStr>) -> Result<Command> {
        Ok(self.node(node)?.command(program))
    }

    /// Runs kubectl and gives its output.
    pub async fn kubectl<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<String> {
        let mut kubectl = self.command("kubectl");
        kubectl.args(arguments);
        command::output(kubectl).await
    }

    /// Runs kubectl with a manifest on its standard input and gives its output.
    pub async fn kubectl_stdin<S: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        manifest: &str,
    ) -> Result<String> {
        let mut kubectl = self.command("kubectl");
        kubectl.args(arguments);
        command::output_of_input(kubectl, manifest.as_bytes()).await
    }

    /// Runs helm and gives its output.
    pub async fn helm<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<String> {
        let mut helm = self.command("helm");
        helm.args(arguments);
        command::output(helm).await
    }

    /// Loads an image archive into every node, unless the archive of that file name was the same before. Gives whether
    /// any node had to load it.
    pub async fn import_image(&self, archive: &Path) -> Result<bool> {
        let name = archive
            .file_name()
            .with_context(|| format!("{}: not a file", archive.display()))?;
        let digest = digest(archive).await?;
        let imports = self.nodes.iter().map(|node| async {
            let imported = node.folder().join("imported");
            let record = imported.join(name);
            if std::fs::read_to_string(&record).is_ok_and(|before| before == digest) {
                return Ok(false);
            }
            import(node, archive).await?;
            std::fs::create_dir_all(&imported)
                .with_context(|| format!("cannot make {}", imported.display()))?;
            std::fs::write(&record, &digest).with_context(|| format!("cannot write {}", record.display()))?;
            anyhow::Ok(true)
        });
        Ok(try_join_all(imports).await?.contains(&true))
    }

    fn write_state(&self) -> Result<()> {
        let file = self.dir.join(STATE);
        let partial = self.dir.join("state.json.partial");
        let context = || format!("cannot write {}", file.display());
        std::fs::write(&partial, serde_json::to_vec_pretty(&self.state)?).with_context(context)?;
        std::fs::rename(&partial, &file).with_context(context)
    }
}

impl State {
    fn is_alive(&self) -> bool {
        self.switch.is_alive() && self.nodes.iter().all(|node| node.init.is_alive())
    }
}

/// Loads an image archive into a node's containerd.
async fn import(node: &Node, archive: &Path) -> Result<()> {
    let mut ctr = node.command("ctr");
    ctr.args(["--namespace=k8s.io", "images", "import", "-"]);
    // A file is given as it is: what a node sees of the machine's files is not all of them.
    let file = File::open(archive).with_context(|| format!("cannot open {}", archive.display()))?;
    let output = ctr
        .stdin(file)
        .kill_on_drop(true)
        .output()
        .await
        .context("cannot start ctr")?;
    if !output.status.success() {
        bail!(
            "ctr images import of {}: {}",
            archive.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

async fn digest(archive: &Path) -> Result<String> {
    use sha2::Digest as _;
    let bytes = tokio::fs::read(archive)
        .await
        .with_context(|| format!("cannot read {}", archive.display()))?;
    let digest = tokio::task::spawn_blocking(move || sha2::Sha256::digest(&bytes)).await?;
    Ok(crate::image::hexadecimal(&digest))
}

fn folder(name: &str) -> Result<PathBuf> {
    Ok(paths::cache()?.join("clusters").join(name))
}

fn read_state(dir: &Path) -> Option<State> {
    serde_json::from_slice(&std::fs::read(dir.join(STATE)).ok()?).ok()
}

async fn remove(name: &str, dir: &Path) -> Result<()> {
    // A node's mounts are in its namespaces and end with them, as do containers: no mount is left to undo.
    processes::end_all(dir).await?;
    cgroup::remove(&spec::cgroup_prefix(name, dir)).await?;
    let deadline = Instant::now() + EMPTIED_WITHIN;
    loop {
        match tokio::fs::remove_dir_all(dir).await {
            // A process that is being killed may still write.
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty && Instant::now() < deadline => {
                tokio::time::sleep(POLL).await;
            }
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", dir.display()));
            }
            _ => return Ok(()),
        }
    }
}

/// One command at a time makes or removes a cluster.
struct Lock {
    path: PathBuf,
    _file: File,
}

async fn lock(dir: &Path) -> Result<Lock> {
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    }
    let path = dir.with_extension("lock");
    loop {
        let file = tools::lock(path.clone()).await?;
        let locked = file.metadata()?.ino();
        // The holder before may have removed the file, which somebody else may have made again.
        if std::fs::metadata(&path).is_ok_and(|current| current.ino() == locked) {
            return Ok(Lock { path, _file: file });
        }
    }
}

impl Lock {
    fn remove(self) -> Result<()> {
        std::fs::remove_file(&self.path).with_context(|| format!("cannot remove {}", self.path.display()))
    }
}

//! The programs of a cluster, built from pinned Go modules and kept by content of what they are built from.

mod clients;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use sha2::{Digest as _, Sha256};
use tokio::process::Command;

pub use self::clients::Clients;
use crate::image::{ImageFile, ImageSpec};
use crate::progress::Progress;
use crate::{command, go_module, host, image, paths};

/// One folder below e2e/tools: a Go module, built into one folder of the cache.
struct Module {
    folder: &'static str,
    /// The required module whose version names the folder in the cache and goes into the programs.
    versioned_by: Option<&'static str>,
    /// What is built: the module's `tool` block, or the module itself.
    target: &'static str,
    tags: &'static str,
    /// Go names etcd's program after the last part of its path.
    rename: Option<(&'static str, &'static str)>,
}

const KUBERNETES: Module = Module {
    folder: "kubernetes",
    versioned_by: Some("k8s.io/kubernetes"),
    target: "tool",
    tags: "",
    rename: None,
};

/// The program that reads metrics by Kubernetes' own types.
pub const TYPED_CLIENT: &str = "typed-client";

/// The program that evaluates alerts as Prometheus does.
pub const ALERTS: &str = "alerts";

const HELM: Module = Module {
    folder: "helm",
    versioned_by: Some("helm.sh/helm/v3"),
    target: "tool",
    tags: "",
    rename: None,
};

/// The server that ours takes the place of.
pub const METRICS_SERVER: &str = "metrics-server";

const MODULES: [Module; 9] = [
    KUBERNETES,
    Module {
        folder: "etcd",
        versioned_by: Some("go.etcd.io/etcd/server/v3"),
        target: "tool",
        tags: "",
        rename: Some(("server", "etcd")),
    },
    Module {
        folder: "containerd",
        versioned_by: Some("github.com/containerd/containerd/v2"),
        target: "tool",
        tags: "no_btrfs,no_devmapper,no_zfs,no_aufs",
        rename: None,
    },
    HELM,
    Module {
        folder: TYPED_CLIENT,
        versioned_by: Some("k8s.io/metrics"),
        target: ".",
        tags: "",
        rename: None,
    },
    Module {
        folder: ALERTS,
        versioned_by: Some("github.com/prometheus/prometheus"),
        target: ".",
        tags: "",
        rename: None,
    },
    Module {
        folder: METRICS_SERVER,
        versioned_by: Some("sigs.k8s.io/metrics-server"),
        target: "tool",
        tags: "",
        rename: None,
    },
    Module {
        folder: "pause",
        versioned_by: None,
        target: ".",
        tags: "",
        rename: None,
    },
    Module {
        folder: "workload",
        versioned_by: None,
        target: ".",
        tags: "",
        rename: None,
    },
];

/// The images that kubeadm's static pods and every sandbox are made of, packed from the programs above.
const NODE_IMAGES: [&str; 5] = [
    "pause",
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];

/// Where the programs and the images of a cluster are.
#[derive(Clone, Debug)]
pub struct Tools {
    folders: Vec<PathBuf>,
    node_images: Vec<image::Image>,
    kubernetes_version: String,
}

impl Tools {
    /// Makes the machine ready and builds what the cache lacks. Another build under way is waited for.
    pub async fn prepare(progress: &Progress) -> Result<Self> {
        host::prepare(progress).await?;
        let (cache, _lock) = open_cache(progress).await?;
        let mut folders = Vec::new();
        for module in &MODULES {
            folders.push(build(module, &cache, progress).await?);
        }
        let kubernetes_version = KUBERNETES
            .version()?
            .context("e2e/tools/kubernetes/go.mod: no version of k8s.io/kubernetes")?;
        for module in go_module::ALL {
            let what = format!("fetching {}", module.what);
            progress.step(&what, module.download()).await?;
        }
        let mut tools = Self {
            folders,
            node_images: Vec::new(),
            kubernetes_version,
        };
        tools.node_images = tools.pack_node_images(&cache, progress).await?;
        Ok(tools)
    }

    /// The path of one program.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        self.folders
            .iter()
            .map(|folder| folder.join(name))
            .find(|candidate| candidate.is_file())
            .ok_or_else(|| anyhow!("{name}: no such program in {}", paths::tool_modules().display()))
    }

    /// The folders that hold the programs.
    #[must_use]
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// The images that nodes need before anything can run on them.
    #[must_use]
    pub fn node_images(&self) -> &[image::Image] {
        &self.node_images
    }

    /// Kubernetes' version, such as `v1.37.2`.
    #[must_use]
    pub fn kubernetes_version(&self) -> &str {
        &self.kubernetes_version
    }

    /// Packs the images under the names that kubeadm of this version expects.
    async fn pack_node_images(&self, cache: &Path, progress: &Progress) -> Result<Vec<image::Image>> {
        let mut kubeadm = Command::new(self.program("kubeadm")?);
        kubeadm.args([
            "config",
            "images",
            "list",
            "--kubernetes-version",
            &self.kubernetes_version,
        ]);
        let references = command::output(kubeadm).await?;
        let mut key = Sha256::new();
        for folder in &self.folders {
            key.update(folder.as_os_str().as_encoded_bytes());
        }
        key.update(image::FORMAT.to_be_bytes());
        key.update(NODE_IMAGES.join(" "));
        let folder = cache.join(format!("images-{}", short(key)));
        let complete = folder.is_dir();
        let building = if complete { folder.clone() } else { building(cache) };
        std::fs::create_dir_all(&building).with_context(|| format!("cannot make {}", building.display()))?;
        let mut images = Vec::new();
        for program in NODE_IMAGES {
            let reference = reference_of(&references, program)
                .with_context(|| format!("kubeadm names no image {program}, it names\n{references}"))?;
            let archive = format!("{program}.tar");
            if !complete {
                let spec = ImageSpec {
                    references: vec![reference.to_owned()],
                    files: vec![ImageFile::program(self.program(program)?, program)],
                    entrypoint: vec![format!("/usr/local/bin/{program}")],
                    user: None,
                };
                progress
                    .step(
                        format_args!("packing {reference}"),
                        image::write(spec, building.join(&archive)),
                    )
                    .await?;
            }
            images.push(image::Image {
                reference: reference.to_owned(),
                archive: folder.join(archive),
            });
        }
        if !complete {
            std::fs::rename(&building, &folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(images)
    }
}

/// One module alone, with what it takes to build it.
async fn built(module: &Module, progress: &Progress) -> Result<PathBuf> {
    host::require_go().await?;
    let (cache, _lock) = open_cache(progress).await?;
    build(module, &cache, progress).await
}

async fn open_cache(progress: &Progress) -> Result<(PathBuf, File)> {
    let cache = paths::cache()?.join("tools");
    std::fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let waiting = lock(cache.join("lock"));
    let lock = progress
        .step("waiting for another build of the tools", waiting)
        .await?;
    remove_interrupted_builds(&cache)?;
    Ok((cache, lock))
}

impl Module {
    fn source(&self) -> PathBuf {
        paths::tool_modules().join(self.folder)
    }

    fn version(&self) -> Result<Option<String>> {
        let Some(path) = self.versioned_by else {
            return Ok(None);
        };
        let file = self.source().join("go.mod");
        let text =
            std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        Ok(Some(
            required_version(&text, path)
                .with_context(|| format!("{}: no {path}", file.display()))?
                .to_owned(),
        ))
    }

    fn link_flags(&self) -> Result<String> {
        let mut flags = "-s -w".to_owned();
        if self.folder == KUBERNETES.folder {
            let version = self.version()?.unwrap_or_default();
            let (major, minor) = major_and_minor(&version)
                .with_context(|| format!("{version}: not a version of Kubernetes such as v1.37.2"))?;
            for (variable, value) in [
                ("gitVersion", version.as_str()),
                ("gitMajor", major),
                ("gitMinor", minor),
            ] {
                // Without them kubeadm takes itself for v0.0.0 and refuses the cluster's version.
                flags.extend([" -X k8s.io/component-base/version.", variable, "=", value]);
            }
        }
        Ok(flags)
    }

    /// What the built folder is called: its content follows from the name.
    fn folder_name(&self) -> Result<String> {
        let mut key = Sha256::new();
        for part in [self.target, self.tags, &self.link_flags()?] {
            key.update(part);
            key.update([0]);
        }
        let source = self.source();
        let files =
            std::fs::read_dir(&source).with_context(|| format!("cannot read {}", source.display()))?;
        let mut files = files
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<PathBuf>>>()?;
        files.sort();
        for file in files.into_iter().filter(|file| file.is_file()) {
            key.update(file.file_name().unwrap_or_default().as_encoded_bytes());
            key.update(std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
        }
        let version = self
            .version()?
            .map(|version| format!("-{version}"))
            .unwrap_or_default();
        Ok(format!("{}{version}-{}", self.folder, short(key)))
    }
}

async fn build(module: &Module, cache: &Path, progress: &Progress) -> Result<PathBuf> {
    let folder = cache.join(module.folder_name()?);
    if folder.is_dir() {
        return Ok(folder);
    }
    let building = building(cache);
    std::fs::create_dir_all(&building).with_context(|| format!("cannot make {}", building.display()))?;
    let mut go = Command::new("go");
    go.args([
        "build",
        "-mod=readonly",
        "-trimpath",
        "-tags",
        module.tags,
        "-ldflags",
        &module.link_flags()?,
        "-o",
    ])
    .arg(&building)
    .arg(module.target)
    .current_dir(module.source())
    .env("CGO_ENABLED", "0")
    .env("GOWORK", "off");
    progress
        .step(format_args!("building {}", module.folder), command::output(go))
        .await?;
    if let Some((from, to)) = module.rename {
        std::fs::rename(building.join(from), building.join(to))
            .with_context(|| format!("go build made no {from}"))?;
    }
    std::fs::rename(&building, &folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}

/// What the names of folders begin with in which a build happens before it gets its name.
const BUILDING: &str = "building-";

/// Where this process builds, so that an interrupted build is never taken for whole. The name is the process's own: a
/// compiler that outlived an interrupted run must not write into the folder of the next.
fn building(cache: &Path) -> PathBuf {
    cache.join(format!("{BUILDING}{}", std::process::id()))
}

fn remove_interrupted_builds(cache: &Path) -> Result<()> {
    for entry in std::fs::read_dir(cache).with_context(|| format!("cannot read {}", cache.display()))? {
        let folder = entry?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(BUILDING) {
            std::fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot remove {}", folder.display()))?;
        }
    }
    Ok(())
}

/// Takes a lock that ends with the process that holds it.
pub(crate) async fn lock(path: PathBuf) -> Result<File> {
    tokio::task::spawn_blocking(move || {
        let context = || format!("cannot lock {}", path.display());
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .with_context(context)?;
        file.lock().with_context(context)?;
        Ok(file)
    })
    .await?
}

fn short(hash: Sha256) -> String {
    image::hexadecimal(&hash.finalize()).chars().take(12).collect()
}

/// The version that a go.mod requires of a module.
fn required_version<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let line = line.trim().strip_prefix("require ").unwrap_or(line.trim());
        line.strip_prefix(module)?
            .strip_prefix(' ')?
            .split_whitespace()
            .next()
            .filter(|word| word.starts_with('v'))
    })
}

fn major_and_minor(version: &str) -> Option<(&str, &str)> {
    let mut parts = version.strip_prefix('v')?.split('.');
    Some((parts.next()?, parts.next()?))
}

/// The line of `kubeadm config images list` for one program.
fn reference_of<'a>(references: &'a str, program: &str) -> Option<&'a str> {
    references.lines().map(str::trim).find(|reference| {
        let name = reference.rsplit('/').next().unwrap_or_default();
        name.split(':').next() == Some(program)
    })
}

/// The reference of each image by its program, for configuration that names them.
pub(crate) fn references(images: &[image::Image]) -> Result<BTreeMap<String, String>> {
    let mut references = BTreeMap::new();
    for image in images {
        let Some(program) = image.archive.file_stem().and_then(|stem| stem.to_str()) else {
            bail!("{}: not the archive of a program", image.archive.display());
        };
        references.insert(program.to_owned(), image.reference.clone());
    }
    Ok(references)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_required_version_is_read_from_blocks_and_lines() {
        let go_mod = "module x\nrequire (\n\tk8s.io/kubernetes v1.37.2 // indirect\n)\nrequire helm.sh/helm/v3 v3.22.0\n";
        assert_eq!(required_version(go_mod, "k8s.io/kubernetes"), Some("v1.37.2"));
        assert_eq!(required_version(go_mod, "helm.sh/helm/v3"), Some("v3.22.0"));
        assert_eq!(required_version(go_mod, "k8s.io/kube"), None);
    }

    #[test]
    fn every_module_names_its_version_and_builds_under_its_own_name() {
        let names: Vec<String> = MODULES
            .iter()
            .map(|module| module.folder_name().unwrap())
            .collect();
        for (module, name) in MODULES.iter().zip(&names) {
            assert!(name.starts_with(module.folder), "{name}");
            assert_eq!(module.version().unwrap().is_some(), module.versioned_by.is_some());
        }
        assert!(KUBERNETES.link_flags().unwrap().contains("version.gitMajor=1 "));
    }

    #[test]
    fn only_interrupted_builds_are_removed() {
        let cache = tempfile::tempdir().unwrap();
        for folder in ["building-1/x", "helm-v3-1", "images-1"] {
            std::fs::create_dir_all(cache.path().join(folder)).unwrap();
        }
        remove_interrupted_builds(cache.path()).unwrap();
        assert!(!cache.path().join("building-1").exists());
        assert!(cache.path().join("helm-v3-1").exists() && cache.path().join("images-1").exists());
        assert!(
            building(cache.path())
                .to_str()
                .unwrap()
                .ends_with(&std::process::id().to_string())
        );
    }

    #[test]
    fn an_image_is_found_by_its_whole_name() {
        let references = "registry.k8s.io/kube-apiserver:v1.37.2\nregistry.k8s.io/coredns/coredns:v1\nregistry.k8s.io/etcd:3.7.0-0\n";
        assert_eq!(
            reference_of(references, "etcd"),
            Some("registry.k8s.io/etcd:3.7.0-0")
        );
        assert_eq!(
            reference_of(references, "coredns"),
            Some("registry.k8s.io/coredns/coredns:v1")
        );
        assert_eq!(reference_of(references, "kube"), None);
    }
}

//! Image archives without a container engine: one layer, in the form of `docker save`, which `ctr`, `docker load` and
//! `kind load image-archive` read.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// Counted up with each change of what an archive looks like, so that kept archives are packed again.
pub(crate) const FORMAT: u32 = 1;
const PATH: &str = "PATH=/usr/local/bin:/usr/bin:/bin";

/// An image that is ready to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its name and tag.
    pub reference: String,
    /// Its archive.
    pub archive: PathBuf,
}

/// What an image is made of.
#[derive(Clone, Debug)]
pub struct ImageSpec {
    /// Names with tags.
    pub references: Vec<String>,
    /// All of its files.
    pub files: Vec<ImageFile>,
    /// What a container runs unless told otherwise.
    pub entrypoint: Vec<String>,
    /// User and group, both as numbers; root unless given.
    pub user: Option<String>,
}

/// One executable file or library.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageFile {
    /// Its path in the image.
    pub path: String,
    /// The file on this machine.
    pub source: PathBuf,
}

impl ImageFile {
    /// A program in the image's PATH.
    #[must_use]
    pub fn program(source: PathBuf, name: &str) -> Self {
        Self {
            path: format!("/usr/local/bin/{name}"),
            source,
        }
    }
}

/// Writes the archive of an image. The same content gives the same bytes, and a file that has them already is left
/// as it is.
pub async fn write(spec: ImageSpec, archive: PathBuf) -> Result<Image> {
    tokio::task::spawn_blocking(move || write_blocking(&spec, archive)).await?
}

fn write_blocking(spec: &ImageSpec, archive: PathBuf) -> Result<Image> {
    let reference = spec.references.first().context("an image needs a name")?.clone();
    let bytes = archive_bytes(spec)?;
    if !std::fs::read(&archive).is_ok_and(|existing| existing == bytes) {
        let folder = archive.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let partial = archive.with_extension("tar.partial");
        let context = || format!("cannot write {}", archive.display());
        let mut file = BufWriter::new(File::create(&partial).with_context(context)?);
        file.write_all(&bytes)
            .and_then(|()| file.flush())
            .with_context(context)?;
        std::fs::rename(&partial, &archive).with_context(context)?;
    }
    Ok(Image { reference, archive })
}

fn archive_bytes(spec: &ImageSpec) -> Result<Vec<u8>> {
    let layer = layer(&spec.files)?;
    let layer_digest = hexadecimal(&Sha256::digest(&layer));
    let mut config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": { "Env": [PATH], "Entrypoint": spec.entrypoint },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer_digest}")] },
        "history": [{ "created_by": "cargo e2e images" }],
    });
    if let (Some(user), Some(config)) = (&spec.user, config.get_mut("config")) {
        config["User"] = json!(user);
    }
    let config = serde_json::to_vec(&config)?;
    let config_name = format!("{}.json", hexadecimal(&Sha256::digest(&config)));
    let layer_name = format!("{layer_digest}/layer.tar");
    let manifest = serde_json::to_vec(&json!([
        { "Config": config_name, "RepoTags": spec.references, "Layers": [layer_name] }
    ]))?;
    let mut archive = Builder::new(Vec::with_capacity(layer.len() + 64 * 1024));
    for (name, content) in [
        (&config_name, &config),
        (&layer_name, &layer),
        (&"manifest.json".to_owned(), &manifest),
    ] {
        archive.append_data(
            &mut header(EntryType::Regular, 0o644, content.len() as u64),
            name,
            content.as_slice(),
        )?;
    }
    Ok(archive.into_inner()?)
}

/// The one layer: folders, then files, in order of their paths.
fn layer(files: &[ImageFile]) -> Result<Vec<u8>> {
    let files: BTreeSet<&ImageFile> = files.iter().collect();
    let mut folders = BTreeSet::from([PathBuf::from("tmp")]);
    for file in &files {
        let ancestors = Path::new(file.path.trim_start_matches('/')).ancestors().skip(1);
        folders.extend(
            ancestors
                .filter(|folder| !folder.as_os_str().is_empty())
                .map(Path::to_path_buf),
        );
    }
    let mut layer = Builder::new(Vec::new());
    for folder in folders {
        let mode = if folder == Path::new("tmp") { 0o1777 } else { 0o755 };
        layer.append_data(
            &mut header(EntryType::Directory, mode, 0),
            &folder,
            std::io::empty(),
        )?;
    }
    for file in files {
        let content =
            std::fs::read(&file.source).with_context(|| format!("cannot read {}", file.source.display()))?;
        let name = file.path.trim_start_matches('/');
        layer.append_data(
            &mut header(EntryType::Regular, 0o755, content.len() as u64),
            name,
            content.as_slice(),
        )?;
    }
    Ok(layer.into_inner()?)
}

fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// The machine's architecture by Go's name, which is what image configurations use.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            // Writing to a string cannot fail.
            let _infallible = write!(text, "{byte:02x}");
            text
        })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Read as _;

    use super::*;

    fn entries(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut archive = tar::Archive::new(archive);
        archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let mut content = Vec::new();
                entry.read_to_end(&mut content).unwrap();
                (
                    entry.path().unwrap().display().to_string(),
                    entry.header().mode().unwrap(),
                    content,
                )
            })
            .collect()
    }

    fn spec(folder: &Path) -> ImageSpec {
        let source = folder.join("a-program");
        std::fs::write(&source, "content").unwrap();
        ImageSpec {
            references: vec!["example/image:1".to_owned()],
            files: vec![
                ImageFile::program(source.clone(), "program"),
                ImageFile {
                    path: "/lib64/loader.so".to_owned(),
                    source,
                },
            ],
            entrypoint: vec!["/usr/local/bin/program".to_owned()],
            user: Some("65532:65532".to_owned()),
        }
    }

    #[test]
    fn an_archive_is_what_docker_save_writes() {
        let folder = tempfile::tempdir().unwrap();
        let archive = archive_bytes(&spec(folder.path())).unwrap();
        let files: BTreeMap<String, Vec<u8>> = entries(&archive)
            .into_iter()
            .map(|(path, _, content)| (path, content))
            .collect();
        let manifest: serde_json::Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
        assert_eq!(manifest[0]["RepoTags"], json!(["example/image:1"]));
        let config_name = manifest[0]["Config"].as_str().unwrap();
        let layer = &files[manifest[0]["Layers"][0].as_str().unwrap()];
        assert_eq!(
            config_name,
            format!("{}.json", hexadecimal(&Sha256::digest(&files[config_name])))
        );
        let config: serde_json::Value = serde_json::from_slice(&files[config_name]).unwrap();
        assert_eq!(config["config"]["User"], "65532:65532");
        assert_eq!(config["config"]["Env"], json!([PATH]));
        assert_eq!(
            config["rootfs"]["diff_ids"][0],
            format!("sha256:{}", hexadecimal(&Sha256::digest(layer)))
        );
        let layout: Vec<(String, u32)> = entries(layer)
            .into_iter()
            .map(|(path, mode, _)| (path, mode))
            .collect();
        let expected = [
            ("lib64", 0o755),
            ("tmp", 0o1777),
            ("usr", 0o755),
            ("usr/local", 0o755),
            ("usr/local/bin", 0o755),
            ("lib64/loader.so", 0o755),
            ("usr/local/bin/program", 0o755),
        ];
        assert_eq!(layout, expected.map(|(path, mode)| (path.to_owned(), mode)));
    }

    #[test]
    fn the_same_content_is_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let spec = spec(folder.path());
        let archive = folder.path().join("out/image.tar");
        let image = write_blocking(&spec, archive.clone()).unwrap();
        assert_eq!(
            image,
            Image {
                reference: "example/image:1".to_owned(),
                archive: archive.clone()
            }
        );
        let written = std::fs::metadata(&archive).unwrap().modified().unwrap();
        write_blocking(&spec, archive.clone()).unwrap();
        assert_eq!(std::fs::metadata(&archive).unwrap().modified().unwrap(), written);
        std::fs::write(&spec.files[0].source, "changed").unwrap();
        let before = std::fs::read(&archive).unwrap();
        write_blocking(&spec, archive.clone()).unwrap();
        assert_ne!(std::fs::read(&archive).unwrap(), before);
    }
}

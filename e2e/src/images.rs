//! The images of this workspace: the two programs, and the load that the scenarios put on a cluster.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use tokio::process::Command;

use crate::image::{Image, ImageFile, ImageSpec};
use crate::progress::Progress;
use crate::tools::{METRICS_SERVER, Tools};
use crate::{command, image, paths, previous};

/// The image's user: nobody that exists, as the restricted pod security standard wants it.
const USER: &str = "65532:65532";
const PACKAGES: [&str; 2] = ["metrics-api", "metricsstack-operator"];
/// The library's example.
const NOTES: &str = "notes";
/// The image's entry point, and the program that `--binaries` needs first.
const ENTRYPOINT: &str = "/usr/local/bin/metrics-api";

/// The image that the chart names by default.
#[must_use]
pub fn metricsstack_reference() -> String {
    format!("metricsstack/metricsstack:{}", env!("CARGO_PKG_VERSION"))
}

/// The image of the version before this one.
pub const PREVIOUS_REFERENCE: &str = "metricsstack/metricsstack:previous";

/// Where archives are written unless the command line says otherwise.
#[must_use]
pub fn default_output() -> PathBuf {
    paths::workspace().join("target/images")
}

/// Builds both programs and packs them. What has not changed is neither built nor written again.
pub async fn metricsstack(output: &Path, progress: &Progress) -> Result<Image> {
    let built = progress.step(
        "building metrics-api and the operator",
        command::output(release_build()),
    );
    pack_this(executables(&built.await?), output).await
}

/// Builds both programs of [`previous::COMMIT`] and packs them. Where the history does not have it, this version gets
/// that image's name.
///
/// They are left where this version's programs belong in the target directory until those are built after them.
pub async fn previous(output: &Path, progress: &Progress) -> Result<Image> {
    let mut cargo = release_build();
    let step = if let Some(source) = previous::source().await? {
        let target = paths::workspace().join("target");
        cargo.current_dir(source).arg("--target-dir").arg(target);
        "building the version before this one"
    } else {
        progress.say(format_args!(
            "the repository's history does not have the version before this one, {}: upgrades are between two names of \
             this one",
            previous::COMMIT
        ));
        "building metrics-api and the operator"
    };
    let messages = progress.step(step, command::output(cargo)).await?;
    let archive = output.join("previous.tar");
    pack(executables(&messages), PREVIOUS_REFERENCE.to_owned(), archive).await
}

/// A build of both programs as images carry them.
fn release_build() -> Command {
    let mut cargo = cargo_build();
    cargo.arg("--release");
    cargo.args(PACKAGES.iter().flat_map(|package| ["--package", package]));
    cargo
}

/// A build of programs that reports where they are.
fn cargo_build() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--message-format=json-render-diagnostics"])
        .current_dir(paths::workspace());
    cargo
}

/// Packs programs that were built before: those of the two names in one folder.
pub async fn metricsstack_of(binaries: &Path, output: &Path) -> Result<Image> {
    pack_this(PACKAGES.map(|program| binaries.join(program)).to_vec(), output).await
}

/// The image of the library's example.
#[must_use]
pub fn notes_reference() -> String {
    format!("metricsstack/notes:{}", env!("CARGO_PKG_VERSION"))
}

/// The example of extension-apiserver. An example is built with what its crate's tests need, and so without
/// optimization and as one of the whole workspace, whose tests need the same.
pub async fn notes(output: &Path, progress: &Progress) -> Result<Image> {
    let mut cargo = cargo_build();
    cargo.args(["--workspace", "--example", NOTES]);
    let messages = progress
        .step("building the library's example", command::output(cargo))
        .await?;
    let program = executables(&messages)
        .into_iter()
        .find(|program| program.file_name().is_some_and(|name| name == NOTES))
        .with_context(|| format!("cargo build made no example {NOTES}"))?;
    let mut files = libraries(&program).await?;
    files.push(ImageFile::program(program, NOTES));
    let spec = ImageSpec {
        references: vec![notes_reference()],
        files,
        entrypoint: vec![format!("/usr/local/bin/{NOTES}")],
        user: Some(USER.to_owned()),
    };
    image::write(spec, output.join("notes.tar")).await
}

/// The load that scenarios put on a cluster.
pub async fn workload(tools: &Tools, output: &Path) -> Result<Image> {
    let spec = ImageSpec {
        references: vec![format!("metricsstack/workload:{}", env!("CARGO_PKG_VERSION"))],
        files: vec![ImageFile::program(tools.program("workload")?, "workload")],
        entrypoint: vec!["/usr/local/bin/workload".to_owned()],
        user: Some(USER.to_owned()),
    };
    image::write(spec, output.join("workload.tar")).await
}

/// metrics-server itself, of its own Go module.
#[must_use]
pub fn metrics_server_reference() -> String {
    format!("metricsstack/{METRICS_SERVER}:{}", env!("CARGO_PKG_VERSION"))
}

/// The server that ours takes the place of.
pub async fn metrics_server(tools: &Tools, output: &Path) -> Result<Image> {
    let spec = ImageSpec {
        references: vec![metrics_server_reference()],
        files: vec![ImageFile::program(tools.program(METRICS_SERVER)?, METRICS_SERVER)],
        entrypoint: vec![format!("/usr/local/bin/{METRICS_SERVER}")],
        user: Some(USER.to_owned()),
    };
    image::write(spec, output.join("metrics-server.tar")).await
}

/// Packs this version's programs.
async fn pack_this(programs: Vec<PathBuf>, output: &Path) -> Result<Image> {
    pack(
        programs,
        metricsstack_reference(),
        output.join("metricsstack.tar"),
    )
    .await
}

async fn pack(programs: Vec<PathBuf>, reference: String, archive: PathBuf) -> Result<Image> {
    for package in PACKAGES {
        if !programs
            .iter()
            .any(|program| program.file_name().is_some_and(|name| name == package))
        {
            bail!("cargo build made no program {package}, it made {programs:?}");
        }
    }
    let mut files = Vec::new();
    for program in programs {
        files.extend(libraries(&program).await?);
        let name = program
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        files.push(ImageFile::program(program, &name));
    }
    let spec = ImageSpec {
        references: vec![reference],
        files,
        entrypoint: vec![ENTRYPOINT.to_owned()],
        user: Some(USER.to_owned()),
    };
    image::write(spec, archive).await
}

/// The programs that `cargo build --message-format=json` reports.
fn executables(messages: &str) -> Vec<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .collect()
}

/// A program's dynamic loader and libraries, at the paths where the loader looks for them.
async fn libraries(program: &Path) -> Result<Vec<ImageFile>> {
    let mut ldd = Command::new("ldd");
    ldd.arg(program);
    let output = command::output(ldd).await?;
    linked(&output).with_context(|| format!("ldd {}", program.display()))
}

fn linked(ldd: &str) -> Result<Vec<ImageFile>> {
    let mut files = Vec::new();
    for line in ldd.lines().map(str::trim) {
        // `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`, `linux-vdso.so.1 (0x…)`
        let target = line.rsplit(" => ").next().unwrap_or(line);
        if target.starts_with("not found") {
            bail!("{line}: install it");
        }
        if let Some(path) = target.split(" (").next().filter(|path| path.starts_with('/')) {
            files.push(ImageFile {
                path: path.to_owned(),
                source: PathBuf::from(path),
            });
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_taken_and_the_kernels_page_is_not() {
        let output = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibgcc_s.so.1 => /lib/x86_64-linux-gnu/libgcc_s.so.1 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let paths: Vec<String> = linked(output)
            .unwrap()
            .into_iter()
            .map(|file| file.path)
            .collect();
        assert_eq!(
            paths,
            [
                "/lib/x86_64-linux-gnu/libgcc_s.so.1",
                "/lib64/ld-linux-x86-64.so.2"
            ]
        );
        assert!(
            linked("\tlibx.so => not found\n")
                .unwrap_err()
                .to_string()
                .contains("libx.so")
        );
        assert!(linked("\tstatically linked\n").unwrap().is_empty());
    }

    #[test]
    fn executables_are_read_from_cargos_messages() {
        let messages = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n{\"executable\":\"/t/release/metrics-api\"}\nnoise\n";
        assert_eq!(executables(messages), [PathBuf::from("/t/release/metrics-api")]);
    }
}

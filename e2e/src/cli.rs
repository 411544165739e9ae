//! The command line of `cargo e2e`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::cluster::{Cluster, ClusterSpec, ServingCertificates, show_logs};
use crate::progress::Progress;
use crate::tools::{Clients, Tools};
use crate::{command, demo, images, paths, scenarios, test};

/// A real Kubernetes on this machine, and what is tried on it.
#[derive(Debug, Parser)]
#[command(name = "cargo e2e", bin_name = "cargo e2e")]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Debug, Subcommand)]
enum Subcommands {
    /// Bring a cluster up; harmless if it is up already
    Up(Up),
    /// Remove a cluster, or what an interrupted `up` left of it
    Down(Name),
    /// A cluster, the chart, a MetricsStack, and `kubectl top`
    Demo(demo::Arguments),
    /// Build the images into archives that ctr, docker load and kind load image-archive accept
    Images(Images),
    /// Run kubectl as a cluster's administrator
    Kubectl(Client),
    /// Run helm as a cluster's administrator
    Helm(Client),
    /// Show the last lines of a cluster's logs: nodes' components and containers
    Logs(Logs),
    /// Run every test, or the steps, groups and scenarios that are named
    Test(Test),
    /// Compare charts/install.yaml with what the chart renders
    InstallYaml(InstallYaml),
    /// Run one scenario in this process, which is in the cluster's network already
    #[command(hide = true)]
    Scenario(scenarios::ScenarioArgs),
}

#[derive(Args, Debug)]
struct Name {
    /// The cluster's name
    #[arg(long, default_value = "dev")]
    cluster: String,
}

#[derive(Args, Debug)]
struct Up {
    #[command(flatten)]
    name: Name,
    /// How many nodes; the first carries the control plane
    #[arg(long, default_value_t = 2)]
    nodes: u8,
    /// How kubelets come to their serving certificates
    #[arg(long, value_enum, default_value_t)]
    kubelet_serving_certificates: ServingCertificates,
}

#[derive(Args, Debug)]
struct Images {
    /// The folder of the archives [default: target/images of the workspace]
    #[arg(long)]
    output: Option<PathBuf>,
    /// Pack the programs of this folder instead of building them
    #[arg(long)]
    binaries: Option<PathBuf>,
    /// Also load them into the nodes of this cluster
    #[arg(long)]
    cluster: Option<String>,
}

#[derive(Args, Debug)]
struct Client {
    #[command(flatten)]
    name: Name,
    /// Arguments of the program
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

#[derive(Args, Debug)]
struct Logs {
    #[command(flatten)]
    name: Name,
    /// How many lines of each
    #[arg(long, default_value_t = 20)]
    lines: usize,
    /// Only logs whose path contains this, such as `kubelet` or a pod's name
    #[arg(default_value = "")]
    containing: String,
}

#[derive(Args, Debug)]
struct Test {
    /// Steps (tools, builds, checks), checks, groups or scenarios [default: all]
    names: Vec<String>,
    /// Leave the clusters up
    #[arg(long)]
    keep: bool,
}

#[derive(Args, Debug)]
struct InstallYaml {
    /// Write what the chart renders
    #[arg(long)]
    write: bool,
}

/// Runs what the command line says.
pub async fn run() -> ExitCode {
    let arguments = Arguments::parse();
    match dispatch(arguments.command, &Progress::new()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn dispatch(subcommand: Subcommands, progress: &Progress) -> Result<ExitCode> {
    match subcommand {
        Subcommands::Up(arguments) => up(arguments, progress).await?,
        Subcommands::Down(Name { cluster }) => {
            let existed = progress
                .step("removing the cluster", Cluster::down(&cluster))
                .await?;
            let outcome = if existed { "is removed" } else { "was not there" };
            progress.say(format_args!("cluster {cluster} {outcome}"));
        }
        Subcommands::Demo(arguments) => demo::run(&arguments, progress).await?,
        Subcommands::Images(arguments) => build_images(arguments, progress).await?,
        Subcommands::Test(arguments) => return test::run(&arguments.names, arguments.keep).await,
        Subcommands::Scenario(arguments) => return scenarios::run(&arguments).await,
        Subcommands::InstallYaml(arguments) => {
            let helm = Clients::built_helm(progress).await?;
            test::install_yaml::run(&paths::workspace(), &helm, arguments.write).await?;
        }
        Subcommands::Kubectl(arguments) => return client("kubectl", arguments).await,
        Subcommands::Helm(arguments) => return client("helm", arguments).await,
        Subcommands::Logs(arguments) => {
            let folder = Cluster::folder(&arguments.name.cluster)?;
            if !folder.is_dir() {
                // The error says how to make one.
                Cluster::find(&arguments.name.cluster)?;
            }
            print!("{}", show_logs(&folder, &arguments.containing, arguments.lines));
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn up(arguments: Up, progress: &Progress) -> Result<()> {
    let name = arguments.name.cluster;
    let spec = ClusterSpec {
        name: name.clone(),
        nodes: arguments.nodes,
        kubelet_serving_certificates: arguments.kubelet_serving_certificates,
    };
    // What is wrong on the command line is said before anything is built.
    spec.validate()?;
    let tools = Tools::prepare(progress).await?;
    let cluster = Cluster::up(&spec, &tools, progress).await?;
    progress.say(format_args!(
        "cluster {name} is up with {} nodes",
        cluster.nodes()
    ));
    println!("cargo e2e kubectl --cluster {name} get nodes    # use it");
    println!("cargo e2e down --cluster {name}                 # remove it");
    Ok(())
}

async fn build_images(arguments: Images, progress: &Progress) -> Result<()> {
    let output = arguments.output.unwrap_or_else(images::default_output);
    let image = match arguments.binaries {
        Some(binaries) => images::metricsstack_of(&binaries, &output).await?,
        None => images::metricsstack(&output, progress).await?,
    };
    if let Some(cluster) = arguments.cluster {
        let cluster = Cluster::find(&cluster)?;
        progress
            .step("loading the image", cluster.import_image(&image.archive))
            .await?;
    }
    println!("{}    # {}", image.archive.display(), image.reference);
    Ok(())
}

async fn client(program: &str, arguments: Client) -> Result<ExitCode> {
    let cluster = Cluster::find(&arguments.name.cluster)?;
    let mut client = cluster.command(program);
    client.args(arguments.arguments);
    let status = command::status(client).await?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn what_follows_kubectl_is_kubectls() {
        let line = [
            "cargo e2e",
            "kubectl",
            "--cluster",
            "demo",
            "-n",
            "x",
            "get",
            "pods",
            "--cluster",
            "other",
        ];
        let Subcommands::Kubectl(client) = Arguments::parse_from(line).command else {
            panic!("kubectl")
        };
        assert_eq!(client.name.cluster, "demo");
        assert_eq!(client.arguments, line[4..]);
    }
}

//! Kubernetes operator that reconciles `MetricsStack`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};
use metricsstack_operator::controller::Operator;
use metricsstack_operator::metrics::Metrics;
use metricsstack_operator::plan::Environment;
use metricsstack_operator::{api, cluster, delete_stack};
use process::admin::Admin;
use process::telemetry::{self, LogFormat};
use process::{client, shutdown};
use prometheus_client::registry::Registry;

/// Gives a cluster the Metrics API: reconciles the `MetricsStack` named `default`.
#[derive(Parser)]
#[command(name = "metricsstack-operator", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Reconcile until told to end.
    Run(Run),
    /// Print the `CustomResourceDefinition` as YAML.
    Crd,
    /// Delete the `MetricsStack` and wait until everything of it is gone.
    DeleteStack(DeleteStack),
}

#[derive(Args)]
struct Run {
    /// Namespace of the operator; metrics-api runs there too.
    #[arg(long, env = "POD_NAMESPACE", value_parser = NonEmptyStringValueParser::new())]
    namespace: String,
    /// Image with metrics-api, for a stack that names none.
    #[arg(long, env = "METRICS_API_IMAGE", value_name = "IMAGE", value_parser = NonEmptyStringValueParser::new())]
    metrics_api_image: String,
    /// Name of this Pod: who holds the Lease.
    #[arg(long, env = "POD_NAME", value_parser = NonEmptyStringValueParser::new())]
    pod_name: String,
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:8080")]
    admin_address: SocketAddr,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct DeleteStack {
    /// How long to wait for the operator, in seconds or with a unit: 90s, 2m.
    #[arg(long, default_value = "2m", value_parser = duration)]
    timeout: Duration,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct Common {
    /// The cluster to work on. Default: the one that this Pod is in.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// error, warn, info, debug or trace; or directives such as info,kube=debug.
    #[arg(long, default_value = "info")]
    log_level: String,
    /// How a log line looks.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix('m') {
        Some(minutes) => (minutes, 60),
        None => (text.strip_suffix('s').unwrap_or(text), 1),
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .map(Duration::from_secs)
        .ok_or_else(|| "expected seconds or minutes, such as 90s or 2m".to_owned())
}

/// One thread: there is little to do, and each further thread costs memory.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(run) => Box::pin(run.run()).await,
        Command::Crd => print_crd(),
        Command::DeleteStack(delete) => delete.run().await,
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn print_crd() -> anyhow::Result<()> {
    let yaml = serde_yaml::to_string(&api::crd()).context("failed to print the CustomResourceDefinition")?;
    print!("{yaml}");
    Ok(())
}

/// kube logs every answer that is no success as an error, also those that are looked for. What matters of them is
/// logged here, with what was tried. Who asks for a level of kube gets it.
fn quiet(level: &str) -> String {
    if level.is_empty() || level.contains("kube") {
        level.to_owned()
    } else {
        format!("{level},kube_client::client::builder=off")
    }
}

impl Common {
    async fn config(&self) -> anyhow::Result<kube::Config> {
        telemetry::init(self.log_format, &quiet(&self.log_level)).context("--log-level")?;
        client::install_crypto_provider();
        Ok(client::config(self.kubeconfig.as_deref()).await?)
    }
}

impl Run {
    async fn run(self) -> anyhow::Result<()> {
        let config = self.common.config().await?;
        let shutdown = shutdown::on_signals().context("failed to listen for signals")?;
        let metrics = Metrics::default();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        // A replica without the Lease is as ready as one with it.
        let admin = Admin::new(Arc::new(registry))
            .bind(self.admin_address)
            .await
            .context("--admin-address")?;
        let served = tokio::spawn(admin.serve(shutdown.clone()));
        let operator = Operator {
            config,
            environment: Environment {
                namespace: self.namespace,
                image: self.metrics_api_image,
            },
            instance: self.pod_name,
            metrics,
        };
        let result = operator.run(shutdown).await;
        served.abort();
        result
    }
}

impl DeleteStack {
    async fn run(self) -> anyhow::Result<()> {
        let config = self.common.config().await?;
        let client = cluster::calls(&config).context("failed to set up a client")?;
        Ok(delete_stack::delete_stack(&client, self.timeout).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: [&str; 8] = [
        "operator",
        "run",
        "--namespace",
        "ns",
        "--metrics-api-image",
        "image",
        "--pod-name",
        "pod",
    ];

    fn refusal(arguments: &[&str]) -> String {
        Cli::try_parse_from(arguments).err().unwrap().to_string()
    }

    #[test]
    fn a_bad_or_missing_flag_is_named() {
        assert!(Cli::try_parse_from(GOOD).is_ok());
        let without = |flag: &str| {
            let at = GOOD.iter().position(|argument| *argument == flag).unwrap();
            let rest: Vec<_> = GOOD
                .iter()
                .enumerate()
                .filter(|(i, _)| *i != at && *i != at + 1)
                .map(|(_, a)| *a)
                .collect();
            refusal(&rest)
        };
        for flag in ["--namespace", "--metrics-api-image", "--pod-name"] {
            assert!(without(flag).contains(flag), "{flag}");
        }
        for (flag, value) in [
            ("--admin-address", "8080"),
            ("--log-format", "xml"),
            ("--no-such-flag", "1"),
        ] {
            let mut arguments = GOOD.to_vec();
            arguments.extend([flag, value]);
            assert!(refusal(&arguments).contains(flag), "{flag}");
        }
        assert!(refusal(&["operator", "delete-stack", "--timeout", "soon"]).contains("--timeout"));
    }

    #[test]
    fn durations_have_seconds_or_minutes() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        assert!(duration("2h").is_err() && duration("").is_err() && duration("-1").is_err());
    }
}

//! Kubernetes operator that reconciles `MetricsStack`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::builder::NonEmptyStringValueParser;
use clap::error::{ContextKind, ContextValue};
use clap::{Args, CommandFactory as _, Parser, Subcommand};
use metricsstack_operator::api::ImagePullPolicy;
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
    /// When that image is pulled, for a stack that does not say: `Always`, `IfNotPresent` or `Never`.
    #[arg(
        long,
        env = "METRICS_API_IMAGE_PULL_POLICY",
        value_name = "POLICY",
        default_value = "IfNotPresent",
        value_parser = pull_policy
    )]
    metrics_api_image_pull_policy: ImagePullPolicy,
    /// Names of Secrets of the namespace with credentials of that image's registry, for a stack that names none.
    #[arg(
        long,
        env = "METRICS_API_IMAGE_PULL_SECRETS",
        value_name = "NAME,...",
        value_delimiter = ',',
        value_parser = NonEmptyStringValueParser::new()
    )]
    metrics_api_image_pull_secrets: Vec<String>,
    /// How long every state of a rotation of certificates lasts at least, in seconds or with a unit: 90s, 2m.
    #[arg(
        long,
        env = "CERTIFICATE_MINIMUM_AGE",
        value_name = "DURATION",
        default_value = "1m",
        value_parser = duration
    )]
    certificate_minimum_age: Duration,
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

fn pull_policy(text: &str) -> Result<ImagePullPolicy, String> {
    use ImagePullPolicy::{Always, IfNotPresent, Never};
    [Always, IfNotPresent, Never]
        .into_iter()
        .find(|policy| policy.as_str() == text)
        .ok_or_else(|| "expected Always, IfNotPresent or Never".to_owned())
}

impl Cli {
    /// As clap does it, but errors name the variable as well as the flag: in a Pod that is where a value comes from.
    fn read(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, clap::Error> {
        Self::try_parse_from(arguments).map_err(|mut error| {
            let named = match error.get(ContextKind::InvalidArg) {
                Some(ContextValue::String(flag)) => Some(ContextValue::String(with_variable(flag))),
                Some(ContextValue::Strings(flags)) => Some(ContextValue::Strings(
                    flags.iter().map(|flag| with_variable(flag)).collect(),
                )),
                _ => None,
            };
            if let Some(named) = named {
                error.insert(ContextKind::InvalidArg, named);
            }
            error
        })
    }
}

/// A flag as clap prints it, `--name <VALUE>`, and the variable that is read for it.
fn with_variable(flag: &str) -> String {
    let name = flag.split_whitespace().next().unwrap_or_default();
    let cli = Cli::command();
    let variable = cli
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .find(|argument| {
            argument
                .get_long()
                .is_some_and(|long| name == format!("--{long}"))
        })
        .and_then(clap::Arg::get_env);
    match variable {
        Some(variable) => format!("{flag} (or the variable {})", variable.display()),
        None => flag.to_owned(),
    }
}

/// One thread: there is little to do, and each further thread costs memory.
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let result = match cli.command {
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
                image_pull_policy: self.metrics_api_image_pull_policy,
                image_pull_secrets: self.metrics_api_image_pull_secrets,
                certificate_minimum_age: self.certificate_minimum_age,
                // As kubelet tells every Pod.
                api_service: std::env::var("KUBERNETES_SERVICE_HOST")
                    .ok()
                    .and_then(|address| address.parse().ok()),
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
        let arguments = arguments.iter().map(OsString::from);
        Cli::read(arguments).err().unwrap().to_string()
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
        for (flag, variable) in [
            ("--namespace", "POD_NAMESPACE"),
            ("--metrics-api-image", "METRICS_API_IMAGE"),
            ("--pod-name", "POD_NAME"),
        ] {
            let refusal = without(flag);
            assert!(refusal.contains(flag) && refusal.contains(variable), "{refusal}");
        }
        for (flag, value) in [
            ("--admin-address", "8080"),
            ("--log-format", "xml"),
            ("--metrics-api-image-pull-policy", "Sometimes"),
            ("--no-such-flag", "1"),
        ] {
            let mut arguments = GOOD.to_vec();
            arguments.extend([flag, value]);
            assert!(refusal(&arguments).contains(flag), "{flag}");
        }
        assert!(refusal(&["operator", "delete-stack", "--timeout", "soon"]).contains("--timeout"));
    }

    #[test]
    fn the_image_is_pulled_as_the_flags_say() {
        let parsed = |more: &[&str]| match Cli::try_parse_from(GOOD.iter().chain(more)).unwrap().command {
            Command::Run(run) => (
                run.metrics_api_image_pull_policy,
                run.metrics_api_image_pull_secrets,
            ),
            Command::Crd | Command::DeleteStack(_) => unreachable!(),
        };
        assert_eq!(parsed(&[]), (ImagePullPolicy::IfNotPresent, Vec::new()));
        let flags = [
            "--metrics-api-image-pull-policy=Never",
            "--metrics-api-image-pull-secrets=a,b",
        ];
        let secrets = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(parsed(&flags), (ImagePullPolicy::Never, secrets));
    }

    #[test]
    fn durations_have_seconds_or_minutes() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        assert!(duration("2h").is_err() && duration("").is_err() && duration("-1").is_err());
    }
}

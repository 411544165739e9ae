//! What must be seen to work on a real cluster. Each scenario runs in a process of its own inside the cluster's
//! network, makes the state that it needs, waits for conditions with deadlines, and leaves a working stack or none.
#![expect(
    clippy::indexing_slicing,
    reason = "a JSON value gives null for what it has not, it does not panic"
)]

mod access;
mod admission;
mod adopt;
mod audit;
mod contested;
mod context;
pub(crate) mod diagnostics;
mod exposition;
mod fake_kubelet;
mod front_proxy_files;
mod load;
mod objects;
mod pki;
mod pod;
mod secrets;
mod stack;
mod wait;

mod aggregated_api;
mod approval;
mod autoscaling;
mod bad_flags;
mod bad_spec;
mod boundaries;
mod certificate_rotation;
mod drop_in;
mod failed_reads;
mod foreign_api_service;
mod front_proxy_rotation;
mod host_network;
mod install;
mod kubelet_certificates;
mod lost_replicas;
mod monitoring;
mod numbers;
mod quiet;
mod removal;
mod repair;
mod restarted_api_server;
mod rights_used;
mod sick_kubelets;
mod sizes;
mod typed_client;
mod upgrade;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use futures::future::LocalBoxFuture;

use self::context::Context;
use crate::cluster::{ClusterSpec, ServingCertificates};

/// Time for a scenario that missed its deadline to clean up.
pub(crate) const DEADLINE_GRACE: Duration = Duration::from_secs(20);

/// Scenarios that are run and timed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Group {
    /// From each way of installing to the numbers that people see, or to why there are none.
    KubectlTop,
    /// Who is answered, and kubelets that misbehave.
    MetricsApi,
    /// Repair, rotation, upgrade, refusal and removal.
    Operator,
    /// The way from kube-apiserver, other programs' clients and servers, and clusters whose kubelets have certificates of
    /// the cluster's CA.
    Aggregation,
    /// Figures for the docs. They are run when they are named only.
    Measurements,
}

impl Group {
    /// All, in the order in which they are run.
    pub(crate) const ALL: [Self; 5] = [
        Self::KubectlTop,
        Self::MetricsApi,
        Self::Operator,
        Self::Aggregation,
        Self::Measurements,
    ];

    /// Whether it is part of the tests: it proves something.
    pub(crate) fn is_test(self) -> bool {
        self != Self::Measurements
    }

    /// Its name on the command line and in the table.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KubectlTop => "kubectl-top",
            Self::MetricsApi => "metrics-api",
            Self::Operator => "operator",
            Self::Aggregation => "aggregation",
            Self::Measurements => "measurements",
        }
    }

    /// How long its scenarios may take together.
    pub(crate) fn budget(self) -> Duration {
        match self {
            Self::KubectlTop | Self::MetricsApi => Duration::from_mins(8),
            Self::Operator | Self::Aggregation => Duration::from_mins(12),
            Self::Measurements => Duration::from_mins(30),
        }
    }
}

/// The cluster that a scenario needs. Scenarios that need the same share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ClusterKind {
    /// Two nodes as kubeadm makes them: kubelets sign their serving certificates themselves.
    Default,
    /// One node whose kubelet gets its serving certificate from the cluster's CA.
    Csr,
    /// One node whose kubelet waits for its serving certificate.
    Bootstrap,
    /// As the default one, beside it.
    Measured,
}

impl ClusterKind {
    /// The cluster's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Default => "test",
            Self::Csr => "test-csr",
            Self::Bootstrap => "test-bootstrap",
            Self::Measured => "measured",
        }
    }

    /// What it is made of.
    pub(crate) fn spec(self) -> ClusterSpec {
        match self {
            Self::Default | Self::Measured => ClusterSpec::new(self.name()),
            Self::Csr | Self::Bootstrap => ClusterSpec {
                nodes: 1,
                kubelet_serving_certificates: match self {
                    Self::Bootstrap => ServingCertificates::CsrPending,
                    Self::Default | Self::Measured | Self::Csr => ServingCertificates::Csr,
                },
                ..ClusterSpec::new(self.name())
            },
        }
    }
}

/// One thing that must be seen to work.
#[derive(Debug)]
pub(crate) struct Scenario {
    /// Its name on the command line and in the table.
    pub(crate) name: &'static str,
    /// What it is run with.
    pub(crate) group: Group,
    /// Where it is run.
    pub(crate) cluster: ClusterKind,
    /// After this it counts as failed.
    pub(crate) deadline: Duration,
    run: for<'a> fn(&'a Context) -> LocalBoxFuture<'a, Result<()>>,
}

macro_rules! scenarios {
    ($($group:ident $cluster:ident $name:literal $minutes:literal $run:path;)*) => {
        /// Every scenario. Within a group they are run in this order.
        pub(crate) const SCENARIOS: &[Scenario] = &[$(Scenario {
            name: $name,
            group: Group::$group,
            cluster: ClusterKind::$cluster,
            deadline: Duration::from_mins($minutes),
            run: |context| Box::pin($run(context)),
        },)*];
    };
}

scenarios! {
    KubectlTop Default "install-yaml" 5 install::by_manifest;
    KubectlTop Default "helm-install" 5 install::by_helm;
    KubectlTop Default "helm-uninstall" 4 removal::of_the_release;
    KubectlTop Default "verify-self-signed" 5 kubelet_certificates::self_signed_are_not_verified;
    KubectlTop Default "foreign-api-service" 4 foreign_api_service::is_left_alone;
    KubectlTop Default "monitoring" 4 monitoring::comes_and_goes_with_its_kinds;
    KubectlTop Default "numbers" 5 numbers::are_the_kubelets;
    KubectlTop Default "typed-client" 3 typed_client::reads_both_encodings;
    KubectlTop Default "busy-loop" 4 numbers::of_a_busy_loop;
    KubectlTop Default "autoscaling" 5 autoscaling::scales_up;
    KubectlTop Default "quiet" 6 quiet::is_not_written_to;

    MetricsApi Default "rights" 3 boundaries::rights;
    MetricsApi Default "front-proxy" 4 boundaries::front_proxy;
    MetricsApi Default "front-proxy-rotation" 5 front_proxy_rotation::fails_no_read;
    MetricsApi Default "sick-kubelets" 6 sick_kubelets::only_they_are_affected;
    MetricsApi Default "kubelet-trust" 5 kubelet_certificates::changes_are_refused;
    MetricsApi Default "lost-replicas" 6 lost_replicas::are_survived;
    MetricsApi Default "bad-flags" 2 bad_flags::end_the_process;

    Operator Default "repair" 6 repair::everything_comes_back;
    Operator Default "certificate-rotation" 8 certificate_rotation::fails_no_read;
    Operator Default "upgrade" 6 upgrade::there_and_back_fails_no_read;
    Operator Default "host-network" 6 host_network::there_and_back_fails_no_read;
    Operator Default "bad-spec" 4 bad_spec::is_refused;
    Operator Default "stack-deletion" 6 removal::of_the_stack;

    Aggregation Default "namespace-deletion" 5 removal::of_the_namespace;
    Aggregation Default "failed-reads" 8 failed_reads::are_explained;
    Aggregation Default "restarted-api-server" 5 restarted_api_server::is_followed_again;
    Aggregation Default "contested-object" 4 contested::is_named_and_left_alone;
    Aggregation Default "rights-used" 2 rights_used::are_those_of_the_chart;
    Aggregation Csr "verify-signed" 5 kubelet_certificates::signed_are_verified;
    Aggregation Csr "upgrade-one-node" 6 upgrade::there_and_back_fails_no_read;
    Aggregation Csr "aggregated-api" 5 aggregated_api::works_with_kubectl;
    Aggregation Csr "adopt" 6 adopt::there_and_back;
    Aggregation Csr "drop-in" 9 drop_in::by_image_only;

    Aggregation Bootstrap "approval" 4 approval::of_kubelets_only;

    Measurements Measured "lost-replicas-by-protocol" 29 lost_replicas::are_measured;
    Measurements Measured "sizes" 60 sizes::are_measured;
    Measurements Measured "certificate-rotations" 40 certificate_rotation::is_measured;
}

/// Arguments of the hidden subcommand that runs one scenario in this process.
#[derive(Args, Debug)]
pub struct ScenarioArgs {
    /// Name of the cluster, which must be up.
    #[arg(long)]
    cluster: String,
    /// Names of the scenarios that were run before on the cluster.
    #[arg(long, value_delimiter = ',')]
    ran: Vec<String>,
    /// Name of the scenario.
    name: String,
}

/// Runs one scenario in this process, which must be in the network of the cluster.
pub async fn run(args: &ScenarioArgs) -> Result<ExitCode> {
    let scenario = SCENARIOS.iter().find(|scenario| scenario.name == args.name);
    let scenario = scenario.with_context(|| format!("there is no scenario {:?}", args.name))?;
    let context = Context::new(&args.cluster, args.ran.clone()).await?;
    // A scenario that was killed may have left some.
    remove_leftovers(&context).await?;
    let ended = tokio::time::timeout(scenario.deadline, (scenario.run)(&context)).await;
    let ended = ended
        .with_context(|| format!("not over after {:?}", scenario.deadline))
        .flatten();
    let removed = remove_leftovers(&context).await;
    ended.and(removed).map(|()| ExitCode::SUCCESS)
}

/// Nodes that lead to a process have no meaning without it, and what a scenario had refused no other one expects.
async fn remove_leftovers(context: &Context) -> Result<()> {
    admission::allow_all(context).await?;
    fake_kubelet::remove_all(context).await
}

/// The image of what scenarios run in pods.
fn workload_image() -> String {
    format!("metricsstack/workload:{}", env!("CARGO_PKG_VERSION"))
}

//! `cargo e2e test`: every step, from the tools to the scenarios on real clusters, with a table of how long each took.

mod checks;
mod clusters;
pub(crate) mod command;
pub mod install_yaml;
mod interruption;
mod plan;
mod table;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use self::checks::Failures;
use self::clusters::Clusters;
use self::plan::Plan;
use self::table::{Counts, Outcome};
use crate::images;
use crate::paths;
use crate::progress::Progress;
use crate::scenarios::{ClusterKind, Group, Scenario};
use crate::tools::Tools;

const TOOLS_BUDGET: Duration = Duration::from_mins(12);
const BUILDS_BUDGET: Duration = Duration::from_mins(15);
const CHECKS_BUDGET: Duration = Duration::from_mins(8);

/// Runs the steps, checks, groups and scenarios with these names, all of them if there are none, and prints the table.
/// The clusters are removed at the end unless they are to be kept. Succeeds if nothing failed.
pub async fn run(names: &[String], keep: bool) -> Result<ExitCode> {
    let plan = Plan::new(names)?;
    let mut run = Run {
        keep,
        ..Run::default()
    };
    let interrupted = tokio::select! {
        () = run.everything(&plan) => false,
        signal = interrupt() => { signal?; true }
    };
    if keep {
        run.clusters.tell(&run.progress);
    } else {
        let began = Instant::now();
        if let Err(error) = run.clusters.remove_all_but(&[], &run.progress).await {
            run.report("removing the clusters", began, None, Err(error));
        }
    }
    let total = table::total(&run.outcomes);
    println!("\n{}", table::render(&run.outcomes));
    print!("{}", table::failures(&run.outcomes));
    if interrupted {
        bail!(
            "interrupted after {} passed, {} failed",
            total.passed,
            total.failed
        );
    }
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Ctrl-C, or a request to end.
async fn interrupt() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        done = tokio::signal::ctrl_c() => done?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// One run of the tests.
#[derive(Default)]
struct Run {
    keep: bool,
    progress: Progress,
    outcomes: Vec<Outcome>,
    clusters: Clusters,
    /// Of which it was printed what helps to understand a failure.
    diagnosed: BTreeSet<ClusterKind>,
}

impl Run {
    async fn everything(&mut self, plan: &Plan) {
        let tools = if plan.tools { self.tools().await } else { None };
        if plan.builds {
            let built = self.builds(tools.as_ref()).await;
            self.clusters.set_images(built);
        }
        self.checks(plan).await;
        for group in Group::ALL {
            let scenarios: Vec<_> = plan
                .scenarios
                .iter()
                .copied()
                .filter(|s| s.group == group)
                .collect();
            if !scenarios.is_empty() {
                self.group(group, &scenarios, tools.as_ref()).await;
            }
            self.remove_unneeded(plan, group).await;
        }
    }

    async fn tools(&mut self) -> Option<Tools> {
        let began = Instant::now();
        let tools = Tools::prepare(&self.progress).await;
        let (tools, result) = split(tools);
        self.report(
            "tools",
            began,
            Some(TOOLS_BUDGET),
            result.map(|()| Counts::one(true)),
        );
        tools
    }

    async fn builds(&mut self, tools: Option<&Tools>) -> Option<Vec<crate::image::Image>> {
        let began = Instant::now();
        let output = images::default_output();
        let built = async {
            let tools = tools.ok_or_else(|| anyhow::anyhow!("not run, for there are no tools"))?;
            let previous = images::previous(&output, &self.progress).await?;
            let metricsstack = images::metricsstack(&output, &self.progress).await?;
            let notes = images::notes(&output, &self.progress).await?;
            let workload = images::workload(tools, &output).await?;
            let metrics_server = images::metrics_server(tools, &output).await?;
            Ok(vec![metricsstack, previous, notes, workload, metrics_server])
        };
        let (built, result) = split(built.await);
        self.report(
            "builds",
            began,
            Some(BUILDS_BUDGET),
            result.map(|()| Counts::one(true)),
        );
        built
    }

    async fn checks(&mut self, plan: &Plan) {
        if plan.checks.is_empty() {
            return;
        }
        let (all, first) = (Instant::now(), self.outcomes.len());
        for check in &plan.checks {
            let began = Instant::now();
            let root = paths::workspace();
            let result = self
                .progress
                .step(check.name(), check.run(&root, &self.progress, |_| ()))
                .await;
            self.report(&format!("checks/{}", check.name()), began, None, result);
        }
        self.sum("checks", first, all, CHECKS_BUDGET);
    }

    async fn group(&mut self, group: Group, scenarios: &[&'static Scenario], tools: Option<&Tools>) {
        let (all, first) = (Instant::now(), self.outcomes.len());
        for scenario in scenarios {
            let began = Instant::now();
            if let Some(result) = self
                .clusters
                .prepare(scenario.cluster, tools, &self.progress)
                .await
            {
                let name = format!("{}/cluster {}", group.name(), scenario.cluster.name());
                self.report(&name, began, None, result.map(|()| Counts::one(true)));
            }
            let began = Instant::now();
            let result = self.clusters.run(scenario, &self.progress).await;
            let name = format!("{}/{}", group.name(), scenario.name);
            let failed = result.is_err();
            self.report(&name, began, None, result.map(|()| Counts::one(true)));
            // What follows a first failure often follows from it.
            if failed && self.diagnosed.insert(scenario.cluster) {
                self.clusters.diagnose(scenario.cluster).await;
            }
        }
        self.sum(group.name(), first, all, group.budget());
    }

    /// Frees the memory of clusters that no group after `group` needs. What fails here is tried again at the end.
    async fn remove_unneeded(&mut self, plan: &Plan, group: Group) {
        if !self.keep {
            let later = plan.scenarios.iter().filter(|scenario| scenario.group > group);
            let needed: Vec<_> = later.map(|scenario| scenario.cluster).collect();
            if let Err(error) = self.clusters.remove_all_but(&needed, &self.progress).await {
                self.progress.say(format_args!("{error:#}"));
            }
        }
    }

    /// Prints how a step ended and keeps it for the table.
    fn report(&mut self, name: &str, began: Instant, budget: Option<Duration>, result: Result<Counts>) {
        let took = began.elapsed();
        let (counts, failure) = match result {
            Ok(counts) => {
                self.progress
                    .say(format_args!("PASSED {name} ({})", table::duration(took)));
                (counts, None)
            }
            Err(error) => {
                self.progress.say(format_args!(
                    "FAILED {name} ({})\n{error:#}",
                    table::duration(took)
                ));
                let counts = error
                    .downcast_ref::<Failures>()
                    .map_or(Counts::one(false), |failures| failures.counts);
                (counts, Some(format!("{error:#}")))
            }
        };
        self.outcomes.push(Outcome {
            name: name.to_owned(),
            took,
            budget,
            sum: false,
            counts,
            failure,
        });
    }

    /// Puts a row with the sum over the rows from `first` above them.
    fn sum(&mut self, name: &str, first: usize, began: Instant, budget: Duration) {
        let rows = self.outcomes.get(first..).unwrap_or_default();
        let counts = rows
            .iter()
            .fold(Counts::default(), |sum, row| sum.plus(row.counts));
        let sum = Outcome {
            name: name.to_owned(),
            took: began.elapsed(),
            budget: Some(budget),
            sum: true,
            counts,
            failure: None,
        };
        self.outcomes.insert(first, sum);
    }
}

/// What was made, and how that ended.
fn split<T>(result: Result<T>) -> (Option<T>, Result<()>) {
    match result {
        Ok(value) => (Some(value), Ok(())),
        Err(error) => (None, Err(error)),
    }
}

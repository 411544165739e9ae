//! What to run: the names on the command line turned into checks and scenarios. Pure.

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use super::checks::Check;
use crate::scenarios::{Group, SCENARIOS, Scenario};

/// Steps that are not groups of scenarios.
const STEPS: [&str; 3] = ["tools", "builds", "checks"];

/// What is to be run, in order.
#[derive(Debug)]
pub(super) struct Plan {
    /// The Go programs, built or found in the cache.
    pub(super) tools: bool,
    /// Binaries in the release profile and the image.
    pub(super) builds: bool,
    /// Checks without a cluster.
    pub(super) checks: Vec<Check>,
    /// Scenarios, in order of their groups.
    pub(super) scenarios: Vec<&'static Scenario>,
}

impl Plan {
    /// Every test, or what `names` select: steps, single checks, groups, single scenarios. What these need comes along.
    pub(super) fn new(names: &[String]) -> Result<Self> {
        let known = known_names();
        for name in names {
            if !known.contains(name.as_str()) {
                let known: Vec<_> = known.into_iter().collect();
                bail!(
                    "there is no step, check, group or scenario {name:?}; there are: {}",
                    known.join(", ")
                );
            }
        }
        let wanted =
            |choices: &[&str]| names.is_empty() || names.iter().any(|name| choices.contains(&name.as_str()));
        let checks: Vec<_> = Check::ALL
            .into_iter()
            .filter(|check| wanted(&["checks", check.name()]))
            .collect();
        let scenarios: Vec<_> = Group::ALL
            .into_iter()
            .flat_map(|group| SCENARIOS.iter().filter(move |scenario| scenario.group == group))
            .filter(|scenario| scenario.group.is_test() || !names.is_empty())
            .filter(|scenario| wanted(&[scenario.group.name(), scenario.name]))
            .collect();
        Ok(Self {
            // The workload's image is built of one of the tools.
            tools: wanted(&["tools", "builds"])
                || !scenarios.is_empty()
                || checks.iter().any(|check| check.needs_tools()),
            builds: wanted(&["builds"]) || !scenarios.is_empty(),
            checks,
            scenarios,
        })
    }
}

/// Every name that may stand on the command line.
fn known_names() -> BTreeSet<&'static str> {
    let checks = Check::ALL.into_iter().map(Check::name);
    let groups = Group::ALL.into_iter().map(Group::name);
    let scenarios = SCENARIOS.iter().map(|scenario| scenario.name);
    STEPS
        .into_iter()
        .chain(checks)
        .chain(groups)
        .chain(scenarios)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(names: &[&str]) -> Plan {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        Plan::new(&names).unwrap()
    }

    #[test]
    fn no_name_is_every_test() {
        let plan = plan(&[]);
        assert!(plan.tools && plan.builds);
        assert_eq!(plan.checks.len(), Check::ALL.len());
        assert_eq!(
            plan.scenarios.len(),
            SCENARIOS.iter().filter(|s| s.group.is_test()).count()
        );
    }

    #[test]
    fn a_group_brings_its_scenarios_and_what_they_need() {
        let plan = plan(&["operator"]);
        assert!(plan.tools && plan.builds && plan.checks.is_empty());
        assert!(
            plan.scenarios
                .iter()
                .all(|scenario| scenario.group == Group::Operator)
        );
        assert!(!plan.scenarios.is_empty());
    }

    #[test]
    fn a_check_needs_no_build() {
        let plan = plan(&["fmt"]);
        assert!(!plan.tools && !plan.builds && plan.scenarios.is_empty());
        assert_eq!(plan.checks, [Check::Fmt]);
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_known_ones() {
        let error = Plan::new(&["kubectl-tpo".to_owned()]).unwrap_err().to_string();
        assert!(
            error.contains("\"kubectl-tpo\"") && error.contains("kubectl-top"),
            "{error}"
        );
    }

    #[test]
    fn names_are_unique() {
        let count = STEPS.len() + Check::ALL.len() + Group::ALL.len() + SCENARIOS.len();
        assert_eq!(known_names().len(), count);
    }
}

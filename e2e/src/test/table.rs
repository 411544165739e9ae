//! The table at the end, and the last line. Pure.

use std::fmt::Write as _;
use std::time::Duration;

/// How one step ended.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Step, or group and scenario.
    pub(super) name: String,
    /// How long it took.
    pub(super) took: Duration,
    /// How long it may take; `None` where only the group's sum counts.
    pub(super) budget: Option<Duration>,
    /// Whether it is a sum over rows below it, which are counted instead.
    pub(super) sum: bool,
    /// What it adds to the last line.
    pub(super) counts: Counts,
    /// Why it failed.
    pub(super) failure: Option<String>,
}

/// What passed and what failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Number of things that passed.
    pub(super) passed: usize,
    /// Number of things that failed.
    pub(super) failed: usize,
}

impl Counts {
    /// One thing.
    pub(super) fn one(passed: bool) -> Self {
        Self {
            passed: usize::from(passed),
            failed: usize::from(!passed),
        }
    }

    /// Both together.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            passed: self.passed + other.passed,
            failed: self.failed + other.failed,
        }
    }

    /// The sum over all `test result:` lines that cargo's test harness printed.
    pub(super) fn of_test_output(output: &str) -> Self {
        output
            .lines()
            .filter_map(|line| line.trim_start().strip_prefix("test result: "))
            .fold(Self::default(), |sum, line| {
                sum.plus(Self {
                    passed: number_before(line, " passed"),
                    failed: number_before(line, " failed"),
                })
            })
    }
}

/// The number right before `word`, 0 if there is none.
fn number_before(line: &str, word: &str) -> usize {
    let before = line.split(word).next().unwrap_or_default();
    let digits = before
        .rsplit(|c: char| !c.is_ascii_digit())
        .next()
        .unwrap_or_default();
    digits.parse().unwrap_or_default()
}

/// Minutes and seconds for a person.
pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds < 60 {
        format!("{:.1}s", time.as_secs_f64())
    } else {
        format!("{}m{:02}s", seconds / 60, seconds % 60)
    }
}

/// The table of all steps; what took longer than its budget is marked.
pub(super) fn render(outcomes: &[Outcome]) -> String {
    let width = outcomes
        .iter()
        .map(|o| o.name.chars().count())
        .max()
        .unwrap_or(4)
        .max(4);
    let mut table = format!("{:width$}  {:>8}  {:>8}\n", "step", "time", "budget");
    for outcome in outcomes {
        let budget = outcome.budget.map(duration).unwrap_or_default();
        let over = outcome.budget.is_some_and(|budget| outcome.took > budget);
        let _ = write!(
            table,
            "{:width$}  {:>8}  {budget:>8}",
            outcome.name,
            duration(outcome.took)
        );
        table.push_str(if over { "  OVER BUDGET" } else { "" });
        table.push_str(if outcome.counts.failed > 0 { "  FAILED" } else { "" });
        table.push('\n');
    }
    table
}

/// How much of a failure is repeated below the table.
const SHOWN: usize = 600;

/// Each failure once more, where it is looked for: at the end.
pub(super) fn failures(outcomes: &[Outcome]) -> String {
    outcomes.iter().fold(String::new(), |mut text, outcome| {
        if let Some(failure) = &outcome.failure {
            let shown: String = failure.chars().take(SHOWN).collect();
            let _ = writeln!(text, "FAILED {}: {}\n", outcome.name, shown.trim_end());
        }
        text
    })
}

/// What all steps add up to.
pub(super) fn total(outcomes: &[Outcome]) -> Counts {
    outcomes
        .iter()
        .filter(|outcome| !outcome.sum)
        .fold(Counts::default(), |sum, outcome| sum.plus(outcome.counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(name: &str, seconds: u64, budget: Option<u64>, sum: bool, passed: bool) -> Outcome {
        Outcome {
            name: name.to_owned(),
            took: Duration::from_secs(seconds),
            budget: budget.map(Duration::from_secs),
            sum,
            counts: Counts::one(passed),
            failure: (!passed && !sum).then(|| "because".to_owned()),
        }
    }

    #[test]
    fn results_of_several_test_binaries_add_up() {
        let output = "running 2 tests\ntest result: ok. 2 passed; 0 failed; 0 ignored\n\
                      test result: FAILED. 10 passed; 3 failed; 1 ignored\n";
        assert_eq!(
            Counts::of_test_output(output),
            Counts {
                passed: 12,
                failed: 3
            }
        );
    }

    #[test]
    fn the_table_marks_what_is_late_and_what_failed() {
        let table = render(&[
            outcome("tools", 3, Some(720), false, true),
            outcome("operator", 725, Some(720), true, false),
            outcome("operator/repair", 65, None, false, false),
        ]);
        let lines: Vec<_> = table.lines().collect();
        assert_eq!(lines[1], "tools                3.0s    12m00s");
        assert_eq!(
            lines[2],
            "operator           12m05s    12m00s  OVER BUDGET  FAILED"
        );
        assert_eq!(lines[3], "operator/repair     1m05s            FAILED");
    }

    #[test]
    fn failures_are_repeated_once() {
        let text = failures(&[
            outcome("operator", 1, None, true, false),
            outcome("operator/repair", 1, None, false, false),
            outcome("operator/removal", 1, None, false, true),
        ]);
        assert_eq!(text, "FAILED operator/repair: because\n\n");
    }

    #[test]
    fn sums_are_not_counted_twice() {
        let all = [
            outcome("operator", 1, None, true, false),
            outcome("operator/repair", 1, None, false, false),
            outcome("operator/removal", 1, None, false, true),
        ];
        assert_eq!(total(&all), Counts { passed: 1, failed: 1 });
    }
}

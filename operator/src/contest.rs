//! Another controller that keeps writing an object of ours: pure. Putting it right at once, again and again, would only
//! keep both busy. So after some repairs in a row the object is left alone for a while, longer each time.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use tokio::time::Instant;

use crate::ownership;

/// Repairs in a row that are ordinary: somebody tries something, or deletes a few things.
const ORDINARY: u32 = 5;
/// Repairs this far apart are no row. It is over when nobody has changed the object for this long.
const CALM: Duration = Duration::from_mins(2);
/// The first time that the object is left alone; it doubles.
const FIRST: Duration = Duration::from_secs(30);
/// The longest. The object is found as somebody else wants it meanwhile.
const LONGEST: Duration = Duration::from_mins(10);

/// An object of ours that somebody else keeps changing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contest {
    /// Kind, namespace and name: `Service metricsstack-system/metrics-api`.
    pub object: String,
    /// Who changes it, and how soon.
    pub by: String,
}

/// What is known of each object that had to be put right.
#[derive(Debug, Default)]
pub(crate) struct Contests(BTreeMap<String, Row>);

#[derive(Debug)]
struct Row {
    repairs: u32,
    last: Instant,
    /// How long it is left alone after the last repair.
    pause: Duration,
    by: String,
}

impl Row {
    fn is_contest(&self) -> bool {
        self.repairs >= ORDINARY
    }
}

impl Contests {
    /// Whether `object`, which is not as it shall be, is left as it is for now.
    pub(crate) fn holds_off(&self, object: &str, now: Instant) -> bool {
        self.0
            .get(object)
            .is_some_and(|row| row.is_contest() && now < row.last + row.pause)
    }

    /// Whether somebody keeps changing `object`.
    pub(crate) fn is_contested(&self, object: &str) -> bool {
        self.0.get(object).is_some_and(Row::is_contest)
    }

    /// Takes note that `object`, which we had written as it shall be, had to be put right.
    pub(crate) fn repaired(&mut self, object: &str, by: String, now: Instant) {
        let row = self.0.entry(object.to_owned()).or_insert_with(|| Row {
            repairs: 0,
            last: now,
            pause: Duration::ZERO,
            by: String::new(),
        });
        if now >= row.last + row.pause + CALM {
            (row.repairs, row.pause) = (0, Duration::ZERO);
        }
        row.repairs = row.repairs.saturating_add(1);
        row.last = now;
        if row.is_contest() {
            row.pause = row.pause.saturating_mul(2).clamp(FIRST, LONGEST);
        }
        // Who it was is told once: what differs from time to time must not change the status.
        if row.repairs <= ORDINARY {
            row.by = by;
        }
    }

    /// Takes note that `object` is as it shall be.
    pub(crate) fn as_wanted(&mut self, object: &str, now: Instant) {
        if self
            .0
            .get(object)
            .is_some_and(|row| now >= row.last + row.pause + CALM)
        {
            self.0.remove(object);
        }
    }

    /// Forgets `object`: it shall not be any more.
    pub(crate) fn forget(&mut self, object: &str) {
        self.0.remove(object);
    }

    /// The objects that somebody keeps changing.
    pub(crate) fn all(&self) -> Vec<Contest> {
        self.0
            .iter()
            .filter(|(_, row)| row.is_contest())
            .map(|(object, row)| Contest {
                object: object.clone(),
                by: row.by.clone(),
            })
            .collect()
    }
}

/// Who changed an object last besides us, as it is in its `managedFields`: `kubectl-patch (Update, within seconds)`.
pub(crate) fn opponent(entries: Option<&[ManagedFieldsEntry]>) -> String {
    let entries = entries.unwrap_or_default();
    let time = |entry: &ManagedFieldsEntry| entry.time.as_ref().map(|time| time.0);
    let Some(other) = entries
        .iter()
        .filter(|entry| ownership::is_other(entry))
        .max_by_key(|entry| (ownership::interferes(entry), time(entry)))
    else {
        return "somebody whom its managedFields do not name".to_owned();
    };
    let ours = entries
        .iter()
        .find(|entry| ownership::is_ours(entry))
        .and_then(time);
    let soon = match (ours, time(other)) {
        (Some(ours), Some(theirs)) => match theirs.duration_since(ours).as_secs() {
            ..10 => ", within seconds",
            10..120 => ", within two minutes",
            _ => ", later",
        },
        _ => "",
    };
    format!(
        "the field manager {:?} ({}{soon})",
        other.manager.as_deref().unwrap_or_default(),
        other.operation.as_deref().unwrap_or("Update"),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const OBJECT: &str = "Service ns/metrics-api";

    fn after_repairs(number: u32) -> (Contests, Instant) {
        let (mut contests, now) = (Contests::default(), Instant::now());
        for _ in 0..number {
            contests.repaired(OBJECT, "them".to_owned(), now);
        }
        (contests, now)
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_repairs_are_ordinary() {
        let (contests, now) = after_repairs(ORDINARY - 1);
        assert!(!contests.holds_off(OBJECT, now));
        assert_eq!(contests.all(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn many_in_a_row_are_a_contest_and_the_pause_doubles_up_to_an_end() {
        let (mut contests, mut now) = after_repairs(ORDINARY);
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let start = now;
            while contests.holds_off(OBJECT, now) {
                now += Duration::from_secs(30);
            }
            pauses.push((now - start).as_secs());
            contests.repaired(OBJECT, "them again".to_owned(), now);
        }
        assert_eq!(pauses, [30, 60, 120, 240, 480, 600, 600]);
        let object = OBJECT.to_owned();
        let by = "them".to_owned();
        assert_eq!(contests.all(), [Contest { object, by }]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_over_when_nobody_changes_it_for_a_while() {
        let (mut contests, now) = after_repairs(ORDINARY);
        contests.as_wanted(OBJECT, now + FIRST);
        assert_eq!(contests.all().len(), 1, "it was put right just now");
        contests.as_wanted(OBJECT, now + FIRST + CALM);
        assert_eq!(contests.all(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn repairs_far_apart_are_no_row() {
        let (mut contests, mut now) = (Contests::default(), Instant::now());
        for _ in 0..3 * ORDINARY {
            contests.repaired(OBJECT, "them".to_owned(), now);
            now += CALM;
        }
        assert_eq!(contests.all(), []);
    }

    #[test]
    fn the_opponent_is_who_wrote_what_is_ours() {
        let entry = |manager: &str, operation: &str, time: &str, fields: Value| {
            serde_json::from_value(json!({"manager": manager, "operation": operation,
                "time": format!("2026-11-24T05:{time}Z"), "fieldsV1": fields}))
            .unwrap()
        };
        let spec = json!({"f:spec": {"f:selector": {}}});
        let entries: [ManagedFieldsEntry; 3] = [
            entry("metricsstack-operator", "Apply", "00:00", json!({})),
            entry("argocd", "Apply", "00:30", spec),
            entry(
                "kubectl-label",
                "Update",
                "09:00",
                json!({"f:metadata": {"f:labels": {}}}),
            ),
        ];
        assert_eq!(
            opponent(Some(&entries)),
            "the field manager \"argocd\" (Apply, within two minutes)"
        );
        assert_eq!(opponent(None), "somebody whom its managedFields do not name");
    }
}

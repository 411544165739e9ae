//! What a kubelet said at `/metrics/resource`, kept so that served usages can be compared with it.

use std::collections::BTreeMap;

/// What a sample is of: family, namespace, pod, container. The last three are empty for the node itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Series {
    /// Name of the family.
    pub(super) family: String,
    /// Namespace of the pod.
    pub(super) namespace: String,
    /// The pod.
    pub(super) pod: String,
    /// The container.
    pub(super) container: String,
}

/// Values by series, then by time in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Recording {
    samples: BTreeMap<Series, BTreeMap<i64, f64>>,
}

impl Recording {
    /// Keeps all samples of one answer that have a time.
    pub(super) fn add(&mut self, exposition: &str) {
        for line in exposition.lines() {
            if let Some((series, time, value)) = sample(line) {
                self.samples.entry(series).or_default().insert(time, value);
            }
        }
    }

    /// The value of `series` at exactly `time`.
    pub(super) fn at(&self, series: &Series, time: i64) -> Option<f64> {
        self.samples.get(series)?.get(&time).copied()
    }

    /// The times of `series` within the second that begins at `time`: a reply's timestamp has no fraction.
    pub(super) fn within_second(&self, series: &Series, time: i64) -> Vec<i64> {
        let times = self
            .samples
            .get(series)
            .map(|values| values.range(time..time + 1000));
        times.into_iter().flatten().map(|(time, _)| *time).collect()
    }

    /// How many samples there are.
    pub(super) fn len(&self) -> usize {
        self.samples.values().map(BTreeMap::len).sum()
    }
}

/// Reads a line of the kubelet's exposition: family, labels, value, time. Comments and samples without a time are none.
fn sample(line: &str) -> Option<(Series, i64, f64)> {
    let (family, labels, rest) = if let Some((family, rest)) = line.split_once('{') {
        let (labels, rest) = rest.split_once("} ")?;
        (family, labels, rest)
    } else {
        let (family, rest) = line.split_once(' ')?;
        (family, "", rest)
    };
    let (value, time) = rest.split_once(' ')?;
    let label = |wanted: &str| {
        let mut pairs = labels.split("\",").filter_map(|pair| pair.split_once("=\""));
        pairs
            .find(|(key, _)| *key == wanted)
            .map(|(_, value)| value.trim_end_matches('"').to_owned())
    };
    let series = Series {
        family: family.to_owned(),
        namespace: label("namespace").unwrap_or_default(),
        pod: label("pod").unwrap_or_default(),
        container: label("container").unwrap_or_default(),
    };
    Some((series, time.trim().parse().ok()?, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_series_and_time() {
        let mut recording = Recording::default();
        recording.add(
            "# TYPE node_cpu_usage_seconds_total counter\n\
             node_cpu_usage_seconds_total 1385.615761514 1795452102716\n\
             container_memory_working_set_bytes{container=\"etcd\",namespace=\"kube-system\",pod=\"etcd-a\"} 3.1289344e+07 1795452103618\n\
             container_start_time_seconds{container=\"etcd\",namespace=\"kube-system\",pod=\"etcd-a\"} 1.7954518729262943e+09\n",
        );
        assert_eq!(recording.len(), 2);
        let etcd = Series {
            family: "container_memory_working_set_bytes".to_owned(),
            namespace: "kube-system".to_owned(),
            pod: "etcd-a".to_owned(),
            container: "etcd".to_owned(),
        };
        assert_eq!(
            recording.within_second(&etcd, 1_795_452_103_000),
            [1_795_452_103_618]
        );
        assert!(recording.within_second(&etcd, 1_795_452_104_000).is_empty());
        assert_eq!(recording.at(&etcd, 1_795_452_103_618), Some(31_289_344.0));
        assert_eq!(recording.at(&etcd, 1_795_452_103_617), None);
    }
}

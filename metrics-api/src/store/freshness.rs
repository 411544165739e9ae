//! How old the usages are that are answered: metrics-server's `metrics_server_api_metric_freshness_seconds`. A list has
//! a hundred thousand of them, so that counting one is two additions and takes no lock.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;

use crate::time::UnixMillis;

/// metrics-server's: from a second to six minutes.
const BUCKETS: usize = 20;
const FIRST: f64 = 1.0;
const FACTOR: f64 = 1.364;

/// A histogram of ages.
#[derive(Debug)]
pub struct Freshness {
    /// Upper bounds in milliseconds.
    bounds: [u64; BUCKETS],
    /// The last is for what is above all bounds.
    counts: [AtomicU64; BUCKETS + 1],
    total_millis: AtomicU64,
}

/// What was counted so far.
#[derive(Clone, Debug, PartialEq)]
pub struct Ages {
    /// Sum of all ages in seconds.
    pub sum: f64,
    /// How many there were.
    pub count: u64,
    /// Upper bound in seconds and count, of each bucket by itself. The last bound is infinite.
    pub buckets: Vec<(f64, u64)>,
}

impl Default for Freshness {
    fn default() -> Self {
        let mut bound = FIRST * 1000.0;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "from 1000 to 364310"
        )]
        let bounds = [(); BUCKETS].map(|()| {
            let this = bound as u64;
            bound *= FACTOR;
            this
        });
        Self {
            bounds,
            counts: [(); BUCKETS + 1].map(|()| AtomicU64::new(0)),
            total_millis: AtomicU64::new(0),
        }
    }
}

impl Freshness {
    /// A usage of that time is answered now.
    pub fn observe(&self, time: UnixMillis) {
        let age = Timestamp::now().as_millisecond().saturating_sub(time.0);
        self.observe_age(u64::try_from(age).unwrap_or(0));
    }

    fn observe_age(&self, millis: u64) {
        let at = self.bounds.partition_point(|bound| *bound < millis);
        if let Some(count) = self.counts.get(at) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        self.total_millis.fetch_add(millis, Ordering::Relaxed);
    }

    /// What was counted; nothing before the first answer, as there.
    #[must_use]
    pub fn ages(&self) -> Option<Ages> {
        let counts: Vec<_> = self
            .counts
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        let count = counts.iter().sum();
        // As Go's client library multiplies them out, so that they are the same to the last digit.
        let bounds = std::iter::successors(Some(FIRST), |bound| Some(bound * FACTOR)).take(BUCKETS);
        #[expect(
            clippy::cast_precision_loss,
            reason = "a sum that nobody reads to the last digit"
        )]
        let sum = self.total_millis.load(Ordering::Relaxed) as f64 / 1e3;
        (count > 0).then(|| Ages {
            sum,
            count,
            buckets: bounds.chain([f64::INFINITY]).zip(counts).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_counted_in_the_buckets_of_metrics_server() {
        let freshness = Freshness::default();
        assert_eq!(freshness.ages(), None);
        for millis in [0, 1000, 1001, 15_000, 364_000, 365_000, u64::from(u32::MAX)] {
            freshness.observe_age(millis);
        }
        let ages = freshness.ages().unwrap();
        assert_eq!(ages.count, 7);
        let bounds: Vec<_> = ages.buckets.iter().map(|(bound, _)| *bound).collect();
        assert_eq!(bounds.len(), 21);
        assert!(
            (bounds[1] - 1.364).abs() < 1e-9 && (bounds[19] - 364.31).abs() < 0.01,
            "{bounds:?}"
        );
        let full: Vec<_> = ages
            .buckets
            .iter()
            .enumerate()
            .filter(|(_, (_, count))| *count > 0)
            .map(|(at, (_, count))| (at, *count))
            .collect();
        assert_eq!(full, [(0, 2), (1, 1), (9, 1), (19, 1), (20, 2)]);
    }
}

//! Whether the clock of a node was set between two answers. Windows are measured by that clock, so that a step of a few
//! seconds would make a rate that never was.
//!
//! Every answer of a Go server carries the header `Date`: the node's time to the second, between the request and
//! the arrival of the answer. How far it is ahead of our own clock is thereby known within bounds, and when the
//! bounds of two answers lie apart the clock was set.

use super::series::Clock;
use crate::time::{Monotonic, UnixMillis};

/// How far the bounds of two answers must lie apart, in milliseconds. Clocks that are only disciplined move by less
/// than this between two answers.
const MARGIN: i64 = 1_000;
/// `Date` is cut to the second.
const DATE_ROUNDING: i64 = 999;
/// How old a sample may be that a kubelet serves from a cache, with room to spare.
const CACHED: u64 = 120_000;
/// How often in a row a clock is set that is still followed.
const MOST_SHOWN: usize = 8;
/// A sample may be this much younger than the header of its answer.
const AFTER_DATE: i64 = 2_000;

/// When an answer came about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// When it was asked for.
    pub sent: Monotonic,
    /// When it was here.
    pub at: Monotonic,
    /// When it was asked for by our wall clock: the time of samples that carry none.
    pub asked: UnixMillis,
    /// Its header `Date`.
    pub date: Option<UnixMillis>,
}

/// An answer that came at once and says nothing of its time.
impl From<Monotonic> for Arrival {
    fn from(at: Monotonic) -> Self {
        Self {
            sent: at,
            at,
            asked: UnixMillis(signed(at)),
            date: None,
        }
    }
}

/// What is known about the clock of one node.
#[derive(Debug, Default)]
pub(super) struct NodeClock {
    /// Bounds of how far it is ahead of ours.
    ahead: Option<(i64, i64)>,
    /// How far our wall clock is ahead of our steady one.
    own: Option<i64>,
    /// When it was last set, by its new time.
    set: Option<UnixMillis>,
    /// The latest times that it has shown before it was set, again and again, the newest first.
    shown: Vec<UnixMillis>,
    /// The latest time it has shown before it was set. What started up to then may have started by the old time.
    ages: Option<UnixMillis>,
    /// Until when samples of the time before may turn up.
    wary: Monotonic,
}

impl NodeClock {
    /// Takes in when an answer came about. Tells whether the clock that its samples go by was set since the last one:
    /// the node's, or ours where samples carry no time.
    pub(super) fn observe(&mut self, arrival: &Arrival, untimed: bool) -> bool {
        let own = arrival.asked.0.saturating_sub(signed(arrival.sent));
        let own_set = self
            .own
            .replace(own)
            .is_some_and(|before| own.abs_diff(before) > MARGIN.unsigned_abs());
        self.observe_date(arrival) || (untimed && own_set)
    }

    fn observe_date(&mut self, arrival: &Arrival) -> bool {
        let Some(date) = arrival.date else { return false };
        let at = signed(arrival.at);
        let least = date.0.saturating_sub(at);
        let most = date
            .0
            .saturating_add(DATE_ROUNDING)
            .saturating_sub(signed(arrival.sent));
        let Some((least_before, most_before)) = self.ahead.replace((least, most)) else {
            return false;
        };
        let apart = least > most_before.saturating_add(MARGIN) || most < least_before.saturating_sub(MARGIN);
        if !apart {
            return false;
        }
        if arrival.at > self.wary {
            self.shown.clear();
        }
        // The latest time of what was read before is what it would be now, and those of times that were set just
        // before. What is farther ahead than any cache reaches is told by its being in the future.
        let would_be = UnixMillis(most_before.saturating_add(at));
        self.shown.truncate(MOST_SHOWN - 1);
        self.shown.insert(0, would_be);
        let reach = UnixMillis(date.0.saturating_add(CACHED.cast_signed()));
        let within = self.shown.iter().copied().filter(|shown| *shown <= reach);
        let set = within.fold(UnixMillis(date.0.saturating_add(DATE_ROUNDING)), UnixMillis::max);
        self.set = Some(set);
        self.ages = self.ages.max(Some(set.max(would_be)));
        self.wary = Monotonic(arrival.at.0.saturating_add(CACHED));
        true
    }

    /// By what the samples of that answer are judged.
    pub(super) fn of(&self, arrival: &Arrival, untimed: bool) -> Clock {
        if untimed {
            return Clock::default();
        }
        let wary = arrival.at <= self.wary;
        Clock {
            set: self.set,
            ages: self.ages,
            now: arrival
                .date
                .filter(|_| wary)
                .map(|date| UnixMillis(date.0.saturating_add(AFTER_DATE))),
        }
    }
}

fn signed(at: Monotonic) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer that arrives after so many milliseconds, `latency` after it was asked for, at a node whose clock is
    /// so far ahead of ours.
    fn arrival(at: u64, latency: u64, ahead: i64) -> Arrival {
        let date = (i64::try_from(at).unwrap() + ahead).div_euclid(1000) * 1000;
        Arrival {
            sent: Monotonic(at - latency),
            at: Monotonic(at),
            asked: UnixMillis(i64::try_from(at - latency).unwrap()),
            date: Some(UnixMillis(date)),
        }
    }

    #[test]
    fn a_step_is_seen_and_an_unsteady_network_is_none() {
        for (ahead, then, latency, set) in [
            (0, 0, 0, false),
            (0, 0, 9_000, false),
            (700, -250, 10, false),
            (0, 3_100, 50, true),
            (0, -3_100, 50, true),
            (-9_000_000, 0, 50, true),
            (0, 20_000, 9_000, true),
        ] {
            let mut clock = NodeClock::default();
            assert!(!clock.observe(&arrival(100_000, 20, ahead), false));
            let second = clock.observe(&arrival(115_400, latency, then), false);
            assert_eq!(second, set, "{ahead} {then} {latency}");
            assert!(
                !clock.observe(&arrival(130_900, latency, then), false),
                "once only"
            );
        }
    }

    #[test]
    fn our_own_clock_matters_to_samples_without_a_time() {
        let own = |at: u64, ahead: i64| Arrival {
            asked: UnixMillis(i64::try_from(at).unwrap() + ahead),
            ..Monotonic(at).into()
        };
        for untimed in [false, true] {
            let mut clock = NodeClock::default();
            assert!(!clock.observe(&own(100_000, 0), untimed));
            assert!(!clock.observe(&own(115_000, 400), untimed));
            assert_eq!(clock.observe(&own(130_000, 60_000), untimed), untimed);
        }
    }

    #[test]
    fn after_a_step_samples_of_the_time_before_are_told_apart() {
        let mut clock = NodeClock::default();
        clock.observe(&arrival(100_000, 0, 0), false);
        clock.observe(&arrival(115_000, 0, -10_000), false);
        let judged = clock.of(&arrival(130_000, 0, -10_000), false);
        let (set, now) = (judged.set.unwrap(), judged.now.unwrap());
        // What was read at 115 s by the old clock at the latest; and what is in the future by the new one.
        assert!((115_000..117_000).contains(&set.0), "{set:?}");
        assert!((120_000..123_000).contains(&now.0), "{now:?}");
        assert_eq!(clock.of(&arrival(400_000, 0, -10_000), false).now, None);
    }
}

//! When a node is asked. Pure.
//!
//! Each node has its own place within the resolution, so that requests are spread evenly. A new node is asked soon
//! and then often, because a usage takes two samples and a kubelet renews its own only every ten seconds or so.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::Duration,
};

use crate::time::Monotonic;

/// Time between two of the first scrapes of a node. A first window must be 9 s long, and kubelet's samples change at
/// a moment that is not known beforehand: this finds the change at most this late.
const QUICK: u64 = 5_000;
/// Most of the first scrapes. Kubelet's samples are renewed at least once in (this - 1) x `QUICK`.
pub const QUICK_SCRAPES: u32 = 5;
/// The first scrapes of all nodes are spread by this for each node that is there already ...
const SPREAD_A_NODE: u64 = 2;
/// ... but over no longer than this.
const LONGEST_SPREAD: u64 = 4_000;

/// Time until a node with new containers is asked again: a first window, and some.
const EARLY: u64 = 10_000;
/// After that its place comes again, however near.
const AFTER_EARLY: u64 = 2_000;

/// How soon a node is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// When its turn comes.
    Place,
    /// Soon: there are new containers on it.
    Early,
    /// At once and again: it is new itself.
    Quick,
}

/// The rhythm of one node. Times are in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rhythm {
    resolution: u64,
    place: u64,
    hash: u64,
}

impl Rhythm {
    /// The rhythm of the node of that name.
    #[must_use]
    pub fn of(node: &str, resolution: Duration) -> Self {
        let mut hasher = DefaultHasher::new();
        node.hash(&mut hasher);
        let hash = hasher.finish();
        let resolution = u64::try_from(resolution.as_millis()).unwrap_or(u64::MAX).max(1);
        Self {
            resolution,
            place: hash % resolution,
            hash,
        }
    }

    /// When to ask for the first time, with so many other nodes there.
    #[must_use]
    pub fn first(&self, now: Monotonic, others: usize) -> Monotonic {
        let spread = (others as u64)
            .saturating_mul(SPREAD_A_NODE)
            .clamp(1, LONGEST_SPREAD);
        Monotonic(now.0 + self.hash % spread)
    }

    /// When to ask next, after a scrape that was started at `started` and was itself of the pace `last`.
    #[must_use]
    pub fn next(&self, started: Monotonic, now: Monotonic, pace: Pace, last: Pace) -> Monotonic {
        match pace {
            Pace::Quick => Monotonic((started.0 + QUICK.min(self.resolution)).max(now.0)),
            Pace::Early => Monotonic((started.0 + EARLY).max(now.0)).min(self.place(started, now, last)),
            Pace::Place => self.place(started, now, last),
        }
    }

    fn place(&self, started: Monotonic, now: Monotonic, last: Pace) -> Monotonic {
        // At least half a resolution later: a late start, or the end of the quick ones, moves nothing.
        let rest = match last {
            Pace::Early => AFTER_EARLY.min(self.resolution / 2),
            Pace::Place | Pace::Quick => self.resolution / 2,
        };
        let earliest = (started.0 + rest).max(now.0);
        let since_place = (earliest + self.resolution - self.place) % self.resolution;
        let wait = (self.resolution - since_place) % self.resolution;
        Monotonic(earliest + wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESOLUTION: Duration = Duration::from_secs(15);

    #[test]
    fn a_node_is_asked_once_a_resolution_at_its_place() {
        let rhythm = Rhythm::of("node-a", RESOLUTION);
        let mut started = rhythm.next(Monotonic(100_000), Monotonic(100_200), Pace::Place, Pace::Place);
        for lateness in [0, 30, 7_000, 1_200, 0] {
            let next = rhythm.next(
                Monotonic(started.0 + lateness),
                Monotonic(started.0 + lateness + 100),
                Pace::Place,
                Pace::Place,
            );
            assert_eq!(next.since(started), 15_000, "{lateness}");
            started = next;
        }
    }

    #[test]
    fn a_scrape_that_takes_too_long_skips_places_instead_of_piling_up() {
        let rhythm = Rhythm::of("node-a", RESOLUTION);
        let place = rhythm.next(Monotonic(100_000), Monotonic(100_000), Pace::Place, Pace::Place);
        let next = rhythm.next(place, Monotonic(place.0 + 31_000), Pace::Place, Pace::Place);
        assert_eq!(next.since(place), 45_000);
    }

    #[test]
    fn quick_scrapes_come_every_five_seconds_and_never_in_the_past() {
        let rhythm = Rhythm::of("node-a", RESOLUTION);
        assert_eq!(
            rhythm.next(Monotonic(1_000), Monotonic(1_100), Pace::Quick, Pace::Quick),
            Monotonic(6_000)
        );
        assert_eq!(
            rhythm.next(Monotonic(1_000), Monotonic(11_000), Pace::Quick, Pace::Quick),
            Monotonic(11_000)
        );
    }

    #[test]
    fn new_containers_bring_a_scrape_forward_and_leave_the_place_as_it_is() {
        let minute = Rhythm::of("node-a", Duration::from_mins(1));
        let place = minute.next(Monotonic(100_000), Monotonic(100_000), Pace::Place, Pace::Place);
        let early = minute.next(place, Monotonic(place.0 + 50), Pace::Early, Pace::Place);
        assert_eq!(early.since(place), 10_000);
        let next = minute.next(early, Monotonic(early.0 + 50), Pace::Place, Pace::Early);
        assert_eq!(next.since(place), 60_000);
        // Where the place is nearer than that, it is the place.
        let rhythm = Rhythm::of("node-a", RESOLUTION);
        let place = rhythm.next(Monotonic(100_000), Monotonic(100_000), Pace::Place, Pace::Place);
        let near = Monotonic(place.0 - 8_000);
        assert_eq!(rhythm.next(near, near, Pace::Early, Pace::Place), place);
    }

    #[test]
    fn nodes_are_spread_evenly() {
        let mut places = [0_u32; 15];
        for i in 0..1500 {
            let place = Rhythm::of(&format!("node-{i}"), RESOLUTION).place;
            places[usize::try_from(place / 1000).unwrap()] += 1;
        }
        assert!(places.iter().all(|nodes| (60..140).contains(nodes)), "{places:?}");
    }

    proptest::proptest! {
        #[test]
        fn the_next_scrape_is_neither_early_nor_late(
            name in "[a-z]{1,8}", started in 0_u64..10_000_000, took in 0_u64..12_000, resolution in 10_u64..120,
        ) {
            let rhythm = Rhythm::of(&name, Duration::from_secs(resolution));
            let next = rhythm.next(Monotonic(started), Monotonic(started + took), Pace::Place, Pace::Place);
            proptest::prop_assert!(next.0 >= started + took);
            proptest::prop_assert!(next.0 - started >= resolution * 500);
            proptest::prop_assert!(next.0 < started + took.max(resolution * 500) + resolution * 1000);
        }

        #[test]
        fn the_first_scrape_is_prompt(name in "[a-z]{1,8}", others in 0_usize..100_000) {
            let first = Rhythm::of(&name, RESOLUTION).first(Monotonic(5), others);
            proptest::prop_assert!((5..5 + LONGEST_SPREAD).contains(&first.0));
        }
    }
}

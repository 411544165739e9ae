//! Generated lives of a container on a node, with everything that a kubelet and a clock do to what is seen of it, and
//! whether each usage that is served was true.

use proptest::prelude::*;

use super::{
    series::{SHORTEST_WINDOW, Usage},
    *,
};
use crate::decode::Parts;

const RULES: Rules = Rules { resolution: 15_000 };
/// The node's clock at the beginning.
const CLOCK: i64 = 1_795_452_000_000;
/// Our clock at the beginning.
const OURS: u64 = 86_400_000;

/// Everything that can happen between two answers. Times are in milliseconds.
#[derive(Clone, Debug)]
struct Turn {
    gap: u64,
    latency: u64,
    /// How old the newest sample is when it is served.
    age: u64,
    sample: Sample,
    /// What the node's clock is set by, and when within the gap.
    step: i64,
    step_at: u64,
    /// Whether the container restarts, and when within the gap.
    restart: Option<u64>,
    memory: bool,
}

#[derive(Clone, Copy, Debug)]
enum Sample {
    New,
    /// The last one again.
    Same,
    /// One from before the last.
    Older,
    Missing,
}

/// One reading that the kubelet has made.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// When it was really made.
    truth: u64,
    time: i64,
    cpu: u64,
    life: usize,
}

/// What really happens on the node.
struct World {
    /// Usage in millicores of each second.
    curve: Vec<u64>,
    /// When the clock was set, and how far it is off since.
    clock: Vec<(u64, i64)>,
    /// When each life of the container began.
    lives: Vec<u64>,
}

impl World {
    fn node_time(&self, truth: u64) -> i64 {
        let off = self.clock.iter().rev().find(|(at, _)| *at <= truth).unwrap().1;
        CLOCK + i64::try_from(truth).unwrap() + off
    }

    fn usage(&self, second: u64) -> u64 {
        self.curve[usize::try_from(second).unwrap() % self.curve.len()]
    }

    /// CPU time in nanoseconds that was used between two moments.
    fn used(&self, from: u64, to: u64) -> u64 {
        let within = |second: u64| ((second + 1) * 1000).min(to) - (second * 1000).max(from);
        // A millicore for a millisecond is a microsecond of CPU time.
        (from / 1000..to.div_ceil(1000))
            .map(|second| within(second) * self.usage(second) * 1000)
            .sum()
    }

    /// The least and the most that was used between two moments, in nanocores.
    fn range(&self, from: u64, to: u64) -> (u64, u64) {
        let seconds = || (from / 1000..to.div_ceil(1000)).map(|second| self.usage(second) * 1_000_000);
        (seconds().min().unwrap(), seconds().max().unwrap())
    }

    /// Whether there were two readings of one life that far apart with that usage between them.
    fn confirms(&self, seen: &[Seen], usage: &Usage) -> bool {
        let from = usage.time.0 - i64::try_from(usage.window).unwrap();
        let ends = seen.iter().filter(|end| end.time == usage.time.0);
        ends.into_iter().any(|end| {
            let start = self.lives[end.life];
            let starts = seen
                .iter()
                .filter(|begin| begin.life == end.life && begin.time == from)
                .map(|begin| begin.truth);
            starts
                .chain((self.node_time(start) == from).then_some(start))
                .any(|begin| {
                    begin < end.truth && {
                        let (least, most) = self.range(begin, end.truth);
                        (least.saturating_sub(1)..=most).contains(&usage.cpu)
                    }
                })
        })
    }
}

fn turn(dated: bool) -> impl Strategy<Value = Turn> {
    let sample = prop_oneof![
        12 => Just(Sample::New),
        3 => Just(Sample::Same),
        1 => Just(Sample::Older),
        1 => Just(Sample::Missing),
    ];
    // Smaller steps than this are not told from an unsteady network.
    let step = if dated {
        prop_oneof![9 => Just(0_i64), 1 => 5_000..400_000_i64, 1 => -400_000..-5_000_i64].boxed()
    } else {
        Just(0).boxed()
    };
    let restart = proptest::option::weighted(0.15, 0_u64..1000);
    (
        (1_000_u64..40_000, 0_u64..400, 0_u64..30_000),
        (sample, step, 0_u64..1000),
        (restart, proptest::bool::weighted(0.9)),
    )
        .prop_map(
            |((gap, latency, age), (sample, step, step_at), (restart, memory))| Turn {
                gap,
                latency,
                age,
                sample,
                step,
                step_at: step_at * gap / 1000,
                restart: restart.map(|at| at * gap / 1000),
                memory,
            },
        )
}

fn histories() -> impl Strategy<Value = (Vec<u64>, Vec<Turn>, bool)> {
    let curve = proptest::collection::vec((0_u64..4_000, 1_usize..90), 1..8).prop_map(|segments| {
        segments
            .into_iter()
            .flat_map(|(usage, seconds)| std::iter::repeat_n(usage, seconds))
            .collect()
    });
    any::<bool>().prop_flat_map(move |dated| {
        (
            curve.clone(),
            proptest::collection::vec(turn(dated), 2..40),
            Just(dated),
        )
    })
}

/// An ordinary turn, of which a few must lead to a usage whatever was before.
fn ordinary() -> Turn {
    Turn {
        gap: 15_000,
        latency: 20,
        age: 1_000,
        sample: Sample::New,
        step: 0,
        step_at: 0,
        restart: None,
        memory: true,
    }
}

proptest! {
    #[test]
    fn what_is_served_was_true((curve, turns, dated) in histories()) {
        let store = Store::new(RULES, Names::default());
        let mut world = World { curve, clock: vec![(0, 0)], lives: vec![20_000] };
        let mut seen: Vec<Seen> = Vec::new();
        let mut now = 60_000;
        // A step before the first answer, and samples of the time before it in a cache: nothing tells of that.
        let turns = std::iter::once(ordinary()).chain(turns).chain(std::iter::repeat_n(ordinary(), 12));
        for turn in turns {
            let before = now;
            now += turn.gap;
            if turn.step != 0 {
                let off = world.clock.last().unwrap().1 + turn.step;
                world.clock.push((before + turn.step_at, off));
            }
            if let Some(at) = turn.restart {
                world.lives.push(before + at);
            }
            let life = world.lives.len() - 1;
            let newest = (now - turn.age.min(now)).max(world.lives[life]);
            let fresh = Seen {
                truth: newest,
                time: world.node_time(newest),
                cpu: world.used(world.lives[life], newest),
                life,
            };
            let of_this_life: Vec<_> = seen.iter().rev().filter(|seen| seen.life == life).copied().collect();
            let served = match turn.sample {
                Sample::New => Some(fresh),
                Sample::Same => Some(of_this_life.first().copied().unwrap_or(fresh)),
                // No cache holds anything for longer.
                Sample::Older => of_this_life.get(1).copied().filter(|old| now - old.truth < 60_000),
                Sample::Missing => None,
            };
            // A cache holds nothing across that either.
            let served = served.filter(|served| now - served.truth < 60_000);
            let parts = served.map_or_else(Parts::default, |served| Parts {
                cpu: Some((UnixMillis(served.time), served.cpu)),
                memory: turn.memory.then_some((UnixMillis(served.time), 7)),
                start: Some(UnixMillis(world.node_time(world.lives[served.life]))),
                swap: None,
            });
            seen.extend(served);
            let batch = Batch {
                containers: vec![decode::Container {
                    namespace: "n".into(),
                    pod: "p".into(),
                    name: "c".into(),
                    parts,
                }],
                complete: true,
                ..Batch::default()
            };
            let date = world.node_time(now).div_euclid(1000) * 1000;
            let arrival = Arrival {
                sent: Monotonic(OURS + now - turn.latency.min(turn.gap)),
                at: Monotonic(OURS + now),
                asked: UnixMillis(CLOCK + i64::try_from(now).unwrap()),
                date: dated.then_some(UnixMillis(date)),
            };
            store.put("node", &batch, arrival);
            let view = store.read();
            let usage = view.inner.entries[0].as_ref().unwrap().containers().next().unwrap();
            if let Some(usage) = usage.series.usage() {
                prop_assert!(usage.window >= SHORTEST_WINDOW);
                prop_assert!(world.confirms(&seen, usage), "{usage:?} of {seen:?} {:?} {:?}", world.clock, world.lives);
            }
        }
        let at = Monotonic(OURS + now);
        prop_assert!(store.read().pod(&PodKey::new("n", "p"), Monotonic(0), at).is_some(), "nothing is served any more");
    }
}
